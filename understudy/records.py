"""What a run left behind, as typed data: outcomes, events, lives of devices."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import NamedTuple, cast

from dataflow.graph import DROP_ROW
from dataflow.outcome import Status
from dataflow.plan import Plan
from understudy.json_lines import is_number


class Result(NamedTuple):
    """What a sink got for the frames `frame` to `last`: one line of a results file."""

    line: int
    """Line of the file, from 1."""
    frame: int
    last: int
    status: Status
    row: str
    reason: str
    fired_s: float
    settled_s: float
    attempts: int
    answers: tuple[int | None, ...]
    """For each frame, the class that its answer names (its argmax); None if none."""
    labels: tuple[int | None, ...]
    """For each frame, the class that is right; None if it is not known."""
    value: tuple[float, ...] | None
    """The answer itself, where the run kept it."""

    @property
    def frames(self) -> int:
        return self.last - self.frame + 1

    @property
    def latency_ms(self) -> float:
        return (self.settled_s - self.fired_s) * 1e3


@dataclass(frozen=True, slots=True)
class Ended:
    """The line that closes a results file."""

    line: int
    last: int
    """Last frame that the source numbered; -1: there was none."""
    unwritten: int = 0
    """Outcomes that the sink got and could not write."""


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A line that says which outcomes the sink got and could not write."""

    line: int
    frame: int
    last: int
    counts: Mapping[str, int]
    """By status."""


@dataclass(frozen=True, slots=True)
class Switched:
    """A line that says that another plan is played from now on."""

    line: int
    frame: int
    """The first that is answered under it."""
    rows: tuple[str, ...]
    codec: str


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """A results file: one stream, in one life of its source's process."""

    path: Path
    stream: str
    incarnation: str
    device: str
    deployment: str
    graph: str
    rows: tuple[str, ...]
    """Branches in the policy's order; of the first plan, then what others added."""
    codec: str
    epoch_s: float | None
    """Wall clock minus monotonic clock; None if the first line is torn."""
    labels: bool
    results: tuple[Result, ...]
    """In the order of the file."""
    ended: tuple[Ended, ...]
    """One in a good file of a device that lived; all that are there."""
    torn: bool
    """The last line is half a line, and was skipped."""
    unwritten: tuple[Unwritten, ...] = ()
    switched: tuple[Switched, ...] = ()
    """In the order of the file."""

    @property
    def codecs(self) -> tuple[str, ...]:
        """Return that of the first plan, and those of the plans that followed."""
        return (self.codec, *(each.codec for each in self.switched))

    @property
    def frames_per_result(self) -> int:
        """Frames of an iteration; the last one may have fewer."""
        return max((result.frames for result in self.results), default=1)

    @property
    def lines(self) -> int:
        """Number of the last whole line; 0 if there is none."""
        ends = [e.line for e in self.ended] + [r.line for r in self.results[-1:]]
        return max(ends, default=0 if self.epoch_s is None else 1)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an events file."""

    line: int
    t_s: float
    """Monotonic clock of the device that wrote it."""
    name: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def text(self, key: str) -> str:
        """Return field `key` as text; "" if it is not there."""
        value = self.fields.get(key)
        return "" if value is None else str(value)

    def number(self, key: str) -> float | None:
        """Return field `key` if it is a number."""
        value = self.fields.get(key)
        return float(cast(float, value)) if is_number(value) else None

    @property
    def signal(self) -> str:
        """Name of the signal in field ``signal``, whether it holds a name or a number.

        >>> Event(1, 0.0, "fault", {"signal": 9}).signal
        'SIGKILL'
        """
        raw = self.text("signal")
        if raw.isdecimal():
            try:
                return Signals(int(raw)).name
            except ValueError:
                return raw
        return raw if not raw or raw.startswith("SIG") else f"SIG{raw}"


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """An events file: one life of a device, or the launcher."""

    path: Path
    device: str
    incarnation: str
    """Empty for the launcher."""
    deployment: str
    plan: str
    """Digest of the plan it ran."""
    pid: int | None
    version: str
    epoch_s: float | None
    machine: Mapping[str, str]
    """Facts about the machine, where the device recorded them."""
    events: tuple[Event, ...]
    torn: bool

    def named(self, name: str) -> Iterator[Event]:
        return (event for event in self.events if event.name == name)


@dataclass(frozen=True, slots=True)
class Run:
    """All that a run folder holds."""

    folder: Path
    streams: tuple[StreamRecord, ...]
    """By name of the stream, then by time."""
    devices: tuple[DeviceRecord, ...]
    """Lives of devices, by name, then by time; without the launcher."""
    launcher: DeviceRecord | None
    plan: Plan | None
    """None if the folder has none, or one that this version cannot read."""
    clock_errors_s: Mapping[str, float] = field(default_factory=dict)
    """Device -> the most that its times are wrong, once `clocks` aligned them."""

    def device_life(self, device: str, incarnation: str) -> DeviceRecord | None:
        for record in self.devices:
            if (record.device, record.incarnation) == (device, incarnation):
                return record
        return None

    def launched(self, name: str) -> Iterator[Event]:
        """Yield the launcher's events called `name`; none if there was no launcher."""
        return self.launcher.named(name) if self.launcher else iter(())

    def row_device(self, stream: str, row: str) -> str:
        """Return the device that does the work of `row`; a row is named after it.

        What is no branch of the stream's region is a mode that passes the region by:
        the work was done on the stream's own device.
        """
        if self.plan is None or row == DROP_ROW:
            return row
        graph = self.plan.graph
        for region in graph.regions:
            if region.stream == stream:
                devices = {branch.row: branch.device for branch in region.branches}
                return devices.get(row, graph.actors[region.source].device or row)
        return row


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts cam.2 before cam.10.

    >>> sorted(["cam.10", "cam.2"], key=natural_key)
    ['cam.2', 'cam.10']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in parts if p)
