"""A graph in one mode with the time that firings take: what self-timed analyses use.

Conventions, which change the numbers and are therefore said:

- A firing takes its input tokens when it starts and gives its output tokens when it
  ends. An actor starts as soon as it can (self-timed execution).
- A firing claims space in a bounded FIFO when it starts and frees what it read when it
  ends. So a bounded FIFO is a second one, backwards, that holds the free places.
- A FIFO from an actor to itself with room for n firings lets n of them overlap; without
  one they overlap without limit, unless `one_at_a_time` is asked for.
- An actor that a mode turns off takes no time.

Times are integers: all are scaled by the least common denominator.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from dataflow.balance import AnalysisError, Modes, mode_graph, repetitions
from dataflow.graph import Fifo, Graph, PortRef


@dataclass(frozen=True, slots=True)
class Timed:
    """Actors and edges as integers; entry i of each list belongs to actor or edge i."""

    actors: tuple[str, ...]
    counts: list[int]
    """The repetition vector."""
    times: list[int]
    limits: list[int | None]
    """Firings of an actor that may overlap."""
    scale: int
    """Units of `times` in one time unit."""
    source: list[int]
    target: list[int]
    produced: list[int]
    consumed: list[int]
    tokens: list[int]
    fifo: list[Fifo]
    """What holds the edge's tokens, or its free places."""
    backward: list[bool]
    """Whether the edge is one of free places."""

    def awaited(self, edge: int, firing: int) -> int:
        """Return the firing of an edge's source that brings what the target's takes.

        Firings count from 0; a negative one is not waited for.
        """
        needed = (firing + 1) * self.consumed[edge] - self.tokens[edge]
        return -(-needed // self.produced[edge]) - 1


def timed(
    graph: Graph,
    modes: Modes | None = None,
    capacities: Mapping[Fifo, int] | None = None,
    *,
    one_at_a_time: bool = False,
) -> Timed:
    """Return `graph` in one mode, bounded by `capacities` if they are given.

    Raises:
        RateError: There is no repetition vector.
        AnalysisError: An actor has no `time`, or a FIFO less room than initial tokens.
    """
    mode = mode_graph(graph, modes)
    counts = repetitions(mode)
    awake = [name for name in mode.actors if counts[name]]
    index = {name: i for i, name in enumerate(awake)}
    exact = [_time(graph, name, modes or {}) for name in awake]
    scale = math.lcm(*(time.denominator for time in exact))
    found = Timed(
        tuple(awake),
        [counts[name] for name in awake],
        [int(time * scale) for time in exact],
        [1 if one_at_a_time else None] * len(awake),
        scale,
        *([], [], [], [], []),
        fifo=[],
        backward=[],
    )
    for fifo, produced, consumed in zip(
        mode.fifos, mode.produced, mode.consumed, strict=True
    ):
        source, target = fifo.source.actor, fifo.target.actor
        if source not in index:
            continue
        if source == target:
            _limit(found, index[source], fifo.delay // consumed)
            continue
        ends = index[source], index[target]
        _edge(found, *ends, produced, consumed, fifo.delay, fifo, backward=False)
        if capacities is not None:
            free = capacities[fifo] - fifo.delay
            if free < 0:
                raise AnalysisError(
                    f"fifo {fifo}",
                    f"capacity {capacities[fifo]} is less than its {fifo.delay} "
                    "initial tokens",
                    f"raise it to {fifo.delay}",
                )
            ends = index[target], index[source]
            _edge(found, *ends, consumed, produced, free, fifo, backward=True)
    return found


def _time(graph: Graph, name: str, modes: Modes) -> Fraction:
    actor = graph.actors[name]
    if actor.time is None:
        raise AnalysisError(
            f"actor '{name}'",
            "has no execution time",
            "give it one, such as `time: 2`, to have throughput and latency",
        )
    dynamic = [
        (dpg, PortRef(name, port.name))
        for dpg in graph.dpgs
        if name in dpg.members and name != dpg.controller
        for port in actor.ports
        if not port.control
    ]
    off = bool(dynamic) and all(
        ref in dpg.playing and modes[dpg.name] not in dpg.playing[ref]
        for dpg, ref in dynamic
    )
    return Fraction(0 if off else actor.time)


def _limit(found: Timed, actor: int, firings: int) -> None:
    known = found.limits[actor]
    found.limits[actor] = firings if known is None else min(known, firings)


def _edge(
    found: Timed,
    source: int,
    target: int,
    produced: int,
    consumed: int,
    tokens: int,
    fifo: Fifo,
    *,
    backward: bool,
) -> None:
    found.source.append(source)
    found.target.append(target)
    found.produced.append(produced)
    found.consumed.append(consumed)
    found.tokens.append(tokens)
    found.fifo.append(fifo)
    found.backward.append(backward)
