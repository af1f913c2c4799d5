"""One branch of a stream's region: what stands at home, the link, the server's part."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from dataflow.graph import Actor, Asked, Branch, Fifo, Port, PortRef
from graphs.actor_types import behaviour_of, fresh_name, inputs_first
from graphs.located_yaml import Place
from graphs.plain import control_input, dynamic_port
from graphs.plain_stream import PlainStream
from graphs.rows import Row, encodes
from graphs.units import Edge, Unit

ANSWER_BYTES_MIN = 4096
"""A shorter answer is not compressed: a few packets carry it in any case."""


class PlainBranch:
    """Adds one branch of a stream to the plain graph.

    Everything that crosses a link in one direction goes through one TX/RX pair, one
    message an attempt. Where the branch passes several servers the answer takes the way
    back: each link has its own session, in which each message is answered once, and a
    server behind others need not be reached from the endpoint. Codecs stand right
    before TX and right behind RX, and in a branch that stays at home as well: *full*
    means the same value wherever it is computed.
    """

    def __init__(self, stream: PlainStream, row: Row) -> None:
        self._s = stream
        self._row = row
        self._units = stream.units
        self._plain = stream.plain
        self._hop = {
            unit: index for index, hop in enumerate(row.way.hops) for unit in hop.units
        }
        """Of what is on a server: which one of its path."""
        self._devices = (stream.home.device, *row.path)
        self._names = {unit: self._name(unit) for unit in row.way.units}
        self._members: list[str] = []
        self._compression = ""
        """Of what its links carry; that of its answer, where it is large."""

    def _name(self, unit: Unit) -> str:
        hop = self._hop.get(unit)
        server = None if hop is None else self._row.path[hop]
        return self._called(str(unit), server)

    def _called(self, label: str, server: str | None) -> str:
        """Name an actor: on one server several paths have one of each."""
        name = self._s.home.called(label, server)
        if server is not None and len(self._row.path) > 1:
            return f"{name}#{self._row.name}"
        return self._unique(name)

    def _unique(self, name: str) -> str:
        """Two ways may share a unit; each has its own copy of it."""
        taken = name in self._plain.actors
        return f"{name}#{self._row.name}" if taken else name

    def build(self) -> Branch:
        row, units = self._row, self._row.way.units
        edges = self._edges()
        home = [edge for edge in edges if edge.target.unit not in self._hop]
        rounded: dict[Edge, PortRef] = {}
        for unit in units:
            if unit not in self._hop:
                for edge in home:
                    if edge.target.unit == unit and edge.codec.encoding:
                        device = self._s.home.device
                        code = self._encoded(edge, self._origin(edge), None, device)
                        rounded[edge] = self._decoded(edge, code, None)
                self._add_unit(unit)
        for edge in home:
            source = rounded.get(edge) or self._origin(edge)
            self._connect(source, self._target(edge), edge)
        for hop in range(len(row.path)):
            self._cross(edges, hop)
        self._connect_answer()
        asked = self._asked(edges)
        return Branch(
            row=row.name,
            actors=tuple(self._members),
            device=asked[0].device if asked else self._s.home.device,
            quality="degraded" if row.encoding else row.way.quality,
            segment=asked[0].segment if asked else 0,
            onward=asked[1:],
            codec=row.encoding,
        )

    def _edges(self) -> list[Edge]:
        """Return the edges that lead to its units, with the codecs of its row."""
        found = [
            e for e in self._s.stream.edges if e.target.unit in self._row.way.units
        ]
        encoding = self._row.encoding
        if not encoding:
            return found
        return [
            replace(e, codec=replace(e.codec, encoding=encoding))
            if encodes(e, self._units)
            else e
            for e in found
        ]

    def _asked(self, edges: Sequence[Edge]) -> tuple[Asked, ...]:
        """Return what each server of the path is asked for.

        That is all that is computed from there on, codecs included, and by whom: a
        server that passes tokens on must know to which one.
        """
        asked: tuple[Asked, ...] = ()
        for hop, device in reversed(list(enumerate(self._row.path))):
            units = self._units_on(hop)
            kinds = [self._units.kinds[unit] for unit in units]
            text = [
                f"{k.segment.identity:016x}"
                if k.segment
                else f"type {k.type} {json.dumps(k.params, sort_keys=True)}"
                for k in kinds
            ]
            text += [  # a message has no names: which tensor is whose is its order
                f"into {units.index(e.target.unit)} {e.target.name} codec {e.codec}"
                for e in self._entering(edges, hop)
            ]
            text += [f"then {a.device} {a.segment:016x}" for a in asked[:1]]
            digest = hashlib.sha256("\n".join(text).encode()).digest()
            asked = (Asked(device, int.from_bytes(digest[:8], "big")), *asked)
        return asked

    def _units_on(self, hop: int) -> list[Unit]:
        return [unit for unit in self._row.way.units if self._hop.get(unit) == hop]

    def _entering(self, edges: Sequence[Edge], hop: int) -> list[Edge]:
        """Return the edges that cross the link to a server of the path.

        They come in the order of who reads them there: a message must not hang on the
        order in which a graph file names its FIFOs.
        """
        units = self._units_on(hop)
        entering = [
            edge
            for edge in edges
            if edge.target.unit in units and edge.source.unit not in units
        ]
        return sorted(
            entering, key=lambda e: (units.index(e.target.unit), e.target.name)
        )

    # Actors

    def _add(self, actor: Actor, place: Place) -> None:
        """Add a member of the branch, its data ports made dynamic."""
        carried = actor.device != self._s.home.device or actor.type == "rx"
        ports = [
            dynamic_port(p.name, p.direction, p) if not p.optional
            else replace(p, rates=(0, p.rate))
            for p in actor.ports
        ]  # fmt: skip
        if not carried:
            ports.append(control_input(p.name for p in ports))
        self._plain.add_actor(replace(actor, ports=inputs_first(ports)), place)
        self._members.append(actor.name)
        if carried:
            self._s.carried.add(actor.name)
        else:
            self._s.controlled.append(actor.name)
        rates = self._s.dynamic[self._row.index]
        for port in actor.ports:
            rates[PortRef(actor.name, port.name)] = port.rate

    def _add_unit(self, unit: Unit) -> None:
        device = self._devices[self._hop.get(unit, -1) + 1]
        actor = self._units.kinds[unit].actor(self._names[unit], device)
        self._add(actor, self._s.place(unit))

    def _connect(self, source: PortRef, target: PortRef, edge: Edge) -> None:
        fifo = Fifo(source, target, edge.capacity, edge.delay)
        self._plain.add_fifo(self._s.home.roomy(fifo), edge.place)

    # Ends

    def _origin(self, edge: Edge) -> PortRef:
        end = edge.source
        if end in self._s.fork_inputs:
            name = self._s.fork_inputs[end]
            return PortRef(self._s.home.called("fork"), f"b{self._row.index}_{name}")
        port = self._units.kinds[end.unit].outputs[end.name]
        return PortRef(self._names[end.unit], port)

    def _target(self, edge: Edge) -> PortRef:
        return self._s.ref(self._names[edge.target.unit], edge.target)

    # Codecs

    def _codec(self, kind: str, edge: Edge, server: str | None, device: str) -> Actor:
        name = f"{edge.source.unit.actor}.{kind}"
        token = self._units.port(edge.source, "out").token
        params = {"codec": edge.codec.encoding, "token": str(token)}
        ports = behaviour_of(kind).ports(params)
        tensors = [e for e in self._edges() if e.codec.encoding]
        if len(tensors) > 1:
            name += f".{self._units.kinds[edge.source.unit].outputs[edge.source.name]}"
        return Actor(self._called(name, server), kind, ports, params, device)

    def _encoded(
        self, edge: Edge, ref: PortRef, server: str | None, device: str
    ) -> PortRef:
        actor = self._codec("encode", edge, server, device)
        self._add(actor, edge.place)
        self._connect(ref, PortRef(actor.name, actor.inputs[0].name), edge)
        return PortRef(actor.name, actor.outputs[0].name)

    def _decoded(self, edge: Edge, ref: PortRef, server: str | None) -> PortRef:
        actor = self._codec("decode", edge, server, server or self._s.home.device)
        self._add(actor, edge.place)
        later = replace(edge, capacity=None, delay=0)
        self._connect(ref, PortRef(actor.name, actor.inputs[0].name), later)
        return PortRef(actor.name, actor.outputs[0].name)

    # The link

    def _cross(self, edges: Sequence[Edge], hop: int) -> None:
        """Add a server's part: over the link to it, and the units there."""
        here, server = self._devices[hop : hop + 2]
        units = self._units_on(hop)
        entering = self._entering(edges, hop)
        sources = [self._origin(edge) for edge in entering]
        sources = [
            self._encoded(edge, ref, server, here) if edge.codec.encoding else ref
            for edge, ref in zip(entering, sources, strict=True)
        ]
        labels = [
            self._units.kinds[edge.source.unit].outputs[edge.source.name]
            for edge in entering
        ]
        place = self._units.place(units[0].actor)
        base = self._names[units[0]]
        # A message is compressed as any of its FIFOs asks; all come from one cut.
        compression = max(edge.codec.compression for edge in entering)
        self._compression = max(self._compression, compression)
        arrived = self._link(base, sources, labels, (here, server), place, compression)
        arrived = [
            self._decoded(edge, ref, server) if edge.codec.encoding else ref
            for edge, ref in zip(entering, arrived, strict=True)
        ]
        for unit in units:
            self._add_unit(unit)
        for edge, ref in zip(entering, arrived, strict=True):
            self._connect(ref, self._target(edge), replace(edge, delay=0))
        for edge in edges:
            if edge.source.unit in units and edge.target.unit in units:
                self._connect(self._origin(edge), self._target(edge), edge)

    def _link(
        self,
        base: str,
        sources: Sequence[PortRef],
        labels: Sequence[str],
        devices: tuple[str, str],
        place: Place,
        compression: str = "",
    ) -> list[PortRef]:
        """Add a TX/RX pair behind `sources`; return the ports where they arrive."""
        here, there = devices
        names: list[str] = []
        for label in labels:
            names.append(fresh_name(label, names))
        made = [self._plain.actors[r.actor].port(r.port) for r in sources]
        ends = []
        for kind, device, peer in (("tx", here, there), ("rx", there, here)):
            pairs = list(zip(names, made, strict=True))
            ports = (
                *(Port(f"in_{n}", "in", p.token, (p.rate,)) for n, p in pairs),
                *(Port(f"out_{n}", "out", p.token, (p.rate,)) for n, p in pairs),
            )
            params = {"peer": peer}
            if compression:
                params["compression"] = compression
            actor = Actor(f"{base}.{kind}", kind, ports, params, device)
            self._add(actor, place)
            ends.append(actor.name)
        tx, rx = ends
        for name, source in zip(names, sources, strict=True):
            for fifo in (
                Fifo(source, PortRef(tx, f"in_{name}")),
                Fifo(PortRef(tx, f"out_{name}"), PortRef(rx, f"in_{name}")),
            ):
                self._plain.add_fifo(self._s.home.roomy(fifo), place)
        return [PortRef(rx, f"out_{name}") for name in names]

    def _connect_answer(self) -> None:
        """Bring the branch's answer to the join, from a server over the links."""
        ref = self._answer()
        label = ref.port
        token = self._s.units.port(self._s.stream.answer, "out").token
        large = token is not None and token.nbytes >= ANSWER_BYTES_MIN
        compression = self._compression if large else ""
        for hop in reversed(range(len(self._row.path))):
            base = self._names[self._units_on(hop)[0]]
            back = self._devices[hop + 1], self._devices[hop]
            (ref,) = self._link(
                f"{base}.return",
                [ref],
                [label],
                back,
                self._s.home.policy,
                compression,
            )
        fifo = Fifo(ref, PortRef(self._s.home.called("join"), f"r{self._row.index}"))
        self._plain.add_fifo(self._s.home.roomy(fifo), self._s.home.policy)

    def _answer(self) -> PortRef:
        end = self._row.way.answer
        if not self._row.way.units:  # computed upstream: the branch is the identity
            name = self._s.fork_inputs[end]
            return PortRef(self._s.home.called("fork"), f"b{self._row.index}_{name}")
        port = self._units.kinds[end.unit].outputs[end.name]
        return PortRef(self._names[end.unit], port)
