"""The undeployed graph that answers called *full* are compared with."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from dataflow.graph import Actor, Fifo, Graph, PortRef
from graphs.deployment import Deployment
from graphs.exits import Exit, undivided
from graphs.expand import Expansion
from graphs.fanout import copied
from graphs.fusion import moved_edges, moved_end, united
from graphs.rounded import with_codec
from graphs.split import Segment
from graphs.streams import Stream
from graphs.units import Edge, End, Kind, Unit, Units, segment_kind


def reference(
    deployment: Deployment, expanded: Expansion
) -> tuple[Graph, dict[str, Segment]]:
    """Return the reference graph of a deployment and the segments that it runs.

    It is one stream of each source up to its answer: every model whole, its parts fused
    wherever they run, the codecs of the deployment written into it, early exits with
    their gates. Actors are called as in the graph file; the port that answers is
    connected to nothing.
    """
    actors: dict[str, Actor] = {}
    fifos: list[Fifo] = []
    segments: dict[str, Segment] = {}
    exits: dict[PortRef, Exit] = {}
    for stream in expanded.streams:
        undeployed = _Undeployed(deployment, expanded.units, stream)
        actors |= {actor.name: actor for actor in undeployed.actors()}
        fifos += undeployed.fifos()
        segments |= undeployed.segments()
        exits |= undeployed.exits()
    dpgs = tuple(dpg for stream in expanded.streams for dpg in stream.dpgs)
    graph = Graph(deployment.graph.graph.name, actors, tuple(fifos), dpgs)
    return undivided(graph, exits), segments


class _Undeployed:
    """One stream as it is when nothing is cut, and nothing on another device."""

    def __init__(self, deployment: Deployment, units: Units, stream: Stream) -> None:
        self._graph = deployment.graph.graph
        self._units = units
        ref = stream.answer_fifo.source
        self._early = deployment.graph.exits.get(ref) if stream.gate else None
        answering = [ref, self._early.answer] if self._early else [ref]
        self._answers = [End(Unit(r.actor), units.tensor(r)) for r in answering]
        self._names = self._needed(
            [r.actor for r in answering] + ([self._early.gate] if self._early else [])
        )
        self._kinds = {Unit(n): self._kind(n) for n in units.actors if n in self._names}
        self._edges = [edge for f in units.fifos if (edge := self._edge(f))]
        self._fuse()

    def actors(self) -> Iterator[Actor]:
        answering = {end.unit for end in self._answers}
        for unit, kind in self._kinds.items():
            # The answer is read by whoever compares; no FIFO takes it.
            ports = tuple(
                replace(port, optional=True)
                if port.direction == "out" and unit in answering
                else port
                for port in kind.ports
            )
            yield replace(kind.actor(str(unit), None), ports=ports)

    def fifos(self) -> Iterator[Fifo]:
        for edge in self._edges:
            target = edge.target
            yield Fifo(
                self._port(edge.source),
                PortRef(str(target.unit), self._kinds[target.unit].inputs[target.name]),
                edge.capacity,
                edge.delay,
            )

    def exits(self) -> dict[PortRef, Exit]:
        """Return the stream's exit, if it has one."""
        if self._early is None:
            return {}
        answer, early = map(self._port, self._answers)
        return {answer: Exit(early, self._early.gate)}

    def _port(self, end: End) -> PortRef:
        return PortRef(str(end.unit), self._kinds[end.unit].outputs[end.name])

    def segments(self) -> dict[str, Segment]:
        found = (kind.segment for kind in self._kinds.values())
        return {segment.sha256: segment for segment in found if segment}

    def _needed(self, answering: Iterable[str]) -> set[str]:
        """Return the actors that lead to `answering`, those among them."""
        todo = list(answering)
        found = set(todo)
        while todo:
            name = todo.pop()
            feeds = {
                f.source.actor for f in self._units.fifos if f.target.actor == name
            }
            todo.extend(feeds - found)
            found |= feeds
        return found

    def _kind(self, name: str) -> Kind:
        """Return an actor as it is when nothing is cut: a model is one segment."""
        actor = self._graph.actors[name]
        if name not in self._units.parts:
            return self._units.kind(actor)
        used = {f.source for f in self._units.fifos if f.target.actor in self._names}
        wanted = [
            self._units.tensors[name][port.name]
            for port in actor.outputs
            if PortRef(name, port.name) in used
        ]
        wanted += [end.name for end in self._answers if end.unit.actor == name]
        return replace(
            segment_kind(self._units.parts[name].segment(wanted)),
            stateful=actor.stateful,
        )

    def _edge(self, fifo: Fifo) -> Edge | None:
        source = End(Unit(fifo.source.actor), self._units.tensor(fifo.source))
        target = End(Unit(fifo.target.actor), self._units.tensor(fifo.target))
        if not {source.unit, target.unit} <= self._kinds.keys():
            return None
        # An input that only a tap needs is not there when nothing is tapped.
        if target.name not in self._kinds[target.unit].inputs:
            return None
        place = self._units.place(fifo.target.actor)
        return Edge(source, target, fifo.capacity, fifo.delay, place)

    def _fuse(self) -> None:
        """Make one of the parts of a model, as if all of them ran on one device."""
        roles = {
            unit: id(kind.segment.model)
            for unit, kind in self._kinds.items()
            if kind.segment is not None and not kind.stateful
        }
        into, made = united(self._edges, self._answers, self._kinds, roles)
        members: dict[Unit, list[str]] = {}
        for unit in self._kinds:
            members.setdefault(into.get(unit, unit), []).append(unit.actor)
        kinds = self._kinds | made
        self._kinds = {
            u: self._rounded(kinds[u], names) for u, names in members.items()
        }
        self._answers = [moved_end(end, into) for end in self._answers]
        edges, here = moved_edges(self._edges, into), frozenset("here")
        answers = dict.fromkeys(self._answers, here)
        edges, made = copied(edges, [here] * len(edges), answers, self._kinds)
        self._edges, self._kinds = [*edges], self._kinds | made

    def _rounded(self, kind: Kind, members: Collection[str]) -> Kind:
        """Return the kind with the rounding of the codec with which a model is cut."""
        units, segment = self._units, kind.segment
        crossing = [
            edge
            for edge in units.edges
            if edge.target.unit.actor in members
            and units.same_model(edge.source.unit, edge.target.unit)
            and units.group(edge.source.unit) != units.group(edge.target.unit)
        ]
        encodings = {edge.codec.encoding for edge in crossing} - {""}
        if segment is None or not encodings:
            return kind
        # A frame passes the groups one by one: what enters each is a cut of its own.
        crossing.sort(key=lambda edge: segment.model.rank[edge.source.name])
        cuts: dict[str, dict[str, None]] = {}
        for edge in crossing:
            entered = cuts.setdefault(units.group(edge.target.unit), {})
            entered[edge.source.name] = None
        rounded = with_codec(
            segment.model,
            [*map(list, cuts.values())],
            segment.made,
            encodings.pop(),
            tuple(kind.inputs),
        )
        return replace(segment_kind(rounded), stateful=kind.stateful, time=kind.time)
