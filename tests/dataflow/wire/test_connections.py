"""What connections may hold, on real ones over loopback."""

import socket
from collections.abc import Callable, Iterator

import pytest

from dataflow.wire import connections as module
from dataflow.wire.connections import (
    CONNECTIONS_OF_KEY_MAX,
    LOOK_S,
    SHUT_OUT_S,
    Connections,
)

Pair = tuple[socket.socket, socket.socket]
LIMIT = 50_000


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Gives our end of a connection, and the peer's."""
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def connect() -> Pair:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
            opened.extend((ours, theirs))
            return ours, theirs

        yield connect
    for each in opened:
        each.close()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    monkeypatch.setattr(module, "UNFINISHED_BYTES_MAX", LIMIT)
    return Connections()


def send(theirs: socket.socket, ours: socket.socket, size: int) -> None:
    """Send `size` bytes, and read them as libzmq would."""
    theirs.sendall(bytes(size))
    left = size
    while left:
        left -= len(ours.recv(left))


def is_open(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) != b""
    except BlockingIOError:
        return True


def test_a_bound_leaves_tcp_segments_enough_to_go_on(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    """Over loopback 32 KB is half a segment: 150 KB took 0.4 s, and 0.1 ms without."""
    ours, _ = connect()
    connections.accepted(ours.fileno())
    connections.bound(ours.fileno(), 32768)
    segment = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        assert ours.getsockopt(socket.SOL_SOCKET, option) >= 2 * segment


def test_largest_of_too_many_unfinished_bytes_is_closed(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    pairs = [connect() for _ in range(3)]
    for ours, _ in pairs:
        connections.accepted(ours.fileno())
    connections.look(0.0)
    for (ours, theirs), size in zip(pairs, (20_000, 40_000, 9_000), strict=True):
        send(theirs, ours, size)
    connections.look(LOOK_S)
    assert [is_open(theirs) for _, theirs in pairs] == [True, False, True]
    assert connections.closed == {"unfinished message": 1}
    connections.look(2 * LOOK_S)
    assert connections.closed.total() == 1


def test_whole_messages_may_be_as_many_as_they_like(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    ours, theirs = connect()
    connections.accepted(ours.fileno())
    for turn in range(5):
        send(theirs, ours, LIMIT)
        assert connections.heard(ours.fileno(), "", turn * LOOK_S)
        connections.look(turn * LOOK_S)
    assert is_open(theirs)


def test_flood_closes_all_of_the_key_and_shuts_it_out_for_a_while(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    bad, worse, good = (connect() for _ in range(3))
    for (ours, _), key in ((bad, "B"), (worse, "B"), (good, "G")):
        connections.accepted(ours.fileno())
        assert connections.heard(ours.fileno(), key, 0.0)
    connections.shut_out(bad[0].fileno(), "B", 1.0)
    assert [is_open(theirs) for _, theirs in (bad, worse, good)] == [False, False, True]
    assert not connections.heard(worse[0].fileno(), "B", 1.1)
    assert connections.heard(good[0].fileno(), "G", 1.1)
    assert connections.is_shut_out("B", 0.9 + SHUT_OUT_S)
    assert not connections.is_shut_out("B", 1.0 + SHUT_OUT_S)
    assert not connections.is_shut_out("G", 1.1)


def test_flood_without_a_key_closes_its_own_connection_alone(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    bad, good = connect(), connect()
    for ours, _ in (bad, good):
        connections.accepted(ours.fileno())
    connections.shut_out(bad[0].fileno(), "", 0.0)
    assert (is_open(bad[1]), is_open(good[1])) == (False, True)
    assert not connections.heard(bad[0].fileno(), "", 0.1)
    assert connections.heard(good[0].fileno(), "", 0.1)


def test_oldest_connections_of_a_key_go_when_it_has_too_many(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    pairs = [connect() for _ in range(CONNECTIONS_OF_KEY_MAX + 2)]
    for ours, _ in pairs:
        connections.accepted(ours.fileno())
        connections.heard(ours.fileno(), "K", 0.0)
    states = [is_open(theirs) for _, theirs in pairs]
    assert states == [False, False] + [True] * CONNECTIONS_OF_KEY_MAX


def test_strangers_that_do_not_finish_their_handshake_go_first(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    connections._most = 2
    known, stranger, third = connect(), connect(), connect()
    connections.accepted(known[0].fileno())
    connections.heard(known[0].fileno(), "K", 0.0)
    connections.accepted(stranger[0].fileno())
    connections.accepted(third[0].fileno())
    assert [is_open(t) for _, t in (known, stranger, third)] == [True, False, True]


def test_key_that_is_not_allowed_any_more_is_closed(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    kept, gone, unknown = (connect() for _ in range(3))
    for (ours, _), key in ((kept, "K"), (gone, "G"), (unknown, "")):
        connections.accepted(ours.fileno())
        connections.heard(ours.fileno(), key, 0.0)
    connections.keep_only({"K"})
    assert [is_open(t) for _, t in (kept, gone, unknown)] == [True, False, True]


def test_descriptor_that_is_anothers_by_now_is_left_alone(
    connections: Connections, connect: Callable[[], Pair]
) -> None:
    ours, _ = connect()
    fd = ours.fileno()
    connections.accepted(fd)
    ours.close()
    other = connect()
    assert other[0].fileno() == fd or other[1].fileno() == fd
    connections.shut_out(fd, "", 0.0)
    assert is_open(other[1])
    connections.look(1.0)
    assert len(connections) == 0
