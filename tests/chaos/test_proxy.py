"""A proxy on real sockets: what each condition of a link does to a conversation."""

import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from understudy.launch import free_ports
from understudy.proxy import DOWN, HOST, SILENT, WHOLE, Condition, ProxiedLink, Proxy

LIMIT_S = 10.0
SHORT_S = 0.2
"""Nothing comes within it: long for loopback, short for a test."""


@dataclass
class Pair:
    """A server that echoes nothing by itself, and a link that leads to it."""

    link: ProxiedLink
    listener: socket.socket
    opened: list[socket.socket] = field(default_factory=list)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection through the link."""
        near = self.dial()
        far, _ = self.listener.accept()
        far.settimeout(LIMIT_S)
        self.opened.append(far)
        return near, far

    def dial(self) -> socket.socket:
        near = socket.create_connection((HOST, self.link.port), LIMIT_S)
        self.opened.append(near)
        return near


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server((HOST, 0)) as listener, Proxy() as proxy:
        listener.settimeout(LIMIT_S)
        target = listener.getsockname()[1]
        found = Pair(proxy.link(port=free_ports(1), target=target), listener)
        yield found
        for each in found.opened:
            each.close()


def received(end: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += end.recv(count - len(data)) or pytest.fail(f"ended after {data!r}")
    return data


def silent(end: socket.socket) -> bool:
    end.settimeout(SHORT_S)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LIMIT_S)
    return False


def test_whole_link_carries_both_ways_and_the_end(pair: Pair) -> None:
    near, far = pair.connect()
    near.sendall(b"forth")
    assert received(far, 5) == b"forth"
    far.sendall(b"back")
    assert received(near, 4) == b"back"
    far.close()
    assert near.recv(1) == b""


def test_megabytes_pass_unchanged(pair: Pair) -> None:
    near, far = pair.connect()
    data = bytes(range(256)) * 20_000
    sender = threading.Thread(target=near.sendall, args=(data,))
    sender.start()
    assert received(far, len(data)) == data
    sender.join()


def test_cut_resets_both_ends_and_lets_new_connections_through(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(WHOLE, reset=True)
    for end in (near, far):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    near, far = pair.connect()
    near.sendall(b"x")
    assert received(far, 1) == b"x"


def test_link_that_is_down_refuses_until_it_is_whole(pair: Pair) -> None:
    pair.link.become(DOWN, reset=True)
    with pytest.raises(ConnectionRefusedError):
        pair.dial()
    pair.link.become(WHOLE)
    pair.connect()


def test_silence_holds_back_both_ways_and_loses_nothing(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(SILENT)
    near.sendall(b"forth")
    far.sendall(b"back")
    assert silent(far)
    assert silent(near)
    pair.link.become(WHOLE)
    assert received(far, 5) == b"forth"
    assert received(near, 4) == b"back"


@pytest.mark.parametrize("forth", [True, False])
def test_half_open_link_carries_one_way(pair: Pair, forth: bool) -> None:
    near, far = pair.connect()
    pair.link.become(Condition(forth=forth, back=not forth))
    said, deaf = (near, far) if forth else (far, near)
    said.sendall(b"heard")
    deaf.sendall(b"lost")
    assert received(deaf, 5) == b"heard"
    assert silent(said)


def test_death_behind_a_silent_link_is_not_seen(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(SILENT)
    far.close()
    assert silent(near)
    pair.link.become(WHOLE)
    assert near.recv(1) == b""


def test_new_connection_in_silence_gets_no_further_than_tcp(pair: Pair) -> None:
    pair.link.become(SILENT)
    near = pair.dial()
    near.sendall(b"hello")
    assert silent(near)
    pair.link.become(WHOLE)
    far, _ = pair.listener.accept()
    pair.opened.append(far)
    assert received(far, 5) == b"hello"


def test_slow_link_takes_its_time_for_all_connections_together(pair: Pair) -> None:
    pair.link.become(Condition(bytes_per_s=400_000))
    ends = [pair.connect() for _ in range(2)]
    start_s = time.monotonic()
    for near, _ in ends:
        near.sendall(bytes(50_000))
    for _, far in ends:
        received(far, 50_000)
    assert time.monotonic() - start_s > 0.2  # 100 KB at 400 KB/s


def test_slow_link_that_was_idle_lets_nothing_through_at_once(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(Condition(bytes_per_s=40_000))
    for _ in range(3):
        start_s = time.monotonic()
        near.sendall(bytes(1_000))
        received(far, 1_000)
        assert time.monotonic() - start_s > 0.024  # 1 KB at 40 KB/s: 25 ms


def test_link_does_not_owe_what_it_could_not_carry_in_silence(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(Condition(bytes_per_s=100_000, forth=False))
    near.sendall(bytes(20_000))
    assert silent(far)
    start_s = time.monotonic()
    pair.link.become(Condition(bytes_per_s=100_000))
    received(far, 20_000)
    assert time.monotonic() - start_s > 0.19


def test_bytes_that_went_on_are_counted(pair: Pair) -> None:
    for rate in (math.inf, 1e6):
        before = pair.link.forth_bytes
        pair.link.become(Condition(bytes_per_s=rate))
        near, far = pair.connect()
        near.sendall(bytes(5_000))
        far.sendall(b"back")
        received(far, 5_000)
        received(near, 4)
        pair.link.become(WHOLE)  # the proxy's thread is done with what we received
        assert pair.link.forth_bytes - before == 5_000


def test_short_message_passes_a_long_one_on_a_slow_link(pair: Pair) -> None:
    """What waits is another connection's: heartbeats have a lane of their own."""
    pair.link.become(Condition(bytes_per_s=100_000))
    (busy, busy_far), (near, far) = pair.connect(), pair.connect()
    busy.sendall(bytes(60_000))
    near.sendall(b"beat")
    assert received(far, 4) == b"beat"
    busy_far.settimeout(0)
    seen = busy_far.recv(1 << 20)
    assert len(seen) < 60_000


def test_delay_keeps_order_and_holds_each_byte(pair: Pair) -> None:
    near, far = pair.connect()
    pair.link.become(Condition(delay_s=0.1))
    start_s = time.monotonic()
    for number in range(10):
        near.sendall(bytes([number]))
    assert received(far, 10) == bytes(range(10))
    assert time.monotonic() - start_s > 0.1


def test_dead_target_ends_the_connection(pair: Pair) -> None:
    pair.listener.close()
    with pytest.raises(ConnectionResetError):
        pair.dial().recv(1)


def test_reader_that_stops_stops_the_writer_and_nobody_else(pair: Pair) -> None:
    near, _stuck = pair.connect()
    near.setblocking(False)
    other, other_far = pair.connect()
    try:
        while True:
            near.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    other.sendall(b"x")
    assert received(other_far, 1) == b"x"


def test_taken_port_is_an_error_of_the_caller(pair: Pair) -> None:
    with Proxy() as proxy, pytest.raises(OSError, match="in use"):
        proxy.link(port=pair.link.port, target=1)


def test_nothing_is_left_of_a_proxy() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    port = free_ports(1)  # which stays claimed
    before, threads = descriptors(), threading.active_count()
    with socket.create_server((HOST, 0)) as listener, Proxy() as proxy:
        link = proxy.link(port=port, target=listener.getsockname()[1])
        with socket.create_connection((HOST, link.port)), listener.accept()[0]:
            pass
    assert descriptors() == before
    assert threading.active_count() == threads
