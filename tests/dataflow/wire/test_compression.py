"""Compressed frames: what comes out is what went in, and nothing else comes in."""

import contextlib

import lz4.block
import numpy as np
import pytest
import zstandard

from dataflow.errors import PeerError
from dataflow.graph import TokenType
from dataflow.wire.compression import CODES, COMPRESSIONS, compression, fits, trial

RNG = np.random.default_rng(4)
NOISE = RNG.integers(0, 256, 5000, np.uint8)
FEATURES = np.maximum(RNG.standard_normal((1, 8, 25, 25)), 0).astype(np.float32)
EMPTY = np.zeros(0, np.float32)


def made(name):
    found = compression(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("token", [NOISE, FEATURES, EMPTY, np.zeros(3, np.float32)])
def test_what_was_compressed_comes_back_byte_by_byte(name, token):
    (frame,) = made(name).run([token])
    back = made(name).token(bytes(memoryview(frame).cast("B")), token.nbytes)
    assert bytes(back) == token.tobytes()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_only_what_shrinks_is_compressed(name):
    noise, features = made(name).run([NOISE, FEATURES])
    assert noise is NOISE
    assert len(features) < FEATURES.nbytes * 0.8
    assert fits(len(features), FEATURES.nbytes, CODES[name])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_token_of_another_size_is_refused(name):
    (frame,) = made(name).run([FEATURES])
    for size in (len(frame) + 1, FEATURES.nbytes - 4, FEATURES.nbytes + 4):
        with pytest.raises(PeerError, match=f"for a token of {size} bytes; refused"):
            made(name).token(frame, size)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_frame_longer_than_its_token_is_refused(name):
    with pytest.raises(PeerError, match="frame of 101 bytes, for a token of 100"):
        made(name).token(bytes(101), 100)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_frame_cut_short_is_refused(name):
    (frame,) = made(name).run([FEATURES])
    for end in range(0, len(frame), 97):
        with pytest.raises(PeerError, match="refused"):
            made(name).token(frame[:end], FEATURES.nbytes)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_changed_frame_is_refused_or_stands_for_a_token_of_the_size(name):
    (frame,) = made(name).run([FEATURES])
    for _ in range(500):
        data = bytearray(frame)
        data[RNG.integers(len(data))] ^= 1 << RNG.integers(8)
        with contextlib.suppress(PeerError):
            assert len(made(name).token(bytes(data), FEATURES.nbytes)) == 20_000


def test_bomb_is_refused_by_what_it_states_before_it_is_decoded(monkeypatch):
    bomb = zstandard.ZstdCompressor().compress(bytes(300_000_000))
    assert len(bomb) < 30_000
    zstd = made("zstd")
    monkeypatch.setattr(zstd, "_decompressor", None)  # whoever decodes, fails
    with pytest.raises(PeerError, match="content of 300000000 bytes, for a token of"):
        zstd.token(bomb, 30_000)


def test_lz4_bomb_gets_no_more_room_than_its_token():
    bomb = lz4.block.compress(bytes(100_000_000), store_size=False)
    assert len(bomb) < 400_000
    with pytest.raises(PeerError, match="insufficient space"):
        made("lz4").token(bomb, 400_000)


def test_window_larger_than_the_token_is_refused_before_it_is_allocated(monkeypatch):
    # A frame header by RFC 8878: magic, 4-byte content size, window of 128 MB.
    frame = (
        b"\x28\xb5\x2f\xfd"
        + b"\x80"
        + bytes([17 << 3])
        + (20_000).to_bytes(4, "little")
    )
    zstd = made("zstd")
    monkeypatch.setattr(zstd, "_decompressor", None)
    with pytest.raises(PeerError, match="window of 134217728 bytes"):
        zstd.token(frame + bytes(100), 20_000)


def test_content_without_its_size_in_front_is_refused():
    bare = zstandard.ZstdCompressor(write_content_size=False).compress(FEATURES)
    with pytest.raises(PeerError, match="refused"):
        made("zstd").token(bare, FEATURES.nbytes)


def test_what_follows_a_frame_is_refused():
    (frame,) = made("zstd").run([FEATURES])
    with pytest.raises(PeerError, match="refused"):
        made("zstd").token(frame + b"more", FEATURES.nbytes)


def test_trial_tokens_shrink_about_as_features_do():
    tokens = trial([TokenType("float32", (1, 8, 25, 25)), TokenType("uint8", (3,))])
    assert [token.nbytes for token in tokens] == [20_000, 3]
    (frame, _) = made("zstd").run(tokens)
    assert 0.4 < len(frame) / 20_000 < 0.7
