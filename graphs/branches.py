"""Branches of which one is taken for every frame, in place of the `If` around them.

Exporters guard what a network's code did only for some sizes: squeeze this dimension if
it is 1. Where sizes are fixed so is the answer; as long as the `If` stands, shapes
behind it are unknown, and what the data decides could be any of them.
"""

from collections.abc import Iterator, Mapping

import onnx
from onnx import helper


def taken(
    node: onnx.NodeProto, *, yes: bool
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Return weights and nodes that make what an `If` makes.

    What is inside gets names that begin with that of the first tensor made, so that
    two branches may have called different things alike.

    Args:
        node: An `If`.
        yes: Which branch.
    """
    wanted = "then_branch" if yes else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == wanted)
    new = {name: f"{node.output[0]}.{name}" for name in _own(branch)}
    copies = []
    for inner, outer in zip(branch.output, node.output, strict=True):
        if inner.name in new and new[inner.name] not in node.output:
            new[inner.name] = outer
        elif outer:
            copies.append((inner.name, outer))
    weights = [onnx.TensorProto.FromString(t.SerializeToString())
               for t in branch.initializer]  # fmt: skip
    for tensor in weights:
        if (name := new[tensor.name]) in node.output:  # no node makes it
            new[tensor.name] = f"{node.output[0]}.{tensor.name}"
            copies.append((tensor.name, name))
        tensor.name = new[tensor.name]
    nodes = [_renamed(inner, new) for inner in branch.node]
    nodes += [
        helper.make_node("Identity", [new.get(inner, inner)], [outer])
        for inner, outer in copies
    ]
    return weights, nodes


def _own(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what is made in a graph, subgraphs of its nodes aside."""
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def _renamed(node: onnx.NodeProto, new: Mapping[str, str]) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.name = ""  # it may be that of another node out there
    _rename(made, new)
    return made


def _rename(node: onnx.NodeProto, new: Mapping[str, str]) -> None:
    node.input[:] = [new.get(name, name) for name in node.input]
    node.output[:] = [new.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            hidden = {*_own(graph), *(i.name for i in graph.input)}
            outer = {name: to for name, to in new.items() if name not in hidden}
            for inner in graph.node:
                _rename(inner, outer)
            for output in graph.output:
                output.name = outer.get(output.name, output.name)
