"""Models of a few nodes, and every cut of them made, run and compared."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphs.cuts import cuts
from graphs.onnx_model import Model
from graphs.split import split
from understudy.segment_folder import inputs_for, write_parts

Shape = list[int | str]
Written = Callable[[onnx.ModelProto], Path]
N = 4
EYE = np.eye(N, dtype=np.float32) + np.float32(0.25)


def node(op: str, read: Sequence[str], made: Sequence[str], **given: Any) -> Any:
    return helper.make_node(op, read, made, **given)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: Sequence[str] = ("y",),
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    elem_type: int = TensorProto.FLOAT,
    **given: Any,
) -> onnx.ModelProto:
    """Return a model; its outputs are declared without a shape."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, elem_type, s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    imports = [
        helper.make_opsetid(d, v)
        for d, v in (("", opset), ("com.microsoft", 1), ("local", 1))
    ]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8, **given)
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output
    for declared, found in zip(proto.graph.output, inferred, strict=True):
        declared.CopyFrom(found)
        if not declared.type.HasField("tensor_type"):
            declared.type.tensor_type.elem_type = TensorProto.FLOAT
    return proto


def cut_everywhere(path: Path, sizes: dict[str, int] | None = None) -> list[str]:
    """Cut at every place where one tensor separates, write, run and compare.

    Returns:
        The tensors.
    """
    model = Model.read(path, sizes)
    given = inputs_for(model, None)
    alone = [c.tensors for c in cuts(model) if len(c.tensors) == 1 and c.bytes]
    for names in alone:
        segments = split(model, names, model.outputs).segments
        write_parts(segments, path.parent / "parts", given)
    return [name for (name,) in alone]


def file_of(path: Path, number: int) -> onnx.ModelProto:
    return onnx.load(path.parent / "parts" / f"segment-{number}.onnx")
