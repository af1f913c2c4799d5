"""What is known of a graph before it runs: counts, schedules, capacities.

`repetition_vector` (R8) and `schedule` (R10) come from the modules beside this one;
`capacities` (R11) sizes FIFOs so that every mode is live. Everything is exact integer
arithmetic.
"""

import math
from collections.abc import Mapping
from contextlib import suppress

from dataflow.balance import (
    AnalysisError,
    ModeGraph,
    RateError,
    mode_graph,
    parts,
    repetition_vector,
    repetitions,
)
from dataflow.deadlock import DeadlockError, deadlock, least
from dataflow.execution import Execution, Starved
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


def capacities(graph: Graph) -> dict[Fifo, int]:
    """Return a capacity for every FIFO such that each combination of modes is live.

    A declared capacity is kept. Others start from the least that their two actors
    need, the largest over the modes; where the whole still stops, as skip connections
    do, the FIFO on the cycle of waiting that costs the fewest bytes per firing grows.
    What grew is cut back to the least that works with the others as they are. So no
    capacity can be lowered alone, but another choice may have a smaller sum.

    Switching modes is safe: between iterations every FIFO holds its initial tokens.

    Raises:
        RateError: A mode has no repetition vector.
        DeadlockError: A mode is not live with unbounded FIFOs either.
        CapacityError: It is, but not with the declared capacities.
    """
    sized: dict[Fifo, int] = {}
    for part in parts(graph):
        sized.update(_size(part))
    return {fifo: sized[fifo] for fifo in graph.fifos}


def _size(part: Graph) -> dict[Fifo, int]:
    """Size one weakly connected part: for all modes at once, or for one by one.

    What suffices at once suffices in every mode. It is also the least if no FIFO had to
    grow beyond what its two actors need. Otherwise the modes are looked at one by one,
    unless that is too much work: then the sizes may be larger than the modes need.
    """
    together = at_once(part)
    counts = shared_counts(part, together)
    if counts is not None:
        every: _Counted = [({}, together, list(counts.values()))]
        sized = _pairwise(part, [together])
        alone = not part.dpgs
        if alone or (_fits(sized) and _run(every, sized)):
            return _grown(part, every)
        combinations = math.prod(len(dpg.modes) for dpg in part.dpgs)
        with suppress(CapacityError, DeadlockError):
            if combinations * len(part.actors) > ONE_BY_ONE_MAX:
                return _grown(part, every)
    one_by_one: _Counted = []
    for modes in mode_combinations(part):
        mode = mode_graph(part, modes)
        one_by_one.append((modes, mode, list(repetitions(mode).values())))
    return _grown(part, one_by_one)


_Counted = list[tuple[dict[str, str], ModeGraph, list[int]]]
"""Modes, the graph in them, and its repetition vector."""


def _fits(sized: Mapping[Fifo, int]) -> bool:
    return all(f.capacity is None or n <= f.capacity for f, n in sized.items())


def _run(counted: _Counted, sized: Mapping[Fifo, int]) -> bool:
    return all(Execution(mode, counts, sized).run() for _, mode, counts in counted)


def _grown(part: Graph, counted: _Counted) -> dict[Fifo, int]:
    sized = _pairwise(part, [mode for _, mode, _ in counted])
    start = dict(sized)
    failing = ""
    for modes, mode, counts in counted:
        before = dict(sized)
        _grow(part, Execution(mode, counts, sized), sized)
        if modes and not failing and sized != before:
            failing = " with " + ", ".join(
                f"'{dpg}' in mode '{name}'" for dpg, name in modes.items()
            )
    for fifo in [f for f in sized if sized[f] > start[f]]:

        def live(places: int, fifo: Fifo = fifo) -> bool:
            return _run(counted, {**sized, fifo: places})

        sized[fifo] = least(live, start[fifo], sized[fifo])
    raises = {
        fifo: places
        for fifo, places in sized.items()
        if fifo.capacity is not None and places > fifo.capacity
    }
    if raises:
        raise CapacityError(raises, sized, failing)
    return sized


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


def _grow(part: Graph, execution: Execution, sized: dict[Fifo, int]) -> None:
    """Run to the end, giving space wherever that is what stops it."""
    index = {fifo: i for i, fifo in enumerate(execution.mode.fifos)}

    def cost(full: Starved) -> tuple[bool, int]:
        # A declared capacity grows only where nothing else can; it is then reported.
        token = part.token(full.fifo)
        places = full.needs - full.has
        return full.fifo.capacity is not None, places * (token.nbytes if token else 1)

    while not execution.run():
        full = [s for s in execution.cycle() if s.lacks == "space"]
        if not full:
            raise deadlock(execution)
        wanted = min(full, key=cost)
        more = wanted.needs - wanted.has
        sized[wanted.fifo] += more
        execution.add_space(index[wanted.fifo], more)
