"""Proving the promise from what a run left: every frame answered once, in order.

The proof needs nothing but the results files. The events are asked one question only:
whether a device whose stream has no end had been killed, since a dead process cannot
write the line that ends its stream.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from dataflow.graph import DROP_ROW
from dataflow.outcome import Reason
from understudy.records import DeviceRecord, Event, Result, Run, StreamRecord, Unwritten

PROMISE = "every frame answered once, in order"

_REASONS = tuple(filter(None, get_args(Reason)))
_HARMLESS = frozenset({"SIGSTOP", "SIGTSTP", "SIGCONT", "SIGTERM", "SIGINT"})
"""Signals that leave a device the time to end its streams."""
_SETTLES_AFTER_S = 1.0
"""Between the launcher's note of a kill and the death, a device may go on settling."""
_STALL_S = 5.0
"""A stream that was silent this long before its device died had not been living: a
hang that somebody ended with SIGKILL must not count as a death that excuses it. Where
the plan tells the deadline, a second more than that is enough."""


@dataclass(frozen=True, slots=True)
class StreamVerdict:
    """What became of one stream."""

    stream: str
    incarnation: str
    device: str
    frames: int
    """Frames covered by at least one outcome."""
    last: int
    """Last frame known; -1: there was none."""
    end: str
    """How it ended, in words: "ended", or how its device died; "" if unexplained."""
    unaccounted: int
    """Frames up to the last known that no outcome covers."""
    doubled: int
    """Outcomes of frames that had one."""
    disordered: int
    """Outcomes that came after one of a later frame."""
    unwritten: int
    """Outcomes that the sink got, and says it could not write."""
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the promise was kept."""

    kept: bool
    violations: tuple[str, ...]
    """``file:line: what is wrong``, in the order of the streams."""
    frames: int
    streams: tuple[StreamVerdict, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Death:
    words: str
    t_s: float | None


def judge(run: Run) -> Verdict:
    """Return whether each frame of each stream has exactly one outcome, in order."""
    streams = tuple(_judge_stream(run, record) for record in run.streams)
    violations = [v for stream in streams for v in stream.violations]
    violations += _missing_files(run)
    if not run.streams:
        violations.append(f"{run.folder}: no results file; nothing was answered")
    return Verdict(
        kept=not violations,
        violations=tuple(violations),
        frames=sum(stream.frames for stream in streams),
        streams=streams,
    )


def _judge_stream(run: Run, record: StreamRecord) -> StreamVerdict:
    violations: list[str] = []
    doubled = disordered = 0
    if _in_order(record):  # the usual case, and quick to see
        last = max((told.last for told in _told(record)[-1:]), default=-1)
        frames = last + 1
    else:
        frames, last = _covered(record)
        doubled = sum(t.last - t.frame + 1 for t in _told(record)) - frames
        violations += _disorder(record)
        disordered = len(violations)
        violations += _coverage(record)
    violations += _oddities(record)
    death = None
    if record.ended:
        violations += _bad_end(record, last)
        violations += _other_count(run, record)
    else:
        death = _death(run, record)
        violations += _missing_end(run, record, death)
    last = max([last, *(e.last for e in record.ended)])
    return StreamVerdict(
        stream=record.stream,
        incarnation=record.incarnation,
        device=record.device,
        frames=frames,
        last=last,
        end="ended" if record.ended else death.words if death else "",
        unaccounted=last + 1 - frames,
        doubled=doubled,
        disordered=disordered,
        unwritten=sum(sum(u.counts.values()) for u in record.unwritten),
        violations=tuple(violations),
    )


def _at(record: StreamRecord, line: int) -> str:
    return f"{record.path}:{max(line, 1)}"


def _frames_text(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first} to {last}"


def _told(record: StreamRecord) -> Sequence[Result | Unwritten]:
    """Return the outcomes, and those that the file says it has not, as they come.

    To get an outcome is to have it handed to the sink; a sink that could not write some
    says which, and they are accounted for.
    """
    if not record.unwritten:
        return record.results
    told: list[Result | Unwritten] = [*record.results, *record.unwritten]
    return sorted(told, key=lambda each: each.line)


def _in_order(record: StreamRecord) -> bool:
    """Tell whether the outcomes cover 0, 1, 2 …, once each and in order."""
    due = 0
    for result in _told(record):
        if result.frame != due or result.last < due:
            return False
        due = result.last + 1
    return True


def _disorder(record: StreamRecord) -> Iterator[str]:
    """Yield each outcome that comes before one of an earlier frame."""
    highest = -1
    for result in _told(record):
        if result.frame < highest:
            late = _frames_text(result.frame, result.last)
            yield (
                f"{_at(record, result.line)}: {late} out of order, after "
                f"frame {highest}"
            )
        highest = max(highest, result.frame)


def _coverage(record: StreamRecord) -> Iterator[str]:
    """Yield the frames that no outcome covers, and those that several cover."""
    due = 0
    for result in sorted(_told(record), key=lambda r: (r.frame, r.line)):
        if result.frame != due:
            where = _at(record, result.line)
            if result.frame > due:
                missing = _frames_text(due, result.frame - 1)
                yield f"{where}: {missing} unaccounted for before frame {result.frame}"
            else:
                doubled = _frames_text(result.frame, min(result.last, due - 1))
                yield f"{where}: {doubled} answered twice"
        due = max(due, result.last + 1)


def _covered(record: StreamRecord) -> tuple[int, int]:
    """Return how many frames have an outcome, and the last of them (-1: none)."""
    frames, last = 0, -1
    for result in sorted(_told(record), key=lambda r: r.frame):
        frames += max(0, result.last - max(result.frame, last + 1) + 1)
        last = max(last, result.last)
    return frames, last


def _oddities(record: StreamRecord) -> Iterator[str]:
    """Yield outcomes that are none of full, degraded(row) and dropped(reason)."""
    for result in record.results:
        if _is_proper(result, record.rows):
            continue
        where = f"{_at(record, result.line)}: frame {result.frame}"
        if result.status == "dropped":
            if result.reason not in _REASONS:
                known = ", ".join(_REASONS)
                yield f"{where} dropped for reason '{result.reason}'; known are {known}"
            if result.row != DROP_ROW:
                yield f"{where} dropped, yet answered by row '{result.row}'"
        elif result.row not in record.rows:
            rows = ", ".join(record.rows)
            yield f"{where} answered by row '{result.row}'; the rows are {rows}"
        elif result.reason:
            yield f"{where} {result.status}, with reason '{result.reason}' for a drop"
        if result.settled_s < result.fired_s:
            yield (
                f"{where} settled at {result.settled_s:.6f} s, before it fired at "
                f"{result.fired_s:.6f} s"
            )


def _is_proper(result: Result, rows: Collection[str]) -> bool:
    if result.settled_s < result.fired_s:
        return False
    if result.status == "dropped":
        return result.row == DROP_ROW and result.reason in _REASONS
    return not result.reason and result.row in rows


def _bad_end(record: StreamRecord, last: int) -> Iterator[str]:
    end = record.ended[0]
    for extra in record.ended[1:]:
        yield f"{_at(record, extra.line)}: ended twice, first on line {end.line}"
    for result in record.results:
        if result.line > end.line:
            yield (
                f"{_at(record, result.line)}: frame {result.frame} answered after the "
                f"stream ended on line {end.line}"
            )
    if end.last > last:
        missing = _frames_text(last + 1, end.last)
        yield f"{_at(record, end.line)}: {missing} unaccounted for at the end"
    untold = end.unwritten - sum(sum(u.counts.values()) for u in record.unwritten)
    if untold > 0:
        yield (
            f"{_at(record, end.line)}: {untold} outcomes reached the sink but could "
            "not be written; free the disk, or raise the sink's limit_mb"
        )
    if end.last < last:
        yield (
            f"{_at(record, end.line)}: ended with frame {end.last}, but frame {last} "
            "was answered"
        )


def _missing_end(run: Run, record: StreamRecord, death: _Death | None) -> Iterator[str]:
    where = _at(record, record.lines)
    if death is None:
        yield (
            f"{where}: no `ended` line, and nothing says that device '{record.device}' "
            "was killed"
        )
    elif death.t_s is not None:
        silent_s = death.t_s - _last_life_s(run, record, death.t_s)
        limit_s = max(_quiet_s(run, record), 3 / (_rate_hz(run, record) or 1))
        if silent_s > limit_s:
            yield (
                f"{where}: stalled: nothing was settled in the {silent_s:.1f} s before "
                f"device '{record.device}' died"
            )


def _other_count(run: Run, record: StreamRecord) -> Iterator[str]:
    """Yield what the device's own count of the stream says otherwise."""
    life = run.device_life(record.device, record.incarnation)
    if life is None:
        return
    for event in life.named("stream.ended"):
        if event.text("stream") != record.stream:
            continue
        place = f"{life.path}:{event.line}"
        counts = event.fields.get("counts")
        for status, count in counts.items() if isinstance(counts, dict) else ():
            found = [r.frames for r in record.results if r.status == status]
            found += [1] * sum(u.counts.get(status, 0) for u in record.unwritten)
            if count not in (len(found), sum(found)):  # outcomes, or frames
                yield (
                    f"{place}: device counted {count} outcomes {status}, its results "
                    f"hold {len(found)}"
                )
        if event.number("last") != record.ended[0].last:
            yield (
                f"{place}: device ended with frame {event.text('last')}, its results "
                f"with {record.ended[0].last}"
            )


def _missing_files(run: Run) -> Iterator[str]:
    """Yield the streams that started, but have no results file."""
    known = {(record.stream, record.incarnation) for record in run.streams}
    for life in run.devices:
        for event in life.named("stream.started"):
            stream = (event.text("stream"), event.text("incarnation"))
            if stream not in known:
                yield (
                    f"{life.path}:{event.line}: stream '{stream[0]}' of incarnation "
                    f"{stream[1]} started, but has no results file"
                )


def _started(run: Run, record: StreamRecord) -> Event | None:
    life = run.device_life(record.device, record.incarnation)
    for event in life.named("stream.started") if life else ():
        if event.text("stream") == record.stream:
            return event
    return None


def _rate_hz(run: Run, record: StreamRecord) -> float | None:
    started = _started(run, record)
    return started.number("rate_hz") if started else None


def _quiet_s(run: Run, record: StreamRecord) -> float:
    for region in run.plan.graph.regions if run.plan else ():
        if region.stream == record.stream:
            return region.deadline_ms / 1e3 + 1
    return _STALL_S


def _last_life_s(run: Run, record: StreamRecord, death_s: float) -> float:
    """Return when the stream last showed life; the death itself if it never began."""
    started = _started(run, record)
    times = [r.settled_s for r in record.results] + ([started.t_s] if started else [])
    return max(times, default=death_s)


def _death(run: Run, record: StreamRecord) -> _Death | None:
    """Return how the stream's device was killed; None if nothing says that it was.

    The launcher's word comes first: it knows the signal it sent and the status it got.
    Without it, a device that left none of `device.stopping`, `device.stopped` and
    `device.failed` died before it could write one. A device that had begun to stop
    could have ended its stream, unless a fault hit it just then.
    """
    life = run.device_life(record.device, record.incarnation)
    if life and any(life.named("device.stopped")):
        return None
    for fault in run.launched("fault"):
        lethal = fault.signal and fault.signal not in _HARMLESS
        if lethal and _concerns(fault, record, life):
            return _Death(f"{record.device} got {fault.signal}", fault.t_s)
    words = ("device.stopping", "device.failed")
    if life and any(any(life.named(word)) for word in words):
        return None
    for end in run.launched("exit"):
        if _concerns(end, record, life):
            status = end.number("status")
            if status is None or 0 <= status <= 128:
                return None  # it ended by itself, and could have ended its stream
            return _Death(f"{record.device} died with status {status:g}", end.t_s)
    if life is None:
        return None
    last_s = max((event.t_s for event in life.events), default=None)
    return _Death(f"{record.device} left without a word", last_s)


def _concerns(event: Event, record: StreamRecord, life: DeviceRecord | None) -> bool:
    """Return whether the launcher's `event` is about the stream's own process.

    A device that is killed and started again has two lives: the pid tells them apart,
    or, where that is not known, the time.
    """
    if event.text("target") != record.device:
        return False
    pid = event.number("pid")
    if life and life.pid is not None and pid is not None:
        return pid == life.pid
    settled_s = max((r.settled_s for r in record.results), default=event.t_s)
    return settled_s <= event.t_s + _SETTLES_AFTER_S
