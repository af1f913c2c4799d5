"""The serving half of a device: sessions, and the branches it computes for others.

What it computes is made and timed before the first session, so nothing is built while
frames wait (`hosted`). Tokens of several sessions may run as one batch, in which the
sessions take turns (`turns`). What goes on to another server: see `onward`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dataflow.behaviour import Behaviour
from dataflow.clock import now_s as clock_s
from dataflow.engine import Chain
from dataflow.errors import ActorError, PeerError, UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Done, Executor
from dataflow.hosted import Hosted, MakeChain, Repertoire
from dataflow.onward import Onward, ways_of
from dataflow.plan import Plan
from dataflow.reception import Reception
from dataflow.segments import Peer, Segments
from dataflow.status import streams_of
from dataflow.wire.allowance import Allowances
from dataflow.wire.control import (
    Control,
    is_control,
    pack_control,
)
from dataflow.wire.happenings import FromRoute
from dataflow.wire.header import (
    HEADER_BYTES,
    Header,
    Kind,
    Nack,
    microseconds,
)
from dataflow.wire.link import Link
from dataflow.wire.relay import Passed, Relay
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
from dataflow.wire.sessions import Sessions
from dataflow.wire.transport import Transport

if TYPE_CHECKING:
    from dataflow.links import Links

_ANSWER = Kind.ANSWER  # a member costs 0.1 us to look up in Python 3.11


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
        self.repertoire = Repertoire(
            plans, device=device, make_chain=make_chain, executor=executor
        )
        self._hosted = self.repertoire.by_segment
        self.sessions = Sessions(
            device,
            incarnation=incarnation,
            token_bytes={s: hosted.token_bytes for s, hosted in self._hosted.items()},
            codecs={s: hosted.codec for s, hosted in self._hosted.items()},
        )
        self._reception = Reception(
            device,
            sessions=self.sessions,
            segments=segments,
            transport=transport,
            status=status,
            keys=keys,
            greet=self._greet,
        )
        self.relay = Relay(device, ways_of(plans, device))
        self._onward: Onward | None = None
        self._allowances = Allowances()
        self._lane_fds: dict[bytes, int] = {}
        """Connections under the data lanes of sessions, by their routing ids."""
        self.answered = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    @property
    def peers(self) -> list[Peer]:
        """Who dialled us and may be asked for segments."""
        return [Peer(s.device, s.number, s.control) for s in self.sessions.all]

    def connect(self, links: "Links") -> None:
        """Take the links over which tokens are passed on."""
        self._onward = Onward(
            self.relay,
            hosted=self._hosted,
            links=links,
            executor=self._executor,
            answers=self,
        )

    def expect(self, plans: Sequence[Plan]) -> list[int]:
        """Prepare for the plans that follow ours; return the segments to be loaded.

        Raises:
            UnderstudyError: They want what only a restart can give.
        """
        new = self.repertoire.lacking(plans)
        for hosted in new.values():
            self._check_room(hosted)
        self.repertoire.take(plans, new)
        for segment, hosted in new.items():
            self.sessions.expect(segment, hosted.token_bytes, hosted.codec)
        return list(new)

    def unload(self, segments: Iterable[int]) -> list[Behaviour]:
        """Forget segments; return their actors, which nobody plays any more."""
        for segment in segments:
            self.sessions.withdraw(segment)
        return self.repertoire.drop(segments)

    def unwanted(self, now_s: float) -> list[int]:
        """Return the segments that nobody has wanted for long."""
        return self.repertoire.unwanted(self.sessions.wants, now_s)

    def loaded(self, now_s: float) -> None:
        """Models are there: tell those who wait."""
        self._do(self.sessions.load_done(now_s), now_s)

    def receive(self, event: FromRoute, now_s: float) -> None:
        """A message came from a peer that dialled us."""
        route, frames, key, _ = event
        cost = 1.0
        try:
            if not frames:
                cost = math.inf  # no device has a reason, and to read them takes long
                raise PeerError("message of more frames than any has", "frames")
            if not is_control(frames[0]):
                cost = self._data(event, now_s)
            else:
                cost = self._reception.receive(event, now_s)
        except PeerError as error:
            self._events.reject(error, self._transport.owner(key) or "")
        # The two lanes of a session share their route but for the last byte.
        if cost and not self._allowances.take(key or route[:-1], now_s, cost):
            self._transport.shut_out(event)
            self._events.rejected["flood"] += 1
            owner = self._transport.owner(key) or "unknown"
            self._events.write("link.flood", peer=owner)

    def tick(self, now_s: float) -> float:
        """Time passed; return when there is something to do next."""
        due_s = self._due_s()
        if now_s < due_s:
            return due_s
        if self._onward is not None:
            self._onward.expire(now_s)
        age_s, usual_s = self._executor.firing(now_s)
        self._do(
            self.sessions.tick(
                now_s,
                queue=self._executor.queue + len(self.relay),
                age_ms=int(age_s * 1e3),
                usual_ms=math.ceil(usual_s * 1e3),
                dead=() if self._onward is None else self._onward.unreachable(),
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
        """Those that compute for others; they grow while models load.

        Those that the plans name which are served now come last.
        """
        known, named = list(self._hosted.items()), self.repertoire.named
        known.sort(key=lambda item: item[0] in named)
        return [hosted.chain for _, hosted in known if hosted.chain is not None]

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
                    "about": streams_of(session.about),
                }
                for session in self.sessions.all
            ],
        }

    def _greet(self, route: bytes, message: Control, now_s: float) -> None:
        self._do(self.sessions.control(route, message, now_s), now_s)

    def _data(self, event: FromRoute, now_s: float) -> float:
        """Act on a data message; return what it costs: nothing within its credit."""
        route, frames = event.route, event.frames
        header = Header.parse(frames.pop(0))
        sizes = list(map(len, frames))
        cost = 1.0
        self.received_bytes += HEADER_BYTES + sum(sizes)
        for action in self.sessions.data(route, header, sizes, now_s):
            if type(action) is Accept:
                self._fire(action, frames, now_s)
                cost = 0.0
            else:
                # A refusal, or the answer to a probe, with which each lane begins.
                self._lane_fds[route] = event.fd
                self._do([action], now_s)
        return cost

    def _fire(self, accepted: Accept, frames: list[Any], now_s: float) -> None:
        session, _, header = accepted
        hosted = self._hosted[header.segment]
        try:
            tokens = hosted.tokens(header, frames)
        except PeerError:
            self.refuse(session, header, Nack.ERROR)
            raise
        assert hosted.chain is not None, "a token was accepted before the load"
        expires_s = now_s + header.budget_us / 1e6
        done: Done = partial(self._answer, session, header)
        if hosted.part.onward:
            assert self._onward is not None
            done = partial(self._onward.pass_on, session, header, expires_s)
        self._executor.defer(
            hosted.chain,
            tokens,
            done,
            session=session.device,
            expires_s=expires_s,
            failed=partial(self._failed, session, header),
        )

    def refuse(self, session: Session, header: Header, why: Nack) -> None:
        """Answer a token that was accepted, and that gets no result."""
        self.sessions.answered(session, header)
        self._do([self.sessions.nack(session, header, why)], 0.0)

    def _failed(self, session: Session, header: Header, error: ActorError) -> None:
        """An actor raised on a peer's token: it is the token's end, not the device's.

        Otherwise one token that an actor chokes on would end server after server, as
        the ledger asks one after the other; hosted actors have no state to spoil (R14).
        """
        self.refuse(session, header, Nack.ERROR)
        self._events.reject(PeerError(str(error), "actor"), session.device)

    def _answer(
        self,
        session: Session,
        header: Header,
        results: list[Any] | None,
        queue_s: float,
        compute_s: float,
    ) -> None:
        if results is None:
            self.refuse(session, header, Nack.EXPIRED)
            return
        packs = self._hosted[header.segment].packs_for(header)
        if packs is None:
            self._reply(session, header, queue_s, compute_s, 0, results, 0.0, 0.0)
        else:
            send = partial(self._reply, session, header, queue_s, compute_s)
            copies = [np.copy(result) for result in results]  # the chain fires on
            self._executor.submit(packs, copies, partial(send, header.codec))

    def _reply(
        self,
        session: Session,
        header: Header,
        queue_s: float,
        compute_s: float,
        codec: int,
        frames: list[Any] | None,
        waited_s: float,
        packed_s: float,
    ) -> None:
        assert frames is not None, "nothing expires that has no time to"
        limit = self.sessions.answered(session, header)
        self.answered += 1
        payload_bytes = 0
        for frame in frames:
            payload_bytes += memoryview(frame).nbytes if codec else frame.nbytes
        answer = header.answer(
            _ANSWER,
            tensors=len(frames),
            codec=codec,
            limit=limit,
            queue_us=microseconds(queue_s + waited_s),
            compute_us=microseconds(compute_s + packed_s),
            payload_bytes=payload_bytes,
        )
        self.sent_bytes += HEADER_BYTES + payload_bytes
        # An answer that finds nobody is not kept: the ledger asks another branch.
        self._transport.reply(session.lane, [answer.pack(), *frames])

    def give(self, passed: Passed, answer: Header, frames: Sequence[Any]) -> None:
        """Hand the answer of the next server on to whoever sent the token here."""
        session, header = passed.session, passed.header
        limit = self.sessions.answered(session, header)
        reply = passed.answered(answer, limit, clock_s())
        self.answered += 1
        self.sent_bytes += HEADER_BYTES + reply.payload_bytes
        self._transport.reply(session.lane, [reply.pack(), *frames])

    def reject(self, reason: str) -> None:
        self._events.rejected[reason] += 1

    def _check_room(self, hosted: Hosted) -> None:
        """Check that tokens of a further plan can come, and go on.

        Raises:
            UnderstudyError: Sockets and ways are made at the start.
        """
        most, where = max(hosted.token_bytes), f"device '{self._device}'"
        if most > self._transport.message_bytes_max:
            raise UnderstudyError(
                f"{where}: would get tokens of {most} bytes, and was started for at "
                f"most {self._transport.message_bytes_max}; restart it with this plan"
            )
        if hosted.part.onward and not self.relay.knows(hosted.part.segment):
            raise UnderstudyError(
                f"{where}: would pass tokens on to '{hosted.part.onward[0].device}' on "
                "a way that it was not started with; restart it with this plan"
            )

    def returned(self, link: Link, answer: Header, frames: Sequence[Any]) -> bool:
        """An answer to what was passed on came back; False: it is no such answer."""
        return self._onward is not None and self._onward.returned(link, answer, frames)

    def lost(self, link: Link) -> None:
        """A server that tokens were passed on to is lost: so are those."""
        self.sessions.beat_now()
        if self._onward is not None:
            self._onward.lost(link)

    def ways_changed(self) -> None:
        """A link changed, or what is behind one: let the next beat say so at once."""
        self.sessions.beat_now()

    def _do(self, actions: Sequence[Action], now_s: float) -> None:
        for action in actions:
            match action:
                case Send(route, message):
                    self._transport.reply(route, [pack_control(message)])
                case Reply(route, header):
                    self._transport.reply(route, [header.pack()])
                case Bound(session, flight_bytes):
                    fd = self._lane_fds.get(session.lane)
                    if fd is not None:
                        self._transport.connections.bound(fd, flight_bytes)
                case Opened(session):
                    self._events.write(
                        "session.opened", peer=session.device, session=session.number
                    )
                case Ended(session, why):
                    self._lane_fds.pop(session.lane, None)
                    self._events.write(
                        "session.ended",
                        peer=session.device,
                        session=session.number,
                        why=why,
                    )
