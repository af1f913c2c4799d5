"""The serving half of a device."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow.turns import Batching
from dataflow.wire import session as session_
from dataflow.wire.control import Beat, Control
from dataflow.wire.header import Header, Kind, Nack
from dataflow.wire.relay import Passed, Way
from dataflow.wire.session import Accept, Session
from dataflow.wire.timers import BEAT_S
from understudy.simulation.bench import Bench, Job
from understudy.simulation.device import NEVER_S, SPINS_MAX, Device, nothing
from understudy.simulation.network import Connection, Token, Value, Wire
from understudy.simulation.onward import Onward

if TYPE_CHECKING:
    from understudy.simulation.simulation import Simulation

_ANSWER = Kind.ANSWER
_new = tuple.__new__  # a constructor of a NamedTuple takes twice as long


class Server(Device):
    """The serving half of a device, as `dataflow.host` is.

    Args:
        segments: What it can compute, and the sizes of the tensors that this takes.
        compute_s: What a token takes at best.
        batching: How many of them may run as one.
    """

    def __init__(
        self,
        sim: "Simulation",
        name: str,
        segments: Mapping[int, tuple[int, ...]],
        compute_s: float,
        batching: Batching,
    ) -> None:
        super().__init__(sim, name)
        self.batching = batching
        self.before: list[Server] = []
        """Those that pass tokens on to it."""
        self.ways: list[tuple[int, Way]] = []
        """Where it passes tokens on to, by segment."""
        self.behind: dict[str, Server] = {}
        self.onward: Onward | None = None
        self.segments = segments
        self.life = 0
        self.alive = True
        self.wires: list[Wire] = []
        self.compute_s = compute_s
        self.frozen = False
        """Not even libzmq's own thread runs."""
        self.slowness = 1.0
        self.hop_lost = False
        self.mute = False
        """Its answers find the ROUTER's high-water mark, and are lost."""
        self.troubles = 0
        """Faults that are on, or under way, here or on a wire that leads here."""
        self.quiet = False
        """All is well on all its wires: beats would say nothing, and are left out."""
        self._boot(0.2 if sim.chance() < 1 / 3 else 0.0)

    def _boot(self, load_s: float) -> None:
        self.sessions = self.sim.setup.machines.sessions(
            self.name,
            incarnation=self.sim.random.getrandbits(64),
            token_bytes=self.segments,
        )
        self._routes: dict[bytes, Connection] = {}
        self._newest: dict[tuple[str, int], int] = {}
        self._bench = Bench(self)
        self._wake_s = NEVER_S
        self._leaving = False
        self.alive = True
        self.connect()
        self.sim.after(load_s, self._loaded, self.life)

    def connect(self) -> None:
        """Begin to dial the servers behind it."""
        if self.behind:
            self.onward = Onward(self)

    def pause(self, _: Any = None) -> None:
        super().pause()
        if self.onward is not None:
            self.onward.pause()

    def thaw(self, _: Any = None) -> None:
        super().thaw()
        if self.onward is not None and self.onward.paused:
            self.onward.thaw()

    def crash(self, _: Any = None) -> None:
        """SIGKILL. Connections close some time after: a big process dies late."""
        self.life += 1
        self.alive = False
        self.forget()
        for wire in self.wires:
            wire.lose_all(0.1)
        if self.onward is not None:
            self.onward.crash()
            self.onward = None

    def restart(self, load_s: float) -> None:
        if not self.alive:
            self._boot(load_s)

    def bye(self, _: Any = None) -> None:
        if self.alive:
            self._leaving = True
            self._do(self.sessions.bye())

    def trouble(self, _: Any = None) -> None:
        """Something is about to go wrong: from here on every beat counts."""
        for server in self._touched():
            server.troubles += 1
            server.stir()

    def _touched(self) -> "list[Server]":
        """Return whose links a trouble here concerns: those that a chain joins."""
        found = {self.name: self, **self.behind}
        waiting = [self]
        while waiting:
            server = waiting.pop()
            found[server.name] = server
            waiting += server.before
        return list(found.values())

    def stir(self) -> None:
        """Beat again, as if it had never been left out."""
        if not self.quiet:
            return
        self.quiet = False
        now_s, chance = self.clock_s(), self.sim.chance
        for session in self.sessions.all:
            beat = Beat(session.number, ready=True, queue=0, age_ms=0)
            self.sessions.control(session.control, beat, now_s - BEAT_S * chance())
        for wire in self.wires:
            if not wire.link.ready:
                continue
            heard_s = wire.endpoint.clock_s() - BEAT_S * chance()
            known = wire.link.unreachable
            if known is not None:  # else nothing was told yet
                beat = Beat(
                    wire.link.session,
                    ready=True,
                    queue=0,
                    age_ms=0,
                    dead=tuple(sorted(known)),
                )
                wire.link.control(beat, heard_s)
            wire.arm()
        self.arm()

    def relief(self, _: Any = None) -> None:
        for server in self._touched():
            server.troubles -= 1

    def thawed(self) -> None:
        self._wake_s = NEVER_S
        self._bench.begin()
        self.arm()

    def arm(self) -> None:
        """Wake for the next beat, or when something passed on expires."""
        if not self.alive:
            return
        due_s = self._due_s()
        if due_s < self._wake_s:
            self._wake_s = due_s
            self.alarm(due_s, self._wake)

    def _wake(self, _: float) -> None:
        if self.paused or self._wake_s > self.clock_s():
            return
        self._wake_s = NEVER_S
        if not self.alive or self._due_s() == NEVER_S:
            return
        for _turn in range(SPINS_MAX):
            now_s = self.clock_s()
            if self._due_s() > now_s:
                break
            self._tick(now_s)
        else:
            self.sim.fail("L3", f"{self.name} is always due, with nothing to do")
        if not self.quiet:
            self.quiet = self._is_quiet()
        elif not self._is_quiet():
            self.stir()
        self.arm()

    def _due_s(self) -> float:
        due_s = NEVER_S if self.quiet else self.sessions.due_s()
        return due_s if self.onward is None else min(due_s, self.onward.due_s())

    def _is_quiet(self) -> bool:
        if self.troubles or self.sim.spreads or len(self.sessions) != len(self.wires):
            return False
        if self.onward is not None and not self.onward.is_quiet():
            return False
        return all(wire.usable() and not wire.endpoint.paused for wire in self.wires)

    def _tick(self, now_s: float) -> None:
        queue = len(self._bench)
        dead: tuple[str, ...] = ()
        if self.onward is not None:
            self.onward.expire(now_s)
            queue += len(self.onward)
            dead = self.onward.unreachable()
            if self.quiet:
                return
        self._do(
            self.sessions.tick(
                now_s,
                queue=queue,
                age_ms=int(self._bench.age_s(now_s) * 1e3),
                dead=dead,
                about=nothing,
            )
        )

    def tell_ways(self) -> None:
        """More servers can be reached behind it, or fewer: beats say so at once."""
        self.sessions.beat_now()
        self.arm()

    def _loaded(self, life: int) -> None:
        if life != self.life:
            return
        if self.paused:
            self.keep(self, self._loaded, life)
            return
        self._do(self.sessions.load_done(self.clock_s()))

    def control(self, connection: Connection, message: Control) -> None:
        """A message came on the control lane of `connection`."""
        if connection.closed and connection.broken:
            return
        self._routes[connection.route] = connection
        if self.sim.packed:
            message = self.sim.through_control(message)
        self._do(self.sessions.control(connection.route, message, self.clock_s()))
        self.arm()

    def data(self, connection: Connection, message: Token) -> None:
        """A message came on the data lane of `connection`."""
        if connection.closed and connection.broken:
            return
        self._routes[connection.route] = connection
        header, sizes, value = message
        if self.sim.packed:
            header = self.sim.through_header(header)
        now_s = self.sim.now_s * self.pace + self.start_s
        actions = self.sessions.data(connection.route, header, sizes, now_s)
        if header.session < connection.session:
            self._check_stale(connection, actions)
        for action in actions:
            if type(action) is Accept:
                assert value is not None, "a probe was accepted"
                self._accept(action, connection, value, now_s)
            else:
                self._do([action])

    def _check_stale(
        self, connection: Connection, actions: Sequence[session_.Action]
    ) -> None:
        # Before it greeted, the server cannot know that a session is an older one.
        endpoint = connection.wire.endpoint
        known = self._newest.get((endpoint.name, endpoint.incarnation), 0)
        sound = connection.session > known or not actions
        self.sim.check("S4", sound, "a token of an older session has an effect")

    def _accept(
        self, accept: Accept, connection: Connection, value: Value, now_s: float
    ) -> None:
        session, offer, header = accept
        stream = header.stream
        waiting = connection.waiting.get(stream, 0)
        # One test for what never happens; what exactly, is said when it does.
        if not (
            header.segment == offer.segment
            and header.segment in self.segments
            and header.session == session.number
            and header.ordinal < session.limits[stream]
            and session.number >= self._newest[session.device, session.incarnation]
            and waiting < offer.window
        ):
            self._tell_unsound(accept, waiting)
        connection.waiting[stream] = waiting + 1
        expires_s = now_s + header.budget_us / 1e6
        job = _new(Job, (session, header, connection, value, expires_s, now_s))
        self._bench.add(job)

    def _tell_unsound(self, accept: Accept, waiting: int) -> None:
        session, offer, header = accept
        check = self.sim.check
        check("S3", header.segment in self.segments, "a segment it does not have")
        check("S3", header.segment == offer.segment, "a segment not offered")
        check("S4", header.session == session.number, "a token of another session")
        limit = session.limits[header.stream]
        check("S2", header.ordinal < limit, f"ordinal {header.ordinal} of {limit}")
        newest = self._newest[session.device, session.incarnation]
        check("S4", session.number >= newest, "a token of an older session")
        check("S2", waiting < offer.window, f"{waiting + 1} tokens of {offer.window}")

    def fired(self, job: Job, *, expired: bool) -> None:
        """A token has had its turn; if it `expired`, nothing was computed."""
        if expired:
            self.refuse(job, Nack.EXPIRED)
        elif self.hop_lost:
            self.refuse(job, Nack.HOP)
        elif self.onward is not None and self.onward.takes(job.header.segment):
            self.onward.pass_on(job)
        else:
            limit = self._concluded(job)
            self.give(job, job.header.answer(_ANSWER, limit=limit), job.value)

    def refuse(self, job: Job, why: Nack) -> None:
        """Answer a token that was accepted, and that gets no result."""
        self._concluded(job)
        self._do([self.sessions.nack(job.session, job.header, why)])

    def give_back(self, job: Job, passed: Passed, answer: Header, value: Value) -> None:
        """Hand on the answer of the server behind this one."""
        limit = self._concluded(job)
        self.give(job, passed.answered(answer, limit, self.clock_s()), value)

    def give(self, job: Job, answer: Header, value: Value) -> None:
        connection = job.connection
        # Not by `_routes`: the answer goes to the lane that the session knows.
        if connection.route == job.session.lane and not self.mute:
            connection.down((answer, value))
            if self._leaving and connection.closed:
                self._check_drained(job)

    def _concluded(self, job: Job) -> int:
        """A token gets its one answer; return the stream's new limit."""
        stream, waiting = job.header.stream, job.connection.waiting
        if waiting[stream] <= 0:
            self.sim.fail("A1", f"{self.name} answers a token that was answered")
        waiting[stream] -= 1
        return self.sessions.answered(job.session, job.header)

    def check_done(self) -> None:
        """When all is settled and nothing is wrong, nobody waits for it any more."""
        if not self.alive or self._bench.age_s(self.clock_s()):
            return  # a firing that began when it was slow may take longer than all else
        self.sim.check("T3", not len(self._bench), f"{self.name} lets tokens wait")
        for wire in self.wires:
            owed = 0 if wire.data is None else sum(wire.data.waiting.values())
            self.sim.check("A1", not owed, f"{self.name} owes {owed} answers")

    def _check_drained(self, job: Job) -> None:
        """What it had under way when it said goodbye is still waited for."""
        connection, frame = job.connection, job.header.frame
        branch = connection.wire.branches.get(job.header.stream)
        if branch is None:
            return  # another server asked, which refuses what is lost at once
        results = branch.stream.results
        dropped = frame < len(results) and results[frame].reason == "no-branch"
        text = f"{self.name} answers frame {frame}, which nobody waited for"
        self.sim.check("L4", not (dropped and connection.given_up), text)

    def _do(self, actions: Sequence[session_.Action]) -> None:
        for action in actions:
            if type(action) is session_.Send:
                connection = self._routes.get(action.route)
                if connection is not None:
                    connection.down(action.message)
            elif type(action) is session_.Reply:
                connection = self._routes.get(action.route)
                if connection is not None:
                    connection.down((action.header, None))
            elif type(action) is session_.Opened:
                self._opened(action.session)

    def _opened(self, session: Session) -> None:
        key = session.device, session.incarnation
        text = f"{self.name} goes back to session {session.number}"
        self.sim.check("S4", session.number > self._newest.get(key, 0), text)
        text = f"{self.name} is going, and takes {session.device}"
        self.sim.check("S8", not self._leaving, text)
        self._newest[key] = session.number
        self.stir()
