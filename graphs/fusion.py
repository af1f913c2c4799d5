"""Adjacent parts of one model, on one device, as one segment: one onnxruntime session.

A graph may name a model layer by layer, so that a mapping can cut it anywhere. To run
it so would cost a session, and the loss of its runtime's own fusion, for each layer. So
parts are fused wherever nothing stands against it:

- they run for the same frames on the same device: always, or in the same branches. So
  fusing changes nothing in what a failure leaves;
- what is fused is convex: no path leaves it and comes back, so no cycle can arise;
- a tensor means one thing in it: whoever reads it, inside or from outside, reads what
  the model itself would have there.

A tensor that an exit, a tap or another device reads is one more output. The result
depends on the model, the tensors at its ends and nothing else: it is the very segment
that a cut at the same tensors makes.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from graphs.order import enclosed, in_feeding_order
from graphs.split import Segment, in_order, needed, whole
from graphs.streams import Gate, Stream
from graphs.units import Edge, End, Kind, Unit, Units, segment_kind
from graphs.ways import Way


class Fusion:
    """Finds which units become one.

    Args:
        units: The units, in feeding order.
        edges: Those between them, and from and to others.
        kinds: What they are.
        roles: Segment -> of which model, when and where it runs; only those of one role
            are fused. A unit without one is left alone.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        edges: Sequence[Edge],
        kinds: Mapping[Unit, Kind],
        roles: Mapping[Unit, Hashable],
    ) -> None:
        self._units = units
        self._edges = edges
        self._kinds = kinds
        self._makes: dict[Unit, frozenset[str]] = {}
        self._first = {unit: unit for unit in units}
        """Unit -> the first of those that it is fused with."""
        pairs = [
            (a, b)
            for a, b in self._neighbours()
            if a in roles and roles[a] == roles.get(b)
        ]
        # What must stay apart at first may go together once what is between has joined.
        while sum(self._fuse(a, b) for a, b in pairs):
            pass

    @property
    def fused(self) -> list[tuple[Unit, ...]]:
        """Two or more units each, in feeding order."""
        members: dict[Unit, list[Unit]] = {}
        for unit in self._units:
            members.setdefault(self._first[unit], []).append(unit)
        return [tuple(each) for each in members.values() if len(each) > 1]

    def _neighbours(self) -> Iterator[tuple[Unit, Unit]]:
        """Yield units that feed each other, and units that read the same."""
        readers: dict[End, list[Unit]] = {}
        for edge in self._edges:
            yield edge.source.unit, edge.target.unit
            readers.setdefault(edge.source, []).append(edge.target.unit)
        for units in readers.values():
            yield from pairwise(units)

    def _fuse(self, a: Unit, b: Unit) -> bool:
        """Fuse what `a` and `b` are in, unless that must not be; say whether it was."""
        both = {self._first[a], self._first[b]}
        if len(both) == 1 or enclosed(both, self._feeds()) != both:
            return False
        members = [unit for unit in self._units if self._first[unit] in both]
        if not self._agree(members):
            return False
        self._first |= dict.fromkeys(members, members[0])
        return True

    def _feeds(self) -> dict[Unit, set[Unit]]:
        feeds: dict[Unit, set[Unit]] = {}
        for edge in self._edges:
            if not edge.delay:
                source = self._first.get(edge.source.unit, edge.source.unit)
                target = self._first.get(edge.target.unit, edge.target.unit)
                if source != target:
                    feeds.setdefault(target, set()).add(source)
        return feeds

    def _agree(self, members: Collection[Unit]) -> bool:
        """Say whether every tensor is one thing to all members that know its name."""
        made = {name for unit in members for name in self._computed(unit)}
        given: dict[str, tuple[End, int]] = {}
        for edge in self._edges:
            if edge.target.unit not in members:
                continue
            tensor = edge.target.name
            origin, delay = origin_of(edge, self._edges, self._kinds)
            if origin.unit in members:
                if delay or origin.name != tensor:
                    return False
            elif tensor in made or given.setdefault(tensor, (origin, delay)) != (
                origin,
                delay,
            ):
                return False
        return True

    def _computed(self, unit: Unit) -> frozenset[str]:
        """Return the tensors that a unit computes, also those that it keeps."""
        if unit not in self._makes:
            kind = self._kinds[unit]
            model = _segment(kind).model
            nodes = needed(model, kind.outputs, kind.inputs)
            made = (name for index in nodes for name in model.nodes[index].output)
            self._makes[unit] = frozenset(made)
        return self._makes[unit]


def origin_of(
    edge: Edge, edges: Iterable[Edge], kinds: Mapping[Unit, Kind]
) -> tuple[End, int]:
    """Return where the tensor of an edge is made, and the initial tokens on the way.

    A segment may hand on one of its inputs; then it is made elsewhere.
    """
    end, delay = edge.source, edge.delay
    kind = kinds[end.unit]
    if kind.segment is not None and end.name in kind.inputs:
        for feed in edges:
            if feed.target == end:
                origin, before = origin_of(feed, edges, kinds)
                return origin, before + delay
    return end, delay


def joined(
    members: Sequence[Unit],
    edges: Sequence[Edge],
    answers: Iterable[End],
    kinds: Mapping[Unit, Kind],
) -> Segment:
    """Return the segment that computes what `members` compute for others.

    Args:
        members: Units that `Fusion` found.
        edges: All that lead to and from them.
        answers: Ends that are read by what no edge leads to.
        kinds: What the members are.
    """
    model = _segment(kinds[members[0]]).model
    within = {
        edge.target
        for edge in edges
        if edge.target.unit in members
        and origin_of(edge, edges, kinds)[0].unit in members
    }
    given = {
        name
        for unit in members
        for name in kinds[unit].inputs
        if End(unit, name) not in within
    }
    wanted = {end.name for end in answers if end.unit in members} | {
        edge.source.name
        for edge in edges
        if edge.source.unit in members and edge.target.unit not in members
    }
    return whole(model, in_order(model, wanted), in_order(model, given))


def united(
    edges: Sequence[Edge],
    answers: Sequence[End],
    kinds: Mapping[Unit, Kind],
    roles: Mapping[Unit, Hashable],
) -> tuple[dict[Unit, Unit], dict[Unit, Kind]]:
    """Return what each fused unit has become part of, and the kinds of those.

    Args:
        edges: Between units.
        answers: Ends that are read by what no edge leads to.
        kinds: What the units are.
        roles: As `Fusion` takes them.
    """
    ends = {unit for e in edges for unit in (e.source.unit, e.target.unit)}
    order = in_feeding_order([u for u in kinds if u in ends], feeds_of(edges))
    into: dict[Unit, Unit] = {}
    made: dict[Unit, Kind] = {}
    for members in Fusion(order, edges, kinds, roles).fused:
        unit = Unit(members[0].actor, members[0].part, str(members[-1]))
        made[unit] = segment_kind(joined(members, edges, answers, kinds))
        into |= dict.fromkeys(members, unit)
    return into, made


def moved_end(end: End, into: Mapping[Unit, Unit]) -> End:
    """Return the end that `end` is, after its unit has become part of another."""
    return end._replace(unit=into.get(end.unit, end.unit))


def moved_edges(edges: Iterable[Edge], into: Mapping[Unit, Unit]) -> tuple[Edge, ...]:
    """Return the edges that are left between units after some have become one."""
    found: dict[tuple[End, End], Edge] = {}
    for edge in edges:
        source, target = moved_end(edge.source, into), moved_end(edge.target, into)
        inside = source.unit == target.unit and edge.source.unit in into
        if not inside:  # and what several members read is taken once
            moved = replace(edge, source=source, target=target)
            found.setdefault((source, target), moved)
    return tuple(found.values())


def fuse(stream: Stream, units: Units) -> Stream:
    """Return `stream` with its parts fused; `units` learn what came of them."""
    answers = [stream.answer, *(way.answer for way in stream.ways)]
    if stream.gate is not None:
        answers.append(stream.gate.answer)
    into, made = united(stream.edges, answers, units.kinds, _roles(stream, units))
    units.kinds |= made
    return _replaced(stream, into)


def units_of(stream: Stream) -> list[Unit]:
    """Return the units of a stream, each once, those upstream first."""
    of_ways = (unit for way in stream.ways for unit in way.units)
    return [*dict.fromkeys((*stream.upstream, *of_ways))]


def _roles(stream: Stream, units: Units) -> dict[Unit, Hashable]:
    """Return for each segment without a state its model, and when and where it runs."""
    return {
        unit: (
            id(_segment(units.kinds[unit]).model),
            units.group(unit),
            unit in stream.upstream,
            tuple((unit in way.units, way.hop_of(unit)) for way in stream.ways),
        )
        for unit in units_of(stream)
        if units.kinds[unit].segment is not None and not units.kinds[unit].stateful
    }


def feeds_of(edges: Iterable[Edge]) -> dict[Unit, set[Unit]]:
    """Return unit -> the units that must fire before it."""
    feeds: dict[Unit, set[Unit]] = {}
    for edge in edges:
        if not edge.delay:
            feeds.setdefault(edge.target.unit, set()).add(edge.source.unit)
    return feeds


def _replaced(stream: Stream, into: Mapping[Unit, Unit]) -> Stream:
    """Return `stream` with units replaced by those that they are part of now."""
    edges = moved_edges(stream.edges, into)
    feeds = feeds_of(edges)

    def ordered(units: Iterable[Unit]) -> tuple[Unit, ...]:
        found = dict.fromkeys(into.get(unit, unit) for unit in units)
        return tuple(in_feeding_order([*found], feeds))

    def way(old: Way) -> Way:
        return replace(
            old,
            answer=moved_end(old.answer, into),
            units=ordered(old.units),
            hops=tuple(
                replace(hop, units=frozenset(into.get(u, u) for u in hop.units))
                for hop in old.hops
            ),
        )

    return replace(
        stream,
        upstream=ordered(stream.upstream),
        ways=tuple(map(way, stream.ways)),
        edges=edges,
        answer=moved_end(stream.answer, into),
        gate=stream.gate and _gate(stream.gate, into),
    )


def _gate(gate: Gate, into: Mapping[Unit, Unit]) -> Gate:
    return replace(gate, answer=moved_end(gate.answer, into))


def _segment(kind: Kind) -> Segment:
    assert kind.segment is not None
    return kind.segment
