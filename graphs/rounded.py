"""A model with a codec's rounding written into it: what *full* is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
from onnx import helper

from dataflow.errors import UnderstudyError
from graphs.external import Carry
from graphs.onnx_model import Model
from graphs.split import Segment, front, needed, whole

OPSET_INT8 = 11  # the first with DynamicQuantizeLinear


def with_codec(
    model: Model,
    cuts: Sequence[Sequence[str]],
    outputs: Sequence[str],
    codec: str,
    given: Sequence[str] = (),
) -> Segment:
    """Return a model with the rounding of a codec written in at its cuts.

    It is what a split model with that codec computes, in one file: the reference that
    answers called *full* are compared with. Only what lies behind a cut reads its
    rounded tensors.

    Args:
        model: The model that is cut.
        cuts: In dataflow order: names of the tensors that cross; those of type float32
            are rounded.
        outputs: What is used of the model.
        codec: ``float16`` (cast there and back) or ``int8`` (quantised with the scale
            and zero point of each tensor, as DynamicQuantizeLinear does).
        given: Where the part of the model starts that is wanted; else at its inputs.

    Raises:
        UnderstudyError: The model's operator set is too old for the codec.
    """
    opset = max(o.version for o in model.proto.opset_import if not o.domain)
    if codec == "int8" and opset < OPSET_INT8:
        raise UnderstudyError(
            f"model {model.where}: operator set {opset} has no DynamicQuantizeLinear, "
            f"which codec int8 needs; export it with {OPSET_INT8} or later"
        )
    renamed: dict[str, dict[str, str]] = {}
    """Tensor that a node behind a cut makes -> names of what it reads."""
    rounding: dict[str, list[onnx.NodeProto]] = {}
    handed: dict[str, str] = {}
    """Tensor that crosses -> its name as the last cut handed it on."""
    for index, cut in enumerate(cuts):
        names: dict[str, str] = {}
        for name in cut:
            if model.tensor(name).token.dtype == "float32":
                new = f"{name}_{codec}" + (f"_{index}" if index else "")
                made = _round(handed.get(name, name), new, codec)
                rounding.setdefault(name, []).extend(made)
                names[name] = handed[name] = new
        for behind in _made_behind(model, cuts, index, outputs, given):
            renamed[behind] = names
    segment = whole(model, outputs, given)

    def build(carry: Carry) -> bytes:
        return _rounded(segment.build(carry), renamed, rounding)

    return replace(segment, build=build)


def _made_behind(
    model: Model,
    cuts: Sequence[Sequence[str]],
    index: int,
    outputs: Sequence[str],
    given: Sequence[str],
) -> set[str]:
    """Return what is made between a cut and the next one, or the end."""
    before = front(model, cuts[index], outputs, given)
    behind = [name for name in outputs if name not in before]
    if index + 1 < len(cuts):
        then = cuts[index + 1]
        behind = [*front(model, then, behind, given), *then]
    nodes = needed(model, behind, (*cuts[index], *given))
    return {name for node in nodes for name in model.nodes[node].output} - {""}


def _rounded(
    data: bytes,
    renamed: Mapping[str, Mapping[str, str]],
    rounding: Mapping[str, Sequence[onnx.NodeProto]],
) -> bytes:
    """Return a model in which the makers of `renamed` read rounded tensors."""
    proto = onnx.load_model_from_string(data)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for given in proto.graph.input:
        proto.graph.node.extend(rounding.get(given.name, ()))
    for node in nodes:
        for name in node.output:
            if name in renamed:
                _rename(node, renamed[name])
                break
        proto.graph.node.append(node)
        for name in node.output:
            proto.graph.node.extend(rounding.get(name, ()))
    return bytes(proto.SerializeToString(deterministic=True))


def _round(name: str, rounded: str, codec: str) -> list[onnx.NodeProto]:
    if codec == "float16":
        half = f"{rounded}_half"
        return [
            helper.make_node("Cast", [name], [half], to=onnx.TensorProto.FLOAT16),
            helper.make_node("Cast", [half], [rounded], to=onnx.TensorProto.FLOAT),
        ]
    parts = [f"{rounded}_{part}" for part in ("codes", "scale", "zero")]
    return [
        helper.make_node("DynamicQuantizeLinear", [name], parts),
        helper.make_node("DequantizeLinear", parts, [rounded]),
    ]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Make `node` and its subgraphs read other tensors."""
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            shadowed = {i.name for i in graph.input}
            inner = {a: b for a, b in names.items() if a not in shadowed}
            for child in graph.node:
                _rename(child, inner)
            for output in graph.output:
                output.name = inner.get(output.name, output.name)
