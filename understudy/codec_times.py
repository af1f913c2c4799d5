"""What codecs and compression do to the tensors of a model, and how long that takes."""

import struct
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.codec import CODECS, Decode, Encode
from dataflow.behaviour import Site
from dataflow.errors import ActorError
from dataflow.graph import TokenType
from dataflow.wire.compression import COMPRESSIONS, compression
from understudy.profile_file import CodecTime
from understudy.timing import least_s

ALL = (
    *CODECS,
    *COMPRESSIONS,
    *(f"{codec}+{packed}" for codec in CODECS for packed in COMPRESSIONS),
)
"""As deployments write them."""
_SITE = Site("profile", "profile", 0, Path(), None, 2)

Array = NDArray[Any]


class Codec:
    """Encodes and decodes tokens of one type as a deployment with this codec does.

    Args:
        name: One of `ALL`.
        token: Their type; one that is not float32 is compressed only.
    """

    def __init__(self, name: str, token: TokenType) -> None:
        parts = name.split("+")
        lossy = [part for part in parts if part in CODECS and token.dtype == "float32"]
        params = {"codec": lossy[0], "token": str(token)} if lossy else None
        self._encode = Encode(params, _SITE).fire if params else _same
        self._decode = Decode(params, _SITE).fire if params else _same
        packed = [part for part in parts if part in COMPRESSIONS]
        self._packed = compression(packed[0]) if packed else None

    def encode(self, token: Array) -> Any:
        """Return what crosses.

        Raises:
            ActorError: The token holds values that the codec cannot express.
        """
        code = self._encode(token)
        return code if self._packed is None else self._packed.run([code])[0]

    def decode(self, frame: bytes, code_bytes: int) -> Array:
        """Return the token of a frame whose code has `code_bytes`."""
        code = frame if self._packed is None else self._packed.token(frame, code_bytes)
        decoded: Array = self._decode(np.frombuffer(code, np.uint8))
        return decoded

    def code_bytes(self, token: Array) -> int:
        return int(self._encode(token).nbytes)


def _same(token: Any) -> Any:
    return token


def wire_bytes(arrays: Iterable[Array]) -> dict[str, int]:
    """Return how many bytes `arrays` are together, by codec.

    A codec that cannot express one of them is left out.
    """
    found: dict[str, int] = {}
    arrays = list(arrays)
    for name in ALL:
        try:
            frames = [Codec(name, _type(array)).encode(array) for array in arrays]
        except (ActorError, struct.error):
            continue
        found[name] = sum(memoryview(frame).nbytes for frame in frames)
    return found


def codec_times(array: Array) -> dict[str, CodecTime]:
    """Return what each codec takes on the float32 tensor `array`."""
    found = {}
    megabytes = array.nbytes / 1e6
    for name in ALL:
        codec = Codec(name, _type(array))
        try:
            frame = memoryview(codec.encode(array)).tobytes()
        except ActorError:
            continue
        size = codec.code_bytes(array)
        encode_s = least_s(partial(codec.encode, array))
        decode_s = least_s(partial(codec.decode, frame, size))
        found[name] = CodecTime(encode_s * 1e6 / megabytes, decode_s * 1e6 / megabytes)
    return found


def _type(array: Array) -> TokenType:
    return TokenType(str(array.dtype), array.shape)
