"""Reading what a run left behind: outcomes and events, as typed data.

A run folder holds one results file per stream and life of its source's process, one
events file per life of a device, and the launcher's own. Each line is one JSON object.
A process that gets SIGKILL may leave half a line at the end of its files: that one is
skipped, and said to be. Anything else that is not as it should be is an error, since
the promise is proved from these files.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Literal, NamedTuple, cast, get_args

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.graph import DROP_ROW
from dataflow.outcome import Status
from dataflow.plan import PLAN_FILE, Plan, read_plan

VERSION = 1
LAUNCHER = "launcher"
PLAN_FOLDER = "plan"
PLAN_POINTER = "plan.txt"
DEPLOYMENT_FILE = "deployment.yaml"
"""A copy of the deployment that the run was started from, where there is one."""

_FRAMES_MAX = 65_536
"""Of one result; a file that says more is not believed."""

_FILE_NAME = re.compile(r"(?:results|events)-(.+)-([0-9a-f]{16})\.jsonl")


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
class StreamRecord:
    """A results file: one stream, in one life of its source's process."""

    path: Path
    stream: str
    incarnation: str
    device: str
    deployment: str
    graph: str
    rows: tuple[str, ...]
    """Branches in the policy's order."""
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
        return float(cast(float, value)) if _is_number(value) else None

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


def read_run(folder: Path) -> Run:
    """Return what `folder` holds.

    Raises:
        MisuseError: No such folder, or no run in it.
        UnderstudyError: A file in it is not what a run writes; names file and line.
    """
    if not folder.is_dir():
        raise MisuseError(
            f"{folder}: no such folder; give the folder that a run wrote, the one with "
            "results-*.jsonl"
        )
    results = sorted(folder.glob("results-*.jsonl"))
    events = sorted(folder.glob("events-*.jsonl"))
    if not (results or events):
        raise MisuseError(
            f"{folder}: holds no results-*.jsonl and no events-*.jsonl; give the "
            "folder that a run wrote"
        )
    launcher = folder / f"events-{LAUNCHER}.jsonl"
    return Run(
        folder=folder,
        streams=tuple(sorted((_read_stream(p) for p in results), key=_stream_order)),
        devices=tuple(
            sorted(
                (_read_device(p) for p in events if p != launcher), key=_device_order
            )
        ),
        launcher=_read_device(launcher) if launcher in events else None,
        plan=_read_plan_of(folder),
    )


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a key that sorts cam.2 before cam.10.

    >>> sorted(["cam.10", "cam.2"], key=natural_key)
    ['cam.2', 'cam.10']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in parts if p)


def _stream_order(record: StreamRecord) -> tuple[object, float]:
    first_s = record.results[0].fired_s if record.results else math.inf
    return natural_key(record.stream), first_s


def _device_order(record: DeviceRecord) -> tuple[object, float]:
    first_s = record.events[0].t_s if record.events else math.inf
    return natural_key(record.device), first_s


def _read_plan_of(folder: Path) -> Plan | None:
    """Return the run's plan. Proving the promise must not depend on it: None if bad."""
    place = folder / PLAN_FOLDER
    pointer = folder / PLAN_POINTER
    try:
        if not (place / PLAN_FILE).is_file() and pointer.is_file():
            place = folder / pointer.read_text().strip()
        return read_plan(place)
    except (UnderstudyError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True, slots=True)
class _Line:
    """One decoded line, with typed access that says where it went wrong."""

    path: Path
    number: int
    data: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def error(self, what: str) -> UnderstudyError:
        return UnderstudyError(
            f"{self.where}: {what}; the file was changed or was not written by this "
            f"version ({VERSION})"
        )

    def _get(self, key: str, wanted: str, good: bool) -> Any:
        if key not in self.data:
            raise self.error(f"no field '{key}' ({wanted})")
        if not good:
            raise self.error(f"field '{key}' is {self.data[key]!r:.60}, not {wanted}")
        return self.data[key]

    def text(self, key: str) -> str:
        good = isinstance(self.data.get(key), str)
        return cast(str, self._get(key, "a text", good))

    def whole(self, key: str, *, least: int) -> int:
        value = self.data.get(key)
        good = _is_whole(value) and cast(int, value) >= least
        return cast(int, self._get(key, f"a whole number from {least}", good))

    def per_frame(self, key: str, frames: int) -> tuple[int | None, ...]:
        """Return field `key` for each of several frames; one value holds for all."""
        value = self.data.get(key)
        several = value if isinstance(value, list) else None
        listed = [value] * min(frames, _FRAMES_MAX) if several is None else several
        if several is not None and len(several) < frames:
            raise self.error(
                f"field '{key}' has {len(several)} values for {frames} frames"
            )
        if not all(each is None or _is_whole(each) for each in listed):
            raise self.error(
                f"field '{key}' is {value!r:.60}, not a whole number, a list of them "
                "or null"
            )
        return tuple(cast(list[int | None], listed[:frames]))

    def real(self, key: str) -> float:
        good = _is_number(self.data.get(key))
        return float(self._get(key, "a finite number", good))

    def flag(self, key: str) -> bool:
        good = isinstance(self.data.get(key), bool)
        return cast(bool, self._get(key, "true or false", good))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        return tuple(self._get(key, "a list of texts", good))

    def status(self) -> Status:
        good = self.data.get("status") in get_args(Status)
        return cast(Status, self._get("status", f"one of {get_args(Status)}", good))

    def values(self, key: str) -> tuple[float, ...] | None:
        """Return a list of floats. NaN is let pass: a model may answer with it."""
        value = self.data.get(key)
        if value is None:
            return None
        good = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
        return tuple(map(float, self._get(key, "a list of numbers or null", good)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # false for infinities and NaN; float() cannot overflow


def _read_lines(path: Path) -> tuple[list[_Line], bool]:
    """Return the whole lines of `path`, and whether half a line follows them."""
    try:
        raw = path.read_bytes().split(b"\n")
    except OSError as error:
        raise MisuseError(f"{path}: cannot be read ({error.strerror})") from None
    lines = []
    for number, text in enumerate(raw, start=1):
        last = number == len(raw)  # what follows the last newline; normally nothing
        if last and not text:
            break
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            lines.append(_Line(path, number, data))
        elif last:
            return lines, True
        else:
            raise UnderstudyError(
                f"{path}:{number}: not a JSON object: {text[:40]!r}; only the last "
                "line may be incomplete, after a kill"
            )
    return lines, False


def _read_head(
    line: _Line, kind: Literal["results", "events"], name: str, incarnation: str
) -> _Line:
    """Return the first line's description of the file; it must match the file's name.

    `name` is the stream or device as the file's name writes it.
    """
    if line.data.get("understudy") != VERSION or kind not in line.data:
        raise line.error(
            f"first line must be {{'understudy': {VERSION}, '{kind}': ...}}, not "
            f"{dict(line.data)!s:.60}"
        )
    if not isinstance(line.data[kind], dict):
        raise line.error(f"field '{kind}' is not an object")
    head = _Line(line.path, line.number, line.data[kind])
    key = "stream" if kind == "results" else "device"
    found = (head.text(key).replace("/", "+"), head.text("incarnation"))
    if found != (name, incarnation):
        raise head.error(
            f"holds {key} and incarnation {found}, its name says otherwise"
        )
    return head


def _name_of(path: Path) -> tuple[str, str]:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise UnderstudyError(
            f"{path}: not named KIND-NAME-INCARNATION.jsonl with 16 hexadecimal "
            "digits; rename it back, or take it out of the run folder"
        )
    return match[1], match[2]


def _read_stream(path: Path) -> StreamRecord:
    name, incarnation = _name_of(path)
    lines, torn = _read_lines(path)
    results: list[Result] = []
    ended: list[Ended] = []
    unwritten: list[Unwritten] = []
    for line in lines[1:]:
        if isinstance(line.data.get("unwritten"), dict):
            unwritten.append(_unwritten(line))
        elif "ended" in line.data:
            lost = line.whole("unwritten", least=0) if "unwritten" in line.data else 0
            ended.append(Ended(line.number, line.whole("ended", least=-1), lost))
        else:
            results.append(_result(line))
    head = _read_head(lines[0], "results", name, incarnation) if lines else None
    stream = head.text("stream") if head else name.replace("+", "/")
    return StreamRecord(
        path=path,
        stream=stream,
        incarnation=incarnation,
        device=head.text("device") if head else stream.partition("/")[0],
        deployment=head.text("deployment") if head else "",
        graph=head.text("graph") if head else "",
        rows=head.texts("rows") if head else (),
        codec=head.text("codec") if head else "",
        epoch_s=head.real("epoch_s") if head else None,
        labels=head.flag("labels") if head else False,
        results=tuple(results),
        ended=tuple(ended),
        unwritten=tuple(unwritten),
        torn=torn,
    )


def _unwritten(line: _Line) -> Unwritten:
    told = _Line(line.path, line.number, line.data["unwritten"])
    first = told.whole("first", least=0)
    seen = [s for s in get_args(Status) if s in told.data]
    counts = {status: told.whole(status, least=0) for status in seen}
    return Unwritten(line.number, first, told.whole("last", least=first), counts)


def _result(line: _Line) -> Result:
    frame = line.whole("frame", least=0)
    last = line.whole("last", least=frame)
    return Result(
        line=line.number,
        frame=frame,
        last=last,
        status=line.status(),
        row=line.text("row"),
        reason=line.text("reason"),
        fired_s=line.real("fired_s"),
        settled_s=line.real("settled_s"),
        attempts=line.whole("attempts", least=0),
        answers=line.per_frame("answer", last - frame + 1),
        labels=line.per_frame("label", last - frame + 1),
        value=line.values("value"),
    )


def _read_device(path: Path) -> DeviceRecord:
    launcher = path.name == f"events-{LAUNCHER}.jsonl"
    name, incarnation = (LAUNCHER, "") if launcher else _name_of(path)
    lines, torn = _read_lines(path)
    head: _Line | None = None
    if launcher and lines and "understudy" in lines[0].data:
        head = _Line(path, 1, lines[0].data.get("events") or {})
    elif lines and not launcher:
        head = _read_head(lines[0], "events", name, incarnation)
    strict = head is not None and not launcher
    about = head.data if head else {}
    machine = about.get("machine")
    return DeviceRecord(
        path=path,
        device=head.text("device") if head and strict else name,
        incarnation=incarnation,
        deployment=str(about.get("deployment", "")),
        plan=str(about.get("plan", "")),
        pid=head.whole("pid", least=0) if head and strict else None,
        version=str(about.get("version", "")),
        epoch_s=head.real("epoch_s") if head and "epoch_s" in about else None,
        machine=(
            {str(k): str(v) for k, v in machine.items()}
            if isinstance(machine, dict)
            else {}
        ),
        events=tuple(_event(line) for line in lines[1 if head else 0 :]),
        torn=torn,
    )


_TEXT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "link.suspect": ("peer", "evidence"),
    "link.back": ("peer",),
    "failover": ("peer",),
    "stream.started": ("stream", "incarnation"),
    "stream.ended": ("stream",),
    "fault": ("target",),
    "start": ("target",),
    "exit": ("target",),
}
_NUMBER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "failover": ("detected_s", "decided_s", "switched_s"),
    "stream.ended": ("last",),
}
"""What the figures rest on. Other events and fields may come and go."""


def _event(line: _Line) -> Event:
    name = line.text("event")
    for key in _TEXT_FIELDS.get(name, ()):
        line.text(key)
    for key in _NUMBER_FIELDS.get(name, ()):
        if line.data.get(key) is not None:  # nothing was outstanding: nothing switched
            line.real(key)
    fields = {k: v for k, v in line.data.items() if k not in ("t_s", "event")}
    return Event(line.number, line.real("t_s"), name, fields)
