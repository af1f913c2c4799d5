"""One branch of a stream's region: what stands at home, the link, the server's part."""

from collections.abc import Sequence
from dataclasses import replace

from dataflow.graph import Actor, Branch, Fifo, Port, PortRef
from graphs.actor_types import behaviour_of, fresh_name, inputs_first
from graphs.deployment import NO_CODEC
from graphs.located_yaml import Place
from graphs.plain_stream import PlainStream, Row, control_input, dynamic_port
from graphs.units import Edge, Unit


class PlainBranch:
    """Adds one branch of a stream to the plain graph.

    Everything that crosses in one direction goes through one TX/RX pair, one message an
    attempt. Codecs stand right before TX and right behind RX, and in a branch that
    stays at home as well: *full* means the same value wherever it is computed.
    """

    def __init__(self, stream: PlainStream, row: Row) -> None:
        self._s = stream
        self._row = row
        self._units = stream.units
        self._plain = stream.plain
        self._remote = row.way.remote if row.server else frozenset()
        self._names = {unit: self._name(unit) for unit in row.way.units}
        self._members: list[str] = []

    def _name(self, unit: Unit) -> str:
        server = self._row.server if unit in self._remote else None
        return self._unique(self._s.called(str(unit), server))

    def _unique(self, name: str) -> str:
        """Two ways may share a unit; each has its own copy of it."""
        taken = name in self._plain.actors
        return f"{name}#{self._row.name}" if taken else name

    def build(self) -> Branch:
        row, units = self._row, self._row.way.units
        edges = [e for e in self._s.stream.edges if e.target.unit in units]
        home = [edge for edge in edges if edge.target.unit not in self._remote]
        rounded: dict[Edge, PortRef] = {}
        for unit in units:
            if unit not in self._remote:
                for edge in home:
                    if edge.target.unit == unit and edge.codec != NO_CODEC:
                        code = self._encoded(edge, self._origin(edge), None)
                        rounded[edge] = self._decoded(edge, code, None)
                self._add_unit(unit)
        for edge in home:
            source = rounded.get(edge) or self._origin(edge)
            self._connect(source, self._target(edge), edge)
        if row.server:
            self._cross(edges)
        self._connect_answer()
        worked = row.server or self._s.device
        return Branch(
            row=row.name,
            actors=tuple(self._members),
            device=worked,
            quality=row.way.quality,
            segment=self._identity() if row.server else 0,
        )

    def _identity(self) -> int:
        """Return what names the computation behind the cut."""
        kinds = [self._units.kinds[u] for u in self._row.way.units if u in self._remote]
        identities = [k.segment.identity for k in kinds if k.segment is not None]
        # A server part of several segments is as particular as all of them together.
        combined = 0
        for identity in identities:
            combined = (combined * 0x9E3779B97F4A7C15 + identity) % 2**64
        return combined

    # Actors

    def _add(self, actor: Actor, place: Place) -> None:
        """Add a member of the branch, its data ports made dynamic."""
        carried = actor.device != self._s.device or actor.type == "rx"
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
        kind = self._units.kinds[unit]
        device = self._row.server if unit in self._remote else self._s.device
        self._add(
            Actor(
                self._names[unit],
                kind.type,
                kind.ports,
                kind.params,
                device,
                kind.stateful,
            ),
            self._s.place(unit),
        )

    def _connect(self, source: PortRef, target: PortRef, edge: Edge) -> None:
        fifo = Fifo(source, target, edge.capacity, edge.delay)
        self._plain.add_fifo(self._s.roomy(fifo), edge.place)

    # Ends

    def _origin(self, edge: Edge) -> PortRef:
        end = edge.source
        if end in self._s.fork_inputs:
            name = self._s.fork_inputs[end]
            return PortRef(self._s.called("fork"), f"b{self._row.index}_{name}")
        port = self._units.kinds[end.unit].outputs[end.name]
        return PortRef(self._names[end.unit], port)

    def _target(self, edge: Edge) -> PortRef:
        return self._s.ref(self._names[edge.target.unit], edge.target)

    # Codecs

    def _codec(self, kind: str, edge: Edge, server: str | None, device: str) -> Actor:
        name = f"{edge.source.unit.actor}.{kind}"
        token = self._units.port(edge.source, "out").token
        params = {"codec": edge.codec, "token": str(token)}
        ports = behaviour_of(kind).ports(params)
        tensors = [e for e in self._s.stream.edges if e.codec != NO_CODEC]
        if len(tensors) > 1:
            name += f".{self._units.kinds[edge.source.unit].outputs[edge.source.name]}"
        return Actor(
            self._unique(self._s.called(name, server)), kind, ports, params, device
        )

    def _encoded(self, edge: Edge, ref: PortRef, server: str | None) -> PortRef:
        actor = self._codec("encode", edge, server, self._s.device)
        self._add(actor, edge.place)
        self._connect(ref, PortRef(actor.name, actor.inputs[0].name), edge)
        return PortRef(actor.name, actor.outputs[0].name)

    def _decoded(self, edge: Edge, ref: PortRef, server: str | None) -> PortRef:
        actor = self._codec("decode", edge, server, server or self._s.device)
        self._add(actor, edge.place)
        later = replace(edge, capacity=None, delay=0)
        self._connect(ref, PortRef(actor.name, actor.inputs[0].name), later)
        return PortRef(actor.name, actor.outputs[0].name)

    # The link

    def _cross(self, edges: Sequence[Edge]) -> None:
        """Add the server's part: over the link, the units there, and back."""
        server = self._row.server
        assert server is not None
        remote = [unit for unit in self._row.way.units if unit in self._remote]
        base = self._names[remote[0]]
        entering = [
            edge
            for edge in edges
            if edge.target.unit in self._remote and edge.source.unit not in self._remote
        ]
        sources = [self._origin(edge) for edge in entering]
        sources = [
            self._encoded(edge, ref, server) if edge.codec != NO_CODEC else ref
            for edge, ref in zip(entering, sources, strict=True)
        ]
        labels = [
            self._units.kinds[edge.source.unit].outputs[edge.source.name]
            for edge in entering
        ]
        place = self._units.place(remote[0].actor)
        arrived = self._link(base, sources, labels, (self._s.device, server), place)
        arrived = [
            self._decoded(edge, ref, server) if edge.codec != NO_CODEC else ref
            for edge, ref in zip(entering, arrived, strict=True)
        ]
        for unit in remote:
            self._add_unit(unit)
        for edge, ref in zip(entering, arrived, strict=True):
            self._connect(ref, self._target(edge), replace(edge, delay=0))
        for edge in edges:
            if edge.source.unit in self._remote:
                self._connect(self._origin(edge), self._target(edge), edge)

    def _link(
        self,
        base: str,
        sources: Sequence[PortRef],
        labels: Sequence[str],
        devices: tuple[str, str],
        place: Place,
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
            actor = Actor(f"{base}.{kind}", kind, ports, {"peer": peer}, device)
            self._add(actor, place)
            ends.append(actor.name)
        tx, rx = ends
        for name, source in zip(names, sources, strict=True):
            for fifo in (
                Fifo(source, PortRef(tx, f"in_{name}")),
                Fifo(PortRef(tx, f"out_{name}"), PortRef(rx, f"in_{name}")),
            ):
                self._plain.add_fifo(self._s.roomy(fifo), place)
        return [PortRef(rx, f"out_{name}") for name in names]

    def _connect_answer(self) -> None:
        """Bring the branch's answer to the join, from a server over the link."""
        end = self._row.way.answer
        port = self._units.kinds[end.unit].outputs[end.name]
        ref = PortRef(self._names[end.unit], port)
        place = self._s.policy
        if self._row.server:
            base = self._names[next(u for u in self._names if u in self._remote)]
            devices = (self._row.server, self._s.device)
            (ref,) = self._link(f"{base}.return", [ref], [port], devices, place)
        fifo = Fifo(ref, PortRef(self._s.called("join"), f"r{self._row.index}"))
        self._plain.add_fifo(self._s.roomy(fifo), place)
