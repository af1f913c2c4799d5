"""Sizes that are known before any frame comes, as constants.

Exporters that do not know better write what a network's code did: take the shape of a
tensor, pick a number, compute with it, reshape to the result. Such a chain leads past
every layer, so that no tensor separates alone, or from the input to the end, so that
the input itself would have to cross. Where sizes are fixed all of it is constant.

An open batch stays open: numbers that are not known are carried by the name of their
dimension, and a reshape to (batch, 256) is one to (0, 256), where 0 says "as it was".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graphs.branches import taken
from graphs.nodes import reads

Dims = Sequence[int | str]
Shapes = Callable[[], Mapping[str, Dims]]
"""Returns the dimensions of each tensor of which the rank is known."""

_ELEMENTS_MAX = 1024
_ROUNDS_MAX = 8
"""What becomes constant lets more shapes be inferred, and those more constants."""
_MEASURING = ("Shape", "Size", "If")
"""What has a settled value, or leads to one, where sizes are fixed."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A value, as far as it is known: numbers, and names of open dimensions."""

    array: NDArray[np.object_]
    elem_type: int

    @property
    def complete(self) -> bool:
        return not any(isinstance(value, str) for value in self.array.flat)

    def numbers(self) -> NDArray[Any]:
        return self.array.astype(helper.tensor_dtype_to_np_dtype(self.elem_type))


def settle(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Make constants of the sizes in `proto` that are known; in place.

    Args:
        proto: A model.
        shapes: Infers shapes of `proto` as it is when called.
    """
    for _ in range(_ROUNDS_MAX):
        if not any(node.op_type in _MEASURING for node in proto.graph.node):
            return
        if not _settled_once(proto.graph, shapes()):
            return


def _settled_once(graph: onnx.GraphProto, shapes: Mapping[str, Dims]) -> bool:
    """Make constants of what is known now; say whether there was anything."""
    known = _constants(graph)
    ends = {output.name for output in graph.output}
    chain: dict[str, _Known] = {}
    nodes: list[onnx.NodeProto] = []
    retargeted = inlined = False
    for node in graph.node:
        found = _value(node, known, shapes) if node.output[0] not in known else None
        if found is not None:
            known[node.output[0]] = chain[node.output[0]] = found
        elif (yes := _decided(node, known)) is not None:
            weights, inside = taken(node, yes=yes)
            graph.initializer.extend(weights)
            nodes.extend(inside)
            inlined = True
            continue
        elif node.op_type == "Reshape" and not node.domain:
            retargeted |= _retarget(node, graph, known, shapes)
        nodes.append(node)
    settled = {name for name in chain if chain[name].complete and name not in ends}
    kept: list[onnx.NodeProto] = []
    read = set(ends)
    for node in reversed(nodes):
        name = node.output[0]
        if name in settled or (name in chain and name not in read):
            continue  # constant, or read by nothing but a chain that is no more
        kept.append(node)
        read.update(reads(node))
    graph.initializer.extend(
        numpy_helper.from_array(chain[name].numbers(), name)
        for name in chain
        if name in settled and name in read
    )
    # Extending from itself would copy what is about to be deleted.
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept[::-1]]
    changed = inlined or len(kept) < len(nodes)
    if changed or retargeted:
        del graph.node[:]
        graph.node.extend(kept)
    return changed or retargeted


def _decided(node: onnx.NodeProto, known: Mapping[str, _Known]) -> bool | None:
    """Return which branch of an `If` every frame takes; None: either, or no `If`."""
    found = known.get(node.input[0]) if node.op_type == "If" else None
    if found is None or not found.complete or found.array.size != 1:
        return None
    return bool(found.array.item())


def _constants(graph: onnx.GraphProto) -> dict[str, _Known]:
    """Return the values of small initializers and Constant nodes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and not node.domain:
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
    return {
        name: _Known(numpy_helper.to_array(t).astype(object), t.data_type)
        for name, t in tensors.items()
        if math.prod(t.dims) <= _ELEMENTS_MAX
        and t.data_type != TensorProto.STRING
        and t.data_location != TensorProto.EXTERNAL
    }


def _value(
    node: onnx.NodeProto, known: Mapping[str, _Known], shapes: Mapping[str, Dims]
) -> _Known | None:
    """Return what a node computes, if sizes and constants alone decide it."""
    if node.domain not in ("", "ai.onnx"):
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in ("Shape", "Size"):
        dims = shapes.get(node.input[0])
        return None if dims is None else _measured(node.op_type, dims, attributes)
    rule = _RULES.get(node.op_type)
    inputs = [known.get(name) for name in node.input]
    if rule is None or any(
        value is None and name for name, value in zip(node.input, inputs, strict=True)
    ):
        return None
    given = [value for value in inputs if value is not None]
    if node.op_type not in _MOVING and not all(value.complete for value in given):
        return None
    arrays = [None if value is None else value.array for value in inputs]
    if node.op_type not in _MOVING:
        arrays = [None if value is None else value.numbers() for value in inputs]
    try:
        with np.errstate(all="raise"):
            array = rule(arrays, attributes)
        found = _Known(np.asarray(array, object), _elem_type(node, given, attributes))
        if found.complete:
            found.numbers()
    except (ValueError, TypeError, IndexError, ArithmeticError):
        return None  # nothing that is done to sizes
    return found if found.array.size <= _ELEMENTS_MAX else None


def _measured(op: str, dims: Dims, attributes: Mapping[str, Any]) -> _Known | None:
    if any(dim == "" for dim in dims):
        return None
    if op == "Shape":
        dims = dims[attributes.get("start", 0) : attributes.get("end", len(dims))]
        return _Known(np.array([*dims], object), TensorProto.INT64)
    if any(isinstance(dim, str) for dim in dims):
        return None
    return _Known(np.array(math.prod(map(int, dims)), object), TensorProto.INT64)


def _elem_type(
    node: onnx.NodeProto, given: Sequence[_Known], attributes: Mapping[str, Any]
) -> int:
    match node.op_type:
        case "Cast":
            return int(attributes["to"])
        case "Equal" | "Less" | "Greater" | "Not":
            return TensorProto.BOOL
        case "Where":
            return given[1].elem_type
        case "ConstantOfShape":
            value = attributes.get("value")
            return TensorProto.FLOAT if value is None else int(value.data_type)
    return given[0].elem_type


# Rules: what operators do, on arrays. None stands for an input that is left out.

Arrays = Sequence[Any]
Attributes = Mapping[str, Any]


def _gather(inputs: Arrays, attributes: Attributes) -> Any:
    data, indices = inputs
    return np.take(data, indices.astype(np.int64), axis=attributes.get("axis", 0))


def _slice(inputs: Arrays, attributes: Attributes) -> Any:
    data, *rest = inputs
    if rest:
        starts, ends, axes, steps = [*rest, None, None][:4]
    else:
        starts, ends, steps = attributes["starts"], attributes["ends"], None
        axes = attributes.get("axes")
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(int(start), int(end), int(step))
    return data[tuple(index)]


def _axes(inputs: Arrays, attributes: Attributes) -> tuple[int, ...] | None:
    axes = inputs[1] if len(inputs) > 1 else attributes.get("axes")
    return None if axes is None else tuple(int(axis) for axis in axes)


def _unsqueeze(inputs: Arrays, attributes: Attributes) -> Any:
    return np.expand_dims(inputs[0], _axes(inputs, attributes) or ())


def _concat(inputs: Arrays, attributes: Attributes) -> Any:
    return np.concatenate(inputs, axis=attributes["axis"])


def _cast(inputs: Arrays, attributes: Attributes) -> Any:
    wanted = helper.tensor_dtype_to_np_dtype(attributes["to"])
    whole = np.issubdtype(wanted, np.integer)
    if whole and all(isinstance(v, int | str) for v in inputs[0].flat):
        return inputs[0]  # names of sizes stay what they are
    return inputs[0].astype(wanted)


def _divide(inputs: Arrays, _attributes: Attributes) -> Any:
    a, b = inputs
    if np.issubdtype(a.dtype, np.integer):
        return np.trunc(a / b).astype(a.dtype)
    return a / b


def _reshape(inputs: Arrays, _attributes: Attributes) -> Any:
    return inputs[0].reshape([int(size) for size in inputs[1]])


def _filled(inputs: Arrays, attributes: Attributes) -> Any:
    value = attributes.get("value")
    shape = [int(size) for size in inputs[0]]
    if math.prod(shape) > _ELEMENTS_MAX:
        raise ValueError(shape)
    return np.full(shape, 0.0 if value is None else numpy_helper.to_array(value)[0])


def _product(inputs: Arrays, attributes: Attributes) -> Any:
    keep = bool(attributes.get("keepdims", 1))
    return np.prod(inputs[0], axis=_axes(inputs, attributes), keepdims=keep)


def _ranged(inputs: Arrays, _attributes: Attributes) -> Any:
    return np.arange(*(value.item() for value in inputs))


def _each(function: Callable[..., Any]) -> Callable[[Arrays, Attributes], Any]:
    return lambda inputs, _attributes: function(*inputs)


_MOVING: Mapping[str, Callable[[Arrays, Attributes], Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _each(lambda value: value),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": lambda inputs, given: np.squeeze(inputs[0], _axes(inputs, given)),
    "Unsqueeze": _unsqueeze,
}
"""Operators that do with a name of a size what they do with a size."""
_RULES: Mapping[str, Callable[[Arrays, Attributes], Any]] = {
    **_MOVING,
    "Add": _each(np.add),
    "Ceil": _each(np.ceil),
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": _each(np.equal),
    "Floor": _each(np.floor),
    "Greater": _each(np.greater),
    "Less": _each(np.less),
    "Max": _each(lambda *values: np.maximum.reduce(np.broadcast_arrays(*values))),
    "Min": _each(lambda *values: np.minimum.reduce(np.broadcast_arrays(*values))),
    "Mul": _each(np.multiply),
    "Neg": _each(np.negative),
    "Not": _each(np.logical_not),
    "Range": _ranged,
    "ReduceProd": _product,
    "Sqrt": _each(np.sqrt),
    "Sub": _each(np.subtract),
    "Where": _each(np.where),
}


def _retarget(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    known: Mapping[str, _Known],
    shapes: Mapping[str, Dims],
) -> bool:
    """Let a reshape to sizes that include an open one read a constant; say if so."""
    target, dims = known.get(node.input[1]), shapes.get(node.input[0])
    zero_is_zero = any(a.name == "allowzero" and a.i for a in node.attribute)
    if target is None or target.complete or dims is None or zero_is_zero:
        return False
    sizes: list[Any] = list(target.array.flat)
    for axis, size in enumerate(sizes):
        if isinstance(size, str) and axis < len(dims) and dims[axis] == size:
            sizes[axis] = 0
    unknown = [axis for axis, size in enumerate(sizes) if isinstance(size, str)]
    if len(unknown) == 1 and -1 not in sizes:
        sizes[unknown.pop()] = -1
    if unknown:
        return False
    name = f"{node.output[0]}_sizes"
    graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    node.input[1] = name
    return True
