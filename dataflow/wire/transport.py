"""The sockets of a device: the only place that touches ZeroMQ.

One thread owns every socket and calls `poll`. Nothing here decides anything: events go
up, frames go down, and every send is non-blocking (a blocking send between the death of
a peer and its monitor event would hang the device).

Both lanes of all links of a listening device meet in one ROUTER on one port. The lanes
stay apart where it matters, as two TCP connections: heartbeats are set by the side that
dials, on its control socket only, so a PONG never waits behind a tensor.
"""

import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import zmq

from dataflow.errors import UnderstudyError
from dataflow.wire.header import CONTROL_LANE, DATA_LANE
from dataflow.wire.keys import Keys
from dataflow.wire.link import Lane

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

HEARTBEAT_MS = 20
HEARTBEAT_TIMEOUT_MS = 60
MESSAGES_PER_POLL = 64
COPIED_BYTES_MAX = 8192
"""A tensor frame beyond it is not copied on receipt. Up to libzmq's receive buffer of
this size its memory would be a part of that buffer, at any odd address."""
FRAMES_MAX = 64
"""Frames of a message, its routing id included: one a tensor that crosses."""
RECEIVED_MAX = 256
"""Messages of one connection that libzmq holds for us; more wait in TCP."""
HANDSHAKE_MS = 2000
LINGER_MS = 200
"""How long a goodbye may take to leave, at the very end only."""

_HANDSHAKE_FAILURES = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "the other side closed it",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "the other side speaks another protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "our key is not in its allow-list",
}
_MONITORED = struct.Struct("=HI")
"""A monitor's first frame: an event and its value, see zmq_socket_monitor(3). pyzmq's
own parser imports asyncio, which takes 30 ms of a start and 3 MB."""
_LANE_ENDS = zmq.Event.DISCONNECTED | zmq.Event.CLOSED
_WATCHED = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | _LANE_ENDS
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


Received = list[Any]
"""Frames: bytes, but large tensors are a `zmq.Frame`, a buffer with a length too."""


class LaneOpened(NamedTuple):
    """The handshake of a lane that we dialled succeeded."""

    peer: str
    lane: Lane


class LaneLost(NamedTuple):
    """A lane that we dialled was disconnected, or found nobody."""

    peer: str
    lane: Lane


class HandshakeFailed(NamedTuple):
    """The peer took the connection but not the handshake."""

    peer: str
    why: str


class FromPeer(NamedTuple):
    """A message came from a peer that we dialled."""

    peer: str
    lane: Lane
    frames: Received


class FromRoute(NamedTuple):
    """A message came from a peer that dialled us."""

    route: bytes
    frames: Received
    key: str
    """Its public key, Z85; empty on a plain link."""


class Woken(NamedTuple):
    """A watched descriptor became readable."""

    fd: int


Event = LaneOpened | LaneLost | HandshakeFailed | FromPeer | FromRoute | Woken
Frame = Any
"""bytes, or anything with the buffer protocol: a C-contiguous NumPy array."""


class _LaneSocket(NamedTuple):
    peer: str
    lane: Lane
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    monitor_fd: int


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach `address`."""
    parts = urlsplit(address)
    if parts.scheme != "tcp":
        return True
    host = parts.hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


class Transport:
    """All sockets of one device.

    Args:
        keys: The device's keys, or None for plain links.
        message_bytes_max: A longer frame than this is refused by libzmq before it is
            allocated, and its connection closed.
    """

    def __init__(self, keys: Keys | None, *, message_bytes_max: int) -> None:
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._keys = keys
        self._message_bytes_max = message_bytes_max
        self._router: zmq.Socket[bytes] | None = None
        self._lanes: dict[tuple[str, Lane], _LaneSocket] = {}
        self._watched: set[int] = set()
        self._by_socket: dict[Any, _LaneSocket] = {}
        self._by_monitor: dict[int, _LaneSocket] = {}
        """By the descriptor of its monitor. To poll that instead of the socket halves
        what libzmq does in every poll. It becomes readable only for what comes after
        the socket was found empty: so at first, and whenever we have read from it.
        """
        self._authenticator: ThreadAuthenticator | None = None

    def listen(self, address: str) -> str:
        """Bind the ROUTER; return the address with the port that was bound.

        Raises:
            UnderstudyError: The address is in use, or is none.
        """
        if self._keys is not None:
            # Only with keys: it imports asyncio too.
            from zmq.auth.thread import ThreadAuthenticator

            self._authenticator = ThreadAuthenticator(self._context)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(
                domain="*", credentials_provider=_AllowList(self._keys.peers.values())
            )
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.MAXMSGSIZE, self._message_bytes_max)
        # Nothing waits here for long, so little may: what a peer can park in our memory
        # before anyone looks at its credit.
        router.setsockopt(zmq.RCVHWM, RECEIVED_MAX)
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        if self._keys is not None:
            router.curve_server = True
            router.curve_publickey = self._keys.public
            router.curve_secretkey = self._keys.secret
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            router.close()
            why = zmq.strerror(error.errno or 0).lower()
            raise UnderstudyError(
                f"{address}: cannot listen there ({why}); end what uses it, or give "
                "another address as `listen` in the deployment"
            ) from None
        self._router = router
        self._poller.register(router, zmq.POLLIN)
        bound = router.getsockopt(zmq.LAST_ENDPOINT)
        return bound.rstrip(b"\0").decode() if isinstance(bound, bytes) else address

    def dial(self, peer: str, address: str) -> None:
        """Open both lanes to `peer`, with routing ids that nobody used before."""
        nonce = os.urandom(16)
        self._dial_lane(peer, "control", address, nonce + CONTROL_LANE)
        self._dial_lane(peer, "data", address, nonce + DATA_LANE)

    def hang_up(self, peer: str) -> None:
        """Close both lanes to `peer`; what libzmq still holds for it is discarded."""
        self._close_lane(peer, "control")
        self._close_lane(peer, "data")

    def send(self, peer: str, lane: Lane, frames: Sequence[Frame]) -> bool:
        """Send to a peer that we dialled; False when it would block or is not there."""
        found = self._lanes.get((peer, lane))
        return found is not None and _send(found.socket, frames)

    def reply(self, route: bytes, frames: Sequence[Frame]) -> bool:
        """Send to a peer that dialled us; False when it would block or is gone."""
        return self._router is not None and _send(self._router, [route, *frames])

    def watch(self, fd: int) -> None:
        """Let `poll` tell when `fd` becomes readable."""
        self._watched.add(fd)
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        self._watched.discard(fd)
        self._poller.unregister(fd)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        """Wait until something happens or `timeout_s` passed; yield what happened."""
        # Rounded up to ZeroMQ's whole milliseconds: rounding down would spin.
        timeout_ms = math.ceil(max(0.0, timeout_s) * 1e3)
        for found, _ in self._poller.poll(timeout_ms):
            if self._router is not None and found is self._router:
                for frames, key in _drain(self._router, 2, keys=self._keys is not None):
                    yield FromRoute(frames[0], frames[1:], key)
            elif (lane := self._by_socket.get(found)) is not None:
                # A lane that an earlier event of this round closed is not in the
                # table any more, and its events are of no interest.
                for frames, _ in _drain(found, 1, keys=False):
                    yield FromPeer(lane.peer, lane.lane, frames)
            elif (lane := self._by_monitor.get(found)) is not None:
                yield from _changes(lane)
            elif found in self._watched:
                yield Woken(found)

    def close(self) -> None:
        """Close every socket; goodbyes have `LINGER_MS` to leave."""
        for lane in list(self._lanes.values()):
            self._close_lane(lane.peer, lane.lane, linger_ms=LINGER_MS)
        if self._router is not None:
            self._router.close(linger=LINGER_MS)
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def _dial_lane(self, peer: str, lane: Lane, address: str, route: bytes) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, route)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.MAXMSGSIZE, self._message_bytes_max)
        socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        if lane == "control":
            socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        if self._keys is not None:
            socket.curve_serverkey = self._keys.peers[peer]
            socket.curve_publickey = self._keys.public
            socket.curve_secretkey = self._keys.secret
        monitor = socket.get_monitor_socket(_WATCHED)
        found = _LaneSocket(peer, lane, socket, monitor, int(monitor.fd))
        self._lanes[peer, lane] = found
        self._by_socket[socket] = found
        self._by_monitor[found.monitor_fd] = found
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(found.monitor_fd, zmq.POLLIN)
        _readable(monitor)  # found empty: from now on the descriptor tells
        socket.connect(address)

    def _close_lane(self, peer: str, lane: Lane, linger_ms: int = 0) -> None:
        found = self._lanes.pop((peer, lane), None)
        if found is None:
            return
        self._poller.unregister(found.socket)
        self._poller.unregister(found.monitor_fd)
        del self._by_socket[found.socket]
        del self._by_monitor[found.monitor_fd]
        # In this order: otherwise close hangs or leaks descriptors (pyzmq #1020).
        found.socket.disable_monitor()
        found.monitor.close()
        found.socket.close(linger=linger_ms)


def _changes(lane: _LaneSocket) -> Iterator[LaneOpened | LaneLost | HandshakeFailed]:
    """Yield what the monitor of `lane` tells."""
    while not lane.monitor.closed and _readable(lane.monitor):
        told, _address = lane.monitor.recv_multipart(_NOBLOCK)
        event = zmq.Event(_MONITORED.unpack(told)[0])
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            yield LaneOpened(lane.peer, lane.lane)
        elif event in _HANDSHAKE_FAILURES:
            yield HandshakeFailed(lane.peer, _HANDSHAKE_FAILURES[event])
        elif event & _LANE_ENDS:
            yield LaneLost(lane.peer, lane.lane)


class _AllowList:
    """What `ThreadAuthenticator` asks: may this public key connect?"""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = frozenset(keys)

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._keys


# As integers: combining zmq's enumerations takes longer than handing a frame over.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


def _send(socket: zmq.Socket[bytes], frames: Sequence[Frame]) -> bool:
    try:
        for frame in frames[:-1]:
            socket.send(frame, _MORE)
        socket.send(frames[-1], _NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


def _drain(
    socket: zmq.Socket[bytes], heads: int, *, keys: bool
) -> Iterator[tuple[Received, str]]:
    """Yield the messages of a readable socket, and the sender's key if `keys`.

    The first `heads` frames of a message are bytes. One of more frames than any message
    has is read to its end and dropped.
    """
    for _ in range(MESSAGES_PER_POLL):
        frames: Received = [frame := socket.recv(_NOBLOCK, copy=False)]
        while frame.more:
            frame = socket.recv(_NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(frame)
        key = _key_of(frame) if keys else ""
        for index, each in enumerate(frames):
            if index < heads or len(each) <= COPIED_BYTES_MAX:
                frames[index] = each.bytes
        if len(frames) <= FRAMES_MAX:
            yield frames, key
        # Asking is cheaper than the exception of a receive that would block.
        if socket.closed or not _readable(socket):
            return


def _key_of(frame: zmq.Frame) -> str:
    """Return the public key that the authenticator found behind a frame."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(socket.getsockopt(_EVENTS) & _POLLIN)  # type: ignore[operator]
