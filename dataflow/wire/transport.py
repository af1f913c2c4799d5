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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import zmq

from dataflow.clock import now_s as clock_s
from dataflow.errors import UnderstudyError
from dataflow.wire.connections import LOOK_S, Connections
from dataflow.wire.header import CONTROL_LANE, DATA_LANE
from dataflow.wire.keys import Keys
from dataflow.wire.link import Lane

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

HEARTBEAT_MS = 20
"""Between ZMTP heartbeats on the control lane: the way is open, libzmq alive."""
HEARTBEAT_TIMEOUT_MS = 60
"""Without an answer for so long the connection is lost: two may be late."""
MESSAGES_PER_POLL = 64
COPIED_BYTES_MAX = 8192
"""A tensor frame beyond it is not copied on receipt. Up to libzmq's receive buffer of
this size its memory would be a part of that buffer, at any odd address."""
FRAMES_MAX = 64
"""Frames of a message, its routing id included: one a tensor that crosses."""
RECEIVED_MAX, SENT_MAX = 256, 1024
"""Messages of one connection that libzmq holds for us, and for it. More wait in TCP;
more are not sent, and their sender is told so."""
PARKED_BYTES_MAX, PARKED_MIN = 64 * 2**20, 64
"""Bytes that libzmq should hold of one connection in one direction: long messages are
fewer, but not fewer than the credit of a stream usually is."""
HANDSHAKE_MS = 2000
"""A connection that has not shaken hands by then is closed."""
BIND_AGAIN_S, BIND_AGAIN_MS = 2.0, 5
"""How long, and how often, a port is asked for again that is still closing."""
LINGER_MS = 200
"""How long a goodbye may take to leave, at the very end only."""

Failure = Literal["closed", "protocol", "key"]
_HANDSHAKE_FAILURES: Mapping[zmq.Event, Failure] = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "closed",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "key",
}
_EXPLAINED: Mapping[Failure, str] = {
    "closed": (
        "it closed the connection, as it does when '{peer}.key' in the keys folder of "
        "'{device}' is not its public key, or it has no keys; copy its present "
        "'{peer}.key' there"
    ),
    "protocol": "it speaks another protocol, or one of the two has no keys",
    "key": (
        "its keys folder does not hold the public key that '{device}' uses, or it shut "
        "'{device}' out for a flood; copy the present '{device}.key' to '{peer}'"
    ),
}
_MONITORED = struct.Struct("=HI")
"""A monitor's first frame: an event and its value, see zmq_socket_monitor(3). pyzmq's
own parser imports asyncio, which takes 30 ms of a start and 3 MB."""
_LANE_ENDS = zmq.Event.DISCONNECTED | zmq.Event.CLOSED
_WATCHED = (
    zmq.Event.CONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | _LANE_ENDS
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)
_ACCEPTS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED

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
    why: Failure
    """It closed the connection, as it does when it has another key than the one that
    we expect; it speaks another protocol; it does not take our key."""


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
    fd: int
    """Of its connection."""


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


def explain(why: Failure, *, device: str, peer: str) -> str:
    """Return what it means that `peer` failed the handshake of `device`."""
    return _EXPLAINED[why].format(device=device, peer=peer)


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
        self._owners: Mapping[str, str] = _owners(keys)
        self._turns: Counter[str] = Counter()
        """Per peer: which of its keys to expect."""
        self._failed: set[str] = set()
        """Peers whose last handshake failed: the next dial expects another key."""
        self._message_bytes_max = message_bytes_max
        self._router: zmq.Socket[bytes] | None = None
        self._router_monitor: zmq.Socket[bytes] | None = None
        self._router_monitor_fd = -1
        self._bound = ""
        self._bind_until_s: float | None = None
        """Not bound while keys change; how long to try."""
        self.connections = Connections()
        self._lanes: dict[tuple[str, Lane], _LaneSocket] = {}
        self._watched: set[int] = set()
        self.rejected: Counter[str] = Counter()
        """Messages thrown away before anybody saw them, by reason."""
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
                domain="*", credentials_provider=_AllowList(self._may_connect)
            )
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.MAXMSGSIZE, self._message_bytes_max)
        # Nothing waits here for long, so little may: what a peer can park in our memory
        # before anyone looks at its credit.
        router.setsockopt(zmq.RCVHWM, self._parked(RECEIVED_MAX))
        router.setsockopt(zmq.SNDHWM, self._parked(SENT_MAX))
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        monitor = router.get_monitor_socket(_ACCEPTS)
        self._router, self._router_monitor = router, monitor
        self._router_monitor_fd = int(monitor.fd)
        self._bind(address)
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(self._router_monitor_fd, zmq.POLLIN)
        self._note_connections()  # found empty: from now on the descriptor tells
        bound = router.getsockopt(zmq.LAST_ENDPOINT)
        if isinstance(bound, bytes):
            self._bound = bound.rstrip(b"\0").decode()
        return self._bound

    def renew(self, keys: Keys) -> None:
        """Take other keys into use.

        Connections with a key that is not allowed any more end, and with a new pair of
        our own all that others made to us. What we dialled stays as it is.
        """
        before, self._keys = self._keys, keys
        self._owners = _owners(keys)
        self.connections.keep_only(self._owners)
        ours = before is None or before.secret != keys.secret
        if ours and self._router is not None:
            # libzmq reads a listener's keys when it is bound, and ends with it what it
            # accepted. To those who dial again it is a server that was restarted.
            # It ends in a thread of its own, and has the port until then.
            self._router.unbind(self._bound)
            self._bind_until_s = clock_s() + BIND_AGAIN_S

    def owner(self, key: str) -> str | None:
        """Return whose key this is; None: nobody's, or links are plain."""
        return self._owners.get(key)

    def shut_out(self, event: "FromRoute") -> None:
        """Close what a peer that floods us has opened, and refuse its key a while."""
        self.connections.shut_out(event.fd, event.key, clock_s())

    def dial(self, peer: str, address: str) -> None:
        """Open both lanes to `peer`, with routing ids that nobody used before.

        While one key of the peer replaces another, the next one is tried after each
        handshake that failed.
        """
        if peer in self._failed:
            self._failed.discard(peer)
            self._turns[peer] += 1
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
        if self._bind_until_s is not None:
            timeout_ms = min(timeout_ms, BIND_AGAIN_MS)
            self._bind_again(clock_s())
        if len(self.connections):  # what only fills memory wakes nobody
            timeout_ms = min(timeout_ms, math.ceil(LOOK_S * 1e3))
        for found, _ in self._poller.poll(timeout_ms):
            if self._router is not None and found is self._router:
                yield from self._received()
            elif (lane := self._by_socket.get(found)) is not None:
                # A lane that an earlier event of this round closed is not in the
                # table any more, and its events are of no interest.
                for frames, last in _drain(found, 1):
                    self.connections.heard(_fd_of(last), "", clock_s())
                    yield FromPeer(lane.peer, lane.lane, frames)
            elif (lane := self._by_monitor.get(found)) is not None:
                yield from self._changes(lane)
            elif found == self._router_monitor_fd:
                self._note_connections()
            elif found in self._watched:
                yield Woken(found)
        self.connections.look(clock_s())

    def close(self) -> None:
        """Close every socket; goodbyes have `LINGER_MS` to leave."""
        for lane in list(self._lanes.values()):
            self._close_lane(lane.peer, lane.lane, linger_ms=LINGER_MS)
        if self._router is not None and self._router_monitor is not None:
            self._router.disable_monitor()
            self._router_monitor.close()
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
        socket.setsockopt(zmq.RCVHWM, self._parked(RECEIVED_MAX))
        socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        if lane == "control":
            socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        if self._keys is not None:
            known = self._keys.peers[peer]
            socket.curve_serverkey = known[self._turns[peer] % len(known)]
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

    def _bind(self, address: str) -> None:
        router = self._router
        assert router is not None
        if self._keys is not None:
            router.curve_server = True
            router.curve_publickey = self._keys.public
            router.curve_secretkey = self._keys.secret
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            why = zmq.strerror(error.errno or 0).lower()
            raise UnderstudyError(
                f"{address}: cannot listen there ({why}); end what uses it, or give "
                "another address as `listen` in the deployment"
            ) from None

    def _bind_again(self, now_s: float) -> None:
        assert self._bind_until_s is not None
        try:
            self._bind(self._bound)
        except UnderstudyError:
            if now_s >= self._bind_until_s:
                raise
        else:
            self._bind_until_s = None

    def _parked(self, most: int) -> int:
        """Return how many messages of one connection libzmq may hold."""
        fit = PARKED_BYTES_MAX // self._message_bytes_max
        return min(max(fit, PARKED_MIN), most)

    def _may_connect(self, key: str) -> bool:
        """Tell whether a key passes the handshake. From the authenticator's thread."""
        return key in self._owners and not self.connections.is_shut_out(key, clock_s())

    def _received(self) -> Iterator[FromRoute]:
        """Yield the messages of peers that dialled us, of those that are not shut out.

        Closing happens while they are read, so each is judged when its turn comes.
        """
        assert self._router is not None
        for frames, last in _drain(self._router, 2):
            key = _key_of(last) if self._keys is not None else ""
            fd = _fd_of(last)
            if self.connections.heard(fd, key, clock_s()):
                yield FromRoute(frames[0], frames[1:], key, fd)

    def _note_connections(self) -> None:
        """Read what the ROUTER's monitor tells."""
        assert self._router_monitor is not None
        for event, fd in _told(self._router_monitor):
            if event == zmq.Event.ACCEPTED:
                self.connections.accepted(fd)
            elif event == zmq.Event.DISCONNECTED:
                self.connections.ended(fd)

    def _changes(
        self, lane: _LaneSocket
    ) -> Iterator[LaneOpened | LaneLost | HandshakeFailed]:
        """Yield what the monitor of `lane` tells.

        A connection that is closed during the handshake is a matter of keys only if
        there are any. Without, it is what a port forwarder does whose other end is
        dead.
        """
        for event, value in _told(lane.monitor):
            if event == zmq.Event.CONNECTED:
                self.connections.accepted(value)
            elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
                yield LaneOpened(lane.peer, lane.lane)
            elif event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL and self._keys is None:
                yield LaneLost(lane.peer, lane.lane)
            elif event in _HANDSHAKE_FAILURES:
                self._failed.add(lane.peer)
                yield HandshakeFailed(lane.peer, _HANDSHAKE_FAILURES[event])
            elif event & _LANE_ENDS:
                yield LaneLost(lane.peer, lane.lane)


def _told(monitor: zmq.Socket[bytes]) -> Iterator[tuple[zmq.Event, int]]:
    """Yield the events of a monitor, with their values, until it is empty or closed."""
    while not monitor.closed and _readable(monitor):
        told, _address = monitor.recv_multipart(_NOBLOCK)
        number, value = _MONITORED.unpack(told)
        yield zmq.Event(number), value


def _owners(keys: Keys | None) -> Mapping[str, str]:
    """Return whose each allowed key is, by its Z85 text."""
    return {} if keys is None else {k.decode(): n for k, n in keys.allowed.items()}


class _AllowList:
    """What `ThreadAuthenticator` asks: may this public key connect?"""

    def __init__(self, may_connect: Callable[[str], bool]) -> None:
        self._may_connect = may_connect

    def callback(self, domain: str, key: bytes) -> bool:
        return self._may_connect(key.decode())


# As integers: combining zmq's enumerations takes longer than handing a frame over.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_SRCFD = int(zmq.SRCFD)


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
    socket: zmq.Socket[bytes], heads: int
) -> Iterator[tuple[Received, zmq.Frame]]:
    """Yield the messages of a readable socket, each with its last frame as it came.

    The first `heads` frames of a message are bytes. One of more frames than any message
    has is read to its end, and nothing but its routing id is left of it.
    """
    for _ in range(MESSAGES_PER_POLL):
        frames: Received = [frame := socket.recv(_NOBLOCK, copy=False)]
        while frame.more:
            frame = socket.recv(_NOBLOCK, copy=False)
            if len(frames) <= FRAMES_MAX:
                frames.append(frame)
        if len(frames) > FRAMES_MAX:
            del frames[heads - 1 :]
        for index, each in enumerate(frames):
            if index < heads or len(each) <= COPIED_BYTES_MAX:
                frames[index] = each.bytes
        yield frames, frame
        # Asking is cheaper than the exception of a receive that would block.
        if socket.closed or not _readable(socket):
            return


def _key_of(frame: zmq.Frame) -> str:
    """Return the public key that the authenticator found behind a frame."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def _fd_of(frame: zmq.Frame) -> int:
    """Return the descriptor of the connection that a frame came on."""
    return int(frame.get(_SRCFD))


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(socket.getsockopt(_EVENTS) & _POLLIN)  # type: ignore[operator]
