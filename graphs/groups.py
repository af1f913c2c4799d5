"""The layer groups of a model: what a runtime fuses into one kernel, as one actor each.

A group begins with any node and goes on with element-wise nodes and views behind it, as
long as they read nothing but the group: convolution, batch normalisation and activation
are one group, a sum and its activation are one, and so are x, sigmoid(x) and their
product. It ends where one tensor leaves, so that to cut between groups is cheap. What
pads or dequantises for a single group belongs to it.

Three things never cross between groups, and where they would, the groups become one:
a tensor that only says how large others are (Shape ... Reshape), one whose size is not
fixed, and random numbers that two groups would draw apart from each other. Constants
belong to the first group that reads them.

Source:
    Boutellier, Tan, Nurmi, "Fault-Tolerant Collaborative Inference through the
    Edge-PRUNE Framework", 2022, makes one actor of each convolution, batch
    normalisation and ReLU.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dataflow.errors import UnderstudyError
from graphs.onnx_model import Model
from graphs.order import cycles, in_feeding_order
from graphs.split import in_order, needed
from graphs.submodel import SubModel

FOLLOWING = frozenset(
    (
        *("Abs", "Add", "Cast", "Celu", "Ceil", "Clip", "Cos", "Div", "Elu", "Erf"),
        *("Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log"),
        *("Max", "Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Reciprocal", "Relu"),
        *("Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt"),
        *("Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where"),
        *("BatchNormalization", "LayerNormalization", "LogSoftmax", "ReduceMean"),
        *("Softmax", "Dropout", "Identity", "Flatten", "Reshape", "Squeeze"),
        *("Transpose", "Unsqueeze", "QuantizeLinear"),
    )
)
"""Operators that join the group in front of them: cheap, or without work at all."""
LEADING = frozenset(("DequantizeLinear", "Pad"))
"""Operators that join the group behind them."""
_SIZES = frozenset(("Shape", "Size"))
_LOOK_AHEAD = 32
"""Nodes that may follow before one tensor leaves again, as in long activations."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes of a model that are one actor.

    Attributes:
        name: Unique in the model, of letters, digits and '_': the last tensor it makes.
        nodes: Their indices in the model, ascending.
        part: What it computes, as an actor of its own: from the tensors that it takes
            from other groups or from outside, to those that may be taken from it.
    """

    name: str
    nodes: tuple[int, ...]
    part: SubModel


def groups(model: Model) -> tuple[Group, ...]:
    """Return the layer groups of `model`: each node in one, each behind what feeds it.

    Raises:
        UnderstudyError: An input of the model has no fixed size, or none has a part in
            its outputs.
    """
    for name in model.inputs:
        model.tensor(name)
    grouping = _Grouping(model)
    grouping.grow()
    grouping.join_leading()
    grouping.seal()
    return tuple(grouping.made())


class _Grouping:
    """The groups of a model while they are found, each named by its first node."""

    def __init__(self, model: Model) -> None:
        self._model = model
        wanted = needed(model, model.outputs, ())
        self._reads = {
            index: model.dynamic.intersection(model.reads[index])
            for index in sorted(wanted)
            if not model.dynamic.isdisjoint(model.reads[index])
        }
        """Of each node that the outputs need and that depends on an input."""
        if not self._reads:
            raise UnderstudyError(
                f"model {model.where}: no output depends on an input; export it again"
            )
        self._readers: dict[str, set[int]] = {}
        for index, reads in self._reads.items():
            for name in reads:
                self._readers.setdefault(name, set()).add(index)
        self._ends = frozenset(model.outputs)
        self._group: dict[int, int] = {}
        """Node -> the first node of its group."""

    def _makes(self, index: int) -> list[str]:
        return [name for name in self._model.nodes[index].output if name]

    # Growing

    def grow(self) -> None:
        """Put every node into a group: behind another, or at the head of its own."""
        for index in self._reads:
            if index not in self._group:
                self._group |= dict.fromkeys(self._behind(index), index)

    def _behind(self, first: int) -> list[int]:
        """Return the nodes of the group that `first` begins."""
        members, kept = [first], 1
        known = set(self._reads[first])
        leaving: dict[str, int] = {}
        """Tensor made here -> how many others read it; an end of the model is one."""
        waiting: set[int] = set()
        while True:
            last = members[-1]
            for name in self._reads[last] & leaving.keys():
                leaving[name] -= 1
                if not leaving[name]:
                    del leaving[name]
            for name in self._makes(last):
                readers = self._readers.get(name, set())
                if others := len(readers) + (name in self._ends):
                    leaving[name] = others
                known.add(name)
                waiting.update(filter(self._may_follow, readers))
            if len(leaving) <= 1:
                kept = len(members)
            following = (i for i in sorted(waiting) if self._reads[i] <= known)
            found = next(following, None)
            if found is None or len(members) - kept >= _LOOK_AHEAD:
                return members[:kept]
            waiting.remove(found)
            members.append(found)

    def _may_follow(self, index: int) -> bool:
        joins = self._model.nodes[index].op_type in FOLLOWING
        return (joins or index in self._measuring) and index not in self._group

    @cached_property
    def _measuring(self) -> frozenset[int]:
        """Nodes that depend on the data's size alone."""
        sizes: set[str] = set()
        found = set()
        for index, reads in self._reads.items():
            if self._model.nodes[index].op_type in _SIZES or reads <= sizes:
                found.add(index)
                sizes.update(self._makes(index))
        return frozenset(found)

    # Joining

    def _members(self) -> dict[int, list[int]]:
        members: dict[int, list[int]] = {}
        for index in self._reads:
            members.setdefault(self._group[index], []).append(index)
        return members

    def _feeds(self) -> dict[int, set[int]]:
        """Return group -> the groups that feed it."""
        feeds: dict[int, set[int]] = {group: set() for group in self._group.values()}
        for index, reads in self._reads.items():
            group = self._group[index]
            makers = {self._model.producer[n] for n in reads - set(self._model.inputs)}
            feeds[group] |= {self._group[maker] for maker in makers} - {group}
        return feeds

    def _join(self, sets: Iterable[Collection[int]]) -> None:
        """Make one group of each of `sets`, and of all that stands between them."""
        feeds = self._feeds()
        for first, *others in map(list, sets):  # feeding each other, they are a cycle
            for other in others:
                feeds[first].add(other)
                feeds[other].add(first)
        one = {group: min(cycle) for cycle in cycles(feeds) for group in cycle}
        for index, group in self._group.items():
            self._group[index] = one.get(group, group)

    def _groups_reading(self, tensor: str) -> set[int]:
        return {self._group[index] for index in self._readers.get(tensor, ())}

    def join_leading(self) -> None:
        """Join groups that only prepare another's input with that one."""
        all_members = self._members()
        for group, members in reversed([*all_members.items()]):
            nodes = [self._model.nodes[index] for index in members]
            made = {name for index in members for name in self._makes(index)}
            behind = {g for name in made for g in self._groups_reading(name)} - {group}
            if (
                all(node.op_type in LEADING for node in nodes)
                and len(behind) == 1
                and made.isdisjoint(self._ends)
            ):  # nothing stands between them: it feeds nothing else
                joined = [*members, *all_members[min(behind)]]
                self._group |= dict.fromkeys(joined, min(group, *behind))
                all_members[min(group, *behind)] = joined

    def seal(self) -> None:
        """Join groups where something would cross that must not."""
        apart = []
        for index in self._reads:
            for name in self._makes(index):
                around = {self._group[index]} | self._groups_reading(name)
                if len(around) > 1 and not self._may_cross(index, name):
                    apart.append(around)
        apart += [{self._group[index] for index in drawn} for drawn in self._drawn()]
        self._join(filter(None, apart))

    def _may_cross(self, index: int, name: str) -> bool:
        try:
            token = self._model.tensor(name).token
        except UnderstudyError:
            return False
        is_size = token.dtype in ("int64", "int32") and len(token.shape) <= 1
        return not (is_size and index in self._measuring)

    def _drawn(self) -> Iterable[set[int]]:
        """Yield the nodes that read a random number which no input has a part in."""
        model = self._model
        for index in sorted(model.random):
            if index not in self._reads:
                tainted = set(model.nodes[index].output)
                for later, reads in enumerate(model.reads):
                    if later not in self._reads and not tainted.isdisjoint(reads):
                        tainted.update(model.nodes[later].output)
                yield {
                    reader
                    for reader in self._reads
                    if not tainted.isdisjoint(model.reads[reader])
                }

    # The result

    def made(self) -> list[Group]:
        """Return the groups in feeding order, with what no input has a part in."""
        own, members = self._members(), self._members()
        ordered = in_feeding_order(sorted(members), self._feeds())
        rank = {group: place for place, group in enumerate(ordered)}
        others = self._others(rank)
        for index, group in others.items():
            members[group].append(index)
        names: set[str] = set()
        found = []
        for group in ordered:
            part = self._part(own[group])
            names.add(name := _name(part.outputs[-1], names))
            found.append(Group(name, tuple(sorted(members[group])), part))
        return found

    def _part(self, nodes: Iterable[int]) -> SubModel:
        mine = set(nodes)
        made = {name for index in mine for name in self._makes(index)}
        read = {name for index in mine for name in self._reads[index]}
        out = {
            name
            for name in made
            if name in self._ends or not self._readers.get(name, set()) <= mine
        }
        model = self._model
        return SubModel(
            model, tuple(in_order(model, read - made)), tuple(in_order(model, out))
        )

    def _others(self, rank: Mapping[int, int]) -> dict[int, int]:
        """Return the group of each node that no output needs or no input changes.

        It is the first that reads it; else the last that feeds it; else the first.
        """
        model, group, first = self._model, dict(self._group), next(iter(rank))
        others = [i for i in range(len(model.nodes)) if i not in group]
        readers: dict[str, list[int]] = {}
        for index, reads in enumerate(model.reads):
            for name in reads:
                readers.setdefault(name, []).append(index)
        for index in reversed(others):
            behind = [r for n in self._makes(index) for r in readers.get(n, ())]
            if near := [group[reader] for reader in behind if reader in group]:
                group[index] = min(near, key=rank.__getitem__)
        for index in others:
            makers = (model.producer.get(name) for name in model.reads[index])
            near = [group[m] for m in makers if m in group] or [first]
            group.setdefault(index, max(near, key=rank.__getitem__))
        return {index: group[index] for index in others}


def _name(tensor: str, taken: Collection[str]) -> str:
    """Return a name of letters, digits and '_' for the group that makes `tensor`.

    >>> _name("/conv1/Relu_output_0", []), _name("conv1.Relu:0", ["conv1_Relu_0"])
    ('conv1_Relu_output_0', 'conv1_Relu_0_2')
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "_", tensor).strip("_") or "group"
    name, copy = plain, 1
    while name in taken:
        copy += 1
        name = f"{plain}_{copy}"
    return name
