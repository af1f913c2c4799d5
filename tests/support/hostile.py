"""A peer with a valid key and no manners: floods a server until it is ended.

    python -m tests.support.hostile KIND ADDRESS SEGMENT [KEYS NAME SERVER]

It says ``started`` when the flood has begun.
"""

import os
import resource
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import zmq

from dataflow.wire.control import (
    CONTROL_BYTES_MAX,
    Hello,
    StatusRequest,
    StreamOffer,
    pack_control,
)
from dataflow.wire.header import Header, Kind, data_route
from dataflow.wire.keys import Keys, load_keys

Socket = zmq.Socket[bytes]
Flood = Callable[["Hostile"], Iterator[None]]
STREAM = 7
STARTED = 100
"""Steps after which the flood has begun."""
_BLOB = bytes(CONTROL_BYTES_MAX)


class Hostile:
    """Connections to one server."""

    def __init__(self, address: str, segment: int, keys: Keys | None, server: str):
        self.address = address
        self.segment = segment
        self.name = keys.name if keys is not None else "mallory"
        self._keys = keys
        self._server = server
        self._context: zmq.Context[Socket] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self.session = 0

    def dealer(self, route: bytes | None = None) -> Socket:
        """Return a socket that reconnects for ever, and never blocks."""
        made = self._context.socket(zmq.DEALER)
        made.setsockopt(zmq.ROUTING_ID, route or os.urandom(16) + b"C")
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.RECONNECT_IVL, 5)
        if self._keys is not None:
            made.curve_serverkey = self._keys.peers[self._server][0]
            made.curve_publickey = self._keys.public
            made.curve_secretkey = self._keys.secret
        made.connect(self.address)
        return made

    def lanes(self) -> tuple[Socket, Socket]:
        route = os.urandom(16) + b"C"
        return self.dealer(route), self.dealer(data_route(route))

    def hello(self, window: int = 4) -> bytes:
        self.session += 1
        offer = StreamOffer(STREAM, "flood", self.segment, window)
        return pack_control(Hello(self.name, 1, self.session, (offer,)))

    def token(self, ordinal: int) -> bytes:
        return Header(
            kind=Kind.TOKEN,
            session=self.session,
            stream=STREAM,
            segment=self.segment,
            ordinal=ordinal,
            frame=ordinal,
            budget_us=2**32 - 1,
        ).pack()


def hellos(hostile: Hostile) -> Iterator[None]:
    """Greet again and again: each greeting is a new session."""
    control = hostile.dealer()
    while True:
        yield _push(control, [hostile.hello()])


def garbage(hostile: Hostile) -> Iterator[None]:
    control = hostile.dealer()
    while True:
        yield _push(control, [b"UC\x01" + _BLOB[:1000]])


def statuses(hostile: Hostile) -> Iterator[None]:
    """Ask, and never read the answers."""
    control = hostile.dealer()
    while True:
        yield _push(control, [pack_control(StatusRequest())])


def overdraw(hostile: Hostile) -> Iterator[None]:
    """Send tokens without regard to credit."""
    control, data = hostile.lanes()
    _push(control, [hostile.hello()])
    for ordinal in count():
        yield _push(data, [hostile.token(ordinal), bytes(16)])


def greed(hostile: Hostile) -> Iterator[None]:
    """Take all the credit that there is, and use it: every token is as agreed."""
    control, data = hostile.lanes()
    _push(control, [hostile.hello(window=4000)])
    control.poll(5000)
    for ordinal in count():
        _push(data, [hostile.token(ordinal), bytes(16)])
        if ordinal >= 4000:
            data.poll(1000)  # an answer each: the queue stays full
            if data.poll(0):
                data.recv_multipart()
        if ordinal % 100 == 0:  # what an honest device says every 50 ms
            _push(control, [pack_control(StatusRequest())])
        yield None


def connections(hostile: Hostile) -> Iterator[None]:
    """Connect, ask once, connect again; keep everything open."""
    opened = []
    while True:
        if len(opened) < 500:
            opened.append(hostile.dealer())
        yield _push(opened[-1], [pack_control(StatusRequest())])


def endless(hostile: Hostile) -> Iterator[None]:
    """Send one message whose last frame never comes, on connection after connection.

    libzmq would not send it, so this speaks ZMTP 3.0 itself; on a plain link, since
    what it shows does not depend on keys.
    """
    to = urlsplit(hostile.address)
    frame = b"\x03" + struct.pack(">Q", 1000) + bytes(1000)
    while True:
        try:
            with socket.create_connection((to.hostname, to.port), 5) as raw:
                raw.sendall(_greeting())
                while True:
                    raw.sendall(frame * 1000)
                    yield None
        except OSError:
            yield None


def endless_server(hostile: Hostile) -> Iterator[None]:
    """Listen, and send to whoever connects a message whose last frame never comes."""
    at = urlsplit(hostile.address)
    frame = b"\x03" + struct.pack(">Q", 1000) + bytes(1000)
    with socket.create_server((at.hostname, at.port)) as listener:
        for _ in range(STARTED + 1):
            yield None
        while True:
            with suppress(OSError):
                raw, _ = listener.accept()
                with raw:
                    raw.sendall(_greeting(b"ROUTER"))
                    while True:
                        raw.sendall(frame * 1000)
                        yield None
            yield None


def strangers(hostile: Hostile) -> Iterator[None]:
    """Connect again and again, and never say a word."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    to = urlsplit(hostile.address)
    opened: deque[socket.socket] = deque()
    while True:
        with suppress(OSError):
            opened.append(socket.create_connection((to.hostname, to.port), 5))
        if len(opened) > 2000:
            opened.popleft().close()
        yield time.sleep(0.0005)


def _greeting(kind: bytes = b"DEALER") -> bytes:
    """Return what opens a ZMTP 3.0 connection without security, see RFC 23."""
    kinds = b"\x0bSocket-Type" + struct.pack(">I", 6) + kind
    ready = b"\x05READY" + kinds
    head = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    return head + b"\x04" + bytes([len(ready)]) + ready


def _push(to: Socket, frames: list[bytes]) -> None:
    try:
        to.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        time.sleep(0.001)  # the server does not take more: as fast as it does


FLOODS: dict[str, Flood] = {
    flood.__name__: flood
    for flood in (
        hellos,
        garbage,
        statuses,
        overdraw,
        greed,
        connections,
        endless,
        endless_server,
        strangers,
    )
}


def main() -> None:
    kind, address, segment, *given = sys.argv[1:]
    keys, server = None, ""
    if given:
        folder, name, server = given
        keys = load_keys(Path(folder), name)
    flood = FLOODS[kind](Hostile(address, int(segment), keys, server))
    for number, _ in enumerate(flood):
        if number == STARTED:
            print("started", flush=True)


if __name__ == "__main__":
    main()
