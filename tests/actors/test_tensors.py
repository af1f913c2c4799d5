"""Normalising and coding: what NumPy says, kept in a ring."""

import struct

import numpy as np
import pytest

from actors.codec import Decode, Encode
from actors.normalise import Normalise
from dataflow.errors import ActorError, UnderstudyError

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (6, 5, 3), np.uint8)
TOKEN = RNG.normal(size=(1, 4, 3, 2)).astype(np.float32)
TYPE = "float32[1,4,3,2]"


def coded(site, codec, token=TOKEN):
    params = {"codec": codec, "token": TYPE}
    code = Encode(params, site).fire(token)
    return code, Decode(params, site).fire(code.copy())


def test_normalise_scales_and_shifts_each_channel(site):
    params = {"shape": [6, 5, 3], "scale": [1 / 255, 0.5, 2], "offset": -0.5}
    image = Normalise(params, site).fire(PIXELS)
    expected = PIXELS * np.float32([1 / 255, 0.5, 2]) + np.float32(-0.5)
    np.testing.assert_array_equal(image, expected.transpose(2, 0, 1)[None])
    pixels, out = Normalise.ports(params)
    assert (str(pixels.token), str(out.token)) == ("uint8[6,5,3]", "float32[1,3,6,5]")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"shape": [6, 5]}, r"'shape': \[6, 5\] has 2 numbers"),
        ({"shape": [6, 5, 0]}, r"'shape': \[6, 5, 0\] is not a list of whole"),
        ({"scale": [1, 2]}, r"'scale': \[1, 2\] is not a number or a list of 3"),
        ({"offset": "1"}, "'offset': '1' is not a number or a list of 3"),
        ({"scael": 1}, r"'scael': unknown \(did you mean 'scale'\?\)"),
    ],
)
def test_wrong_normalise_parameter_is_told(params, message):
    with pytest.raises(UnderstudyError, match=message):
        Normalise.ports({"shape": [6, 5, 3], "scale": 1, **params})


def test_float16_code_is_half_as_large_and_as_near_as_half_floats(site):
    code, back = coded(site, "float16")
    assert (code.dtype, code.shape) == (np.uint8, (2 * TOKEN.size,))
    np.testing.assert_array_equal(back, TOKEN.astype("<f2").astype(np.float32))


def test_int8_code_has_its_scale_and_zero_point_in_front(site):
    code, back = coded(site, "int8")
    assert (code.dtype, code.shape) == (np.uint8, (TOKEN.size + 8,))
    scale, zero_point = struct.unpack("<fi", code[:8].tobytes())
    body = code[8:].astype(np.float32).reshape(TOKEN.shape)
    np.testing.assert_array_equal(back, (body - zero_point) * np.float32(scale))
    assert np.abs(back - TOKEN).max() <= scale * 0.501


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_code_that_was_received_may_be_read_only_and_unaligned(site, codec):
    code, back = coded(site, codec)
    message = b"." * 7 + code.tobytes()
    received = np.frombuffer(message, np.uint8, offset=7)
    decode = Decode({"codec": codec, "token": TYPE}, site)
    np.testing.assert_array_equal(decode.fire(received), back)


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [(float("nan"), 3), (float("inf"), 3), (-1.0, 3), (1.0, -1), (1.0, 256)],
)
def test_malformed_int8_code_is_refused(site, scale, zero_point):
    code = np.zeros(TOKEN.size + 8, np.uint8)
    struct.pack_into("<fi", code, 0, scale, zero_point)
    with pytest.raises(ActorError, match="codec 'int8': code has scale"):
        Decode({"codec": "int8", "token": TYPE}, site).fire(code)


def test_infinity_has_no_int8_code(site):
    with pytest.raises(ActorError, match=r"codec 'int8': .*infinity"):
        coded(site, "int8", np.full(TOKEN.shape, np.inf, np.float32))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"codec": "int4", "token": TYPE}, "'codec': 'int4' is not known"),
        ({"codec": "int8", "token": "int64[3]"}, r"int64\[3\] is not float32"),
        ({"codec": "int8", "token": "float32"}, "not a dtype with a shape"),
        ({"codec": "int8"}, "'token': missing"),
    ],
)
@pytest.mark.parametrize("actor", [Encode, Decode])
def test_wrong_codec_parameter_is_told(actor, params, message):
    with pytest.raises(UnderstudyError, match=message):
        actor.ports(params)


@pytest.mark.parametrize(
    ("actor", "params", "token"),
    [
        (Normalise, {"shape": [6, 5, 3], "scale": 1}, PIXELS),
        (Encode, {"codec": "float16", "token": TYPE}, TOKEN),
        (Encode, {"codec": "int8", "token": TYPE}, TOKEN),
        (Decode, {"codec": "float16", "token": TYPE}, np.zeros(48, np.uint8)),
    ],
)
def test_latest_outputs_stay_unchanged_while_firing_on(site, actor, params, token):
    fires = actor(params, site)
    latest = [fires.fire(token + np.uint8(n)) for n in range(site.slots)]
    assert len({out.ctypes.data for out in latest}) == site.slots
    assert fires.fire(token) is latest[0]
