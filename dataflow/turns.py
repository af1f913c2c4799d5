"""Whose turn it is: what waits for a firing, in batches and fairly.

Jobs of one chain that wait at the same time may run as one call: *batching*. It is how
a device executes enabled firings, and no actor: it changes no rate, no FIFO and no
answer. A batch is begun when it is full, or when its oldest job has waited as long as
it may; with a wait of 0 whatever is there runs at once, so batches form only when
there is more to do than time.

Within a chain sessions take turns, one job each: an endpoint with a full window does
not push another's single frame behind all of its own. Between chains the one whose next
batch could have begun first goes first.

Sans-IO: time is an argument.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
_NEVER_S = float("inf")


class Batching(NamedTuple):
    """How many enabled firings of a chain may run as one call."""

    most: int = 1
    wait_s: float = 0.0
    """How long a lone job waits for others. The I/O loop sleeps for whole milliseconds,
    so a chain that runs inline may begin up to one later."""


ALONE = Batching()


@dataclass(slots=True)
class _Lane(Generic[Job]):
    """What waits for one chain."""

    most: int
    wait_s: float
    sessions: OrderedDict[Hashable, deque[tuple[float, float, Job]]] = field(
        default_factory=OrderedDict
    )
    """Jobs, each with the time when it has waited as long as it may, and when it came.
    The session whose turn it is comes first; those without a job are not there."""
    count: int = 0

    def due_s(self) -> float:
        if not self.count:
            return _NEVER_S
        if self.count >= self.most or not self.wait_s:
            return next(iter(self.sessions.values()))[0][1]
        return min(jobs[0][0] for jobs in self.sessions.values())

    def take(self) -> list[Job]:
        """Return the next batch, one job of each session in turn."""
        batch: list[Job] = []
        sessions = self.sessions
        while True:
            session, jobs = sessions.popitem(last=False)
            batch.append(jobs.popleft()[2])
            if jobs:
                sessions[session] = jobs
            elif not sessions:
                break
            if len(batch) == self.most:
                break
        self.count -= len(batch)
        return batch


class Turns(Generic[Job]):
    """Jobs that wait, by chain and session."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[Job]] = {}
        self.count = 0
        """Jobs that wait: `len`, for the I/O loop, which asks in every turn."""

    def __len__(self) -> int:
        return self.count

    def add(
        self,
        job: Job,
        *,
        chain: Hashable,
        session: Hashable,
        batching: Batching = ALONE,
        queued_s: float,
        latest_s: float = _NEVER_S,
    ) -> None:
        """Let a job wait for its turn.

        Args:
            job: What `take` returns.
            chain: Jobs of one chain may be one batch.
            session: Sessions of one chain take turns.
            batching: Of the chain; always the same for one chain.
            queued_s: When it came.
            latest_s: Begin no later than this, whoever may still come: else its answer
                is too late.
        """
        lane = self._lanes.get(chain)
        if lane is None:
            lane = self._lanes[chain] = _Lane(batching.most, batching.wait_s)
        due_s = queued_s + lane.wait_s
        waiting = (latest_s if latest_s < due_s else due_s), queued_s, job
        jobs = lane.sessions.get(session)
        if jobs is None:
            lane.sessions[session] = deque((waiting,))
        else:
            jobs.append(waiting)
        lane.count += 1
        self.count += 1

    def due_s(self) -> float:
        """When `take` has something; inf: nothing waits."""
        if not self.count:
            return _NEVER_S
        return self._next().due_s()

    def take(self, now_s: float) -> list[Job]:
        """Return the jobs that are to run now, as one batch; none: it is too early."""
        if not self.count:
            return []
        lane = self._next()
        if lane.wait_s and lane.due_s() > now_s:
            return []
        batch = lane.take()
        self.count -= len(batch)
        return batch

    def _next(self) -> _Lane[Job]:
        lanes = self._lanes.values()
        if len(lanes) == 1:
            return next(iter(lanes))
        return min(lanes, key=_Lane.due_s)
