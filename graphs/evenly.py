"""A model cut into parts of about the same work."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import combinations

from dataflow.errors import UnderstudyError
from graphs.cuts import cuts
from graphs.onnx_model import Model
from graphs.separation import frontier
from graphs.split import needed

_WEIGHT = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Convolution -> which of its inputs is the weight."""
_PRODUCTS = frozenset(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"))


def even_cuts(model: Model, parts: int) -> tuple[list[tuple[str, ...]], str]:
    """Return cuts of one tensor that divide the work evenly, and what was counted.

    Layer groups stay whole if there are enough of them. The largest part is as small as
    it can be; of such divisions the one with the fewest bytes between parts is taken.

    Args:
        model: What to cut.
        parts: How many there are to be, at least 2.

    Raises:
        UnderstudyError: There are not that many places where one tensor separates.
    """
    nodes = [index for index in sorted(needed(model, model.outputs, ()))
             if not model.dynamic.isdisjoint(model.reads[index])]  # fmt: skip
    macs = [macs_of(model, index) for index in nodes]
    measure = "multiplications" if sum(macs) else "nodes"
    work = macs if sum(macs) else [1] * len(nodes)
    done = [0]
    for each in work:
        done.append(done[-1] + each)
    useful = {c.tensors[0]: c.useful for c in cuts(model, 1) if c.bytes is not None}
    places = [
        (done[count], alive[0], model.tensor(alive[0]).token.nbytes)
        for count, alive in enumerate(frontier(model))
        if len(alive) == 1 and alive[0] in useful
    ]
    whole_groups = [place for place in places if useful[place[1]]]
    if len(whole_groups) >= parts - 1:
        places = whole_groups
    if len(places) < parts - 1:
        raise UnderstudyError(
            f"model {model.where}: one tensor separates at {len(places)} places, "
            f"{parts} parts need {parts - 1}; ask for fewer, or name cuts of several "
            "tensors with --at"
        )
    chosen = _divide([(at, size) for at, _, size in places], done[-1], parts)
    return [(places[index][1],) for index in chosen], measure


def _divide(
    places: Sequence[tuple[int, int]], total: int, parts: int
) -> tuple[int, ...]:
    """Return which of `places`, (work in front, bytes), divide the work best."""
    ends = [0, *(at for at, _ in places), total]
    sizes = sorted({b - a for a, b in combinations(ends, 2)})
    least = bisect_left(
        sizes, True, key=lambda size: _cheapest(places, total, parts, size) is not None
    )
    found = _cheapest(places, total, parts, sizes[least])
    assert found is not None  # one part may be as large as the whole
    return found


def _cheapest(
    places: Sequence[tuple[int, int]], total: int, parts: int, most: int
) -> tuple[int, ...] | None:
    """Return the division of fewest bytes with no part above `most`; None: none is."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {
        index: (size, (index,)) for index, (at, size) in enumerate(places) if at <= most
    }
    for _ in range(parts - 2):
        best = {
            index: (min(before)[0] + size, (*min(before)[1], index))
            for index, (at, size) in enumerate(places)
            if (
                before := [
                    cuts
                    for end, cuts in best.items()
                    if end < index and at - places[end][0] <= most
                ]
            )
        }
    last = [cuts for i, cuts in best.items() if total - places[i][0] <= most]
    return min(last)[1] if last else None


def macs_of(model: Model, index: int) -> int:
    """Return the multiplications of a node for one frame; 0 if it has few or none."""
    node = model.nodes[index]
    made = model.shape(node.output[0])
    if made is None or not math.prod(made):
        return 0
    if node.op_type in _WEIGHT:
        weight = model.shape(node.input[_WEIGHT[node.op_type]])
        if not weight or not all(weight):
            return 0
        if node.op_type == "ConvTranspose":
            taken = model.shape(node.input[0])
            return math.prod(taken or (0,)) * math.prod(weight[1:])
        return math.prod(made) * math.prod(weight[1:])
    if node.op_type in _PRODUCTS:
        taken = model.shape(node.input[0])
        if not taken:
            return 0
        across = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(made) * (taken[0] if across else taken[-1])
    return 0
