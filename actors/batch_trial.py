"""Is a batch the same as its tokens one by one? Tried on random tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour
from dataflow.graph import TokenType

Array = NDArray[np.generic]

BATCH_ERROR_MAX = 1e-4
"""Of an answer in a batch against the same alone, as a part of its largest value."""
_SEED = 20_230_117


def batch_error(behaviour: Behaviour, inputs: Sequence[TokenType], count: int) -> float:
    """Return how far answers in a batch are from those alone, relative to the largest.

    Args:
        behaviour: A started actor without state.
        inputs: Of its input ports.
        count: Tokens in the batch; each is another, so rows that mix are seen.
    """
    random = np.random.default_rng(_SEED)
    firings = [tuple(_random(token, random) for token in inputs) for _ in range(count)]
    alone = [_copies(behaviour.fire(*tokens)) for tokens in firings]
    together = [_copies(answer) for answer in behaviour.fire_many(firings)]
    worst = 0.0
    for some, others in zip(
        zip(*alone, strict=True), zip(*together, strict=True), strict=True
    ):
        worst = max(worst, _error(np.stack(some), np.stack(others)))
    return worst


def rows(tokens: Sequence[TokenType], count: int) -> list[Array]:
    """Return memory for `count` tokens of each type, stacked along their first axis."""
    return [np.zeros((count, *token.shape[1:]), token.dtype) for token in tokens]


def _random(token: TokenType, random: np.random.Generator) -> Array:
    """Return a token to try a network on: normal numbers, or bits."""
    if np.dtype(token.dtype).kind == "f":
        return random.standard_normal(token.shape).astype(token.dtype)
    return random.integers(0, 2, token.shape).astype(token.dtype)


def _copies(answer: Any) -> list[Array]:
    return [np.copy(a) for a in (answer if isinstance(answer, tuple) else (answer,))]


def _error(alone: Array, together: Array) -> float:
    one, other = alone.astype(float), together.astype(float)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("inf")
    one, other = (np.nan_to_num(a, posinf=0, neginf=0) for a in (one, other))
    most = float(np.max(np.abs(one), initial=0.0)) or 1.0
    return float(np.max(np.abs(one - other), initial=0.0)) / most
