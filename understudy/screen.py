"""A run on a terminal: devices, links, streams and rates, drawn again and again.

What happens is printed above the picture and stays. Only a terminal pays for rich: it
is imported here alone.
"""

import signal
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live as Drawn
from rich.table import Table
from rich.text import Text

from dataflow.graph import DROP_ROW
from understudy.launch import Launcher
from understudy.live import Live, rows_text
from understudy.records import natural_key

DRAW_S = 0.25
_STATES = {
    "device.loading": "loading",
    "device.ready": "ready",
    "device.stopping": "stopping",
    "device.stopped": "stopped",
    "device.failed": "failed",
}
_LINKS = {
    "link.up": "ready",
    "link.back": "ready",
    "link.suspect": "suspect",
    "link.dead": "lost",
    "link.refused": "refused",
}
_ENDS = {0: "stopped", -signal.SIGKILL: "killed"}
"""Exit status of a process -> the state of its device."""
_STYLES = {
    "ready": "green",
    "loading": "yellow",
    "stopping": "yellow",
    "suspect": "yellow",
    "lost": "red",
    "refused": "red",
    "failed": "red",
    "killed": "red",
}
_ROWS_LETTERS = 30


@dataclass
class _Stream:
    """What is shown of one stream; the latest second, and all of it."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)
    shown: tuple[str, ...] = ("", "", "", "")
    """Frames/s, median and worst latency, who answered: of the second before."""

    def close_second(self, took_s: float) -> None:
        """Show the second that is over; the next begins."""
        answered = sum(n for row, n in self.rows.items() if row != DROP_ROW)
        median = f"{statistics.median(self.took_ms):.1f}" if self.took_ms else ""
        worst = f"{max(self.took_ms):.1f}" if self.took_ms else ""
        rows = rows_text(self.rows, _ROWS_LETTERS)
        self.shown = f"{answered / took_s:.1f}", median, worst, rows
        self.rows.clear()
        self.took_ms.clear()


@dataclass
class _Device:
    """What is shown of one device."""

    role: str
    state: str = ""
    pid: int | None = None
    links: dict[str, str] = field(default_factory=dict)
    """Peer -> state, of those that it dials."""
    sessions: dict[str, int] = field(default_factory=dict)
    """Peer -> session, of those that dial it."""


class Screen(Live):
    """Draws a run, see `Live`.

    Args:
        launcher: The run's processes.
        console: Where to draw; standard output by default.
    """

    def __init__(self, launcher: Launcher, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        super().__init__(launcher, self._print, self._console.width)
        self._devices = {
            name: _Device(spec.role) for name, spec in launcher.plan.devices.items()
        }
        self._name = launcher.plan.name
        self._streams: dict[str, _Stream] = {}
        self._drawn = Drawn(console=self._console, auto_refresh=False, transient=True)
        self._drawn_s = 0.0

    def begin(self) -> None:
        """Count the time from now on, and draw."""
        self._start_s = time.monotonic()
        self._next_s = self._start_s + 1.0
        self._drawn.start()

    def turn(self) -> None:
        """Take in what is new, and draw it now and then."""
        super().turn()
        now_s = time.monotonic()
        if now_s >= self._drawn_s + DRAW_S and self._drawn.is_started:
            self._drawn_s = now_s
            self._drawn.update(self.picture(), refresh=True)

    def end(self) -> None:
        """Take the picture away: the summary follows."""
        try:
            self.turn()
        finally:  # a terminal gets its cursor back, whatever else goes wrong
            self._drawn.stop()

    def picture(self) -> Group:
        """Return what is known now as two tables."""
        return Group("", self._devices_table(), "", self._streams_table())

    def _print(self, text: str) -> None:
        self._console.print(Text(text))

    def _result(self, stream: str, record: Mapping[str, Any]) -> None:
        super()._result(stream, record)
        if "status" in record:
            shown = self._streams.setdefault(stream, _Stream())
            shown.counts[record["status"]] += 1
            shown.rows[record["row"]] += 1
            shown.took_ms.append((record["settled_s"] - record["fired_s"]) * 1e3)

    def _event(self, device: str, record: Mapping[str, Any]) -> None:
        super()._event(device, record)
        event = record["event"]
        if event == "start":
            # A plan that follows may bring further servers.
            self._devices.setdefault(record["target"], _Device("server"))
            self._devices[record["target"]].pid = record["pid"]
        elif event == "exit":
            state = _ENDS.get(record["status"], "failed")
            self._devices[record["target"]] = _Device(
                self._devices[record["target"]].role, state
            )
        if (shown := self._devices.get(device)) is None:
            return
        if event in _STATES:
            shown.state = _STATES[event]
        elif event in _LINKS:
            shown.links[record["peer"]] = _LINKS[event]
        elif event == "session.opened":
            shown.sessions[record["peer"]] = record["session"]
        elif event == "session.ended" and record["session"] == shown.sessions.get(
            record["peer"]
        ):
            del shown.sessions[record["peer"]]

    def _line(self, now_s: float) -> None:
        took_s = now_s - self._next_s + 1.0
        for shown in self._streams.values():
            shown.close_second(took_s)
        self._next_s = now_s + 1.0

    def _devices_table(self) -> Table:
        table = _table(f"{self._name}, {self.elapsed_s:.0f} s")
        for title in ("device", "role", "state"):
            table.add_column(title)
        table.add_column("pid", justify="right")
        table.add_column("links")
        for name in sorted(self._devices, key=natural_key):
            shown = self._devices[name]
            links = shown.links or dict.fromkeys(shown.sessions, "ready")
            table.add_row(
                name,
                shown.role,
                Text(shown.state, _STYLES.get(shown.state, "")),
                "" if shown.pid is None else str(shown.pid),
                _joined(links),
            )
        return table

    def _streams_table(self) -> Table:
        table = _table()
        table.add_column("stream")
        for title in ("frames", "full", "degraded", "dropped", "fps"):
            table.add_column(title, justify="right")
        table.add_column("p50 ms", justify="right")
        table.add_column("worst ms", justify="right")
        table.add_column("who answered")
        for name in sorted(self._streams, key=natural_key):
            shown = self._streams[name]
            statuses = ("full", "degraded", "dropped")
            counts = (f"{shown.counts[status]:,}" for status in statuses)
            total = f"{shown.counts.total():,}"
            table.add_row(name, total, *counts, *shown.shown)
        return table


def _table(title: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="dim",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )


def _joined(links: Mapping[str, str]) -> Text:
    """Return peers in the colours of their links' states; what is wrong, in words."""
    text = Text()
    for peer in sorted(links, key=natural_key):
        state = links[peer]
        said = peer if state == "ready" else f"{peer} {state}"
        text.append(said + "  ", _STYLES.get(state, ""))
    return text
