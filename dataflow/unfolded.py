"""One vertex per firing of an iteration: any static graph as a homogeneous one.

Firing j of a consumer waits, on each edge, for the firing of the producer that brings
the last token it takes. Earlier firings of the producer end no later, since all take
the same time. So one edge per FIFO and firing of its consumer is enough.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

from dataflow.cycle_ratio import Edge, slowest_cycles
from dataflow.graph import Fifo
from dataflow.selftimed import Steady
from dataflow.timed import Timed


def local_counts(graph: Timed, component: Sequence[int]) -> dict[int, int]:
    """Return the repetition vector of a connected part taken by itself."""
    divisor = gcd(*(graph.counts[actor] for actor in component))
    return {actor: graph.counts[actor] // divisor for actor in component}


def steady_by_ratio(
    graph: Timed, component: Sequence[int], edges: Sequence[int]
) -> Steady:
    """Return what a strongly connected part comes to, by its slowest cycle.

    Args:
        graph: The graph.
        component: Indices of its actors, of which one takes time.
        edges: Indices of the edges among them.
    """
    counts = local_counts(graph, component)
    first: dict[int, int] = {}
    for actor in component:
        first[actor] = sum(counts[other] for other in first)
    vertices = sum(counts.values())
    unfolded: list[Edge] = []
    spaces: list[Fifo | None] = []

    def waits(source: int, target: int, firing: int, awaited: int) -> None:
        earlier, place = divmod(awaited, counts[source])
        edge = Edge(
            first[source] + place, first[target] + firing, graph.times[source], -earlier
        )
        unfolded.append(edge)

    for i in edges:
        source, target = graph.source[i], graph.target[i]
        for firing in range(counts[target]):
            needed = (firing + 1) * graph.consumed[i] - graph.tokens[i]
            waits(source, target, firing, -(-needed // graph.produced[i]) - 1)
            spaces.append(graph.space[i])
    for actor in component:
        limit = graph.limits[actor]
        if limit is not None:
            for firing in range(counts[actor]):
                waits(actor, actor, firing, firing - limit)
                spaces.append(None)
    slowest = slowest_cycles(vertices, unfolded)
    full = frozenset(fifo for i in slowest.critical if (fifo := spaces[i]) is not None)
    if slowest.ratio is None:
        return Steady(Fraction(0), full)
    assert slowest.ratio  # some actor takes time, and lies on a cycle
    iterations = Fraction(counts[component[0]], graph.counts[component[0]])
    return Steady(iterations * graph.scale / slowest.ratio, full)
