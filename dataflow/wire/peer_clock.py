"""How a peer's clock differs from ours, learned from the beats of a link.

A beat says when it was sent, and echoes when the last one that came was sent and how
long ago it came. That gives the four times of a ping: the offset is known to within
half of the time that the two beats spent on their way, whichever of them was slow, and
however late either end looked. Of the latest exchanges the quickest says most.

Sans-IO: time is an argument.

Source:
    Mills, "Internet Time Synchronization: The Network Time Protocol", IEEE Transactions
    on Communications 39(10), 1991.
"""

from collections import deque
from typing import NamedTuple

from dataflow.wire.control import Beat

KEPT = 64
"""Exchanges to choose from: 3 s of beats, in which clocks drift by 0.2 ms at worst."""
RESOLUTION_S = 2e-6
"""What the whole microseconds of beats may add to an error."""


class Offset(NamedTuple):
    """What one exchange says."""

    offset_s: float
    """The peer's clock minus ours."""
    round_trip_s: float
    """What the two beats spent on their way."""

    @property
    def error_s(self) -> float:
        """The most that `offset_s` can be wrong."""
        return self.round_trip_s / 2 + RESOLUTION_S


class PeerClock:
    """The exchanges of one session."""

    def __init__(self) -> None:
        self._heard: Beat | None = None
        self._heard_s = 0.0
        self._kept: deque[Offset] = deque(maxlen=KEPT)

    @property
    def offset(self) -> Offset | None:
        """The best of the latest exchanges; None: there was none."""
        return min(self._kept.copy(), key=lambda o: o.round_trip_s, default=None)

    @property
    def worst_s(self) -> float:
        """The longest that two of the latest beats spent on their way; 0: unknown."""
        return max((kept.round_trip_s for kept in self._kept), default=0.0)

    def forget(self) -> None:
        """What was exchanged so far says nothing of what comes."""
        self._kept.clear()

    def stamps(self, now_s: float) -> tuple[int, int, int]:
        """Return `clock_us`, `echo_us` and `held_us` of a beat that is sent now."""
        if self._heard is None:
            return _us(now_s), 0, 0
        return _us(now_s), self._heard.clock_us, _us(now_s - self._heard_s)

    def heard(self, beat: Beat, now_s: float) -> None:
        """A beat came. What it claims is the peer's word: it is only ever shown."""
        self._heard, self._heard_s = beat, now_s
        if beat.echo_us == 0:
            return
        sent_s = beat.echo_us / 1e6
        there_s = beat.clock_us / 1e6
        round_trip_s = now_s - sent_s - beat.held_us / 1e6
        if round_trip_s >= 0:
            came_s = there_s - beat.held_us / 1e6
            offset_s = ((came_s - sent_s) + (there_s - now_s)) / 2
            self._kept.append(tuple.__new__(Offset, (offset_s, round_trip_s)))


def _us(seconds: float) -> int:
    return max(0, int(seconds * 1e6))
