"""Several tokens as one: the answers of a network with several outputs."""

from itertools import cycle
from typing import Any

import numpy as np

from actors import params as read
from actors.ring import ring
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.graph import Port, TokenType


class Pack(Behaviour):
    """Makes ``packed`` uint8 [n]: the bytes of ``t0``, ``t1``, …, one behind the other.

    `unpack` gives them back.

    Params:
        tokens: Their types, as [float32[1,4], int64[1]].
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("tokens",), optional=())
        tokens = _types(params)
        size = sum(token.nbytes for token in tokens)
        return (
            *(Port(f"t{i}", "in", token) for i, token in enumerate(tokens)),
            Port("packed", "out", TokenType("uint8", (size,))),
        )

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        tokens = _types(params)
        size = sum(token.nbytes for token in tokens)
        self._ring = cycle(
            [
                (out, unpack(out, tokens))
                for out in ring(TokenType("uint8", (size,)), site.slots)
            ]
        )

    def fire(self, *tokens: Any) -> Any:
        packed, places = next(self._ring)
        for place, token in zip(places, tokens, strict=True):
            # Bytes, for a place need not be aligned to its elements.
            place[...] = np.ascontiguousarray(token).reshape(-1).view(np.uint8)
        return packed


def unpack(packed: Any, tokens: list[TokenType]) -> list[Any]:
    """Return the bytes of each token in `packed`, uint8 [n], as views of it."""
    places, start = [], 0
    for token in tokens:
        places.append(packed[start : start + token.nbytes])
        start += token.nbytes
    return places


def _types(params: Params) -> list[TokenType]:
    value = params["tokens"]
    texts = isinstance(value, list) and value and all(isinstance(t, str) for t in value)
    if not texts:
        raise read.wrong("tokens", value, "a list of types, such as float32[1,4]")
    return [TokenType.parse(text) for text in value]
