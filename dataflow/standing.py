"""Who answers a stream when devices die and links are cut.

Who plays then is not predicted here but asked: of `dataflow.wire.rows.choose`, the
function that the running system calls, given branches that are as ready as the failure
leaves them. Where actors have times, in milliseconds, a branch that cannot answer
before the deadline is too late here, as it is there; what is not known takes no time.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from dataflow.graph import DROP_ROW, Fifo, Graph, Region
from dataflow.outcome import Reason
from dataflow.redundancy import STANDBY, Redundancy
from dataflow.wire.rows import choose, grades

Link = tuple[str, str]
"""Two devices between which tokens go, the one that first sends (an endpoint) first."""
Element = str | Link
"""What can fail: a device or a link."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails at the same time. Nothing at all is a failure, too: the first row."""

    devices: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def size(self) -> int:
        return len(self.devices) + len(self.links)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.devices, *map(link_name, self.links))

    def severs(self, one: str | None, other: str | None) -> bool:
        """Tell whether a FIFO between two devices, or within one, is severed."""
        if one in self.devices or other in self.devices:
            return True
        return (one, other) in self.links or (other, one) in self.links

    def __str__(self) -> str:
        dead = [f"{name} dies" for name in self.devices]
        cut = [f"{link_name(link)} is cut" for link in self.links]
        return " and ".join(dead + cut) or "nothing fails"


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers a stream from then on."""

    stream: str
    status: Literal["full", "degraded", "dropped", "ended"]
    """``ended``: its source, its sink or what stands around its region is gone."""
    row: str = ""
    """The branch that plays, or ``drop``."""
    device: str = ""
    """Where that branch does its work."""
    reason: Reason = ""
    """Why it is dropped."""
    others: tuple[str, ...] = ()
    """Rows that answer as well in the region's mode of redundancy: in turn with `row`,
    beside it, or when it is late."""
    redundancy: Redundancy = STANDBY
    needs_ms: float = 0.0
    """Deadline with which a branch that is there would not be too late; 0: none is."""


def link_name(link: Link) -> str:
    return " - ".join(link)


@dataclass(frozen=True, slots=True)
class _Left:
    """A branch as a failure leaves it, for `choose`: ready or not, and its time."""

    local: bool
    ready: bool
    grade: int
    time_s: float
    """At least; 0: unknown."""
    outstanding: int = 0
    carried: bool = True

    def p90_s(self, now_s: float) -> float:
        return self.time_s

    def p99_s(self, now_s: float) -> float:
        return self.time_s

    def learned_s(self, fraction: float) -> float:
        return self.time_s


class Stream:
    """A stream, and what each of its branches stands on."""

    def __init__(self, graph: Graph, region: Region) -> None:
        self.region = region
        core = (region.source, region.control, region.fork, region.join, region.sink)
        self._core = _Footing(graph, core)
        self._feet = [_Footing(graph, b.actors) for b in region.branches]
        here = graph.actors[region.fork].device
        self._local = [foot.devices <= {here} for foot in self._feet]
        self._grades = grades(region.branches, here)
        self._times_ms = [_longest_ms(graph, b.actors) for b in region.branches]
        self._before_ms = _longest_ms(graph, _leading_to(graph, region.fork))
        # Each element of a failure removes some branches: a set of bits for each, so
        # that the many failures that remove the same ones cost one choice.
        self._removes: dict[Element, int] = {}
        for index, foot in enumerate(self._feet):
            elements: tuple[Element, ...] = (*foot.devices, *foot.links)
            for element in elements:
                self._removes[element] = self._removes.get(element, 0) | 1 << index
        self._answers: dict[int, Answer] = {}

    def lost(self, failure: Failure) -> list[str]:
        """Return the rows whose branches lost something."""
        bits = self._removed(failure)
        rows = enumerate(self.region.branches)
        return [branch.row for i, branch in rows if bits >> i & 1]

    def answer(self, failure: Failure) -> Answer:
        if self._core.touched(failure):
            return Answer(self.region.stream, "ended")
        bits = self._removed(failure)
        if bits not in self._answers:
            self._answers[bits] = self._chosen(bits)
        return self._answers[bits]

    def _removed(self, failure: Failure) -> int:
        bits = 0
        elements: tuple[Element, ...] = (*failure.devices, *failure.links)
        for element in elements:
            bits |= self._removes.get(element, 0)
        return bits

    def _chosen(self, removed: int) -> Answer:
        """Return what the running system does when those branches are gone."""
        views = [
            _Left(local, not removed >> index & 1, grade, time_ms / 1e3)
            for index, (local, grade, time_ms) in enumerate(
                zip(self._local, self._grades, self._times_ms, strict=True)
            )
        ]
        region = self.region
        ask = partial(
            choose,
            views,
            region.redundancy,
            remaining_s=(region.deadline_ms - self._before_ms) / 1e3,
            now_s=0.0,
        )
        choice = ask()
        if not choice.branches:
            left_ms = [view.time_s * 1e3 for view in views if view.ready]
            needs_ms = self._before_ms + min(left_ms) if left_ms else 0.0
            return Answer(
                region.stream,
                "dropped",
                DROP_ROW,
                reason=choice.reason,
                needs_ms=needs_ms,
            )
        first, *others = choice.branches
        match region.redundancy.mode:
            case "spread":  # who else has a turn
                turns = (ask(turn=turn).branches for turn in range(len(views)))
                others = [b for (b,) in dict.fromkeys(turns) if b != first]
            case "hedge":
                others += ask(tried=1 << first, sound=1 << first, late=True).branches
        rows = region.branches
        return Answer(
            region.stream,
            rows[first].quality,
            rows[first].row,
            rows[first].device,
            others=tuple(rows[index].row for index in others),
            redundancy=region.redundancy,
        )


class _Footing:
    """The devices and links that some actors stand on."""

    def __init__(self, graph: Graph, actors: Collection[str]) -> None:
        placed = (graph.actors[name].device for name in actors)
        self.devices = frozenset(device for device in placed if device)
        beside = (f for n in actors for f in (*graph.inputs(n), *graph.outputs(n)))
        pairs = {pair for f in beside if (pair := link_of(graph, f)) is not None}
        self.links = frozenset(pairs | {pair[::-1] for pair in pairs})

    def touched(self, failure: Failure) -> bool:
        return not self.devices.isdisjoint(failure.devices)


def _leading_to(graph: Graph, name: str) -> set[str]:
    """Return the actors whose tokens of an iteration come to `name` within it."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for fifo in graph.inputs(waiting.pop()):
            if not fifo.delay and fifo.source.actor not in found:
                found.add(fifo.source.actor)
                waiting.append(fifo.source.actor)
    return found


def _longest_ms(graph: Graph, actors: Collection[str]) -> float:
    """Return the time along the slowest way through some actors, at least."""
    if not any(graph.actors[name].time for name in actors):
        return 0.0
    before = {
        name: {f.source.actor for f in graph.inputs(name) if not f.delay}
        for name in actors
    }
    ends: dict[str, Fraction | int] = {}
    with suppress(CycleError):  # never live, as R10 says
        for name in TopologicalSorter(before).static_order():
            if name in before:
                begin = max((ends[n] for n in before[name] if n in before), default=0)
                ends[name] = begin + (graph.actors[name].time or 0)
    return float(max(ends.values(), default=0))


def link_of(graph: Graph, fifo: Fifo) -> Link | None:
    source = graph.actors[fifo.source.actor].device
    target = graph.actors[fifo.target.actor].device
    if source is None or target is None or source == target:
        return None
    return source, target
