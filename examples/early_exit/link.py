"""A link of a stated rate on loopback: a TCP relay that counts and paces bytes.

Both connections of a link, data and control, share the rate in each direction, as they
would share a radio. What TCP and IP add to the bytes is neither counted nor paced.
"""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_PACKET = 1448
"""Bytes that leave together: the payload of a packet on Ethernet."""


class Direction:
    """One direction of a link: bytes leave one after another, at its rate."""

    def __init__(self, bits_per_s: float) -> None:
        self.bytes_carried = 0
        self._bits_per_s = bits_per_s
        self._free_s = 0.0
        self._lock = threading.Lock()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Pass on what `source` says until one of the two closes."""
        with suppress(OSError):
            while data := source.recv(_PACKET):
                time.sleep(max(0.0, self._leaves_s(len(data)) - time.monotonic()))
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):  # closed by the other side already
                end.shutdown(socket.SHUT_RDWR)

    def _leaves_s(self, size_bytes: int) -> float:
        with self._lock:
            start_s = max(self._free_s, time.monotonic())
            self._free_s = start_s + size_bytes * 8 / self._bits_per_s
            self.bytes_carried += size_bytes
            return self._free_s


class SlowLink:
    """Listens on `port` and passes connections on to `target`, at a rate.

    A context manager: on leaving, no thread or socket is left.

    Attributes:
        there: From the side that dials; `back`: to it.
    """

    def __init__(self, *, port: int, target: int, bits_per_s: float) -> None:
        self.there, self.back = Direction(bits_per_s), Direction(bits_per_s)
        self._target = target
        self._listener = socket.create_server((HOST, port))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First the thread that accepts: when it has ended, nothing is added any more.
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((HOST, self._target))
            except OSError:  # nobody listens there
                near.close()
                continue
            self._ends += [near, far]
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for direction, source, target in (
                (self.there, near, far),
                (self.back, far, near),
            ):
                thread = threading.Thread(target=direction.carry, args=(source, target))
                self._threads.append(thread)
                thread.start()
