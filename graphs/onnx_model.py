"""An ONNX file as something to cut: who makes each tensor, who reads it, its type.

A tensor is *dynamic* when it depends on an input of the model. What does not (weights,
constants, nodes that reshape weights) belongs to no side of a cut: it is copied to
whichever side needs it.

Weights in other files stay there until a segment that reads them is written. Sizes that
are fixed are constant, however the exporter has them computed.

The first dimension of an input may be open: it is the batch. Token types have it
frozen to 1, one frame a token; the segments that are written keep it open, so that
several firings can run as one batch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import helper

from actors.trial import observed
from dataflow.errors import UnderstudyError, nearest
from dataflow.graph import TokenType
from graphs import external
from graphs.inference import Infos, dims_of, dtype_of, inferred, open_batch
from graphs.model_file import inputs_of, open_dims, read_proto
from graphs.nodes import reads

_RANDOM = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)
_DECIDED_BY_DATA = frozenset(
    (
        *("Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan"),
        *("StringSplit", "Unique"),
    )
)
"""Operators whose outputs may be of another size for every frame."""
_UNKNOWN = "unk__"
"""What inference calls sizes that nobody has named begins so."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor of a model and the token type that carries it."""

    name: str
    token: TokenType

    def json(self) -> list[object]:
        """Return ``[name, dtype, shape]``, as the parameters of an actor hold it."""
        return [self.name, self.token.dtype, list(self.token.shape)]


class Model:
    """A loaded ONNX model.

    Attributes:
        makes: For each node, the tensors that it makes; outputs left out are skipped.
        producer: Tensor -> the node that makes it.
        reads: For each node, the tensors that it reads, in whatever way.
        outputs: Names of those outputs that depend on an input: the others are the same
            for every frame. All of them if none does.
        sizes: Of open dimensions of the inputs, as they were given.
        where: Path of the file, for messages.
        sha256: Of the file and of the external data that it names.
        proto: Its content; not to be changed.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        where: str,
        sha256: str | Callable[[], str],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.proto = proto
        self.where = where
        self.sizes = dict(sizes or {})
        self._sha256 = sha256
        graph = proto.graph
        self.initializers = {t.name: t for t in graph.initializer}
        self.weights = {*self.initializers} | {
            t.values.name for t in graph.sparse_initializer
        }
        self.inputs = inputs_of(proto)
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(graph.node)
        self.makes = tuple(tuple(filter(None, node.output)) for node in self.nodes)
        self.producer = {
            name: index for index, made in enumerate(self.makes) for name in made
        }
        self.reads = tuple(tuple(reads(node)) for node in self.nodes)
        self._tokens: dict[str, TokenType] = {}
        outputs = tuple(o.name for o in graph.output)
        self.outputs = tuple(filter(self.dynamic.__contains__, outputs)) or outputs

    @classmethod
    def read(cls, path: Path, sizes: Mapping[str, int] | None = None) -> "Model":
        """Return the model in the file `path`; external data stays where it is.

        Args:
            path: The file.
            sizes: Sizes for open dimensions of the inputs, by the dimension's name or,
                if it has none, as ``input:axis``.

        Raises:
            MisuseError: There is no such file, or no such open dimension.
            UnderstudyError: It is not an ONNX model that can be run.
        """
        proto, sha256 = read_proto(path, sizes or {})
        return cls(proto, str(path), sha256, sizes)

    @cached_property
    def sha256(self) -> str:
        return self._sha256 if isinstance(self._sha256, str) else self._sha256()

    @cached_property
    def weights_in_nodes(self) -> bool:
        """Whether attributes of nodes hold weights that lie in other files."""
        return any(map(external.is_external, external.nested(self.proto)))

    @property
    def folder(self) -> Path:
        """Where the model's file and its external data lie."""
        return Path(self.where).parent

    @cached_property
    def dynamic(self) -> frozenset[str]:
        """Names of the tensors that depend on an input of the model."""
        found = set(self.inputs)
        for node, read in zip(self.nodes, self.reads, strict=True):
            if not found.isdisjoint(read):
                found.update(name for name in node.output if name)
        return frozenset(found)

    @cached_property
    def feeds(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """For each node, what it reads that a node makes, and which one."""
        made = self.producer
        return tuple(
            tuple((name, made[name]) for name in read if name in made)
            for read in self.reads
        )

    @cached_property
    def random(self) -> frozenset[int]:
        """Indices of the nodes that draw random numbers."""
        functions = {
            (f.domain, f.name) for f in self.proto.functions if any(map(_draws, f.node))
        }
        return frozenset(
            index
            for index, node in enumerate(self.nodes)
            if _draws(node) or (node.domain, node.op_type) in functions
        )

    @cached_property
    def rank(self) -> Mapping[str, int]:
        """Tensor -> its place in the order in which they are made, inputs first."""
        return dict.fromkeys(self.inputs, -1) | self.producer

    def tensor(self, name: str) -> Tensor:
        """Return the dynamic tensor called `name` with its token type.

        Raises:
            UnderstudyError: No such tensor, or its size is not fixed.
        """
        self.known(name)
        if name not in self._tokens:
            self._tokens[name] = self._token(name)
        return Tensor(name, self._tokens[name])

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of any tensor, weights too; None if it is not fixed."""
        if name in self.initializers:
            return tuple(self.initializers[name].dims)
        info = self._info(name)
        dims = None if info is None else dims_of(info)
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            return None
        return tuple(map(int, dims))

    def known(self, name: str) -> None:
        """Check that `name` is a tensor that depends on an input.

        Raises:
            UnderstudyError: It is not; the nearest name is offered.
        """
        if name in self.dynamic:
            return
        if name in self.weights or name in self.producer:
            raise UnderstudyError(
                f"tensor '{name}': a weight or constant of {self.where}, the same for "
                "every frame; name a tensor that depends on the input"
            )
        raise UnderstudyError(
            f"tensor '{name}': not in {self.where}{nearest(name, self.dynamic)}; list "
            f"what can be cut with `understudy split {self.where}`"
        )

    def _token(self, name: str) -> TokenType:
        info = self._info(name)
        kind = "" if info is None else info.type.WhichOneof("value") or ""
        if kind not in ("", "tensor_type"):
            raise UnderstudyError(
                f"tensor '{name}': is a {kind.removesuffix('_type')}, and only one "
                "array can be a token; choose another tensor"
            )
        dims = None if info is None else dims_of(info)
        if info is None or dims is None:
            raise UnderstudyError(
                f"tensor '{name}': its shape cannot be inferred{self._because(name)}; "
                f"add it to value_info of {self.where}, or choose another tensor"
            )
        for index, dim in enumerate(dims):
            if not isinstance(dim, int):
                named = dim and not dim.startswith(_UNKNOWN)
                size = f"'{dim}'" if named else "open"
                raise UnderstudyError(
                    f"tensor '{name}': dimension {index} is {size}, not a number"
                    f"{self._decided(name)}; {self._to_fix(name)}"
                )
        dtype = dtype_of(info.type.tensor_type.elem_type)
        shape = ",".join(map(str, dims))
        if any(int(dim) < 1 for dim in dims):
            raise UnderstudyError(
                f"tensor '{name}': would be {dtype}[{shape}], without an element; give "
                f"{self.where} larger inputs{self.to_choose_sizes}"
            )
        try:
            return TokenType.parse(f"{dtype}[{shape}]")
        except UnderstudyError:
            raise UnderstudyError(
                f"tensor '{name}': elements of type {dtype} cannot be a token; "
                "choose another tensor"
            ) from None

    def _to_fix(self, name: str) -> str:
        """Return what to do where a tensor is of open size."""
        if self.open_sizes:
            options = " ".join(f"--dim '{open_}=SIZE'" for open_ in self.open_sizes)
            return (
                f"give what is open in {self.where} a size: {options}, or as `dims` of "
                "its actor"
            )
        if name in self.varying:
            return "choose a tensor in front of what decides it"
        return f"export {self.where} with fixed sizes (the batch may stay open)"

    @property
    def to_choose_sizes(self) -> str:
        """What to say where sizes that were chosen may be why a model does not run."""
        names = {**open_dims(self.proto.graph, self.inputs), **self.sizes}
        options = " ".join(f"--dim '{name}=SIZE'" for name in names)
        return f", or other sizes with {options}" if names else ""

    def _info(self, name: str) -> onnx.ValueInfoProto | None:
        """Return the type of a tensor, one frame at a time: inferred, else observed."""
        info = self._frozen.get(name)
        if _has_size(info) or name in self.varying:
            return info
        return self._observed.get(name, info)

    @cached_property
    def varying(self) -> frozenset[str]:
        """Names of tensors whose size the data may decide, and of what is made of them.

        Of those behind, inference may still know the size.
        """
        found: set[str] = set()
        for node, read in zip(self.nodes, self.reads, strict=True):
            decided = node.op_type in _DECIDED_BY_DATA and not node.domain
            if decided or not found.isdisjoint(read):
                found.update(name for name in node.output if name)
        return frozenset(found & self.dynamic)

    @cached_property
    def _observed(self) -> Infos:
        """What a run says of tensors that inference says nothing of."""
        wanted = {
            name
            for name in self.dynamic
            if not _has_size(self._frozen.get(name)) and name not in self.varying
        }
        if not wanted or not all(_has_size(self._frozen[name]) for name in self.inputs):
            return {}
        try:
            tokens = {name: self._token(name) for name in self.inputs}
        except UnderstudyError:
            return {}
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in wanted - set(self.outputs)
        )
        given = {name: (t.dtype, t.shape) for name, t in tokens.items()}
        found = observed(proto.SerializeToString(), self.folder, given, wanted)
        return {
            name: helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(dtype), shape
            )
            for name, (dtype, shape) in found.items()
        }

    def _decided(self, name: str) -> str:
        return " but decided by the data" if name in self.varying else ""

    def _because(self, name: str) -> str:
        """Say which node of a foreign domain may be why inference stopped."""
        todo, seen = [name], {name}
        while todo:
            index = self.producer.get(todo.pop())
            if index is None:
                continue
            node = self.nodes[index]
            if node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
                return f" (operator {node.op_type} of '{node.domain}' says none)"
            fresh = [t for t in self.reads[index] if t not in seen]
            seen.update(fresh)
            todo.extend(fresh)
        return ""

    def written(self, name: str) -> onnx.ValueInfoProto:
        """Return the type of a tensor as a segment's input or output declares it.

        The shape is that of the token, or what is known of it; the batch dimension
        stays open where the model's own inference says that the tensor has it.
        """
        info = self._info(name)
        if info is None:
            return onnx.ValueInfoProto(name=name)
        if not info.type.HasField("tensor_type"):  # a sequence, as of maps
            return onnx.ValueInfoProto(name=name, type=info.type)
        found = dims_of(info)
        shape: list[int | str | None] | None = None if found is None else [*found]
        opened = self._open.get(name)
        dims = None if opened is None else dims_of(opened)
        if shape and dims and len(dims) == len(shape) and dims[0] in self._batch:
            shape[0] = dims[0]
        elem_type = info.type.tensor_type.elem_type
        return helper.make_tensor_value_info(name, elem_type, shape)

    @property
    def open_sizes(self) -> tuple[str, ...]:
        """What `read` can fix: open dimensions of inputs, save for a batch."""
        found = open_dims(self.proto.graph, self.inputs)
        return tuple(name for name, (axis, _) in found.items() if axis)

    @cached_property
    def _batch(self) -> frozenset[str]:
        return open_batch(self.proto, self.inputs)

    @cached_property
    def _frozen(self) -> Infos:
        return inferred(self.proto, self.inputs, self.where, freeze=True)

    @cached_property
    def _open(self) -> Infos:
        return inferred(self.proto, self.inputs, self.where, freeze=False)

    def interface(
        self, taps: Iterable[str] = ()
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the model's inputs, and its outputs with `taps` after them."""
        inputs = tuple(self.tensor(name) for name in self.inputs)
        outputs = tuple(self._answer(name) for name in self.outputs)
        more = dict.fromkeys(name for name in taps if name not in self.outputs)
        return inputs, (*outputs, *map(self.tensor, more))

    def _answer(self, name: str) -> Tensor:
        """Return an output as `tensor` does, and say what to do if it cannot be one."""
        try:
            return self.tensor(name)
        except UnderstudyError as error:
            if self.open_sizes:  # then it may be for want of them
                raise
            raise UnderstudyError(
                f"output of {self.where}: {error}; or cut the model in front of it "
                "(`understudy split MODEL --at TENSOR`) and take the first part, which "
                "answers with that tensor"
            ) from None


def _draws(node: onnx.NodeProto) -> bool:
    """Say whether a node, or one of its subgraphs, draws random numbers."""
    if node.op_type in _RANDOM:
        return True
    graphs = (g for a in node.attribute for g in (*a.graphs, a.g))
    return any(_draws(inner) for graph in graphs for inner in graph.node)


def _has_size(info: onnx.ValueInfoProto | None) -> bool:
    dims = None if info is None else dims_of(info)
    return dims is not None and all(isinstance(dim, int) for dim in dims)
