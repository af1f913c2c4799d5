"""Static dataflow graphs by brute force: slow, short, and sharing nothing with ours.

Firings are played one by one, times are Fractions, the best is found by trying all. The
conventions are those of `dataflow.timed`: a firing takes its tokens and claims room
when it starts, gives tokens and frees room when it ends; a self-loop is no FIFO that
needs room, but says how many firings may overlap.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

Sizes = Sequence[int | None]


@dataclass(frozen=True)
class Edge:
    source: str
    produced: int
    consumed: int
    target: str
    delay: int = 0

    @property
    def loop(self) -> bool:
        return self.source == self.target


@dataclass(frozen=True)
class Sdf:
    times: dict[str, Fraction]
    edges: tuple[Edge, ...]


def components(sdf: Sdf) -> list[set[str]]:
    """Weakly connected, in the order of their first actors."""
    found = [{name} for name in sdf.times]
    for edge in sdf.edges:
        ends = [part for part in found if {edge.source, edge.target} & part]
        for other in ends[1:]:
            found.remove(other)
            ends[0] |= other
    return found


def repetitions(sdf: Sdf, most: int = 10_000) -> dict[str, int] | None:
    """Try 1, 2, 3, … for one actor of each component, until all others are whole."""
    counts: dict[str, int] = {}
    for part in components(sdf):
        edges = [e for e in sdf.edges if e.source in part]
        ratios = {min(part): Fraction(1)}
        while len(ratios) < len(part):
            for e in edges:
                if e.source in ratios:
                    there = ratios[e.source] * e.produced / e.consumed
                    ratios.setdefault(e.target, there)
                elif e.target in ratios:
                    ratios[e.source] = ratios[e.target] * e.consumed / e.produced
        if any(ratios[e.source] * e.produced != ratios[e.target] * e.consumed
               for e in edges):  # fmt: skip
            return None
        for first in range(1, most):
            if all((ratio * first).denominator == 1 for ratio in ratios.values()):
                counts |= {name: int(r * first) for name, r in ratios.items()}
                break
        else:
            raise AssertionError(f"no whole numbers below {most}")
    return counts


def stuck(sdf: Sdf, sizes: Sizes | None = None) -> set[str]:
    """Fire whatever can, once at a time; return who did not reach its count."""
    counts = repetitions(sdf)
    assert counts is not None
    left = dict(counts)
    tokens = [e.delay for e in sdf.edges]

    def can(name: str) -> bool:
        for i, e in enumerate(sdf.edges):
            if e.target == name and tokens[i] < e.consumed:
                return False
            size = sizes[i] if sizes else None
            bounded = size is not None and e.source == name and not e.loop
            if bounded and tokens[i] + e.produced > size:
                return False
        return left[name] > 0

    while able := [name for name in left if can(name)]:
        left[able[0]] -= 1
        for i, e in enumerate(sdf.edges):
            tokens[i] -= e.consumed * (e.target == able[0])
            tokens[i] += e.produced * (e.source == able[0])
    return {name for name, count in left.items() if count}


def live(sdf: Sdf, sizes: Sizes | None = None) -> bool:
    """Whether an iteration completes; more tokens than places are no state at all."""
    if sizes and any(s is not None and e.delay > s
                     for e, s in zip(sdf.edges, sizes, strict=True)):  # fmt: skip
        return False
    return not stuck(sdf, sizes)


def spread(total: int, places: int) -> Iterator[tuple[int, ...]]:
    """Every way to put `total` things into `places`."""
    for cuts in itertools.combinations(range(total + places - 1), places - 1):
        ends = (-1, *cuts, total + places - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(ends))


def delayed(sdf: Sdf, extra: Sequence[int]) -> Sdf:
    edges = zip(sdf.edges, extra, strict=True)
    return Sdf(sdf.times, tuple(
        Edge(e.source, e.produced, e.consumed, e.target, e.delay + n) for e, n in edges
    ))  # fmt: skip


def least_extra(sdf: Sdf, most: int) -> tuple[int, int] | None:
    """Fewest initial tokens to add to be live, and on how few FIFOs those can lie.

    None if more than `most` tokens are needed.
    """
    for total in range(most + 1):
        found = [len(extra) - extra.count(0)
                 for extra in spread(total, len(sdf.edges))
                 if live(delayed(sdf, extra))]  # fmt: skip
        if found:
            return total, min(found)
    return None


def sizings(sdf: Sdf, total: int) -> Iterator[tuple[int, ...]]:
    """Every way to give `total` places to the FIFOs that are no loops."""
    between = [i for i, e in enumerate(sdf.edges) if not e.loop]
    least = [max(e.delay, e.produced, e.consumed) for e in sdf.edges]
    spare = total - sum(least[i] for i in between)
    if spare >= 0:
        for more in spread(spare, len(between)) if between else [()]:
            sizes = [max(e.delay, 1) for e in sdf.edges]
            for i, n in zip(between, more, strict=True):
                sizes[i] = least[i] + n
            yield tuple(sizes)


def least_total(sdf: Sdf, most: int) -> int | None:
    """Fewest places in all with which it is live; None if more than `most`."""
    for total in range(most + 1):
        if any(live(sdf, sizes) for sizes in sizings(sdf, total)):
            return total
    return None


class Play:
    """A self-timed execution: who can start does, at once, as often as it can."""

    def __init__(
        self, sdf: Sdf, sizes: Sizes | None, *, alone: bool, once: bool = False
    ) -> None:
        self.sdf = sdf
        self.alone = alone
        self.tokens = [e.delay for e in sdf.edges]
        self.room = [
            None if e.loop or sizes is None or size is None else size - e.delay
            for e, size in zip(sdf.edges, sizes or sdf.edges, strict=True)
        ]  # fmt: skip
        self.left = repetitions(sdf) if once else None
        self.ends: list[tuple[Fraction, str]] = []
        self.ended = dict.fromkeys(sdf.times, 0)
        self.now = Fraction(0)
        self.start_all()

    def can(self, name: str) -> bool:
        if self.left is not None and not self.left[name]:
            return False
        if self.alone and any(other == name for _, other in self.ends):
            return False
        for i, e in enumerate(self.sdf.edges):
            if e.target == name and self.tokens[i] < e.consumed:
                return False
            room = self.room[i]
            if e.source == name and room is not None and room < e.produced:
                return False
        return True

    def start_all(self) -> None:
        while able := [name for name in self.sdf.times if self.can(name)]:
            name = able[0]
            if self.left is not None:
                self.left[name] -= 1
            for i, e in enumerate(self.sdf.edges):
                self.tokens[i] -= e.consumed * (e.target == name)
                if self.room[i] is not None:
                    self.room[i] -= e.produced * (e.source == name)
            self.ends.append((self.now + self.sdf.times[name], name))
            if not self.sdf.times[name]:
                self.end(self.ends[-1])

    def end(self, ending: tuple[Fraction, str]) -> None:
        self.ends.remove(ending)
        name = ending[1]
        self.ended[name] += 1
        for i, e in enumerate(self.sdf.edges):
            self.tokens[i] += e.produced * (e.source == name)
            if self.room[i] is not None:
                self.room[i] += e.consumed * (e.target == name)

    def step(self) -> None:
        self.now = min(self.ends)[0]
        for ending in [e for e in self.ends if e[0] == self.now]:
            self.end(ending)
        self.start_all()

    def state(self) -> tuple[object, ...]:
        ends = sorted((end - self.now, name) for end, name in self.ends)
        return tuple(self.tokens), tuple(self.room), tuple(ends)


def throughput(
    sdf: Sdf, sizes: Sizes | None, *, alone: bool, steps: int = 5_000
) -> Fraction | None:
    """Iterations per time unit once states recur; None if they do not.

    Only for graphs whose states are finitely many: strongly connected, or bounded.
    """
    counts = repetitions(sdf)
    assert counts is not None
    play = Play(sdf, sizes, alone=alone)
    seen: dict[tuple[object, ...], tuple[Fraction, dict[str, int]]] = {}
    for _ in range(steps):
        state = play.state()
        if state in seen:
            then, ended = seen[state]
            return min(
                Fraction(play.ended[name] - ended[name], count) / (play.now - then)
                for name, count in counts.items()
            )
        if not play.ends:
            return Fraction(0)
        seen[state] = play.now, dict(play.ended)
        play.step()
    return None


def latency(sdf: Sdf, sizes: Sizes | None, *, alone: bool) -> Fraction | None:
    """When the last firing of one iteration ends; None if one never starts."""
    play = Play(sdf, sizes, alone=alone, once=True)
    while play.ends:
        play.step()
    assert play.left is not None
    return None if any(play.left.values()) else play.now


def pareto(sdf: Sdf, most: int, *, alone: bool) -> list[tuple[int, Fraction]]:
    """Total places and best throughput, for each total that gives more, up to `most`.

    Of a graph in one part whose actors all take time.
    """
    found: list[tuple[int, Fraction]] = []
    for total in range(most + 1):
        best = Fraction(0)
        for sizes in sizings(sdf, total):
            pace = throughput(sdf, sizes, alone=alone)
            assert pace is not None
            best = max(best, pace)
        if best > (found[-1][1] if found else 0):
            found.append((total, best))
    return found


def bounded_by_rate(sdf: Sdf) -> int:
    """Enough places for any FIFO to be no limit to the steady state of small graphs."""
    counts = repetitions(sdf)
    assert counts is not None
    return 8 * max((e.produced * counts[e.source] + e.delay for e in sdf.edges),
                   default=1) * math.ceil(len(sdf.times))  # fmt: skip
