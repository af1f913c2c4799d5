"""A link, seen from the side that listens: who may send what, and how much.

Every check stands before anything is computed or allocated for a token: the session is
the lane's own, the segment was offered in it, the ordinal is within the credit, the
frames have the sizes of the branch's ports. What fails is answered with the reason, so
that the ledger at the other end can start another branch at once.

Sans-IO: events in, actions out, time as an argument.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from dataflow.wire.compression import fits
from dataflow.wire.control import (
    Beat,
    Bye,
    Control,
    Flight,
    Hello,
    Refuse,
    Welcome,
)
from dataflow.wire.header import CONTROL_LANE, Header, Kind, Nack, data_route
from dataflow.wire.session import (
    Accept,
    Action,
    Bound,
    Ended,
    Opened,
    Reply,
    Send,
    Session,
)
from dataflow.wire.timers import SUSPECT_S

LOOK_S = 0.5
"""How often silent sessions are looked for."""
SESSIONS_MAX = 4096
"""Each costs two sockets: from about 500 on, raise the limit of open files."""
RESERVED_BYTES_MAX = 256 * 2**20
"""Memory that all granted credit may fill, over all sessions."""
DEVICE_BYTES_MAX = RESERVED_BYTES_MAX // 2
"""What the sessions of one device may fill: the others have room whatever it asks."""
TOKEN_OVERHEAD_BYTES = 4096
"""Counted for each token besides its tensors, so that tiny ones are bounded too."""
LIMIT_MAX = 2**64 - 1

_new = tuple.__new__
"""Makes an action of a tuple in half the time of its constructor, which calls it."""
_TOKEN = Kind.TOKEN  # a member costs 0.1 us to look up in Python 3.11


class Sessions:
    """All sessions of a listening device.

    Args:
        device: Our name.
        incarnation: Ours.
        token_bytes: Segment -> sizes of the tensors that one attempt carries.
        codecs: Segment -> `codec` that its messages may have, where it is not 0.
    """

    def __init__(
        self,
        device: str,
        *,
        incarnation: int,
        token_bytes: Mapping[int, Sequence[int]],
        codecs: Mapping[int, int] | None = None,
    ) -> None:
        self._device = device
        self._incarnation = incarnation
        self._token_bytes = {s: tuple(sizes) for s, sizes in token_bytes.items()}
        self._codecs = dict(codecs or {})
        self._by_control: dict[bytes, Session] = {}
        self._by_lane: dict[bytes, Session] = {}
        self._coming: set[int] = set()
        """Segments of a further plan, while they are loaded."""
        self._reserved_bytes = 0
        """By the credit of all sessions; those that drain are not counted here."""
        self._newest: dict[tuple[str, str, int, int], int] = {}
        """Of each life of a device, its latest session; the one opened last comes last.
        It is not taken back, though another life's may have ended it."""
        self._draining: list[Session] = []
        """Ended, but their tokens still wait for a firing, and hold memory."""
        self._leaving = False
        self._owed: dict[bytes, Session] = {}
        """Who is to hear a beat: it beat, or there is something to tell."""
        self._look_at_s = float("-inf")
        self.loaded = False
        self.nacks: Counter[str] = Counter()
        """Tokens that got no result, by reason."""
        self.rejected: Counter[str] = Counter()
        """Messages that nobody answers and requests refused, by reason."""
        self.opened = 0
        self.ended: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_control)

    @property
    def all(self) -> list[Session]:
        return list(self._by_control.values())

    def on(self, route: bytes) -> Session | None:
        """Return the session whose control lane has this routing id."""
        return self._by_control.get(route)

    def load_done(self, now_s: float) -> list[Action]:
        """The models are there: welcome those who wait."""
        waiting = [s for s in self._by_control.values() if not self._is_ready(s)]
        self.loaded = True
        self._coming.clear()
        return [Send(s.control, self._welcome(s, now_s)) for s in waiting]

    def expect(self, segment: int, token_bytes: Sequence[int], codec: int) -> None:
        """A segment of a further plan is being loaded, until `load_done`."""
        self._token_bytes[segment] = tuple(token_bytes)
        self._codecs[segment] = codec
        self._coming.add(segment)

    def withdraw(self, segment: int) -> None:
        """A segment is not served any more."""
        self._token_bytes.pop(segment, None)
        self._codecs.pop(segment, None)
        self._coming.discard(segment)

    def wants(self, segment: int) -> bool:
        """Tell whether somebody may send tokens for a segment, or has some here."""
        return any(
            offer.segment == segment
            for session in (*self._by_control.values(), *self._draining)
            for offer in session.offers.values()
        )

    def _is_ready(self, session: Session) -> bool:
        return self.loaded and (
            not self._coming
            or not any(o.segment in self._coming for o in session.offers.values())
        )

    def control(self, route: bytes, message: Control, now_s: float) -> list[Action]:
        """A message came on the control lane whose routing id is `route`."""
        if isinstance(message, Hello):
            return self._hello(route, message, now_s)
        session = self._by_control.get(route)
        if session is None or getattr(message, "session", None) != session.number:
            self.rejected["session"] += 1
            if isinstance(message, Beat) and not self._leaving:
                # Its side was silent for so long that we ended it, and does not know.
                return [Send(route, Bye(message.session))]
            return []
        session.heard_s = now_s
        if isinstance(message, Beat):
            session.about = message.about
            session.clock.heard(message, now_s)
            self._owed[route] = session
        elif isinstance(message, Flight):
            return [Bound(session, message.bytes or None)]
        elif isinstance(message, Bye):
            return [self._end(session, "bye")]
        else:
            self.rejected["kind"] += 1
        return []

    def data(
        self, route: bytes, header: Header, frame_bytes: Sequence[int], now_s: float
    ) -> list[Action]:
        """A data message came; `frame_bytes` are the sizes of its tensor frames."""
        session = self._by_lane.get(route)
        if session is None or header.session != session.number:
            self.rejected["session"] += 1
            return []  # an older session: its side has moved on
        session.heard_s = now_s
        if header.kind is not _TOKEN:
            if header.kind is Kind.PROBE:
                return [Reply(route, header._replace(kind=Kind.PROBED))]
            self.rejected["kind"] += 1
            return []
        refusal = self._refusal(session, header, frame_bytes)
        if refusal is not None:
            return [self.nack(session, header, refusal)]
        session.queued[header.stream] += 1
        return [_new(Accept, (session, session.offers[header.stream], header))]

    def answered(self, session: Session, header: Header) -> int:
        """A queued token was fired or thrown away; return the stream's new limit."""
        session.queued[header.stream] -= 1
        if (
            self._draining
            and session in self._draining
            and not any(session.queued.values())
        ):
            self._draining.remove(session)
        return self._grant(session, header.stream)

    def nack(self, session: Session, header: Header, why: Nack) -> Reply:
        """The one answer to an attempt that gets no result."""
        self.nacks[why.name.lower()] += 1
        limit = self._grant(session, header.stream)
        return Reply(
            session.lane, header.answer(Kind.NACK, flags=int(why), limit=limit)
        )

    def tick(
        self,
        now_s: float,
        *,
        queue: int,
        age_ms: int,
        usual_ms: int = 0,
        dead: tuple[str, ...] = (),
        about: Callable[[], str],
    ) -> list[Action]:
        """Time passed: answer the beats that came, end the silent sessions."""
        actions: list[Action] = []
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            silent = (s for s in self.all if now_s >= s.heard_s + SUSPECT_S)
            actions += [self._end(session, "silent") for session in silent]
        if not self._owed:
            return actions
        owed, self._owed = self._owed, {}
        text = about()
        for session in owed.values():
            clock_us, echo_us, held_us = session.clock.stamps(now_s)
            beat = Beat(
                session.number,
                ready=self._is_ready(session),
                queue=queue,
                age_ms=age_ms,
                usual_ms=usual_ms,
                dead=dead,
                about=text,
                clock_us=clock_us,
                echo_us=echo_us,
                held_us=held_us,
            )
            actions.append(Send(session.control, beat))
        return actions

    def beat_now(self) -> None:
        """Something changed that a beat tells: let it come at once."""
        self._owed.update(self._by_control)

    def due_s(self) -> float:
        """When `tick` has something to do next."""
        if self._owed:
            return float("-inf")
        return self._look_at_s if self._by_control else float("inf")

    def bye(self) -> list[Action]:
        """We are going: what is under way is answered, and nobody new is taken."""
        self._leaving = True
        return [Send(s.control, Bye(s.number)) for s in self._by_control.values()]

    def _hello(self, route: bytes, hello: Hello, now_s: float) -> list[Action]:
        if route[-1:] != CONTROL_LANE:
            return self._reject("kind")
        if self._leaving or self._is_stale(hello):
            return self._reject("session")
        why = self._refusal_of(hello)
        if why:
            self.rejected["segment"] += 1
            return [Send(route, Refuse(hello.session, why))]
        ended = [
            self._end(old, "a newer session")
            for old in self.all
            if old.control == route or old.is_replaced_by(hello)
        ]
        reserved = self._reservation(hello)
        held = self._reserved_bytes + sum(s.reserved_bytes for s in self._draining)
        theirs = sum(
            s.reserved_bytes for s in self._draining if s.device == hello.device
        )
        if (
            held + reserved > RESERVED_BYTES_MAX
            or theirs + reserved > DEVICE_BYTES_MAX
            or len(self) >= SESSIONS_MAX
        ):
            why = (
                f"device '{self._device}': busy: {len(self)} sessions hold {held} "
                f"bytes of credit, this one asks for {reserved}; use a smaller window"
            )
            self.rejected["room"] += 1
            return [*ended, Send(route, Refuse(hello.session, why))]
        session = Session(
            number=hello.session,
            device=hello.device,
            incarnation=hello.incarnation,
            control=route,
            lane=data_route(route),
            offers={offer.stream: offer for offer in hello.offers},
            limits={offer.stream: offer.window for offer in hello.offers},
            heard_s=now_s,
            reserved_bytes=reserved,
            seen=dict.fromkeys((offer.stream for offer in hello.offers), 0),
            queued=dict.fromkeys((offer.stream for offer in hello.offers), 0),
            deployment=hello.deployment,
            play=hello.play,
        )
        self.opened += 1
        life = _life(hello)
        self._newest.pop(life, None)
        self._newest[life] = hello.session
        if len(self._newest) > SESSIONS_MAX:
            del self._newest[next(iter(self._newest))]
        self._by_control[route] = session
        self._by_lane[session.lane] = session
        self._reserved_bytes += reserved
        self._owed[route] = session  # what can be reached behind us
        return [
            *ended,
            Opened(session),
            Send(route, self._welcome(session, now_s)),
        ]

    def _welcome(self, session: Session, now_s: float) -> Welcome:
        session.heard_s = now_s
        return Welcome(
            device=self._device,
            incarnation=self._incarnation,
            session=session.number,
            ready=self._is_ready(session),
            grants=dict(session.limits),
        )

    def _is_stale(self, hello: Hello) -> bool:
        """Tell whether its sender has the session already, or moved on to a newer one.

        A device that hung finds the greetings of several sessions at once, of several
        lives of a device that was restarted, and they come in no particular order.
        """
        return self._newest.get(_life(hello), -1) >= hello.session

    def _refusal_of(self, hello: Hello) -> str:
        for offer in hello.offers:
            if offer.segment not in self._token_bytes:
                return (
                    f"device '{self._device}': does not have segment "
                    f"{offer.segment:016x} that stream '{offer.name}' of "
                    f"'{hello.device}' wants: it runs another plan; give both devices "
                    "the same deployment, graph and model files"
                )
        return ""

    def _reservation(self, hello: Hello) -> int:
        return sum(
            offer.window
            * (sum(self._token_bytes[offer.segment]) + TOKEN_OVERHEAD_BYTES)
            for offer in hello.offers
        )

    def _refusal(
        self, session: Session, header: Header, frame_bytes: Sequence[int]
    ) -> Nack | None:
        offer = session.offers.get(header.stream)
        if offer is None:
            return Nack.SEGMENT
        stream = header.stream
        if header.ordinal >= session.seen[stream]:
            session.seen[stream] = header.ordinal + 1
        if header.segment != offer.segment:
            return Nack.SEGMENT
        # The limit is the rule; the queue is what bounds memory, whatever ordinals say.
        if (
            header.ordinal >= session.limits[stream]
            or session.queued[stream] >= offer.window
            or not self.loaded
            or (self._coming and header.segment in self._coming)
        ):
            return Nack.BUSY
        return None if self._fits(header, frame_bytes) else Nack.ERROR

    def _fits(self, header: Header, frame_bytes: Sequence[int]) -> bool:
        """Tell whether the frames can be the segment's tensors.

        Their own sizes count; what the header says of them is believed by nobody.
        """
        wanted = self._token_bytes[header.segment]
        if tuple(frame_bytes) == wanted:
            return True
        return (
            header.codec == self._codecs.get(header.segment, 0) != 0
            and len(frame_bytes) == len(wanted)
            and all(
                fits(got, token, header.codec)
                for got, token in zip(frame_bytes, wanted, strict=True)
            )
        )

    def _grant(self, session: Session, stream: int) -> int:
        """Return the stream's limit: what came, and the slots that are free.

        Ordinals below the highest that came have come too, or were never sent: both
        free their slots. A refused token frees its slot as well as an answered one.
        """
        offer = session.offers.get(stream)
        if offer is None:
            return 0
        free = offer.window - session.queued[stream]
        limit = min(session.seen[stream] + free, LIMIT_MAX)
        session.limits[stream] = max(session.limits[stream], limit)
        return session.limits[stream]

    def _reject(self, why: str) -> list[Action]:
        self.rejected[why] += 1
        return []

    def _end(self, session: Session, why: str) -> Ended:
        self._by_control.pop(session.control, None)
        self._owed.pop(session.control, None)
        self._by_lane.pop(session.lane, None)
        self._reserved_bytes -= session.reserved_bytes
        if any(session.queued.values()):
            self._draining.append(session)
        self.ended[why] += 1
        return Ended(session, why)


def _life(hello: Hello) -> tuple[str, str, int, int]:
    """Return what numbers its sessions from 1 on: a life of a device, or a play."""
    return hello.deployment, hello.device, hello.incarnation, hello.play
