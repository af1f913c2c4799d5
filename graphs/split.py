"""Cut a model at named tensors into a head and a tail, or take it whole.

A segment is found by walking back from what it must produce to what it is given. The
walk of the tail must end at the cut: whatever else it reaches that the head computes
*bypasses* the cut, and the cut is refused with its name. `onnx.utils.Extractor` was not
used: it drops what control flow captures, and returns a tail that lacks an input
without a word.

Segments are made from the model as its author exported it, never from an optimised
one: optimisation renames tensors and binds the file to one kind of processor.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx
from onnx import helper

from dataflow.errors import UnderstudyError
from graphs.onnx_model import IR_VERSION_MIN, Model, Tensor

SPLITTER_VERSION = 1
"""Part of a segment's identity: raise it when the same cut means other nodes."""


_RANDOM = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
_OPSET_INT8 = 11  # the first with DynamicQuantizeLinear


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class Segment:
    """The part of a model between two cuts.

    Attributes:
        made: Names in the model of the tensors that it outputs, in their order. They
            are the outputs' own names, save where a segment hands on its input.
        data: The ONNX file. The same cut of the same model gives the same bytes.
        model_sha256: Of the model that it is a part of.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    made: tuple[str, ...]
    data: bytes
    model_sha256: str

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def identity(self) -> int:
        """What a peer must hold to compute on our tokens (u64).

        Other than `sha256` it does not change with the library that wrote the bytes.
        A tensor cut at layer 7 must never meet the suffix from layer 9, even where the
        shapes agree.
        """
        text = "\n".join(
            (
                f"splitter {SPLITTER_VERSION}",
                f"model {self.model_sha256}",
                *(f"input {t.name} {t.token}" for t in self.inputs),
                *(f"output {t.name} {t.token}" for t in self.outputs),
            )
        )
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Split:
    """Both sides of a cut.

    Attributes:
        cut: The tensors that cross, in the order of the model.
    """

    head: Segment
    tail: Segment
    cut: tuple[Tensor, ...]


def copy_name(tensor: str) -> str:
    """Return the name under which a segment hands on one of its own inputs.

    An output of an ONNX graph may not share the name of an input.
    """
    return f"{tensor}_copy"


def whole(model: Model, outputs: Sequence[str] | None = None) -> Segment:
    """Return `model` as one segment that produces `outputs` (default: its own).

    Raises:
        UnderstudyError: An output is not a tensor of the model, or has no fixed size.
    """
    return _segment(model, (), model.outputs if outputs is None else outputs)


def split(model: Model, cut: Sequence[str], outputs: Sequence[str]) -> Split:
    """Return head and tail of `model`, cut at the tensors `cut`.

    Args:
        model: What to cut.
        cut: Names of tensors. An input of the model may be among them: the head then
            hands it on.
        outputs: What is used of the model: outputs, and tensors tapped inside. Each is
            exported by the head if it can be computed without passing the cut, else
            by the tail.

    Raises:
        UnderstudyError: A tensor is unknown or of open size, or the cut does not
            separate: says what bypasses it.
    """
    for name in cut:
        model.known(name)
    if all(name in model.inputs for name in cut):
        raise UnderstudyError(
            f"cut {_quoted(cut)}: an input of {model.where}, so the head would be "
            "empty; map the whole model to the server instead"
        )
    in_front = front(model, cut, outputs)
    behind = [name for name in outputs if name not in in_front]
    if not behind:
        raise UnderstudyError(
            f"cut {_quoted(cut)}: nothing that is used of {model.where} lies behind "
            "it; cut earlier, or map the whole model to the endpoint"
        )
    cut_names = _in_order(model, cut)
    head_names = _in_order(model, (*cut, *in_front))
    _check_separates(model, cut_names, behind, _walk(model, head_names, ()))
    tail = _segment(model, cut_names, behind)
    unread = set(cut_names) - {tensor.name for tensor in tail.inputs}
    if unread:
        raise UnderstudyError(
            f"cut '{min(unread)}': the tail does not read it; leave it out of the cut"
        )
    return Split(
        head=_segment(model, (), head_names),
        tail=tail,
        cut=tuple(model.tensor(name) for name in cut_names),
    )


def front(model: Model, cut: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return those of `names` that can be computed without passing the cut."""
    head = _walk(model, cut, ())
    behind: set[str] = set()
    for index, node in enumerate(model.nodes):
        reads = model.reads[index]
        if index not in head and any(r in cut or r in behind for r in reads):
            behind.update(node.output)
    return [name for name in names if name not in behind]


def _walk(model: Model, names: Iterable[str], stop: Collection[str]) -> set[int]:
    """Return the indices of the nodes that `names` need, not walking past `stop`."""
    todo = [name for name in names if name not in stop]
    found: set[int] = set()
    while todo:
        index = model.producer.get(todo.pop())
        if index is not None and index not in found:
            found.add(index)
            todo.extend(name for name in model.reads[index] if name not in stop)
    return found


def _check_separates(
    model: Model, cut: Sequence[str], behind: Sequence[str], head_nodes: set[int]
) -> None:
    head_makes = {name for index in head_nodes for name in model.nodes[index].output}
    given = (head_makes | set(model.inputs)) & model.dynamic - set(cut)
    tail_nodes = _walk(model, behind, given | set(cut))
    read = {name for index in tail_nodes for name in model.reads[index]}
    bypassing = _in_order(model, read & given)
    if bypassing:
        both = ", ".join(_in_order(model, (*cut, *bypassing)))
        raise UnderstudyError(
            f"cut {_quoted(cut)}: does not separate {model.where}; "
            f"{_quoted(bypassing)} bypasses it; cut at a tensor behind the place where "
            f"they meet, or at all of [{both}]"
        )
    shared = _walk(model, cut, ()) & _walk(model, behind, cut)
    for index in sorted(shared):
        if model.nodes[index].op_type in _RANDOM:
            raise UnderstudyError(
                f"cut {_quoted(cut)}: both sides would draw the random numbers of "
                f"'{model.nodes[index].output[0]}', and not the same; cut elsewhere"
            )


def _in_order(model: Model, names: Iterable[str]) -> list[str]:
    """Return `names` once each, in the order in which the model makes them."""
    order = dict.fromkeys(model.inputs, -1) | model.producer
    return sorted(dict.fromkeys(names), key=lambda name: (order[name], name))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _segment(model: Model, given: Sequence[str], outputs: Sequence[str]) -> Segment:
    """Return the segment that makes `outputs` from `given` and the model's inputs."""
    for name in outputs:
        model.known(name)
    nodes = _walk(model, outputs, given)
    graph = onnx.GraphProto(name=model.proto.graph.name or "graph")
    read: dict[str, None] = {}
    for index in sorted(nodes):
        graph.node.append(model.nodes[index])
        read |= dict.fromkeys(model.reads[index])
    copied = [name for name in outputs if name in model.inputs]
    for name in copied:
        graph.node.append(helper.make_node("Identity", [name], [copy_name(name)]))
        read[name] = None
    given_once = dict.fromkeys((*model.inputs, *given))
    inputs = [name for name in given_once if name in read]
    _copy_weights(model, graph, read)
    _assert_closed(graph, inputs, read)
    graph.input.extend(model.written(name) for name in inputs)
    for name in outputs:
        info = model.written(name)
        info.name = copy_name(name) if name in copied else name
        graph.output.append(info)
    return Segment(
        inputs=tuple(model.tensor(name) for name in inputs),
        outputs=tuple(
            replace(tensor, name=copy_name(tensor.name))
            if tensor.name in copied
            else tensor
            for tensor in map(model.tensor, outputs)
        ),
        made=tuple(outputs),
        data=_file(model, graph),
        model_sha256=model.sha256,
    )


def _copy_weights(model: Model, graph: onnx.GraphProto, read: Collection[str]) -> None:
    source = model.proto.graph
    graph.initializer.extend(t for t in source.initializer if t.name in read)
    graph.sparse_initializer.extend(
        t for t in source.sparse_initializer if t.values.name in read
    )
    graph.quantization_annotation.extend(
        a for a in source.quantization_annotation if a.tensor_name in read
    )


def _assert_closed(
    graph: onnx.GraphProto, inputs: Iterable[str], read: Iterable[str]
) -> None:
    """Check that what a segment reads is its inputs and weights, and nothing else."""
    made = {name for node in graph.node for name in node.output}
    weights = {t.name for t in graph.initializer}
    sparse = {t.values.name for t in graph.sparse_initializer}
    missing = set(read) - made - weights - sparse - set(inputs)
    # A name that nobody makes is a fault of the model, not of the cut.
    if missing:
        raise UnderstudyError(
            f"tensor '{min(missing)}': read by a node, but nothing makes it; "
            "the model is not valid ONNX"
        )


def _file(model: Model, graph: onnx.GraphProto) -> bytes:
    proto = onnx.ModelProto(
        ir_version=max(model.proto.ir_version, IR_VERSION_MIN),
        producer_name="understudy",
    )
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.graph.CopyFrom(graph)
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except ValueError:
        raise UnderstudyError(
            f"model {model.where}: a part of it is larger than 2 GB, which one ONNX "
            "file cannot hold; cut it into smaller parts"
        ) from None


def with_codec(
    model: Model, cut: Sequence[str], outputs: Sequence[str], codec: str
) -> Segment:
    """Return the whole model with a codec's rounding written in at the cut.

    It is what a split model with that codec computes, in one file: the reference that
    answers called *full* are compared with. Only what lies behind the cut reads the
    rounded tensor.

    Args:
        model: The model that is cut.
        cut: Names of the tensors that cross; those of type float32 are rounded.
        outputs: What is used of the model.
        codec: ``float16`` (cast there and back) or ``int8`` (quantised with the scale
            and zero point of each tensor, as DynamicQuantizeLinear does).

    Raises:
        UnderstudyError: The model's operator set is too old for the codec.
    """
    opset = max(o.version for o in model.proto.opset_import if not o.domain)
    if codec == "int8" and opset < _OPSET_INT8:
        raise UnderstudyError(
            f"model {model.where}: operator set {opset} has no DynamicQuantizeLinear, "
            f"which codec int8 needs; export it with {_OPSET_INT8} or later"
        )
    front_names = front(model, cut, outputs)
    behind = [name for name in outputs if name not in front_names]
    tail = {t for i in _walk(model, behind, cut) for t in model.nodes[i].output if t}
    rounded = {
        name: f"{name}_{codec}"
        for name in cut
        if model.tensor(name).token.dtype == "float32"
    }
    segment = whole(model, outputs)
    proto = onnx.load_model_from_string(segment.data)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for name, new in rounded.items():
        if name in model.inputs:
            proto.graph.node.extend(_round(name, new, codec))
    for node in nodes:
        if not tail.isdisjoint(node.output):
            _rename(node, rounded)
        proto.graph.node.append(node)
        for name in node.output:
            if name in rounded:
                proto.graph.node.extend(_round(name, rounded[name], codec))
    return replace(segment, data=bytes(proto.SerializeToString(deterministic=True)))


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


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
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
