"""What each failure of a run cost: who noticed it, by what evidence, and the gap.

A gap is measured like this: of the frames that were outstanding at the fault or fired
in the 2 s after it, the longest time from the source's firing to the outcome, minus the
median of the stream's 200 frames before the fault. It is taken over the streams that
the lost device was serving (over all if it served none), each on its own clock and
against its own median; the largest counts. Frames degraded and dropped among the same
frames are counted beside it.

Times of different devices are compared as they are: right on one host, where the
monotonic clock is one clock, and after `clocks.aligned`.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from understudy.records import DeviceRecord, Event, Result, Run, StreamRecord
from understudy.refill import Fill

GAP_WINDOW_S = 2.0
BASELINE_FRAMES = 200
SERVING_S = 1.0
"""A device served a stream at a fault if it answered one of its frames this shortly
before. Longer than one frame: rows may take turns."""

NOTICED_AFTER_S = 1.0
"""A fault that was mended may still be noticed this long: what it held back comes."""

_FAREWELL_S = 0.1
"""A device that stops says so and logs it at about the same time, in either order."""


@dataclass(frozen=True, slots=True)
class Detection:
    """How one device noticed the loss of a peer, and what it did."""

    device: str
    evidence: str
    text: str
    detected_ms: float | None
    """Since the fault; None if nobody knows when that was."""
    decided_us: float | None
    """From detecting to knowing what plays instead; None: nothing was outstanding."""
    switched_ms: float | None
    """From deciding to the start of the last replacement."""
    error_ms: float
    """The most that `detected_ms` is wrong, where clocks differ; see `clocks`."""
    refilled_ms: float | None
    """From there until the device's streams had no more frames without an outcome than
    usual, see `refill`; None: they had not, or nothing is known of before."""
    frames: int
    """Frames that were outstanding at the lost peer, and moved."""


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """One failure, and what it cost."""

    t_s: float
    """Since the first frame of the run."""
    target: str
    signal: str
    """Empty: the launcher sent none."""
    kind: str
    """What was done, where the launcher names it; no signal and no kind: a device lost
    this peer by itself."""
    observer: str
    """The device that could notice, if only one could: of a link, who dials."""
    streams: tuple[str, ...]
    """Those whose gap is meant."""
    serving: bool
    """The target was serving these streams; else they are all."""
    detections: tuple[Detection, ...]
    gap_ms: float | None
    """None: no frame was outstanding or fired in the window."""
    baseline_ms: float | None
    worst_stream: str
    worst_frame: int
    """The frame that waited longest; -1 if there is none."""
    full: int
    degraded: int
    dropped: int
    restarted_s: float | None
    """Since the fault; also a SIGCONT after a SIGSTOP, or a link that was mended."""
    back_s: float | None
    """Since the fault, when the last device that missed it had it back."""

    @property
    def name(self) -> str:
        link = f"{self.observer}-" if self.kind and self.observer else ""
        return f"{self.kind or self.signal or 'lost'} {link}{self.target}"

    @property
    def acting(self) -> tuple[Detection, ...]:
        """The detections that mattered: of devices with frames at the lost one."""
        return tuple(d for d in self.detections if d.frames) or self.detections

    @property
    def detected_ms(self) -> float | None:
        """The slowest of those that mattered; so are the next three."""
        return maximum(d.detected_ms for d in self.acting)

    @property
    def decided_us(self) -> float | None:
        return maximum(d.decided_us for d in self.acting)

    @property
    def switched_ms(self) -> float | None:
        return maximum(d.switched_ms for d in self.acting)

    @property
    def refilled_ms(self) -> float | None:
        return maximum(d.refilled_ms for d in self.acting)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Each kind of evidence once, in the order in which devices noticed."""
        return tuple(dict.fromkeys(d.evidence for d in self.detections))


def maximum(values: Iterable[float | None]) -> float | None:
    """Return the greatest of the values that are known; None if none is."""
    return max((v for v in values if v is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Loss:
    """A fault that the launcher set, or a peer that a device lost by itself."""

    t_s: float
    target: str
    signal: str
    until_s: float
    """When the next fault of the same target begins."""
    observer: str = ""
    """The only device that loses it; empty: all that use it do."""
    kind: str = ""
    noticed_until_s: float = math.inf
    """What is noticed later is not for it: it was mended."""

    @property
    def set(self) -> bool:
        """The launcher did it, and knows when."""
        return bool(self.signal or self.kind)


@dataclass(frozen=True, slots=True)
class _Timeline:
    """A stream's results by the time they fired: hundreds of faults look into it."""

    record: StreamRecord
    results: tuple[Result, ...]
    fired_s: tuple[float, ...]
    longest_s: float
    fill: Fill

    def outstanding_or_fired(self, t_s: float, until_s: float) -> list[Result]:
        """Return the results that fired by `until_s` and settled after `t_s`."""
        first = bisect_left(self.fired_s, t_s - self.longest_s)
        last = bisect_right(self.fired_s, until_s)
        return [r for r in self.results[first:last] if r.settled_s > t_s]

    def settled(self, t_s: float) -> Iterator[Result]:
        """Yield the results that settled by `t_s`, the last one first."""
        last = bisect_right(self.fired_s, t_s)
        return (
            self.results[i] for i in _down(last) if self.results[i].settled_s <= t_s
        )


def _down(count: int) -> range:
    return range(count - 1, -1, -1)


def _timeline(record: StreamRecord) -> _Timeline:
    results = tuple(sorted(record.results, key=lambda r: r.fired_s))
    return _Timeline(
        record,
        results,
        tuple(r.fired_s for r in results),
        max((r.settled_s - r.fired_s for r in results), default=0.0),
        Fill(
            tuple(r.fired_s for r in results),
            tuple(sorted(r.settled_s for r in results)),
        ),
    )


def faults(run: Run, origin_s: float) -> Iterator[FaultFigures]:
    """Yield the failures of `run` by time; `origin_s` is the zero of their times."""
    losses = [*_set_faults(run), *_unexplained(run)]
    streams = [_timeline(record) for record in run.streams]
    for loss in sorted(losses, key=lambda loss: loss.t_s):
        yield _fault(run, streams, loss, origin_s)


def _set_faults(run: Run) -> list[_Loss]:
    faults = [e for e in run.launched("fault") if e.signal != "SIGCONT"]
    losses = []
    for target, observer in dict.fromkeys(_struck(e) for e in faults):
        of_target = [e for e in faults if _struck(e) == (target, observer)]
        ends = [e.t_s for e in of_target[1:]] + [math.inf]
        losses += [
            _Loss(
                e.t_s,
                target,
                e.signal,
                until_s,
                observer,
                e.text("kind"),
                _mended_s(run, e) + NOTICED_AFTER_S,
            )
            for e, until_s in zip(of_target, ends, strict=True)
        ]
    return losses


def _mended_s(run: Run, fault: Event) -> float:
    ends = (e.t_s for e in run.launched("mended") if _struck(e) == _struck(fault))
    return min((t_s for t_s in ends if t_s >= fault.t_s), default=math.inf)


def _struck(fault: Event) -> tuple[str, str]:
    return fault.text("target"), fault.text("observer")


def _unexplained(run: Run) -> list[_Loss]:
    """Return the losses that no fault, no farewell and no orderly stop explains."""
    losses = []
    for observer in run.devices:
        open_since: dict[str, float] = {}
        for event in observer.named("link.suspect"):
            peer = event.text("peer")
            since_s = open_since.get(peer)
            again = since_s is None or _had(observer, peer, since_s, event.t_s)
            if again and not _explained(run, observer, event):
                open_since[peer] = event.t_s
                losses.append(_Loss(event.t_s, peer, "", math.inf, observer.device))
    return losses


def _had(observer: DeviceRecord, peer: str, after_s: float, before_s: float) -> bool:
    """Return whether a link of `observer` to `peer` came up between these times."""
    ups = (*observer.named("link.up"), *observer.named("link.back"))
    return any(e.text("peer") == peer and after_s < e.t_s < before_s for e in ups)


def _explained(run: Run, observer: DeviceRecord, suspect: Event) -> bool:
    """Return whether the peer that `suspect` names was meant to be away by then.

    It was, from a fault, a stop or an exit on, until the observer had it back.
    """
    peer = suspect.text("peer")
    if suspect.text("evidence").lower() == "bye":
        return True
    known = [
        e.t_s
        for name in ("fault", "exit")
        for e in run.launched(name)
        if e.text("target") == peer and e.text("observer") in ("", observer.device)
    ]
    for life in run.devices:
        if life.device == peer:
            ends = (*life.named("device.stopping"), *life.named("device.stopped"))
            known += [e.t_s - _FAREWELL_S for e in ends]
    return any(
        t_s <= suspect.t_s and not _had(observer, peer, t_s, suspect.t_s)
        for t_s in known
    )


def _fault(
    run: Run, streams: Sequence[_Timeline], loss: _Loss, origin_s: float
) -> FaultFigures:
    seen = [s for s in streams if loss.observer in ("", s.record.device)]
    served = [s for s in seen if _was_serving(run, s, loss)]
    meant = served or seen
    gaps = [gap for s in meant if (gap := _gap(s, loss.t_s)) is not None]
    worst = max(gaps, default=None, key=lambda gap: gap.gap_ms)
    window = [r for s in meant for r in _window(s, loss.t_s)]
    restarted_s = _restarted_s(run, loss)
    back_s = _back_s(run, loss)
    return FaultFigures(
        t_s=loss.t_s - origin_s,
        target=loss.target,
        signal=loss.signal,
        kind=loss.kind,
        observer=loss.observer,
        streams=tuple(dict.fromkeys(gap.stream for gap in gaps)),
        serving=bool(served),
        detections=tuple(_detections(run, meant, loss)),
        gap_ms=worst.gap_ms if worst else None,
        baseline_ms=worst.baseline_ms if worst else None,
        worst_stream=worst.stream if worst else "",
        worst_frame=worst.frame if worst else -1,
        full=sum(r.frames for r in window if r.status == "full"),
        degraded=sum(r.frames for r in window if r.status == "degraded"),
        dropped=sum(r.frames for r in window if r.status == "dropped"),
        restarted_s=None if restarted_s is None else restarted_s - loss.t_s,
        back_s=None if back_s is None else back_s - loss.t_s,
    )


def _was_serving(run: Run, stream: _Timeline, loss: _Loss) -> bool:
    since_s = loss.t_s - SERVING_S
    for r in stream.settled(loss.t_s):
        if r.fired_s < since_s - stream.longest_s:
            return False
        answered = r.settled_s > since_s and r.status != "dropped"
        if answered and run.row_device(stream.record.stream, r.row) == loss.target:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Gap:
    stream: str
    frame: int
    gap_ms: float
    baseline_ms: float


def _window(stream: _Timeline, t_s: float) -> list[Result]:
    """Return the results outstanding at `t_s` or fired in the window after it.

    A stream that had not answered by then, such as one that starts in the window, has
    nothing to be compared with and is left out.
    """
    if next(stream.settled(t_s), None) is None:
        return []
    return stream.outstanding_or_fired(t_s, t_s + GAP_WINDOW_S)


def _gap(stream: _Timeline, t_s: float) -> _Gap | None:
    window = _window(stream, t_s)
    if not window:
        return None
    before = islice(stream.settled(t_s), BASELINE_FRAMES)
    baseline_ms = _median([r.latency_ms for r in before])
    worst = max(window, key=lambda r: r.latency_ms)
    gap_ms = worst.latency_ms - baseline_ms
    return _Gap(stream.record.stream, worst.frame, gap_ms, baseline_ms)


def gap_ms(record: StreamRecord, t_s: float) -> float | None:
    """Return the gap of one stream at a fault at `t_s` of its own device's clock."""
    gap = _gap(_timeline(record), t_s)
    return None if gap is None else gap.gap_ms


def _median(values: Sequence[float]) -> float:
    ascending = sorted(values)
    half = len(ascending) // 2
    return (ascending[half] + ascending[~half]) / 2


def _detections(
    run: Run, streams: Sequence[_Timeline], loss: _Loss
) -> Iterator[Detection]:
    """Yield the first suspicion of each life of a device, in order of time."""
    found = []
    for observer in run.devices:
        if observer.device == loss.target or loss.observer not in ("", observer.device):
            continue
        names = ("link.suspect", "session.ended")  # the one that dialled, the other
        noticed = (e for name in names for e in observer.named(name))
        of_loss = (e for e in _of_loss(noticed, loss) if e.t_s < loss.noticed_until_s)
        suspects = sorted(of_loss, key=lambda e: e.t_s)
        if suspects:
            found.append((suspects[0], _decision(observer, loss), observer.device))
    for suspect, decision, device in sorted(found, key=lambda item: item[0].t_s):
        detected_ms = (suspect.t_s - loss.t_s) * 1e3 if loss.set else None
        steps = [
            decision.number(key) if decision else None
            for key in ("detected_s", "decided_s", "switched_s")
        ]
        decided_s, switched_s = (
            None if a is None or b is None else b - a for a, b in pairwise(steps)
        )
        yield Detection(
            device=device,
            evidence=suspect.text("evidence") or suspect.text("why"),
            text=suspect.text("text"),
            detected_ms=detected_ms,
            decided_us=None if decided_s is None else decided_s * 1e6,
            switched_ms=None if switched_s is None else switched_s * 1e3,
            error_ms=run.clock_errors_s.get(device, 0.0) * 1e3,
            refilled_ms=_refilled_ms(streams, device, loss, steps[-1]),
            frames=_moved(decision) if decision else 0,
        )


def _refilled_ms(
    streams: Sequence[_Timeline], device: str, loss: _Loss, from_s: float | None
) -> float | None:
    """Return how long the last of the device's streams took; all have to be back."""
    if from_s is None:
        return None
    fills = [s.fill for s in streams if s.record.device == device]
    known = [fill for fill in fills if fill.usual(loss.t_s) is not None]
    backs = [fill.back_s(loss.t_s, from_s) for fill in known]
    if not backs or None in backs:
        return None
    return (max(back for back in backs if back is not None) - from_s) * 1e3


def _moved(decision: Event) -> int:
    """Return how many frames a failover moved: listed, or listed by stream."""
    frames = decision.fields.get("frames")
    lists = frames.values() if isinstance(frames, dict) else [frames]
    return sum(len(part) for part in lists if isinstance(part, list))


def _of_loss(events: Iterable[Event], loss: _Loss) -> list[Event]:
    """Return those of `events` that are about this loss of this peer."""
    return [
        e
        for e in events
        if e.text("peer") == loss.target and loss.t_s <= e.t_s < loss.until_s
    ]


def _decision(observer: DeviceRecord, loss: _Loss) -> Event | None:
    return next(iter(_of_loss(observer.named("failover"), loss)), None)


def _restarted_s(run: Run, loss: _Loss) -> float | None:
    starts = [*run.launched("start")]
    starts += [e for e in run.launched("fault") if e.signal == "SIGCONT"]
    starts += [e for e in run.launched("mended") if e.text("observer") == loss.observer]
    return min(
        (
            e.t_s
            for e in starts
            if e.text("target") == loss.target and loss.t_s < e.t_s < loss.until_s
        ),
        default=None,
    )


def _back_s(run: Run, loss: _Loss) -> float | None:
    """Return when the last of the devices had the target back; None if none did."""
    firsts = []
    for observer in run.devices:
        if loss.observer in ("", observer.device):
            backs = _of_loss(observer.named("link.back"), loss)
            firsts += [e.t_s for e in backs[:1]]
    return max(firsts, default=None)
