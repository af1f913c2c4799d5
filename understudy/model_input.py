"""Input for a model that nobody gave one: seeded, and like what cameras see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from dataflow.errors import MisuseError, UnderstudyError
from graphs.onnx_model import Tensor

_SEED = 1
_IMAGE_RANK = 4

Array = NDArray[Any]


def natural(inputs: Sequence[Tensor]) -> dict[str, Array]:
    """Return a token for each of `inputs`.

    Images ([N, C, H, W]) have the spectrum of natural ones, whose amplitude falls as
    1/f. What is in them changes times little, and what compression makes of the
    features somewhat.
    """
    rng = np.random.default_rng(_SEED)
    return {tensor.name: _token(tensor, rng) for tensor in inputs}


def _token(tensor: Tensor, rng: np.random.Generator) -> Array:
    shape, dtype = tensor.token.shape, np.dtype(tensor.token.dtype)
    values = _image(shape, rng) if len(shape) == _IMAGE_RANK else rng.normal(size=shape)
    if dtype.kind == "u" and dtype.itemsize == 1:
        values = np.clip(values * 50 + 128, 0, 255)
    elif dtype.kind != "f":  # indices into something of unknown size
        values = values > 0
    # Of no dimension it would be a number, which no runtime takes for a tensor.
    token: Array = np.asarray(values, dtype)
    return token


def _image(shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Return an image of mean 0 and deviation 1."""
    height, width = shape[-2:]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    noise = rng.normal(size=(2, *shape[:-2], *frequency.shape))
    image: Array = np.fft.irfft2(
        (noise[0] + 1j * noise[1]) / frequency, (height, width)
    )
    deviation = image.std()
    return image / deviation if deviation else image


def read_input(path: Path, inputs: Sequence[Tensor]) -> dict[str, Array]:
    """Return what the file `path` has for each of `inputs`.

    Args:
        path: A ``.npz`` file with an array called like each input; if there is one
            input and one array, its name is of no account.
        inputs: Of a model. A first axis that is longer holds frames, and the first
            is used.

    Raises:
        MisuseError: It cannot be read, or is no such file.
        UnderstudyError: It lacks an input, or one has another type.
    """
    arrays = read_arrays(path)
    if len(inputs) == len(arrays) == 1:
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    return {tensor.name: _fitting(path, tensor, arrays) for tensor in inputs}


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of the ``.npz`` file `path`.

    Raises:
        MisuseError: It cannot be read, or is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except OSError as error:
        raise MisuseError(
            f"{path}: cannot be read ({error.strerror or error}); name a .npz file"
        ) from None
    except (ValueError, EOFError, BadZipFile, TypeError, AttributeError):
        raise MisuseError(
            f"{path}: not a .npz file of arrays; write one with numpy.savez"
        ) from None


def _fitting(path: Path, tensor: Tensor, arrays: Mapping[str, Array]) -> Array:
    if tensor.name not in arrays:
        raise UnderstudyError(
            f"{path}: has no array '{tensor.name}'; it has {', '.join(arrays)}"
        )
    array, shape = arrays[tensor.name], tensor.token.shape
    if array.ndim == len(shape) and len(array) > 1 == shape[0]:
        array = array[:1]
    if array.dtype != tensor.token.dtype or array.shape != shape:
        raise UnderstudyError(
            f"{path}: array '{tensor.name}' is {array.dtype}{list(array.shape)}, the "
            f"model takes {tensor.token}; give what the model takes"
        )
    return np.ascontiguousarray(array)
