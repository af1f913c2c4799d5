"""What of a model an `onnx` actor computes: all of it, or from some tensors to some."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from dataflow.errors import UnderstudyError
from graphs.onnx_model import Model, Tensor
from graphs.split import (
    Segment,
    Split,
    bypassing,
    drawn_twice,
    in_order,
    needed,
    quoted,
    split_often,
    whole,
)


@dataclass(frozen=True, slots=True)
class SubModel:
    """A model, or a part of it, from `inputs` to `outputs`, both in the model's order.

    `submodel` makes one, and refuses tensors that do not bound a part.
    """

    model: Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        return (set(self.inputs), set(self.outputs)) == (
            set(self.model.inputs),
            set(self.model.outputs),
        )

    def interface(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return inputs and outputs with their types."""
        tensor = self.model.tensor
        return tuple(map(tensor, self.inputs)), tuple(map(tensor, self.outputs))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that this part takes or computes, with its type.

        Raises:
            UnderstudyError: No such tensor, or its size is not fixed.
        """
        found = self.model.tensor(name)
        if not self.is_whole and name not in self._inside():
            raise UnderstudyError(
                f"tensor '{name}': in another part of {self.model.where} than "
                f"from {quoted(self.inputs)} to {quoted(self.outputs)}; "
                "name the actor that computes it"
            )
        return found

    def _inside(self) -> set[str]:
        nodes = needed(self.model, self.outputs, self.inputs)
        made = {name for index in nodes for name in self.model.nodes[index].output}
        return made | set(self.inputs)

    def segment(self, outputs: Sequence[str]) -> Segment:
        """Return the segment that makes `outputs`, tensors of this part."""
        return whole(self.model, outputs, self.inputs)

    def split(self, cuts: Sequence[Sequence[str]], outputs: Sequence[str]) -> Split:
        """Return head to tail of this part; see `graphs.split.split_often`."""
        for name in itertools.chain(*cuts):
            self.tensor(name)
        return split_often(self.model, cuts, outputs, self.inputs)


def submodel(
    model: Model,
    start: Sequence[str] | None = None,
    end: Sequence[str] | None = None,
) -> SubModel:
    """Return the part of `model` from the tensors `start` to the tensors `end`.

    Args:
        model: What it is a part of.
        start: None: the inputs of the model, those of them that are needed.
        end: None: the outputs of the model, those of them that depend on `start`.

    Raises:
        UnderstudyError: They do not bound a part. Messages call them parameter 'from'
            and parameter 'to', as graph files do.
    """
    if start is None and end is None:
        return SubModel(model, model.inputs, model.outputs)
    _check_names(model, "from", start)
    _check_names(model, "to", end)
    if start is None:
        ends = in_order(model, end or ())
        if given := [name for name in ends if name in model.inputs]:
            raise UnderstudyError(
                f"parameter 'to': {quoted(given)} is an input of {model.where}, "
                "nothing computes it; name a tensor behind it"
            )
        read = _read(model, ends, model.inputs)
        inputs = [name for name in model.inputs if name in read]
        return SubModel(model, tuple(inputs), tuple(ends))
    ends = _ends(model, start, end)
    starts = in_order(model, start)
    _check_bounds(model, starts, ends)
    return SubModel(model, tuple(starts), tuple(ends))


def _check_names(model: Model, param: str, names: Sequence[str] | None) -> None:
    if names is not None and not names:
        raise UnderstudyError(
            f"parameter '{param}': names no tensor; name some, or leave '{param}' out"
        )
    for name in names or ():
        try:
            model.tensor(name)
        except UnderstudyError as error:
            raise UnderstudyError(f"parameter '{param}': {error}") from None


def _read(model: Model, ends: Sequence[str], stop: Sequence[str]) -> set[str]:
    nodes = needed(model, ends, stop)
    return {name for index in nodes for name in model.reads[index]}


def _ends(model: Model, start: Sequence[str], end: Sequence[str] | None) -> list[str]:
    """Return the outputs of a part, in order; each depends on some of `start`."""
    wanted = in_order(model, model.outputs if end is None else end)
    # An output that is given, or that nothing given leads to.
    early = [
        name
        for name in wanted
        if name in start or _read(model, [name], start).isdisjoint(start)
    ]
    late = [name for name in wanted if name not in early]
    if end is not None and early:
        raise UnderstudyError(
            f"parameter 'to': {quoted(early)} does not depend on {quoted(start)} of "
            "'from'; name tensors of 'to' that lie behind those of 'from'"
        )
    if not late:
        raise UnderstudyError(
            f"parameter 'from': no output of {model.where} depends on {quoted(start)}; "
            "name tensors in front of an output"
        )
    return late


def _check_bounds(model: Model, starts: Sequence[str], ends: Sequence[str]) -> None:
    read = _read(model, ends, starts)
    # What is not all computed from `starts` goes back to an input of the model.
    if not read.isdisjoint(set(model.inputs) - set(starts)):
        passing = bypassing(model, starts, ends)
        every = ", ".join(in_order(model, (*starts, *passing)))
        raise UnderstudyError(
            f"parameter 'from': {quoted(starts)} is not all that {quoted(ends)} needs: "
            f"{quoted(passing)} bypasses it; name all of [{every}], or start behind "
            "the place where they meet"
        )
    if unread := set(starts) - read:
        raise UnderstudyError(
            f"parameter 'from': {quoted(sorted(unread))} is not needed for "
            f"{quoted(ends)}; leave it out"
        )
    if drawn := drawn_twice(model, starts, ends):
        raise UnderstudyError(
            f"parameter 'from': this part and one in front of it would both draw the "
            f"random numbers of '{drawn}', and not the same; start elsewhere"
        )
