"""Sets of pictures of one size: an npz archive, or a folder of image files."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dataflow.errors import UnderstudyError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
)
PRELOAD_BYTES = 256 * 1024 * 1024
"""A folder whose pixels take more is decoded picture by picture, at each firing."""

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Frames(Protocol):
    """Pictures by index, each uint8 [H, W, C]; an array [n, H, W, C] is one."""

    def __getitem__(self, index: int, /) -> Pixels: ...


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is known of a set before its pixels are read."""

    path: Path
    count: int
    shape: tuple[int, int, int]
    """H, W, C; C is 1 or 3 when the pictures come from files."""
    labelled: bool
    files: tuple[Path, ...] = ()
    """Image files in order; empty for an archive."""


def look(path: Path) -> Pictures:
    """Return what the set at `path` is, from headers alone.

    Raises:
        UnderstudyError: Nothing there, or nothing that can be shown as pictures.
    """
    if path.is_dir():
        return _look_folder(path)
    if not path.exists():
        raise UnderstudyError(
            f"{path}: no such file; name an .npz archive or a folder of images"
        )
    return _look_archive(path)


def load(pictures: Pictures) -> tuple[Frames, Labels | None]:
    """Return the pictures, read-only, and their labels if they have any.

    Raises:
        UnderstudyError: Data that cannot be read, or pictures of different sizes.
    """
    if not pictures.files:
        return _load_archive(pictures)
    labels = _folder_labels(pictures) if pictures.labelled else None
    folder = _Folder(pictures)
    size = pictures.count * int(np.prod(pictures.shape))
    if size > PRELOAD_BYTES:
        return folder, labels
    frames = np.stack([folder[k] for k in range(pictures.count)])
    frames.setflags(write=False)
    return frames, labels


def _look_archive(path: Path) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if "x.npy" not in members:
                names = ", ".join(m.removesuffix(".npy") for m in members) or "nothing"
                raise UnderstudyError(
                    f"{path}: holds {names} and no 'x'; "
                    "save the pictures as np.savez(path, x=..., y=...)"
                )
            shape, dtype = _header(archive, "x.npy")
            labels = _header(archive, "y.npy") if "y.npy" in members else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    if dtype != np.uint8 or len(shape) not in (3, 4) or 0 in shape:
        raise UnderstudyError(
            f"{path}: x is {dtype}{list(shape)}; it must be uint8 [n,H,W,C] or [n,H,W]"
        )
    if labels is not None and (
        labels[0] != shape[:1] or not np.issubdtype(labels[1], np.integer)
    ):
        raise UnderstudyError(
            f"{path}: y is {labels[1]}{list(labels[0])}; "
            f"it must hold {shape[0]} integers, one a picture"
        )
    height, width, channels = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
    return Pictures(path, shape[0], (height, width, channels), labels is not None)


def _header(
    archive: zipfile.ZipFile, member: str
) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(file)
        return shape, dtype


def _load_archive(pictures: Pictures) -> tuple[Frames, Labels | None]:
    try:
        with np.load(pictures.path, allow_pickle=False) as archive:
            frames = np.ascontiguousarray(archive["x"])
            labels = archive["y"].astype(np.int64) if pictures.labelled else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(pictures.path, error) from None
    if frames.size != pictures.count * np.prod(pictures.shape):
        raise UnderstudyError(f"{pictures.path}: changed while it was read; try again")
    frames = frames.reshape(pictures.count, *pictures.shape)
    for array in (frames, labels):
        if array is not None:
            array.setflags(write=False)
    return frames, labels


def _look_folder(path: Path) -> Pictures:
    flat = _image_files(path)
    nested = tuple(
        file
        for sub in sorted(path.iterdir())
        if sub.is_dir()
        for file in _image_files(sub)
    )
    if flat and nested:
        raise UnderstudyError(
            f"{path}: has images beside folders of images ('{flat[0].name}', "
            f"'{nested[0].parent.name}/'); keep either, folder names are the labels"
        )
    files = flat or nested
    if not files:
        raise UnderstudyError(
            f"{path}: holds no image; looked for {', '.join(sorted(SUFFIXES))} "
            "in it and in its folders"
        )
    with _opened(files[0]) as image:
        channels = 1 if image.mode in ("1", "L") else 3
        shape = (image.height, image.width, channels)
    return Pictures(path, len(files), shape, bool(nested), files)


def _image_files(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    )


def _folder_labels(pictures: Pictures) -> Labels:
    """Return each picture's label: the index of its folder's name, sorted."""
    names = sorted({file.parent.name for file in pictures.files})
    return np.array(
        [names.index(file.parent.name) for file in pictures.files], np.int64
    )


@dataclass(frozen=True, slots=True)
class _Folder:
    """Decodes a picture each time it is asked for, into memory of its own."""

    pictures: Pictures

    def __getitem__(self, index: int, /) -> Pixels:
        file = self.pictures.files[index]
        height, width, channels = self.pictures.shape
        with _opened(file) as image:
            if (image.height, image.width) != (height, width):
                raise UnderstudyError(
                    f"{file}: is {image.width}x{image.height}, the first picture of "
                    f"its set is {width}x{height}; make them one size"
                )
            try:
                pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
            except OSError as error:
                raise _unreadable(file, error) from None
        return pixels.reshape(self.pictures.shape)


def _opened(file: Path) -> "Image":
    try:
        from PIL import Image
    except ImportError:
        raise UnderstudyError(
            f"{file}: reading image files needs Pillow; pip install pillow, "
            "or save the pictures as an .npz archive"
        ) from None
    try:
        return Image.open(file)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(path: Path, error: Exception) -> UnderstudyError:
    return UnderstudyError(f"{path}: cannot be read as pictures ({error})")
