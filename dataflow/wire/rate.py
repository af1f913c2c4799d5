"""What a link carries, learned from the messages that it was asked to carry anyway.

A token and its answer were on the link from when the token was sent, or the one before
it had arrived, until the answer came, less the time that the peer says it kept it and
less one round trip of a message without size. So a link that is never full is measured
as well as one that always is, and a slow model is not taken for a slow link. Before the
first token, probes that carry something tell.

What makes a measurement wrong is being late, at either end, and that makes a link look
slower only. A single late arrival makes the next one look early, though. So messages
are taken in groups, and the best of the latest groups counts. Small messages say
nothing: they are on the link for less time than a device is late. For the same reason a
link is not slow before several probes, or groups, found it so one after the other, and
one that is quicker is believed at once.

What is in flight on a slow link is bounded, and then no message can be faster than that
allows. So it is allowed twice what a round trip holds: a rate that was found too low
shows itself. Where messages are small or none, probes ask again.

Sans-IO: time is an argument.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from dataflow.wire.timers import (
    FLIGHT_BYTES_MIN,
    FLIGHT_S,
    HEARTBEAT,
    HEARTBEAT_MAX_MS,
    Heartbeat,
)

MEASURED_BYTES_MIN = 8192
GROUP, GROUPS = 4, 8
SLOW_GROUPS = 2
"""Groups of which none is quicker, before a link is held for slower than before."""
SLOW_PROBES = 3
"""The same of probes, beside the first, before it is held for slow at all."""
STALE_S = 10.0
FAST_BYTES_S = 125e6
"""From here on, 1 Gbit/s, what TCP keeps in flight by itself delays nobody."""
PROBE_FACTOR = 3
WAIT_MARGIN = 1.25
PROBE_BYTES = 32768
"""Carried by each probe but the first, which has no size: 16 ms at 16 Mbit/s."""
FLIGHT_GAIN = 2
"""Round trips whose bytes may be in flight, as in BBR: a rate that was found too low is
exceeded."""
TRY_S, TRY_MAX_S = 1.0, 60.0
"""After which a slow link on which nothing was measured is probed again: at first, and
at most; it doubles each time."""
WINDOW_BYTES = 65536
"""What a receiver has allowed to be in flight before it was told otherwise."""
PING_MARGIN = 2.5
CHANGE = 1.5
"""A rate that differs by less from the one that was told is the same."""


@dataclass(frozen=True, slots=True)
class LinkRate:
    """What a link carries.

    Attributes:
        bytes_s: Bytes a second, each way; at least: a link that only ever carried short
            messages may be faster.
        rtt_s: Round trip of a message without size, at best.
    """

    bytes_s: float
    rtt_s: float

    @property
    def flight_bytes(self) -> int | None:
        """Bytes that TCP should have in flight at most; None: leave it alone.

        Enough to keep the link busy for two round trips and 20 ms more: a heartbeat on
        its own connection waits for one round trip and 20 ms behind them at most.
        """
        if self.bytes_s >= FAST_BYTES_S:
            return None
        held_s = FLIGHT_GAIN * self.rtt_s + FLIGHT_S
        return max(FLIGHT_BYTES_MIN, int(self.bytes_s * held_s))

    @property
    def heartbeat(self) -> Heartbeat:
        """The heartbeat that such a link keeps up with while it is full.

        A ping waits behind what is in flight and not under way, and its answer may too.
        """
        flight_bytes = self.flight_bytes
        behind_s = 0.0
        if flight_bytes is not None:
            behind_s = max(
                flight_bytes / self.bytes_s - self.rtt_s, WINDOW_BYTES / self.bytes_s
            )
        timeout_ms = int(1e3 * PING_MARGIN * (behind_s + self.rtt_s))
        if timeout_ms <= HEARTBEAT.timeout_ms:
            return HEARTBEAT
        timeout_ms = min(timeout_ms, HEARTBEAT_MAX_MS)
        return Heartbeat(timeout_ms // 3, timeout_ms)

    def differs(self, other: "LinkRate | None") -> bool:
        """Tell whether it is worth telling, where `other` was told."""
        if other is None:
            return True
        if self.bytes_s >= FAST_BYTES_S and other.bytes_s >= FAST_BYTES_S:
            return False  # nothing follows from how fast it is
        return not 1 / CHANGE < self.bytes_s / other.bytes_s < CHANGE


class RateMeter:
    """Measures one link, over all its sessions."""

    def __init__(self) -> None:
        self._sent: dict[Hashable, tuple[int, float]] = {}
        self._sent_bytes = 0
        self._arrived_s = float("-inf")
        """When the latest message had arrived, one way of a round trip later."""
        self._clear_s = float("-inf")
        """When all that was sent will have arrived, as far as the rate tells."""
        self._bytes, self._busy_s, self._count = 0, 0.0, 0
        self._groups: deque[tuple[float, float]] = deque(maxlen=GROUPS)
        self._probe_rtt_s = float("inf")
        self._probes_s: list[float] = []
        """What those with a size took that were sent one after the other."""
        self._measured_s = float("-inf")
        self._try_s: float | None = None
        self._try_every_s = TRY_S
        self.rtt_s = 0.0
        self.bytes_s = 0.0
        """0: not known yet."""

    @property
    def rate(self) -> LinkRate | None:
        return LinkRate(self.bytes_s, self.rtt_s) if self.bytes_s else None

    def begin(self) -> None:
        """A new session: what was under way is lost, and probes tell anew."""
        self._sent.clear()
        self._sent_bytes = 0
        self._arrived_s = self._clear_s = float("-inf")
        self._bytes, self._busy_s, self._count = 0, 0.0, 0
        self._probes_s.clear()
        self._try_s, self._try_every_s = None, TRY_S

    @property
    def unsure(self) -> bool:
        """The probes found the link slow, and were too few to say so."""
        probes_s = self._probes_s[1:]
        return not self.bytes_s and len(probes_s) < SLOW_PROBES and self._says(probes_s)

    def tries(self, now_s: float) -> bool:
        """Tell whether to probe a link anew that is held for slow.

        A stall may have made it so, and nothing that it carries may tell. What that
        costs is a longer heartbeat: where it is none, there is nothing to be mended.
        """
        if self.rate is None or self.rate.heartbeat == HEARTBEAT:
            return False
        if self._try_s is None:
            self._try_s = now_s + TRY_S
        if self._sent or now_s < max(self._try_s, self._measured_s + TRY_S):
            return False
        self._try_s = now_s + self._try_every_s
        self._try_every_s = min(2 * self._try_every_s, TRY_MAX_S)
        self._probes_s.clear()
        return True

    def round_trip(self, rtt_s: float) -> None:
        """The quickest of the latest beats took so long, with its answer."""
        self.rtt_s = min(rtt_s, self._probe_rtt_s)

    def welcomed(self, took_s: float) -> None:
        """The greeting was answered: a message without size each way."""
        self._probe_rtt_s = took_s

    def probed(self, size: int, took_s: float) -> None:
        """A probe that carried `size` bytes was answered; the first carries none."""
        if not size:
            self._probe_rtt_s = self.rtt_s = min(took_s, self._probe_rtt_s)
            self._probes_s.clear()
            return
        self._probes_s.append(took_s)
        probes_s = self._probes_s[1:]  # after a rest a shaper lets the first through
        if not probes_s:
            return
        alone_s = min(probes_s) - self.rtt_s
        bytes_s = size / alone_s if alone_s > 0 else FAST_BYTES_S
        if self.bytes_s:
            self._lift(bytes_s)
        elif len(probes_s) >= SLOW_PROBES and self._says(probes_s):
            self.bytes_s = bytes_s

    def sent(self, key: Hashable, size: int, now_s: float) -> None:
        """A token goes."""
        if size < MEASURED_BYTES_MIN:
            return
        self._sent[key] = size, now_s
        self._sent_bytes += size
        if self.bytes_s:
            self._clear_s = max(self._clear_s, now_s) + size / self.bytes_s

    def answered(
        self, key: Hashable, size: int, *, there_s: float, now_s: float
    ) -> bool:
        """Its answer came; tell whether the rate was measured anew.

        Args:
            key: As it was given to `sent`.
            size: Bytes of the answer.
            there_s: How long the peer kept the token, as it says.
            now_s: Monotonic time.
        """
        found = self._sent.pop(key, None)
        if found is None:
            return False
        sent_bytes, sent_s = found
        self._measured_s = now_s
        self._sent_bytes -= sent_bytes
        arrived_s = now_s - there_s
        alone = sent_s + self.rtt_s >= self._arrived_s
        began_s = sent_s + self.rtt_s if alone else self._arrived_s
        self._arrived_s = max(arrived_s, self._arrived_s)
        # Tokens go while answers come; the longer ones keep the others waiting.
        self._bytes += sent_bytes + size if alone else max(sent_bytes, size)
        self._busy_s += max(arrived_s - began_s, 0.0)
        self._count += 1
        complete = self._count == GROUP
        if complete:
            self._close_group(now_s)
        if self.bytes_s:
            left_s = self._sent_bytes / self.bytes_s
            self._clear_s = min(self._clear_s, now_s + left_s)
        return complete

    def forget(self, key: Hashable) -> None:
        """No answer will come that tells anything."""
        self._sent_bytes -= self._sent.pop(key, (0, 0.0))[0]

    def wait_s(self, sent: int, received: int, now_s: float) -> float:
        """Return how long a token of so many bytes, and its answer, would take to come.

        With a margin: a token that comes too late has taken the time of the next one.
        0: not known; also when nothing was measured for long, so that a link once too
        slow is tried again, with one token.
        """
        if not self.bytes_s or sent < MEASURED_BYTES_MIN:
            return 0.0
        if not self._sent and now_s - self._measured_s > STALE_S:
            return 0.0
        ahead_s = max(self._clear_s - now_s, 0.0)
        return WAIT_MARGIN * (ahead_s + (sent + received) / self.bytes_s) + self.rtt_s

    def _says(self, probes_s: list[float]) -> bool:
        """Tell whether probes that took so long say anything.

        One that took little longer than a message without size does not: the link is
        fast, or its round trip is never the same.
        """
        return bool(probes_s) and min(probes_s) >= max(PROBE_FACTOR * self.rtt_s, 1e-6)

    def _lift(self, bytes_s: float) -> None:
        """A probe found the link so fast: what else was found was late."""
        if bytes_s > self.bytes_s:
            self.bytes_s = bytes_s
            self._groups.clear()

    def _close_group(self, now_s: float) -> None:
        if self._busy_s > 0:
            self._groups.append((self._bytes / self._busy_s, now_s))
        groups = self._groups
        while len(groups) > SLOW_GROUPS and now_s - groups[0][1] > STALE_S:
            groups.popleft()
        best = max((bytes_s for bytes_s, _ in groups), default=0.0)
        if best >= (self.bytes_s or FAST_BYTES_S) or len(groups) >= SLOW_GROUPS:
            self.bytes_s = best
        self._bytes, self._busy_s, self._count = 0, 0.0, 0
