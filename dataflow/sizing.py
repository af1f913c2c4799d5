"""How much room buys how much throughput: the Pareto front of FIFO capacities.

For each total of places, the most throughput that any distribution of them over the
FIFOs gives. The search starts with what each FIFO needs by itself. Wherever a firing
waits for room, for ever again, more throughput needs more room in one of those FIFOs;
so the distributions that have one of them larger are tried next, in the order of their
totals. That leaves out no point of the front.

Where there are too many distributions, room is given to all those FIFOs together until
the throughput is full, and then cut back one by one: an upper bound for two totals.

FIFOs from an actor to itself are left out of totals: they never need more room than
their initial tokens.

Source:
    Stuijk, Geilen, Basten, "Exploring Trade-Offs in Buffer Requirements and Throughput
    Constraints for Synchronous Dataflow Graphs", DAC 2006.
"""

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from dataflow.analysis import capacities, least_capacity
from dataflow.balance import AnalysisError, Modes, mode_graph
from dataflow.deadlock import least
from dataflow.graph import Fifo, Graph
from dataflow.throughput import Pace, pace
from dataflow.timed import timed

DISTRIBUTIONS_MAX = 5_000
"""Distributions that are tried before the exact front is given up."""
WORK_MAX = 2_000_000
"""Distributions times what one costs: its firings, and ten for each FIFO. Seconds."""


@dataclass(frozen=True, slots=True)
class Point:
    """Capacities, and the throughput that they give."""

    capacities: Mapping[Fifo, int]
    throughput: Fraction | None
    """Iterations per time unit; None: nothing bounds it."""

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
    not, the points are the first and the last, and their totals are upper bounds."""


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
    return search.exact() or search.greedy()


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
        self._live = capacities(self._graph)  # or no capacities are
        self._firings = sum(unbounded.counts)
        self._floor: dict[Fifo, int] = {}
        self._step: dict[Fifo, int] = {}
        mode = mode_graph(self._graph, modes)
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
        return pace(self._timed(sized))

    def _point(self, sized: Mapping[Fifo, int], found: Fraction | None) -> Point:
        return Point({self._declared[f]: n for f, n in sized.items()}, found)

    def exact(self) -> Front | None:
        """Return the whole front, or None if that is too much work."""
        work = self._firings + 10 * len(self._step)
        allowed = min(DISTRIBUTIONS_MAX, WORK_MAX // work)
        fifos = list(self._step)
        start = tuple(self._floor[fifo] for fifo in fifos)
        waiting = [(sum(start), start)]
        seen = {start}
        points: list[Point] = []
        best: tuple[Fraction | None, Mapping[Fifo, int]] = (Fraction(0), {})
        total = sum(start)
        for _ in range(allowed):
            if not waiting:
                break
            if waiting[0][0] > total:
                total = waiting[0][0]
                if _more(best[0], points[-1].throughput if points else Fraction(0)):
                    points.append(self._point(best[1], best[0]))
                    if best[0] == self._most:
                        return Front(tuple(points), exact=True)
            _, places = heapq.heappop(waiting)
            sized = {**self._floor, **dict(zip(fifos, places, strict=True))}
            found = self._pace(sized)
            if _more(found.throughput, best[0]):
                best = (found.throughput, sized)
            if found.throughput == self._most:
                continue
            for i, fifo in enumerate(fifos):
                if fifo in found.full:
                    larger = (
                        *places[:i], places[i] + self._step[fifo], *places[i + 1 :]
                    )  # fmt: skip
                    if larger not in seen:
                        seen.add(larger)
                        heapq.heappush(waiting, (sum(larger), larger))
        else:
            return None
        if _more(best[0], points[-1].throughput if points else Fraction(0)):
            points.append(self._point(best[1], best[0]))
        return Front(tuple(points), exact=True)

    def greedy(self) -> Front:
        """Return two points: a small live one, and one with full throughput."""
        sized = dict(self._live)
        first = self._pace(sized)
        points = [self._point(sized, first.throughput)]
        found = first
        while found.throughput != self._most and found.full:
            for fifo in found.full:
                sized[fifo] += max(self._step[fifo], sized[fifo] // 4)
            found = self._pace(sized)
        if found.throughput != first.throughput:
            full = found.throughput
            for fifo in self._step:
                enough = self._enough(sized, fifo, full)
                sized[fifo] = least(enough, self._live[fifo], sized[fifo])
            points.append(self._point(sized, full))
        return Front(tuple(points), exact=False)

    def _enough(
        self, sized: Mapping[Fifo, int], fifo: Fifo, full: Fraction | None
    ) -> Callable[[int], bool]:
        def enough(places: int) -> bool:
            return self._pace({**sized, fifo: places}).throughput == full

        return enough


def _more(one: Fraction | None, other: Fraction | None) -> bool:
    """Say whether a throughput is higher; None is the highest."""
    return other is not None and (one is None or one > other)
