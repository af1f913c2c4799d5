"""Reading the file of a model: without its weights in other files, sizes settled."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import onnx

from dataflow.errors import MisuseError, UnderstudyError
from graphs import external
from graphs.inference import dims_of, inferred
from graphs.nodes import reads
from graphs.sizes import settle

_FILE_BYTES_MAX = 2**31 - 1
"""What protobuf can read."""
_BOUND_DOMAIN = "com.microsoft.nchwc"
"""Operators on a layout of tensors that fits one kind of processor."""


def read_proto(
    path: Path, sizes: Mapping[str, int]
) -> tuple[onnx.ModelProto, Callable[[], str]]:
    """Return the model in a file, and what returns the SHA-256 of all that it holds.

    Args:
        path: The file.
        sizes: For open dimensions of its inputs.

    Raises:
        MisuseError: There is no such file, or no such open dimension.
        UnderstudyError: It is not an ONNX model that can be run.
    """
    raw = _content(path)
    try:
        proto = onnx.load_model_from_string(raw)
    except Exception:  # protobuf's DecodeError says nothing that helps
        raise UnderstudyError(
            f"model {path}: not an ONNX file; export the network as ONNX"
        ) from None
    if not proto.graph.node or not proto.graph.output:
        raise UnderstudyError(
            f"model {path}: has no nodes or no outputs; export the network as ONNX"
        )
    _check_portable(proto, path)
    _check_order(proto.graph, path)
    _clear_repeated_names(proto.graph)
    digest = hashlib.sha256(raw)
    try:
        regions = _located(proto, path.parent)
    except UnderstudyError as error:
        raise UnderstudyError(f"model {path}: {error}") from None
    if sizes:
        _fix(proto, sizes, str(path))
        digest.update(repr(sorted(sizes.items())).encode())
    inputs = inputs_of(proto)

    def shapes() -> Mapping[str, list[int | str]]:
        infos = inferred(proto, inputs, str(path), freeze=False)
        found = {name: dims_of(info) for name, info in infos.items()}
        return {name: dims for name, dims in found.items() if dims is not None}

    settle(proto, shapes)
    return proto, partial(_finished, digest, regions)


def _check_portable(proto: onnx.ModelProto, path: Path) -> None:
    for node in proto.graph.node:
        if node.domain == _BOUND_DOMAIN:
            raise UnderstudyError(
                f"model {path}: was optimised by onnxruntime for one kind of processor "
                f"({node.op_type} of {_BOUND_DOMAIN}); give the model as it was "
                "exported"
            )


def _check_order(graph: onnx.GraphProto, path: Path) -> None:
    """Check that each tensor is made once, and before it is read."""
    made = {name for node in graph.node for name in node.output if name}
    done: set[str] = set()
    for node in graph.node:
        late = next((n for n in reads(node) if n in made and n not in done), None)
        again = next((n for n in node.output if n in done), None)
        if late or again:
            wrong = (
                f"'{late}' is read before it is made"
                if late
                else f"'{again}' is made twice"
            )
            raise UnderstudyError(
                f"model {path}: tensor {wrong}; that is not valid ONNX, export it again"
            )
        done.update(name for name in node.output if name)


def _clear_repeated_names(graph: onnx.GraphProto) -> None:
    """Take the names of nodes away that others have too: no runtime would load them.

    Nodes are told apart by what they make.
    """
    seen: set[str] = set()
    for node in graph.node:
        if node.name in seen:
            node.name = ""
        seen.add(node.name)


def _located(proto: onnx.ModelProto, folder: Path) -> list[external.Region]:
    """Return where the weights lie that are in other files; take in small ones."""
    tensors = (*proto.graph.initializer, *external.nested(proto))
    apart = [tensor for tensor in tensors if external.is_external(tensor)]
    regions = [external.region(tensor, folder) for tensor in apart]
    for tensor in apart:
        if external.nbytes(tensor) <= external.INLINE_BYTES_MAX:
            tensor.CopyFrom(external.inlined(tensor, folder))
    return regions


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise UnderstudyError(
                f"model {path}: is larger than 2 GB, which no ONNX file can be; "
                "export it with its weights as external data"
            )
        return path.read_bytes()
    except OSError as error:
        raise MisuseError(
            f"model {path}: cannot be read ({error.strerror}); "
            "name a file that is there"
        ) from None


def _finished(digest: "hashlib._Hash", regions: Iterable[external.Region]) -> str:
    """Return the digest of the model's file and of its external data."""
    whole = digest.copy()
    for region in regions:
        for piece in region.pieces():
            whole.update(piece)
    return whole.hexdigest()


def inputs_of(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the inputs that are no weights; IR version 3 lists those as well."""
    graph = proto.graph
    weights = {t.name for t in graph.initializer}
    weights |= {t.values.name for t in graph.sparse_initializer}
    return tuple(i.name for i in graph.input if i.name not in weights)


def open_dims(
    graph: onnx.GraphProto, inputs: Collection[str]
) -> dict[str, tuple[int, onnx.TensorShapeProto.Dimension]]:
    """Return open dimensions of inputs, with their axes, by their names.

    One without a name is called ``input:axis``.
    """
    return {
        dim.dim_param or f"{info.name}:{axis}": (axis, dim)
        for info in graph.input
        if info.name in inputs
        for axis, dim in enumerate(info.type.tensor_type.shape.dim)
        if not dim.HasField("dim_value")
    }


def _fix(proto: onnx.ModelProto, sizes: Mapping[str, int], where: str) -> None:
    """Give open dimensions of the inputs a size, and those of the same name."""
    graph = proto.graph
    dims = open_dims(graph, inputs_of(proto))
    for name, size in sizes.items():
        if name not in dims:
            raise MisuseError(
                f"dimension '{name}': not open in an input of {where}; open are: "
                f"{', '.join(dims) or 'none'}"
            )
        dims[name][1].dim_value = size
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
