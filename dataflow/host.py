"""The serving half of a device: sessions, and the branches it computes for others.

Every stream has its own actors here in the plain graph. They are stateless (R14), so
one chain plays them all, for each segment, made and timed before the first session:
nothing is built while frames wait, and a stream that no plan names (a third camera of a
newer deployment) is served as well, by its segment's identity. Tokens of several
sessions may run as one batch, in which the sessions take turns (`dataflow.turns`).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dataflow.clock import now_s as clock_s
from dataflow.engine import Chain
from dataflow.errors import ActorError, PeerError
from dataflow.events import EventLog
from dataflow.executor import Executor, time_chain
from dataflow.parts import HostedPart, hosted_parts
from dataflow.plan import Plan
from dataflow.segments import Peer, Segments
from dataflow.wire.allowance import GREETING_COST, PIECE_COST, STATUS_COST, Allowances
from dataflow.wire.compression import CODES, compression
from dataflow.wire.control import (
    CONTROL_BYTES_MAX,
    NAME_CHARS_MAX,
    Hello,
    Piece,
    Refuse,
    StatusReply,
    StatusRequest,
    Want,
    control_version,
    is_control,
    pack_control,
    unpack_control,
)
from dataflow.wire.happenings import FromRoute
from dataflow.wire.header import (
    HEADER_BYTES,
    VERSION,
    Header,
    Kind,
    Nack,
    microseconds,
)
from dataflow.wire.link import Link
from dataflow.wire.relay import Passed, Relay, Way
from dataflow.wire.sessions import (
    Accept,
    Action,
    Ended,
    Opened,
    Reply,
    Send,
    Session,
    Sessions,
)
from dataflow.wire.transport import Transport

if TYPE_CHECKING:
    from dataflow.links import Links

STATUS_CHARS_MAX = CONTROL_BYTES_MAX - 256
ABOUT_TYPES: Mapping[str, type] = {
    "stream": str,
    "frames": int,
    "row": str,
    "full": int,
    "degraded": int,
    "dropped": int,
}
"""What a peer may say of each of its streams, see `Stream.describe`."""

MakeChain = Callable[[Plan, HostedPart], Chain]
"""Makes the actors of a part, started, as a chain."""


class Host:
    """Answers the tokens of the sessions that others opened with this device."""

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        device: str,
        incarnation: int,
        transport: Transport,
        executor: Executor,
        events: EventLog,
        make_chain: MakeChain,
        status: Callable[[], dict[str, Any]],
        keys: bool,
        segments: Segments,
    ) -> None:
        self._device = device
        self._transport = transport
        self._executor = executor
        self._events = events
        self._make_chain = make_chain
        self._status = status
        self._keys = keys
        self._segments = segments
        # Streams of one segment have equal parts, in whatever plan; one stands for all.
        self._hosted = {
            part.segment: (plan, part)
            for plan in reversed(plans)
            for part in hosted_parts(plan.graph, device)
        }
        self._chains: dict[int, Chain] = {}
        self._compressions = {
            segment: compression(part.compression)
            for segment, (_, part) in self._hosted.items()
        }
        self._onward_compressions = {
            segment: compression(part.onward_compression)
            for segment, (_, part) in self._hosted.items()
        }
        self.sessions = Sessions(
            device,
            incarnation=incarnation,
            token_bytes={
                segment: [token.nbytes for token in part.received]
                for segment, (_, part) in self._hosted.items()
            },
            codecs={
                s: CODES[part.compression] for s, (_, part) in self._hosted.items()
            },
        )
        self.relay = Relay(device, _ways(plans, device))
        self._links: Links | None = None
        self._allowances = Allowances()
        self.answered = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    @property
    def peers(self) -> list[Peer]:
        """Who dialled us and may be asked for segments."""
        return [Peer(s.device, s.number, s.control) for s in self.sessions.all]

    def connect(self, links: "Links") -> None:
        """Take the links over which tokens are passed on."""
        self._links = links

    def load(self) -> None:
        """Load every segment once, and time it; runs beside the I/O loop."""
        for segment, (plan, part) in self._hosted.items():
            chain = self._make_chain(plan, part)
            batching = plan.devices[self._device].batching
            best_s = time_chain(chain, part.chain.zeros(), batching.most)
            self._executor.place(chain, best_s, batching)
            packs = self._onward_compressions[segment]
            if packs is not None:
                self._executor.place(packs, packs.time_s(part.sent))
            self._chains[segment] = chain

    def loaded(self, now_s: float) -> None:
        """Models are there: tell those who wait."""
        self._do(self.sessions.load_done(now_s), now_s)

    def receive(self, event: FromRoute, now_s: float) -> None:
        """A message came from a peer that dialled us."""
        # The two lanes of a session share their route but for the last byte.
        peer = event.key or event.route[:-1]
        cost = 1.0
        try:
            if not event.frames:
                cost = math.inf  # no device has a reason, and to read them takes long
                raise PeerError("message of more frames than any has", "frames")
            if not is_control(event.frames[0]):
                cost = self._data(event.route, event.frames, now_s)
            else:
                cost = self._control(event, now_s)
        except PeerError as error:
            self._events.reject(error, self._transport.owner(event.key) or "")
        if cost and not self._allowances.take(peer, now_s, cost):
            self._transport.shut_out(event)
            self._events.rejected["flood"] += 1
            owner = self._transport.owner(event.key) or "unknown"
            self._events.write("link.flood", peer=owner)

    def tick(self, now_s: float) -> float:
        """Time passed; return when there is something to do next."""
        due_s = self._due_s()
        if now_s < due_s:
            return due_s
        for peer, passed in self.relay.expired(now_s):
            self._tell_overdue(peer, passed, now_s)
            self._refuse(passed.session, passed.header, Nack.EXPIRED)
        age_s, usual_s = self._executor.firing(now_s)
        self._do(
            self.sessions.tick(
                now_s,
                queue=self._executor.queue + len(self.relay),
                age_ms=int(age_s * 1e3),
                usual_ms=math.ceil(usual_s * 1e3),
                dead=self._unreachable(),
                about=lambda: "",
            ),
            now_s,
        )
        return self._due_s()

    def _due_s(self) -> float:
        return min(self.sessions.due_s(), self.relay.due_s())

    def bye(self, now_s: float) -> None:
        self._do(self.sessions.bye(), now_s)

    @property
    def chains(self) -> list[Chain]:
        """Those that compute for others; they grow while models load."""
        return list(self._chains.values())

    def describe(self) -> dict[str, Any]:
        """Return what `understudy status` shows of the sessions."""
        return {
            "answered": self.answered,
            "nacks": dict(self.sessions.nacks),
            "closed": dict(self._transport.connections.closed),
            "queue": self._executor.queue,
            "sessions": [
                {
                    "device": session.device,
                    "deployment": session.deployment,
                    "session": session.number,
                    "streams": [offer.name for offer in session.offers.values()],
                    "about": _streams_of(session.about),
                }
                for session in self.sessions.all
            ],
        }

    def _control(self, event: FromRoute, now_s: float) -> float:
        """Act on a control message; return what it costs its sender."""
        route, frame = event.route, event.frames[0]
        if control_version(frame) != VERSION:
            why = (
                f"device '{self._device}': speaks protocol version {VERSION}, its peer "
                f"version {control_version(frame)}; install the same understudy on both"
            )
            # The version byte alone tells the peer, whatever the rest means to it.
            self._transport.reply(route, [pack_control(Refuse(0, why))])
            raise PeerError(why, "version")
        message = unpack_control(frame)
        if isinstance(message, StatusRequest):
            self._transport.reply(route, [pack_control(StatusReply(self._told()))])
            return STATUS_COST
        if isinstance(message, Want | Piece):
            return self._segment(route, message, now_s)
        if isinstance(message, Hello) and self._keys:
            # A name belongs to its key: else one device could end another's session.
            owner = self._transport.owner(event.key)
            if owner != message.device:
                why = (
                    f"device '{message.device}': greets '{self._device}' with the key "
                    f"of '{owner}'; give each device the secret key of its own name"
                )
                refuse = Refuse(message.session, why)
                self._transport.reply(route, [pack_control(refuse)])
                raise PeerError(why, "key")
        self._do(self.sessions.control(route, message, now_s), now_s)
        return GREETING_COST if isinstance(message, Hello) else 1.0

    def _segment(self, route: bytes, message: Want | Piece, now_s: float) -> float:
        """Give or take a piece of a segment; return what it costs its sender."""
        session = self.sessions.on(route)
        if session is None:
            raise PeerError(f"{message.kind} outside of a session; dropped", "session")
        session.heard_s = now_s
        if isinstance(message, Want):
            piece = self._segments.give(message)
            self._transport.reply(route, [pack_control(piece)])
        else:
            peer = Peer(session.device, session.number, route)
            self._segments.take(peer, message, now_s)
        return PIECE_COST

    def _told(self) -> str:
        """Return our status as JSON that fits a control message."""
        status = self._status()
        text = json.dumps(status)
        if len(text) > STATUS_CHARS_MAX:
            # What the peers say of themselves goes first, then the list of them.
            status["sessions"] = [{**s, "about": []} for s in status["sessions"]]
            text = json.dumps(status)
        if len(text) > STATUS_CHARS_MAX:
            status["sessions"] = []
            text = json.dumps(status)
        return text

    def _data(self, route: bytes, frames: list[Any], now_s: float) -> float:
        """Act on a data message; return what it costs: nothing within its credit."""
        header = Header.parse(frames[0])
        sizes = [len(frame) for frame in frames[1:]]
        cost = 1.0
        self.received_bytes += HEADER_BYTES + sum(sizes)
        for action in self.sessions.data(route, header, sizes, now_s):
            if isinstance(action, Accept):
                self._fire(action, frames[1:], now_s)
                cost = 0.0
            else:
                self._do([action], now_s)
        return cost

    def _fire(self, accepted: Accept, frames: list[Any], now_s: float) -> None:
        session, _, header = accepted
        _, part = self._hosted[header.segment]
        try:
            tokens = self._tokens(part, header, frames)
        except PeerError:
            self._refuse(session, header, Nack.ERROR)
            raise
        expires_s = now_s + header.budget_us / 1e6
        done = (
            partial(self._pass_on, session, header, expires_s)
            if part.onward
            else partial(self._answer, session, header)
        )
        self._executor.defer(
            self._chains[header.segment],
            tokens,
            done,
            session=session.device,
            expires_s=expires_s,
            failed=partial(self._failed, session, header),
        )

    def _refuse(self, session: Session, header: Header, why: Nack) -> None:
        """Answer a token that was accepted, and that gets no result."""
        self.sessions.answered(session, header)
        self._do([self.sessions.nack(session, header, why)], 0.0)

    def _failed(self, session: Session, header: Header, error: ActorError) -> None:
        """An actor raised on a peer's token: it is the token's end, not the device's.

        Otherwise one token that an actor chokes on would end server after server, as
        the ledger asks one after the other; hosted actors have no state to spoil (R14).
        """
        self._refuse(session, header, Nack.ERROR)
        self._events.reject(PeerError(str(error), "actor"), session.device)

    def _tokens(
        self, part: HostedPart, header: Header, frames: Sequence[Any]
    ) -> list[NDArray[Any]]:
        """Return the tokens that the frames of a message are, or stand for.

        Raises:
            PeerError: A compressed frame does not stand for its token.
        """
        packed = self._compressions[header.segment]
        if header.codec and packed is not None:
            sizes = [token.nbytes for token in part.received]
            frames = [
                packed.token(f, size) for f, size in zip(frames, sizes, strict=True)
            ]
        return [
            np.ndarray(token.shape, token.dtype, frame)
            for frame, token in zip(frames, part.received, strict=True)
        ]

    def _answer(
        self,
        session: Session,
        header: Header,
        results: list[Any] | None,
        queue_s: float,
        compute_s: float,
    ) -> None:
        if results is None:
            self._refuse(session, header, Nack.EXPIRED)
            return
        limit = self.sessions.answered(session, header)
        self.answered += 1
        answer = header.answer(
            Kind.ANSWER,
            tensors=len(results),
            limit=limit,
            queue_us=microseconds(queue_s),
            compute_us=microseconds(compute_s),
            payload_bytes=sum(result.nbytes for result in results),
        )
        self.sent_bytes += HEADER_BYTES + answer.payload_bytes
        # An answer that finds nobody is not kept: the ledger asks another branch.
        self._transport.reply(session.lane, [answer.pack(), *results])

    def _pass_on(
        self,
        session: Session,
        header: Header,
        expires_s: float,
        results: list[Any] | None,
        queue_s: float,
        compute_s: float,
    ) -> None:
        """The part of the way that is ours is done: on to the next server."""
        assert self._links is not None
        if results is None:
            self._refuse(session, header, Nack.EXPIRED)
            return
        _, part = self._hosted[header.segment]
        tokens = [results[index] for index in part.sends]
        costs = microseconds(queue_s), microseconds(compute_s)
        passed = Passed(session, header, expires_s, clock_s(), *costs)
        packs = self._onward_compressions[header.segment]
        if packs is None:
            self._send_on(passed, tokens, 0.0, 0.0)
            return
        self._executor.submit(
            packs,
            [np.copy(token) for token in tokens],  # the chain fires on meanwhile
            partial(self._send_on, passed),
            expires_s=expires_s,
        )

    def _send_on(
        self, passed: Passed, frames: list[Any] | None, _queue: float, _compute: float
    ) -> None:
        assert self._links is not None
        session, header = passed.session, passed.header
        if frames is None:
            self._refuse(session, header, Nack.EXPIRED)
            return
        _, part = self._hosted[header.segment]
        link = self._links.by_peer[self.relay.next(header.segment)]
        onward = self.relay.pass_on(
            link,
            passed,
            codec=CODES[part.onward_compression],
            tensors=len(frames),
            payload_bytes=sum(memoryview(frame).nbytes for frame in frames),
            now_s=clock_s(),
        )
        if isinstance(onward, Nack):
            self._refuse(session, header, onward)
        else:
            # One that cannot be sent makes its link suspect, and comes back as lost.
            self._links.send_token(link, onward, frames)

    def returned(self, link: Link, answer: Header, frames: Sequence[Any]) -> bool:
        """An answer to what was passed on came back; False: it is no such answer."""
        passed = self.relay.returned(link, answer)
        if passed is None:
            return False
        session, header = passed.session, passed.header
        if answer.kind is Kind.NACK:
            self._refuse(session, header, _reason(answer.flags))
            return True
        _, part = self._hosted[header.segment]
        if [len(frame) for frame in frames] != [t.nbytes for t in part.returned]:
            self._events.rejected["answer"] += 1
            self._refuse(session, header, Nack.ERROR)
            return True
        reply = passed.answered(answer, self.sessions.answered(session, header))
        self.answered += 1
        self.sent_bytes += HEADER_BYTES + reply.payload_bytes
        self._transport.reply(session.lane, [reply.pack(), *frames])
        return True

    def lost(self, link: Link) -> None:
        """A server that tokens were passed on to is lost: so are those."""
        self.sessions.beat_now()
        for passed in self.relay.lost(link.peer):
            self._refuse(passed.session, passed.header, Nack.HOP)

    def ways_changed(self) -> None:
        """A link changed, or what is behind one: let the next beat say so at once."""
        self.sessions.beat_now()

    def _unreachable(self) -> tuple[str, ...]:
        return (
            () if self._links is None else self.relay.unreachable(self._links.by_peer)
        )

    def _tell_overdue(self, peer: str, passed: Passed, now_s: float) -> None:
        assert self._links is not None
        link, waited_s = self._links.by_peer[peer], now_s - passed.sent_s
        if waited_s * 1e3 > link.slow_ms:
            text = f"a token unanswered for {waited_s * 1e3:.0f} ms"
            self._links.overdue(link, text, now_s)

    def _do(self, actions: Sequence[Action], now_s: float) -> None:
        for action in actions:
            match action:
                case Send(route, message):
                    self._transport.reply(route, [pack_control(message)])
                case Reply(route, header):
                    self._transport.reply(route, [header.pack()])
                case Opened(session):
                    self._events.write(
                        "session.opened", peer=session.device, session=session.number
                    )
                case Ended(session, why):
                    self._events.write(
                        "session.ended",
                        peer=session.device,
                        session=session.number,
                        why=why,
                    )


def _ways(plans: Sequence[Plan], device: str) -> Iterator[tuple[int, Way]]:
    """Yield, for each stream of each plan, what `device` passes on of it."""
    for plan in plans:
        for part in hosted_parts(plan.graph, device):
            if part.onward:
                yield part.segment, Way(part.onward, part.region.window)


def _reason(flags: int) -> Nack:
    try:
        return Nack(flags)
    except ValueError:  # whatever a peer says: the names are few
        return Nack.ERROR


def _streams_of(about: str) -> list[dict[str, str | int]]:
    """Return what a peer says of its streams; nothing of it is trusted."""
    try:
        value = json.loads(about)
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, list):
        return []
    return [
        {key: each[key] for key in ABOUT_TYPES}
        for each in value
        if isinstance(each, dict)
        and all(type(each.get(key)) is kind for key, kind in ABOUT_TYPES.items())
        and all(_is_name(each[key]) for key, kind in ABOUT_TYPES.items() if kind is str)
    ]


def _is_name(text: str) -> bool:
    """Tell whether a text may be shown on somebody's terminal."""
    return len(text) <= NAME_CHARS_MAX and text.isprintable()
