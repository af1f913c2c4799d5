"""ZeroMQ's sockets as this protocol uses them: bounded, read dry, never blocking."""

import struct
from collections.abc import Iterator, Sequence

import zmq

from dataflow.wire.happenings import Frame, Received

MESSAGES_PER_POLL = 64
LINGER_MS = 200
"""How long a goodbye may take to leave, at the very end only."""
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
_MONITORED = struct.Struct("=HI")
"""A monitor's first frame: an event and its value, see zmq_socket_monitor(3). pyzmq's
own parser imports asyncio, which takes 30 ms of a start and 3 MB."""

# As integers: combining zmq's enumerations takes longer than handing a frame over.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_SRCFD = int(zmq.SRCFD)
# Past pyzmq's wrapper, which is for options that no socket here has.
_send = zmq.backend.Socket.send


def parked(most: int, message_bytes_max: int) -> int:
    """Return how many messages of one connection libzmq may hold, at most `most`."""
    fit = PARKED_BYTES_MAX // message_bytes_max
    return min(max(fit, PARKED_MIN), most)


def send(socket: zmq.Socket[bytes], frames: Sequence[Frame]) -> bool:
    """Send without waiting; False when it would block or nobody is there."""
    try:
        for frame in frames[:-1]:
            _send(socket, frame, _MORE)
        _send(socket, frames[-1], _NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


def drain(
    socket: zmq.Socket[bytes], heads: int
) -> Iterator[tuple[Received, zmq.Frame]]:
    """Yield the messages that came, each with its last frame as it came.

    The first `heads` frames of a message are bytes. One of more frames than any message
    has is read to its end, and nothing but its routing id is left of it.
    """
    recv = socket.recv
    for _ in range(MESSAGES_PER_POLL):
        try:
            frame = recv(_NOBLOCK, False)
        except zmq.Again:
            return  # the descriptor told of something else
        frames: Received = [frame.bytes]
        while frame.more:
            frame = recv(_NOBLOCK, False)
            count = len(frames)
            if count <= FRAMES_MAX:
                copied = count < heads or len(frame) <= COPIED_BYTES_MAX
                frames.append(frame.bytes if copied else frame)
        if len(frames) > FRAMES_MAX:
            del frames[heads - 1 :]
        yield frames, frame
        # Asking is cheaper than the exception of a receive that would block.
        if socket.closed or not readable(socket):
            return


def key_of(frame: zmq.Frame) -> str:
    """Return the public key that the authenticator found behind a frame."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""


def fd_of(frame: zmq.Frame) -> int:
    """Return the descriptor of the connection that a frame came on."""
    return int(frame.get(_SRCFD))


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """Return what becomes readable when a socket that was found empty is not any more.

    So whoever has sent or received on it asks `readable` before he waits.
    """
    return int(socket.getsockopt(zmq.FD))


def readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(socket.getsockopt(_EVENTS) & _POLLIN)  # type: ignore[operator]


def told(monitor: zmq.Socket[bytes]) -> Iterator[tuple[zmq.Event, int]]:
    """Yield the events of a monitor, with their values, until it is empty or closed."""
    while not monitor.closed and readable(monitor):
        data, _address = monitor.recv_multipart(_NOBLOCK)
        number, value = _MONITORED.unpack(data)
        yield zmq.Event(number), value
