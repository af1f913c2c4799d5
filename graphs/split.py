"""Cut a model at named tensors into parts, head to tail; take it, or a part, whole.

A segment is found by walking back from what it must produce to what it is given. The
walk of the tail must end at the cut: whatever else it reaches that the head computes
*bypasses* the cut, and the cut is refused with its name. `onnx.utils.Extractor` was not
used: it drops what control flow captures, and returns a tail that lacks an input
without a word.

Segments are made from the model as its author exported it, never from an optimised
one: optimisation renames tensors and binds the file to one kind of processor.

Everywhere here `given` names what a part of a model starts from; without it that is the
model's inputs.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, pairwise

from dataflow.errors import UnderstudyError
from graphs.external import Carry, SharedWeights, inlined
from graphs.onnx_model import Model, Tensor
from graphs.segment_file import copy_name, segment_file

SPLITTER_VERSION = 2
"""Part of a segment's identity: raise it when the same cut means other nodes."""


# No slots: cached_property needs an instance dictionary.
@dataclass(frozen=True, eq=False)
class Segment:
    """The part of a model between two cuts.

    Attributes:
        given: Names of the tensors that it takes.
        made: Names in the model of the tensors that it outputs, in the order in which
            the model makes them. They are the outputs' own names, save where a segment
            hands on its input.
        model: What it is a part of.
        build: Returns the ONNX file, with the weights as a function gives them.
    """

    given: tuple[str, ...]
    made: tuple[str, ...]
    model: Model
    build: Callable[[Carry], bytes] = field(repr=False)

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it takes.

        Raises:
            UnderstudyError: A tensor has no fixed size; it cannot be a token then.
        """
        return tuple(map(self.model.tensor, self.given))

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """What it makes, under the names that its file has for it.

        Raises:
            UnderstudyError: As `inputs`.
        """
        tensors = map(self.model.tensor, self.made)
        return tuple(replace(t, name=self.output_name(t.name)) for t in tensors)

    def output_name(self, tensor: str) -> str:
        """Return the name that the file has for a tensor that the segment makes."""
        return copy_name(tensor) if tensor in self.given else tensor

    @cached_property
    def data(self) -> bytes:
        """The ONNX file, weights included: all that a device needs.

        The same cut of the same model gives the same bytes. Built when first asked for:
        it copies the weights, and most segments that a search looks at, or that become
        part of a larger one, are never run.

        Raises:
            UnderstudyError: It would be larger than one file can be.
        """
        return self.build(partial(inlined, folder=self.model.folder))

    def referring(self, weights: SharedWeights) -> bytes:
        """Return the ONNX file without its weights, which `weights` takes in.

        It computes the same as `data`, beside the file of `weights` only.
        """
        return self.build(weights.carry)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def identity(self) -> int:
        """What a peer must hold to compute on our tokens (u64).

        Other than `sha256` it does not change with the library that wrote the bytes.
        A tensor cut at layer 7 must never meet the suffix from layer 9, even where the
        shapes agree.
        """
        text = "\n".join(
            (
                f"splitter {SPLITTER_VERSION}",
                f"model {self.model.sha256}",
                *(f"input {t.name} {t.token}" for t in self.inputs),
                *(f"output {t.name} {t.token}" for t in self.outputs),
            )
        )
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Split:
    """A model cut once or more.

    Attributes:
        segments: From the head to the tail.
        cuts: Between them: the tensors that cross, in the order of the model.
    """

    segments: tuple[Segment, ...]
    cuts: tuple[tuple[Tensor, ...], ...]

    @property
    def head(self) -> Segment:
        return self.segments[0]

    @property
    def tail(self) -> Segment:
        return self.segments[-1]

    @property
    def cut(self) -> tuple[Tensor, ...]:
        """The first one."""
        return self.cuts[0]


def whole(
    model: Model, outputs: Sequence[str] | None = None, given: Sequence[str] = ()
) -> Segment:
    """Return one segment of `model` that produces `outputs` (default: the model's own).

    Raises:
        UnderstudyError: An output is not a tensor of the model, or has no fixed size.
    """
    return _segment(model, given, model.outputs if outputs is None else outputs)


def split(
    model: Model, cut: Sequence[str], outputs: Sequence[str], given: Sequence[str] = ()
) -> Split:
    """Return head and tail of `model`, cut at the tensors `cut`.

    Args:
        model: What to cut.
        cut: Names of tensors. An input of the model may be among them: the head then
            hands it on.
        outputs: What is used of the model: outputs, and tensors tapped inside. Each is
            exported by the head if it can be computed without passing the cut, else
            by the tail.
        given: Where the part of the model starts that is cut.

    Raises:
        UnderstudyError: A tensor is unknown or of open size, or the cut does not
            separate: says what bypasses it. Outputs may be of open size; a segment that
            makes one can be written, but not be an actor.
    """
    for name in cut:
        model.known(name)
    if all(name in (given or model.inputs) for name in cut):
        raise UnderstudyError(
            f"cut {quoted(cut)}: an input of {model.where}, so the head would be "
            "empty; map the whole model to the server instead"
        )
    in_front = front(model, cut, outputs, given)
    behind = [name for name in outputs if name not in in_front]
    if not behind:
        raise UnderstudyError(
            f"cut {quoted(cut)}: nothing that is used of {model.where} lies behind "
            "it; cut earlier, or map the whole model to the endpoint"
        )
    cut_names = in_order(model, cut)
    sides = _Sides(model, cut, behind, in_front, given)
    if passing := sides.passing():
        both = ", ".join(in_order(model, (*cut, *passing)))
        raise UnderstudyError(
            f"cut {quoted(cut)}: does not separate {model.where}; "
            f"{quoted(passing)} bypasses it; cut at a tensor behind the place where "
            f"they meet, or at all of [{both}]"
        )
    if drawn := drawn_twice(model, (*cut, *in_front), behind):
        raise UnderstudyError(
            f"cut {quoted(cut)}: both sides would draw the random numbers of "
            f"'{drawn}', and not the same; cut elsewhere"
        )
    tail = _segment(model, cut_names, behind, sides.tail)
    unread = set(cut_names) - set(tail.given)
    if unread:
        raise UnderstudyError(
            f"cut '{min(unread)}': the tail does not read it; leave it out of the cut"
        )
    return Split(
        (_segment(model, given, [*cut, *in_front], sides.head), tail),
        (tuple(model.tensor(name) for name in cut_names),),
    )


def split_often(
    model: Model,
    cuts: Sequence[Sequence[str]],
    outputs: Sequence[str],
    given: Sequence[str] = (),
) -> Split:
    """Return the parts of `model`, cut at each of `cuts`, in dataflow order.

    Raises:
        UnderstudyError: As `split` does for each cut; or a cut does not lie behind the
            one before it.
    """
    single = [split(model, cut, outputs, given) for cut in cuts]
    segments = [single[0].head]
    for before, after in pairwise(single):
        entering = [tensor.name for tensor in before.cut]
        leaving = [tensor.name for tensor in after.cut]
        made = {*leaving, *before.tail.made} - set(after.tail.made)
        middle = _segment(model, entering, [*made])
        if set(middle.given) != set(entering):
            raise UnderstudyError(
                f"cut {quoted(leaving)}: does not lie behind the cut "
                f"{quoted(entering)}; list the cuts in the order in which a frame "
                "passes them"
            )
        segments.append(middle)
    return Split((*segments, single[-1].tail), tuple(found.cut for found in single))


def front(
    model: Model, cut: Sequence[str], names: Iterable[str], given: Sequence[str] = ()
) -> list[str]:
    """Return those of `names` that can be computed without passing the cut."""
    head = needed(model, cut, given)
    behind: set[str] = set()
    reached = set(cut)
    for index, read in enumerate(model.reads):
        if index not in head and not reached.isdisjoint(read):
            behind.update(model.makes[index])
            reached.update(model.makes[index])
    return [name for name in names if name not in behind]


def needed(model: Model, names: Iterable[str], stop: Collection[str]) -> set[int]:
    """Return the indices of the nodes that `names` need, not walking past `stop`."""
    makers = (model.producer.get(name) for name in names if name not in stop)
    found = {index for index in makers if index is not None}
    todo = list(found)
    while todo:
        for name, maker in model.feeds[todo.pop()]:
            if maker not in found and name not in stop:
                found.add(maker)
                todo.append(maker)
    return found


class _Sides:
    """The nodes in front of a cut and behind it.

    Attributes:
        head: Those that make the cut and what is used in front of it.
        tail: Those that make what is behind it, of what the head makes.
    """

    def __init__(
        self,
        model: Model,
        cut: Sequence[str],
        behind: Sequence[str],
        in_front: Sequence[str],
        given: Sequence[str],
    ) -> None:
        self._model = model
        self.head = needed(model, (*cut, *in_front), given)
        made = set(chain.from_iterable(model.makes[index] for index in self.head))
        known = (made | set(model.inputs) | set(given)) & model.dynamic
        self._known = known - set(cut)
        self.tail = needed(model, behind, known | set(cut))

    def passing(self) -> list[str]:
        """Return what the tail reads, other than the cut, of what the head knows."""
        reads = self._model.reads
        read = set(chain.from_iterable(reads[index] for index in self.tail))
        return in_order(self._model, read & self._known)


def bypassing(
    model: Model,
    cut: Sequence[str],
    behind: Sequence[str],
    in_front: Sequence[str] = (),
    given: Sequence[str] = (),
) -> list[str]:
    """Return what `behind` reads, other than the cut, of what the head computes.

    The head computes `cut` and `in_front`; what is given to it counts too.
    """
    return _Sides(model, cut, behind, in_front, given).passing()


def drawn_twice(
    model: Model, in_front: Sequence[str], behind: Sequence[str]
) -> str | None:
    """Return a random tensor that both sides of a cut would draw, if there is one.

    Args:
        model: What is cut.
        in_front: What the head makes.
        behind: What the tail makes, from some of that.
    """
    if not model.random:
        return None
    head = needed(model, in_front, ())
    both = model.random & head & needed(model, behind, in_front)
    return str(model.nodes[min(both)].output[0]) if both else None


def in_order(model: Model, names: Iterable[str]) -> list[str]:
    """Return `names` once each, in the order in which the model makes them."""
    return sorted(dict.fromkeys(names), key=lambda name: (model.rank[name], name))


def quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _segment(
    model: Model,
    given: Sequence[str],
    outputs: Sequence[str],
    found: Iterable[int] | None = None,
) -> Segment:
    """Return the segment that makes `outputs` from `given` and the model's inputs.

    Its nodes are `found`, or those that are needed.
    """
    for name in outputs:
        model.known(name)
    made = in_order(model, outputs)
    nodes = sorted(needed(model, made, given) if found is None else found)
    offered = dict.fromkeys((*model.inputs, *given))
    copied = [name for name in made if name in offered]
    read = set(chain.from_iterable(model.reads[index] for index in nodes))
    read.update(copied)
    inputs = [name for name in offered if name in read]
    _check_closed(model, nodes, inputs, read)
    return Segment(
        given=tuple(inputs),
        made=tuple(made),
        model=model,
        build=partial(segment_file, model, nodes, inputs, made, copied, read),
    )


def _check_closed(
    model: Model, nodes: Iterable[int], inputs: Iterable[str], read: Collection[str]
) -> None:
    """Check that what a segment reads is its inputs and weights, and nothing else."""
    made = chain.from_iterable(model.makes[index] for index in nodes)
    missing = set(read).difference(made, model.weights, inputs)
    # A name that nobody makes is a fault of the model, not of the cut.
    if missing:
        raise UnderstudyError(
            f"tensor '{min(missing)}': read by a node, but nothing makes it; "
            "the model is not valid ONNX"
        )
