"""A link, seen from the side that listens: who may send what, and how much.

Every check stands before anything is computed or allocated for a token: the session is
the lane's own, the segment was offered in it, the ordinal is within the credit, the
frames have the sizes of the branch's ports. What fails is answered with the reason, so
that the ledger at the other end can start another branch at once.

Sans-IO: events in, actions out, time as an argument.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataflow.wire.control import (
    Beat,
    Bye,
    Control,
    Hello,
    Refuse,
    StreamOffer,
    Welcome,
)
from dataflow.wire.header import Header, Kind, Nack, data_route
from dataflow.wire.link import BEAT_S, SUSPECT_S

SESSIONS_MAX = 256
RESERVED_BYTES_MAX = 256 * 2**20
"""Memory that all granted credit may fill, over all sessions."""
LIMIT_MAX = 2**64 - 1


class Send(NamedTuple):
    """Send on the control lane with this routing id."""

    route: bytes
    message: Control


class Reply(NamedTuple):
    """Send a header alone on the data lane with this routing id."""

    route: bytes
    header: Header


class Accept(NamedTuple):
    """Fire the branch's actors on the token, then call `answered`."""

    session: "Session"
    offer: StreamOffer
    header: Header


class Opened(NamedTuple):
    """A session was opened."""

    session: "Session"


class Ended(NamedTuple):
    """A session is over; nothing is to be sent in it any more."""

    session: "Session"
    why: str


Action = Send | Reply | Accept | Opened | Ended


@dataclass(slots=True)
class Session:
    """One connection of a link, at the side that listens."""

    number: int
    device: str
    incarnation: int
    control: bytes
    """Routing id of the control lane."""
    lane: bytes
    """Routing id of the data lane."""
    offers: Mapping[int, StreamOffer]
    limits: dict[int, int]
    """Per stream: ordinals below it are within the credit."""
    heard_s: float
    reserved_bytes: int
    seen: dict[int, int]
    """Per stream: the ordinal after the highest that came."""
    queued: dict[int, int]
    """Per stream: tokens that wait for their firing, or are in it."""
    about: str = ""


class Sessions:
    """All sessions of a listening device.

    Args:
        device: Our name.
        incarnation: Ours.
        token_bytes: Segment -> sizes of the tensor frames that one attempt carries.
    """

    def __init__(
        self,
        device: str,
        *,
        incarnation: int,
        token_bytes: Mapping[int, Sequence[int]],
    ) -> None:
        self._device = device
        self._incarnation = incarnation
        self._token_bytes = token_bytes
        self._by_control: dict[bytes, Session] = {}
        self._by_lane: dict[bytes, Session] = {}
        self._draining: list[Session] = []
        """Ended, but their tokens still wait for a firing, and hold memory."""
        self._leaving = False
        self._beat_at_s = float("-inf")
        self.loaded = False
        self.refusals = 0

    def __len__(self) -> int:
        return len(self._by_control)

    @property
    def all(self) -> list[Session]:
        return list(self._by_control.values())

    def load_done(self, now_s: float) -> list[Action]:
        """The models are there: welcome those who wait."""
        self.loaded = True
        return [
            Send(s.control, self._welcome(s, now_s)) for s in self._by_control.values()
        ]

    def control(self, route: bytes, message: Control, now_s: float) -> list[Action]:
        """A message came on the control lane whose routing id is `route`."""
        if isinstance(message, Hello):
            return self._hello(route, message, now_s)
        session = self._by_control.get(route)
        if session is None or getattr(message, "session", None) != session.number:
            return []
        session.heard_s = now_s
        match message:
            case Beat(about=about):
                session.about = about
            case Bye():
                return [self._end(session, "bye")]
        return []

    def data(
        self, route: bytes, header: Header, frame_bytes: Sequence[int], now_s: float
    ) -> list[Action]:
        """A data message came; `frame_bytes` are the sizes of its tensor frames."""
        session = self._by_lane.get(route)
        if session is None or header.session != session.number:
            return []  # an older session: its side has moved on
        session.heard_s = now_s
        if header.kind is Kind.PROBE:
            return [Reply(route, header._replace(kind=Kind.PROBED))]
        if header.kind is not Kind.TOKEN:
            return []
        refusal = self._refusal(session, header, frame_bytes)
        if refusal is not None:
            self.refusals += 1
            return [self.nack(session, header, refusal)]
        session.queued[header.stream] += 1
        return [Accept(session, session.offers[header.stream], header)]

    def answered(self, session: Session, header: Header) -> int:
        """A queued token was fired or thrown away; return the stream's new limit."""
        session.queued[header.stream] -= 1
        if session in self._draining and not any(session.queued.values()):
            self._draining.remove(session)
        return self._grant(session, header.stream)

    def nack(self, session: Session, header: Header, why: Nack) -> Reply:
        """The one answer to an attempt that gets no result."""
        limit = self._grant(session, header.stream)
        return Reply(
            session.lane,
            header._replace(
                kind=Kind.NACK, flags=int(why), tensors=0, payload_bytes=0, limit=limit
            ),
        )

    def tick(
        self,
        now_s: float,
        *,
        queue: int,
        age_ms: int,
        usual_ms: int = 0,
        about: Callable[[], str],
    ) -> list[Action]:
        """Time passed: beat every session, end the silent ones."""
        actions: list[Action] = [
            self._end(session, "silent")
            for session in self.all
            if now_s >= session.heard_s + SUSPECT_S
        ]
        if now_s < self._beat_at_s:
            return actions
        self._beat_at_s = now_s + BEAT_S
        if not self._by_control:
            return actions
        text = about()
        return actions + [
            Send(
                s.control,
                Beat(
                    s.number,
                    ready=self.loaded,
                    queue=queue,
                    age_ms=age_ms,
                    usual_ms=usual_ms,
                    about=text,
                ),
            )
            for s in self._by_control.values()
        ]

    def due_s(self) -> float:
        """When `tick` has something to do next."""
        return self._beat_at_s if self._by_control else float("inf")

    def bye(self) -> list[Action]:
        """We are going: what is under way is answered, and nobody new is taken."""
        self._leaving = True
        return [Send(s.control, Bye(s.number)) for s in self._by_control.values()]

    def _hello(self, route: bytes, hello: Hello, now_s: float) -> list[Action]:
        if self._leaving or self._is_stale(hello):
            return []
        why = self._refusal_of(hello)
        if why:
            return [Send(route, Refuse(hello.session, why))]
        ended = [
            self._end(old, "a newer session")
            for old in self.all
            if old.device == hello.device or old.control == route
        ]
        reserved = self._reservation(hello)
        held = sum(s.reserved_bytes for s in [*self.all, *self._draining])
        if held + reserved > RESERVED_BYTES_MAX or len(self) >= SESSIONS_MAX:
            why = (
                f"device '{self._device}': busy: {len(self)} sessions hold {held} "
                f"bytes of credit, this one asks for {reserved}; use a smaller window"
            )
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
        )
        self._by_control[route] = session
        self._by_lane[session.lane] = session
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
            ready=self.loaded,
            grants=dict(session.limits),
        )

    def _is_stale(self, hello: Hello) -> bool:
        """Tell whether its sender has this session already, or moved on to a newer one.

        A device that hung finds the greetings of several sessions at once, and they
        come in no particular order.
        """
        return any(
            session.device == hello.device
            and session.incarnation == hello.incarnation
            and session.number >= hello.session
            for session in self.all
        )

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
            offer.window * sum(self._token_bytes[offer.segment])
            for offer in hello.offers
        )

    def _refusal(
        self, session: Session, header: Header, frame_bytes: Sequence[int]
    ) -> Nack | None:
        offer = session.offers.get(header.stream)
        if offer is None:
            return Nack.SEGMENT
        stream = header.stream
        session.seen[stream] = max(session.seen[stream], header.ordinal + 1)
        if header.segment != offer.segment:
            return Nack.SEGMENT
        # The limit is the rule; the queue is what bounds memory, whatever ordinals say.
        if (
            header.ordinal >= session.limits[stream]
            or session.queued[stream] >= offer.window
            or not self.loaded
        ):
            return Nack.BUSY
        if list(frame_bytes) != list(self._token_bytes[header.segment]):
            return Nack.ERROR
        return None

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

    def _end(self, session: Session, why: str) -> Ended:
        self._by_control.pop(session.control, None)
        self._by_lane.pop(session.lane, None)
        if any(session.queued.values()):
            self._draining.append(session)
        return Ended(session, why)
