"""An ONNX file as something to cut: who makes each tensor, who reads it, its type.

A tensor is *dynamic* when it depends on an input of the model. What does not (weights,
constants, nodes that reshape weights) belongs to no side of a cut: it is copied to
whichever side needs it.

The first dimension of an input may be open: it is the batch. Token types have it
frozen to 1, one frame a token; the segments that are written keep it open, so that
several firings can run as one batch.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import helper, shape_inference

from dataflow.errors import MisuseError, UnderstudyError, nearest
from dataflow.graph import TokenType

IR_VERSION_MIN = 4
"""From here on initializers need not be listed as inputs."""
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
_SMALL_ELEMENTS = 1024
"""Initializers up to this size may hold shapes, which inference must see."""


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
        where: Path of the file, for messages.
        sha256: Of the file and of the external data that it names.
        proto: Its content; not to be changed.
    """

    def __init__(self, proto: onnx.ModelProto, where: str, sha256: str) -> None:
        self.proto = proto
        self.where = where
        self.sha256 = sha256
        graph = proto.graph
        self.weights = {t.name for t in graph.initializer} | {
            t.values.name for t in graph.sparse_initializer
        }
        # IR version 3 lists every initializer among the inputs as well.
        self.inputs = tuple(i.name for i in graph.input if i.name not in self.weights)
        self.outputs = tuple(o.name for o in graph.output)
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(graph.node)
        self.producer = {
            name: index
            for index, node in enumerate(self.nodes)
            for name in node.output
            if name
        }
        self.reads = tuple(tuple(_reads(node)) for node in self.nodes)

    @classmethod
    def read(cls, path: Path) -> "Model":
        """Return the model in the file `path`, external data included.

        Raises:
            MisuseError: There is no such file.
            UnderstudyError: It is not an ONNX model that can be run.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise MisuseError(
                f"model {path}: cannot be read ({error.strerror}); "
                "name a file that is there"
            ) from None
        try:
            proto = onnx.load_model_from_string(raw)
        except Exception:  # protobuf's DecodeError says nothing that helps
            raise UnderstudyError(
                f"model {path}: not an ONNX file; export the network as ONNX"
            ) from None
        digest = hashlib.sha256(raw)
        external = [t for t in proto.graph.initializer if t.external_data]
        if external:
            try:
                onnx.load_external_data_for_model(proto, str(path.parent))
            except Exception as error:
                raise UnderstudyError(
                    f"model {path}: its external data cannot be read ({error}); "
                    "put the weights beside the model"
                ) from None
            for tensor in external:
                digest.update(tensor.raw_data)
        if not proto.graph.node or not proto.graph.output:
            raise UnderstudyError(
                f"model {path}: has no nodes or no outputs; export the network as ONNX"
            )
        return cls(proto, str(path), digest.hexdigest())

    @cached_property
    def dynamic(self) -> frozenset[str]:
        """Names of the tensors that depend on an input of the model."""
        found = set(self.inputs)
        for node, reads in zip(self.nodes, self.reads, strict=True):
            if not found.isdisjoint(reads):
                found.update(name for name in node.output if name)
        return frozenset(found)

    @cached_property
    def random(self) -> frozenset[int]:
        """Indices of the nodes that draw random numbers."""
        found = (i for i, node in enumerate(self.nodes) if node.op_type in _RANDOM)
        return frozenset(found)

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
        return Tensor(name, self._token(name))

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
            f"tensor '{name}': not in {self.where}{nearest(name, self.dynamic)}"
        )

    def _token(self, name: str) -> TokenType:
        info = self._frozen.get(name)
        dims = None if info is None else _dims(info)
        if info is None or dims is None:
            raise UnderstudyError(
                f"tensor '{name}': its shape cannot be inferred{self._because(name)}; "
                f"add it to value_info of {self.where}, or choose another tensor"
            )
        for index, dim in enumerate(dims):
            if not isinstance(dim, int):
                size = f"'{dim}'" if dim else "open"
                raise UnderstudyError(
                    f"tensor '{name}': dimension {index} is {size}, not a number; "
                    f"export {self.where} with fixed sizes (the batch may stay open)"
                )
        dtype = _dtype(info)
        try:
            return TokenType.parse(f"{dtype}[{','.join(map(str, dims))}]")
        except UnderstudyError:
            raise UnderstudyError(
                f"tensor '{name}': elements of type {dtype} cannot be a token; "
                "choose another tensor"
            ) from None

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

        The shape is that of the token; the batch dimension stays open where the
        model's own inference says that the tensor has it.
        """
        token = self._token(name)
        shape: list[int | str | None] = list(token.shape)
        opened = self._open.get(name)
        dims = None if opened is None else _dims(opened)
        if dims and len(dims) == len(shape) and dims[0] in self._batch:
            shape[0] = dims[0]
        elem_type = self._frozen[name].type.tensor_type.elem_type
        return helper.make_tensor_value_info(name, elem_type, shape)

    @cached_property
    def _batch(self) -> frozenset[str]:
        """Names of open first dimensions of the inputs."""
        infos = (i for i in self.proto.graph.input if i.name in self.inputs)
        first = (dims[0] for i in infos if (dims := _dims(i)))
        return frozenset(d for d in first if isinstance(d, str) and d)

    @cached_property
    def _frozen(self) -> Mapping[str, onnx.ValueInfoProto]:
        return self._inferred(freeze=True)

    @cached_property
    def _open(self) -> Mapping[str, onnx.ValueInfoProto]:
        return self._inferred(freeze=False)

    def _inferred(self, *, freeze: bool) -> Mapping[str, onnx.ValueInfoProto]:
        skeleton = self._skeleton()
        if freeze:
            for info in skeleton.graph.input:
                dims = info.type.tensor_type.shape.dim
                if info.name in self.inputs and dims and dims[0].dim_value <= 0:
                    dims[0].dim_value = 1
            # The declared types of outputs and of what lies between may repeat the
            # open batch; inference would keep that in place of the 1.
            for info in (*skeleton.graph.output, *skeleton.graph.value_info):
                for dim in info.type.tensor_type.shape.dim:
                    if dim.dim_param in self._batch:
                        dim.dim_value = 1
        try:
            inferred = shape_inference.infer_shapes(skeleton, data_prop=True).graph
        except Exception as error:
            raise UnderstudyError(
                f"model {self.where}: its shapes contradict each other ({error}); "
                "export it again"
            ) from None
        found = (*inferred.value_info, *inferred.output, *inferred.input)
        return {info.name: info for info in found}

    def _skeleton(self) -> onnx.ModelProto:
        """Return the model with its large weights replaced by inputs of their type.

        Inference copies the whole model; half a gigabyte of weights has no part in it.
        """
        version = max(self.proto.ir_version, IR_VERSION_MIN)
        model = onnx.ModelProto(ir_version=version)
        model.opset_import.extend(self.proto.opset_import)
        model.functions.extend(self.proto.functions)
        graph, source = model.graph, self.proto.graph
        graph.name = source.name or "graph"
        graph.node.extend(source.node)
        graph.input.extend(i for i in source.input if i.name in self.inputs)
        graph.output.extend(source.output)
        graph.value_info.extend(source.value_info)
        for tensor in source.initializer:
            count = 1
            for dim in tensor.dims:
                count *= dim
            if count <= _SMALL_ELEMENTS:
                graph.initializer.append(tensor)
            else:
                graph.input.append(
                    helper.make_tensor_value_info(
                        tensor.name, tensor.data_type, tensor.dims
                    )
                )
        graph.sparse_initializer.extend(source.sparse_initializer)
        return model

    def interface(
        self, taps: Iterable[str] = ()
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the model's inputs, and its outputs with `taps` after them."""
        inputs = tuple(self.tensor(name) for name in self.inputs)
        names = dict.fromkeys((*self.outputs, *taps))
        return inputs, tuple(self.tensor(name) for name in names)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads: its inputs, and what its subgraphs capture."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            yield from _captures(graph)


def _captures(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that a subgraph takes from outside (If, Loop, Scan)."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    for node in graph.node:
        yield from (name for name in _reads(node) if name not in own)
        own.update(node.output)
    yield from (o.name for o in graph.output if o.name not in own)


def _dims(info: onnx.ValueInfoProto) -> list[int | str] | None:
    """Return sizes, or names where open; None if not even the rank is known."""
    if not info.type.HasField("tensor_type"):
        return None
    tensor_type = info.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in tensor_type.shape.dim
    ]


def _dtype(info: onnx.ValueInfoProto) -> str:
    elem_type = info.type.tensor_type.elem_type
    if elem_type == onnx.TensorProto.STRING:  # NumPy would call it an object
        return "string"
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)
