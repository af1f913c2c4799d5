"""The header, byte by byte: both writers and readers are held to the same table."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.errors import PeerError
from dataflow.wire.header import (
    FIELDS,
    HEADER_BYTES,
    MAX_US,
    Header,
    Kind,
    Nack,
    data_route,
    microseconds,
)

FUZZ = settings(max_examples=300)
HEADER = Header(
    kind=Kind.NACK,
    session=0x01020304,
    stream=0x0A0B0C0D,
    flags=Nack.BUSY,
    attempt=2,
    row=1,
    codec=2,
    tensors=3,
    incarnation=0x1112131415161718,
    segment=0x2122232425262728,
    frame=300,
    ordinal=301,
    limit=308,
    budget_us=95_000,
    queue_us=1,
    compute_us=2,
    payload_bytes=65_536,
)
GOLDEN = bytes.fromhex(
    "5553 01 03 03 02 01 02 00 00 0300"  # magic … codec, members, pad, tensors
    "0d0c0b0a 04030201"  # stream, session
    "1817161514131211 2827262524232221"  # incarnation, segment
    "2c01000000000000 2d01000000000000 3401000000000000"  # frame, ordinal, limit
    "18730100 01000000 02000000 00000100"  # budget, queue, compute, payload
)

MALFORMED = {
    "empty": b"",
    "too short": GOLDEN[:-1],
    "too long": GOLDEN + b"\0",
    "other magic": b"UX" + GOLDEN[2:],
    "other version": GOLDEN[:2] + b"\x02" + GOLDEN[3:],
    "kind 0": GOLDEN[:3] + b"\x00" + GOLDEN[4:],
    "kind 6": GOLDEN[:3] + b"\x06" + GOLDEN[4:],
    "kind 255": GOLDEN[:3] + b"\xff" + GOLDEN[4:],
}


def test_header_is_these_bytes() -> None:
    assert HEADER.pack() == GOLDEN
    assert len(GOLDEN) == HEADER_BYTES == 76


def test_these_bytes_are_the_header() -> None:
    assert Header.parse(GOLDEN) == HEADER


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_header_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError, match=r"^data message: .*; dropped$"):
        Header.parse(data)


@FUZZ
@given(st.binary(max_size=2 * HEADER_BYTES))
def test_random_bytes_are_at_worst_the_peers_fault(data: bytes) -> None:
    with contextlib.suppress(PeerError):
        Header.parse(data)


@FUZZ
@given(st.binary(min_size=HEADER_BYTES - 4, max_size=HEADER_BYTES - 4))
def test_whatever_is_parsed_packs_to_the_same_fields(rest: bytes) -> None:
    header = Header.parse(GOLDEN[:4] + rest)
    assert Header.parse(header.pack()) == header


def test_every_field_of_the_layout_has_a_meaning() -> None:
    assert all(meaning for code, _, meaning in FIELDS if code != "x")


def test_reserved_fields_are_ignored_so_that_they_can_be_used_later() -> None:
    reserved = GOLDEN[:8] + b"\x09\x09" + GOLDEN[10:]
    assert Header.parse(reserved) == HEADER


@pytest.mark.parametrize(
    ("seconds", "field"), [(0.0015, 1500), (-1.0, 0), (1e9, MAX_US), (0.0, 0)]
)
def test_microseconds_stay_within_the_field(seconds: float, field: int) -> None:
    assert microseconds(seconds) == field


def test_the_data_lane_is_named_after_its_control_lane() -> None:
    assert data_route(b"\x07\x08C") == b"\x07\x08D"
