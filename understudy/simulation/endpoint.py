"""The dialling half of a device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataflow.wire import link_states as links
from dataflow.wire.control import Control, Welcome
from dataflow.wire.header import Header, Kind
from dataflow.wire.peer_clock import Offset
from dataflow.wire.timers import PROBES
from understudy.simulation.device import DRIFT, Device
from understudy.simulation.network import SUSPECT, Connection, Wire
from understudy.simulation.scenario import Source
from understudy.simulation.server import Answer, Server, Token, Value
from understudy.simulation.stream import Stream

if TYPE_CHECKING:
    from understudy.simulation.simulation import Simulation

GREETING_S = 0.5
"""Sources begin when every link is ready, or after this long."""

_PROBE, _PROBED = Kind.PROBE, Kind.PROBED


class Endpoint(Device):
    """The dialling half of a device, as `dataflow.device` is, in one life.

    Args:
        servers: All of the run; it dials those that its rows name.
        past: Its life before this one.
    """

    def __init__(
        self,
        sim: "Simulation",
        name: str,
        servers: Sequence[Server],
        sources: Sequence[Source],
        past: "Endpoint | None" = None,
    ) -> None:
        super().__init__(sim, name, past)
        self.alive = True
        self.sources = sources
        self.alert = False
        """A turn may find something to do though no timer says so."""
        self._begun = False
        wires: dict[int, Wire] = {}
        for source in sources:
            for row in source.rows:
                if row.server is not None and row.server not in wires:
                    wires[row.server] = Wire(self, servers[row.server])
        self.wires = [wires[index] for index in sorted(wires)]
        for wire in self.wires:
            wire.server.wires.append(wire)
        self.streams = [Stream(self, source, wires) for source in sources]
        for wire in self.wires:
            wire.offer()
            wire.arm()
        sim.after(GREETING_S, self._begin)
        if not self.wires:
            self._begin()

    def crash(self, _: Any = None) -> None:
        """SIGKILL of the source's process: its streams end here."""
        self.alive = False
        self.forget()
        for stream in self.streams:
            stream.over = True
        for wire in self.wires:
            wire.server.wires.remove(wire)
            wire.hang_up()

    def turn(self) -> None:
        """Look at what no timer tells; after each event that might concern it."""
        if not self.alert or self.paused:
            return
        self.alert = False
        alert = False
        for wire in self.wires:
            if wire.link.state is SUSPECT:
                wire.tick(self.clock_s())
                alert |= wire.link.state is SUSPECT
        for stream in self.streams:
            alert |= stream.turn()
        self.alert |= alert

    def thawed(self) -> None:
        if not self.alive:
            return
        self.alert = True
        now_s = self.clock_s()
        for stream in self.streams:
            stream.rearm(now_s)
        for wire in self.wires:
            wire.tick(now_s)
            wire.rearm()
        self.turn()

    def _begin(self, _: Any = None) -> None:
        if self._begun or not self.alive:
            return
        self._begun = True
        for stream in self.streams:
            stream.start()

    def lane_opened(self, connection: Connection) -> None:
        wire = connection.wire
        if connection is wire.control or connection is wire.data:
            self.do(wire, wire.link.lane_open(connection.lane, self.clock_s()))

    def lane_lost(self, connection: Connection) -> None:
        if self.paused:
            self.keep(connection, self.lane_lost, connection)
            return
        wire = connection.wire
        if connection is wire.control or connection is wire.data:
            self.do(wire, wire.link.lane_lost(connection.lane, self.clock_s()))
            self.turn()

    def control(self, wire: Wire, message: Control) -> None:
        """A message came on the control lane of `wire`."""
        link = wire.link
        if self.sim.packed:
            message = self.sim.through_control(message)
        now_s = self.clock_s()
        if isinstance(message, Welcome) and message.session == link.session:
            for number, limit in message.grants.items():
                branch = wire.branches[number]
                branch.granted = max(branch.granted, limit)
        current, before = link.session, link.state
        session = getattr(message, "session", 0)
        actions = link.control(message, now_s)
        if session != current:
            sound = not actions and link.state is before
            text = f"{message.kind} of session {session} has an effect in {current}"
            self.sim.check("S4", sound, text)
        if actions:
            self.do(wire, actions)
        if self.alert:
            self.turn()

    def data(self, wire: Wire, message: Answer) -> None:
        """A message came on the data lane of `wire`."""
        header, value = message
        if self.sim.packed:
            header = self.sim.through_header(header)
        link = wire.link
        if header.session != link.session:
            return
        if header.kind is _PROBED:
            wire.proofs += 1
            self.do(wire, link.probed(header.session, self.clock_s()))
        else:
            branch = wire.branches.get(header.stream)
            if branch is not None:
                branch.stream.answer(branch, header, value)
        if self.alert:
            self.turn()

    def send_token(self, wire: Wire, header: Header, value: Value) -> bool:
        """Send on the data lane; a failure is evidence."""
        token: Token = header, wire.branches[header.stream].row.token_bytes, value
        connection = wire.data
        if connection is None or not connection.open or wire.blocked:
            self.do(wire, wire.link.blocked(self.clock_s()))
            return False
        connection.up(token if wire.mangled is None else _mangle(wire, token))
        return True

    def do(self, wire: Wire, actions: Sequence[links.Action]) -> None:
        """Carry out what the link of `wire` decided."""
        for action in actions:
            if type(action) is links.Send:
                if wire.control is not None and wire.control.open:
                    wire.control.up(action.message)
            elif type(action) is links.Probe:
                probe = Header(kind=_PROBE, session=action.session)
                if wire.data is not None and wire.data.open:
                    wire.data.up((probe, [], None))
            else:
                self._follow(wire, action)
        if actions:
            wire.arm()

    def _follow(self, wire: Wire, action: links.Action) -> None:
        """Do what a change of a link's state asks for."""
        if self.sim.tracing:
            self.sim.note(f"{wire.name} {_told(action)}")
        match action:
            case links.Dial():
                wire.dial()
            case links.Close():
                wire.hang_up()
            case links.Up():
                self._up(wire)
            case links.Suspect():
                wire.proofs = 0
                self.alert = True
                self._lost(wire, final=False)
            case links.Dead():
                self._lost(wire, final=True)
            case links.Measured(offset):
                self._check_offset(wire, offset)
            case links.Refused(why):
                self.sim.fail("L1", f"{wire.server.name} refused: {why}")

    def _check_offset(self, wire: Wire, offset: Offset) -> None:
        real_s = wire.server.clock_s() - self.clock_s()
        wrong_s = abs(offset.offset_s - real_s)
        # What was measured some time ago has drifted since.
        most_s = offset.error_s + 2 * DRIFT * self.sim.now_s
        text = (
            f"{wire.name}: clocks differ by {real_s:.4f} s, not {offset.offset_s:.4f}"
        )
        self.sim.check("C1", wrong_s <= most_s, text)

    def _up(self, wire: Wire) -> None:
        text = f"{wire.server.name} used after {wire.proofs} probes"
        self.sim.check("S7", wire.proofs >= PROBES, text)
        now_s = self.clock_s()
        for branch in wire.branches.values():
            branch.reachable(now_s)
        if not self._begun and all(w.link.ready for w in self.wires):
            self._begin()

    def _lost(self, wire: Wire, *, final: bool) -> None:
        now_s = self.clock_s()
        # All decide before any acts: acting may find another link lost.
        for branch in wire.branches.values():
            branch.lost(now_s, final=final)
        for branch in wire.branches.values():
            branch.stream.do((), now_s)


def _told(action: links.Action) -> str:
    match action:
        case links.Suspect(session, evidence, text):
            return f"session {session} suspect ({evidence}): {text}"
        case links.Up(session, away_s):
            away = "" if away_s is None else f" after {away_s:.3f} s"
            return f"session {session} ready{away}"
        case links.Dial(session):
            return f"dials for session {session}"
        case links.Dead(session):
            return f"session {session} dead"
        case links.Measured(offset):
            return f"clocks differ by {offset.offset_s:.4f} s"
        case _:
            return type(action).__name__.lower()


def _mangle(wire: Wire, token: Token) -> Token:
    header, sizes, value = token
    match wire.mangled:
        case "segment":
            header = header._replace(segment=header.segment ^ 1)
        case "busy":
            granted = wire.branches[header.stream].granted
            header = header._replace(ordinal=granted)
        case "error":
            sizes = [sizes[0] + 1, *sizes[1:]]
        case "expired":
            header = header._replace(budget_us=0)
    return header, sizes, value
