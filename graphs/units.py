"""Units: the actors of a graph file as a deployment places and cuts them.

A whole actor is one unit; a model that is cut is several, from its head to its tail;
parts of a model that are fused (`graphs.fusion`) are one. Edges are the FIFOs between
units, the cut tensors among them.
"""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
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
from graphs.deployment import NO_CODEC, Codec, Deployment, Placement, used_actors
from graphs.located_yaml import Place, Problems
from graphs.split import Segment, Split
from graphs.submodel import SubModel

RANGE = ".."
"""Between the names of the first and the last of fused units."""
Part = str
"""Of a model that is cut: head, middle, middle2, …, tail; else empty."""


def part_names(count: int) -> tuple[Part, ...]:
    """Return what the parts of a model are called.

    >>> part_names(2), part_names(4)
    (('head', 'tail'), ('head', 'middle', 'middle2', 'tail'))
    """
    if count == 1:
        return ("",)
    middle = [f"middle{i}" if i > 1 else "middle" for i in range(1, count - 1)]
    return ("head", *middle, "tail")


class Unit(NamedTuple):
    """What fires as one: an actor of the graph file, one part of a cut, or several.

    >>> str(Unit("net", "head")), str(Unit("net.conv1", last="net.conv7"))
    ('net.head', 'net.conv1..conv7')
    """

    actor: str
    part: Part = ""
    last: str = ""
    """The last of the units that were fused into this one, `actor` being the first."""

    def __str__(self) -> str:
        first = f"{self.actor}.{self.part}" if self.part else self.actor
        if not self.last:
            return first
        family = first[: first.rfind(".") + 1]
        return f"{first}{RANGE}{self.last.removeprefix(family)}"


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
    codec: Codec = NO_CODEC


@dataclass(frozen=True, slots=True)
class Kind:
    """How a unit looks in the plain graph, whatever stream and device it is for."""

    type: str
    ports: tuple[Port, ...]
    given: Mapping[str, object]
    """Parameters, except which segment it runs."""
    stateful: bool
    inputs: Mapping[str, str]
    """Name of an end -> name of the port."""
    outputs: Mapping[str, str]
    segment: Segment | None = None
    time: int | Fraction | None = None

    def actor(self, name: str, device: str | None) -> Actor:
        """Return the unit as an actor of a plain graph."""
        return Actor(
            name,
            self.type,
            self.ports,
            self.params,
            device,
            self.stateful,
            self.time,
        )

    @property
    def params(self) -> dict[str, object]:
        """Parameters of the actor; its segment's file is made for them.

        Raises:
            UnderstudyError: The file would be larger than a file can be.
        """
        named = {"segment": self.segment.sha256} if self.segment else {}
        return {**named, **self.given}


class Units:
    """The units of a deployment, the edges between them, and their kinds."""

    def __init__(self, deployment: Deployment, problems: Problems) -> None:
        self._deployment = deployment
        self._problems = problems
        self._file = deployment.graph
        self._graph = deployment.graph.graph
        playing = {choice.actor for choice in deployment.order}
        self.actors = used_actors(self._file, playing)
        others = (r for refs in self._file.understudies.values() for r in refs)
        self._standing_in = {ref.actor for ref in others} & playing
        self._standing_in |= {e.answer.actor for e in self._file.exits.values()}
        self.behaviours = {n: self._behaviour(n) for n in self.actors}
        self._answers = {
            ref
            for key, refs in self._file.understudies.items()
            for ref in (key, *refs)
            if ref.actor in self.actors
        }
        for key, early in self._file.exits.items():
            self._answers |= {key, early.answer}
        self.fifos = tuple(
            fifo
            for fifo in self._graph.fifos
            if {fifo.source.actor, fifo.target.actor} <= set(self.actors)
        )
        models = self._file.models
        self.parts: dict[str, SubModel] = {
            name: models.of(self._graph.actors[name].params)
            for name in self.actors
            if is_model(self._graph.actors[name])
        }
        self.tensors = {
            name: port_of_tensor(self._graph.actors[name], models)
            for name in self.parts
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
        return Placement(
            next(c.path for c in self._deployment.order if c.actor == actor and c.path)
        )

    def group(self, unit: Unit) -> str:
        path = self.placement(unit.actor).path
        return path[part_names(len(path)).index(unit.part)] if unit.part else path[0]

    def is_remote(self, unit: Unit) -> bool:
        return self._deployment.groups[self.group(unit)].role == "server"

    def end(self, ref: PortRef, direction: Literal["in", "out"]) -> End | None:
        """Return the end that a port of the graph file stands for, if anything has it.

        An output is of the head where the head makes it, else of the tail.
        """
        name = self.tensor(ref)
        path = self.placement(ref.actor).path
        for part in (Unit(ref.actor, name) for name in part_names(len(path))):
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
        part = self.parts[actor.name]
        wanted = self._wanted(actor, part)
        if not wanted:
            self._problems.add(
                self._file.places[actor.name],
                f"actor '{actor.name}': nothing reads what it computes; connect it to "
                "what does, or remove it",
            )
            return
        placement = self.placement(actor.name)
        if not placement.cuts:
            self._add_segment(actor, "", part.segment(wanted))
            return
        found = part.split(placement.cuts, wanted)
        self.splits[actor.name] = found
        names = part_names(len(found.segments))
        for name, segment in zip(names, found.segments, strict=True):
            self._add_segment(actor, name, segment)

    def _add_segment(self, actor: Actor, part: Part, segment: Segment) -> None:
        # How the time of a model divides among its head and its tail is not known.
        time = None if part else actor.time
        kind = replace(segment_kind(segment), stateful=actor.stateful, time=time)
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
            time=actor.time,
        )

    def _wanted(self, actor: Actor, part: SubModel) -> list[str]:
        """Return the tensors that are used of a model, in the order of its ports."""
        used = {f.source for f in self.fifos} | self._answers
        cut = bool(self.placement(actor.name).cuts)
        tensors = self.tensors[actor.name]
        names = [
            tensors[port.name]
            for port in actor.outputs
            if PortRef(actor.name, port.name) in used
        ]
        # A whole model need not hand on its input: what feeds it has it as well.
        return [n for n in dict.fromkeys(names) if cut or n not in part.inputs]

    # Edges

    def _edges(self) -> tuple[Edge, ...]:
        edges = []
        for fifo in self.fifos:
            place = self._file.places[str(fifo)]
            source, delay = self._source(fifo.source)
            target = self.end(fifo.target, "in")
            if source and target:
                delay += fifo.delay
                codec = self._codec(source, target)
                edges.append(Edge(source, target, fifo.capacity, delay, place, codec))
            elif target is None and self._known(fifo.target.actor):
                self._problems.add(
                    place,
                    f"fifo {fifo}: nothing that is used of '{fifo.target.actor}' reads "
                    f"'{fifo.target.port}'; remove the fifo",
                )
        for name, found in self.splits.items():
            parts = [Unit(name, part) for part in part_names(len(found.segments))]
            codec = self.placement(name).codec
            for ends, cut in zip(itertools.pairwise(parts), found.cuts, strict=True):
                for tensor in cut:
                    source, target = (End(unit, tensor.name) for unit in ends)
                    edges.append(
                        Edge(
                            source,
                            target,
                            None,
                            0,
                            self.place(name),
                            codec.of(tensor.token),
                        )
                    )
        return tuple(edges)

    def _known(self, actor: str) -> bool:
        return any(unit.actor == actor for unit in self.kinds)

    def _codec(self, source: End, target: End) -> Codec:
        """Return how a tensor crosses between two parts of one model."""
        if not self.same_model(source.unit, target.unit):
            return NO_CODEC
        crosses = self.group(source.unit) != self.group(target.unit)
        token = self.port(source, "out").token
        if not crosses or token is None:
            return NO_CODEC
        return self._codec_of(source.unit.actor).of(token)

    def _codec_of(self, actor: str) -> Codec:
        """Return the codec that is given with some part of the actor's model.

        Two codecs in one model would be two models to compare answers with.
        """
        found: dict[Codec, str] = {}
        for name in self.parts:
            if self.same_model(Unit(actor), Unit(name)):
                found.setdefault(self.placement(name).codec, name)
        found.pop(NO_CODEC, None)
        if len(found) > 1:
            first, second, *_ = found.items()
            self._problems.add(
                self.place(second[1]),
                f"map: {second[1]}: codec {second[0]}, but '{first[1]}' of the same "
                f"model has {first[0]}; give both the same",
            )
        return next(iter(found), NO_CODEC)

    def _source(self, ref: PortRef) -> tuple[End | None, int]:
        """Return the end that a FIFO starts at, and initial tokens in front of it.

        For a tap on the input of a model that is not cut it is the end that feeds that
        input.
        """
        end = self.end(ref, "out")
        tensor = self.tensors.get(ref.actor, {}).get(ref.port)
        if end or tensor is None:
            return end, 0
        for fifo in self.fifos:
            if (
                fifo.target.actor == ref.actor
                and self.tensors[ref.actor][fifo.target.port] == tensor
            ):
                end, delay = self._source(fifo.source)
                return end, delay + fifo.delay
        return None, 0

    # Parts of one model

    def same_model(self, *units: Unit) -> bool:
        """Say whether all of `units` are of one model."""
        parts = [self.parts.get(unit.actor) for unit in units]
        models = {id(part.model) for part in parts if part}
        return len(models) == 1 and None not in parts

    def with_its_parts(self, unit: Unit) -> set[Unit]:
        """Return `unit` and the parts of its model, on its group, for it alone.

        They play where a whole model would play. Not for it alone is a part that others
        read, that answers by itself, or that reads what others read too of an actor
        with one port for it.
        """
        found = {
            feed
            for feed in (edge.source.unit for edge in self.edges)
            if self.same_model(feed, unit)
            and self.group(feed) == self.group(unit)
            and feed.actor not in self._standing_in
            and not self.kinds[feed].stateful
        } | {unit}
        while shared := self._shared(found) - {unit}:
            found -= shared
        return found

    def _shared(self, units: Collection[Unit]) -> set[Unit]:
        """Return those of `units` that have to do with units which are not."""
        outside = {edge.source for edge in self.edges if edge.target.unit not in units}
        found: set[Unit] = set()
        for edge in self.edges:
            source, target = edge.source.unit, edge.target.unit
            if edge.delay or target not in units:
                found.add(source)
            if edge.delay or (
                edge.source in outside and self.kinds[source].segment is None
            ):
                found.add(target)
        return found & set(units)


def segment_kind(segment: Segment, readers: Mapping[str, int] | None = None) -> Kind:
    """Return the kind of a unit that runs `segment`.

    Args:
        segment: What it runs.
        readers: Tensor -> the ports that it needs, where that is more than one. They
            are called as the tensor, and ``tensor#2`` and so on; the others may stay
            unconnected.
    """
    again = [
        (f"{name}#{number}", tensor)
        for name, tensor in zip(segment.made, segment.outputs, strict=True)
        for number in range(2, (readers or {}).get(name, 1) + 1)
    ]
    outputs = (*segment.outputs, *(tensor for _, tensor in again))
    ports, params = onnx_ports(segment.inputs, outputs)
    inputs = [port.name for port in ports if port.direction == "in"]
    made = [port.name for port in ports if port.direction == "out"]
    return Kind(
        type="onnx",
        ports=tuple(
            replace(port, optional=port.name in made[len(segment.made) :])
            for port in ports
        ),
        given=params,
        stateful=False,
        inputs=dict(zip((t.name for t in segment.inputs), inputs, strict=True)),
        outputs=dict(zip((*segment.made, *(n for n, _ in again)), made, strict=True)),
        segment=segment,
    )
