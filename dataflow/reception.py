"""Control messages of those who dial us: greetings, questions, pieces of segments."""

from collections.abc import Callable
from typing import Any

from dataflow.errors import PeerError
from dataflow.segments import Peer, Segments
from dataflow.status import status_text
from dataflow.wire.allowance import GREETING_COST, PIECE_COST, STATUS_COST
from dataflow.wire.control import (
    Control,
    Hello,
    Piece,
    Refuse,
    StatusReply,
    StatusRequest,
    Want,
    control_version,
    pack_control,
    unpack_control,
)
from dataflow.wire.happenings import FromRoute
from dataflow.wire.header import VERSION
from dataflow.wire.sessions import Sessions
from dataflow.wire.transport import Transport


class Reception:
    """Answers what does not change a session; hands the rest to who keeps them.

    Args:
        device: Our name.
        status: Says how we are.
        keys: Links have keys, so that a name belongs to one.
        greet: Lets the sessions act on a message.
    """

    def __init__(
        self,
        device: str,
        *,
        sessions: Sessions,
        segments: Segments,
        transport: Transport,
        status: Callable[[], dict[str, Any]],
        keys: bool,
        greet: Callable[[bytes, Control, float], None],
    ) -> None:
        self._device = device
        self._sessions = sessions
        self._segments = segments
        self._transport = transport
        self._status = status
        self._keys = keys
        self._greet = greet

    def receive(self, event: FromRoute, now_s: float) -> float:
        """Act on a control message; return what it costs its sender.

        Raises:
            PeerError: It means nothing to us, or is not its sender's to say.
        """
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
            text = status_text(self._status())
            self._transport.reply(route, [pack_control(StatusReply(text))])
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
        self._greet(route, message, now_s)
        return GREETING_COST if isinstance(message, Hello) else 1.0

    def _segment(self, route: bytes, message: Want | Piece, now_s: float) -> float:
        """Give or take a piece of a segment; return what it costs its sender."""
        session = self._sessions.on(route)
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
