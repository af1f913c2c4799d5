"""Every place where a model can be cut in two, and which of them are worth a look.

Sets of several tensors that cannot be best are dropped: what stands between two single
cuts and is no smaller than either is dominated by one of them.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dataflow.errors import UnderstudyError
from graphs.groups import groups
from graphs.onnx_model import Model
from graphs.separation import WIDTH, Flow, several
from graphs.split import bypassing, drawn_twice, front, needed

SIZES_MAX = 16
"""Elements of an integer vector that is taken for sizes, not for data."""

_REARRANGING = frozenset(
    (
        *("Cast", "Concat", "DepthToSpace", "DequantizeLinear", "Dropout", "Flatten"),
        *("Identity", "Pad", "QuantizeLinear", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
        *("Add", "BatchNormalization", "Div", "Mul", "Neg", "Sub"),
    )
)
"""Operators that leave a picture a picture, if nothing else that varies is read."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Tensors that separate a model, and what is to be known before it is tried.

    Attributes:
        tensors: What crosses, in the order of the model.
        nodes: Nodes of the head that depend on an input.
        bytes: Of one frame as it is computed, without a codec; None: not fixed, and
            such a cut can be listed only.
        useful: Whether a search should look at it: it ends a layer group, or is smaller
            than every useful cut in front of it and than the next end of a group.
        notes: Short facts for people.
        raw_input: Whether an input of the model crosses, as it is or rearranged.
    """

    tensors: tuple[str, ...]
    nodes: int
    bytes: int | None
    useful: bool
    notes: tuple[str, ...]
    raw_input: bool


def cuts(model: Model, width: int = WIDTH) -> tuple[Cut, ...]:
    """Return the cuts of `model` that `graphs.split.split` can make, in its order.

    Those of one tensor are all there. Linear in the size of the model, save for the
    cuts off the model's own order, which are capped.

    Args:
        model: Its weights are not looked at.
        width: Tensors of a cut, at most.
    """
    flow = Flow(model)
    found: dict[tuple[str, ...], int] = {
        (name,): flow.total - behind for name, behind in flow.single()
    }
    sizes = [(nodes, flow.bytes(names)) for names, nodes in found.items()]
    alone = _Alone(sizes)
    or_whole = _Alone([(0, flow.bytes(model.inputs)), *sizes])
    for names, nodes in several(model, width).items():
        # Who lets an input cross could as well let the others.
        others = alone if set(names).isdisjoint(model.inputs) else or_whole
        if not others.dominate(nodes, flow.bytes(names)) and (
            len(model.outputs) == 1 or _separates(model, names)
        ):
            found[names] = nodes
    if model.random:
        found = {n: k for n, k in found.items() if not _draws_twice(model, n)}
    return tuple(_described(flow, found))


class _Alone:
    """Cuts of one tensor, by size.

    Args:
        sizes: Of each, the nodes in front of it and its bytes.
    """

    def __init__(self, sizes: Iterable[tuple[int, int | None]]) -> None:
        known = sorted((size, nodes) for nodes, size in sizes if size is not None)
        self._bytes = [size for size, _ in known]
        self._first = [*accumulate((nodes for _, nodes in known), min)]
        self._last = [*accumulate((nodes for _, nodes in known), max)]

    def dominate(self, nodes: int, size: int | None) -> bool:
        """Say whether cuts on both sides of one are no larger than it."""
        place = 0 if size is None else bisect_right(self._bytes, size)
        return place > 0 and self._first[place - 1] <= nodes <= self._last[place - 1]


def _separates(model: Model, names: Sequence[str]) -> bool:
    """Say whether a cut separates, where an output may be made in front of it."""
    in_front = front(model, names, model.outputs)
    behind = [name for name in model.outputs if name not in in_front]
    if not behind or bypassing(model, names, behind, in_front):
        return False
    tail = needed(model, behind, names)
    return set(names) <= {read for index in tail for read in model.reads[index]}


def _draws_twice(model: Model, names: Sequence[str]) -> bool:
    in_front = front(model, names, model.outputs)
    behind = [name for name in model.outputs if name not in in_front]
    return drawn_twice(model, (*names, *in_front), behind) is not None


def _described(flow: Flow, found: Mapping[tuple[str, ...], int]) -> Iterator[Cut]:
    """Yield cuts with what is to be known of them, in the order of the model."""
    model = flow.model
    raw = _raw(flow)
    ends = _ends(model)
    given = flow.bytes(model.inputs)
    smallest: float = float("inf")
    ordered = _ordered(model, found)
    behind = _next_ends(flow, ordered, ends)
    for names in ordered:
        size = flow.bytes(names)
        data = [name for name in names if not _is_size(model, name)]
        notes = list(_notes(model, names, data, raw, ends))
        at_end = len(data) == 1 and data[0] in ends
        useful = size is not None and (
            at_end or (size < smallest and size < behind[names])
        )
        raw_input = not raw.isdisjoint(names)
        if raw_input and size is not None and given is not None and size >= given:
            useful = False
        if _dequantised(model, names, found):
            useful = False
            notes.append("quantised in front of it")
        if useful and size is not None:
            smallest = min(smallest, size)
        if size is not None and not useful and not notes:
            notes.append("larger than a cut in front of it")
        yield Cut(names, found[names], size, useful, tuple(notes), raw_input)


def _dequantised(
    model: Model, names: Sequence[str], found: Collection[tuple[str, ...]]
) -> bool:
    """Say whether what crosses could do so with a quarter of the bytes."""
    index = model.producer.get(names[0])
    if len(names) > 1 or index is None:
        return False
    node = model.nodes[index]
    return node.op_type == "DequantizeLinear" and (node.input[0],) in found


def _ordered(
    model: Model, found: Mapping[tuple[str, ...], int]
) -> list[tuple[str, ...]]:
    """Return cuts in the order of the model: by the last tensor that they wait for."""
    return sorted(found, key=lambda n: (model.rank[n[-1]], len(n), found[n], n))


def _next_ends(
    flow: Flow, ordered: Sequence[tuple[str, ...]], ends: Collection[str]
) -> dict[tuple[str, ...], float]:
    """Return for each cut the bytes of the next that ends a layer group.

    A cut inside the group is of use only if it is smaller: no kernel is cut apart then.
    """
    size: float = float("inf")
    found: dict[tuple[str, ...], float] = {}
    for names in reversed(ordered):
        found[names] = size
        if len(names) == 1 and names[0] in ends:
            own = flow.bytes(names)
            size = float("inf") if own is None else own
    return found


def _notes(
    model: Model,
    names: Sequence[str],
    data: Sequence[str],
    raw: Collection[str],
    ends: Collection[str],
) -> Iterator[str]:
    if any(name in model.inputs for name in names):
        yield "the raw input crosses too"
    elif any(name in raw for name in names):
        yield "the input, rearranged"
    for name in names:
        if said := _unsized(model, name):
            yield said
            return
    if len(data) < len(names):
        yield "includes sizes"
    if any(name not in ends and name not in model.inputs for name in data):
        yield "inside a layer group"


def _unsized(model: Model, name: str) -> str | None:
    """Return why a tensor has no size, if it has none."""
    try:
        model.tensor(name)
    except UnderstudyError:
        if name in model.varying:
            return "variable size"
        if model.open_sizes:
            return "open size"
        return (
            "no known size" if model.shape(name) is None else "no element type of ours"
        )
    return None


def _ends(model: Model) -> frozenset[str]:
    """Return the tensors at which a layer group ends."""
    try:
        found = groups(model)
    except UnderstudyError:  # an input of open size: then no tensor has a size
        return frozenset()
    return frozenset(name for group in found for name in group.part.outputs)


def _is_size(model: Model, name: str) -> bool:
    try:
        token = model.tensor(name).token
    except UnderstudyError:
        return False
    integer = token.dtype in ("int64", "int32")
    return integer and len(token.shape) <= 1 and token.nbytes <= 8 * SIZES_MAX


def _raw(flow: Flow) -> frozenset[str]:
    """Return the inputs, and what is made of one of them by rearranging alone."""
    raw = set(flow.model.inputs)
    for index, reads in flow.reads.items():
        node = flow.model.nodes[index]
        if node.op_type in _REARRANGING and raw.issuperset(reads):
            raw.update(flow.makes(index))
    return frozenset(raw)
