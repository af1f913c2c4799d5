"""The fixed header of the data lane, and the bounds checked before anything else.

A data message is this header followed by one frame per tensor, the tensor's own memory.
Layout, little-endian, packed: see `FIELDS`. Byte order and widths never depend on the
machine, so a 32-bit Arm endpoint talks to an x86 server.
"""

import struct
from enum import IntEnum
from typing import NamedTuple, Self

from dataflow.errors import PeerError

MAGIC = b"US"
VERSION = 1


class Kind(IntEnum):
    """What a data message is."""

    TOKEN = 1  # the tokens of one attempt, endpoint to server
    ANSWER = 2  # what the branch computed from them
    NACK = 3  # the attempt's one answer when there is no result; reason in `flags`
    PROBE = 4  # "can you answer on this lane?"
    PROBED = 5  # "yes"


class Nack(IntEnum):
    """Why a server does not answer an attempt."""

    SEGMENT = 1  # it does not have that computation
    EXPIRED = 2  # the budget was spent in its queue
    BUSY = 3  # beyond the credit, or not ready
    HOP = 4  # its own next hop died
    ERROR = 5  # the token does not fit the branch's ports


FIELDS = (
    ("2s", "magic", "b'US'"),
    ("B", "version", "of this layout and of the control messages"),
    ("B", "kind", "see Kind"),
    ("B", "flags", "reason of a NACK, else 0"),
    ("B", "attempt", "started branches of the iteration so far, from 0"),
    ("B", "row", "the control token: index of the mode that plays"),
    ("B", "codec", "compression of tensor frames shorter than their tokens, else 0"),
    ("B", "members", "0; streams fused into this one"),
    ("x", "", ""),
    ("H", "tensors", "tensor frames that follow"),
    ("I", "stream", "CRC-32 of the stream's name"),
    ("I", "session", "connection of the link, counted by the side that dials"),
    ("Q", "incarnation", "random per life of the source's process"),
    ("Q", "segment", "first 8 bytes of the segment's SHA-256"),
    ("Q", "frame", "first frame of the iteration"),
    ("Q", "ordinal", "number of the message in its session and stream"),
    ("Q", "limit", "reverse credit: ordinals below this may be sent"),
    ("I", "budget_us", "remaining deadline: relative, so clocks need not agree"),
    ("I", "queue_us", "in answers: time the token waited"),
    ("I", "compute_us", "in answers: time the firing took"),
    ("I", "payload_bytes", "sum over the tensor frames"),
)
"""struct code, name and meaning of each field, in order; the documented layout."""

_LAYOUT = struct.Struct("<" + "".join(code for code, _, _ in FIELDS))
HEADER_BYTES = _LAYOUT.size

CONTROL_LANE, DATA_LANE = b"C", b"D"
"""Last byte of a routing id. The rest is random per session and shared by its two
lanes, so nobody can name the data lane of another peer's session."""


def data_route(control_route: bytes) -> bytes:
    """Return the routing id of the data lane beside a control lane."""
    return control_route[:-1] + DATA_LANE


MAX_US = 2**32 - 1

_new = tuple.__new__
"""Makes a header of a tuple in half the time of its constructor, which calls it."""


class Header(NamedTuple):
    """A parsed header; the fields that a kind does not use are 0."""

    kind: Kind
    session: int
    stream: int = 0
    flags: int = 0
    attempt: int = 0
    row: int = 0
    codec: int = 0
    tensors: int = 0
    incarnation: int = 0
    segment: int = 0
    frame: int = 0
    ordinal: int = 0
    limit: int = 0
    budget_us: int = 0
    queue_us: int = 0
    compute_us: int = 0
    payload_bytes: int = 0

    def pack(self) -> bytes:
        (
            kind, session, stream, flags, attempt, row, codec, tensors, incarnation,
            segment, frame, ordinal, limit, budget_us, queue_us, compute_us,
            payload_bytes,
        ) = self  # fmt: skip
        return _LAYOUT.pack(
            MAGIC, VERSION, kind, flags, attempt, row, codec, 0, tensors, stream,
            session, incarnation, segment, frame, ordinal, limit, budget_us, queue_us,
            compute_us, payload_bytes,
        )  # fmt: skip

    def answer(
        self,
        kind: Kind,
        *,
        limit: int,
        flags: int = 0,
        tensors: int = 0,
        codec: int = 0,
        queue_us: int = 0,
        compute_us: int = 0,
        payload_bytes: int = 0,
    ) -> "Header":
        """Return the header of the one answer to this token: same tag, new limit."""
        (
            _, session, stream, _, attempt, row, _, _, incarnation, segment, frame,
            ordinal, _, budget_us, _, _, _,
        ) = self  # fmt: skip
        return _new(Header, (
            kind, session, stream, flags, attempt, row, codec, tensors, incarnation,
            segment, frame, ordinal, limit, budget_us, queue_us, compute_us,
            payload_bytes,
        ))  # fmt: skip

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the header that `data` holds.

        Raises:
            PeerError: Not a header of this version.
        """
        if len(data) != HEADER_BYTES:
            raise PeerError(
                f"data message: header of {len(data)} bytes, not {HEADER_BYTES}; "
                "dropped",
                "size",
            )
        (
            magic, version, kind, flags, attempt, row, codec, _members, tensors,
            stream, session, incarnation, segment, frame, ordinal, limit,
            budget_us, queue_us, compute_us, payload_bytes,
        ) = _LAYOUT.unpack(data)  # fmt: skip
        if magic != MAGIC or version != VERSION:
            raise PeerError(
                f"data message: magic {magic!r} version {version}, not {MAGIC!r} "
                f"version {VERSION}; dropped",
                "magic",
            )
        if kind not in _KINDS:
            raise PeerError(f"data message: kind {kind} is unknown; dropped", "kind")
        return _new(cls, (
            _KINDS[kind], session, stream, flags, attempt, row, codec, tensors,
            incarnation, segment, frame, ordinal, limit, budget_us, queue_us,
            compute_us, payload_bytes,
        ))  # fmt: skip


_KINDS = {int(kind): kind for kind in Kind}


def microseconds(seconds: float) -> int:
    """Return `seconds` as a header field: whole microseconds within 32 bits."""
    whole = int(seconds * 1e6)
    return whole if 0 <= whole <= MAX_US else max(0, min(whole, MAX_US))
