"""Several tokens packed into one, and tensors from an archive."""

from pathlib import Path

import numpy as np
import pytest

from actors.arrays import Arrays
from actors.pack import Pack
from dataflow.behaviour import Site, StreamEnd
from dataflow.errors import UnderstudyError

SITE = Site("here", "here", 0, Path(), None, 2)


def test_packed_token_holds_the_bytes_of_all():
    pack = Pack({"tokens": ["float32[1,3]", "uint8[2]", "int64[]"]}, SITE)
    tokens = (
        np.array([[1, 2, 3]], np.float32),
        np.array([4, 5], np.uint8),
        np.array(-6, np.int64),
    )
    packed = pack.fire(*tokens)
    assert packed.tobytes() == b"".join(token.tobytes() for token in tokens)
    assert packed.nbytes == 12 + 2 + 8


def test_packed_token_stays_while_its_slot_is_not_due():
    pack = Pack({"tokens": ["uint8[2]"]}, SITE)
    first = pack.fire(np.array([1, 2], np.uint8))
    pack.fire(np.array([3, 4], np.uint8))
    assert first.tolist() == [1, 2]


@pytest.mark.parametrize("tokens", [[], "float32[1]", [3]])
def test_pack_wants_a_list_of_types(tokens):
    with pytest.raises(UnderstudyError, match="a list of types"):
        Pack.ports({"tokens": tokens})


def test_arrays_give_row_after_row_and_begin_again(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([7, 8])
    np.savez(tmp_path / "x.npz", a=a, b=b)
    params = {"path": str(tmp_path / "x.npz"), "rate_hz": 1, "frames": 3}
    assert [str(port.token) for port in Arrays.ports(params)] == [
        "float32[3]",
        "int64[]",
    ]
    source = Arrays(params, SITE)
    source.start()
    rows = [source.fire() for _ in range(3)]
    assert [row[0].tolist() for row in rows] == [a[0].tolist(), a[1].tolist()] * 1 + [
        a[0].tolist()
    ]
    assert [int(row[1]) for row in rows] == [7, 8, 7]
    with pytest.raises(StreamEnd):
        source.fire()


def test_arrays_of_different_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 1)), b=np.zeros((3, 1)))
    with pytest.raises(UnderstudyError, match="as many rows as the others"):
        Arrays.ports({"path": str(tmp_path / "x.npz"), "rate_hz": 1})


def test_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(UnderstudyError, match="cannot be read"):
        Arrays.ports({"path": str(tmp_path / "x.npz"), "rate_hz": 1})
