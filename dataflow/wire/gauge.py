"""Measure what a link carries: bytes there, bytes back, and how long a few take.

One side answers, the other asks. A request says how many bytes it wants back, and
carries as many as are to be measured on the way there. Both are bounded, whoever asks;
keys and the allow-list are those of devices. What is sent is random: some tunnels
compress.

========= ============================================================
request   ``USG1``, bytes wanted back u32; then a payload, or nothing
answer    ``USG1``, bytes that the request carried u32; then a payload
========= ============================================================
"""

import os
import statistics
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal

from dataflow.clock import now_s as clock_s
from dataflow.errors import UnderstudyError
from dataflow.wire.happenings import (
    FromPeer,
    FromRoute,
    HandshakeFailed,
    LaneLost,
    LaneOpened,
    explain,
)
from dataflow.wire.keys import Keys
from dataflow.wire.timers import Heartbeat
from dataflow.wire.transport import Transport

PAYLOAD_BYTES_MAX = 1 << 24
_PAYLOAD_BYTES_MIN = 1 << 14
_FRAME_BYTES_MAX = PAYLOAD_BYTES_MAX + 256
"""With what encryption adds."""
_HEAD = struct.Struct("<4sI")
_MAGIC = b"USG1"
_PINGS, _TRIES = 40, 3
_LONG_S = 0.25
"""A payload that takes so long is large enough: what else takes time is little."""
_LOOK_S = 0.5
_PATIENT = Heartbeat(2_000, 30_000)
"""The link is filled on purpose: a late answer is no death."""

Way = Literal["there", "back"]


@dataclass(frozen=True, slots=True)
class Carried:
    """How long messages of one size took one way, the middle one of a few.

    Attributes:
        way: From who asks, or back to it.
        bytes: Of the payload.
        seconds: Until the other side had all of it, less a round trip's other half.
    """

    way: Way
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Gauged:
    """What was measured.

    Attributes:
        pings_s: Round trips of messages without payload.
        carried: In the order in which it was tried: larger and larger.
    """

    pings_s: Sequence[float]
    carried: Sequence[Carried]

    def bytes_per_s(self, way: Way) -> float:
        """Return what the link carries, by the largest payload."""
        last = [each for each in self.carried if each.way == way][-1]
        return last.bytes / last.seconds


def answer(
    address: str,
    *,
    keys: Keys | None,
    going: Callable[[], bool],
    listening: Callable[[str], None],
) -> None:
    """Answer who measures.

    Args:
        address: Where to listen.
        keys: Ours, with the allow-list; None: whoever reaches the address may ask.
        going: Is asked twice a second, and more often, whether to go on.
        listening: Is told the address with the port that was bound.

    Raises:
        UnderstudyError: The address is in use, or is none.
    """
    transport = Transport(keys, message_bytes_max=_FRAME_BYTES_MAX)
    payload = memoryview(os.urandom(PAYLOAD_BYTES_MAX))
    try:
        listening(transport.listen(address))
        while going():
            for event in transport.poll(_LOOK_S):
                if isinstance(event, FromRoute):
                    reply = _reply(event.frames, payload)
                    if reply is None:
                        transport.shut_out(event)
                    else:
                        transport.reply(event.route, reply)
    finally:
        transport.close()


def _reply(frames: Sequence[Any], payload: memoryview) -> list[Any] | None:
    """Return the answer to a request; None: it is none."""
    if not 1 <= len(frames) <= 2 or len(frames[0]) != _HEAD.size:
        return None
    magic, wanted = _HEAD.unpack(frames[0])
    if magic != _MAGIC or wanted > len(payload):
        return None
    carried = len(frames[1]) if len(frames) > 1 else 0
    return [_HEAD.pack(_MAGIC, carried), payload[:wanted]]


def gauge(peer: str, address: str, *, keys: Keys | None, limit_s: float) -> Gauged:
    """Measure the link to `peer` at `address`, which answers.

    Args:
        peer: Its name, whose public key it must have.
        address: Where it listens.
        keys: Ours; None: a plain link.
        limit_s: Longer it must not take.

    Raises:
        UnderstudyError: Nobody answers there, or somebody else, or not in time.
    """
    asking = _Asking(peer, address, keys, clock_s() + limit_s)
    try:
        asking.open()
        pings_s = [asking.ask(0, 0) for _ in range(_PINGS)]
        carried: list[Carried] = []
        for way in ("there", "back"):
            carried += asking.fill(way, min(pings_s))
        return Gauged(pings_s, carried)
    finally:
        asking.close()


def loopback_pings_s(limit_s: float) -> list[float]:
    """Return round trips between two sockets of this process.

    That is what asking and answering takes by itself, wherever the other side is.
    """
    bound: SimpleQueue[str] = SimpleQueue()
    over = threading.Event()
    answering = threading.Thread(
        target=answer,
        args=("tcp://127.0.0.1:*",),
        kwargs={
            "keys": None,
            "going": lambda: not over.is_set(),
            "listening": bound.put,
        },
    )
    answering.start()
    try:
        asking = _Asking("loopback", bound.get(), None, clock_s() + limit_s)
        try:
            asking.open()
            return [asking.ask(0, 0) for _ in range(_PINGS)]
        finally:
            asking.close()
    finally:
        over.set()
        answering.join()


class _Asking:
    """The side that asks, one request at a time."""

    def __init__(
        self, peer: str, address: str, keys: Keys | None, end_s: float
    ) -> None:
        self._peer = peer
        self._where = f"link to '{peer}' at {address}"
        self._address = address
        self._us = keys.name if keys is not None else "profile"
        self._end_s = end_s
        self._transport = Transport(keys, message_bytes_max=_FRAME_BYTES_MAX)
        self._payload = memoryview(os.urandom(PAYLOAD_BYTES_MAX))

    def close(self) -> None:
        self._transport.close()

    def open(self) -> None:
        self._transport.dial(self._peer, self._address, _PATIENT)
        self._wait(lambda event: isinstance(event, LaneOpened) and event.lane == "data")

    def ask(self, there_bytes: int, back_bytes: int) -> float:
        """Send so many bytes and get so many back; return the seconds that took."""
        head = _HEAD.pack(_MAGIC, back_bytes)
        start_s = clock_s()
        if not self._transport.send(
            self._peer, "data", [head, self._payload[:there_bytes]]
        ):
            raise UnderstudyError(f"{self._where}: it was lost; measure again")
        answered = self._wait(
            lambda event: isinstance(event, FromPeer) and event.lane == "data"
        )
        took_s = clock_s() - start_s
        self._check(answered, there_bytes, back_bytes)
        return took_s

    def _check(self, event: Any, there_bytes: int, back_bytes: int) -> None:
        frames = event.frames
        good = len(frames) == 2 and len(frames[0]) == _HEAD.size
        if (
            not good
            or _HEAD.unpack(frames[0]) != (_MAGIC, there_bytes)
            or len(frames[1]) != back_bytes
        ):
            raise UnderstudyError(
                f"{self._where}: answers something else; is it `understudy profile "
                "--listen`, of the same understudy"
            )

    def fill(self, way: Way, ping_s: float) -> list[Carried]:
        """Send larger and larger payloads one way, until one takes long enough."""
        carried: list[Carried] = []
        size = _PAYLOAD_BYTES_MIN
        while True:
            there, back = (size, 0) if way == "there" else (0, size)
            took_s = statistics.median(self.ask(there, back) for _ in range(_TRIES))
            # What a message without payload takes is no part of what bytes take.
            carried.append(Carried(way, size, max(took_s - ping_s, 1e-9)))
            if took_s >= _LONG_S or size == PAYLOAD_BYTES_MAX:
                return carried
            # A link must not be filled much longer than it takes to know it.
            size = min(size * (4 if took_s < _LONG_S / 4 else 2), PAYLOAD_BYTES_MAX)

    def _wait(self, wanted: Callable[[Any], bool]) -> Any:
        while (left_s := self._end_s - clock_s()) > 0:
            for event in self._transport.poll(min(left_s, _LOOK_S)):
                match event:
                    case HandshakeFailed(_, why):
                        raise UnderstudyError(
                            f"{self._where}: refuses the handshake of '{self._us}': "
                            f"{explain(why, device=self._us, peer=self._peer)}"
                        )
                    case LaneLost():
                        raise UnderstudyError(
                            f"{self._where}: nobody listens, or it hung up; start "
                            "`understudy profile --listen HOST:PORT` there"
                        )
                if wanted(event):
                    return event
        raise UnderstudyError(
            f"{self._where}: no answer in time; start `understudy profile --listen "
            "HOST:PORT` there, or look for a firewall between"
        )
