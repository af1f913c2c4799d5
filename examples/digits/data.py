"""The digits, their fixed split and the network's input."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FOLDER = Path(__file__).resolve().parents[2] / "graphs" / "digits"
SEED = 1
TEST_IMAGES = 500
SCALE = 1 / 16  # pixels are 0..16; the offset is zero


def network_input(images: Bytes) -> Floats:
    """Return float32 [N, 1, 8, 8] in 0..1 of uint8 [N, 8, 8, 1] pixels 0..16."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) * np.float32(SCALE)


def split() -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Return training images, test images (uint8 [N, 8, 8, 1]) and their digits."""
    flat, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        flat.astype(np.uint8).reshape(-1, 8, 8, 1),
        digits.astype(np.uint8),
        test_size=TEST_IMAGES,
        stratify=digits,
        random_state=SEED,
    )
    return train_x, test_x, train_y, test_y
