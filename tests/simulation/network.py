"""Wires and connections: lanes as TCP would carry them."""

from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.wire.control import StreamOffer
from dataflow.wire.header import CONTROL_LANE, DATA_LANE
from dataflow.wire.link import Lane

if TYPE_CHECKING:
    from tests.simulation.endpoint import Endpoint
    from tests.simulation.server import Server

STALE_MAX = 40
"""Messages of older sessions that come out of a new one."""


class Wire:
    """The way between one endpoint and one server, and what is wrong with it."""

    def __init__(self, endpoint: "Endpoint", server: "Server") -> None:
        self.sim = endpoint.sim
        self.endpoint = endpoint
        self.server = server
        self.lanes: dict[Lane, Connection] = {}
        self.delay_s = self.sim.random.uniform(0.0001, 0.003)
        self.cut = False
        """Connections are refused and lost."""
        self.holes: set[Lane] = set()
        """Lanes on which nothing moves, in either direction."""
        self.blocked = False
        """A send on the data lane would block."""
        self.replays = False
        """What an older session had in flight comes out of the next one."""
        self.mangled: str | None = None
        """What the network makes of a header, to draw a NACK of each kind."""
        self.granted: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.proofs = 0
        """Answers to probes since the session began, or was last doubted."""
        self.stale: list[tuple[Lane, int, Any]] = []
        offers: tuple[StreamOffer, ...] = ()
        self.link = self.sim.setup.machines.link(
            server.name,
            device=endpoint.name,
            incarnation=endpoint.incarnation,
            offers=offers,
            now_s=endpoint.local_s(),
        )

    def dial(self) -> None:
        route = self.sim.random.randbytes(8)
        for lane, last in (("control", CONTROL_LANE), ("data", DATA_LANE)):
            self.lanes[lane] = Connection(self, lane, route + last)  # type: ignore[index,arg-type]
        self.granted.clear()
        self.sent.clear()
        self.proofs = 0
        if self.replays:
            self._replay()

    def _replay(self) -> None:
        old, self.stale = self.stale[-STALE_MAX:], []
        for lane, direction, message in old:
            delay_s = self.sim.random.uniform(0.0, 0.1)
            self.sim.after(delay_s, self.lanes[lane].put, direction, message)

    def hang_up(self) -> None:
        for connection in self.lanes.values():
            connection.end()
        self.lanes.clear()

    def send(self, lane: Lane, message: Any) -> bool:
        connection = self.lanes.get(lane)
        if connection is None or not connection.open:
            return False
        if lane == "data" and self.blocked:
            return False
        connection.up(message)
        return True

    def lose(self, lane: Lane, notice_s: float) -> None:
        """The connection under `lane` breaks; the dialling side learns of it later."""
        if (connection := self.lanes.get(lane)) is not None:
            connection.broken = True
            connection.tell_lost(notice_s)

    def flow(self, lane: Lane) -> None:
        """A hole is mended: TCP sends again what had not come through."""
        self.holes.discard(lane)
        if (connection := self.lanes.get(lane)) is not None:
            connection.flush()


class Connection:
    """One TCP connection: a lane of one session."""

    def __init__(self, wire: Wire, lane: Lane, route: bytes) -> None:
        self.wire, self.lane, self.route = wire, lane, route
        self.sim = wire.sim
        self.open = False
        self.broken = False
        self.closed = False
        self.life = wire.server.life
        self.session = wire.link.session
        self._last_s = [0.0, 0.0]
        self._held: list[tuple[int, Any]] = []
        self._connect()

    def _connect(self) -> None:
        server, wire = self.wire.server, self.wire
        if wire.cut or not server.alive:
            self.broken = True
            self.tell_lost(self.sim.random.uniform(0.0005, 0.003))
        elif server.frozen or self.lane in wire.holes:
            server.when_thawed(self._connect_again)
        else:
            self.sim.after(self._delay_s() * 3, self._opened)

    def _connect_again(self) -> None:
        if not self.closed and self.life == self.wire.server.life:
            self.sim.after(self._delay_s() * 3, self._opened)

    def _opened(self) -> None:
        if self.closed or self.broken:
            return
        if self.life != self.wire.server.life:
            self.broken = True
            self.tell_lost(0.001)
            return
        self.open = True
        endpoint = self.wire.endpoint
        endpoint.receive(partial(endpoint.lane_opened, self))

    def up(self, message: Any) -> None:
        self.put(0, message)

    def down(self, message: Any) -> None:
        self.put(1, message)

    def end(self) -> None:
        """The dialling side closes: what it sent may or may not still arrive."""
        self.closed = True
        self.open = False
        self.broken = self.broken or self.sim.random.random() < 0.5

    def flush(self) -> None:
        held, self._held = self._held, []
        for direction, message in held:
            self.put(direction, message)

    def tell_lost(self, notice_s: float) -> None:
        endpoint = self.wire.endpoint
        self.sim.after(
            notice_s, lambda: endpoint.receive(partial(endpoint.lane_lost, self))
        )

    def put(self, direction: int, message: Any) -> None:
        if self.broken:
            return
        if self.lane in self.wire.holes:
            self._held.append((direction, message))
            return
        arrives_s = max(
            self._last_s[direction] + 1e-6, self.sim.now_s + self._delay_s()
        )
        self._last_s[direction] = arrives_s
        self.sim.at(arrives_s, self._arrive, direction, message)

    def _arrive(self, direction: int, message: Any) -> None:
        wire = self.wire
        if wire.replays:
            wire.stale.append((self.lane, direction, message))
        if self.lane in wire.holes:
            self._held.append((direction, message))
        elif self.broken or (direction == 1 and self.closed):
            pass
        elif direction == 0:
            if self.life == wire.server.life:
                wire.server.receive(partial(wire.server.message, self, message))
        else:
            wire.endpoint.receive(partial(wire.endpoint.message, self, message))

    def _delay_s(self) -> float:
        return self.wire.delay_s * self.sim.random.uniform(1.0, 2.0)
