"""A segment of a network: an ONNX file, run by onnxruntime into memory of our own.

Each firing writes its outputs into the next buffers of a ring and returns views of
them: nothing is allocated and nothing is copied. There is one IO binding per ring
place, its outputs bound once. An input is bound again only when it is not the array
that the place had before: an upstream ring of the same length always hands the same one
to the same place, so in a chain nothing is ever bound again.

What is received is another array each time. It is bound with `bind_cpu_input`, which
costs 16 us after a run that emptied the caches; `bind_input` with an address from
`ndarray.ctypes` costs 65 us there, though with warm caches they differ by 3 us only.
The price: a place holds its input until it is used again, so the memory of as many
received messages as the ring has places.

Several firings at once are one call: their tokens are stacked along the first axis, and
the answer's rows are the answers. That is sound only if the network treats the rows
alike and apart. No file says so; so where batches are asked for, `start` tries random
tokens together and alone, and refuses a network that does not answer the same.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from actors import params as read
from actors.batch_trial import BATCH_ERROR_MAX, batch_error, rows
from actors.ring import ring
from actors.sessions import SESSIONS, Settings, first_line
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.errors import ActorError, UnderstudyError, nearest
from dataflow.graph import Port, TokenType
from dataflow.plan import SEGMENTS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

Array = NDArray[np.generic]

_ONNX_TYPES = {"float32": "float", "float64": "double"}
"""Element types that ONNX calls otherwise than NumPy."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A named tensor of the model, and the port that carries it."""

    name: str
    port: str
    token: TokenType


@dataclass(slots=True, eq=False)
class _Place:
    """One place of the ring: an IO binding with its buffers."""

    binding: "IOBinding"
    answer: Any
    """What `fire` returns: one array, or a tuple of several."""
    bound: list[Array | None]
    """The arrays that the binding reads, which it keeps alive."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Memory of a batch: a row for each token."""

    inputs: list[Array]
    outputs: list[Array]
    bindings: dict[int, "IOBinding"] = field(default_factory=dict)
    """By the number of rows."""


class OnnxSegment(Behaviour):
    """Runs an ONNX file; its ports are named after its tensors.

    Params:
        segment: SHA-256 of a file of the plan, or
        file: path of a model.
        inputs: [[tensor name, dtype, shape], ...], all that the model takes.
        outputs: The same, those of its outputs that are wanted. One that stands there
            twice has two ports, which carry the same memory.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(
            params, required=("inputs", "outputs"), optional=("segment", "file")
        )
        if ("segment" in params) == ("file" in params):
            raise UnderstudyError(
                "parameters 'segment' and 'file': give one of them, "
                "the SHA-256 of a plan's segment or the path of a model"
            )
        if "file" in params:
            read.text(params, "file")
        elif not _SHA256.fullmatch(read.text(params, "segment")):
            raise read.wrong("segment", params["segment"], "a SHA-256 in hexadecimal")
        inputs, outputs = _tensors(params)
        return tuple(
            [Port(t.port, "in", t.token) for t in inputs]
            + [Port(t.port, "out", t.token) for t in outputs]
        )

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._inputs, self._outputs = _tensors(params)
        self._checks = [(np.dtype(t.token.dtype), t.token.shape) for t in self._inputs]
        self._file = (
            Path(params["file"])
            if "file" in params
            else site.plan_folder / SEGMENTS / f"{params['segment']}.onnx"
        )
        self._settings = Settings(site.threads, site.providers)
        self._session: InferenceSession | None = None
        self._run: Callable[[IOBinding], None] = _not_started
        self._ring: Iterator[_Place] = iter(())
        self._batches: list[_Batch] = []

    def start(self) -> None:
        if "segment" in self.params:
            _verify(self._file, self.params["segment"])
        self._session = SESSIONS.acquire(self._file, self._settings)
        _match(self._file, "input", self._inputs, self._session.get_inputs())
        _match(self._file, "output", self._outputs, self._session.get_outputs())
        self._run = self._session.run_with_iobinding
        rings = {t.name: ring(t.token, self.site.slots) for t in self._outputs}
        self._ring = cycle(
            [
                self._place(dict(zip(rings, arrays, strict=True)))
                for arrays in zip(*rings.values(), strict=True)
            ]
        )
        if self.site.batch > 1:
            self._start_batches()

    def _place(self, arrays: dict[str, Array]) -> _Place:
        assert self._session is not None
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_output(
                name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )
        made = tuple(arrays[tensor.name] for tensor in self._outputs)
        return _Place(
            binding=binding,
            answer=made[0] if len(made) == 1 else made,
            bound=[None] * len(self._inputs),
        )

    def fire(self, *tokens: Any) -> Any:
        place = next(self._ring)
        for index, token in enumerate(tokens):
            if place.bound[index] is not token:
                self._bind(place, index, token)
        self._run_safely(place.binding)
        return place.answer

    def fire_many(self, firings: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        count = len(firings)
        if count == 1 or not self._batches:
            return super().fire_many(firings)
        self._batches.reverse()  # the answers of the last batch stay as they are
        batch = self._batches[0]
        for row, tokens in enumerate(firings):
            for index, token in enumerate(tokens):
                self._check(index, token)
                batch.inputs[index][row] = token[0]
        if count not in batch.bindings:
            batch.bindings[count] = self._bind_rows(batch, count)
        self._run_safely(batch.bindings[count])
        answers = zip(*([a[i : i + 1] for i in range(count)] for a in batch.outputs))  # noqa: B905
        return [answer[0] if len(answer) == 1 else answer for answer in answers]

    def _start_batches(self) -> None:
        """Get memory for batches, and try one.

        Raises:
            UnderstudyError: The network cannot run as a batch, or answers otherwise.
        """
        assert self._session is not None
        for node in (*self._session.get_inputs(), *self._session.get_outputs()):
            if not node.shape or isinstance(node.shape[0], int):
                raise UnderstudyError(
                    f"{self._file}: '{node.name}' is {node.shape}, one token at a "
                    f"time, and {self.site.batch} are to run as one batch; compile the "
                    "plan again, or remove batch_max"
                )
        inputs = [t.token for t in self._inputs]
        self._batches = [
            _Batch(rows(inputs, self.site.batch), self._made_rows()) for _ in range(2)
        ]
        try:
            error = batch_error(self, inputs, self.site.batch)
        except ActorError as wrong:
            raise UnderstudyError(
                f"{wrong}; it cannot run {self.site.batch} tokens as one batch, remove "
                "batch_max"
            ) from None
        if error > BATCH_ERROR_MAX:
            raise UnderstudyError(
                f"{self._file}: answers otherwise in a batch of {self.site.batch} than "
                f"alone (by {error:.2g} of its maximum): its rows depend on each "
                "other; remove batch_max"
            )

    def _made_rows(self) -> list[Array]:
        """Return memory for a batch of each output; of one named twice, the same."""
        made = {t.name: t.token for t in self._outputs}
        arrays = rows([*made.values()], self.site.batch)
        return [dict(zip(made, arrays, strict=True))[t.name] for t in self._outputs]

    def _bind_rows(self, batch: "_Batch", count: int) -> "IOBinding":
        """Return a binding of the first `count` rows of a batch's memory."""
        assert self._session is not None
        binding = self._session.io_binding()
        for bind, tensors, arrays in (
            (binding.bind_input, self._inputs, batch.inputs),
            (binding.bind_output, self._outputs, batch.outputs),
        ):
            for tensor, array in zip(tensors, arrays, strict=True):
                shape = (count, *tensor.token.shape[1:])
                data = array.ctypes.data
                bind(tensor.name, "cpu", 0, array.dtype.type, shape, data)
        return binding

    def _check(self, index: int, token: Array) -> None:
        dtype, shape = self._checks[index]
        if token.dtype == dtype and token.shape == shape:
            return
        tensor = self._inputs[index]
        raise ActorError(
            f"{self._file}: input '{tensor.name}' takes {tensor.token}, got "
            f"{token.dtype}{list(token.shape)}; check what feeds port '{tensor.port}'"
        )

    def _run_safely(self, binding: "IOBinding") -> None:
        try:
            self._run(binding)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ActorError(f"{self._file}: {first_line(error)}") from None

    def _bind(self, place: _Place, index: int, token: Array) -> None:
        self._check(index, token)
        if not (token.flags.c_contiguous and token.flags.aligned):
            # A new copy each time: the original may be written to again.
            token = token.copy(order="C")
        place.binding.bind_cpu_input(self._inputs[index].name, token)
        place.bound[index] = token

    def stop(self) -> None:
        # Bindings first: they refer to the session.
        self._ring = iter(())
        self._batches = []
        self._run = _not_started
        if self._session is not None:
            self._session = None
            SESSIONS.release(self._file, self._settings)


def port_names(tensors: Sequence[str]) -> list[str]:
    """Return a port name for each tensor name: unique, and made of [A-Za-z0-9_].

    >>> port_names(["input", "conv/2:0", "conv.2:0"])
    ['input', 'conv_2_0', 'conv_2_0_2']
    """
    names: list[str] = []
    for tensor in tensors:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", tensor)
        name, copy = plain, 1
        while name in names:
            copy += 1
            name = f"{plain}_{copy}"
        names.append(name)
    return names


def _tensors(params: Params) -> tuple[list[_Tensor], list[_Tensor]]:
    """Return inputs and outputs; port names are unique over both."""
    inputs = _described(params, "inputs")
    outputs = _described(params, "outputs")
    ports = port_names([name for name, _ in (*inputs, *outputs)])
    tensors = [
        _Tensor(name, port, token)
        for (name, token), port in zip((*inputs, *outputs), ports, strict=True)
    ]
    return tensors[: len(inputs)], tensors[len(inputs) :]


def _described(params: Params, name: str) -> list[tuple[str, TokenType]]:
    described = []
    value = params[name]
    if not isinstance(value, (list, tuple)) or not value:
        raise read.wrong(name, value, "a list of [tensor name, dtype, shape]")
    for entry in value:
        match entry:
            case [str(tensor), str(dtype), [*numbers]]:
                shape = read.shape(numbers, name)
                text = f"{dtype}[{','.join(map(str, shape))}]"
                described.append((tensor, TokenType.parse(text)))
            case _:
                raise read.wrong(name, entry, "[tensor name, dtype, shape]")
    return described


def _verify(file: Path, sha256: str) -> None:
    """Check that a segment is the one that the plan was compiled with."""
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UnderstudyError(
            f"{file}: cannot be read ({error.strerror}); the plan is incomplete, "
            "copy or compile it again"
        ) from None
    if found != sha256:
        raise UnderstudyError(
            f"{file}: content has SHA-256 {found}; the file is damaged or was "
            "replaced, copy or compile the plan again"
        )


def _match(
    file: Path, kind: str, wanted: Sequence[_Tensor], offered: Sequence[Any]
) -> None:
    """Check names, dtypes and shapes against what the session says of its model.

    Args:
        file: Of the model, for the message.
        kind: ``input`` or ``output``.
        wanted: What the parameters declare.
        offered: onnxruntime's NodeArg objects.
    """
    known = {node.name: node for node in offered}
    for tensor in wanted:
        if tensor.name not in known:
            raise UnderstudyError(
                f"{file}: has no {kind} '{tensor.name}'"
                f"{nearest(tensor.name, known)}; it has {', '.join(known)}"
            )
        node = known[tensor.name]
        onnx_type = _ONNX_TYPES.get(tensor.token.dtype, tensor.token.dtype)
        if node.type != f"tensor({onnx_type})" or not _fits(
            node.shape, tensor.token.shape
        ):
            raise UnderstudyError(
                f"{file}: {kind} '{tensor.name}' is {node.type} {node.shape}, declared "
                f"as {tensor.token}; make the declaration agree with the model"
            )
    missing = set(known) - {tensor.name for tensor in wanted}
    if kind == "input" and missing:
        raise UnderstudyError(
            f"{file}: takes input {', '.join(sorted(missing))} too; "
            "declare it under 'inputs'"
        )


def _fits(model: Sequence[int | str | None], shape: tuple[int, ...]) -> bool:
    """Whether a fixed shape is one of those that the model allows."""
    return len(model) == len(shape) and all(
        size == fixed or not isinstance(size, int)
        for size, fixed in zip(model, shape, strict=True)
    )


def _not_started(binding: "IOBinding") -> None:
    raise RuntimeError("fired before start or after stop")
