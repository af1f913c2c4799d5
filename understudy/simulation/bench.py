"""What waits at a server for its firing, as `dataflow.executor` has it fired."""

from collections import Counter, deque
from heapq import heappush
from typing import TYPE_CHECKING, NamedTuple

from dataflow.executor import LATEST_FACTOR
from dataflow.turns import Turns
from dataflow.wire.header import Header
from dataflow.wire.session import Session
from understudy.simulation.device import LATE_S, NEVER_S

if TYPE_CHECKING:
    from understudy.simulation.network import Connection, Value
    from understudy.simulation.server import Server

MORE = 0.2
"""What each further token of a batch takes, of the time of one."""
SLACK_S = 2 * LATE_S


class Job(NamedTuple):
    """A token that waits for its firing, until its budget is spent."""

    session: Session
    header: Header
    connection: "Connection"
    value: "Value"
    expires_s: float
    queued_s: float


class Bench:
    """Fires tokens of one server, one after the other or in batches."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._life = server.life
        self._jobs: deque[Job] = deque()
        self._turns: Turns[Job] | None = None
        if server.batching.most > 1:
            self._turns = server.sim.setup.machines.turns()
        self._waiting: Counter[tuple[int, str]] = Counter()
        """Of a batching server: tokens by segment and device."""
        self._batch: list[Job] = []
        self._since_s = NEVER_S
        """When the firing under way began; inf: there is none."""
        self._idle_s = -NEVER_S
        self._alarm_s = NEVER_S

    def __len__(self) -> int:
        waiting = self._jobs if self._turns is None else self._turns
        return len(waiting) + len(self._batch)

    def age_s(self, now_s: float) -> float:
        return max(now_s - self._since_s, 0.0)

    def add(self, job: Job) -> None:
        turns, server = self._turns, self._server
        if turns is None:
            self._jobs.append(job)
        else:
            segment, device = job.header.segment, job.session.device
            self._waiting[segment, device] += 1
            turns.add(
                job,
                chain=segment,
                session=device,
                batching=server.batching,
                queued_s=job.queued_s,
                latest_s=job.expires_s - LATEST_FACTOR * server.compute_s,
            )
        if not self._batch:
            self.begin()

    def begin(self, _: object = None) -> None:
        """Fire what is due, unless something is fired."""
        server = self._server
        if self._batch or server.paused or server.life != self._life:
            return
        now_s = server.clock_s()
        if self._turns is None:
            if not self._jobs:
                return
            self._batch = [self._jobs.popleft()]
        else:
            self._batch = self._turns.take(now_s)
            if not self._batch:
                self._wait(self._turns.due_s())
                return
            self._check(now_s)
        sim = server.sim
        self._since_s = now_s
        done_s = sim.now_s
        living = 0
        for job in self._batch:
            living += now_s < job.expires_s
        if living:
            takes_s = server.compute_s * server.slowness * (1 + MORE * (living - 1))
            done_s += takes_s * (0.9 + 0.4 * sim.chance())
        heappush(sim.heap, (done_s, next(sim.count), self._finish, None))

    def _wait(self, due_s: float) -> None:
        if due_s < self._alarm_s or self._alarm_s < self._server.clock_s():
            self._alarm_s = due_s
            if due_s < NEVER_S:
                self._server.alarm(due_s, self.begin)

    def _finish(self, _: object) -> None:
        server = self._server
        if server.life != self._life:
            return
        if server.paused:
            server.keep(self, self._finish, None)
            return
        batch, began_s = self._batch, self._since_s
        self._batch, self._since_s = [], NEVER_S
        self._idle_s = server.clock_s()
        for job in batch:
            server.fired(job, expired=began_s >= job.expires_s)
        self.begin()

    def _check(self, now_s: float) -> None:
        """See whether the batch is one that should be fired now."""
        sim, server = self._server.sim, self._server
        most, wait_s = server.batching
        segment = self._batch[0].header.segment
        alike = all(job.header.segment == segment for job in self._batch)
        text = f"{server.name} fires {len(self._batch)} as one, at most {most}"
        sim.check("T1", alike and len(self._batch) <= most, text)
        taken = Counter(job.session.device for job in self._batch)
        for device, count in taken.items():
            self._waiting[segment, device] -= count
        highest = max(taken.values())
        for (chain, device), left in self._waiting.items():
            fair = chain != segment or not left or highest <= 1 + taken[device]
            sim.check("T2", fair, f"{server.name} lets {device} wait for its turn")
        oldest_s = min(job.queued_s for job in self._batch)
        ready_s = max(oldest_s + wait_s, self._idle_s, server.thawed_s)
        text = f"{server.name} is {now_s - ready_s:.4f} s late"
        sim.check("T3", now_s <= ready_s + SLACK_S, text)
