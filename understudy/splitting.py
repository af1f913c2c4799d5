"""What `understudy split` does: list the cuts of a model, write and check its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataflow.errors import UnderstudyError, nearest
from graphs.cuts import Cut, cuts
from graphs.evenly import even_cuts
from graphs.groups import groups
from graphs.onnx_model import Model
from graphs.split import Segment, needed, split_often
from understudy.segment_folder import file_name, inputs_for, write_parts

_WHY_NOT = {
    "inside a layer group": "a runtime fuses what would be apart",
    "larger than a cut in front of it": "more work here and more bytes",
    "quantised in front of it": "a quarter of the bytes there",
    "the input, rearranged": "the input itself is no larger",
    "the raw input crosses too": "the input itself is smaller",
    "variable size": "no buffer can be made for it",
    "open size": "fix it with --dim",
    "no known size": "nothing tells its shape",
}


@dataclass(frozen=True)
class Listing:
    """The cuts of a model, as a person and as a program want to see them."""

    model: Model
    cuts: tuple[Cut, ...]

    @cached_property
    def total(self) -> int:
        """Nodes that depend on an input and that an output needs."""
        model = self.model
        found = needed(model, model.outputs, ())
        return sum(not model.dynamic.isdisjoint(model.reads[i]) for i in found)

    @cached_property
    def given(self) -> tuple[int, int] | None:
        """Bytes of the inputs, and of pictures of their size; None: not fixed."""
        try:
            tokens = [self.model.tensor(name).token for name in self.model.inputs]
        except UnderstudyError:
            return None
        items = sum(t.nbytes // max(1, _item(t.dtype)) for t in tokens)
        return sum(t.nbytes for t in tokens), items

    def ops(self, cut: Cut) -> list[str]:
        """Return the operators that make what crosses."""
        model = self.model
        places = (model.producer.get(name) for name in cut.tensors)
        return ["input" if p is None else model.nodes[p].op_type for p in places]

    def to_json(self) -> dict[str, Any]:
        given = self.given
        return {
            "understudy": 1,
            "model": {
                "file": self.model.where,
                "nodes": self.total,
                "inputs": [_described(self.model, n) for n in self.model.inputs],
                "outputs": [_described(self.model, n) for n in self.model.outputs],
            },
            "cuts": [
                {
                    "tensors": list(cut.tensors),
                    "ops": self.ops(cut),
                    "nodes": cut.nodes,
                    "depth": cut.nodes / self.total,
                    "bytes": cut.bytes,
                    "of_input": _ratio(cut.bytes, given and given[0]),
                    "of_uint8": _ratio(cut.bytes, given and given[1]),
                    "useful": cut.useful,
                    "raw_input": cut.raw_input,
                    "notes": list(cut.notes),
                }
                for cut in self.cuts
            ],
        }

    def text(self, *, every: bool) -> str:
        """Return a table of the useful cuts, or of `every` one."""
        shown = [cut for cut in self.cuts if every or cut.useful]
        lines = [self._heading()]
        if self.given is None:
            sizes = ", ".join(self.model.open_sizes)
            lines.append(f"open sizes of inputs: {sizes}; fix them with --dim")
        if constant := self._constant():
            lines.append(f"outputs that no input changes, left out: {constant}")
        if not shown:
            return "\n".join([*lines, self._none()]) + "\n"
        lines.append("")
        rows = [_HEAD, *(self._row(cut) for cut in shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-2]
        for *numbers, tensors, notes in rows:
            cells = [f"{n:>{w}}" for n, w in zip(numbers, widths, strict=True)]
            cells[1] = f"{numbers[1]:{widths[1]}}"
            lines.append("  ".join([*cells, tensors, notes]).rstrip())
        hidden = len(self.cuts) - len(shown)
        if hidden:
            lines += ["", f"{hidden} more that no search would choose: --all"]
        return "\n".join(lines) + "\n"

    def _heading(self) -> str:
        alone = sum(len(cut.tensors) == 1 for cut in self.cuts)
        inputs = ", ".join(_described(self.model, n) for n in self.model.inputs)
        return (
            f"{self.model.where}: {self.total} nodes from {inputs}; one tensor "
            f"separates at {alone} places, {len(self.cuts) - alone} sets of several "
            "may be worth it"
        )

    def _constant(self) -> str:
        """Return the outputs that are the same for every frame."""
        every = (output.name for output in self.model.proto.graph.output)
        return ", ".join(name for name in every if name not in self.model.outputs)

    def _none(self) -> str:
        if self.cuts:
            return "no cut that a search would choose: see why with --all"
        return "no cut: nothing separates its inputs from its outputs"

    def _row(self, cut: Cut) -> tuple[str, ...]:
        given = self.given or (None, None)
        return (
            f"{100 * cut.nodes / self.total:.0f} %",
            "+".join(dict.fromkeys(self.ops(cut))),
            "-" if cut.bytes is None else f"{cut.bytes:,}",
            _percent(_ratio(cut.bytes, given[0])),
            _percent(_ratio(cut.bytes, given[1])),
            ", ".join(cut.tensors),
            _notes(cut),
        )


_HEAD = ("depth", "op", "bytes", "of input", "of uint8", "tensors", "")


def _notes(cut: Cut) -> str:
    notes = cut.notes if cut.useful else [
        f"{note}: {_WHY_NOT[note]}" if note in _WHY_NOT else note for note in cut.notes
    ]  # fmt: skip
    return f"({'; '.join(notes)})" if notes else ""


def _item(dtype: str) -> int:
    import numpy as np

    return int(np.dtype(dtype).itemsize)


def _ratio(size: int | None, of: int | None) -> float | None:
    return size / of if size is not None and of else None


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{100 * ratio:.0f} %" if ratio >= 0.1 else f"{100 * ratio:.1f} %"


def _described(model: Model, name: str) -> str:
    try:
        return f"{name} {model.tensor(name).token}"
    except UnderstudyError:
        return f"{name} of open size"


def listing(path: Path, sizes: Mapping[str, int]) -> Listing:
    """Return the cuts of the model in a file.

    Args:
        path: The file.
        sizes: For open dimensions of its inputs.

    Raises:
        MisuseError: No such file or dimension.
        UnderstudyError: It is no model.
    """
    model = Model.read(path, sizes)
    return Listing(model, cuts(model))


def parts_at(model: Model, places: Sequence[str]) -> tuple[Segment, ...]:
    """Return the parts of a model that is cut at places.

    Args:
        model: What to cut.
        places: Each names a tensor, or several with commas between. In any order.

    Raises:
        UnderstudyError: A tensor is unknown, or a place does not separate.
    """
    found = [_tensors(model, place) for place in places]
    found.sort(key=lambda names: len(needed(model, names, ())))
    return split_often(model, found, model.outputs).segments


def _tensors(model: Model, place: str) -> tuple[str, ...]:
    if place in model.dynamic:  # a name may have a comma in it
        return (place,)
    names = tuple(name.strip() for name in place.split(","))
    for name in names:
        if not name:
            known = nearest(place, model.dynamic)
            raise UnderstudyError(f"--at '{place}': an empty name{known}; name tensors")
        model.known(name)
    return names


def parts_into(model: Model, count: int) -> tuple[tuple[Segment, ...], str]:
    """Return `count` parts of about the same work, and what was counted as work.

    Raises:
        UnderstudyError: One tensor separates at fewer places.
    """
    places, measure = even_cuts(model, count)
    return split_often(model, places, model.outputs).segments, measure


def parts_per_group(model: Model) -> tuple[Segment, ...]:
    """Return the layer groups of a model, each behind what feeds it.

    Raises:
        UnderstudyError: An input or output of the model has no fixed size.
    """
    return tuple(group.part.segment(group.part.outputs) for group in groups(model))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which parts of a model a person wants.

    Attributes:
        model: Its file.
        sizes: For open dimensions of its inputs.
        at: Places to cut at, or
        into: how many parts; neither: one a layer group.
    """

    model: Path
    sizes: Mapping[str, int]
    at: Sequence[str] = ()
    into: int | None = None


def write(wanted: Wanted, output: Path, *, given: Path | None, verify: bool) -> str:
    """Write the parts of a model, and return what is to be said of them.

    Args:
        wanted: Which.
        output: Folder to write to.
        given: Inputs to compare parts and whole on; None: some that are made up.
        verify: Whether to compare.

    Raises:
        MisuseError: A file is not there or of no use, or the folder holds other files.
        UnderstudyError: The parts cannot be made, or do not compute what the model
            computes; nothing was written.
    """
    model = Model.read(wanted.model, wanted.sizes)
    how = ""
    if wanted.at:
        segments = parts_at(model, wanted.at)
    elif wanted.into:
        segments, measure = parts_into(model, wanted.into)
        how = f" of about as many {measure} each"
    else:
        segments, how = parts_per_group(model), ", one a layer group"
    inputs = inputs_for(model, given) if verify else None
    verdicts = write_parts(segments, output, inputs)
    lines = [f"{output}: {len(segments)} parts of {model.where}{how}"]
    for number, segment in enumerate(segments, 1):
        taken, made = (
            ", ".join(_described(model, name) for name in side)
            for side in (segment.given, segment.made)
        )
        lines.append(f"  {file_name(number)}: {taken} -> {made}")
    if verify:
        on = given or "inputs made up from a seed"
        lines += [f"compared with the whole model on {on}:"]
        lines += [f"  {verdict}" for verdict in verdicts]
    else:
        lines.append("not compared with the whole model")
    return "\n".join(lines) + "\n"
