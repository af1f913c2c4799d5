"""Each kernel in NumPy: what the C must equal bit for bit, and its stand-in.

Arguments were checked in `native/__init__.py`. Return values are those of the C: a
status, after the results if there are any.
"""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F16 = npt.NDArray[np.float16]
U8 = npt.NDArray[np.uint8]

OK, RANGE, OVERLAP = 0, 1, 2
"""The statuses of `dispatch.h`."""

name = "NumPy reference"


def quantise(x: F32, out: U8) -> tuple[float, int, int]:
    """Return scale, zero point and status; see `quantise.h`."""
    if np.may_share_memory(x, out):
        return 1.0, 0, OVERLAP
    with np.errstate(all="ignore"):
        numbers = np.where(np.isnan(x), np.float32(0), x)  # fmin heeds signalling NaN
        low = np.min(numbers, initial=np.float32(0))
        high = np.max(numbers, initial=np.float32(0))
        scale = (high - low) / np.float32(255)
        if not np.isfinite(scale):
            return 1.0, 0, RANGE
        if scale == 0:
            scale = np.float32(1)
        zero_point = np.rint(np.fmin(-low / scale, np.float32(255)))
        codes = np.rint(x / scale) + zero_point
        np.copyto(out, _clipped(codes).reshape(out.shape), casting="unsafe")
    return float(scale), int(zero_point), OK


def _clipped(codes: F32) -> F32:
    """Return the codes within 0..255, NaN as 0."""
    return np.fmin(np.fmax(codes, np.float32(0)), np.float32(255))


def dequantise(q: U8, scale: float, zero_point: int, out: F32) -> int:
    """Write (q - zero_point) * scale; see `quantise.h`."""
    if np.may_share_memory(q, out):
        return OVERLAP
    with np.errstate(all="ignore"):
        steps = (q.astype(np.int32) - zero_point).astype(np.float32)
        np.multiply(steps.reshape(out.shape), np.float32(scale), out=out)
    return OK


def to_float16(x: F32, out: F16) -> int:
    """Write x rounded half to even; see `float16.h`."""
    if np.may_share_memory(x, out):
        return OVERLAP
    with np.errstate(all="ignore"):
        np.copyto(out, x.reshape(out.shape), casting="unsafe")
    return OK


def to_float32(h: F16, out: F32) -> int:
    """Write h, exactly; see `float16.h`."""
    if np.may_share_memory(h, out):
        return OVERLAP
    with np.errstate(all="ignore"):
        np.copyto(out, h.reshape(out.shape))
    return OK


def normalise(pixels: U8, scale: F32, offset: F32, out: F32) -> int:
    """Write planes of pixel * scale + offset; see `normalise.h`."""
    if np.may_share_memory(pixels, out):
        return OVERLAP
    with np.errstate(all="ignore"):
        np.multiply(pixels.transpose(2, 0, 1), scale[:, None, None], out=out)
        np.add(out, offset[:, None, None], out=out)
    return OK
