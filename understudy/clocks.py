"""One clock for a run of several hosts: whose, and how well the others are known.

Each device writes its own monotonic clock. Those of one host are one clock; of others
a device that dials has measured how far they are ahead (the events `link.clock`). Here
all times are brought to the clock of the launcher, or of the first endpoint where each
device was started by hand. What no measurement reaches is left as it is.

An offset within its own error is none: these devices share a host.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from understudy.records import DeviceRecord, Event, Run, StreamRecord

_TIMES = ("detected_s", "decided_s", "switched_s")
"""Fields of events that are times, beside `t_s`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How far one clock is ahead of another, at a time of the other."""

    t_s: float
    offset_s: float
    error_s: float


@dataclass(frozen=True, slots=True)
class Shift:
    """What to add to the times of a device; clocks drift, so it depends on the time.

    Attributes:
        points: (time of the device, what to add), ascending; empty: nothing.
        error_s: The most that it can be wrong.
    """

    points: tuple[tuple[float, float], ...] = ()
    error_s: float = 0.0

    def at(self, t_s: float) -> float:
        """Return what to add at `t_s`: between measurements on the line through them.

        >>> Shift(((10.0, 5.0), (20.0, 6.0))).at(15.0)
        5.5
        """
        if not self.points:
            return 0.0
        index = bisect_left(self.points, (t_s,))
        if index in (0, len(self.points)):
            return self.points[min(index, len(self.points) - 1)][1]
        (before_s, low), (after_s, high) = self.points[index - 1 : index + 1]
        return low + (high - low) * (t_s - before_s) / (after_s - before_s)


def shifts(run: Run) -> dict[str, Shift]:
    """Return for each device whose clock is known what brings it to the one clock."""
    links = _links(run)
    found = dict.fromkeys(_anchors(run), Shift())
    todo = deque(found)
    while todo:
        near = todo.popleft()
        for (observer, peer), measured in links.items():
            if near == observer and peer not in found:
                found[peer] = _of_peer(measured, found[near])
                todo.append(peer)
            elif near == peer and observer not in found:
                found[observer] = _of_observer(measured, found[near])
                todo.append(observer)
    return found


def aligned(run: Run) -> Run:
    """Return `run` with all times on one device's clock, as far as it is known."""
    known = shifts(run)
    if not any(shift.points for shift in known.values()):
        return run
    return replace(
        run,
        streams=tuple(_stream(s, known.get(s.device, Shift())) for s in run.streams),
        devices=tuple(_device(d, known.get(d.device, Shift())) for d in run.devices),
        clock_errors_s={name: shift.error_s for name, shift in known.items()},
    )


def _anchors(run: Run) -> list[str]:
    started = {event.number("pid") for event in run.launched("start")} - {None}
    with_launcher = [d.device for d in run.devices if d.pid in started]
    return with_launcher or [s.device for s in run.streams[:1]]


def _links(run: Run) -> Mapping[tuple[str, str], Sequence[Measured]]:
    """Return what each device measured of each peer that it dials."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for record in run.devices:
        for event in record.named("link.clock"):
            offset_s, error_s = event.number("offset_s"), event.number("error_s")
            if offset_s is not None and error_s is not None:
                key = record.device, event.text("peer")
                found.setdefault(key, []).append(Measured(event.t_s, offset_s, error_s))
    return found


def _of_peer(measured: Sequence[Measured], near: Shift) -> Shift:
    """Return the shift of a peer from that of the device that measured it."""
    if _is_one_clock(measured):
        return near
    points = [(m.t_s + m.offset_s, near.at(m.t_s) - m.offset_s) for m in measured]
    return _shift(points, measured, near)


def _of_observer(measured: Sequence[Measured], near: Shift) -> Shift:
    """Return the shift of the device that measured from that of its peer."""
    if _is_one_clock(measured):
        return near
    points = [(m.t_s, near.at(m.t_s + m.offset_s) + m.offset_s) for m in measured]
    return _shift(points, measured, near)


def _shift(
    points: Sequence[tuple[float, float]], measured: Sequence[Measured], near: Shift
) -> Shift:
    error_s = near.error_s + max(m.error_s for m in measured)
    return Shift(tuple(sorted(points)), error_s)


def _is_one_clock(measured: Sequence[Measured]) -> bool:
    return all(abs(m.offset_s) <= m.error_s for m in measured)


def _stream(record: StreamRecord, shift: Shift) -> StreamRecord:
    if not shift.points:
        return record
    results = []
    for result in record.results:
        add_s = shift.at(result.fired_s)  # one for both: a latency is measured exactly
        results.append(
            result._replace(
                fired_s=result.fired_s + add_s,
                settled_s=result.settled_s + add_s,
            )
        )
    return replace(record, results=tuple(results), epoch_s=_epoch(record, shift))


def _device(record: DeviceRecord, shift: Shift) -> DeviceRecord:
    if not shift.points:
        return record
    events = tuple(_event(event, shift) for event in record.events)
    return replace(record, events=events, epoch_s=_epoch(record, shift))


def _event(event: Event, shift: Shift) -> Event:
    add_s = shift.at(event.t_s)
    fields = dict(event.fields)
    for key in _TIMES:
        if (value := event.number(key)) is not None:
            fields[key] = value + add_s
    return replace(event, t_s=event.t_s + add_s, fields=fields)


def _epoch(record: StreamRecord | DeviceRecord, shift: Shift) -> float | None:
    first_s = shift.points[0][0]
    return None if record.epoch_s is None else record.epoch_s - shift.at(first_s)
