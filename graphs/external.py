"""Weights that lie in other files than the model: found safely, read late, shared.

A model with external data is read without its weights. To cut it needs none of them;
a segment that is one file takes in those that it reads, and segments that are written
together refer to one file that holds each weight once.

A model may come from anywhere, so the places that it names are not believed: they must
be regular files in its own folder, and hold what they are said to hold.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, helper, numpy_helper

from dataflow.errors import UnderstudyError

Carry = Callable[[TensorProto], TensorProto]
"""Returns a weight as a file of a model is to hold it."""

INLINE_BYTES_MAX = 4096
"""Up to here weights stay in the model: shapes are inferred from such values."""
_ALIGNED = 4096
"""Weights begin at multiples of this, so that they can be mapped into memory."""
_PIECE_BYTES = 1 << 24
_HALF_BYTES = {"INT4", "UINT4", "FLOAT4E2M1"}


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of a file, as it was at some moment."""

    path: Path
    offset: int
    length: int
    changed_ns: int
    """When the file was written to last."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, not all at once.

        Raises:
            UnderstudyError: The file was changed, or is gone.
        """
        left = self.length
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mtime_ns != self.changed_ns:
                    raise UnderstudyError(
                        f"{self.path}: was changed since the model was read; try again"
                    )
                file.seek(self.offset)
                while left and (piece := file.read(min(left, _PIECE_BYTES))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise UnderstudyError(
                f"{self.path}: cannot be read ({error.strerror}); put the weights back"
            ) from None
        if left:
            raise UnderstudyError(
                f"{self.path}: ends {left} bytes too early; the file was changed"
            )


def is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def region(tensor: TensorProto, folder: Path) -> Region:
    """Return where the data of an external tensor lies.

    Args:
        tensor: Of a model.
        folder: Of the model's file.

    Raises:
        UnderstudyError: The place is outside of the folder, is no file, is too short or
            of another size than the tensor.
    """
    where = f"weight '{tensor.name}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    size = nbytes(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size)
    except ValueError:
        offset = length = -1
    if offset < 0 or length != size:
        raise UnderstudyError(
            f"{where}: its external data is said to be {entries.get('length')} bytes "
            f"from {entries.get('offset', 0)} on, the tensor has {size} bytes; "
            "export the model again"
        )
    path = _inside(folder, location, where)
    status = path.stat()
    if offset + length > status.st_size:
        raise UnderstudyError(
            f"{where}: ends at byte {offset + length} of {path}, which has "
            f"{status.st_size}; the file is damaged, copy it again"
        )
    return Region(path, offset, length, status.st_mtime_ns)


def _inside(folder: Path, location: str, where: str) -> Path:
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(root):
        raise UnderstudyError(
            f"{where}: its external data is at '{location}', which is outside of the "
            "model's folder; such a model is not read, keep weights beside the model"
        )
    if not path.is_file():
        raise UnderstudyError(
            f"{where}: its external data is in '{location}', which is not in "
            f"{folder}; put the weights beside the model"
        )
    return path


def nbytes(tensor: TensorProto) -> int:
    """Return the size of a tensor's data as a raw array."""
    count = int(math.prod(tensor.dims))
    if TensorProto.DataType.Name(tensor.data_type) in _HALF_BYTES:
        return (count + 1) // 2
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def nested(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors in attributes: constants, and weights of subgraphs."""
    for node in proto.graph.node:
        yield from _of_node(node)
    for function in proto.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        graphs = (attribute.g,) if attribute.HasField("g") else attribute.graphs
        for graph in graphs:
            yield from graph.initializer
            for inner in graph.node:
                yield from _of_node(inner)


def inlined(tensor: TensorProto, folder: Path) -> TensorProto:
    """Return a tensor with its data in it.

    Raises:
        UnderstudyError: As `region` does.
    """
    if not is_external(tensor):
        return tensor
    made = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        doc_string=tensor.doc_string,
    )
    made.raw_data = b"".join(region(tensor, folder).pieces())
    return made


class SharedWeights:
    """A file that holds each weight of a model once, for all its segments.

    Args:
        file: Open for writing, empty.
        name: Of the file, as segments are to name it: they lie beside it.
        folder: Of the model, for weights that are outside of it already.
    """

    def __init__(self, file: BinaryIO, name: str, folder: Path) -> None:
        self._file = file
        self._name = name
        self._folder = folder
        self._placed: dict[str, TensorProto] = {}

    def carry(self, tensor: TensorProto) -> TensorProto:
        """Return a reference to a weight, which is in the file from now on.

        Small ones, and text, are returned as they are.

        Raises:
            UnderstudyError: As `region` does.
        """
        if not tensor.name:  # of an attribute: nothing tells it from another
            return self._kept(tensor)
        if tensor.name not in self._placed:
            self._placed[tensor.name] = self._kept(tensor)
        return self._placed[tensor.name]

    def _kept(self, tensor: TensorProto) -> TensorProto:
        if tensor.data_type == TensorProto.STRING or nbytes(tensor) <= INLINE_BYTES_MAX:
            return inlined(tensor, self._folder)
        return self._written(tensor)

    def _written(self, tensor: TensorProto) -> TensorProto:
        offset = -(-self._file.tell() // _ALIGNED) * _ALIGNED
        self._file.seek(offset)
        if is_external(tensor):
            for piece in region(tensor, self._folder).pieces():
                self._file.write(piece)
        else:
            self._file.write(tensor.raw_data or numpy_helper.to_array(tensor).tobytes())
        places: Mapping[str, object] = {
            "location": self._name,
            "offset": offset,
            "length": nbytes(tensor),
        }
        return _reference(tensor, places)


def _reference(tensor: TensorProto, places: Mapping[str, object]) -> TensorProto:
    made = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in places.items():
        made.external_data.add(key=key, value=str(value))
    return made
