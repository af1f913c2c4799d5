"""What an ONNX node reads, in whatever way."""

from collections.abc import Iterator

import onnx


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads: its inputs, and what its subgraphs capture.

    Inputs that are left out have empty names and are skipped.
    """
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            yield from _captures(graph)


def _captures(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that a subgraph takes from outside (If, Loop, Scan)."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own.update(t.values.name for t in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in reads(node) if name not in own)
        own.update(node.output)
    yield from (o.name for o in graph.output if o.name not in own)
