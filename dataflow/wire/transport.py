"""The sockets of a device: the only place that touches ZeroMQ.

One thread owns every socket and calls `poll`. Nothing here decides anything: events go
up, frames go down, and every send is non-blocking (a blocking send between the death of
a peer and its monitor event would hang the device).

Both lanes of all links of a listening device meet in one ROUTER on one port. The lanes
stay apart where it matters, as two TCP connections: heartbeats are set by the side that
dials, on its control socket only, so a PONG never waits behind a tensor.
"""

import os
import select
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

import zmq

from dataflow.clock import now_s as clock_s
from dataflow.wire.connections import LOOK_S, Connections
from dataflow.wire.happenings import (
    Failure,
    Frame,
    FromPeer,
    FromRoute,
    HandshakeFailed,
    Happening,
    LaneLost,
    LaneOpened,
    Woken,
)
from dataflow.wire.header import CONTROL_LANE, DATA_LANE
from dataflow.wire.keys import Keys
from dataflow.wire.link_states import Lane
from dataflow.wire.listener import BIND_AGAIN_EVERY_S, Listener
from dataflow.wire.sockets import (
    LINGER_MS,
    RECEIVED_MAX,
    descriptor,
    drain,
    parked,
    readable,
    send,
    told,
)
from dataflow.wire.timers import HEARTBEAT, Heartbeat

LINE_MARK = "+"
"""Behind a peer's name, before the number of one more link to it: while one plan
follows another there are two. No name of a device has it."""
_HANDSHAKE_FAILURES: Mapping[zmq.Event, Failure] = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "closed",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "key",
}
_LANE_ENDS = zmq.Event.DISCONNECTED | zmq.Event.CLOSED
_WATCHED = (
    zmq.Event.CONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | _LANE_ENDS
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


class _LaneSocket(NamedTuple):
    peer: str
    lane: Lane
    socket: zmq.Socket[bytes]
    fd: int
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
        self._epoll = select.epoll()
        self._sources: dict[int, Callable[[], Iterable[Happening]]] = {}
        """What to read when a descriptor is readable."""
        self._touched: dict[int, zmq.Socket[bytes]] = {}
        """By descriptor: sockets that were sent or received on since they were found
        empty. libzmq may have seen by then what came, and the descriptor is silent."""
        self._keys = keys
        self._owners = _owners(keys)
        self._turns: Counter[str] = Counter()
        """Per peer: which of its keys to expect."""
        self._failed: set[str] = set()
        """Peers whose last handshake failed: the next dial expects another key."""
        self.message_bytes_max = message_bytes_max
        self._listener: Listener | None = None
        self.connections = Connections()
        self._lanes: dict[tuple[str, Lane], _LaneSocket] = {}
        self._fds: dict[tuple[str, Lane], int] = {}
        """Descriptors of the connections under the lanes."""
        self.rejected: Counter[str] = Counter()
        """Messages thrown away before anybody saw them, by reason."""

    def listen(self, address: str) -> str:
        """Let others dial us; return the address with the port that was bound.

        Raises:
            UnderstudyError: The address is in use, or is none.
        """
        self._listener = Listener(
            self._context,
            address,
            keys=self._keys,
            message_bytes_max=self.message_bytes_max,
            connections=self.connections,
            may_connect=self._may_connect,
        )
        self._touched[self._listener.fd] = self._listener.router
        self._add(self._listener.fd, self._from_routes)
        self._add(self._listener.monitor_fd, self._listener.note_connections)
        return self._listener.address

    def renew(self, keys: Keys) -> None:
        """Take other keys into use.

        Connections with a key that is not allowed any more end, and with a new pair of
        our own all that others made to us. What we dialled stays as it is.
        """
        before, self._keys = self._keys, keys
        self._owners = _owners(keys)
        self.connections.keep_only(self._owners)
        ours = before is None or before.secret != keys.secret
        if ours and self._listener is not None:
            self._listener.renew(keys)

    def allow(self, message_bytes_max: int) -> None:
        """Let peers that are dialled from now on send longer frames."""
        self.message_bytes_max = max(self.message_bytes_max, message_bytes_max)

    def owner(self, key: str) -> str | None:
        """Return whose key this is; None: nobody's, or links are plain."""
        return self._owners.get(key)

    def shut_out(self, event: FromRoute) -> None:
        """Close what a peer that floods us has opened, and refuse its key a while."""
        self.connections.shut_out(event.fd, event.key, clock_s())

    def dial(self, peer: str, address: str, heartbeat: Heartbeat = HEARTBEAT) -> None:
        """Open both lanes to `peer`, with routing ids that nobody used before.

        While one key of the peer replaces another, the next one is tried after each
        handshake that failed.
        """
        if peer in self._failed:
            self._failed.discard(peer)
            self._turns[peer] += 1
        nonce = os.urandom(16)
        self._dial_lane(peer, "control", address, nonce + CONTROL_LANE, heartbeat)
        self._dial_lane(peer, "data", address, nonce + DATA_LANE)

    def bound(self, peer: str, flight_bytes: int | None) -> None:
        """Let TCP have at most so much in flight on the data lane to `peer`.

        None: as much as it likes, as it did before it was told.
        """
        fd = self._fds.get((peer, "data"))
        if fd is not None:
            self.connections.bound(fd, flight_bytes)

    def hang_up(self, peer: str, *, linger: bool = False) -> None:
        """Close both lanes to `peer`; what libzmq still holds for it is discarded.

        Args:
            peer: Whom.
            linger: A goodbye on the control lane has `LINGER_MS` to leave.
        """
        self._close_lane(peer, "control", LINGER_MS if linger else 0)
        self._close_lane(peer, "data")

    def send(self, peer: str, lane: Lane, frames: Sequence[Frame]) -> bool:
        """Send to a peer that we dialled; False when it would block or is not there."""
        found = self._lanes.get((peer, lane))
        if found is None:
            return False
        self._touched[found.fd] = found.socket
        return send(found.socket, frames)

    def reply(self, route: bytes, frames: Sequence[Frame]) -> bool:
        """Send to a peer that dialled us; False when it would block or is gone."""
        listener = self._listener
        if listener is None:
            return False
        self._touched[listener.fd] = listener.router
        return send(listener.router, (route, *frames))

    def watch(self, fd: int) -> None:
        """Let `poll` tell when `fd` becomes readable."""
        woken = (Woken(fd),)
        self._add(fd, lambda: woken)

    def unwatch(self, fd: int) -> None:
        self._remove(fd)

    def poll(self, timeout_s: float) -> Iterator[Happening]:
        """Wait until something happens or `timeout_s` passed; yield what happened."""
        listener = self._listener
        if listener is not None and listener.binding:
            timeout_s = min(timeout_s, BIND_AGAIN_EVERY_S)
            listener.bind_again(clock_s())
        if timeout_s > LOOK_S and len(self.connections):
            timeout_s = LOOK_S  # what only fills memory wakes nobody
        for fd in self._readable(timeout_s):
            # What an earlier event of this round closed is not there any more, and its
            # events are of no interest.
            source = self._sources.get(fd)
            if source is not None:
                yield from source()
        self.connections.look(clock_s())

    def _readable(self, timeout_s: float) -> list[int]:
        """Wait until something is to be read or `timeout_s` passed; return where."""
        found: list[int] = []
        if self._touched:
            for fd, socket in self._touched.items():
                if readable(socket):
                    found.append(fd)
            self._touched.clear()
        # Whole milliseconds, rounded up: rounding down would spin.
        for fd, _ in self._epoll.poll(0 if found or timeout_s < 0 else timeout_s):
            if fd not in found:
                found.append(fd)
        return found

    def _add(self, fd: int, source: Callable[[], Iterable[Happening]]) -> None:
        self._sources[fd] = source
        self._epoll.register(fd, select.EPOLLIN)

    def _remove(self, fd: int) -> None:
        del self._sources[fd]
        self._touched.pop(fd, None)
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Close every socket; goodbyes have `LINGER_MS` to leave."""
        for lane in list(self._lanes.values()):
            self._close_lane(lane.peer, lane.lane, linger_ms=LINGER_MS)
        if self._listener is not None:
            self._listener.close()
        self._context.term()
        self._epoll.close()

    def _dial_lane(
        self,
        peer: str,
        lane: Lane,
        address: str,
        route: bytes,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, route)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.setsockopt(zmq.MAXMSGSIZE, self.message_bytes_max)
        socket.setsockopt(zmq.RCVHWM, parked(RECEIVED_MAX, self.message_bytes_max))
        socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        if heartbeat is not None:
            socket.setsockopt(zmq.HEARTBEAT_IVL, heartbeat.interval_ms)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, heartbeat.timeout_ms)
        if self._keys is not None:
            known = self._keys.peers[peer.partition(LINE_MARK)[0]]
            socket.curve_serverkey = known[self._turns[peer] % len(known)]
            socket.curve_publickey = self._keys.public
            socket.curve_secretkey = self._keys.secret
        monitor = socket.get_monitor_socket(_WATCHED)
        found = _LaneSocket(
            peer, lane, socket, descriptor(socket), monitor, descriptor(monitor)
        )
        self._lanes[peer, lane] = found
        self._add(found.fd, partial(self._from_peer, found))
        self._add(found.monitor_fd, partial(self._changes, found))
        readable(monitor)  # found empty: from now on the descriptor tells
        socket.connect(address)
        self._touched[found.fd] = socket

    def _close_lane(self, peer: str, lane: Lane, linger_ms: int = 0) -> None:
        self._fds.pop((peer, lane), None)
        found = self._lanes.pop((peer, lane), None)
        if found is None:
            return
        self._remove(found.fd)
        self._remove(found.monitor_fd)
        # In this order: otherwise close hangs or leaks descriptors (pyzmq #1020).
        found.socket.disable_monitor()
        found.monitor.close()
        found.socket.close(linger=linger_ms)

    def _from_peer(self, lane: _LaneSocket) -> Iterator[FromPeer]:
        """Yield the messages that came on a lane that we dialled."""
        self._touched[lane.fd] = lane.socket
        for frames, _ in drain(lane.socket, 1):
            fd = self._fds.get((lane.peer, lane.lane))
            if fd is not None:
                self.connections.heard(fd, "", clock_s())
            yield FromPeer(lane.peer, lane.lane, frames)

    def _from_routes(self) -> Iterator[FromRoute]:
        """Yield the messages of those who dialled us."""
        assert self._listener is not None
        self._touched[self._listener.fd] = self._listener.router
        return self._listener.received()

    def _may_connect(self, key: str) -> bool:
        """Tell whether a key passes the handshake. From the authenticator's thread."""
        return key in self._owners and not self.connections.is_shut_out(key, clock_s())

    def _changes(
        self, lane: _LaneSocket
    ) -> Iterator[LaneOpened | LaneLost | HandshakeFailed]:
        """Yield what the monitor of `lane` tells.

        A connection that is closed during the handshake is a matter of keys only if
        there are any. Without, it is what a port forwarder does whose other end is
        dead.
        """
        for event, value in told(lane.monitor):
            if event == zmq.Event.CONNECTED:
                self.connections.accepted(value)
                self._fds[lane.peer, lane.lane] = value
            elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
                yield LaneOpened(lane.peer, lane.lane)
            elif event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL and self._keys is None:
                yield LaneLost(lane.peer, lane.lane)
            elif event in _HANDSHAKE_FAILURES:
                self._failed.add(lane.peer)
                yield HandshakeFailed(lane.peer, _HANDSHAKE_FAILURES[event])
            elif event & _LANE_ENDS:
                yield LaneLost(lane.peer, lane.lane)


def _owners(keys: Keys | None) -> Mapping[str, str]:
    """Return whose each allowed key is, by its Z85 text."""
    return {} if keys is None else {k.decode(): n for k, n in keys.allowed.items()}
