"""Tensor codecs and pixel normalisation: C kernels, NumPy where C was not to be had.

All arrays are C-contiguous; outputs are written in full, have as many elements as the
input, and share no memory with it. No alignment is needed. A wrong argument raises
ValueError before anything is written. The kernels release the GIL and may run from any
number of threads.
"""

import os
from typing import Protocol

import numpy as np
import numpy.typing as npt

from native import reference
from native.reference import F16, F32, U8

__all__ = [
    "IMPLEMENTATION",
    "dequantise",
    "fallback_reason",
    "normalise",
    "quantise",
    "to_float16",
    "to_float32",
]


class _Backend(Protocol):
    """What `native.compiled.Compiled` and `native.reference` both are."""

    @property
    def name(self) -> str: ...
    def quantise(self, x: F32, out: U8) -> tuple[float, int, int]: ...
    def dequantise(self, q: U8, scale: float, zero_point: int, out: F32) -> int: ...
    def to_float16(self, x: F32, out: F16) -> int: ...
    def to_float32(self, h: F16, out: F32) -> int: ...
    def normalise(self, pixels: U8, scale: F32, offset: F32, out: F32) -> int: ...


def _choose() -> tuple[_Backend, str | None]:
    """Return the kernels to use and, if they are the reference, why."""
    if os.environ.get("UNDERSTUDY_NATIVE") == "reference":
        return reference, "UNDERSTUDY_NATIVE=reference"
    try:
        from native.compiled import Compiled
    except ImportError as error:
        return reference, f"no C extension: {error}"
    return Compiled(), None


_chosen = _choose()
_backend: _Backend = _chosen[0]

IMPLEMENTATION: str = _backend.name
"""What runs: "C (avx512f)", "C (avx2)", "C (neon)", ... or "NumPy reference"."""

fallback_reason: str | None = _chosen[1]
"""Why the reference runs, for a warning; None if the C kernels do.

UNDERSTUDY_NATIVE=reference in the environment forces it.
"""

_FLOAT32 = np.dtype(np.float32)
_FLOAT16 = np.dtype(np.float16)
_UINT8 = np.dtype(np.uint8)
_FLOAT32_MAX = float(np.finfo(np.float32).max)

_Array = npt.NDArray[np.generic]


def quantise(x: F32, out: U8) -> tuple[float, int]:
    """Write x as uint8 codes; return their scale and zero point.

    The arithmetic of ONNX DynamicQuantizeLinear (opset 11), bit for bit:

        scale      = (max(0, max x) - min(0, min x)) / 255
        zero_point = saturate(round_half_even(-min(0, min x) / scale))
        out        = saturate(round_half_even(x / scale) + zero_point)

    NaN does not count for the range and becomes code 0, as in onnxruntime on x86-64. If
    the scale would be 0 (x is empty, all zero or NaN, or spans less than 1.8e-43),
    scale is 1.0 and zero_point 0; onnxruntime agrees except on the last of these, where
    its scale is 0.

    Args:
        x: float32, any shape.
        out: uint8, as many elements.

    Raises:
        ValueError: An argument is wrong, or x holds an infinity or spans more than a
            float32 can say; out is untouched.

    >>> codes = np.empty(3, np.uint8)
    >>> quantise(np.array([-1.0, 0.0, 1.55], np.float32), codes)
    (0.009999999776482582, 100)
    >>> codes
    array([  0, 100, 255], dtype=uint8)
    """
    _check("native.quantise", x, _FLOAT32, out, _UINT8)
    scale, zero_point, status = _backend.quantise(x, out)
    if status:
        raise _failure("native.quantise", status)
    return scale, zero_point


def dequantise(q: U8, scale: float, zero_point: int, out: F32) -> None:
    """Write (q - zero_point) * scale, as ONNX DequantizeLinear.

    Args:
        q: uint8, any shape.
        scale: A float32 value, finite.
        zero_point: 0..255.
        out: float32, as many elements.
    """
    _check("native.dequantise", q, _UINT8, out, _FLOAT32)
    if not -_FLOAT32_MAX <= scale <= _FLOAT32_MAX:
        raise ValueError(
            f"native.dequantise: scale {scale} is not a finite float32; "
            f"use what quantise returned"
        )
    if not 0 <= zero_point <= 255:
        raise ValueError(
            f"native.dequantise: zero_point {zero_point} is not within 0..255; "
            f"use what quantise returned"
        )
    status = _backend.dequantise(q, scale, zero_point, out)
    if status:
        raise _failure("native.dequantise", status)


def to_float16(x: F32, out: F16) -> None:
    """Write x rounded half to even to float16.

    Beyond the range it becomes infinity, subnormals are kept, NaN stays NaN (its
    payload is unspecified). Never warns.
    """
    _check("native.to_float16", x, _FLOAT32, out, _FLOAT16)
    status = _backend.to_float16(x, out)
    if status:
        raise _failure("native.to_float16", status)


def to_float32(h: F16, out: F32) -> None:
    """Write h as float32, exactly; NaN stays NaN (its payload is unspecified)."""
    _check("native.to_float32", h, _FLOAT16, out, _FLOAT32)
    status = _backend.to_float32(h, out)
    if status:
        raise _failure("native.to_float32", status)


def normalise(pixels: U8, scale: F32, offset: F32, out: F32) -> None:
    """Write pixels as float32 planes: out[c] = pixels[..., c] * scale[c] + offset[c].

    Product and sum are rounded one after the other, without a fused multiply-add: the
    result equals NumPy's bit for bit on every CPU.

    Args:
        pixels: uint8 [height, width, channels].
        scale: float32 [channels].
        offset: float32 [channels].
        out: float32 [channels, height, width].
    """
    where = "native.normalise"
    _check(where, pixels, _UINT8, out, _FLOAT32)
    if pixels.ndim != 3:
        raise ValueError(
            f"{where}: pixels have shape {pixels.shape}; "
            f"make them [height, width, channels]"
        )
    height, width, channels = pixels.shape
    if out.shape != (channels, height, width):
        raise ValueError(
            f"{where}: out has shape {out.shape} for pixels {pixels.shape}; "
            f"make it {(channels, height, width)}"
        )
    for name, array in (("scale", scale), ("offset", offset)):
        _check_layout(where, name, array, _FLOAT32)
        if array.shape != (channels,):
            raise ValueError(
                f"{where}: {name} has shape {array.shape} for {channels} channels; "
                f"make it {(channels,)}"
            )
    status = _backend.normalise(pixels, scale, offset, out)
    if status:
        raise _failure(where, status)


def _check(
    where: str,
    source: _Array,
    source_dtype: np.dtype[np.generic],
    out: _Array,
    out_dtype: np.dtype[np.generic],
) -> None:
    """Raise ValueError unless a kernel may read source and write out."""
    _check_layout(where, "the input", source, source_dtype)
    _check_layout(where, "out", out, out_dtype)
    if not out.flags.writeable:
        raise ValueError(f"{where}: out is read-only; pass an array of your own")
    if source.size != out.size:
        raise ValueError(
            f"{where}: the input has {source.size} elements, out has {out.size}; "
            f"make out as large"
        )


def _check_layout(
    where: str, name: str, array: _Array, dtype: np.dtype[np.generic]
) -> None:
    if array.dtype != dtype:
        raise ValueError(
            f"{where}: {name} has dtype {array.dtype}; convert it to {dtype} first"
        )
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{where}: {name} of shape {array.shape} has strides {array.strides}; "
            f"make it C-contiguous (np.ascontiguousarray)"
        )


def _failure(where: str, status: int) -> ValueError:
    if status == reference.RANGE:
        return ValueError(
            f"{where}: the input holds an infinity, or spans more than "
            f"{_FLOAT32_MAX:.3g}; clip it first"
        )
    return ValueError(
        f"{where}: the input and out share memory; pass a separate array for out"
    )
