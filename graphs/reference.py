"""The undeployed graph that answers called *full* are compared with."""

from collections.abc import Collection
from dataclasses import replace

from dataflow.graph import Actor, Fifo, Graph, PortRef
from graphs.deployment import NO_CODEC, Deployment
from graphs.expand import Expansion
from graphs.split import Segment, whole, with_codec
from graphs.streams import Stream
from graphs.units import Kind, Units, segment_kind


def reference(
    deployment: Deployment, expanded: Expansion
) -> tuple[Graph, dict[str, Segment]]:
    """Return the reference graph of a deployment and the segments that it runs.

    It is one stream of each source up to its answer: every model whole, the codecs of
    the deployment written into it. Actors are called as in the graph file; the port
    that answers is connected to nothing.
    """
    actors: dict[str, Actor] = {}
    fifos: list[Fifo] = []
    segments: dict[str, Segment] = {}
    for stream in expanded.streams:
        names = _needed(expanded.units, stream.answer_fifo.source.actor)
        kinds = {
            name: _kind(deployment, expanded.units, stream, name, names)
            for name in expanded.units.actors
            if name in names
        }
        actors |= {name: _actor(name, kind, stream) for name, kind in kinds.items()}
        fifos += _fifos(expanded.units, kinds)
        segments |= {k.segment.sha256: k.segment for k in kinds.values() if k.segment}
    return Graph(deployment.graph.graph.name, actors, tuple(fifos)), segments


def _needed(units: Units, answer: str) -> set[str]:
    """Return the actors that lead to `answer`, itself among them."""
    found, todo = {answer}, [answer]
    while todo:
        name = todo.pop()
        feeds = {f.source.actor for f in units.fifos if f.target.actor == name}
        todo.extend(feeds - found)
        found |= feeds
    return found


def _kind(
    deployment: Deployment,
    units: Units,
    stream: Stream,
    name: str,
    names: Collection[str],
) -> Kind:
    """Return an actor as it is when nothing is cut: a model is one segment."""
    actor = deployment.graph.graph.actors[name]
    if name not in units.tensors:
        return units.kind(actor)
    leads_on = {f.source for f in units.fifos if f.target.actor in names}
    wanted = [
        units.tensors[name][port.name]
        for port in actor.outputs
        if PortRef(name, port.name) in {*leads_on, stream.answer_fifo.source}
    ]
    model = deployment.graph.models.of(actor)
    placement = units.placement(name)
    outputs = list(dict.fromkeys(wanted))
    if placement.codec == NO_CODEC:
        return segment_kind(whole(model, outputs))
    return segment_kind(with_codec(model, placement.cut, outputs, placement.codec))


def _actor(name: str, kind: Kind, stream: Stream) -> Actor:
    # The answer is read by whoever compares; no FIFO takes it.
    ports = tuple(
        replace(port, optional=True)
        if port.direction == "out" and name == stream.answer_fifo.source.actor
        else port
        for port in kind.ports
    )
    return Actor(name, kind.type, ports, kind.params, None, kind.stateful)


def _fifos(units: Units, kinds: dict[str, Kind]) -> list[Fifo]:
    """Return the FIFOs between actors, their ends named as the segments name them."""
    return [
        replace(
            fifo,
            source=PortRef(
                fifo.source.actor,
                kinds[fifo.source.actor].outputs[units.tensor(fifo.source)],
            ),
            target=PortRef(
                fifo.target.actor,
                kinds[fifo.target.actor].inputs[units.tensor(fifo.target)],
            ),
        )
        for fifo in units.fifos
        if fifo.source.actor in kinds
        and fifo.target.actor in kinds
        # An input that only a tap needs is not there when nothing is tapped.
        and units.tensor(fifo.target) in kinds[fifo.target.actor].inputs
    ]
