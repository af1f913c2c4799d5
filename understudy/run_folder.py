"""Reading what a run left behind: outcomes and events, as typed data.

A run folder holds one results file per stream and life of its source's process, one
events file per life of a device, and the launcher's own. Each line is one JSON object.
A process that gets SIGKILL may leave half a line at the end of its files: that one is
skipped, and said to be. Anything else that is not as it should be is an error, since
the promise is proved from these files.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.outcome import Status
from dataflow.plan import PLAN_FILE, Plan, read_plan
from understudy.json_lines import VERSION, Line, read_lines
from understudy.records import (
    DeviceRecord,
    Ended,
    Event,
    Result,
    Run,
    StreamRecord,
    Switched,
    Unwritten,
    natural_key,
)

LAUNCHER = "launcher"
PLAN_FOLDER = "plan"
PLAN_POINTER = "plan.txt"
DEPLOYMENT_FILE = "deployment.yaml"
"""A copy of the deployment that the run was started from, where there is one."""

_FILE_NAME = re.compile(r"(?:results|events)-(.+)-([0-9a-f]{16})\.jsonl")


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


def plan_folder(run_folder: Path) -> Path:
    """Return where the plan of a run lies.

    Raises:
        MisuseError: There is no run.
    """
    place, pointer = run_folder / PLAN_FOLDER, run_folder / PLAN_POINTER
    if not (place / PLAN_FILE).is_file() and pointer.is_file():
        place = run_folder / pointer.read_text().strip()
    if not (place / PLAN_FILE).is_file():
        raise MisuseError(
            f"{run_folder}: holds no plan; give the folder of an `understudy up`"
        )
    return place


def _stream_order(record: StreamRecord) -> tuple[object, float]:
    first_s = record.results[0].fired_s if record.results else math.inf
    return natural_key(record.stream), first_s


def _device_order(record: DeviceRecord) -> tuple[object, float]:
    first_s = record.events[0].t_s if record.events else math.inf
    return natural_key(record.device), first_s


def _read_plan_of(folder: Path) -> Plan | None:
    """Return the run's plan. Proving the promise must not depend on it: None if bad."""
    try:
        return read_plan(plan_folder(folder))
    except (UnderstudyError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read_head(
    line: Line, kind: Literal["results", "events"], name: str, incarnation: str
) -> Line:
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
    head = Line(line.path, line.number, line.data[kind])
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
    lines, torn = read_lines(path)
    results: list[Result] = []
    ended: list[Ended] = []
    unwritten: list[Unwritten] = []
    switched: list[Switched] = []
    for line in lines[1:]:
        if isinstance(line.data.get("unwritten"), dict):
            unwritten.append(_unwritten(line))
        elif "switched" in line.data:
            first, rows = line.whole("switched", least=0), line.texts("rows")
            codec = line.text("codec")
            switched.append(Switched(line.number, first, rows, codec))
        elif "ended" in line.data:
            lost = line.whole("unwritten", least=0) if "unwritten" in line.data else 0
            ended.append(Ended(line.number, line.whole("ended", least=-1), lost))
        else:
            results.append(_result(line))
    head = _read_head(lines[0], "results", name, incarnation) if lines else None
    rows = head.texts("rows") if head else ()
    stream = head.text("stream") if head else name.replace("+", "/")
    return StreamRecord(
        path=path,
        stream=stream,
        incarnation=incarnation,
        device=head.text("device") if head else stream.partition("/")[0],
        deployment=head.text("deployment") if head else "",
        graph=head.text("graph") if head else "",
        rows=tuple(dict.fromkeys([*rows, *(r for s in switched for r in s.rows)])),
        codec=head.text("codec") if head else "",
        epoch_s=head.real("epoch_s") if head else None,
        labels=head.flag("labels") if head else False,
        results=tuple(results),
        ended=tuple(ended),
        unwritten=tuple(unwritten),
        switched=tuple(switched),
        torn=torn,
    )


def _unwritten(line: Line) -> Unwritten:
    told = Line(line.path, line.number, line.data["unwritten"])
    first = told.whole("first", least=0)
    seen = [s for s in get_args(Status) if s in told.data]
    counts = {status: told.whole(status, least=0) for status in seen}
    return Unwritten(line.number, first, told.whole("last", least=first), counts)


def _result(line: Line) -> Result:
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
    lines, torn = read_lines(path)
    head: Line | None = None
    if launcher and lines and "understudy" in lines[0].data:
        head = Line(path, 1, lines[0].data.get("events") or {})
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


def _event(line: Line) -> Event:
    name = line.text("event")
    for key in _TEXT_FIELDS.get(name, ()):
        line.text(key)
    for key in _NUMBER_FIELDS.get(name, ()):
        if line.data.get(key) is not None:  # nothing was outstanding: nothing switched
            line.real(key)
    fields = {k: v for k, v in line.data.items() if k not in ("t_s", "event")}
    return Event(line.number, line.real("t_s"), name, fields)
