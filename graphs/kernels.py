"""Which node of a model a kernel of its optimised graph stands for.

Optimisation fuses nodes, renames them and adds some that only change the layout of a
tensor. The nodes are therefore marked before: a kernel made of one keeps the mark, or
is called after the tensor that it makes. What has neither stands beside what it serves.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import onnx

from graphs.external import SharedWeights
from graphs.onnx_model import Model
from graphs.split import Segment

_MARK = re.compile(r"us:(\d+):")
_LAYOUT = re.compile(r"(_bn|_mul|_add|_sum)?_nchwc(_bn|_mul|_add|_sum)?$")
"""What the layout transformer appends to the tensor that a kernel makes."""
_IN_FRONT = "ReorderInput"
"""Serves the kernel behind it; whatever else is unknown, the one in front."""
_FUSED_MAX = 5
"""Nodes in a row that one kernel may stand for: sum, activation and their like."""


def marked(segment: Segment, weights: SharedWeights) -> bytes:
    """Return the file of `segment` with its nodes named by their place in the model.

    Args:
        segment: Of a model.
        weights: The file refers to them, see `Segment.referring`.
    """
    proto = onnx.load_model_from_string(segment.referring(weights))
    producer = segment.model.producer
    for node in proto.graph.node:
        made = [producer[name] for name in node.output if name in producer]
        # What hands on an input is no node of the model, and there may be several.
        node.name = f"us:{made[0]}:" if made else ""
    return bytes(proto.SerializeToString())


def owners(model: Model, kernels: Sequence[tuple[str, str]]) -> list[int]:
    """Return the node of `model` that each kernel stands for.

    A kernel that was fused of several stands for the one that gives it its name, the
    convolution of a convolution and its activation: there most of its work is.

    Args:
        model: What was marked.
        kernels: Name and operator of each, in the order in which they run.
    """
    found: list[int | None] = [_owner(model.producer, name) for name, _ in kernels]
    taken = {owner for owner in found if owner is not None}
    for place, (owner, (_, operator)) in enumerate(zip(found, kernels, strict=True)):
        if owner is not None:
            found[place] = _working(model, owner, operator.removeprefix("Fused"), taken)
            taken.add(found[place] or 0)
    behind: int | None = None
    for place in reversed(range(len(found))):
        if found[place] is None and kernels[place][1] == _IN_FRONT:
            found[place] = behind
        behind = found[place] if found[place] is not None else behind
    made: list[int] = []
    for owner in found:
        made.append(owner if owner is not None else made[-1] if made else 0)
    return made


def _owner(producer: Mapping[str, int], name: str) -> int | None:
    if marks := _MARK.findall(name):
        return max(map(int, marks))
    return producer.get(name, producer.get(_LAYOUT.sub("", name)))


def _working(model: Model, last: int, operator: str, taken: Collection[int]) -> int:
    """Return the node of type `operator` at or shortly in front of `last`."""
    front = [last]
    for _ in range(_FUSED_MAX):
        for index in front:
            free = index == last or index not in taken
            if model.nodes[index].op_type == operator and free:
                return index
        makers = {model.producer.get(n) for i in front for n in model.reads[i]}
        front = sorted((m for m in makers - {None} if m is not None), reverse=True)
    return last
