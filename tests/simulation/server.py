"""The serving half of a device."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from dataflow.wire import sessions as sessions_
from dataflow.wire.header import Header, Kind, Nack
from dataflow.wire.sessions import Accept, Session
from tests.simulation.device import Device, nothing
from tests.simulation.network import Connection, Wire
from tests.simulation.setup import Value

if TYPE_CHECKING:
    from tests.simulator import Simulation

TOKEN_BYTES = 100


class _Job(NamedTuple):
    session: Session
    header: Header
    connection: Connection
    value: Value
    expires_s: float


class Server(Device):
    """The serving half of a device, as `dataflow.host` is."""

    def __init__(self, sim: "Simulation", name: str, segments: Sequence[int]) -> None:
        super().__init__(sim, name)
        self.segments = segments
        self.life = 0
        self.alive = True
        self.wires: list[Wire] = []
        self.compute_s = sim.random.uniform(0.001, 0.008)
        self.frozen = False
        """Not even libzmq's own thread runs."""
        self.slowness = 1.0
        self.hop_lost = False
        self.mute = False
        """Its answers find the ROUTER's high-water mark, and are lost."""
        self._boot(sim.random.choice((0.0, 0.0, 0.2)))

    def _boot(self, load_s: float) -> None:
        self.sessions = self.sim.setup.machines.sessions(
            self.name,
            incarnation=self.sim.random.getrandbits(64),
            token_bytes={segment: [TOKEN_BYTES] for segment in self.segments},
        )
        self._routes: dict[bytes, Connection] = {}
        self._newest: dict[tuple[str, int], int] = {}
        self._jobs: deque[_Job] = deque()
        self._busy_since_s: float | None = None
        self.alive = True
        self.sim.after(load_s, self._life(self.loaded))

    def _life(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return what does `call` unless this life of the process is over."""
        life = self.life
        return lambda: self.receive(call) if self.life == life else None

    def crash(self) -> None:
        """SIGKILL. Connections close some time after: a big process dies late."""
        self.life += 1
        self.alive = False
        self._inbox.clear()
        self._at_thaw.clear()
        for wire in self.wires:
            for lane in list(wire.lanes):
                wire.lose(lane, self.sim.random.uniform(0.001, 0.1))

    def restart(self) -> None:
        if not self.alive:
            self._boot(self.sim.random.uniform(0.0, 0.3))

    def bye(self) -> None:
        self._do(self.sessions.bye())

    def loaded(self) -> None:
        self._do(self.sessions.load_done(self.local_s()))

    def order_inbox(self, inbox: list[Callable[[], None]]) -> None:
        """Shuffle connections, keep the order within each: fair queueing."""
        lanes: dict[int, deque[Callable[[], None]]] = {}
        order = []
        for event in inbox:
            key = id(event.args[0]) if isinstance(event, partial) else 0
            lanes.setdefault(key, deque()).append(event)
            order.append(key)
        self.sim.random.shuffle(order)
        inbox[:] = [lanes[key].popleft() for key in order]

    def message(self, connection: Connection, message: Any) -> None:
        if connection.closed and connection.broken:
            return
        self._routes[connection.route] = connection
        now_s = self.local_s()
        if connection.lane == "control":
            control = self.sim.through_control(message)
            self._do(self.sessions.control(connection.route, control, now_s))
            return
        header, sizes, value = message
        header = self.sim.through_header(header)
        actions = self.sessions.data(connection.route, header, sizes, now_s)
        # Before it greeted, the server cannot know that a session is an older one.
        endpoint = connection.wire.endpoint
        known = self._newest.get((endpoint.name, endpoint.incarnation), 0)
        stale = header.session < connection.session <= known
        sound = not stale or not actions
        self.sim.check("S4", sound, "a token of an older session has an effect")
        for action in actions:
            if isinstance(action, Accept):
                self._accept(action, connection, value, now_s)
            else:
                self._do([action])

    def _accept(
        self, accept: Accept, connection: Connection, value: Value, now_s: float
    ) -> None:
        session, offer, header = accept
        check = self.sim.check
        check("S3", header.segment in self.segments, "a segment it does not have")
        check("S3", header.segment == offer.segment, "a segment not offered")
        check("S4", header.session == session.number, "a token of another session")
        limit = session.limits[header.stream]
        check("S2", header.ordinal < limit, f"ordinal {header.ordinal} of {limit}")
        newest = self._newest[session.device, session.incarnation]
        check("S4", session.number >= newest, "a token of an older session")
        waiting = sum(
            job.session is session and job.header.stream == header.stream
            for job in self._jobs
        )
        check("S2", waiting < offer.window, f"{waiting + 1} tokens of {offer.window}")
        expires_s = now_s + header.budget_us / 1e6
        self._jobs.append(_Job(session, header, connection, value, expires_s))
        if len(self._jobs) == 1:
            self._begin()

    def _begin(self) -> None:
        self._busy_since_s = self.local_s()
        took_s = self.compute_s * self.slowness * self.sim.random.uniform(0.9, 1.3)
        if self._busy_since_s >= self._jobs[0].expires_s:
            took_s = 0.0
        self.sim.after(took_s, self._life(self._finish))

    def _finish(self) -> None:
        session, header, connection, value, expires_s = self._jobs.popleft()
        started_s, self._busy_since_s = self._busy_since_s, None
        assert started_s is not None
        limit = self.sessions.answered(session, header)
        if started_s >= expires_s:
            self._do([self.sessions.nack(session, header, Nack.EXPIRED)])
        elif self.hop_lost:
            self._do([self.sessions.nack(session, header, Nack.HOP)])
        else:
            answer = header._replace(kind=Kind.ANSWER, limit=limit)
            # Not by `_routes`: the answer goes to the lane that the session knows.
            if connection.route == session.lane and not self.mute:
                self.sim.note(f"{self.name} answers {header.frame}")
                connection.down((answer, value))
        if self._jobs:
            self._begin()

    def turn(self) -> None:
        if not self.alive:
            return
        now_s = self.local_s()
        since_s = self._busy_since_s
        self._do(
            self.sessions.tick(
                now_s,
                queue=len(self._jobs),
                age_ms=0 if since_s is None else int((now_s - since_s) * 1e3),
                about=nothing,
            )
        )

    def due_s(self) -> float:
        return self.sessions.due_s() if self.alive else float("inf")

    def _do(self, actions: Sequence[sessions_.Action]) -> None:
        for action in actions:
            match action:
                case sessions_.Send(route, message):
                    if route in self._routes:
                        self._routes[route].down(message)
                case sessions_.Reply(route, header):
                    if route in self._routes:
                        self._routes[route].down((header, None))
                case sessions_.Opened(session):
                    key = session.device, session.incarnation
                    self.sim.check(
                        "S4",
                        session.number > self._newest.get(key, 0),
                        f"{self.name} goes back to session {session.number}",
                    )
                    self._newest[key] = session.number
                case _:
                    pass
