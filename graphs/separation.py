"""Sets of tensors that separate a model: of tensors, not of connections.

A tensor with several readers crosses once. To count connections instead, as a search
for the bridges of a graph does, loses the output of every residual block.

*Single cuts* are tensors that separate alone. Take the graph of nodes and tensors, with
a root in front of the inputs. A tensor separates if it dominates all that it leads to:
nothing there can be reached otherwise. A path that leaves what `t` dominates does so to
something whose immediate dominator stands above `t`; so one pass up the tree of
dominators, with the highest such dominator of each subtree, finds them all. Of a model
with several outputs these are also the tensors of one branch alone: the other outputs
are then the head's.

*Cuts of several tensors* are the tensors alive between two nodes of the model's own
order (the frontier), and those of the other orders, found block by block between places
where one tensor is alive.

Source:
    Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm", 2001; Hu et al.,
    "Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge", 2019, for
    tensors as what is paid for.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from dataflow.errors import UnderstudyError
from graphs.onnx_model import Model
from graphs.split import in_order, needed

WIDTH = 3
"""Tensors of a cut, at most: each is one more message part and one more binding."""
IDEALS_MAX = 2_000
"""Sets of nodes of one block that are looked at for cuts off the model's own order."""


class Flow:
    """The nodes that an output needs and an input changes, and what they read.

    Attributes:
        reads: Node -> the dynamic tensors that it reads, in the model's order.
        readers: Dynamic tensor -> the nodes that read it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.reads: dict[int, list[str]] = {}
        self.readers: dict[str, list[int]] = {}
        dynamic = model.dynamic
        for index in sorted(needed(model, model.outputs, ())):
            reads = [name for name in dict.fromkeys(model.reads[index])
                     if name in dynamic]  # fmt: skip
            if reads:
                self.reads[index] = reads
                for name in reads:
                    self.readers.setdefault(name, []).append(index)
        self._bytes: dict[str, int | None] = {}

    @property
    def total(self) -> int:
        return len(self.reads)

    def makes(self, index: int) -> list[str]:
        """Return the tensors of a node that some node reads."""
        return [name for name in self.model.nodes[index].output if name in self.readers]

    def bytes(self, names: Iterable[str]) -> int | None:
        """Return the size of tensors together; None if one of them has none."""
        sizes = [self._size(name) for name in names]
        return None if None in sizes else sum(filter(None, sizes))

    def _size(self, name: str) -> int | None:
        if name not in self._bytes:
            try:
                self._bytes[name] = self.model.tensor(name).token.nbytes
            except UnderstudyError:
                self._bytes[name] = None
        return self._bytes[name]

    def single(self) -> Iterator[tuple[str, int]]:
        """Yield each tensor that separates alone, and how many nodes are behind it."""
        tree = _Dominators(self)
        for name in self.readers:
            if name not in self.model.inputs and tree.encloses(name):
                yield name, tree.nodes[name]


Vertex = int | str
"""A node, by its index; a tensor, by its name. The root is the empty name."""


class _Dominators:
    """The tree of dominators of nodes and tensors.

    Attributes:
        nodes: Vertex -> how many nodes it dominates, itself included.
    """

    def __init__(self, flow: Flow) -> None:
        self._above: dict[Vertex, Vertex] = {"": ""}
        self._depth: dict[Vertex, int] = {"": 0}
        for name in flow.model.inputs:
            self._add(name, "")
        for index, reads in flow.reads.items():
            above: Vertex = reads[0]
            for name in reads[1:]:
                above = self._common(above, name)
            self._add(index, above)
            for name in flow.makes(index):
                self._add(name, index)
        self._highest = dict(self._depth)
        for index, reads in flow.reads.items():
            depth = self._depth[self._above[index]]
            for name in reads:
                self._highest[name] = min(self._highest[name], depth)
        self.nodes: dict[Vertex, int] = {v: int(v in flow.reads) for v in self._depth}
        for vertex in reversed(self._depth):  # each stands behind what dominates it
            above = self._above[vertex]
            self._highest[above] = min(self._highest[above], self._highest[vertex])
            if vertex != above:
                self.nodes[above] += self.nodes[vertex]

    def _add(self, vertex: Vertex, above: Vertex) -> None:
        self._above[vertex] = above
        self._depth[vertex] = self._depth[above] + 1

    def _common(self, a: Vertex, b: Vertex) -> Vertex:
        while a != b:
            if self._depth[a] < self._depth[b]:
                a, b = b, a
            a = self._above[a]
        return a

    def encloses(self, vertex: Vertex) -> bool:
        """Say whether all that `vertex` leads to is dominated by it."""
        return self._highest[vertex] >= self._depth[vertex]


def several(model: Model, width: int = WIDTH) -> Mapping[tuple[str, ...], int]:
    """Return sets of 2 to `width` tensors alive at once -> the nodes in front of them.

    Where an output of the model is made in front of such a set it need not separate.
    """
    flow = Flow(model)
    nodes = list(flow.reads)
    alive = list(frontier(model))
    narrow = [k for k, names in enumerate(alive) if k and len(names) <= 1]
    found: dict[tuple[str, ...], int] = {}

    def add(names: Collection[str], count: int) -> None:
        inputs = all(name in model.inputs for name in names)
        if 1 < len(names) <= width and not inputs:
            found.setdefault(tuple(in_order(model, names)), count)

    for first, last in pairwise((0, *narrow)):
        for names, count in _in_block(flow, nodes[first:last], alive[first]):
            add(names, first + count)
    for count, here in enumerate(alive):
        add(here, count)
    return found


def _in_block(
    flow: Flow, nodes: Sequence[int], alive: Collection[str]
) -> Iterator[tuple[list[str], int]]:
    """Yield what is alive behind each set of nodes that can come first in a block.

    Sets are bit masks: bit i is ``nodes[i]``, the bit above them all what is behind
    the block.
    """
    bit = {index: 1 << place for place, index in enumerate(nodes)}
    beyond = 1 << len(nodes)
    made = {name: bit[index] for index in nodes for name in flow.makes(index)}
    maker = dict.fromkeys(alive, 0) | made
    readers = {n: _mask(bit.get(r, beyond) for r in flow.readers[n]) for n in maker}
    before = [_mask(maker[name] for name in flow.reads[index]) for index in nodes]
    seen, layer = {0}, [0]
    while layer:
        fresh = []
        for ideal in layer:
            for place, wanted in enumerate(before):
                grown = ideal | 1 << place
                if wanted & ~ideal or grown in seen:
                    continue
                if len(seen) > IDEALS_MAX:
                    return
                seen.add(grown)
                fresh.append(grown)
                names = [
                    name
                    for name, mask in maker.items()
                    if mask & grown == mask and readers[name] & ~grown
                ]
                yield names, grown.bit_count()
        layer = fresh


def _mask(bits: Iterable[int]) -> int:
    mask = 0
    for bit in bits:
        mask |= bit
    return mask


def frontier(model: Model) -> Iterator[tuple[str, ...]]:
    """Yield the tensors alive in front of each node and behind the last.

    Nodes count that an output needs and an input changes, in the model's order. Alive
    is what some later one of them reads.
    """
    flow = Flow(model)
    last = {name: max(readers) for name, readers in flow.readers.items()}
    alive = dict.fromkeys(name for name in model.inputs if name in last)
    yield tuple(alive)
    for index, reads in flow.reads.items():
        for name in reads:
            if last[name] == index:
                del alive[name]
        alive |= dict.fromkeys(flow.makes(index))
        yield tuple(alive)
