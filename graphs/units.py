"""Units: the actors of a graph file as a deployment places and cuts them.

A whole actor is one unit; a model that is cut is two, its head and its tail. Edges are
the FIFOs between units, the cut tensors among them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dataflow.behaviour import Behaviour
from dataflow.errors import UnderstudyError
from dataflow.graph import Actor, Port, PortRef
from graphs.actor_types import (
    behaviour_of,
    inputs_first,
    is_model,
    onnx_ports,
    port_of_tensor,
)
from graphs.deployment import NO_CODEC, Deployment, Placement, used_actors
from graphs.located_yaml import Place, Problems
from graphs.onnx_model import Model
from graphs.split import Segment, Split, split, whole

Part = Literal["", "head", "tail"]


class Unit(NamedTuple):
    """What fires as one: an actor of the graph file, or one side of a cut model."""

    actor: str
    part: Part = ""

    def __str__(self) -> str:
        return f"{self.actor}.{self.part}" if self.part else self.actor


class End(NamedTuple):
    """A port of a unit: by the name of its tensor in a model, else of the port."""

    unit: Unit
    name: str


@dataclass(frozen=True, slots=True)
class Edge:
    """A FIFO between units."""

    source: End
    target: End
    capacity: int | None
    delay: int
    place: Place
    codec: str = NO_CODEC


@dataclass(frozen=True, slots=True)
class Kind:
    """How a unit looks in the plain graph, whatever stream and device it is for."""

    type: str
    ports: tuple[Port, ...]
    params: Mapping[str, object]
    stateful: bool
    inputs: Mapping[str, str]
    """Name of an end -> name of the port."""
    outputs: Mapping[str, str]
    segment: Segment | None = None


class Units:
    """The units of a deployment, the edges between them, and their kinds."""

    def __init__(self, deployment: Deployment, problems: Problems) -> None:
        self._deployment = deployment
        self._problems = problems
        self._file = deployment.graph
        self._graph = deployment.graph.graph
        playing = {choice.actor for choice in deployment.order}
        self.actors = used_actors(self._file, playing)
        self.behaviours = {n: self._behaviour(n) for n in self.actors}
        self._answers = {
            ref
            for key, refs in self._file.understudies.items()
            for ref in (key, *refs)
            if ref.actor in self.actors
        }
        self.fifos = tuple(
            fifo
            for fifo in self._graph.fifos
            if {fifo.source.actor, fifo.target.actor} <= set(self.actors)
        )
        self.tensors = {
            name: port_of_tensor(self._graph.actors[name], self._file.models)
            for name in self.actors
            if is_model(self._graph.actors[name])
        }
        self.splits: dict[str, Split] = {}
        self.kinds: dict[Unit, Kind] = {}
        for name in self.actors:
            self._make(self._graph.actors[name])
        self.edges = self._edges()

    def place(self, actor: str) -> Place:
        """Return where the deployment maps an actor."""
        return self._deployment.places.get(actor, self._deployment.places["map"])

    def placement(self, actor: str) -> Placement:
        """Return where an actor is mapped; where it plays, if only the order says."""
        if actor in self._deployment.mapping:
            return self._deployment.mapping[actor]
        groups = [c.group for c in self._deployment.order if c.actor == actor]
        return Placement(groups[0] or "")

    def group(self, unit: Unit) -> str:
        placement = self.placement(unit.actor)
        return placement.tail if unit.part == "tail" else placement.group

    def is_remote(self, unit: Unit) -> bool:
        return self._deployment.groups[self.group(unit)].role == "server"

    def end(self, ref: PortRef, direction: Literal["in", "out"]) -> End | None:
        """Return the end that a port of the graph file stands for, if anything has it.

        An output is of the head where the head makes it, else of the tail.
        """
        name = self.tensor(ref)
        for part in (Unit(ref.actor), Unit(ref.actor, "head"), Unit(ref.actor, "tail")):
            kind = self.kinds.get(part)
            if kind and name in (kind.inputs if direction == "in" else kind.outputs):
                return End(part, name)
        return None

    def tensor(self, ref: PortRef) -> str:
        """Return the tensor that a port of a model carries; else the port's name."""
        return self.tensors.get(ref.actor, {}).get(ref.port, ref.port)

    def port(self, end: End, direction: Literal["in", "out"]) -> Port:
        kind = self.kinds[end.unit]
        name = (kind.inputs if direction == "in" else kind.outputs)[end.name]
        return next(p for p in kind.ports if p.name == name)

    def _behaviour(self, name: str) -> type[Behaviour] | None:
        actor = self._graph.actors[name]
        try:
            return behaviour_of(actor.type)
        except UnderstudyError as error:
            self._problems.add(self._file.places[name], f"actor '{name}': {error}")
            return None

    # Kinds

    def _make(self, actor: Actor) -> None:
        try:
            self._make_kinds(actor)
        except UnderstudyError as error:
            self._problems.add(self.place(actor.name), f"map: {actor.name}: {error}")

    def _make_kinds(self, actor: Actor) -> None:
        if not is_model(actor):
            self.kinds[Unit(actor.name)] = self.kind(actor)
            return
        model = self._file.models.of(actor)
        wanted = self._wanted(actor, model)
        placement = self.placement(actor.name)
        if not placement.cut:
            self._add_segment(actor, "", whole(model, wanted))
            return
        found = split(model, placement.cut, wanted)
        self.splits[actor.name] = found
        self._add_segment(actor, "head", found.head)
        self._add_segment(actor, "tail", found.tail)

    def _add_segment(self, actor: Actor, part: Part, segment: Segment) -> None:
        kind = replace(segment_kind(segment), stateful=actor.stateful)
        self.kinds[Unit(actor.name, part)] = kind

    def kind(self, actor: Actor) -> Kind:
        """Return the kind of a library or user type, without the inputs left open."""
        fed = {f.target.port for f in self.fifos if f.target.actor == actor.name}
        ports = tuple(
            replace(p, optional=False) if p.direction == "in" else p
            for p in actor.ports
            if p.direction == "out" or p.name in fed or not p.optional
        )
        return Kind(
            actor.type,
            inputs_first(ports),
            actor.params,
            actor.stateful,
            {p.name: p.name for p in ports if p.direction == "in"},
            {p.name: p.name for p in ports if p.direction == "out"},
        )

    def _wanted(self, actor: Actor, model: Model) -> list[str]:
        """Return the tensors that are used of a model, in the order of its ports."""
        used = {f.source for f in self.fifos} | self._answers
        cut = bool(self.placement(actor.name).cut)
        tensors = self.tensors[actor.name]
        names = [
            tensors[port.name]
            for port in actor.outputs
            if PortRef(actor.name, port.name) in used
        ]
        # A whole model need not hand on its input: what feeds it has it as well.
        return [n for n in dict.fromkeys(names) if cut or n not in model.inputs]

    # Edges

    def _edges(self) -> tuple[Edge, ...]:
        edges = []
        for fifo in self.fifos:
            place = self._file.places[str(fifo)]
            source, target = self._source(fifo.source), self.end(fifo.target, "in")
            if source and target:
                edges.append(Edge(source, target, fifo.capacity, fifo.delay, place))
            elif target is None and self._known(fifo.target.actor):
                self._problems.add(
                    place,
                    f"fifo {fifo}: nothing that is used of '{fifo.target.actor}' reads "
                    f"'{fifo.target.port}'; remove the fifo",
                )
        for name, found in self.splits.items():
            placement = self.placement(name)
            for tensor in found.cut:
                encoded = tensor.token.dtype == "float32"
                edges.append(
                    Edge(
                        End(Unit(name, "head"), tensor.name),
                        End(Unit(name, "tail"), tensor.name),
                        None,
                        0,
                        self.place(name),
                        placement.codec if encoded else NO_CODEC,
                    )
                )
        return tuple(edges)

    def _known(self, actor: str) -> bool:
        return any(unit.actor == actor for unit in self.kinds)

    def _source(self, ref: PortRef) -> End | None:
        """Return the end that a FIFO starts at.

        For a tap on the input of a whole model it is the end that feeds that input.
        """
        end = self.end(ref, "out")
        tensor = self.tensors.get(ref.actor, {}).get(ref.port)
        if end or tensor is None:
            return end
        feeds = [
            f.source
            for f in self.fifos
            if f.target.actor == ref.actor
            and self.tensors[ref.actor][f.target.port] == tensor
        ]
        return self._source(feeds[0]) if feeds else None


def segment_kind(segment: Segment) -> Kind:
    """Return the kind of a unit that runs `segment`."""
    ports, params = onnx_ports(segment.inputs, segment.outputs)
    names = [port.name for port in ports]
    count = len(segment.inputs)
    return Kind(
        type="onnx",
        ports=ports,
        params={"segment": segment.sha256, **params},
        stateful=False,
        inputs=dict(zip((t.name for t in segment.inputs), names, strict=False)),
        outputs=dict(zip(segment.made, names[count:], strict=True)),
        segment=segment,
    )
