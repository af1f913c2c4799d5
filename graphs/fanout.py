"""What several read: a port of the plain graph leads to one place only.

A segment has a port for each reader of a tensor; they carry the same memory, so that
costs nothing. What another actor makes and a segment reads, the segment can hand on, as
the head of a model does that is cut at its input. For anything else a rule will say it.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from graphs.fusion import feeds_of
from graphs.order import reached
from graphs.split import whole
from graphs.streams import Stream
from graphs.units import Edge, End, Kind, Unit, Units, segment_kind

Claims = frozenset[Hashable]
"""Where a reader is: two with something in common cannot share a port."""


def spread(stream: Stream, units: Units) -> Stream:
    """Return `stream` with a port of its own for each reader; `units` learn of them."""
    edges = _handed_on(stream, units)
    everywhere = frozenset(range(-1, len(stream.ways)))

    def claims(unit: Unit) -> Claims:
        """Return the ways that a reader is in; one upstream is in all of them."""
        ways = frozenset(i for i, way in enumerate(stream.ways) if unit in way.units)
        return ways or everywhere

    answers = {way.answer: claims(way.answer.unit) for way in stream.ways}
    if stream.gate is not None:
        answers[stream.gate.answer] = everywhere
    found, made = copied(
        edges, [claims(e.target.unit) for e in edges], answers, units.kinds
    )
    units.kinds |= made
    return replace(stream, edges=found)


def copied(
    edges: Sequence[Edge],
    claims: Sequence[Claims],
    answers: Mapping[End, Claims],
    kinds: Mapping[Unit, Kind],
) -> tuple[tuple[Edge, ...], dict[Unit, Kind]]:
    """Return edges that begin at ports of their own, and the kinds that have those.

    Args:
        edges: Between units.
        claims: Where the target of each edge is.
        answers: Ends that are read by what no edge leads to, and where.
        kinds: What the units are; only segments get more ports.
    """
    taken: dict[End, list[Claims]] = {end: [where] for end, where in answers.items()}
    found: list[Edge] = []
    for edge, where in zip(edges, claims, strict=True):
        if kinds[edge.source.unit].segment is None:
            found.append(edge)
            continue
        ports = taken.setdefault(edge.source, [])
        free = (i for i, claimed in enumerate(ports) if claimed.isdisjoint(where))
        index = next(free, len(ports))
        ports[index:] = [where.union(*ports[index : index + 1]), *ports[index + 1 :]]
        name = edge.source.name + (f"#{index + 1}" if index else "")
        found.append(replace(edge, source=edge.source._replace(name=name)))
    counts: dict[Unit, dict[str, int]] = {}
    for end, ports in taken.items():
        counts.setdefault(end.unit, {})[end.name] = len(ports)
    return tuple(found), {
        unit: _like(segment_kind(segment, readers), kinds[unit])
        for unit, readers in counts.items()
        if (segment := kinds[unit].segment) and max(readers.values()) > 1
    }


def _handed_on(stream: Stream, units: Units) -> list[Edge]:
    """Return the edges, an input that others read too handed on by a segment.

    Where several upstream read what a camera makes, or one upstream and the fork, the
    first segment among them hands it on to the others.
    """
    edges = list(stream.edges)
    for source in dict.fromkeys(edge.source for edge in edges):
        readers = [edge for edge in edges if edge.source == source]
        carrier = _carrier(stream, readers, units)
        if carrier is None:
            continue
        in_front = reached([carrier.target.unit], feeds_of(edges))
        if any(e.target.unit in in_front for e in readers if e != carrier):
            continue
        units.kinds[carrier.target.unit] = _handing_on(carrier.target, units)
        edges = [
            replace(edge, source=carrier.target)
            if edge in readers and edge != carrier
            else edge
            for edge in edges
        ]
    return edges


def _carrier(stream: Stream, readers: Sequence[Edge], units: Units) -> Edge | None:
    """Return which of several readers hands on what they read, if one can."""
    made = units.kinds[readers[0].source.unit].segment is not None
    if made or len(readers) == 1 or any(edge.delay for edge in readers):
        return None
    able = {
        edge.target.unit: edge
        for edge in readers
        if units.kinds[edge.target.unit].segment is not None
    }
    return next((able[unit] for unit in stream.upstream if unit in able), None)


def _handing_on(end: End, units: Units) -> Kind:
    """Return the kind of a segment that has its input `end` as an output too."""
    kind = units.kinds[end.unit]
    assert kind.segment is not None
    model, made = kind.segment.model, (*kind.outputs, end.name)
    segment = whole(model, made, tuple(kind.inputs))
    return _like(segment_kind(segment), kind)


def _like(made: Kind, kind: Kind) -> Kind:
    return replace(made, stateful=kind.stateful, time=kind.time)
