"""Smaller tokens for a link: float32 as float16, or as 8 bits with one scale.

A code is a token uint8 [m]. Its layout, little-endian:

- `float16`: n IEEE half floats, m = 2 n.
- `int8`: scale float32, zero point int32 in 0..255, then n codes uint8, m = n + 8.
  A value is ``(code - zero_point) * scale``, as ONNX's DequantizeLinear has it.
"""

import math
import struct
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

import native
from actors import params as read
from actors.ring import ring
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.errors import ActorError, UnderstudyError
from dataflow.graph import Port, TokenType

CODECS = ("float16", "int8")
_HEADER = struct.Struct("<fi")


def code_type(codec: str, token: TokenType) -> TokenType:
    """Return the type of the code that `codec` makes of a float32 token.

    >>> str(code_type("int8", TokenType("float32", (1, 16, 8, 8))))
    'uint8[1032]'
    """
    elements = math.prod(token.shape)
    size = 2 * elements if codec == "float16" else elements + _HEADER.size
    return TokenType("uint8", (size,))


def _types(params: Params) -> tuple[str, TokenType, TokenType]:
    """Return codec, token type and code type."""
    known_params(params, required=("codec", "token"), optional=())
    codec = read.choice(params, "codec", CODECS)
    token = TokenType.parse(read.text(params, "token"))
    if token.dtype != "float32":
        raise UnderstudyError(
            f"parameter 'token': {token} is not float32; only float32 can be encoded"
        )
    return codec, token, code_type(codec, token)


class Encode(Behaviour):
    """Makes a ``code`` of each ``token``.

    Params:
        codec: `float16` or `int8`.
        token: Type of the token, such as float32[1,16,8,8].
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        _, token, code = _types(params)
        return (Port("token", "in", token), Port("code", "out", code))

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        codec, token, code = _types(params)
        self._half = codec == "float16"
        self._ring = cycle(
            [
                (out, self._body(out).reshape(token.shape))
                for out in ring(code, site.slots)
            ]
        )

    def _body(self, code: NDArray[Any]) -> NDArray[Any]:
        return code.view(np.float16) if self._half else code[_HEADER.size :]

    def fire(self, *tokens: Any) -> Any:
        code, body = next(self._ring)
        if self._half:
            native.to_float16(tokens[0], body)
            return code
        try:
            scale, zero_point = native.quantise(tokens[0], body)
        except ValueError as error:
            raise ActorError(f"codec 'int8': {error}") from None
        _HEADER.pack_into(code.data, 0, scale, zero_point)
        return code


class Decode(Behaviour):
    """Makes the ``token`` again that a ``code`` was made of, as near as the codec is.

    Params:
        codec: As the encoder's.
        token: As the encoder's.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        _, token, code = _types(params)
        return (Port("code", "in", code), Port("token", "out", token))

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        codec, token, _ = _types(params)
        self._half = codec == "float16"
        self._ring = cycle(ring(token, site.slots))
        self._shape = token.shape

    def fire(self, *tokens: Any) -> Any:
        code = tokens[0]
        token = next(self._ring)
        if self._half:
            native.to_float32(code.view(np.float16).reshape(self._shape), token)
            return token
        scale, zero_point = _HEADER.unpack_from(code)
        # The code may come from another machine: nothing in it is taken on trust.
        if not (math.isfinite(scale) and scale >= 0 and 0 <= zero_point <= 255):
            raise ActorError(
                f"codec 'int8': code has scale {scale:g} and zero point {zero_point}; "
                "a scale is finite and not below 0, a zero point 0 to 255"
            )
        body = code[_HEADER.size :].reshape(self._shape)
        native.dequantise(body, scale, zero_point, token)
        return token
