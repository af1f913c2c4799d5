"""The slowest cycle of a homogeneous graph: its maximum cycle ratio, exactly.

Where every firing takes and gives one token per edge, an iteration takes, in the long
run, as long as the worst cycle says: the time of its actors over its initial tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from dataflow.strong import components


class Edge(NamedTuple):
    """From one actor, whose firing takes `time`, to another."""

    source: int
    target: int
    time: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Slowest:
    """The maximum cycle ratio and where it comes from."""

    ratio: Fraction | None
    """Largest sum of times over sum of tokens of a cycle; 0 if there is no cycle, or
    none that takes time; None if a cycle has no tokens, so that it never turns."""
    critical: frozenset[int]
    """Edges on cycles of that ratio, by their index."""


def slowest_cycles(actors: int, edges: Sequence[Edge]) -> Slowest:
    """Return the maximum cycle ratio of a graph of `actors` actors.

    A ratio is guessed, 0 at first. A cycle whose times exceed its tokens times the
    guess shows as a longest path that grows without end; its ratio is the next guess.
    When there is none the guess is the maximum, and the path lengths are the proof.

    Source:
        Lawler, "Combinatorial Optimization", 1976, with integers, and with the exact
        ratios of the cycles found in place of a binary search; sweeps as in Yen, "An
        Algorithm for Finding Shortest Routes", Quart. Appl. Math. 27, 1970.

    >>> slowest_cycles(2, [Edge(0, 1, 2, 0), Edge(1, 0, 3, 2), Edge(0, 0, 2, 1)])
    Slowest(ratio=Fraction(5, 2), critical=frozenset({0, 1}))
    """
    tokenless = [i for i, edge in enumerate(edges) if not edge.tokens]
    if stuck := _on_cycles(actors, edges, tokenless):
        return Slowest(None, stuck)
    ratio = Fraction(0)
    while True:
        far, cycle = _longest(actors, edges, ratio)
        if cycle is None:
            break
        time, tokens = sum(e.time for e in cycle), sum(e.tokens for e in cycle)
        ratio = Fraction(time, tokens)
    tight = [
        i
        for i, edge in enumerate(edges)
        if far[edge.source] + _weight(edge, ratio) == far[edge.target]
    ]
    return Slowest(ratio, _on_cycles(actors, edges, tight))


def _weight(edge: Edge, ratio: Fraction) -> int:
    return edge.time * ratio.denominator - edge.tokens * ratio.numerator


def _on_cycles(
    actors: int, edges: Sequence[Edge], chosen: Sequence[int]
) -> frozenset[int]:
    """Return those of the `chosen` edges that lie on cycles of chosen edges."""
    following: list[list[int]] = [[] for _ in range(actors)]
    for i in chosen:
        following[edges[i].source].append(edges[i].target)
    part_of = [0] * actors
    for number, component in enumerate(components(following)):
        for actor in component:
            part_of[actor] = number
    return frozenset(
        i for i in chosen if part_of[edges[i].source] == part_of[edges[i].target]
    )


def _longest(
    actors: int, edges: Sequence[Edge], ratio: Fraction
) -> tuple[list[int], list[Edge] | None]:
    """Return the longest paths, or a cycle along which they grow without end."""
    weighed = sorted((e.source, e.target, _weight(e, ratio), e) for e in edges)
    far = [0] * actors
    by: list[Edge | None] = [None] * actors
    while True:
        grown = False
        for source, target, weight, edge in weighed:
            if far[source] + weight > far[target]:
                far[target] = far[source] + weight
                by[target] = edge
                grown = True
        if not grown:
            return far, None
        if (cycle := _cycle(by)) is not None:
            return far, cycle
        weighed.reverse()  # so that a path against the order is not one edge a sweep


def _cycle(by: Sequence[Edge | None]) -> list[Edge] | None:
    """Return a cycle of the edges by which the longest paths come, if they have one."""
    seen = [0] * len(by)
    for start in range(len(by)):
        actor, mark = start, start + 1
        while not seen[actor]:
            seen[actor] = mark
            if (edge := by[actor]) is None:
                break
            actor = edge.source
        else:
            if seen[actor] == mark:
                cycle: list[Edge] = []
                while not cycle or cycle[-1].source != actor:
                    last = by[cycle[-1].source if cycle else actor]
                    assert last is not None
                    cycle.append(last)
                return cycle
    return None
