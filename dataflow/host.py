"""The serving half of a device: sessions, and the branches it computes for others.

Every stream has its own actors here in the plain graph. They are stateless (R14), so
one chain plays them all, for each segment, made and timed before the first session:
nothing is built while frames wait, and a stream that no plan names (a third camera of a
newer deployment) is served as well, by its segment's identity.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dataflow.engine import Chain
from dataflow.errors import PeerError
from dataflow.events import EventLog
from dataflow.executor import Executor, time_chain
from dataflow.parts import ChainPart, HostedPart
from dataflow.wire.control import (
    CONTROL_BYTES_MAX,
    Hello,
    Refuse,
    StatusReply,
    StatusRequest,
    control_version,
    is_control,
    pack_control,
    unpack_control,
)
from dataflow.wire.header import VERSION, Header, Kind, Nack, microseconds
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

MakeChain = Callable[[ChainPart, str], Chain]
"""Makes the actors of a part for a stream, started, as a chain."""


class Host:
    """Answers the tokens of the sessions that others opened with this device."""

    def __init__(
        self,
        parts: Sequence[HostedPart],
        *,
        device: str,
        incarnation: int,
        transport: Transport,
        executor: Executor,
        events: EventLog,
        make_chain: MakeChain,
        status: Callable[[], dict[str, Any]],
        keys: Mapping[str, bytes] | None,
    ) -> None:
        self._device = device
        self._transport = transport
        self._executor = executor
        self._events = events
        self._make_chain = make_chain
        self._status = status
        self._keys = keys
        # Streams of one segment have equal parts; one stands for all.
        self._parts = {part.branch.segment: part for part in parts}
        self._chains: dict[int, Chain] = {}
        self.sessions = Sessions(
            device,
            incarnation=incarnation,
            token_bytes={
                segment: [token.nbytes for token in part.received]
                for segment, part in self._parts.items()
            },
        )
        self.answered = 0

    def load(self) -> None:
        """Load every segment once, and time it; runs beside the I/O loop."""
        for segment, part in self._parts.items():
            chain = self._make_chain(part.chain, part.region.stream)
            self._executor.place(chain, time_chain(chain, part.chain.zeros()))
            self._chains[segment] = chain

    def loaded(self, now_s: float) -> None:
        """Models are there: tell those who wait."""
        self._do(self.sessions.load_done(now_s), now_s)

    def receive(
        self, route: bytes, frames: list[bytes], key: str, now_s: float
    ) -> None:
        """A message came from a peer that dialled us, with a public key ("": none)."""
        try:
            if not frames:
                raise PeerError("message without frames; dropped")
            if is_control(frames[0]):
                self._control(route, frames[0], key, now_s)
            else:
                self._data(route, frames, now_s)
        except PeerError as error:
            self._events.garbage(error)

    def tick(self, now_s: float) -> float:
        """Time passed; return when there is something to do next."""
        due_s = self.sessions.due_s()
        if now_s < due_s:
            return due_s
        age_s, usual_s = self._executor.firing(now_s)
        self._do(
            self.sessions.tick(
                now_s,
                queue=self._executor.queue,
                age_ms=int(age_s * 1e3),
                usual_ms=math.ceil(usual_s * 1e3),
                about=lambda: "",
            ),
            now_s,
        )
        return self.sessions.due_s()

    def bye(self, now_s: float) -> None:
        self._do(self.sessions.bye(), now_s)

    def describe(self) -> dict[str, Any]:
        """Return what `understudy status` shows of the sessions."""
        return {
            "answered": self.answered,
            "garbage": self._events.garbage_seen,
            "queue": self._executor.queue,
            "sessions": [
                {
                    "device": session.device,
                    "session": session.number,
                    "streams": [offer.name for offer in session.offers.values()],
                    "about": _streams_of(session.about),
                }
                for session in self.sessions.all
            ],
        }

    def _control(self, route: bytes, frame: bytes, key: str, now_s: float) -> None:
        if control_version(frame) != VERSION:
            why = (
                f"device '{self._device}': speaks protocol version {VERSION}, its peer "
                f"version {control_version(frame)}; install the same understudy on both"
            )
            # The version byte alone tells the peer, whatever the rest means to it.
            self._transport.reply(route, [pack_control(Refuse(0, why))])
            raise PeerError(why)
        message = unpack_control(frame)
        if isinstance(message, StatusRequest):
            self._transport.reply(route, [pack_control(StatusReply(self._told()))])
            return
        if isinstance(message, Hello) and not self._is_key_of(message.device, key):
            why = f"device '{message.device}': not with this key; give each its own"
            self._transport.reply(route, [pack_control(Refuse(message.session, why))])
            raise PeerError(why)
        self._do(self.sessions.control(route, message, now_s), now_s)

    def _is_key_of(self, device: str, key: str) -> bool:
        """A name belongs to its key: else one device could end another's session."""
        return self._keys is None or self._keys.get(device) == key.encode()

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

    def _data(self, route: bytes, frames: list[bytes], now_s: float) -> None:
        header = Header.parse(frames[0])
        sizes = [len(frame) for frame in frames[1:]]
        for action in self.sessions.data(route, header, sizes, now_s):
            if isinstance(action, Accept):
                self._fire(action, frames[1:], now_s)
            else:
                self._do([action], now_s)

    def _fire(self, accepted: Accept, frames: list[bytes], now_s: float) -> None:
        session, _, header = accepted
        part = self._parts[header.segment]
        tokens = [
            np.ndarray(token.shape, token.dtype, frame)
            for frame, token in zip(frames, part.received, strict=True)
        ]
        self._executor.defer(
            self._chains[header.segment],
            tokens,
            partial(self._answer, session, header),
            expires_s=now_s + header.budget_us / 1e6,
        )

    def _answer(
        self,
        session: Session,
        header: Header,
        results: list[Any] | None,
        queue_s: float,
        compute_s: float,
    ) -> None:
        limit = self.sessions.answered(session, header)
        if results is None:
            self._do([self.sessions.nack(session, header, Nack.EXPIRED)], 0.0)
            return
        self.answered += 1
        answer = header._replace(
            kind=Kind.ANSWER,
            tensors=len(results),
            limit=limit,
            queue_us=microseconds(queue_s),
            compute_us=microseconds(compute_s),
            payload_bytes=sum(result.nbytes for result in results),
        )
        # An answer that finds nobody is not kept: the ledger asks another branch.
        self._transport.reply(session.lane, [answer.pack(), *results])

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
    ]
