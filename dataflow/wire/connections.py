"""The connections of a device: what they hold, and who is shut out.

libzmq hands on whole messages only, and bounds frames, not messages: whoever sends
frame after frame without a last one fills our memory, and nobody sees it. What came in
on a connection since its last whole message is known to the kernel, though. While that
is more than `UNFINISHED_BYTES_MAX` over all connections, the one with most is closed;
libzmq then frees what it held. So the memory that unfinished messages take is at most
that, and what can come in during `LOOK_S`.

A peer that floods us with messages that we refuse, or that opens connection after
connection, is closed too, and its key does not pass the handshake for `SHUT_OUT_S`.

A connection is known by its descriptor, which libzmq tells with its monitor's events
and with each message. Closing means shutting down: the descriptor stays libzmq's.
"""

import resource
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

UNFINISHED_BYTES_MAX = 64 * 2**20
LOOK_S = 0.05
UNBOUND_BYTES = 8 * 2**20
SEGMENTS_MIN = 4
"""Of TCP, that may be in flight however slow a link is. With fewer than two the sender
waits for its timer, 200 ms each time: a link looks slow because it is bounded. Over
loopback that is 256 KB, over Ethernet 6 KB."""
SHUT_OUT_S = 5.0
FILES_SPARED = 128
"""Descriptors that connections leave to files, models and libzmq."""
CONNECTIONS_OF_KEY_MAX = 8
"""Two lanes, two more of a session that was lost and is not noticed yet, a status."""

_TCP_INFO_BYTES = 256
_RECEIVED = struct.Struct("=Q")
_RECEIVED_OFFSET = 128
"""Of ``tcpi_bytes_received`` in ``struct tcp_info``, see linux/tcp.h."""


@dataclass(slots=True)
class _Connection:
    name: Any
    """Address and port at the other end: the descriptor may be another's by now."""
    key: str = ""
    heard: bool = True
    """A whole message came since we last looked."""
    base_bytes: int = 0
    """What had come in when we looked after the last whole message."""
    known: bool = False
    """Some whole message came."""
    closed: bool = False
    bounded: bool = False
    """What it may have in flight was set: the kernel does not tune it any more."""


class Connections:
    """All connections of one device, those that it dialled among them."""

    def __init__(self) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(files - FILES_SPARED, FILES_SPARED)
        self._open: dict[int, _Connection] = {}
        self._shut_out_s: dict[str, float] = {}
        """Key -> until when; read by the authenticator's thread."""
        self._look_s = 0.0
        self.closed: Counter[str] = Counter()
        """Connections that we closed, by why."""

    def __len__(self) -> int:
        return len(self._open)

    def accepted(self, fd: int) -> None:
        """A connection was made; its handshake is still to come."""
        with suppress(OSError), _end(fd) as end:  # it may be gone already
            self._open[fd] = _Connection(end.getpeername())
        if len(self._open) > self._most:
            # The oldest that never said a word: it does not finish its handshake.
            strangers = (f for f, c in self._open.items() if not c.known)
            self._close(next(strangers, fd), "too many connections")

    def ended(self, fd: int) -> None:
        """A connection is no more."""
        self._open.pop(fd, None)

    def heard(self, fd: int, key: str, now_s: float) -> bool:
        """A whole message came; tell whether it is to be looked at.

        Args:
            fd: The connection's descriptor.
            key: The peer's public key, Z85; "" on a plain link.
            now_s: Monotonic time.
        """
        found = self._open.get(fd)
        if found is None:
            return not self.is_shut_out(key, now_s)
        found.heard = found.known = True
        if key and not found.key:
            found.key = key
            self._bound(key)
        return not (found.closed or (key and self.is_shut_out(key, now_s)))

    def look(self, now_s: float) -> None:
        """Close the connections that hold too much; at most every `LOOK_S`."""
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        unfinished = {fd: self._unfinished(fd) for fd in list(self._open)}
        while sum(unfinished.values()) > UNFINISHED_BYTES_MAX:
            largest = max(unfinished, key=lambda fd: unfinished[fd])
            del unfinished[largest]
            self._close(largest, "unfinished message")
        for key, until_s in list(self._shut_out_s.items()):
            if now_s >= until_s:
                del self._shut_out_s[key]

    def shut_out(self, fd: int, key: str, now_s: float) -> None:
        """Close all connections of a key, or the one without, and refuse the key."""
        if not key:
            self._close(fd, "flood")
            return
        self._shut_out_s[key] = now_s + SHUT_OUT_S
        self._close_key(key, "flood")

    def is_shut_out(self, key: str, now_s: float) -> bool:
        """Tell whether a key is refused at present. From any thread."""
        return bool(key) and now_s < self._shut_out_s.get(key, 0.0)

    def keep_only(self, keys: Collection[str]) -> None:
        """Close the connections whose key is not allowed any more."""
        for key in {c.key for c in self._open.values()} - {"", *keys}:
            self._close_key(key, "key not allowed any more")

    def bound(self, fd: int, flight_bytes: int | None) -> None:
        """Let TCP have at most so much in flight on a connection, each way.

        What we send is bounded by what the kernel keeps of it, what we are sent by the
        window that it advertises; of both it takes twice what it is told. Unlike
        ZeroMQ's options for it, this works while the connection lives.
        """
        found = self._open.get(fd)
        if found is None or (flight_bytes is None and not found.bounded):
            return
        found.bounded = True
        with suppress(OSError), _end(fd) as end:
            if end.getpeername() == found.name:
                segment = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                flight_bytes = flight_bytes or UNBOUND_BYTES
                half = max(flight_bytes, SEGMENTS_MIN * segment) // 2
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, half)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, half)

    def _bound(self, key: str) -> None:
        """Close the oldest connections of a key that has too many."""
        theirs = [f for f, c in self._open.items() if c.key == key and not c.closed]
        for fd in theirs[: max(0, len(theirs) - CONNECTIONS_OF_KEY_MAX)]:
            self._close(fd, "too many connections")

    def _unfinished(self, fd: int) -> int:
        """Return the bytes that came since the connection's last whole message."""
        found = self._open[fd]
        received = -1
        with suppress(OSError), _end(fd) as end:
            if end.getpeername() == found.name:
                received = _received(end)
        if received < 0:
            del self._open[fd]
            return 0
        if found.heard:
            found.heard = False
            found.base_bytes = received
        return 0 if found.closed else max(0, received - found.base_bytes)

    def _close_key(self, key: str, why: str) -> None:
        for fd in [f for f, c in self._open.items() if c.key == key]:
            self._close(fd, why)

    def _close(self, fd: int, why: str) -> None:
        found = self._open.get(fd)
        if found is None or found.closed:
            return
        found.closed = True
        self.closed[why] += 1
        with suppress(OSError), _end(fd) as end:
            if end.getpeername() == found.name:
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def _end(fd: int) -> Iterator[socket.socket]:
    """Give a connection of libzmq's as a socket of our own, for a moment.

    It is told what kind it is: Python would ask the kernel otherwise.
    """
    end = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        yield end
    finally:
        end.detach()  # it stays libzmq's


def _received(end: socket.socket) -> int:
    """Return the bytes that the kernel has received on a TCP connection."""
    told = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(_RECEIVED.unpack_from(told, _RECEIVED_OFFSET)[0])
