"""How much room buys how much throughput: the Pareto front of FIFO capacities.

For each total of places, the most throughput that any distribution of them over the
FIFOs gives. The search starts with what each FIFO needs by itself. Wherever a firing
waits for room, for ever again, more throughput needs more room in one of those FIFOs;
so the distributions that have one of them larger are tried next, in the order of their
totals. That leaves out no point of the front.

Where there are too many distributions, only the ends of the front are given: the least
room that is live (`dataflow.analysis.least_room`), and that of a schedule with full
throughput (`dataflow.periodic`). Their totals are upper bounds, and what no total can
be below is said with each.

FIFOs from an actor to itself are left out of totals: they never need more room than
their initial tokens.

Source:
    Stuijk, Geilen, Basten, "Exploring Trade-Offs in Buffer Requirements and Throughput
    Constraints for Synchronous Dataflow Graphs", DAC 2006.
"""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from dataflow.analysis import least_capacity, least_room
from dataflow.balance import AnalysisError, Modes, mode_graph, repetitions
from dataflow.execution import Execution
from dataflow.graph import Fifo, Graph
from dataflow.periodic import roomy
from dataflow.throughput import Pace, pace
from dataflow.timed import timed

DISTRIBUTIONS_MAX = 5_000
"""Distributions that are tried before the exact front is given up."""
WORK_MAX = 800_000
"""Distributions times what one costs: its firings, and ten for each FIFO. Seconds."""


@dataclass(frozen=True, slots=True)
class Point:
    """Capacities, and the throughput that they give."""

    capacities: Mapping[Fifo, int]
    throughput: Fraction | None
    """Iterations per time unit; None: nothing bounds it."""
    at_least: int
    """Places in all that no capacities with this throughput have fewer than."""

    @property
    def total(self) -> int:
        """Places in all FIFOs but those from an actor to itself."""
        return sum(
            places
            for fifo, places in self.capacities.items()
            if fifo.source.actor != fifo.target.actor
        )


@dataclass(frozen=True, slots=True)
class Front:
    """From the least room with which the graph is live to that for full throughput."""

    points: tuple[Point, ...]
    """With more places each, and more throughput."""
    exact: bool
    """Whether no smaller total gives the same throughput, and no point is missing. If
    not, the points are the first and the last; of very large graphs the first only."""
    most: Fraction | None
    """Throughput in unbounded FIFOs; None: nothing bounds it."""


def front(
    graph: Graph, modes: Modes | None = None, *, one_at_a_time: bool = False
) -> Front:
    """Return the Pareto front of total capacity and throughput in one mode.

    Declared capacities are disregarded. All actors need a `time`.

    Raises:
        RateError: There is no repetition vector.
        DeadlockError: No capacities make it live.
        AnalysisError: An actor has no time, the state space is too large, or the more
            room the more throughput, without end.
    """
    search = _Search(graph, modes, one_at_a_time=one_at_a_time)
    search.check_end()
    if search.tries == DISTRIBUTIONS_MAX:
        return search.exact() or search.ends()
    ends = search.ends()  # tells whether the exact search is worth its while
    return (search.exact() if search.near(ends) else None) or ends


class _Search:
    def __init__(
        self, graph: Graph, modes: Modes | None, *, one_at_a_time: bool
    ) -> None:
        free = tuple(Fifo(f.source, f.target, None, f.delay) for f in graph.fifos)
        self._declared = dict(zip(free, graph.fifos, strict=True))
        self._graph = Graph(graph.name, graph.actors, free, graph.dpgs)
        self._timed = partial(timed, self._graph, modes, one_at_a_time=one_at_a_time)
        unbounded = self._timed()
        self._most = pace(unbounded).throughput
        room = least_room(self._graph)  # or no capacities are live
        self._live = room.capacities
        self._floor: dict[Fifo, int] = {}
        self._step: dict[Fifo, int] = {}
        self._mode = mode = mode_graph(self._graph, modes)
        self._counts = list(repetitions(mode).values())
        rates = dict(
            zip(mode.fifos, zip(mode.produced, mode.consumed, strict=True), strict=True)
        )
        for fifo in free:
            produced, consumed = rates.get(fifo, (1, 1))
            if fifo.source.actor == fifo.target.actor or fifo not in rates:
                self._floor[fifo] = max(fifo.delay, 1)
            else:
                self._floor[fifo] = least_capacity(produced, consumed, fifo.delay)
                # The fill moves in steps of the divisor; places between are of no use.
                self._step[fifo] = math.gcd(produced, consumed)
        self._place = {fifo: i for i, fifo in enumerate(self._step)}
        exact = room.exact and not graph.dpgs
        least = self._live if exact else self._floor
        self._live_at_least = sum(least[fifo] for fifo in self._step)
        work = sum(unbounded.counts) + 10 * len(self._step)
        self.tries = min(DISTRIBUTIONS_MAX, WORK_MAX // work)
        """Distributions that the exact search may try."""

    def check_end(self) -> None:
        """Raise an error if nothing but room bounds the throughput."""
        if self._most is None and self._pace(self._live).throughput is not None:
            raise AnalysisError(
                f"graph '{self._graph.name}'",
                "nothing but the room in its FIFOs bounds its throughput, since "
                "firings of an actor may overlap without limit",
                "let an actor fire one at a time, by a FIFO to itself with one token",
            )

    def _pace(self, sized: Mapping[Fifo, int]) -> Pace:
        return pace(self._timed(sized), at_most=self._most)

    def _point(self, sized: Mapping[Fifo, int], found: Fraction | None) -> Point:
        point = Point({self._declared[f]: n for f, n in sized.items()}, found, 0)
        return replace(point, at_least=point.total)

    def exact(self) -> Front | None:
        """Return the whole front, or None if that is too much work."""
        fifos = list(self._step)
        start = tuple(self._floor[fifo] for fifo in fifos)
        waiting = [(sum(start), start)]
        seen = {start}
        points: list[Point] = []
        best: tuple[Fraction | None, Mapping[Fifo, int]] = (Fraction(0), {})
        total = sum(start)
        for _ in range(self.tries):
            if not waiting:
                break
            if waiting[0][0] > total:
                total = waiting[0][0]
                if _more(best[0], points[-1].throughput if points else Fraction(0)):
                    points.append(self._point(best[1], best[0]))
                    if best[0] == self._most:
                        return Front(tuple(points), True, self._most)
            _, places = heapq.heappop(waiting)
            sized = {**self._floor, **dict(zip(fifos, places, strict=True))}
            found, needs = self._tried(sized)
            if _more(found, best[0]):
                best = (found, sized)
            for fifo, needed in needs.items():
                i = self._place[fifo]
                larger = (*places[:i], places[i] + needed, *places[i + 1 :])
                if larger not in seen:
                    seen.add(larger)
                    heapq.heappush(waiting, (sum(larger), larger))
        else:
            return None
        if _more(best[0], points[-1].throughput if points else Fraction(0)):
            points.append(self._point(best[1], best[0]))
        return Front(tuple(points), True, self._most)

    def _tried(
        self, sized: Mapping[Fifo, int]
    ) -> tuple[Fraction | None, dict[Fifo, int]]:
        """Return the throughput, and FIFOs of which one needs more room for more."""
        execution = Execution(self._mode, self._counts, sized)
        if not execution.run():
            cycle = execution.cycle()
            full = (waits for waits in cycle if waits.lacks == "space")
            return Fraction(0), {w.fifo: w.needs - w.has for w in full}
        found = self._pace(sized)
        if found.throughput == self._most:
            return found.throughput, {}
        return found.throughput, {fifo: self._step[fifo] for fifo in found.full}

    def ends(self) -> Front:
        """Return two points: the least that is live, and one with full throughput."""
        first = self._point(self._live, self._pace(self._live).throughput)
        points = [replace(first, at_least=self._live_at_least)]
        if first.throughput != self._most:
            assert self._most is not None  # `check_end`
            found = roomy(self._timed(), self._most)
            if found is not None:
                sized = {**self._floor, **found.capacities}
                last = self._point(sized, self._most)
                points.append(replace(last, at_least=found.at_least))
        return Front(tuple(points), False, self._most)

    def near(self, ends: Front) -> bool:
        """Say whether an exact search may get from one end to the other."""
        last = ends.points[-1]
        if last.throughput != self._most:
            return False
        steps = (
            (last.capacities[self._declared[fifo]] - self._floor[fifo]) // step
            for fifo, step in self._step.items()
        )
        return sum(steps) <= self.tries


def _more(one: Fraction | None, other: Fraction | None) -> bool:
    """Say whether a throughput is higher; None is the highest."""
    return other is not None and (one is None or one > other)
