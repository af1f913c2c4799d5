"""Output memory that is used again, so that firing allocates nothing.

A ring holds as many buffers as `Site.slots`: that many latest outputs stay unchanged
while the actor fires on. The same array object comes back every round, which lets the
next actor see by identity that it has bound this memory before.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.graph import TokenType

_CACHE_LINE_BYTES = 64


def ring(token: TokenType, slots: int) -> list[NDArray[Any]]:
    """Return `slots` arrays of the token's type, zeroed, each at a cache line's start.

    They lie in one block, which NumPy asks the kernel to map in huge pages when it has
    4 MB or more. Zeroing maps the pages now, and not within the first frames.
    """
    stride = math.ceil(token.nbytes / _CACHE_LINE_BYTES) * _CACHE_LINE_BYTES
    block = np.empty(slots * stride + _CACHE_LINE_BYTES, np.uint8)
    block.fill(0)
    first = -block.ctypes.data % _CACHE_LINE_BYTES
    return [
        block[start : start + token.nbytes].view(token.dtype).reshape(token.shape)
        for start in range(first, first + slots * stride, stride)
    ]
