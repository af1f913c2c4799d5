"""Room for full throughput in large graphs, by a schedule that repeats.

At a given throughput an iteration may start one period after the one before it, each
firing at its own time within the iteration, if it then waits for nothing (`Unfolded`).
How many tokens are in the FIFOs, or claimed, on the average is linear in these times.
The fewest are the dual of a minimum cost flow; no capacities with that throughput have
fewer places in all, since a FIFO needs at least as many as it holds on the average.

As many as the FIFOs hold at most suffice. Each is then lowered as far as firings can
be moved to make that enough, while there is work left for it.

Source:
    Leiserson and Saxe, "Retiming Synchronous Circuitry", Algorithmica 6, 1991, for the
    flow; Cotton and Maler, "Fast and Flexible Difference Constraint Propagation for
    DPLL(T)", SAT 2006, for how few starts move.
"""

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from dataflow.analysis import least_capacity
from dataflow.cycle_ratio import Edge
from dataflow.graph import Fifo
from dataflow.timed import Timed
from dataflow.unfolded import Unfolded

WAITS_MAX = 20_000
"""Edges of an unfolded graph past which no schedule is looked for: some seconds."""
MOVES_MAX = 300_000
"""Starts that may move while capacities are lowered: a second or two."""


@dataclass(frozen=True, slots=True)
class Roomy:
    """Capacities for a throughput."""

    capacities: Mapping[Fifo, int]
    """Of the FIFOs between two actors."""
    at_least: int
    """Places in all that any capacities for it have."""


def roomy(graph: Timed, throughput: Fraction) -> Roomy | None:
    """Return few places with which a graph has a throughput; None: it is too large.

    Args:
        graph: With unbounded FIFOs.
        throughput: At most what it then has.
    """
    edges = range(len(graph.source))
    counts = dict(enumerate(graph.counts))
    if sum(graph.counts) + sum(counts[target] for target in graph.target) > WAITS_MAX:
        return None
    schedule = _Schedule(graph, Unfolded(graph, counts, edges), throughput)
    at_least = schedule.fewest()
    places = {i: schedule.held(i) for i in edges}
    for i in edges:
        while not schedule.bound(i, places[i]):
            places[i] += 1
    for i in sorted(places, key=lambda i: -places[i]):  # who has the most to lose
        places[i] = schedule.lowered(i, places[i])
    floor = sum(schedule.floor(i) for i in edges)
    return Roomy({graph.fifo[i]: n for i, n in places.items()}, max(at_least, floor))


class _Schedule:
    """When each firing of an iteration starts; all times scaled to be integers."""

    def __init__(self, graph: Timed, unfolded: Unfolded, throughput: Fraction) -> None:
        period = graph.scale / throughput
        self._graph = graph
        self._unfolded = unfolded
        self._period = period.numerator
        self._scale = period.denominator
        self._times = [time * self._scale for time in graph.times]
        self._starts = [0] * unfolded.vertices
        self._moves = MOVES_MAX
        self._after: list[dict[object, Edge]] = [{} for _ in range(unfolded.vertices)]
        self._rooms: dict[int, list[tuple[int, object]]] = {}
        for number, wait in enumerate(unfolded.waits):
            self._after[wait.source][number] = wait
        for actor, count in enumerate(graph.counts):
            for firing in range(count) if count > 1 else ():
                # In order, but not one at a time.
                wait = unfolded.wait(actor, firing - 1, actor, firing)._replace(time=0)
                self._after[wait.source]["order"] = wait

    def _later(self, wait: Edge) -> int:
        """Return how much later than what it waits for a firing starts at least."""
        return wait.time * self._scale - wait.tokens * self._period

    def fewest(self) -> int:
        """Let the fewest tokens be held on the average; return how many, rounded up."""
        import networkx

        graph, first = self._graph, self._unfolded.first
        demand = [0] * len(self._starts)  # tokens held longer if its start is later
        constant = 0
        for i in range(len(graph.source)):
            source, target = graph.source[i], graph.target[i]
            for firing in range(graph.counts[source]):
                demand[first[source] + firing] -= graph.produced[i]
            for firing in range(graph.counts[target]):
                demand[first[target] + firing] += graph.consumed[i]
            moved = graph.counts[target] * graph.consumed[i]
            constant += graph.tokens[i] * self._period + moved * self._times[target]
        latest: dict[tuple[int, int], int] = {}
        for wait in (wait for after in self._after for wait in after.values()):
            if wait.source != wait.target:
                ends, later = (wait.source, wait.target), self._later(wait)
                latest[ends] = max(later, latest.get(ends, later))
        network = networkx.DiGraph()
        network.add_nodes_from((v, {"demand": n}) for v, n in enumerate(demand))
        network.add_weighted_edges_from((*ends, -n) for ends, n in latest.items())
        cost, flow = networkx.network_simplex(network)
        for (source, target), later in list(latest.items()):
            if flow[source][target]:  # then it starts no later than that, either
                back = target, source
                latest[back] = max(-later, latest.get(back, -later))
        self._settle(latest)
        return math.ceil(Fraction(constant - cost, self._period))

    def _settle(self, latest: Mapping[tuple[int, int], int]) -> None:
        """Start each firing as early as it can."""
        after: list[list[tuple[int, int]]] = [[] for _ in self._starts]
        for (source, target), later in latest.items():
            after[source].append((target, later))
        starts = self._starts
        waiting = deque(range(len(starts)))
        queued = [True] * len(starts)
        while waiting:
            vertex = waiting.popleft()
            queued[vertex] = False
            for target, later in after[vertex]:
                if starts[vertex] + later > starts[target]:
                    starts[target] = starts[vertex] + later
                    if not queued[target]:
                        queued[target] = True
                        waiting.append(target)

    def floor(self, i: int) -> int:
        """Return the least room of an edge whatever the schedule."""
        graph = self._graph
        return least_capacity(graph.produced[i], graph.consumed[i], graph.tokens[i])

    def held(self, i: int) -> int:
        """Return the most tokens that an edge holds, claimed ones included."""
        graph, first = self._graph, self._unfolded.first
        source, target = graph.source[i], graph.target[i]
        count = graph.counts[target]
        begin = first[target]
        ends = [s + self._times[target] for s in self._starts[begin : begin + count]]
        most = self.floor(i)
        for firing in range(graph.counts[source]):
            claimed = graph.tokens[i] + (firing + 1) * graph.produced[i]
            periods, now = divmod(
                self._starts[first[source] + firing] - ends[0], self._period
            )
            freed = periods * count + bisect_right(ends, now + ends[0])
            most = max(most, claimed - freed * graph.consumed[i])
        return most

    def bound(self, i: int, places: int) -> bool:
        """Let firings wait for room on an edge; return whether they can.

        If not, all is as it was but for the room of this edge, which is unbounded.
        """
        for vertex, key in self._rooms.pop(i, ()):
            del self._after[vertex][key]
        rooms = self._rooms[i] = []
        moved: list[tuple[int, int]] = []
        for firing, wait in enumerate(self._waits(i, places)):
            key = "room", i, firing
            self._after[wait.source][key] = wait
            rooms.append((wait.source, key))
            if not self._move(wait, moved) or self._waits_at_once(wait):
                for vertex, start in reversed(moved):
                    self._starts[vertex] = start
                return False
        return True

    def _waits(self, i: int, places: int) -> Iterator[Edge]:
        graph = self._graph
        source, target = graph.source[i], graph.target[i]
        for firing in range(graph.counts[source]):
            needed = (firing + 1) * graph.produced[i] + graph.tokens[i] - places
            awaited = -(-needed // graph.consumed[i]) - 1
            yield self._unfolded.wait(target, awaited, source, firing)

    def _move(self, wait: Edge, moved: list[tuple[int, int]]) -> bool:
        """Start the firing that waits late enough, and all that then must be later.

        Who moves most comes first, so each moves once; return False if the one that is
        waited for would have to move as well, so that there is no end.
        """
        starts = self._starts
        late = starts[wait.source] + self._later(wait) - starts[wait.target]
        if late <= 0:
            return True
        lateness = {wait.target: late}
        waiting = [(-late, wait.target)]
        done = set()
        while waiting:
            _, vertex = heapq.heappop(waiting)
            if vertex in done:
                continue
            if vertex == wait.source:
                return False
            done.add(vertex)
            self._moves -= 1
            moved.append((vertex, starts[vertex]))
            starts[vertex] += lateness[vertex]
            for other in self._after[vertex].values():
                target = other.target
                late = starts[vertex] + self._later(other) - starts[target]
                if late > lateness.get(target, 0) and target not in done:
                    lateness[target] = late
                    heapq.heappush(waiting, (-late, target))
        return True

    def _waits_at_once(self, wait: Edge) -> bool:
        """Say whether firings without duration wait in a ring within one iteration."""
        reached = set()
        waiting = [] if wait.time or wait.tokens else [wait.target]
        while waiting:
            vertex = waiting.pop()
            if vertex == wait.source:
                return True
            if vertex not in reached:
                reached.add(vertex)
                after = self._after[vertex].values()
                waiting += (w.target for w in after if not (w.time or w.tokens))
        return False

    def lowered(self, i: int, places: int) -> int:
        """Return fewer places for an edge, the fewest that little work finds."""
        graph = self._graph
        divisor = math.gcd(graph.produced[i], graph.consumed[i])
        steps = 1
        while self._moves > 0:
            fewer = places - steps * divisor
            if fewer >= self.floor(i) and self.bound(i, fewer):
                places = fewer
                steps *= 2
            elif steps > 1:
                steps = max(1, steps // 4)
            else:
                break
        self.bound(i, places)
        return places
