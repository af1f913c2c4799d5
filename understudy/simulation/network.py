"""Wires and connections: lanes as TCP would carry them, and worse."""

from collections.abc import Iterable, Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Any

from dataflow.wire.control import StreamOffer
from dataflow.wire.header import CONTROL_LANE, DATA_LANE, Header
from dataflow.wire.link_states import Lane, State
from understudy.simulation.device import NEVER_S, SPINS_MAX, nothing

if TYPE_CHECKING:
    from understudy.simulation.branches import RemoteBranch
    from understudy.simulation.dialler import Dialler
    from understudy.simulation.server import Server

SUSPECT = State.SUSPECT
DELAY_SHARE = 1 / 50
"""A message takes at most twice this share of the shortest deadline."""
STALE_MAX = 40
"""Messages of older sessions that come out of a new one."""
HANDSHAKE_TRIPS = 3
UP, DOWN = 0, 1
"""Directions of a lane: from the endpoint to the server, and back."""
APART_S = 1e-6
"""Between messages that a lane hands over one after the other."""

Hole = tuple[Lane, int]
Value = tuple[int, int, int]
"""What a branch computes: stream, frame and branch that it was asked for."""
Token = tuple[Header, Sequence[int], Value | None]
Answer = tuple[Header, Value | None]


class Wire:
    """The way from a device that dials to a server, and what is wrong with it."""

    def __init__(self, endpoint: "Dialler", server: "Server") -> None:
        self.sim = endpoint.sim
        self.endpoint = endpoint
        self.server = server
        self.name = f"{endpoint.name}-{server.name}"
        self.data: Connection | None = None
        self.control: Connection | None = None
        slowest_s = endpoint.shortest_s * DELAY_SHARE
        self.delay_s = min(self.sim.between(0.0001, 0.003), slowest_s)
        self.up_s = 0.0
        """When it was last used again, in virtual time."""
        self.told_s = 0.0
        """When the latest beat came, in virtual time."""
        self.cut = False
        """Connections are refused and lost."""
        self.holes: set[Hole] = set()
        """Lanes and directions in which nothing moves."""
        self.blocked = False
        """A send on the data lane would block."""
        self.replays = False
        """What an older session had in flight comes out of the next one."""
        self.mangled: str | None = None
        """What the network makes of a header, to draw a NACK of each kind."""
        self.lost = self.doubled = 0.0
        """Shares of the messages that vanish, or come twice."""
        self.reordered_s = self.lag_s = 0.0
        """Messages come later by up to the first, or by the second."""
        self.plain = True
        """Nothing is wrong with the way of a message."""
        self.looked_s = 0.0
        """When that was last looked at."""
        self.proofs = 0
        """Answers to probes since the session began, or was last doubted."""
        self.stale: list[tuple[Lane, int, Any]] = []
        self.branches: dict[int, RemoteBranch] = {}
        """Of an endpoint: by its number, what is asked for on this wire."""
        self.ways: tuple[tuple[str, ...], ...] = ()
        self._wake_s = NEVER_S
        self.link = self.sim.setup.machines.link(
            server.name,
            device=endpoint.name,
            incarnation=endpoint.incarnation,
            offers=(),
            now_s=endpoint.clock_s(),
        )

    def offer(
        self, offers: Iterable[StreamOffer], ways: Iterable[tuple[str, ...]]
    ) -> None:
        """Tell the link what it is to ask for, and let it begin.

        Args:
            offers: Of the streams that are sent here.
            ways: Behind the server, that their tokens take.
        """
        self.link.offers = tuple(offers)
        self.ways = tuple(ways)
        self.server.wires.append(self)
        self.arm()

    def arm(self) -> None:
        """Wake when the link has something to do; idle beats are jumped over."""
        if self.server.quiet and self.link.ready:
            return
        due_s = self.link.due_s()
        if due_s < self._wake_s:
            self._wake_s = due_s
            self.endpoint.alarm(due_s, self._wake)

    def _wake(self, _: float) -> None:
        link, endpoint = self.link, self.endpoint
        if endpoint.paused or self._wake_s > endpoint.clock_s():
            return  # looked at when it goes on; or this alarm was overtaken
        self._wake_s = NEVER_S
        if not endpoint.alive or (self.server.quiet and link.ready):
            return
        for _turn in range(SPINS_MAX):
            now_s = endpoint.clock_s()
            if link.due_s() > now_s:
                break
            self.tick(now_s)
        else:
            self.sim.fail("L3", f"link {self.name} is always due, with nothing to do")
        self.arm()
        endpoint.turn()

    def tick(self, now_s: float) -> None:
        link = self.link
        wanted = link.state is SUSPECT and self.endpoint.wants(self)
        self.endpoint.do(self, link.tick(now_s, wanted=wanted, about=nothing))

    def rearm(self) -> None:
        """After a pause: alarms that went by unseen are set again."""
        self._wake_s = NEVER_S
        self.arm()

    def usable(self) -> bool:
        """Tell whether all that is asked for may be sent here."""
        link = self.link
        for offer in link.offers:
            if not link.takes(offer.stream):
                return False
        return not any(link.first_lost(ways) for ways in self.ways)

    def dial(self) -> None:
        route = self.sim.random.randbytes(8)
        self.control = Connection(self, "control", route + CONTROL_LANE)
        self.data = Connection(self, "data", route + DATA_LANE)
        self.control.connect()
        self.data.connect()
        self.proofs = 0
        for branch in self.branches.values():
            branch.granted = branch.sent = 0
        if self.replays:
            self._replay()

    def _replay(self) -> None:
        old, self.stale = self.stale[-STALE_MAX:], []
        for lane, direction, message in old:
            connection = self.lane(lane)
            put = connection.up if direction == UP else connection.down
            self.sim.after(self.sim.between(0.0, 0.1), put, message)

    def lane(self, lane: Lane) -> "Connection":
        connection = self.data if lane == "data" else self.control
        assert connection is not None, "a lane of a link that was never dialled"
        return connection

    def hang_up(self) -> None:
        for connection in (self.data, self.control):
            if connection is not None:
                connection.end()
        self.data = self.control = None

    def lose(self, lane: Lane, notice_s: float) -> None:
        """The connection under `lane` breaks; the dialling side learns of it later."""
        connection = self.data if lane == "data" else self.control
        if connection is not None:
            connection.broken = True
            connection.tell_lost(notice_s)

    def lose_all(self, notice_s_max: float) -> None:
        for lane in ("control", "data"):
            self.lose(lane, self.sim.between(0.001, notice_s_max))

    def look(self) -> None:
        """See whether anything is wrong with the way, now that something changed."""
        self.looked_s = self.sim.now_s
        self.plain = not (
            self.holes
            or self.replays
            or self.lost
            or self.doubled
            or self.reordered_s
            or self.lag_s
        )

    def flow(self, holes: set[Hole]) -> None:
        """Holes are mended: TCP sends again what had not come through."""
        self.holes -= holes
        self.look()
        for connection in (self.control, self.data):
            if connection is not None:
                connection.flush()


class Connection:
    """One TCP connection: a lane of one session."""

    __slots__ = (
        "_held",
        "_last_down_s",
        "_last_up_s",
        "broken",
        "closed",
        "given_up",
        "lane",
        "life",
        "open",
        "route",
        "session",
        "sim",
        "waiting",
        "wire",
    )

    def __init__(self, wire: Wire, lane: Lane, route: bytes) -> None:
        self.wire = wire
        self.lane: Lane = lane
        self.route = route
        self.sim = wire.sim
        self.open = self.broken = self.closed = False
        self.given_up = False
        """It was closed though nothing was wrong with it."""
        self.life = wire.server.life
        self.session = wire.link.session
        self.waiting: dict[int, int] = {}
        """Per stream: tokens that came here and wait for an answer."""
        self._last_up_s = self._last_down_s = 0.0
        self._held: list[tuple[int, Any]] = []

    def connect(self, _: Any = None) -> None:
        server, wire = self.wire.server, self.wire
        if self.closed:
            return
        if wire.cut or not server.alive or self.life != server.life:
            self.broken = True
            self.tell_lost(self.sim.between(0.0005, 0.003))
        elif server.frozen or (self.lane, UP) in wire.holes or (
            (self.lane, DOWN) in wire.holes
        ):  # fmt: skip
            self.sim.after(0.05, self.connect, None)  # SYN is sent again
        else:
            self.sim.after(HANDSHAKE_TRIPS * self._delay_s(), self._opened, None)

    def _opened(self, _: Any) -> None:
        if self.closed or self.broken:
            return
        endpoint = self.wire.endpoint
        if endpoint.paused:
            endpoint.keep(self, self._opened, None)
            return
        if self.life != self.wire.server.life:
            self.broken = True
            self.tell_lost(0.001)
            return
        self.open = True
        endpoint.lane_opened(self)

    def end(self) -> None:
        """The dialling side closes: what it sent may or may not still arrive."""
        self.given_up = self.open and not self.broken and self.wire.plain
        self.closed = True
        self.open = False
        self.broken = self.broken or self.sim.random.random() < 0.5

    def flush(self) -> None:
        held, self._held = self._held, []
        for direction, message in held:
            (self.up if direction == UP else self.down)(message)

    def tell_lost(self, notice_s: float) -> None:
        self.sim.after(notice_s, self.wire.endpoint.lane_lost, self)

    def up(self, message: Any) -> None:
        """The endpoint sends."""
        if self.broken:
            return
        if not self.wire.plain:
            self._put(UP, message)
            return
        sim = self.sim
        arrives_s = sim.now_s + self.wire.delay_s * (1.0 + sim.chance())
        if arrives_s <= self._last_up_s:
            arrives_s = self._last_up_s + APART_S
        self._last_up_s = arrives_s
        heappush(sim.heap, (arrives_s, next(sim.count), self._arrive_up, message))

    def down(self, message: Any) -> None:
        """The server sends."""
        if self.broken:
            return
        if not self.wire.plain:
            self._put(DOWN, message)
            return
        sim = self.sim
        arrives_s = sim.now_s + self.wire.delay_s * (1.0 + sim.chance())
        if arrives_s <= self._last_down_s:
            arrives_s = self._last_down_s + APART_S
        self._last_down_s = arrives_s
        heappush(sim.heap, (arrives_s, next(sim.count), self._arrive_down, message))

    def _put(self, direction: int, message: Any) -> None:
        """Send over a way that something is wrong with."""
        wire, sim = self.wire, self.sim
        if (self.lane, direction) in wire.holes:
            self._held.append((direction, message))
            return
        if wire.lost and sim.chance() < wire.lost:
            return
        last_s = self._last_up_s if direction == UP else self._last_down_s
        arrive = self._arrive_up if direction == UP else self._arrive_down
        for _ in range(1 + (sim.chance() < wire.doubled)):
            arrives_s = sim.now_s + self._delay_s() + wire.lag_s
            if wire.reordered_s:
                arrives_s += sim.chance() * wire.reordered_s
            else:
                arrives_s = last_s = max(arrives_s, last_s + APART_S)
            sim.at(arrives_s, arrive, message)
        if direction == UP:
            self._last_up_s = last_s
        else:
            self._last_down_s = last_s

    def _arrive_up(self, message: Any) -> None:
        wire = self.wire
        if not wire.plain and self._is_held(UP, message):
            return
        server = wire.server
        if self.broken or self.life != server.life:
            return
        if server.paused:
            server.keep(self, self._arrive_up, message)
        elif self.lane == "data":
            server.data(self, message)
        else:
            server.control(self, message)

    def _arrive_down(self, message: Any) -> None:
        wire = self.wire
        if not wire.plain and self._is_held(DOWN, message):
            return
        if self.broken or self.closed:
            return
        endpoint = wire.endpoint
        if endpoint.paused:
            endpoint.keep(self, self._arrive_down, message)
        elif self.lane == "data":
            if self is wire.data:
                endpoint.data(wire, message)
        elif self is wire.control:
            endpoint.control(wire, message)

    def _is_held(self, direction: int, message: Any) -> bool:
        wire = self.wire
        if wire.replays:
            wire.stale.append((self.lane, direction, message))
        if (self.lane, direction) not in wire.holes:
            return False
        self._held.append((direction, message))
        return True

    def _delay_s(self) -> float:
        return self.wire.delay_s * (1.0 + self.sim.chance())
