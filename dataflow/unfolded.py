"""One vertex per firing of an iteration: any static graph as a homogeneous one.

Firing j of a consumer waits, on each edge, for the firing of the producer that brings
the last token it takes. Earlier firings of the producer end no later, since all take
the same time. So one edge per FIFO and firing of its consumer is enough.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

from dataflow.cycle_ratio import Edge, slowest_cycle
from dataflow.selftimed import Steady
from dataflow.timed import Timed


def local_counts(graph: Timed, component: Sequence[int]) -> dict[int, int]:
    """Return the repetition vector of a connected part taken by itself."""
    divisor = gcd(*(graph.counts[actor] for actor in component))
    return {actor: graph.counts[actor] // divisor for actor in component}


class Unfolded:
    """The firings of one iteration, and which of them wait for which.

    Attributes:
        first: Vertex of the first firing of each actor.
        vertices: How many there are.
        waits: Edges between them; tokens are the iterations that lie between.
        along: Of each of `waits`: the edge of the graph; None: a limit of its actor.
    """

    def __init__(
        self, graph: Timed, counts: dict[int, int], edges: Sequence[int]
    ) -> None:
        self._graph = graph
        self._counts = counts
        self.first: dict[int, int] = {}
        self.vertices = 0
        for actor, count in counts.items():
            self.first[actor] = self.vertices
            self.vertices += count
        self.waits: list[Edge] = []
        self.along: list[int | None] = []
        for i in edges:
            target = graph.target[i]
            for firing in range(counts[target]):
                awaited = graph.awaited(i, firing)
                self.waits.append(self.wait(graph.source[i], awaited, target, firing))
                self.along.append(i)
        for actor, count in counts.items():
            limit = graph.limits[actor]
            for firing in range(count) if limit is not None else ():
                assert limit is not None
                self.waits.append(self.wait(actor, firing - limit, actor, firing))
                self.along.append(None)

    def wait(self, source: int, awaited: int, target: int, firing: int) -> Edge:
        """Return the edge by which one firing waits for another to end."""
        earlier, place = divmod(awaited, self._counts[source])
        ends = self.first[source] + place, self.first[target] + firing
        return Edge(*ends, self._graph.times[source], -earlier)


def steady_by_ratio(
    graph: Timed,
    component: Sequence[int],
    edges: Sequence[int],
    at_most: Fraction | None = None,
) -> Steady:
    """Return what a strongly connected part comes to, by its slowest cycle.

    Args:
        graph: The graph.
        component: Indices of its actors, of which one takes time.
        edges: Indices of the edges among them.
        at_most: What is known of the throughput, if anything.
    """
    counts = local_counts(graph, component)
    unfolded = Unfolded(graph, counts, edges)
    local = Fraction(counts[component[0]], graph.counts[component[0]]) * graph.scale
    known = local / at_most if at_most else Fraction(0)
    slowest = slowest_cycle(unfolded.vertices, unfolded.waits, at_least=known)
    if slowest.ratio is None:
        return Steady(Fraction(0), frozenset())
    assert slowest.ratio  # some actor takes time, and lies on a cycle
    along = (unfolded.along[wait] for wait in slowest.cycle)
    full = {graph.fifo[i] for i in along if i is not None and graph.backward[i]}
    return Steady(local / slowest.ratio, frozenset(full))
