"""A link, seen from the side that dials: sessions, liveness, return.

The states, and what leads from one to the next (`TRANSITIONS` is the whole truth)::

    WAITING ─dial─► DIALLING ─welcome─► PROVING ─proved─► READY
       ▲               │  └─loading─► LOADING ─┘ ▲ │         │ doubt
       │ close         │                         │ └─ doubt ─┤
       │               │                         └─recovered─┤
       └───────────────┴────────────── close ─────────── SUSPECT

A session is one pair of sockets, a data lane and a control lane, with fresh routing
ids: nothing that libzmq kept from an older one can be replayed into it. SUSPECT is
reversible: no attempt is started there any more, but the data lane stays open and late
answers count, also while the peer proves itself again. A session ends when its data
lane is lost, when nothing is wanted from it any more, or 2 s after it became suspect.

A peer is used again after it answered three probes on the data lane, and the wait
before dialling doubles each time it was lost soon after its return, so a flapping
server does not take frames down with it.

Sans-IO: events in, actions out, time as an argument.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Literal, NamedTuple

from dataflow.wire.control import (
    Beat,
    Bye,
    Control,
    Hello,
    Refuse,
    StreamOffer,
    Welcome,
)
from dataflow.wire.peer_clock import Offset, PeerClock

BEAT_S = 0.050
"""Between two beats of a device: its I/O thread is alive, and what it is doing."""
BEATS_MISSED = 4
SILENT_S = BEAT_S * BEATS_MISSED
"""A beat so late is evidence: longer than a pause of the interpreter."""
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

Lane = Literal["data", "control"]
Evidence = Literal["connection", "heartbeat", "beat", "send", "deadline", "bye"]


class State(Enum):
    """Where a link is in its life."""

    WAITING = "waiting"
    DIALLING = "dialling"
    LOADING = "loading"
    PROVING = "proving"
    READY = "ready"
    SUSPECT = "suspect"


class Event(Enum):
    """What moves a link from state to state."""

    DIAL = "dial"
    LOADING = "loading"
    WELCOME = "welcome"
    PROVED = "proved"
    DOUBT = "doubt"
    RECOVERED = "recovered"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.WAITING, Event.DIAL): State.DIALLING,
    (State.DIALLING, Event.LOADING): State.LOADING,
    (State.DIALLING, Event.WELCOME): State.PROVING,
    (State.LOADING, Event.LOADING): State.LOADING,
    (State.LOADING, Event.WELCOME): State.PROVING,
    (State.PROVING, Event.PROVED): State.READY,
    (State.READY, Event.DOUBT): State.SUSPECT,
    (State.PROVING, Event.DOUBT): State.SUSPECT,
    (State.SUSPECT, Event.RECOVERED): State.PROVING,
    (State.DIALLING, Event.CLOSE): State.WAITING,
    (State.LOADING, Event.CLOSE): State.WAITING,
    (State.PROVING, Event.CLOSE): State.WAITING,
    (State.SUSPECT, Event.CLOSE): State.WAITING,
}


class Dial(NamedTuple):
    """Open both lanes for a new session."""

    session: int


class Close(NamedTuple):
    """Close both lanes."""


class Send(NamedTuple):
    """Send on the control lane."""

    message: Control


class Probe(NamedTuple):
    """Send a probe on the data lane."""

    session: int
    number: int


class Up(NamedTuple):
    """The peer may be used."""

    session: int
    away_s: float | None
    """Time since it was lost; None when it comes up for the first time."""


class Suspect(NamedTuple):
    """Start nothing there; start the next branch for what is outstanding."""

    session: int
    evidence: Evidence
    text: str


class Dead(NamedTuple):
    """The session is over: no late answer can come."""

    session: int


class Refused(NamedTuple):
    """A configuration error, told once: somebody must change something."""

    why: str


class Measured(NamedTuple):
    """How the peer's clock differs from ours, now and then."""

    offset: Offset


Action = Dial | Close | Send | Probe | Up | Suspect | Dead | Refused | Measured


_NOTHING: frozenset[str] = frozenset()


class LinkError(AssertionError):
    """An event that the state forbids: our own fault, so it prints the history."""


class Link:
    """One link, from the dialling side.

    Args:
        peer: Name of the device at the other end.
        device: Our own name.
        incarnation: Ours.
        offers: Streams that we want served.
        now_s: Monotonic time; the first dial is due at once.
        deployment: Of which we are a device.
    """

    def __init__(
        self,
        peer: str,
        *,
        device: str,
        incarnation: int,
        offers: tuple[StreamOffer, ...],
        now_s: float,
        deployment: str = "",
    ) -> None:
        self.peer = peer
        self._deployment = deployment
        self.state = State.WAITING
        self.ready = False
        """The state is READY; as an attribute, since every choice of a row reads it."""
        self.session = 0
        self.refused = ""
        self._device = device
        self._incarnation = incarnation
        self.offers = offers
        self._lanes: set[Lane] = set()
        self._limits: dict[int, int] = {}
        self._ordinals: dict[int, int] = {}
        self._others = 0
        """Tokens of others that the peer had to compute, when it last told."""
        self._probes_left = 0
        self._flaps = 0
        self.unreachable: frozenset[str] | None = None
        """Ways behind the peer that no token can take, as it told."""
        self._used = False
        """Attempts were started in the session."""
        self._overdue = False
        """Suspected because of a firing's age."""
        self._usual_ms = 0
        """What the longest of the peer's chains takes at best, as far as it told."""
        self._starved_s: dict[int, float] = {}
        """Since when a stream has no credit, and got no answer."""
        self._failed_handshakes = 0
        self._dial_at_s = now_s
        self._since_s = now_s
        self._heard_s = now_s
        self._beat_at_s = now_s
        self._steady_s = now_s
        """Since when we beat without a pause."""
        self.clock = PeerClock()
        self._measure_at_s = now_s
        self._lost_s: float | None = None
        self._up_s: float | None = None
        self._history: deque[str] = deque(maxlen=20)

    @property
    def greeted(self) -> bool:
        """The peer has taken the session, and its control lane is open."""
        return self.state in (State.LOADING, State.PROVING, State.READY)

    @property
    def slow_ms(self) -> float:
        """Age from which a firing at the peer is evidence."""
        return max(SLOW_FIRING_MS, SLOW_FACTOR * self._usual_ms)

    def credit(self, stream: int) -> int:
        """Messages that may still be sent for `stream` in the session."""
        return self._limits.get(stream, 0) - self._ordinals.get(stream, 0)

    def takes(self, stream: int) -> bool:
        """Tell whether a token of `stream` may be sent now."""
        # As `credit`, without its call: the choice of each row asks every branch.
        return self.ready and (
            self._limits.get(stream, 0) > self._ordinals.get(stream, 0)
        )

    def first_lost(self, ways: Sequence[str]) -> str:
        """Return the first of `ways` behind the peer that is lost; empty: none is.

        Until the peer's first beat of the session nothing is known of them.
        """
        if self.unreachable is None:
            return ways[0] if ways else ""
        return next((way for way in ways if way in self.unreachable), "")

    def way_lost(self, way: str) -> None:
        """A token did not come through; the next beat says what it was."""
        if self.unreachable is not None:
            self.unreachable |= {way}

    @property
    def outstanding(self) -> int:
        """Tokens that the peer has to compute: ours now, others' at its last beat."""
        return self._ours() + self._others

    def take_ordinal(self, stream: int) -> int:
        """Return the number of the next message, which is then under way."""
        ordinal = self._ordinals.get(stream, 0)
        self._ordinals[stream] = ordinal + 1
        return ordinal

    def raise_limit(self, stream: int, limit: int) -> None:
        """Credit came with an answer. Limits only grow, in whatever order they come."""
        if self._starved_s:
            self._starved_s.pop(stream, None)
        if limit > self._limits.get(stream, 0):
            self._limits[stream] = limit

    def due_s(self) -> float:
        """When `tick` has something to do next."""
        if self.ready:  # first: asked in every turn of the I/O loop
            return min(self._beat_at_s, self._heard_s + SILENT_S)
        if self.state is State.WAITING:
            return self._dial_at_s
        if self.state in (State.DIALLING, State.PROVING):
            return min(self._since_s + DIAL_TIMEOUT_S, self._beat_at_s)
        if self.state is State.SUSPECT:
            return min(self._since_s + SUSPECT_S, self._beat_at_s)
        return min(self._beat_at_s, self._heard_s + SUSPECT_S)

    def tick(
        self, now_s: float, *, wanted: bool, about: Callable[[], str]
    ) -> list[Action]:
        """Time passed.

        Args:
            now_s: Monotonic time.
            wanted: An iteration without a verdict has an open attempt at this peer, so
                a suspect session with a lost lane is not closed yet.
            about: Gives what we say of ourselves in a beat.
        """
        if self.ready:  # first: it is so for hours
            if now_s < self._heard_s + SILENT_S:
                return self._beat(now_s, about)
            silent_ms = (now_s - self._heard_s) * 1e3
            return self._doubt("beat", f"silent for {silent_ms:.0f} ms", now_s)
        if self.state is State.WAITING:
            return self._dial(now_s) if now_s >= self._dial_at_s else []
        if (
            self.state in (State.DIALLING, State.PROVING)
            and now_s >= self._since_s + DIAL_TIMEOUT_S
        ) or (self.state is State.LOADING and now_s >= self._heard_s + SUSPECT_S):
            return self._close(now_s)
        if self.state is State.SUSPECT and (
            now_s >= self._since_s + SUSPECT_S or (len(self._lanes) < 2 and not wanted)
        ):
            return self._close(now_s)
        return self._beat(now_s, about)

    def lane_open(self, lane: Lane, now_s: float) -> list[Action]:
        """A lane's handshake succeeded; with both open, greet."""
        self._lanes.add(lane)
        self._failed_handshakes = 0
        if self.state is not State.DIALLING or len(self._lanes) < 2:
            return []
        self._heard_s = now_s
        hello = Hello(
            device=self._device,
            incarnation=self._incarnation,
            session=self.session,
            offers=self.offers,
            deployment=self._deployment,
        )
        return [Send(hello)]

    def lane_lost(self, lane: Lane, now_s: float) -> list[Action]:
        """A lane was disconnected, or could not be connected."""
        self._lanes.discard(lane)
        if self.state is State.WAITING:
            return []
        if self.state is State.READY:
            silent_s = now_s - self._heard_s
            silent = lane == "control" and silent_s > HEARTBEAT_S
            actions = self._doubt(
                "heartbeat" if silent else "connection",
                f"{lane} lane lost, last beat {silent_s * 1e3:.0f} ms ago",
                now_s,
            )
            return actions + (self._close(now_s) if lane == "data" else [])
        if self._recovering and lane == "control":
            return self._doubt("connection", "control lane lost again", now_s)
        if self.state is State.SUSPECT and lane == "control":
            return []  # late answers may still come on the data lane
        return self._close(now_s)

    def handshake_failed(self, text: str, now_s: float) -> list[Action]:
        """The peer does not speak ZMTP with our keys; told after three in a row."""
        if self.state is State.WAITING:
            return []
        self._failed_handshakes += 1
        actions = self._give_up(text, now_s)
        if self._failed_handshakes >= HANDSHAKES_FAILED:
            actions += self._refuse(text, now_s)
        return actions

    def misunderstood(self, why: str, now_s: float) -> list[Action]:
        """The peer speaks another version of the protocol."""
        if self.state is State.WAITING:
            return []
        return [*self._give_up(why, now_s), *self._refuse(why, now_s)]

    def renew(self, why: str, now_s: float) -> list[Action]:
        """Replace the session by a new one, though nothing is wrong with it."""
        return [] if self.state is State.WAITING else self._give_up(why, now_s)

    def blocked(self, now_s: float) -> list[Action]:
        """A send would have blocked: the data lane does not drain."""
        if self.state is not State.READY:
            return []
        # It may have taken ordinals that were never sent, and with them credit: only
        # a new session has all of it again. Late answers still come on the old one.
        self._lanes.discard("data")
        return self._doubt("send", "data lane does not drain", now_s)

    def overdue(self, text: str, now_s: float) -> list[Action]:
        """A firing there is older than a slow model explains."""
        if self.state is not State.READY:
            return []
        self._overdue = True
        return self._doubt("deadline", text, now_s)

    def control(self, message: Control, now_s: float) -> list[Action]:
        """A message came on the control lane of the current session."""
        if getattr(message, "session", self.session) != self.session:
            return []
        if not self.ready and self.state is State.WAITING:
            return []
        self._heard_s = now_s
        if isinstance(message, Beat):
            return [*self._measure(message, now_s), *self._judge(message, now_s)]
        match message:
            case Welcome(ready=ready, grants=grants):
                return self._welcome(ready, grants, now_s)
            case Refuse(why=why):
                return self.misunderstood(why, now_s)
            case Bye() if self.ready or self._recovering:
                self._lanes.discard("control")  # it will not come back in the session
                return self._doubt("bye", "it ended the session", now_s)
            case Bye() if self.state is State.SUSPECT:
                self._lanes.discard("control")  # late answers may still come
            case Bye():
                return self._close(now_s)
        return []

    def probed(self, session: int, now_s: float) -> list[Action]:
        """An answer to a probe came on the data lane."""
        if session != self.session or self.state is not State.PROVING:
            return []
        self._heard_s = now_s
        self._probes_left -= 1
        if self._probes_left > 0:
            return [Probe(self.session, self._probes_left)]
        self._move(Event.PROVED, now_s)
        away_s = None if self._lost_s is None else now_s - self._lost_s
        self._up_s, self._lost_s, self.refused = now_s, None, ""
        self._used = True
        self._overdue = False
        return [Up(self.session, away_s)]

    def bye(self) -> list[Action]:
        """We are going."""
        return [Send(Bye(self.session))] if "control" in self._lanes else []

    @property
    def _recovering(self) -> bool:
        """It was used in the session, so that late answers may still come."""
        return self.state is State.PROVING and self._used

    def _ours(self) -> int:
        """Tokens sent in the session that got no answer yet."""
        return sum(o.window - self.credit(o.stream) for o in self.offers)

    def _measure(self, beat: Beat, now_s: float) -> list[Action]:
        self.clock.heard(beat, now_s)
        offset = self.clock.offset if now_s >= self._measure_at_s else None
        if offset is None:
            return []
        self._measure_at_s = now_s + MEASURE_AGAIN_S
        return [Measured(offset)]

    def _judge(self, beat: Beat, now_s: float) -> list[Action]:
        """What a beat says of a peer that is used, or that might be again."""
        self._usual_ms = max(self._usual_ms, beat.usual_ms)
        self._others = max(beat.queue - self._ours(), 0)
        if beat.dead or self.unreachable != _NOTHING:
            self.unreachable = frozenset(beat.dead)
        hangs = beat.age_ms > self.slow_ms
        deaf = beat.heard_ms > SILENT_S * 1e3
        if self.ready:
            if deaf and self._beats_steadily(now_s):
                text = f"has not heard us for {beat.heard_ms} ms"
                return self._doubt("beat", text, now_s)
            if hangs:
                return self.overdue(f"a firing there takes {beat.age_ms} ms", now_s)
            idle = beat.queue == 0 and beat.age_ms == 0
            return self._check_credit(now_s, idle=idle)
        if self.state is State.LOADING and beat.ready:
            return self._close(now_s)  # the welcome that said so was lost
        believed = len(self._lanes) == 2 and not deaf
        believed = believed and not (self._overdue and hangs)
        if self.state is State.SUSPECT and believed:
            return self._prove(Event.RECOVERED, now_s)
        return []

    def _beats_steadily(self, now_s: float) -> bool:
        """Tell whether we beat all the time: else a peer that hears nothing is right.

        After a pause of ours, what the peer said meanwhile is read before we beat.
        """
        sent_s = self._beat_at_s - BEAT_S
        return now_s < sent_s + 2 * BEAT_S and (
            now_s > self._steady_s + SILENT_S + BEAT_S
        )

    def _move(self, event: Event, now_s: float) -> None:
        self._history.append(f"{now_s:.3f} {self.state.value} {event.value}")
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            story = "; ".join(self._history)
            raise LinkError(f"link to {self.peer}: forbidden event: {story}") from None
        self.ready = self.state is State.READY
        self._since_s = now_s

    def _dial(self, now_s: float) -> list[Action]:
        self._move(Event.DIAL, now_s)
        self.session += 1
        self._lanes.clear()
        self._limits.clear()
        self._ordinals.clear()
        self._starved_s.clear()
        self._others = 0
        self.unreachable = None
        self._overdue = False
        self._heard_s = now_s
        self._beat_at_s = now_s + BEAT_S
        self._steady_s = now_s
        self.clock = PeerClock()
        self._measure_at_s = now_s + MEASURE_S
        return [Dial(self.session)]

    def _welcome(
        self, ready: bool, grants: Mapping[int, int], now_s: float
    ) -> list[Action]:
        if self.state not in (State.DIALLING, State.LOADING):
            return []
        if not ready:
            self._move(Event.LOADING, now_s)
            return []
        self._limits = dict(grants)
        return self._prove(Event.WELCOME, now_s)

    def _prove(self, event: Event, now_s: float) -> list[Action]:
        self._move(event, now_s)
        self._probes_left = PROBES
        return [Probe(self.session, PROBES)]

    def _doubt(self, evidence: Evidence, text: str, now_s: float) -> list[Action]:
        self._move(Event.DOUBT, now_s)
        if self._lost_s is None:
            self._lost_s = now_s
        if self._up_s is not None and now_s - self._up_s < STABLE_S:
            self._flaps += 1
        else:
            self._flaps = 0
        return [Suspect(self.session, evidence, text)]

    def _check_credit(self, now_s: float, *, idle: bool) -> list[Action]:
        """Replace a session whose answers were lost, and with them all credit.

        The peer answers each message once, and credit comes with the answer. So when a
        stream has had none left for 2 s, and the peer has nothing to do, no answer will
        come: the link would be ready for ever and never be used.
        """
        for stream in self._ordinals:
            if self.credit(stream) > 0:
                continue
            since_s = self._starved_s.setdefault(stream, now_s)
            if idle and now_s >= since_s + SUSPECT_S:
                return self._give_up("owes answers, and has nothing to do", now_s)
        return []

    def _give_up(self, text: str, now_s: float) -> list[Action]:
        ready = self.state is State.READY
        doubted = self._doubt("connection", text, now_s) if ready else []
        return [*doubted, *self._close(now_s)]

    def _close(self, now_s: float) -> list[Action]:
        assert self.state is not State.READY, "a ready link is doubted first"
        was_used, self._used = self._used, False
        self._move(Event.CLOSE, now_s)
        self._lanes.clear()
        backoff_s = min(DIAL_AGAIN_S * 2 ** min(self._flaps, 10), BACKOFF_MAX_S)
        self._dial_at_s = now_s + backoff_s
        return [Close(), *([Dead(self.session)] if was_used else [])]

    def _refuse(self, why: str, now_s: float) -> list[Action]:
        self._dial_at_s = now_s + REFUSED_AGAIN_S
        if why == self.refused:
            return []
        self.refused = why
        return [Refused(why)]

    def _beat(self, now_s: float, about: Callable[[], str]) -> list[Action]:
        if now_s < self._beat_at_s:
            return []
        if now_s >= self._beat_at_s + BEAT_S:
            self._steady_s = now_s
        self._beat_at_s = now_s + BEAT_S
        if "control" not in self._lanes or self.state is State.DIALLING:
            return []  # before the greeting there is no session to be kept
        clock_us, echo_us, held_us = self.clock.stamps(now_s)
        beat = Beat(
            self.session,
            ready=True,
            queue=0,
            age_ms=0,
            about=about(),
            clock_us=clock_us,
            echo_us=echo_us,
            held_us=held_us,
        )
        return [Send(beat)]
