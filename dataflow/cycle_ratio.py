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
    cycle: tuple[int, ...]
    """Edges of one cycle of that ratio, by their index; empty if there is none."""


def slowest_cycle(
    actors: int, edges: Sequence[Edge], *, at_least: Fraction = Fraction(0)
) -> Slowest:
    """Return the maximum cycle ratio of a graph of `actors` actors.

    A ratio is guessed. A cycle whose times exceed its tokens times the guess shows as a
    longest path that grows without end; its ratio is the next guess. When there is none
    the guess is the maximum, and the path lengths are the proof.

    Args:
        actors: How many.
        edges: Between them.
        at_least: What is known of the ratio, the first guess. Where it is the ratio,
            no cycle is returned.

    Source:
        Lawler, "Combinatorial Optimization", 1976, with integers, and with the exact
        ratios of the cycles found in place of a binary search; sweeps as in Yen, "An
        Algorithm for Finding Shortest Routes", Quart. Appl. Math. 27, 1970.

    >>> slowest_cycle(2, [Edge(0, 1, 2, 0), Edge(1, 0, 3, 2), Edge(0, 0, 2, 1)])
    Slowest(ratio=Fraction(5, 2), cycle=(1, 0))
    """
    following: list[list[int]] = [[] for _ in range(actors)]
    for source, target, _, tokens in edges:
        if not tokens:
            following[source].append(target)
    if any(len(c) > 1 or c[0] in following[c[0]] for c in components(following)):
        return Slowest(None, ())
    found = Slowest(at_least, ())
    while (cycle := _growing(actors, edges, found.ratio or Fraction(0))) is not None:
        time = sum(edges[i].time for i in cycle)
        tokens = sum(edges[i].tokens for i in cycle)
        found = Slowest(Fraction(time, tokens), tuple(cycle))
    return found


def _growing(actors: int, edges: Sequence[Edge], ratio: Fraction) -> list[int] | None:
    """Return a cycle along which longest paths grow without end; None: they end."""
    weighed = sorted(
        (e.source, e.target, e.time * ratio.denominator - e.tokens * ratio.numerator, i)
        for i, e in enumerate(edges)
    )
    far = [0] * actors
    by: list[tuple[int, int] | None] = [None] * actors  # an edge, and its source
    while True:
        grown = False
        for source, target, weight, i in weighed:
            if far[source] + weight > far[target]:
                far[target] = far[source] + weight
                by[target] = i, source
                grown = True
        if not grown:
            return None
        if (cycle := _cycle(by)) is not None:
            return cycle
        weighed.reverse()  # so that a path against the order is not one edge a sweep


def _cycle(by: Sequence[tuple[int, int] | None]) -> list[int] | None:
    """Return a cycle of the edges by which the longest paths come, if they have one."""
    seen = [0] * len(by)
    for start in range(len(by)):
        actor, mark = start, start + 1
        while not seen[actor]:
            seen[actor] = mark
            if (step := by[actor]) is None:
                break
            actor = step[1]
        else:
            if seen[actor] == mark:
                cycle: list[int] = []
                end = actor
                while not cycle or actor != end:
                    step = by[actor]
                    assert step is not None
                    cycle.append(step[0])
                    actor = step[1]
                return cycle
    return None
