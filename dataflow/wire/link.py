"""A link, seen from the side that dials: sessions, liveness, return.

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

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from dataflow.wire.control import (
    Beat,
    Bye,
    Control,
    Flight,
    Hello,
    Refuse,
    StreamOffer,
    Welcome,
)
from dataflow.wire.credit import Credit
from dataflow.wire.header import Header, Kind
from dataflow.wire.link_states import (
    TRANSITIONS,
    Action,
    Close,
    Dead,
    Dial,
    Event,
    Evidence,
    Lane,
    LinkError,
    Measured,
    Probe,
    Rated,
    Refused,
    Send,
    State,
    Suspect,
    Up,
)
from dataflow.wire.peer_clock import PeerClock
from dataflow.wire.pulse import Pulse
from dataflow.wire.rate import FAST_BYTES_S, PROBE_BYTES, LinkRate, RateMeter
from dataflow.wire.timers import (
    BACKOFF_MAX_S,
    DIAL_AGAIN_S,
    DIAL_TIMEOUT_S,
    HANDSHAKES_FAILED,
    HEARTBEAT,
    LONGER,
    MEASURE_AGAIN_S,
    MEASURE_S,
    PROBES,
    REFUSED_AGAIN_S,
    SLOW_FACTOR,
    SLOW_FIRING_MS,
    STABLE_S,
    STARVED_S,
    SUSPECT_S,
    Heartbeat,
)

_NOTHING: frozenset[str] = frozenset()
TRIES = 2
"""Probes that ask whether a link is still slow: the first may go through at once."""


class Link(Credit):
    """One link, from the dialling side.

    Args:
        peer: Name of the device at the other end.
        device: Our own name.
        incarnation: Ours.
        offers: Streams that we want served.
        now_s: Monotonic time; the first dial is due at once.
        deployment: Of which we are a device.
        play: Plans of it that we played before.
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
        play: int = 0,
    ) -> None:
        super().__init__(offers)
        self.peer = peer
        self._deployment = deployment
        self._play = play
        self.state = State.WAITING
        self.session = 0
        self.refused = ""
        self.absent = False
        """At its address nobody took the last connection."""
        self.ignored: Counter[str] = Counter()
        """Control messages that had no effect, by reason."""
        self._device = device
        self._incarnation = incarnation
        self._lanes: set[Lane] = set()
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
        self._failed_handshakes = 0
        self._dial_at_s = now_s
        self._since_s = now_s
        self._heard_s = now_s
        self._pulse = Pulse(now_s)
        self._measure_at_s = now_s
        self._meter = RateMeter()
        self._sizes: dict[int, int] = {}
        """Per stream: bytes of its latest token, compressed or not."""
        self._told_rate: LinkRate | None = None
        """What the peer was told since the lanes were opened."""
        self._heartbeat = HEARTBEAT
        """Of the lanes that are open."""
        self._widened = 1
        """How often the timeout of sessions was doubled that never became ready."""
        self._probed_s = now_s
        self._opened_s = float("inf")
        """When both lanes of the session were open."""
        self._lost_s: float | None = None
        self._up_s: float | None = None
        self._history: deque[tuple[float, State, Event]] = deque(maxlen=20)

    @property
    def greeted(self) -> bool:
        """The peer has taken the session, and its control lane is open."""
        return self.state in (State.LOADING, State.PROVING, State.READY)

    @property
    def slow_ms(self) -> float:
        """Age from which a firing at the peer is evidence."""
        return max(SLOW_FIRING_MS, SLOW_FACTOR * self._usual_ms)

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
    def clock(self) -> PeerClock:
        """How the peer's clock differs from ours, by the beats of the session."""
        return self._pulse.clock

    @property
    def rate(self) -> LinkRate | None:
        """What the link carries; None: not known yet."""
        return self._meter.rate

    @property
    def heartbeat(self) -> Heartbeat:
        """Periods of the session's ZMTP heartbeat."""
        return self._heartbeat

    def wait_s(self, stream: int, sent: int, received: int, now_s: float) -> float:
        """Return how long a token, and its answer, would be on a slow link; else 0.

        Args:
            stream: Its number on the wire.
            sent: Bytes of a token, before compression.
            received: Bytes of its answer.
            now_s: Monotonic time.
        """
        meter = self._meter
        if not 0.0 < meter.bytes_s < FAST_BYTES_S:
            return 0.0
        return meter.wait_s(self._sizes.get(stream, sent), received, now_s)

    def sent(self, header: Header, now_s: float) -> None:
        """A token was handed to the data lane."""
        self._pulse.used()
        size = self._sizes[header.stream] = header.payload_bytes
        self._meter.sent((header.stream, header.ordinal), size, now_s)

    def answered(self, header: Header, now_s: float) -> Sequence[Action]:
        """An answer, or a NACK, came on the data lane of the session."""
        key = header.stream, header.ordinal
        if header.kind is not Kind.ANSWER:
            self._meter.forget(key)
            return ()
        there_s = (header.queue_us + header.compute_us) / 1e6
        size = header.payload_bytes
        anew = self._meter.answered(key, size, there_s=there_s, now_s=now_s)
        return self._tell_rate() if anew and self.ready else ()

    def due_s(self) -> float:
        """When `tick` has something to do next."""
        if self.ready:  # first: asked in every turn of the I/O loop
            return min(self._pulse.due_s, self._pulse.silent_s)
        if self.state is State.WAITING:
            return self._dial_at_s
        if self.state in (State.DIALLING, State.PROVING):
            return min(self._since_s + DIAL_TIMEOUT_S, self._pulse.due_s)
        if self.state is State.SUSPECT:
            return min(self._since_s + SUSPECT_S, self._pulse.due_s)
        return min(self._pulse.due_s, self._heard_s + SUSPECT_S)

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
        pulse = self._pulse
        pulse.look(now_s)
        if self.ready:  # first: it is so for hours
            if now_s < pulse.silent_s:
                return self._beat(now_s, about)
            text = f"a beat unanswered for {pulse.unanswered_ms(now_s):.0f} ms"
            return self._doubt("beat", text, now_s)
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
        self.absent = False
        self._failed_handshakes = 0
        if self.state is not State.DIALLING or len(self._lanes) < 2:
            return []
        self._heard_s = self._opened_s = now_s
        hello = Hello(
            device=self._device,
            incarnation=self._incarnation,
            session=self.session,
            offers=self.offers,
            deployment=self._deployment,
            play=self._play,
        )
        return [Send(hello)]

    def lane_lost(self, lane: Lane, now_s: float) -> list[Action]:
        """A lane was disconnected, or could not be connected."""
        self._lanes.discard(lane)
        if self.state is State.WAITING:
            return []
        if self.state is State.READY:
            silent_s = now_s - self._heard_s
            silent = lane == "control" and silent_s > self._heartbeat.silent_s
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
        if self.state is State.DIALLING and not self._lanes:
            self.absent = True
        if lane == "control" and now_s > self._opened_s + self._heartbeat.silent_s:
            self._widened *= 2  # its round trip may be longer than the timeout
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
        waiting = not self.ready and self.state is State.WAITING
        if waiting or getattr(message, "session", self.session) != self.session:
            self.ignored["session"] += 1
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
            case _:
                self.ignored["kind"] += 1
        return []

    def probed(self, session: int, now_s: float) -> list[Action]:
        """An answer to a probe came on the data lane."""
        if session != self.session:
            return []
        if self.ready:
            return self._tried(now_s)
        if self.state is not State.PROVING:
            return []
        self._heard_s = self._since_s = now_s
        size = 0 if self._probes_left == PROBES else PROBE_BYTES
        self._meter.probed(size, now_s - self._probed_s)
        self._probes_left -= 1
        if not self._probes_left and self._meter.unsure:
            self._probes_left = 1
        if self._probes_left > 0:
            return self._probe(now_s)
        if self._wants_longer_heartbeat():
            return self._close(now_s)
        self._move(Event.PROVED, now_s)
        away_s = None if self._lost_s is None else now_s - self._lost_s
        self._up_s, self._lost_s, self.refused = now_s, None, ""
        self._used = True
        self._overdue = False
        self._widened = 1
        # Before the first token goes: what may be in flight follows from the rate.
        return [*self._tell_rate(), Up(self.session, away_s)]

    def bye(self) -> list[Action]:
        """We are going."""
        return [Send(Bye(self.session))] if "control" in self._lanes else []

    @property
    def _recovering(self) -> bool:
        """It was used in the session, so that late answers may still come."""
        return self.state is State.PROVING and self._used

    def _measure(self, beat: Beat, now_s: float) -> list[Action]:
        self._pulse.heard(beat, now_s)
        offset = self.clock.offset
        if offset is None:
            return []
        self._meter.round_trip(offset.round_trip_s)
        if now_s < self._measure_at_s:
            return []
        self._measure_at_s = now_s + MEASURE_AGAIN_S
        return [Measured(offset)]

    def _check_credit(self, beat: Beat, now_s: float) -> list[Action]:
        """Give up a session whose answers were lost, and with them its credit."""
        patience_s = SUSPECT_S
        if beat.queue or beat.age_ms:
            # With others' tokens, perhaps: frames and beats may keep the same time, so
            # that every beat finds one there. But not with ours, for so long.
            work_s = SLOW_FACTOR * self._usual_ms / 1e3 * max(beat.queue, 1)
            patience_s = max(STARVED_S, work_s)
        if self.starved_s(now_s) < patience_s:
            return []
        return self._give_up("owes answers, and has nothing to do", now_s)

    def _judge(self, beat: Beat, now_s: float) -> list[Action]:
        """What a beat says of a peer that is used, or that might be again."""
        self._usual_ms = max(self._usual_ms, beat.usual_ms)
        self.told_queue(beat.queue)
        if beat.dead or self.unreachable != _NOTHING:
            self.unreachable = frozenset(beat.dead)
        hangs = beat.age_ms > self.slow_ms
        if self.ready:
            if hangs:
                return self.overdue(f"a firing there takes {beat.age_ms} ms", now_s)
            return self._check_credit(beat, now_s)
        if self.state is State.LOADING and beat.ready:
            return self._close(now_s)  # the welcome that said so was lost
        believed = len(self._lanes) == 2 and not (self._overdue and hangs)
        if self.state is State.SUSPECT and believed:
            return self._prove(Event.RECOVERED, now_s)
        return []

    def _move(self, event: Event, now_s: float) -> None:
        self._history.append((now_s, self.state, event))
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            steps = [f"{t_s:.3f} {s.value} {e.value}" for t_s, s, e in self._history]
            story = "; ".join(steps)
            raise LinkError(f"link to {self.peer}: forbidden event: {story}") from None
        self.ready = self.state is State.READY
        self._since_s = now_s

    def _dial(self, now_s: float) -> list[Action]:
        self._move(Event.DIAL, now_s)
        self.session += 1
        self._lanes.clear()
        self.forget()
        self.unreachable = None
        self._overdue = False
        self._heard_s = now_s
        self._opened_s = float("inf")
        self._pulse = Pulse(now_s)
        self._measure_at_s = now_s + MEASURE_S
        self._meter.begin()
        self._told_rate = None
        rate = self._meter.rate
        self._heartbeat = HEARTBEAT if rate is None else rate.heartbeat
        if self._widened > 1:
            self._heartbeat = self._heartbeat.longer(self._widened)
        return [Dial(self.session, self._heartbeat)]

    def _welcome(
        self, ready: bool, grants: Mapping[int, int], now_s: float
    ) -> list[Action]:
        if self.state not in (State.DIALLING, State.LOADING):
            self.ignored["kind"] += 1
            return []
        if self.state is State.DIALLING and len(self._lanes) == 2:
            self._meter.welcomed(now_s - self._opened_s)
        if not ready:
            self._move(Event.LOADING, now_s)
            return []
        self.grant(grants)
        return self._prove(Event.WELCOME, now_s)

    def _prove(self, event: Event, now_s: float) -> list[Action]:
        self._move(event, now_s)
        self._probes_left = PROBES
        self._probed_s = now_s
        return [Probe(self.session, PROBES)]

    def _doubt(self, evidence: Evidence, text: str, now_s: float) -> list[Action]:
        self._move(Event.DOUBT, now_s)
        self._pulse.doubted()
        if self._lost_s is None:
            self._lost_s = now_s
        if self._up_s is not None and now_s - self._up_s < STABLE_S:
            self._flaps += 1
        else:
            self._flaps = 0
        return [Suspect(self.session, evidence, text)]

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

    def _probe(self, now_s: float) -> list[Action]:
        self._probed_s = now_s
        return [Probe(self.session, self._probes_left, PROBE_BYTES)]

    def _tried(self, now_s: float) -> list[Action]:
        """A probe was answered that was sent to a peer in use."""
        if not self._probes_left:
            return []
        self._meter.probed(PROBE_BYTES, now_s - self._probed_s)
        self._probes_left -= 1
        return self._probe(now_s) if self._probes_left else [*self._tell_rate()]

    def _beat(self, now_s: float, about: Callable[[], str]) -> list[Action]:
        if now_s < self._pulse.due_s:
            return []
        if "control" not in self._lanes or self.state is State.DIALLING:
            self._pulse.skip(now_s)  # before the greeting there is nothing to be kept
            return []
        beat = Send(self._pulse.beat(self.session, about(), now_s))
        if self.ready and self._meter.tries(now_s):
            self._probes_left = TRIES
            return [beat, *self._probe(now_s)]
        return [beat]

    def _wants_longer_heartbeat(self) -> bool:
        """Tell whether the session would be lost on its first full link."""
        rate = self._meter.rate
        return (
            rate is not None
            and not self._used
            and rate.heartbeat.timeout_ms > LONGER * self._heartbeat.timeout_ms
        )

    def _tell_rate(self) -> Sequence[Action]:
        rate = self._meter.rate
        if rate is None or not rate.differs(self._told_rate):
            return ()
        self._told_rate = rate
        flight = Flight(self.session, rate.flight_bytes or 0)
        return [Rated(rate), Send(flight)]
