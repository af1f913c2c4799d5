"""The beats of a session, seen from the side that dials: is the peer's loop alive?

We beat every 50 ms, and every 200 ms while nothing is asked of the peer, and the peer
answers each beat. So nothing comes from a peer that does not hear us, and its heartbeat
is lost too: libzmq takes whatever comes for an answer to its ping. What counts is how
long the oldest beat has gone unanswered. In a pause of our own no beat is sent, and
none goes unanswered for it.

Sans-IO: time is an argument.
"""

from dataflow.wire.control import Beat
from dataflow.wire.peer_clock import PeerClock
from dataflow.wire.timers import (
    BEAT_S,
    IDLE_BEAT_S,
    IDLE_BEATS,
    SILENT_FACTOR,
    SILENT_MAX_S,
    SILENT_S,
)


class Pulse:
    """The beats of one session.

    Attributes:
        due_s: When the next beat is to be sent.
        clock: How the peer's clock differs from ours.
    """

    def __init__(self, now_s: float) -> None:
        self.due_s = _next_s(now_s, BEAT_S)
        self._beat_s = now_s
        self._unused = 0
        """Beats since a token was sent."""
        self.clock = PeerClock()
        self._asked_s = float("inf")
        """When the oldest beat was sent that was not answered; inf: there is none."""
        self._sent_us = 0
        self._patience_s = SILENT_S

    @property
    def silent_s(self) -> float:
        """When a beat will have been unanswered for too long."""
        return self._asked_s + self._patience_s

    def unanswered_ms(self, now_s: float) -> float:
        return (now_s - self._asked_s) * 1e3

    def look(self, now_s: float) -> None:
        """We run. If that is late, what the peer said meanwhile may not be read yet."""
        late_s = now_s - self.due_s
        if late_s >= BEAT_S:
            self._asked_s += late_s
            self.due_s = now_s

    def used(self) -> None:
        """A token is sent: its server must be known to live."""
        if self._unused > IDLE_BEATS:
            self.due_s = min(self.due_s, self._beat_s + BEAT_S)
        self._unused = 0

    def skip(self, now_s: float) -> None:
        """There is nobody to beat for yet."""
        self.due_s = _next_s(now_s, BEAT_S)

    def beat(self, session: int, about: str, now_s: float) -> Beat:
        """Return a beat, which is sent now."""
        self._beat_s = now_s
        self._unused += 1
        every_s = BEAT_S if self._unused <= IDLE_BEATS else IDLE_BEAT_S
        self.due_s = _next_s(now_s, every_s)
        self._asked_s = min(self._asked_s, now_s)
        clock_us, echo_us, held_us = self.clock.stamps(now_s)
        self._sent_us = clock_us
        return Beat(
            session,
            ready=True,
            queue=0,
            age_ms=0,
            about=about,
            clock_us=clock_us,
            echo_us=echo_us,
            held_us=held_us,
        )

    def heard(self, beat: Beat, now_s: float) -> None:
        """The peer's beat came: the answer to one of ours, or told for a reason."""
        self.clock.heard(beat, now_s)
        if beat.echo_us >= self._sent_us:
            self._asked_s = float("inf")
        elif beat.echo_us / 1e6 >= self._asked_s - 1e-6:
            # The one after that is the oldest now, whenever exactly it was sent.
            self._asked_s = beat.echo_us / 1e6 + BEAT_S
        worst_s = SILENT_FACTOR * self.clock.worst_s
        self._patience_s = min(max(SILENT_S, worst_s), SILENT_MAX_S)

    def doubted(self) -> None:
        """The peer is suspect: what its answers took says nothing of later ones."""
        self._asked_s = float("inf")
        self._patience_s = SILENT_S
        self.clock.forget()


def _next_s(now_s: float, every_s: float) -> float:
    """Return when the next beat is due: the links of a device beat together.

    So it wakes once for all of them, and a further one costs it little.
    """
    # A beat that is sent on the dot is not due again at once, whatever the rounding.
    return ((now_s + 2e-6) // every_s + 1) * every_s - 1e-6
