"""What onnx infers of the tensors of a model: their types and shapes.

Inference copies the whole model, so it gets one without the large weights: half a
gigabyte of them has no part in it.
"""

import math
from collections.abc import Collection, Mapping

import onnx
from onnx import helper, shape_inference

from dataflow.errors import UnderstudyError

IR_VERSION_MIN = 4
"""From here on initializers need not be listed as inputs."""
_SMALL_ELEMENTS = 1024
"""Initializers up to this size may hold shapes, which inference must see."""

Infos = Mapping[str, onnx.ValueInfoProto]


def dims_of(info: onnx.ValueInfoProto) -> list[int | str] | None:
    """Return sizes, or names where open; None if not even the rank is known."""
    if not info.type.HasField("tensor_type"):
        return None
    tensor_type = info.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in tensor_type.shape.dim
    ]


def dtype_of(elem_type: int) -> str:
    """Return the NumPy name of an element type of ONNX; "unknown" if it is none."""
    if elem_type == onnx.TensorProto.UNDEFINED:  # not known, or no tensor
        return "unknown"
    if elem_type == onnx.TensorProto.STRING:  # NumPy would call it an object
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)


def inferred(
    proto: onnx.ModelProto, inputs: Collection[str], where: str, *, freeze: bool
) -> Infos:
    """Return the types of all tensors of a model that can be inferred.

    Args:
        proto: The model.
        inputs: Names of those of its inputs that are no weights.
        where: Path of the model, for the message.
        freeze: Take 1 for a first dimension of an input that is open.

    Raises:
        UnderstudyError: The model's own declarations contradict each other.
    """
    model = skeleton(proto, inputs)
    if freeze:
        _freeze(model.graph, inputs)
    try:
        found = shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise UnderstudyError(
            f"model {where}: its shapes contradict each other ({error}); "
            "export it again"
        ) from None
    infos = (*found.value_info, *found.output, *found.input)
    return {info.name: info for info in infos}


def open_batch(proto: onnx.ModelProto, inputs: Collection[str]) -> frozenset[str]:
    """Return the names of open first dimensions of the inputs."""
    infos = (info for info in proto.graph.input if info.name in inputs)
    first = (dims[0] for info in infos if (dims := dims_of(info)))
    return frozenset(dim for dim in first if isinstance(dim, str) and dim)


def _freeze(graph: onnx.GraphProto, inputs: Collection[str]) -> None:
    batch = set()
    for info in graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name in inputs and dims and dims[0].dim_value <= 0:
            batch.add(dims[0].dim_param)
            dims[0].dim_value = 1
    # The declared types of outputs and of what lies between may repeat the open batch;
    # inference would keep that in place of the 1.
    for info in (*graph.output, *graph.value_info, *graph.input):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param in batch:
                dim.dim_value = 1


def skeleton(proto: onnx.ModelProto, inputs: Collection[str]) -> onnx.ModelProto:
    """Return a model with its large weights replaced by inputs of their type."""
    version = max(proto.ir_version, IR_VERSION_MIN)
    model = onnx.ModelProto(ir_version=version)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    graph, source = model.graph, proto.graph
    graph.name = source.name or "graph"
    graph.node.extend(source.node)
    graph.input.extend(info for info in source.input if info.name in inputs)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= _SMALL_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                helper.make_tensor_value_info(
                    tensor.name, tensor.data_type, tensor.dims
                )
            )
    graph.sparse_initializer.extend(source.sparse_initializer)
    return model
