"""A TCP proxy on loopback whose links can be broken, and made whole again.

It stands between the devices that dial and those that listen, needs no root, and does
what networks do: it resets connections, refuses them, falls silent one way or both,
delays, and is slow. One thread and a selector carry all links; what others ask of it is
done in that thread, before the call that asks returns.

Silence is not loss: as under TCP, what is held back arrives when the link is whole
again, unless an end has given up by then.
"""

import math
import os
import select
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"
SWITCH_INTERVAL_S = 0.0005
_RECEIVED_MAX = 1 << 18
_HELD_MAX, _HELD_MAX_SLOW = 1 << 23, 1 << 16
"""Bytes of a connection that are held back, one way, before the sender is; on a slow
link few, so that a queue forms in the sender, as it does at a slow network card."""
_PACKET = 1448
"""Bytes that a slow link carries in turn for each of its connections."""
_RESET = struct.pack("ii", 1, 0)


Tap = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a link treats connections and what they carry.

    Attributes:
        forth: What the dialling side says arrives.
        back: What the listening side says arrives.
        accepts: New connections are made; else they are refused.
        bytes_per_s: What the link carries each way, for all connections together.
        delay_s: How long everything takes, each way.
    """

    forth: bool = True
    back: bool = True
    accepts: bool = True
    bytes_per_s: float = math.inf
    delay_s: float = 0.0


WHOLE = Condition()
DOWN = Condition(accepts=False)
SILENT = Condition(forth=False, back=False)


class Proxy:
    """The thread that carries all links; a context manager, which closes them all."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._links: list[ProxiedLink] = []
        self._asked: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name="proxy")

    def __enter__(self) -> Self:
        # Another thread that computes must not keep messages waiting for 5 ms each.
        self._interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        def close() -> None:
            self._closing = True
            for link in self._links:
                link._become(DOWN, reset=True)

        self._ask(close)
        self._thread.join()
        sys.setswitchinterval(self._interval_s)
        self._selector.close()
        os.close(self._wake_fd)

    def link(self, *, port: int, target: int, tap: Tap | None = None) -> "ProxiedLink":
        """Listen on `port` and pass every connection on to `target`, both loopback.

        Args:
            port: Where others connect.
            target: What it leads to.
            tap: Gets everything that crosses, in the proxy's thread.

        Raises:
            OSError: The port is taken.
        """
        link = ProxiedLink(self, port=port, target=target, tap=tap)
        link.become(WHOLE)
        self._links.append(link)
        return link

    def _ask(self, wish: Callable[[], None]) -> None:
        """Have `wish` done by the thread, and wait for it."""
        failed: list[OSError] = []

        def wished() -> None:
            try:
                wish()
            except OSError as error:
                failed.append(error)

        done = threading.Event()
        self._asked.append((wished, done))
        os.eventfd_write(self._wake_fd, 1)
        done.wait()
        if failed:
            raise failed[0]

    def _carry(self) -> None:
        due_s = math.inf
        while not self._closing:
            timeout_s = None if due_s == math.inf else max(0.0, due_s - _now_s())
            # epoll waits whole milliseconds; select is as exact as the clock.
            select.select([self._selector], [], [], timeout_s)
            for key, mask in self._selector.select(0):
                if key.data is None:
                    os.eventfd_read(self._wake_fd)
                else:
                    key.data(mask)
            while self._asked:
                wished, done = self._asked.popleft()
                wished()
                done.set()
            now_s = _now_s()
            due_s = min((link._carry(now_s) for link in self._links), default=math.inf)


class ProxiedLink:
    """One link: a port that listens, what it leads to, and its condition."""

    def __init__(
        self, proxy: Proxy, *, port: int, target: int, tap: Tap | None
    ) -> None:
        self.port = port
        self.tap = tap
        self.condition = DOWN
        self._proxy = proxy
        self._target = target
        self._selector = proxy._selector
        self._listener: socket.socket | None = None
        self._listening = False
        self._pipes: deque[_Pipe] = deque()
        self._free_s = {True: 0.0, False: 0.0}
        """When each direction of a slow link is done with what it took; True: forth."""
        self._carried = {True: 0, False: 0}

    @property
    def forth_bytes(self) -> int:
        """Bytes that the dialling side said and that went on, without TCP's own."""
        return self._carried[True]

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._pipes) // 2

    def become(self, condition: Condition, *, reset: bool = False) -> None:
        """Change the link's condition; `reset` ends its connections with RST."""
        self._proxy._ask(lambda: self._become(condition, reset=reset))

    def _become(self, condition: Condition, *, reset: bool) -> None:
        silent = not (self.condition.forth and self.condition.back)
        self.condition = condition
        if condition.accepts and self._listener is None:
            self._listener = socket.create_server((HOST, self.port), backlog=64)
            self._listener.setblocking(False)
        elif not condition.accepts and self._listener is not None:
            self._listen(False)
            self._listener.close()
            self._listener = None
        if reset:
            for pipe in list(self._pipes):
                self._end(pipe)
        # In the dark nobody answers a greeting: who dials gets no further than TCP.
        self._listen(condition.accepts and condition.forth and condition.back)
        for pipe in self._pipes:
            if silent:
                pipe.resume()
            pipe.look()

    def _listen(self, wanted: bool) -> None:
        if wanted != self._listening and self._listener is not None:
            self._listening = wanted
            if wanted:
                listener, event = self._listener, selectors.EVENT_READ
                self._selector.register(listener, event, lambda _: self._accept())
            else:
                self._selector.unregister(self._listener)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            near, _ = self._listener.accept()
        except OSError:  # it went away meanwhile
            return
        far = socket.socket()
        ends = near, far
        for end in ends:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.condition.bytes_per_s < math.inf:
            # What waits inside the kernel would pass the slow place all at once.
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD_MAX_SLOW)
        far.connect_ex((HOST, self._target))
        forth, back = _Pipe(self, near, far, True), _Pipe(self, far, near, False)
        forth.other, back.other = back, forth
        self._pipes += [forth, back]
        for pipe in (forth, back):
            pipe.look()

    def _carry(self, now_s: float) -> float:
        """Pass on what is due; return when more is."""
        slow = self.condition.bytes_per_s < math.inf
        if slow:
            return min(self._pace(now_s, forth) for forth in (True, False))
        due_s = math.inf
        for pipe in list(self._pipes):
            due_s = min(due_s, pipe.flush(now_s))
        return due_s

    def _pace(self, now_s: float, forth: bool) -> float:
        """Pass on the packets that have left a slow link by now, one by one.

        When a packet leaves follows from when it came and from those before it, not
        from when this thread woke up: the link keeps its rate, and never catches up.
        """
        due_s = math.inf
        while waiting := [p for p in self._pipes if p.forth is forth and p.ready]:
            pipe = min(waiting, key=lambda p: max(self._free_s[forth], p.came_s))
            start_s = max(self._free_s[forth], pipe.came_s)
            leaves_s = start_s + pipe.packet / self.condition.bytes_per_s
            if leaves_s > now_s:
                due_s = leaves_s
                break
            if pipe.send(pipe.packet):
                self._free_s[forth] = leaves_s
                self._pipes.remove(pipe)
                self._pipes.append(pipe)  # the others are first the next time
        for pipe in list(self._pipes):
            if pipe.forth is forth:
                pipe.settle()
        return due_s

    def _end(self, pipe: "_Pipe", *, reset: bool = True) -> None:
        """Close the connection that `pipe` is half of."""
        for half in (pipe, pipe.other):
            with suppress(ValueError):
                self._pipes.remove(half)
            half.close(reset=reset)


class _Pipe:
    """One direction of a connection."""

    other: "_Pipe"

    def __init__(
        self,
        link: ProxiedLink,
        source: socket.socket,
        target: socket.socket,
        forth: bool,
    ) -> None:
        self.forth = forth
        self._link = link
        self._source = source
        self._target = target
        self._held: deque[tuple[float, memoryview]] = deque()
        """What is to be passed on, and when it may be."""
        self._held_bytes = 0
        self._ended = False
        """The source has said all."""
        self._blocked = False
        """The target takes no more for now."""
        self._done = False
        self._closed = False
        self._watching = 0
        self._free_s = 0.0
        """When the target took something again, or the link was whole again."""

    @property
    def _open(self) -> bool:
        condition = self._link.condition
        return condition.forth if self.forth else condition.back

    def look(self) -> None:
        """Wait for what can be done with the source: for reading, and its own way."""
        slow = self._link.condition.bytes_per_s < math.inf
        room = self._held_bytes < (_HELD_MAX_SLOW if slow else _HELD_MAX)
        reads = self._open and room and not self._ended
        writes = self.other._blocked and self.other._open
        wanted = selectors.EVENT_READ * reads | selectors.EVENT_WRITE * writes
        if wanted == self._watching or self._closed:
            return
        selector = self._link._selector
        if not self._watching:
            selector.register(self._source, wanted, self._happened)
        elif wanted:
            selector.modify(self._source, wanted, self._happened)
        else:
            selector.unregister(self._source)
        self._watching = wanted

    def _happened(self, mask: int) -> None:
        if mask & self._watching & selectors.EVENT_WRITE:
            self.other.resume()  # flushed in this turn of the thread
        if mask & self._watching & selectors.EVENT_READ:
            self._receive()
        self.look()

    def resume(self) -> None:
        """Go on after a standstill; what a slow link did not carry then is not owed."""
        self._blocked = False
        self._free_s = _now_s()

    def _receive(self) -> None:
        try:
            data = self._source.recv(_RECEIVED_MAX)
        except BlockingIOError:
            return
        except OSError:
            self._link._end(self)
            return
        self._ended = not data
        if data:
            if self._link.tap is not None:
                self._link.tap(data)
            due_s = _now_s() + self._link.condition.delay_s
            self._held.append((due_s, memoryview(data)))
            self._held_bytes += len(data)

    @property
    def ready(self) -> bool:
        """Whether something waits that may go on."""
        return bool(self._held) and self._open and not self._blocked

    @property
    def packet(self) -> int:
        """Bytes of the packet that is next."""
        return min(len(self._held[0][1]), _PACKET)

    @property
    def came_s(self) -> float:
        """When the packet that is next came to the link."""
        return max(self._held[0][0], self._free_s)

    def send(self, most: int) -> int:
        """Pass on up to `most` bytes of what came first; return how many went."""
        due_s, data = self._held[0]
        try:
            sent = self._target.send(data[:most])
        except BlockingIOError:
            self._blocked = True
            return 0
        except OSError:
            self._link._end(self)
            return 0
        self._link._carried[self.forth] += sent
        self._held_bytes -= sent
        if sent == len(data):
            self._held.popleft()
        else:
            self._held[0] = due_s, data[sent:]
        return sent

    def flush(self, now_s: float) -> float:
        """Pass on all that is due; return when more is."""
        while self.ready:
            due_s, data = self._held[0]
            if due_s > now_s:
                self.settle()
                return due_s
            if not self.send(len(data)):
                break
        self.settle()
        return math.inf

    def settle(self) -> None:
        """Pass on the end if all was said, and wait for what comes next."""
        if self._ended and not self._held and self._open and not self._done:
            self._finish()
        self.look()
        self.other.look()

    def _finish(self) -> None:
        self._done = True
        if self.other._done:
            self._link._end(self, reset=False)
        else:
            with suppress(OSError):
                self._target.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self._watching:
            self._link._selector.unregister(self._source)
            self._watching = 0
        if reset:
            with suppress(OSError):
                self._source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._source.close()


def _now_s() -> float:
    return time.monotonic()
