"""Actors that take or give several tokens per firing: batch and sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors import params as read
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.errors import UnderstudyError
from dataflow.graph import CONTROL_TOKEN, Port, TokenType


class Batch(Behaviour):
    """Makes one token of several: joined along the first axis.

    Four ``one`` of float32 [1, C, H, W] become ``batch`` float32 [4, C, H, W]; scalars
    become a vector.

    Params:
        size: Tokens per batch.
        token: Type of one, as ``float32[1,8,8]``; that of what feeds it unless given.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("size", "token"), optional=())
        size = read.count(params, "size")
        assert size is not None
        one = TokenType.parse(read.text(params, "token"))
        first, *rest = one.shape or (1,)
        whole = TokenType(one.dtype, (size * first, *rest))
        return (Port("one", "in", one, (size,)), Port("batch", "out", whole))

    def fire(self, *tokens: Any) -> Any:
        several = tokens[0] if isinstance(tokens[0], list) else [tokens[0]]
        return np.concatenate([np.atleast_1d(token) for token in several])


class Sample(Behaviour):
    """Passes on some of the tokens that it takes, evenly, the last ones of each group.

    Params:
        of: Tokens per firing.
        keep: How many of them are passed on. A list, as [1, 2, 4], makes `kept` a
            dynamic port: put it into the modes of a DPG, and its controller's token
            into `mode`.
        token: Type, as ``float32[1,8,8]``; that of what feeds it unless given.
    """

    told_rates = True

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("of", "keep", "token"), optional=())
        of = read.count(params, "of")
        assert of is not None
        token = TokenType.parse(read.text(params, "token"))
        keep = params["keep"]
        listed = keep if isinstance(keep, list) else [keep]
        whole = all(type(n) is int and 0 <= n <= of for n in listed)
        if not listed or not whole or listed != sorted(set(listed)) or keep == 0:
            raise UnderstudyError(
                f"parameter 'keep': {keep!r}; write how many of {of} to keep, or a "
                "list of such numbers, the smallest first"
            )
        taken = Port("frame", "in", token, (of,))
        kept = Port("kept", "out", token, tuple(listed))
        if len(listed) == 1:
            return (taken, kept)
        return (taken, Port("mode", "in", CONTROL_TOKEN, control=True), kept)

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._of = int(params["of"])

    def fire(self, *tokens: Any, rates: Sequence[int] = (1,)) -> Any:
        several = tokens[0] if isinstance(tokens[0], list) else [tokens[0]]
        (rate,) = rates
        kept = [several[(i + 1) * self._of // rate - 1] for i in range(rate)]
        return kept[0] if rate == 1 else kept
