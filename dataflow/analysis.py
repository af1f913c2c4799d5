"""What is known of a graph before it runs: counts, schedules, capacities.

`repetition_vector` (R8) and `schedule` (R10) come from the modules beside this one;
`capacities` (R11) sizes FIFOs so that every mode is live. Everything is exact integer
arithmetic.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from dataflow.balance import (
    AnalysisError,
    ModeGraph,
    RateError,
    mode_graph,
    parts,
    repetition_vector,
    repetitions,
)
from dataflow.blocks import blocks
from dataflow.cure import Cost, Cure, cure
from dataflow.deadlock import DeadlockError, deadlock
from dataflow.execution import Execution, Starved, alone
from dataflow.graph import Fifo, Graph
from dataflow.modes import (
    at_once,
    mode_combinations,
    shared_counts,
)
from dataflow.schedule import Schedule, schedule

__all__ = [
    "AnalysisError",
    "CapacityError",
    "DeadlockError",
    "RateError",
    "Schedule",
    "Starved",
    "capacities",
    "least_capacity",
    "mode_combinations",
    "parts",
    "repetition_vector",
    "schedule",
]


ONE_BY_ONE_MAX = 50_000
"""Modes times actors up to which FIFOs are sized for each mode for itself."""


class CapacityError(AnalysisError):
    """Declared capacities are too small for an iteration to complete (R11).

    Attributes:
        raises: FIFO -> capacity that it needs; the other FIFOs may stay as they are.
        sized: Capacities with `raises` applied: live in every mode.
        where: In which mode they are too small, for the message.
    """

    def __init__(
        self, raises: Mapping[Fifo, int], sized: Mapping[Fifo, int], where: str
    ) -> None:
        first = next(iter(raises))
        more = f" (and {len(raises) - 1} more)" if len(raises) > 1 else ""
        fix = " and ".join(
            f"raise the capacity of fifo {fifo} to {need}"
            for fifo, need in raises.items()
        )
        super().__init__(
            f"fifo {first}",
            f"capacity {first.capacity}{more} is too small: deadlock{where}",
            fix,
        )
        self.raises = raises
        self.sized = sized
        self.where = where


def least_capacity(produced: int, consumed: int, delay: int) -> int:
    """Return the least capacity of a FIFO with which its two actors alone are live.

    Necessary in any graph; not sufficient where paths diverge and meet again, which is
    why `capacities` executes the whole.

    Source:
        Bhattacharyya, Murthy, Lee, "Software Synthesis from Dataflow Graphs", 1996.

    >>> least_capacity(2, 3, 0)
    4
    """
    divisor = math.gcd(produced, consumed)
    spread = produced + consumed - divisor
    if delay < spread:
        return max(produced, consumed, delay, spread + delay % divisor)
    return max(produced, consumed, delay)


@dataclass(frozen=True, slots=True)
class Room:
    """Capacities with which every combination of modes is live."""

    capacities: Mapping[Fifo, int]
    exact: bool
    """Whether no others, declared ones kept, have fewer places in all. If not, none can
    be lowered by itself."""


def capacities(graph: Graph) -> Mapping[Fifo, int]:
    """Return a capacity for every FIFO such that each combination of modes is live.

    They are those of `least_room`, which says more and what is raised.
    """
    return least_room(graph).capacities


def least_room(graph: Graph) -> Room:
    """Return the fewest places with which each combination of modes is live.

    A declared capacity is kept. Others start from the least that their two actors need,
    the largest over the modes. Where the whole still stops, as skip connections do,
    `dataflow.cure` finds the cheapest places to add: the fewest, then those of the
    fewest bytes. Each biconnected part is looked at for itself.

    Switching modes is safe: between iterations every FIFO holds its initial tokens.

    Raises:
        RateError: A mode has no repetition vector.
        DeadlockError: A mode is not live with unbounded FIFOs either.
        CapacityError: It is, but not with the declared capacities.
    """
    sized: dict[Fifo, int] = {}
    raises: dict[Fifo, int] = {}
    failing = ""
    exact = True
    for part in parts(graph):
        try:
            room = _size(part)
        except CapacityError as error:
            raises.update(error.raises)
            failing = failing or error.where
            sized.update(error.sized)
        else:
            sized.update(room.capacities)
            exact = exact and room.exact
    if raises:
        raise CapacityError(raises, sized, failing)
    return Room({fifo: sized[fifo] for fifo in graph.fifos}, exact)


def _size(part: Graph) -> Room:
    """Size one weakly connected part: for all modes at once, or for one by one.

    What suffices at once suffices in every mode. It is also the least if no FIFO had to
    grow beyond what its two actors need. Otherwise the modes are looked at one by one,
    unless that is too much work: then the sizes may be larger than the modes need.
    """
    together = at_once(part)
    counts = shared_counts(part, together)
    if counts is not None:
        every: _Counted = [({}, together, list(counts.values()))]
        if not part.dpgs:
            return _enough(part, every)
        sized = _pairwise(part, [together])
        combinations = math.prod(len(dpg.modes) for dpg in part.dpgs)
        with suppress(CapacityError, DeadlockError):
            if _fits(sized) and not any(_stuck(part, every, sized)):
                return Room(sized, exact=True)
            if combinations * len(part.actors) > ONE_BY_ONE_MAX:
                return replace(_enough(part, every), exact=False)
    one_by_one: _Counted = []
    for modes in mode_combinations(part):
        mode = mode_graph(part, modes)
        one_by_one.append((modes, mode, list(repetitions(mode).values())))
    return _enough(part, one_by_one)


_Counted = list[tuple[dict[str, str], ModeGraph, list[int]]]
"""Modes, the graph in them, and its repetition vector."""


def _fits(sized: Mapping[Fifo, int]) -> bool:
    return all(f.capacity is None or n <= f.capacity for f, n in sized.items())


def _enough(part: Graph, counted: _Counted) -> Room:
    sized = _pairwise(part, [mode for _, mode, _ in counted])
    start = dict(sized)
    exact = True
    failing: dict[str, None] = {}
    for stuck in _stuck(part, counted, start):
        found = _cured(part, [execution for _, execution in stuck])
        exact = exact and found.exact
        for fifo, more in found.gifts.items():
            sized[fifo] += more
        failing.update((_named(modes), None) for modes, _ in stuck)
    raises = {f: n for f, n in sized.items() if f.capacity and n > f.capacity}
    if raises:
        raise CapacityError(raises, sized, next(iter(failing), ""))
    return Room(sized, exact)


def _stuck(
    part: Graph, counted: _Counted, sized: Mapping[Fifo, int]
) -> Iterator[list[tuple[dict[str, str], Execution]]]:
    """Yield, for each block that is not live, the modes in which it is stuck.

    Raises:
        DeadlockError: It is not live with unbounded FIFOs either.
    """
    for block in blocks(part.fifos):
        if len(block) == 1 and block[0].capacity is None:
            continue  # what its two actors need is enough
        stuck = []
        for modes, mode, counts in counted:
            entries = [i for fifo in block for i in mode.entries.get(fifo, ())]
            execution = alone(mode, counts, entries, sized)
            if not execution.run():
                if not execution.unbounded().run():
                    raise _deadlocked(part, mode, counts)
                stuck.append((modes, execution))
        if stuck:
            yield stuck
    for _, mode, counts in counted:
        for i, (source, target) in enumerate(
            zip(mode.source, mode.target, strict=True)
        ):
            lacks = mode.fifos[i].delay < mode.consumed[i]
            if source == target and lacks and counts[source]:
                raise _deadlocked(part, mode, counts)


def _deadlocked(part: Graph, mode: ModeGraph, counts: list[int]) -> DeadlockError:
    execution = Execution(mode, counts)
    execution.run()
    return deadlock(execution, part)


def _named(modes: Mapping[str, str]) -> str:
    named = ", ".join(f"'{dpg}' in mode '{name}'" for dpg, name in modes.items())
    return f" with {named}" if named else ""


def _cured(part: Graph, stuck: list[Execution]) -> Cure:
    """Return the places that a block lacks beside those it has."""

    def price(fifo: Fifo, places: int) -> Cost:
        # A declared capacity grows only where nothing else can; it is then reported.
        declared = places if fifo.capacity is not None else 0
        token = part.token(fifo)
        return declared, places, places * (token.nbytes if token else 1)

    found = cure(stuck, "space", price)
    assert found is not None  # with unbounded FIFOs it is live
    return found


def _pairwise(part: Graph, modes: list[ModeGraph]) -> dict[Fifo, int]:
    """Return declared capacities, others by `least_capacity` over the modes."""
    sized = {fifo: max(fifo.capacity or 1, fifo.delay) for fifo in part.fifos}
    for mode in modes:
        rates = zip(mode.fifos, mode.produced, mode.consumed, strict=True)
        for fifo, produced, consumed in rates:
            if fifo.source.actor == fifo.target.actor:
                needed = max(fifo.delay, consumed)
            else:
                needed = least_capacity(produced, consumed, fifo.delay)
            if fifo.capacity is None:
                sized[fifo] = max(sized[fifo], needed)
    return sized
