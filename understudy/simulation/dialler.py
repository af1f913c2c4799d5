"""What dials: the links of an endpoint, or of a server that passes tokens on."""

from abc import abstractmethod
from collections.abc import Sequence

from dataflow.wire import link_states as links
from dataflow.wire.control import Beat, Control, Welcome
from dataflow.wire.header import Header, Kind
from dataflow.wire.peer_clock import Offset
from dataflow.wire.timers import PROBES
from understudy.simulation.device import DRIFT, Device
from understudy.simulation.network import (
    SUSPECT,
    Answer,
    Connection,
    Token,
    Value,
    Wire,
)

_PROBE, _PROBED = Kind.PROBE, Kind.PROBED


class Dialler(Device):
    """The links that a device dials, as `dataflow.links` is.

    Attributes:
        wires: One for each link.
        shortest_s: Of the deadlines that its messages are for.
        alert: A turn may find something to do though no timer says so.
    """

    wires: list[Wire]
    shortest_s: float
    alive: bool
    alert: bool

    @abstractmethod
    def turn(self) -> None:
        """Look at what no timer tells; after each event that might concern it."""

    @abstractmethod
    def wants(self, wire: Wire) -> bool:
        """Tell whether an answer of a suspect peer would still count."""

    @abstractmethod
    def granted(self, wire: Wire, welcome: Welcome) -> None:
        """A peer took the session, and said how much it takes in it."""

    @abstractmethod
    def answered(self, wire: Wire, header: Header, value: Value | None) -> None:
        """An answer or a NACK came, in the link's present session."""

    @abstractmethod
    def ways_changed(self, wire: Wire) -> None:
        """The peer reaches more servers than before, or fewer."""

    @abstractmethod
    def up(self, wire: Wire) -> None:
        """The peer may be used."""

    @abstractmethod
    def lost(self, wire: Wire, *, final: bool) -> None:
        """The peer is suspect or (`final`) dead."""

    def hang_up(self) -> None:
        """The process dies, and with it its connections."""
        for wire in self.wires:
            wire.server.wires.remove(wire)
            wire.hang_up()

    def look_at_suspects(self) -> bool:
        """Let suspect links see whether they are still wanted; tell if some are."""
        found = False
        for wire in self.wires:
            if wire.link.state is SUSPECT:
                wire.tick(self.clock_s())
                found |= wire.link.state is SUSPECT
        return found

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
            self.granted(wire, message)
        elif isinstance(message, Beat) and message.session == link.session:
            wire.told_s = self.sim.now_s
        current, before = link.session, link.state
        ways = link.unreachable
        session = getattr(message, "session", 0)
        actions = link.control(message, now_s)
        if session != current:
            sound = not actions and link.state is before
            text = f"{message.kind} of session {session} has an effect in {current}"
            self.sim.check("S4", sound, text)
        if actions:
            self.do(wire, actions)
        if link.unreachable != ways:
            wire.server.stir()  # it may have been an old one
            self.ways_changed(wire)
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
            self.answered(wire, header, value)
        if self.alert:
            self.turn()

    def send_token(self, wire: Wire, header: Header, value: Value) -> bool:
        """Send on the data lane; a failure is evidence."""
        token: Token = header, wire.server.segments[header.segment], value
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
                text = f"{wire.server.name} used after {wire.proofs} probes"
                self.sim.check("S7", wire.proofs >= PROBES, text)
                wire.up_s = self.sim.now_s
                self.up(wire)
            case links.Suspect():
                wire.proofs = 0
                wire.server.stir()
                self.alert = True
                self.lost(wire, final=False)
            case links.Dead():
                self.lost(wire, final=True)
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
        case "busy" if wire.branches:  # a server knows its tokens by their ordinals
            beyond = header.ordinal + 1 + wire.link.credit(header.stream)
            header = header._replace(ordinal=beyond)
        case "error":
            sizes = [sizes[0] + 1, *sizes[1:]]
        case "expired":
            header = header._replace(budget_us=0)
    return header, sizes, value
