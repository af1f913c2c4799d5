"""The timers of a link, each with its reason."""

BEAT_S = 0.050
"""Between two beats of a device: its I/O thread is alive, and what it is doing."""
BEATS_MISSED = 4
SILENT_S = BEAT_S * BEATS_MISSED
"""A beat so late is evidence: longer than a pause of the interpreter."""
HEARTBEAT_MS = 20
"""Between ZMTP heartbeats on the control lane: the way is open, libzmq alive."""
HEARTBEAT_TIMEOUT_MS = 60
"""Without an answer for so long the connection is lost: two may be late."""
HEARTBEAT_S = 0.058
"""Silence that tells a lost heartbeat (20 ms interval, 60 ms timeout) from a close."""
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
