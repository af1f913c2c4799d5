"""The timers of a link, each with its reason."""

from typing import NamedTuple

BEAT_S = 0.050
"""Between two beats of the side that dials; the other answers each at once."""
IDLE_BEAT_S = 0.2
"""The same on a link that no token was sent on for `IDLE_BEATS` beats: a standby that
hangs costs nothing until it is asked, and then it is beaten at once. A server that dies
or cannot be reached is noticed as before, by its connection or its heartbeat."""
IDLE_BEATS = 20
SILENT_S = 3 * BEAT_S
"""A beat unanswered for so long is evidence: longer than a pause of the interpreter."""
SILENT_FACTOR = 2
"""Nor is it evidence before twice what the slowest answer of late took: a link that is
full, or a machine that is busy with other things, is not dead."""
SILENT_MAX_S = 1.0
"""But it is after that."""
HEARTBEAT_MS = 20
"""Between ZMTP heartbeats on the control lane: the way is open, libzmq alive."""
HEARTBEAT_TIMEOUT_MS = 60
"""Without an answer for so long the connection is lost: two may be late."""
HEARTBEAT_MAX_MS = 1000
"""The longest such timeout that a slow link is given."""
LONGER = 1.1
"""A session whose heartbeat should be longer by more than this is not used: the next
one has it."""
FLIGHT_S = 0.020
"""What may be in flight on the data lane of a slow link, beside a round trip's bytes: a
heartbeat waits no longer behind it."""
FLIGHT_BYTES_MIN = 32768
"""But at least so much, or TCP hardly gets anything through."""
DIAL_TIMEOUT_S = 1.0
"""A session that is not welcomed by then is given up."""
DIAL_AGAIN_S = 0.1
"""Before the first dial after a loss; it doubles with every flap."""
BACKOFF_MAX_S = 5.0
"""The longest wait before dialling a peer that comes and goes."""
REFUSED_AGAIN_S = 2.0
"""Before asking a peer again that refused: somebody has to change something first."""
SUSPECT_S = 2.0
"""A suspect that gives no sign of life for so long is dead."""
STARVED_S = 5.0
"""Without credit and answers for so long, a session is replaced though its peer works.
"""
STABLE_S = 10.0
"""A session that lasted this long was no flap."""
PROBES = 3
"""Answers on the data lane after which a peer is used."""
SLOW_FIRING_MS = 200
SLOW_FACTOR = 4
"""A firing is evidence when it is older than both 200 ms and four times what the peer
says it takes at best: a slow model is not a dead one."""
MEASURE_S, MEASURE_AGAIN_S = 1.0, 60.0
"""When a session first tells how the clocks differ, and how often from then on."""
HANDSHAKES_FAILED = 3
"""Failed handshakes in a row that make a configuration error of them."""


class Heartbeat(NamedTuple):
    """Periods of the ZMTP heartbeat of one session."""

    interval_ms: int
    timeout_ms: int

    @property
    def silent_s(self) -> float:
        """Silence that tells a lost heartbeat from a connection that was closed."""
        return (self.timeout_ms - 2) / 1e3

    def longer(self, factor: int) -> "Heartbeat":
        """Return a heartbeat that waits `factor` times as long, within reason."""
        timeout_ms = min(self.timeout_ms * factor, HEARTBEAT_MAX_MS)
        return Heartbeat(timeout_ms // 3, timeout_ms)


HEARTBEAT = Heartbeat(HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS)
