"""Failures as modes (R13): what is left when devices die and links are cut.

A failure takes the actors of its devices away, and both ends of every FIFO that it
severs have rate 0 from then on: that is what a port does when its peer is gone. Who
plays in what remains, `dataflow.standing` says; rows that can no longer be chosen leave
the control table.

What remains inherits its soundness: it is a part of the whole graph's actors and FIFOs,
at the same rates, in a part of its modes. The whole's repetition vector, restricted,
still balances it. A firing waits for tokens and for space along a part of the FIFOs
that it waited for before, so the order of firings that completes an iteration of the
whole, restricted, completes one here, within the same capacities. So R8, R10 and R11
need no second look after any failure if they hold of the whole; if they do not, what
remains is checked for itself, since a failure can also remove what was wrong.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dataflow.errors import UnderstudyError
from dataflow.finding import Finding
from dataflow.graph import Dpg, Graph
from dataflow.iteration import bounded, consistent, live
from dataflow.standing import Answer, Failure, Link, Stream, link_of

FAILURES_MAX = 250_000
"""Rows of a table; all pairs of K_{8,64} are fewer."""

Verdict = Literal["full", "answered", "dropped"]
Required = Literal["full", "answered"]
VERDICTS: tuple[Verdict, ...] = ("full", "answered", "dropped")
"""From best to worst."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """A row of the table: what a failure leads to.

    Attributes:
        answers: One for each stream, in the order of the graph's regions.
        unsound: What R8, R10 and R11 find in the graph that remains.
    """

    failure: Failure
    answers: tuple[Answer, ...]
    unsound: tuple[Finding, ...] = ()

    @property
    def live(self) -> bool:
        """What remains is live and bounded."""
        return not self.unsound

    @property
    def verdict(self) -> Verdict:
        """The worst of the streams that go on; a stream that ended is no worse."""
        found = {answer.status for answer in self.answers}
        if self.unsound or "dropped" in found:
            return "dropped"
        return "answered" if "degraded" in found else "full"

    def breaks(self, required: Required) -> bool:
        return VERDICTS.index(self.verdict) > VERDICTS.index(required)


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class FailureTable:
    """The consequences of every failure of up to `count` devices and links at once.

    Attributes:
        rows: By the size of the failure; the first is that nothing fails.
    """

    count: int
    rows: tuple[Consequence, ...]

    @property
    def baseline(self) -> Consequence:
        return self.rows[0]

    @cached_property
    def single_points(self) -> tuple[Failure, ...]:
        """Failures of one device or link after which a stream that goes on drops."""
        return tuple(
            row.failure
            for row in self.rows
            if row.failure.size == 1 and row.verdict == "dropped"
        )

    def broken(self, required: Required) -> list[Consequence]:
        """Return the rows that are worse than `required`."""
        return [row for row in self.rows if row.breaks(required)]

    def least_fix(self, required: Required) -> str:
        """Return the least change after which no row is worse than `required`.

        A further server adds, to each stream, a branch that shares nothing with its
        others. So if the smallest failure that breaks a stream has size c, and failures
        up to n are to be survived, it lacks n + 1 - c servers, and no fewer will do. A
        branch on the endpoint itself fails only when the stream ends anyway.
        """
        broken = self.broken(required)
        if not broken:
            return ""
        if unsound := [finding for row in broken for finding in row.unsound]:
            return unsound[0].fix
        lacking: dict[str, int] = {}
        for row in broken:  # the smallest failure comes first
            for answer in row.answers:
                if _worse(answer, required):
                    lacking.setdefault(answer.stream, self.count + 1 - row.failure.size)
        servers = max(lacking.values())
        add = "a server" if servers == 1 else f"{servers} servers"
        fix = f"add {add} that {_some(list(lacking))} can fail over to"
        if required == "answered":
            dropped = [a for row in broken for a in row.answers if _worse(a, required)]
            if all(answer.needs_ms for answer in dropped):
                needs_ms = max(answer.needs_ms for answer in dropped)
                return f"{fix}, or a deadline of {needs_ms:g} ms for what is left"
            fix += ", or a local understudy: a last branch on the endpoint itself"
        return fix


def failure_table(graph: Graph, count: int = 1) -> FailureTable:
    """Return what every failure of up to `count` devices and links leads to.

    Args:
        graph: A plain graph whose form is sound (R1 to R3, R12, R14).
        count: How many may fail at once; 0 shows the deployment as it is.

    Raises:
        UnderstudyError: The table would have more than `FAILURES_MAX` rows.
    """
    devices, cut = devices_of(graph), links_of(graph)
    _refuse_too_many(len(devices) + len(cut), count)
    streams = [Stream(graph, region) for region in graph.regions]
    sound = not any(_unsound(graph))
    rows = []
    for failure in failures(devices, cut, count):
        left = () if sound else tuple(_unsound(surviving(graph, failure)))
        answers = tuple(stream.answer(failure) for stream in streams)
        rows.append(Consequence(failure, answers, left))
    return FailureTable(count, tuple(rows))


def devices_of(graph: Graph) -> list[str]:
    """Return the devices that actors are mapped to, in the graph's order."""
    return list(dict.fromkeys(a.device for a in graph.actors.values() if a.device))


def links_of(graph: Graph) -> list[Link]:
    """Return the pairs of devices between which FIFOs go."""
    found: dict[Link, None] = {}
    for fifo in graph.fifos:
        pair = link_of(graph, fifo)
        if pair is not None and pair[::-1] not in found:
            found[pair] = None
    return list(found)


def failures(
    devices: Sequence[str], links: Sequence[Link], count: int
) -> Iterator[Failure]:
    """Yield every failure of up to `count` devices and links, the smallest first.

    A link counts as cut only while both its devices are alive: with one of them dead,
    it adds nothing.
    """
    elements: list[tuple[tuple[str, ...], tuple[Link, ...]]] = [
        *(((device,), ()) for device in devices),
        *(((), (link,)) for link in links),
    ]
    for size in range(count + 1):
        for chosen in itertools.combinations(elements, size):
            dead = tuple(d for part, _ in chosen for d in part)
            cut = tuple(link for _, part in chosen for link in part)
            if not any(end in dead for link in cut for end in link):
                yield Failure(dead, cut)


def surviving(graph: Graph, failure: Failure) -> Graph:
    """Return what of `graph` is left after `failure`.

    The actors of dead devices and the severed FIFOs are gone, and so are the modes that
    would play a branch that lost one of them. A DPG whose controller died has no mode
    left: it is gone, with its dynamic FIFOs and with its members behind a cut.
    """
    gone = {n for n, a in graph.actors.items() if a.device in failure.devices}
    orphaned = [dpg for dpg in graph.dpgs if dpg.controller in gone]
    off = {ref for dpg in orphaned for ref in dpg.dynamic_ports}
    gone |= {name for dpg in orphaned for name in dpg.carried}
    actors = {name: a for name, a in graph.actors.items() if name not in gone}
    fifos = tuple(
        fifo
        for fifo in graph.fifos
        if fifo.source.actor in actors
        and fifo.target.actor in actors
        and not failure.severs(
            actors[fifo.source.actor].device, actors[fifo.target.actor].device
        )
        and fifo.source not in off
        and fifo.target not in off
    )
    streams = [Stream(graph, region) for region in graph.regions]
    lost = {s.region.name: s.lost(failure) for s in streams}
    dpgs = tuple(
        _left_of(dpg, actors, lost.get(dpg.name, ()))
        for dpg in graph.dpgs
        if dpg.controller in actors
    )
    return Graph(graph.name, actors, fifos, dpgs)


def _left_of(dpg: Dpg, actors: Collection[str], lost: Collection[str]) -> Dpg:
    modes = {
        mode: {ref: rate for ref, rate in row.items() if ref.actor in actors}
        for mode, row in dpg.modes.items()
        if mode not in lost
    }
    return Dpg(dpg.name, dpg.controller, modes, dpg.carried & set(actors))


def _unsound(graph: Graph) -> Iterator[Finding]:
    """Yield what R8, then R10, then R11 find, each only if the one before found none.

    That is the order in which `dataflow.rules` runs them.
    """
    for rule in (consistent, live, bounded):
        if found := list(rule(graph)):
            yield from found
            return


def _worse(answer: Answer, required: Required) -> bool:
    if answer.status == "dropped":
        return True
    return required == "full" and answer.status == "degraded"


def _refuse_too_many(elements: int, count: int) -> None:
    rows = sum(math.comb(elements, size) for size in range(count + 1))
    if rows > FAILURES_MAX:
        raise UnderstudyError(
            f"failures: {elements} devices and links, up to {count} of them at once, "
            f"fail in {rows} ways, and a table holds {FAILURES_MAX}; let fewer fail"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
