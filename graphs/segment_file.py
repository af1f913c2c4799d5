"""The ONNX file of a part of a model."""

from collections.abc import Collection, Iterable

import onnx
from onnx import helper

from dataflow.errors import UnderstudyError
from graphs.external import Carry, is_external, nested
from graphs.inference import IR_VERSION_MIN
from graphs.onnx_model import Model


def copy_name(tensor: str) -> str:
    """Return the name under which a segment hands on one of its own inputs.

    An output of an ONNX graph may not share the name of an input.
    """
    return f"{tensor}_copy"


def segment_file(
    model: Model,
    nodes: Iterable[int],
    inputs: Iterable[str],
    made: Iterable[str],
    copied: Collection[str],
    read: Collection[str],
    carry: Carry,
) -> bytes:
    """Return the ONNX file of a segment.

    Args:
        model: What it is a part of.
        nodes: Indices of its nodes, ascending.
        inputs: Tensors that it takes.
        made: Tensors that it makes.
        copied: Those of `made` that are among `inputs`.
        read: All that its nodes read.
        carry: Gives weights as the file is to hold them.

    Raises:
        UnderstudyError: It would be larger than one file can be.
    """
    proto = onnx.ModelProto(
        ir_version=max(model.proto.ir_version, IR_VERSION_MIN),
        producer_name="understudy",
        doc_string=model.proto.doc_string,
    )
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.metadata_props.extend(model.proto.metadata_props)
    graph = proto.graph
    graph.name = model.proto.graph.name or "graph"
    graph.doc_string = model.proto.graph.doc_string
    graph.node.extend(model.nodes[index] for index in nodes)
    for name in copied:
        graph.node.append(helper.make_node("Identity", [name], [copy_name(name)]))
    _copy_weights(model, graph, read, carry)
    if model.weights_in_nodes:
        for tensor in filter(is_external, nested(proto)):
            # Without a name: two branches may each have their own weight called 'w'.
            name, tensor.name = tensor.name, ""
            tensor.CopyFrom(carry(tensor))
            tensor.name = name
    graph.input.extend(model.written(name) for name in inputs)
    for name in made:
        info = model.written(name)
        info.name = copy_name(name) if name in copied else name
        graph.output.append(info)
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except ValueError:
        raise UnderstudyError(
            f"model {model.where}: a part of it is larger than 2 GB, which one ONNX "
            "file cannot hold; cut it into smaller parts"
        ) from None


def _copy_weights(
    model: Model, graph: onnx.GraphProto, read: Collection[str], carry: Carry
) -> None:
    source = model.proto.graph
    wanted = set(read)
    if source.quantization_annotation:
        known = wanted.union(*(node.output for node in graph.node))
        notes = [a for a in source.quantization_annotation if a.tensor_name in known]
        graph.quantization_annotation.extend(notes)
        # What an annotation names must be there, though no node reads it.
        for note in notes:
            wanted.update(entry.value for entry in note.quant_parameter_tensor_names)
    graph.initializer.extend(
        carry(tensor) for name, tensor in model.initializers.items() if name in wanted
    )
    graph.sparse_initializer.extend(
        t for t in source.sparse_initializer if t.values.name in wanted
    )
