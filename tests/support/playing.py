"""Random graphs at play: in the engine, and token by token without it."""

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dataflow.analysis import (
    DeadlockError,
    capacities,
    mode_combinations,
    repetition_vector,
    schedule,
)
from dataflow.balance import Modes, mode_graph, repetitions
from dataflow.behaviour import Behaviour, Site
from dataflow.enclosure import broken_regions
from dataflow.engine import Chain
from dataflow.execution import Execution
from dataflow.graph import Fifo, Graph, PortRef

SITE = Site("here", "here", 0, Path(), None, 8)
ITERATIONS = 50


class Player(Behaviour):
    """Moves numbers at the rates of the mode; a controller names the mode played."""

    def __init__(self, graph: Graph, name: str, play: "Play") -> None:
        super().__init__({}, SITE)
        self._graph = graph
        self._name = name
        self._play = play
        ports = graph.actors[name]
        self._ins = [PortRef(name, p.name) for p in ports.inputs if not p.control]
        self._outs = [PortRef(name, p.name) for p in ports.outputs if not p.control]
        self._governs = next((d for d in graph.dpgs if d.controller == name), None)

    def fire(self, *tokens: object) -> object:
        play, graph = self._play, self._graph
        play.fired[self._name] = play.fired.get(self._name, 0) + 1
        for ref, token in zip(self._ins, tokens, strict=True):
            rate = graph.rate(ref, play.modes)
            assert isinstance(token, int) if rate == 1 else len(token) == rate  # type: ignore[arg-type]
        play.watch(self._outs)
        made: list[object] = []
        for ref in self._outs:
            rate = graph.rate(ref, play.modes)
            made.append(7 if rate == 1 else [7] * rate)
        if self._governs is not None:
            mode = play.modes[self._governs.name]
            made.append(list(self._governs.modes).index(mode))
        return made[0] if len(made) == 1 else tuple(made) or None


class Play:
    """A graph that the engine runs, one combination of modes per iteration."""

    def __init__(self, graph: Graph, sized: Mapping[Fifo, int] | None = None) -> None:
        self.graph = graph
        self.sized = sized or capacities(graph)
        self.modes: Modes = {}
        self.fired: dict[str, int] = {}
        players = {name: Player(graph, name, self) for name in graph.actors}
        self.chain = Chain(
            graph, list(graph.actors), players, (), (), capacities=self.sized
        )

    def watch(self, writes: Iterable[PortRef] = ()) -> None:
        """No FIFO holds, or is about to get, more tokens than was proven."""
        fill = self.chain.fill()
        for ref in writes:
            fill[self.graph.fifo_from[ref]] += self.graph.rate(ref, self.modes)
        for fifo, tokens in fill.items():
            assert tokens <= self.sized[fifo], fifo

    def iterate(self, modes: Modes) -> None:
        self.modes, self.fired = modes, {}
        self.chain.run(())
        counts = repetition_vector(self.graph, modes)
        for name, count in counts.items():  # who is off is not called
            assert self.fired.get(name, 0) in {count, 0}
        assert self.chain.fill() == {fifo: fifo.delay for fifo in self.graph.fifos}


def mode_sequence(graph: Graph, rnd: random.Random) -> list[Modes]:
    """Return modes for at least 50 iterations: each combination, in random order."""
    every = list(mode_combinations(graph))
    found = [*every, *(rnd.choice(every) for _ in range(ITERATIONS - len(every)))]
    rnd.shuffle(found)
    return found


def stuck_actors(graph: Graph, modes: Modes, rnd: random.Random) -> set[str]:
    """Fire any enabled actor, one at a time, in random order, until none is left."""
    left = repetition_vector(graph, modes)
    tokens = {fifo: fifo.delay for fifo in graph.fifos}

    def enabled(name: str) -> bool:
        return left[name] > 0 and all(
            tokens[f] >= graph.rate(f.target, modes) for f in graph.inputs(name)
        )

    while able := [name for name in graph.actors if enabled(name)]:
        name = rnd.choice(able)
        left[name] -= 1
        for fifo in graph.inputs(name):
            tokens[fifo] -= graph.rate(fifo.target, modes)
        for fifo in graph.outputs(name):
            tokens[fifo] += graph.rate(fifo.source, modes)
    return {name for name, count in left.items() if count}


def with_tokens(graph: Graph, extra: Mapping[Fifo, int]) -> Graph:
    """Return the graph with more initial tokens."""
    fifos = (replace(f, delay=f.delay + extra.get(f, 0)) for f in graph.fifos)
    return replace(graph, fifos=tuple(fifos))


def deadlock_of(graph: Graph, modes: Modes) -> DeadlockError | None:
    try:
        schedule(graph, modes)
    except DeadlockError as error:
        return error
    return None


def cured(graph: Graph) -> Graph:
    """Return the graph with what is proposed for all of its modes together."""
    extra: dict[Fifo, int] = {}
    for modes in mode_combinations(graph):
        if (error := deadlock_of(graph, modes)) is not None:
            for fifo, tokens in error.extra.items():
                extra[fifo] = max(extra.get(fifo, 0), tokens)
    return with_tokens(graph, extra)


def assert_least(graph: Graph, modes: Modes, error: DeadlockError) -> None:
    """Fewer tokens do not do, wherever they are, and none can be left out."""

    def live(extra: Mapping[Fifo, int]) -> bool:
        mode = mode_graph(with_tokens(graph, extra), modes)
        return Execution(mode, list(repetitions(mode).values())).run()

    assert live(error.extra)
    for fifo, tokens in error.extra.items():
        assert not live({**error.extra, fifo: tokens - 1})
    total = sum(error.extra.values())
    if error.exact and total <= 3:
        data = [f for f in graph.fifos if not graph.port(f.source).control]
        if graph.dpgs and not any(broken_regions(graph, f) for f in error.extra):
            # Where they break a region open, fewer might do.
            data = [fifo for fifo in data if not broken_regions(graph, fifo)]
        for chosen in itertools.combinations_with_replacement(data, total - 1):
            assert not live({fifo: chosen.count(fifo) for fifo in chosen})
