"""The figures of a run: outcomes, accuracy, latency, and what each failure cost."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dataflow.graph import DROP_ROW
from dataflow.outcome import Status
from dataflow.plan import Expected
from understudy.faults import Detection, FaultFigures, faults, maximum
from understudy.json_lines import VERSION, is_number
from understudy.records import Result, Run, StreamRecord, natural_key

__all__ = [
    "Accuracy",
    "Detection",
    "FaultFigures",
    "Figures",
    "Latency",
    "OutcomeFigures",
    "ServedFigures",
    "StreamFigures",
    "figures",
    "latency",
    "outcome_key",
]


@dataclass(frozen=True, slots=True)
class Latency:
    """From the source's firing to the outcome. Percentiles are measured frames."""

    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Answers that named the label's class, among the frames that have a label."""

    correct: int
    labelled: int

    @property
    def share(self) -> float:
        return self.correct / self.labelled


@dataclass(frozen=True, slots=True)
class OutcomeFigures:
    """Frames of one outcome: full, degraded by one row, or dropped for one reason."""

    status: Status
    what: str
    """The row for degraded, the reason for dropped, empty for full."""
    frames: int
    share: float
    accuracy: Accuracy | None
    latency: Latency | None

    @property
    def name(self) -> str:
        return f"{self.status}: {self.what}" if self.what else self.status


@dataclass(frozen=True, slots=True)
class ServedFigures:
    """Frames that one row answered."""

    row: str
    device: str
    status: Status
    frames: int
    share: float
    accuracy: Accuracy | None
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream, in one life of its device."""

    stream: str
    incarnation: str
    device: str
    frames: int
    full: int
    degraded: int
    dropped: int
    retried: int
    """Frames that took more than one attempt: retried, replicated or hedged."""
    fps: float | None
    """Frames answered per second."""
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run comes down to."""

    deployment: str
    graph: str
    codecs: tuple[str, ...]
    origin_s: float
    """Monotonic clock at the first frame: zero of every time in the figures."""
    started_epoch_s: float | None
    """Wall clock at the first frame."""
    seconds: float
    frames: int
    fps: float | None
    """Frames answered per second, over all streams."""
    outcomes: tuple[OutcomeFigures, ...]
    served: tuple[ServedFigures, ...]
    streams: tuple[StreamFigures, ...]
    faults: tuple[FaultFigures, ...]
    full_error: float | None
    """max|d| / max|ref| of the full answers against the unsplit model's."""
    expected: Expected | None
    """Of full answers, as the deployment predicts."""
    sent: Mapping[str, int]
    """Tokens by codec, of the streams that chose it and have ended."""

    def count(self, status: Status) -> int:
        return sum(o.frames for o in self.outcomes if o.status == status)

    @property
    def gap_ms_max(self) -> float | None:
        return maximum(fault.gap_ms for fault in self.faults)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values; NaN never occurs."""
        data = {"understudy": VERSION, **asdict(self)}
        for outcome, found in zip(data["outcomes"], self.outcomes, strict=True):
            outcome["name"] = found.name
        groups: tuple[OutcomeFigures | ServedFigures, ...]
        groups = (*self.outcomes, *self.served)
        for entry, each in zip(data["outcomes"] + data["served"], groups, strict=True):
            if each.accuracy:
                entry["accuracy"]["share"] = each.accuracy.share
        for fault, seen in zip(data["faults"], self.faults, strict=True):
            fault["detected_ms"] = seen.detected_ms
            fault["decided_us"] = seen.decided_us
            fault["switched_ms"] = seen.switched_ms
            fault["refilled_ms"] = seen.refilled_ms
        return data


def figures(run: Run, full_error: float | None = None) -> Figures:
    """Return the figures of `run`.

    Args:
        run: What a run folder holds.
        full_error: max|d| / max|ref| of the full answers against the unsplit model,
            where somebody compared them.
    """
    results = [r for record in run.streams for r in record.results]
    frames = sum(r.frames for r in results)
    origin_s = _origin_s(run, results)
    end_s = max((r.settled_s for r in results), default=origin_s)
    epochs = [r.epoch_s for r in run.streams if r.epoch_s is not None]
    names = [r.deployment for r in run.streams] + [d.deployment for d in run.devices]
    return Figures(
        deployment=next(filter(None, names), ""),
        graph=next((r.graph for r in run.streams if r.graph), ""),
        codecs=tuple(dict.fromkeys(c for r in run.streams for c in r.codecs if c)),
        origin_s=origin_s,
        started_epoch_s=origin_s + epochs[0] if epochs else None,
        seconds=end_s - origin_s,
        frames=frames,
        fps=_fps(results),
        outcomes=tuple(_outcomes(run, results, frames)),
        served=tuple(_served(run, frames)),
        streams=tuple(_stream(record) for record in run.streams),
        faults=tuple(faults(run, origin_s)),
        full_error=full_error,
        expected=run.plan.expected if run.plan is not None else None,
        sent=_sent(run),
    )


def _sent(run: Run) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for device in run.devices:
        for ended in device.named("stream.ended"):
            codecs = ended.fields.get("codecs")
            if isinstance(codecs, dict):
                counts.update({n: k for n, k in codecs.items() if is_number(k)})
    return dict(counts)


def latency(results: Iterable[Result]) -> Latency | None:
    """Return the latency of `results`; None if there are none."""
    sorted_ms = sorted(r.latency_ms for r in results)
    if not sorted_ms:
        return None
    return Latency(_rank(sorted_ms, 0.5), _rank(sorted_ms, 0.99), sorted_ms[-1])


def _rank(ascending: Sequence[float], q: float) -> float:
    """Return the nearest-rank quantile: a value that was measured, never a mean.

    >>> _rank([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return ascending[max(0, math.ceil(q * len(ascending)) - 1)]


def _origin_s(run: Run, results: Sequence[Result]) -> float:
    times = [r.fired_s for r in results]
    times = times or [e.t_s for device in run.devices for e in device.events]
    return min(times, default=0.0)


def _fps(results: Sequence[Result]) -> float | None:
    """Return answers per second; None for fewer than two, which span no time."""
    answered = [r for r in results if r.status != "dropped"]
    if len(answered) < 2:
        return None
    first_s = min(r.fired_s for r in answered)
    span_s = max(r.settled_s for r in answered) - first_s
    return sum(r.frames for r in answered) / span_s if span_s > 0 else None


def _row_order(run: Run) -> Callable[[str], tuple[int, object]]:
    """Return a key that sorts rows as the policy does, the drop last."""
    order = list(dict.fromkeys(row for record in run.streams for row in record.rows))
    ranks = {row: rank for rank, row in enumerate(order)}
    return lambda row: (
        len(order) + 1 if row == DROP_ROW else ranks.get(row, len(order)),
        natural_key(row),
    )


_STATUS_ORDER: dict[Status, int] = {"full": 0, "degraded": 1, "dropped": 2}


def outcome_key(result: Result) -> tuple[Status, str]:
    """Return the outcome's class: its status, and its row or reason."""
    if result.status == "full":
        return "full", ""
    if result.status == "degraded":
        return "degraded", result.row
    return "dropped", result.reason


def _outcomes(
    run: Run, results: Sequence[Result], frames: int
) -> Iterator[OutcomeFigures]:
    groups: dict[tuple[Status, str], list[Result]] = defaultdict(list)
    groups["full", ""] = []  # always shown: a run without full answers says so
    for result in results:
        groups[outcome_key(result)].append(result)
    row_rank = _row_order(run)
    for status, what in sorted(
        groups, key=lambda key: (_STATUS_ORDER[key[0]], row_rank(key[1]))
    ):
        group = groups[status, what]
        count = sum(r.frames for r in group)
        yield OutcomeFigures(
            status=status,
            what=what,
            frames=count,
            share=count / frames if frames else 0.0,
            accuracy=_accuracy(group),
            latency=latency(group),
        )


def _accuracy(results: Sequence[Result]) -> Accuracy | None:
    judged = [
        answer == label
        for r in results
        if r.status != "dropped"
        for answer, label in zip(r.answers, r.labels, strict=True)
        if label is not None
    ]
    return Accuracy(sum(judged), len(judged)) if judged else None


def _served(run: Run, frames: int) -> Iterator[ServedFigures]:
    groups: dict[tuple[str, str, Status], list[Result]] = defaultdict(list)
    for record in run.streams:
        for r in record.results:
            if r.status != "dropped":
                groups[r.row, _place(run, record, r.row), r.status].append(r)
    row_rank = _row_order(run)
    for row, place, status in sorted(
        groups, key=lambda key: (row_rank(key[0]), _STATUS_ORDER[key[2]], key[1])
    ):
        group = groups[row, place, status]
        count = sum(r.frames for r in group)
        yield ServedFigures(
            row=row,
            device=place,
            status=status,
            frames=count,
            share=count / frames,
            accuracy=_accuracy(group),
            latency=latency(group),
        )


def _place(run: Run, record: StreamRecord, row: str) -> str:
    """Return the device behind `row`; a stream's own is called "endpoint" for all.

    Empty if neither the plan nor the names of the devices tell.
    """
    device = run.row_device(record.stream, row)
    if device == record.device:
        return "endpoint"
    known = run.plan or any(life.device == device for life in run.devices)
    return device if known else ""


def _stream(record: StreamRecord) -> StreamFigures:
    counts: Counter[Status] = Counter()
    for result in record.results:
        counts[result.status] += result.frames
    return StreamFigures(
        stream=record.stream,
        incarnation=record.incarnation,
        device=record.device,
        frames=sum(counts.values()),
        full=counts["full"],
        degraded=counts["degraded"],
        dropped=counts["dropped"],
        retried=sum(r.attempts > 1 for r in record.results),
        fps=_fps(record.results),
        latency=latency(r for r in record.results if r.status != "dropped"),
    )
