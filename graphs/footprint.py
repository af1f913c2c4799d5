"""What a part of a model needs of memory: its weights, and its tensors at the most."""

from collections.abc import Collection, Mapping, Sequence

from onnx import helper

from dataflow.errors import UnderstudyError
from graphs.onnx_model import Model
from graphs.split import front, needed


def sides(model: Model, cut: Sequence[str]) -> tuple[set[int], set[int]]:
    """Return the nodes of the head and of the tail of a cut that separates."""
    in_front = front(model, cut, model.outputs)
    behind = [name for name in model.outputs if name not in in_front]
    return needed(model, (*cut, *in_front), ()), needed(model, behind, cut)


def footprint_bytes(
    model: Model, nodes: Collection[int], weights: Mapping[str, int]
) -> int:
    """Return the weights of `nodes`, and the largest their tensors are at one time.

    A lower bound: a runtime keeps weights in other layouts too, and needs room to work.

    Args:
        model: What they are nodes of.
        nodes: Their indices.
        weights: As `weight_bytes` gives them, once for a model.
    """
    read = {name for index in nodes for name in model.reads[index]}
    sizes = (size for name, size in weights.items() if name in read)
    return sum(sizes) + _alive_bytes(model, nodes)


def weight_bytes(model: Model) -> dict[str, int]:
    """Return the size of each weight of `model`, in bytes."""
    found = {}
    for tensor in model.proto.graph.initializer:
        count = 1
        for dim in tensor.dims:
            count *= dim
        found[tensor.name] = (
            count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        )
    return found


def _alive_bytes(model: Model, nodes: Collection[int]) -> int:
    """Return the most bytes of tensors that are there, and still to be read."""
    order = sorted(
        index for index in nodes if not model.dynamic.isdisjoint(model.reads[index])
    )
    last = {name: index for index in order for name in model.reads[index]}
    alive: dict[str, int] = {}
    most = 0
    for index in order:
        for name in model.reads[index]:
            if name in model.dynamic and name not in alive:
                alive[name] = _size(model, name)
        for name in model.nodes[index].output:
            if name:
                alive[name] = _size(model, name)
        most = max(most, sum(alive.values()))
        for name in [n for n in alive if last.get(n) == index]:
            del alive[name]
    return most


def _size(model: Model, name: str) -> int:
    try:
        return model.tensor(name).token.nbytes
    except UnderstudyError:  # its size is not fixed, or it is text
        return 0
