"""The C kernels behind the signatures of `native.reference`.

Importing this module raises ImportError where the extension was not built.
"""

from collections.abc import Callable
from typing import Protocol

from native._kernels import ffi, lib
from native.reference import F16, F32, U8


class _Quantisation(Protocol):
    scale: float
    zero_point: int
    status: int


class _Kernels(Protocol):
    """The declarations of the headers, as cffi shows them."""

    us_level: Callable[[], int]
    us_level_name: Callable[[int], object]
    us_quantise: Callable[[object, int, object, int], _Quantisation]
    us_dequantise: Callable[[object, int, float, int, object, int], int]
    us_to_float16: Callable[[object, int, object, int], int]
    us_to_float32: Callable[[object, int, object, int], int]
    us_normalise: Callable[[object, int, int, object, object, object, int], int]


_kernels: _Kernels = lib
_memory = ffi.from_buffer  # the address of an array, which it keeps alive


def levels() -> range:
    """Return the instruction-set levels that this machine runs, lowest first."""
    return range(_kernels.us_level() + 1)


class Compiled:
    """The kernels at one instruction-set level, by default the highest.

    cffi releases the GIL during a call.
    """

    __slots__ = ("_level", "name")

    def __init__(self, level: int = levels()[-1]) -> None:
        if level not in levels():
            raise ValueError(
                f"native.compiled.Compiled: level {level} is not among "
                f"{list(levels())} of this CPU; take one of these"
            )
        self._level = level
        level_name: bytes = ffi.string(_kernels.us_level_name(level))
        self.name = f"C ({level_name.decode()})"

    def quantise(self, x: F32, out: U8) -> tuple[float, int, int]:
        """Return scale, zero point and status; see `quantise.h`."""
        result = _kernels.us_quantise(_memory(x), x.size, _memory(out), self._level)
        return result.scale, result.zero_point, result.status

    def dequantise(self, q: U8, scale: float, zero_point: int, out: F32) -> int:
        """Write (q - zero_point) * scale; see `quantise.h`."""
        return _kernels.us_dequantise(
            _memory(q), q.size, scale, zero_point, _memory(out), self._level
        )

    def to_float16(self, x: F32, out: F16) -> int:
        """Write x rounded half to even; see `float16.h`."""
        return _kernels.us_to_float16(_memory(x), x.size, _memory(out), self._level)

    def to_float32(self, h: F16, out: F32) -> int:
        """Write h, exactly; see `float16.h`."""
        return _kernels.us_to_float32(_memory(h), h.size, _memory(out), self._level)

    def normalise(self, pixels: U8, scale: F32, offset: F32, out: F32) -> int:
        """Write planes of pixel * scale + offset; see `normalise.h`."""
        height, width, channels = pixels.shape
        return _kernels.us_normalise(
            _memory(pixels),
            height * width,
            channels,
            _memory(scale),
            _memory(offset),
            _memory(out),
            self._level,
        )
