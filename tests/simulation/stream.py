"""A stream at its endpoint: branches, frames, and what is checked of them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from dataflow.wire import ledger as ledgers
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.ledger import Overdue, Settle, Start
from dataflow.wire.service_time import ServiceTime
from tests.simulation.network import Wire
from tests.simulation.server import TOKEN_BYTES
from tests.simulation.setup import Value

if TYPE_CHECKING:
    from tests.simulation.endpoint import Endpoint

SLOW_S = 0.2
TURN_S = 0.002
"""A turn of the loop: poll rounds up to whole milliseconds."""
PROBING_S = 0.1
"""Period of the sources after the frames asked for, until all is well again."""


@dataclass(slots=True)
class LocalBranch:
    """A branch that the endpoint computes itself."""

    name: str
    best_s: float
    local: bool = True
    ready: bool = True

    def p90_s(self, now_s: float) -> float:
        return self.best_s

    def p99_s(self, now_s: float) -> float:
        return 2 * self.best_s


class RemoteBranch:
    """A branch that a server computes, as in `dataflow.stream`."""

    local = False

    def __init__(self, wire: Wire, stream: int, segment: int) -> None:
        self.name = wire.server.name
        self.wire = wire
        self.stream = stream
        self.segment = segment
        self.service = ServiceTime()
        self.ready_since_s = float("inf")

    @property
    def ready(self) -> bool:
        return self.wire.link.ready and self.wire.link.credit(self.stream) > 0

    def p90_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.90, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)


@dataclass(slots=True)
class _Frame:
    """What the checks remember of an iteration that is not settled."""

    fired_s: float
    admitted: bool
    started: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    """Attempts that were refused, or whose peer was lost."""
    refused_s: float = 0.0
    forked_s: float = float("inf")


class Stream:
    """The endpoint's half of a stream, as `dataflow.stream` is."""

    def __init__(self, endpoint: "Endpoint", number: int) -> None:
        sim = endpoint.sim
        self.sim = sim
        self.endpoint = endpoint
        self.number = number
        self.segment = 0xCAFE0000 + number
        self.period_s = sim.random.uniform(0.008, 0.030)
        self.deadline_s = sim.random.uniform(0.15, 0.6)
        self.head_s = sim.random.choice((0.0, 0.002, 0.3 * self.period_s))
        self.window = sim.random.randint(2, 8)
        self.due_fire_s = float("inf")
        self.branches: list[LocalBranch | RemoteBranch] = []
        self.frames: dict[int, _Frame] = {}
        self.full = self.dropped = self.outcomes = self.attempts = 0
        self.fulls_since = 0
        self.has_local = False
        self._actions: deque[ledgers.Action] = deque()
        self._acting = False

    def connect(self, wires: Sequence[Wire], local: bool) -> None:
        start = self.number % len(wires)
        for wire in (*wires[start:], *wires[:start]):
            self.branches.append(RemoteBranch(wire, self.number, self.segment))
        self.has_local = local
        if local:
            self.branches.append(LocalBranch("exit2", 0.012))
            self.branches.append(LocalBranch("exit1", 0.0))
        self.ledger = self.sim.setup.machines.ledger(
            self.branches, window=self.window, deadline_s=self.deadline_s
        )

    def due_s(self, now_s: float) -> float:
        return min(self.due_fire_s, self.ledger.due_s(now_s))

    def tick(self, now_s: float) -> None:
        self.do(self.ledger.tick(now_s), now_s)
        if now_s >= self.due_fire_s:
            self._fire(now_s)
        for branch in self.branches:
            if isinstance(branch, RemoteBranch):
                since_s = min(branch.ready_since_s, now_s)
                branch.ready_since_s = since_s if branch.ready else float("inf")

    def lost(self, wire: Wire, now_s: float, *, final: bool) -> list[ledgers.Action]:
        gone = self._on(wire)
        for frame in self.frames.values():
            for attempt, branch in enumerate(frame.started):
                if branch in gone and attempt not in frame.refused:
                    frame.refused.add(attempt)
                    frame.refused_s = now_s
        return self.ledger.lost(gone, now_s, final=final)

    def reachable(self, wire: Wire, now_s: float) -> None:
        for branch in self.branches:
            if isinstance(branch, RemoteBranch) and branch.wire is wire:
                branch.service.forget()
        self.do(self.ledger.tick(now_s), now_s)

    def wants(self, wire: Wire) -> bool:
        return bool(self.ledger.outstanding(self._on(wire)))

    def answer(self, wire: Wire, header: Header, value: Any, now_s: float) -> None:
        wire.link.raise_limit(self.number, header.limit)
        if header.incarnation != self.endpoint.incarnation:
            return
        frame, attempt = header.frame, header.attempt
        if header.kind is Kind.NACK:
            if frame in self.frames:
                self.frames[frame].refused.add(attempt)
                self.frames[frame].refused_s = now_s
            error = header.flags != Nack.EXPIRED
            self.do(self.ledger.refused(frame, attempt, now_s, error=error), now_s)
            return
        started_s = self.ledger.started_s(frame, attempt)
        if started_s is not None:
            (index,) = self._on(wire)
            branch = self.branches[index]
            assert isinstance(branch, RemoteBranch)
            branch.service.add(now_s - started_s, now_s)
        self.do(self.ledger.answer(frame, attempt, value, now_s), now_s)

    def do(self, actions: Sequence[ledgers.Action], now_s: float) -> None:
        self._actions.extend(actions)
        if self._acting:
            return
        self._acting = True
        while self._actions:
            match self._actions.popleft():
                case Start() as start:
                    self._start(start, now_s)
                case Settle() as settle:
                    self._settle(settle, now_s)
                case Overdue(iteration, branch, waited_s):
                    self._overdue(iteration, branch, waited_s, now_s)
        self._acting = False

    def _fire(self, now_s: float) -> None:
        late = int((now_s - self.due_fire_s) / self.period_s)
        self.due_fire_s += (late + 1) * self.period_s
        number, admitted, actions = self.ledger.fire(now_s)
        if number == self.sim.setup.frames:
            self.period_s = PROBING_S
        self.sim.check("S1", number not in self.frames, f"number {number} again")
        self.frames[number] = _Frame(now_s, admitted)
        held = sum(frame.admitted for frame in self.frames.values())
        self.sim.check("S2", held <= self.window, f"{held} admitted of {self.window}")
        self.do(actions, now_s)
        if not admitted:
            return
        if self.head_s:
            forked = partial(self._forked, number)
            self.sim.after(self.head_s, lambda: self.endpoint.receive(forked))
        else:
            self._forked(number)

    def _forked(self, number: int) -> None:
        if number in self.frames:
            now_s = self.frames[number].forked_s = self.endpoint.local_s()
            self.do(self.ledger.forked(number, now_s), now_s)

    def _start(self, start: Start, now_s: float) -> None:
        frame = self.frames.get(start.iteration)
        if frame is None:
            return
        branch = self.branches[start.branch]
        self.sim.note(f"{self.number}: {start.iteration} on {branch.name}")
        self.sim.check(
            "B1", start.branch not in frame.started, f"{branch.name} started twice"
        )
        self.sim.check("B1", start.attempt == len(frame.started), "attempts skip")
        self.sim.check("S5", frame.admitted, "started what was not retained")
        frame.started.append(start.branch)
        self.attempts += 1
        if isinstance(branch, RemoteBranch):
            self._send(branch, start)
            return
        value = Value(self.number, start.iteration, branch.name)
        answer = partial(self._local_answer, start, value)
        if branch.best_s:
            took_s = branch.best_s * self.sim.random.uniform(1.0, 1.9)
            self.sim.after(took_s, lambda: self.endpoint.receive(answer))
        else:
            answer()

    def _local_answer(self, start: Start, value: Value) -> None:
        now_s = self.endpoint.local_s()
        self.do(self.ledger.answer(start.iteration, start.attempt, value, now_s), now_s)

    def _send(self, branch: RemoteBranch, start: Start) -> None:
        link = branch.wire.link
        now_s = self.endpoint.local_s()
        if not branch.ready:
            # Several starts were decided at once, and the credit went to the first.
            self.do(
                self.ledger.refused(start.iteration, start.attempt, now_s, error=False),
                now_s,
            )
            return
        header = Header(
            kind=Kind.TOKEN,
            session=link.session,
            stream=self.number,
            attempt=start.attempt,
            row=start.branch,
            tensors=1,
            incarnation=self.endpoint.incarnation,
            segment=branch.segment,
            frame=start.iteration,
            ordinal=link.take_ordinal(self.number),
            budget_us=microseconds(start.budget_s),
            payload_bytes=TOKEN_BYTES,
        )
        value = Value(self.number, start.iteration, branch.name)
        if self.endpoint.send_token(branch.wire, header, value):
            return
        self.do(
            self.ledger.refused(start.iteration, start.attempt, now_s, error=False),
            now_s,
        )

    def _settle(self, settle: Settle, now_s: float) -> None:
        check = self.sim.check
        who = f"{self.endpoint.name} frame {settle.iteration}"
        check("S1", settle.iteration == self.outcomes, f"{who}: not {self.outcomes}")
        frame = self.frames.pop(settle.iteration)
        self.outcomes += 1
        took_s = now_s - frame.fired_s
        stalled = self.endpoint.thawed_s + self.endpoint.offset_s >= frame.fired_s
        text = f"{who}: after {took_s:.3f} s, deadline {self.deadline_s:.3f} s"
        check("D1", stalled or took_s <= self.deadline_s + TURN_S, text)
        if settle.branch is None:
            self.sim.note(f"{self.number}: {settle.iteration} dropped {settle.reason}")
            self.dropped += 1
            if not stalled and settle.reason != "window":
                self._check_drop(settle, frame, who)
            return
        name = self.branches[settle.branch].name
        self.sim.note(f"{self.number}: {settle.iteration} by {name}")
        right = Value(self.number, settle.iteration, name)
        check("S1", settle.value == right, f"{who}: {settle.value}, not {right}")
        if not self.branches[settle.branch].local:
            self.full += 1
            self.fulls_since += 1

    def _check_drop(self, settle: Settle, frame: _Frame, who: str) -> None:
        text = f"{who}: dropped({settle.reason}), "
        self.sim.check("L2", not self.has_local, text + "local branches are there")
        left = len(frame.refused) == len(frame.started)
        left_s = max(frame.forked_s, frame.refused_s)
        remaining_s = frame.fired_s + self.deadline_s - left_s
        for index, branch in enumerate(self.branches):
            assert isinstance(branch, RemoteBranch)
            was_there = (
                branch.ready
                and branch.ready_since_s <= frame.fired_s
                and 2 * branch.p90_s(settle.decided_s) + 0.01 < remaining_s
                and index not in frame.started
                and (left or settle.reason == "no-branch")
            )
            self.sim.check("L2", not was_there, text + f"{branch.name} was there")

    def _overdue(
        self, iteration: int, index: int, waited_s: float, now_s: float
    ) -> None:
        branch = self.branches[index]
        assert isinstance(branch, RemoteBranch)
        if waited_s > max(SLOW_S, 4 * branch.p99_s(now_s)) * 0.9:
            text = f"frame {iteration} unanswered"
            self.endpoint.do(branch.wire, branch.wire.link.overdue(text, now_s))

    def _on(self, wire: Wire) -> list[int]:
        return [
            index
            for index, branch in enumerate(self.branches)
            if isinstance(branch, RemoteBranch) and branch.wire is wire
        ]
