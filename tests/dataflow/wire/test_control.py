"""Control messages: what is written is read, and nothing else is believed."""

from dataclasses import asdict
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.errors import PeerError
from dataflow.wire.control import (
    CONTROL_BYTES_MAX,
    CONTROL_MAGIC,
    PIECE_BYTES_MAX,
    STREAMS_MAX,
    Beat,
    Bye,
    Control,
    Hello,
    Piece,
    Refuse,
    StatusReply,
    StatusRequest,
    StreamOffer,
    Want,
    Welcome,
    control_version,
    is_control,
    pack_control,
    unpack_control,
)
from dataflow.wire.header import VERSION

FUZZ = settings(max_examples=300)
REFUSE_BODY: dict[str, Any] = {"kind": "refuse", "session": 1, "why": "no"}
PREFIX = CONTROL_MAGIC + bytes([VERSION])
OFFER = StreamOffer(stream=2**32 - 1, name="cam.0", segment=2**64 - 1, window=5)
HELLO = Hello(device="cam.0", incarnation=2**64 - 1, session=1, offers=(OFFER,))
MESSAGES: list[Control] = [
    HELLO,
    Hello(device="cam.0", incarnation=0, session=1, offers=()),
    Welcome(device="edge", incarnation=7, session=1, ready=True, grants={7: 2**64 - 1}),
    Welcome(device="edge", incarnation=7, session=1, ready=False),
    Refuse(session=1, why="device 'edge': busy"),
    Beat(session=1, ready=True, queue=3, age_ms=12, dead=("lab-2",), about="[]"),
    Bye(session=1),
    StatusRequest(),
    StatusReply(text="{}"),
    Want(sha256="ab" * 32, offset=2**64 - 1),
    Piece(sha256="ab" * 32, offset=0, total=9, data=bytes(PIECE_BYTES_MAX)),
]


def _frame(body: Any) -> bytes:
    return PREFIX + bytes(msgpack.packb(body))


def _body(message: Control) -> dict[str, Any]:
    body = msgpack.unpackb(pack_control(message)[3:], strict_map_key=False)
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.kind)
def test_what_is_written_is_read(message: Control) -> None:
    frame = pack_control(message)
    assert is_control(frame)
    assert control_version(frame) == VERSION
    assert unpack_control(frame) == message


HELLO_BODY = _body(HELLO)
BEAT_BODY = _body(Beat(session=1, ready=True, queue=0, age_ms=0))
WELCOME_BODY = _body(Welcome(device="e", incarnation=1, session=1, ready=True))
PIECE_BODY = _body(Piece(sha256="ab" * 32, offset=0, total=1, data=b"x"))

WRONG = {
    "empty": b"",
    "no body": PREFIX,
    "a data message": b"US\x01",
    "another version": CONTROL_MAGIC + bytes([VERSION + 1]) + _frame(BEAT_BODY)[3:],
    "two bodies": _frame(BEAT_BODY) + b"\x00",
    "cut short": _frame(BEAT_BODY)[:-1],
    "not a map": _frame([1, 2]),
    "no kind": _frame({"session": 1}),
    "unknown kind": _frame({"kind": "hallo"}),
    "kind is a list": _frame({"kind": ["hello"]}),
    "kind is bytes": _frame({"kind": b"hello"}),
    "field missing": _frame({"kind": "bye"}),
    "field too many": _frame({"kind": "bye", "session": 1, "more": 1}),
    "key is a number": _frame({"kind": "bye", "session": 1, 7: 1}),
    "session negative": _frame({"kind": "bye", "session": -1}),
    "session beyond u32": _frame({"kind": "bye", "session": 2**32}),
    "session a float": _frame({"kind": "bye", "session": 1.0}),
    "session a bool": _frame({"kind": "bye", "session": True}),
    "session nil": _frame({"kind": "bye", "session": None}),
    "ready a number": _frame(BEAT_BODY | {"ready": 1}),
    "queue negative": _frame(BEAT_BODY | {"queue": -1}),
    "a why for a terminal": _frame(REFUSE_BODY | {"why": "\x1b[2J"}),
    "a why of a page": _frame(REFUSE_BODY | {"why": "x" * 3000}),
    "dead a number": _frame(BEAT_BODY | {"dead": 1}),
    "dead with a number": _frame(BEAT_BODY | {"dead": [1]}),
    "about bytes": _frame(BEAT_BODY | {"about": b""}),
    "name empty": _frame(HELLO_BODY | {"device": ""}),
    "name too long": _frame(HELLO_BODY | {"device": "x" * 201}),
    "name with a bell": _frame(HELLO_BODY | {"device": "a\x07"}),
    "offers nil": _frame(HELLO_BODY | {"offers": None}),
    "offer without window": _frame(HELLO_BODY | {"offers": [{"stream": 1}]}),
    "window beyond u16": _frame(
        HELLO_BODY
        | {"offers": [{"stream": 1, "name": "a", "segment": 1, "window": 65536}]}
    ),
    "grants a list": _frame(WELCOME_BODY | {"grants": [1]}),
    "grant to a text": _frame(WELCOME_BODY | {"grants": {"a": 1}}),
    "grant beyond u64": _frame(WELCOME_BODY | {"grants": {1: -1}}),
    "hash too short": _frame({"kind": "want", "sha256": "ab", "offset": 0}),
    "hash a path": _frame({"kind": "want", "sha256": "../" * 21 + "a", "offset": 0}),
    "piece too long": _frame(PIECE_BODY | {"data": bytes(PIECE_BYTES_MAX + 1)}),
    "piece a text": _frame(PIECE_BODY | {"data": "x"}),
    "bad utf-8": PREFIX + b"\x81\xa4kind\xa2\xff\xfe",
    "nested deeply": PREFIX + b"\x91" * 5000,
    "an extension": PREFIX + b"\xc7\x05\x01hello",
    "a timestamp": _frame({"kind": "bye", "session": msgpack.Timestamp(1)}),
}


@pytest.mark.parametrize("frame", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_the_peers_fault(frame: bytes) -> None:
    with pytest.raises(PeerError, match=r"(?s)^control message: .*; dropped$"):
        unpack_control(frame)


CLAIMS = {
    "4 GiB of text": PREFIX + b"\xdb\xff\xff\xff\xff",
    "4 GiB of bytes": PREFIX + b"\xc6\xff\xff\xff\xff",
    "4 G elements": PREFIX + b"\xdd\xff\xff\xff\xff",
    "4 G pairs": PREFIX + b"\xdf\xff\xff\xff\xff",
    "too many elements": _frame(BEAT_BODY | {"dead": ["a"] * (STREAMS_MAX + 1)}),
    "too many bytes": PREFIX + b"\x00" * CONTROL_BYTES_MAX,
}


@pytest.mark.parametrize("frame", CLAIMS.values(), ids=CLAIMS.keys())
def test_sizes_are_bounded_before_anything_is_built(frame: bytes) -> None:
    with pytest.raises(PeerError):
        unpack_control(frame)


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes_are_at_worst_the_peers_fault(data: bytes) -> None:
    _only_a_peer_error(PREFIX + data)


def _leaves() -> st.SearchStrategy[Any]:
    numbers = st.integers(-(2**63), 2**64 - 1)
    return st.one_of(
        st.none(), st.booleans(), numbers, st.floats(), st.text(), st.binary()
    )


VALUES = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


@FUZZ
@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_field_is_at_worst_the_peers_fault(
    message: Control, data: st.DataObject
) -> None:
    body = _body(message)
    key = data.draw(st.sampled_from([*body, "more"]))
    body[key] = data.draw(VALUES)
    _only_a_peer_error(_frame(body))


@FUZZ
@given(st.sampled_from(MESSAGES), st.data())
def test_a_flipped_byte_is_at_worst_the_peers_fault(
    message: Control, data: st.DataObject
) -> None:
    frame = bytearray(pack_control(message))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    _only_a_peer_error(bytes(frame))


def _only_a_peer_error(frame: bytes) -> None:
    try:
        message = unpack_control(frame)
    except PeerError:
        return
    assert unpack_control(pack_control(message)) == message


def test_what_is_packed_is_never_longer_than_what_is_read() -> None:
    empty = len(pack_control(StatusReply(text="")))
    longest = StatusReply(text="x" * (CONTROL_BYTES_MAX - empty - 2))
    assert unpack_control(pack_control(longest)) == longest
    with pytest.raises(AssertionError, match="status of 65537 bytes"):
        pack_control(StatusReply(text="x" * (CONTROL_BYTES_MAX - empty - 1)))


@pytest.mark.parametrize(
    "message",
    [Beat(1, True, 0, 0, dead=("edge.1",)), Hello("cam", 1, 1, ())],
    ids=["dead", "offers"],
)
def test_text_in_the_place_of_a_list_is_refused(message: Control) -> None:
    """Its letters were taken for names, as many as there was room for."""
    body = {"kind": message.kind, **asdict(message)}
    body["dead" if message.kind == "beat" else "offers"] = "x" * 60_000
    with pytest.raises(PeerError, match="is not a list"):
        unpack_control(PREFIX + msgpack.packb(body))
