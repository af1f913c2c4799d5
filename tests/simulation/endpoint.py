"""The dialling half of a device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataflow.wire import link as links
from dataflow.wire.control import Control, StreamOffer, Welcome
from dataflow.wire.header import Header, Kind
from dataflow.wire.link import State
from tests.simulation.device import Device, nothing
from tests.simulation.network import Connection, Wire
from tests.simulation.server import TOKEN_BYTES, Server
from tests.simulation.setup import Value
from tests.simulation.stream import Stream

if TYPE_CHECKING:
    from tests.simulator import Simulation

GREETING_S = 0.5


class Endpoint(Device):
    """The dialling half of a device, as `dataflow.device` is."""

    def __init__(self, sim: "Simulation", name: str) -> None:
        super().__init__(sim, name)
        self.streams: list[Stream] = []
        self.wires: list[Wire] = []
        self._begun = False

    def connect(self, servers: Sequence[Server], streams: Sequence[Stream]) -> None:
        local = self.sim.setup.local
        for server in servers:
            wire = Wire(self, server)
            self.wires.append(wire)
            server.wires.append(wire)
        for stream in streams:
            drawn = self.sim.random.random() < 0.6
            stream.connect(self.wires, drawn if local is None else local)
            self.streams.append(stream)
        offers = tuple(
            StreamOffer(s.number, f"{self.name}/{s.number}", s.segment, s.window)
            for s in streams
        )
        for wire in self.wires:
            wire.link.offers = offers

    def turn(self) -> None:
        now_s = self.local_s()
        for wire in self.wires:
            link = wire.link
            if now_s >= link.due_s() or link.state is State.SUSPECT:
                wanted = link.state is State.SUSPECT and any(
                    stream.wants(wire) for stream in self.streams
                )
                self.do(wire, link.tick(now_s, wanted=wanted, about=nothing))
        self._check_beginning(now_s)
        for stream in self.streams:
            stream.tick(now_s)

    def due_s(self) -> float:
        now_s = self.local_s()
        return min(
            *(wire.link.due_s() for wire in self.wires),
            *(stream.due_s(now_s) for stream in self.streams),
        )

    def _check_beginning(self, now_s: float) -> None:
        if self._begun:
            return
        if all(w.link.ready for w in self.wires) or self.sim.now_s > GREETING_S:
            self._begun = True
            for stream in self.streams:
                stream.due_fire_s = now_s

    def lane_opened(self, connection: Connection) -> None:
        wire = connection.wire
        if wire.lanes.get(connection.lane) is connection:
            self.do(wire, wire.link.lane_open(connection.lane, self.local_s()))

    def lane_lost(self, connection: Connection) -> None:
        wire = connection.wire
        if wire.lanes.get(connection.lane) is connection:
            self.do(wire, wire.link.lane_lost(connection.lane, self.local_s()))

    def message(self, connection: Connection, message: Any) -> None:
        wire = connection.wire
        if wire.lanes.get(connection.lane) is not connection:
            return
        if connection.lane == "control":
            self._control(wire, self.sim.through_control(message))
        else:
            header, value = message
            self._data(wire, self.sim.through_header(header), value)

    def _control(self, wire: Wire, message: Control) -> None:
        now_s = self.local_s()
        if isinstance(message, Welcome) and message.session == wire.link.session:
            wire.granted.update(message.grants)
        session = getattr(message, "session", 0)
        before = wire.link.state, wire.link.session
        actions = wire.link.control(message, now_s)
        after = wire.link.state, wire.link.session
        sound = session == before[1] or (not actions and before == after)
        text = f"{message.kind} of session {session} has an effect in {before[1]}"
        self.sim.check("S4", sound, text)
        self.do(wire, actions)

    def _data(self, wire: Wire, header: Header, value: Any) -> None:
        link = wire.link
        if header.session != link.session:
            return
        if header.kind is Kind.PROBED:
            wire.proofs += 1
            self.do(wire, link.probed(header.session, self.local_s()))
            return
        granted = max(header.limit, wire.granted.get(header.stream, 0))
        wire.granted[header.stream] = granted
        for stream in self.streams:
            if stream.number == header.stream:
                stream.answer(wire, header, value, self.local_s())

    def send_token(self, wire: Wire, header: Header, value: Value) -> bool:
        message = (*self._mangle(wire, header), value)
        sent = wire.send("data", message)
        if sent:
            count = wire.sent[header.stream] = wire.sent.get(header.stream, 0) + 1
            granted = wire.granted.get(header.stream, 0)
            text = f"{count} tokens sent to {wire.server.name}, {granted} granted"
            self.sim.check("S2", count <= granted, text)
        else:
            self.do(wire, wire.link.blocked(self.local_s()))
        return sent

    def _mangle(self, wire: Wire, header: Header) -> tuple[Header, list[int]]:
        sizes = [TOKEN_BYTES]
        match wire.mangled:
            case "segment":
                header = header._replace(segment=header.segment ^ 1)
            case "busy":
                header = header._replace(ordinal=wire.granted[header.stream])
            case "error":
                sizes = [TOKEN_BYTES + 1]
            case "expired":
                header = header._replace(budget_us=0)
        return header, sizes

    def do(self, wire: Wire, actions: Sequence[links.Action]) -> None:
        for action in actions:
            if not isinstance(action, links.Send | links.Probe):
                self.sim.note(f"{self.name}-{wire.server.name} {action}")
            match action:
                case links.Dial():
                    wire.dial()
                case links.Close():
                    wire.hang_up()
                case links.Send(message):
                    wire.send("control", message)
                case links.Probe(session):
                    probe = Header(kind=Kind.PROBE, session=session)
                    wire.send("data", (probe, [], None))
                case links.Up():
                    text = f"{wire.server.name} used after {wire.proofs} probes"
                    self.sim.check("S7", wire.proofs >= links.PROBES, text)
                    for stream in self.streams:
                        stream.reachable(wire, self.local_s())
                case links.Suspect():
                    wire.proofs = 0
                    self._lost(wire, final=False)
                case links.Dead():
                    self._lost(wire, final=True)
                case links.Refused(why):
                    self.sim.fail("L1", f"{wire.server.name} refused: {why}")

    def _lost(self, wire: Wire, *, final: bool) -> None:
        now_s = self.local_s()
        decisions = [(s, s.lost(wire, now_s, final=final)) for s in self.streams]
        for stream, actions in decisions:
            stream.do(actions, now_s)
