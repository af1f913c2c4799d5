"""A TCP relay on loopback: one link between two devices that a test can cut."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 1 << 16


class Relay:
    """Listens on one port and passes every connection on to another, until cut.

    A context manager; it starts whole, and on leaving no thread or socket is left.
    """

    def __init__(self, *, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._listener: socket.socket | None = None
        self._whole = False
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()

    def mend(self) -> None:
        """Let connections through, those that are made from now on."""
        assert not self._whole
        self._listener = socket.create_server((HOST, self.port))
        self._whole = True
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            self._whole = False
            ends = list(self._open)
        for end in (*ends, *([listener] if listener else [])):
            _shut(end)  # which wakes the thread that waits there
        for thread in self._threads:
            thread.join()
        for end in (*self._open, *([listener] if listener else [])):
            end.close()
        self._open.clear()
        self._threads.clear()

    def _start(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((HOST, self._target))
            except OSError:  # the server is dead: so is the link
                near.close()
                continue
            with self._lock:
                if not self._whole:
                    near.close()
                    far.close()
                    return
                self._open += [near, far]
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._start(_pass_on, near, far)
                self._start(_pass_on, far, near)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # closed by the other side already
        end.shutdown(socket.SHUT_RDWR)
