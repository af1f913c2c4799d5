"""Where chains run: short ones inline in the I/O loop, long ones on a compute thread.

A hand-off costs a wake-up at each end, 45-75 µs a round trip, which a chain of a few
hundred microseconds feels and one of milliseconds does not. A long chain inline would
keep the I/O loop from seeing a death: with an 8 ms head detection takes 8.0 instead of
1.6 ms. So: up to 2 ms inline, beyond it on the thread. Each chain's time is measured
before the first frame.

What others send waits for its turn (`dataflow.turns`): sessions take turns, and several
firings of a chain may run as one batch. Both places where chains run have their own
turns, and only the thread that runs them touches them, so nothing is locked.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from dataflow.engine import Chain
from dataflow.errors import ActorError
from dataflow.turns import ALONE, Batching, Turns

HAND_OFF_S = 0.002
_NEVER_S = float("inf")
TRIALS, BATCH_TRIALS = 5, 2
"""A batch takes as long as all its tokens; that it is slow at first is less of it."""
JOIN_S = 2.0
LATEST_FACTOR = 2
"""A job waits for others no longer than twice its chain's time before its budget ends.
"""
LATEST_MIN_S = 0.02
"""And this much: a thread that sleeps wakes up late on a busy machine."""

Done = Callable[[list[Any] | None, float, float], None]
"""Called in the I/O loop with the results (None: the budget was spent in the queue),
seconds in the queue and seconds of computing."""


class Runs(Protocol):
    """A chain, or what else turns tokens into results: a compression."""

    def run(self, tokens: Sequence[Any]) -> list[Any]:
        """Return the results, in order."""

    def run_many(self, tokens: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Return the results of several firings."""


@dataclass(slots=True)
class _Job:
    chain: Runs
    tokens: Sequence[Any]
    done: Done
    queued_s: float
    expires_s: float
    session: Hashable = None
    failed: Callable[[ActorError], None] | None = None
    copies: bool = False
    """The results are read later than the chain's rings go round: copy them."""
    results: list[Any] | None = None
    error: BaseException | None = None
    started_s: float = 0.0
    ended_s: float = 0.0


def time_chain(chain: Chain, tokens: Sequence[Any], count: int = 1) -> float:
    """Fire a stateless chain a few times; return its best time in seconds.

    With a `count` it is the time of so many firings as one batch. First firings pay for
    allocations that later ones do not; so nobody waits for them when frames come, and
    the best time stands for the others. An actor may reject what it is tried on, which
    is no fault: then the time is unknown, 0.
    """
    best_s = _NEVER_S
    try:
        for _ in range(TRIALS if count == 1 else BATCH_TRIALS):
            start_s = time.monotonic()
            chain.run_many([tokens] * count)
            best_s = min(best_s, time.monotonic() - start_s)
    except ActorError:
        return 0.0
    finally:
        chain.forget()
    return best_s


class Executor:
    """Runs the chains of one device: each job once, in its turn."""

    def __init__(self) -> None:
        self._turns = Turns[_Job]()
        self._leaving: list[_Job] = []
        """For the compute thread, see `hand_over`."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: deque[_Job] = deque()
        self._handed = 0
        self._best_s: dict[int, float] = {}
        self._batching: dict[int, Batching] = {}
        self._under_way: tuple[float, float] | None = None
        """Start and best time of the compute thread's firing. An inline one needs no
        such note: while it lasts, nobody is there to read it."""
        self._thread: threading.Thread | None = None
        self._closing = False
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def uses_thread(self) -> bool:
        """Some chain is too long for the I/O loop."""
        return bool(self._best_s)

    @property
    def queue(self) -> int:
        """Jobs that are not done."""
        return self._handed + self._turns.count

    @property
    def due_s(self) -> float:
        """When `step` has something to do; inf: nothing waits for it."""
        turns = self._turns
        return turns.due_s() if turns.count else _NEVER_S

    def firing(self, now_s: float) -> tuple[float, float]:
        """Return the age of the firing under way and its best time, in seconds."""
        under_way = self._under_way
        if under_way is None:
            return 0.0, 0.0
        return now_s - under_way[0], under_way[1]

    def place(self, chain: Runs, best_s: float, batching: Batching = ALONE) -> None:
        """Decide where `chain` runs, from its longest call's best time in seconds.

        Args:
            chain: That call is one firing; a full batch of a chain that batches.
            best_s: Seconds.
            batching: Of the firings that are deferred.
        """
        self._batching[id(chain)] = batching
        if best_s > HAND_OFF_S:
            self._best_s[id(chain)] = best_s

    def forget(self, chain: Runs) -> None:
        """A chain is not run any more; what it is known by may be another's soon."""
        self._best_s.pop(id(chain), None)
        self._batching.pop(id(chain), None)

    def submit(
        self,
        chain: Runs,
        tokens: Sequence[Any],
        done: Done,
        *,
        expires_s: float = _NEVER_S,
    ) -> None:
        """Run `chain` on `tokens`, then call `done` in the I/O loop.

        What waits for the compute thread beyond `expires_s` is not computed: otherwise
        a chain slower than its source would only ever compute what came too late.
        """
        start_s = time.monotonic()
        if id(chain) in self._best_s:
            self._hand_off(_Job(chain, tokens, done, start_s, expires_s))
        else:
            done(chain.run(tokens), 0.0, time.monotonic() - start_s)

    def defer(
        self,
        chain: Runs,
        tokens: Sequence[Any],
        done: Done,
        *,
        session: Hashable = None,
        expires_s: float = _NEVER_S,
        failed: Callable[[ActorError], None] | None = None,
    ) -> None:
        """Like `submit`, but in its turn: an inline chain waits for `step`.

        So the loop receives first, jobs of several sessions are there to choose among,
        and they may run as one batch. The results are copies where the chain runs on
        the thread: it goes on firing for others before they are read. An actor that
        raises does not end the device if somebody takes it: `failed` is called in the
        place of `done`.
        """
        job = _Job(chain, tokens, done, time.monotonic(), expires_s, session, failed)
        if id(chain) in self._best_s:
            job.copies = True
            self._hand_off(job)
        else:
            self._add(self._turns, job)

    def step(self) -> None:
        """Run one batch of deferred inline jobs, if one is due."""
        turns = self._turns
        if turns.count and (jobs := turns.take(time.monotonic())):
            self._run(jobs)
            for job in jobs:
                self._finish(job)

    def hand_over(self) -> None:
        """Wake the compute thread for its jobs: the last thing in a turn of the loop.

        Woken earlier it would only wait for the interpreter, which the turn holds, and
        be put to sleep and woken a second time.
        """
        if self._leaving:
            for job in self._leaving:
                self._jobs.put(job)
            self._leaving.clear()

    def collect(self) -> None:
        """Finish what the compute thread has done. Call when `wake_fd` is readable."""
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            return
        while self._ended:
            self._handed -= 1
            self._finish(self._ended.popleft())

    def close(self) -> None:
        """End the compute thread after the firing under way; before actors stop.

        One that hangs in an actor is left behind, and the descriptor with it: the
        process ends soon, and another file must not get its wake-ups.
        """
        self._closing = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=JOIN_S)
            if self._thread.is_alive():
                return
        os.close(self.wake_fd)

    def _hand_off(self, job: _Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="compute", daemon=True
            )
            self._thread.start()
        self._handed += 1
        self._leaving.append(job)

    def _add(self, turns: Turns[_Job], job: _Job) -> None:
        chain = id(job.chain)
        batching, latest_s = self._batching.get(chain, ALONE), _NEVER_S
        if batching.wait_s:
            usual_s = LATEST_FACTOR * self._best_s.get(chain, 0.0)
            latest_s = job.expires_s - max(usual_s, LATEST_MIN_S)
        turns.add(
            job,
            chain=chain,
            session=job.session,
            batching=batching,
            queued_s=job.queued_s,
            latest_s=latest_s,
        )

    def _work(self) -> None:
        turns = Turns[_Job]()
        while self._receive(turns) and not self._closing:
            jobs = turns.take(time.monotonic())
            if not jobs:
                continue
            usual_s = self._best_s[id(jobs[0].chain)]
            self._under_way = time.monotonic(), usual_s
            self._run(jobs)
            for job in jobs:
                if job.copies and job.results is not None:
                    job.results = [np.copy(result) for result in job.results]
            self._under_way = None
            self._ended.extend(jobs)
            os.eventfd_write(self.wake_fd, 1)

    def _receive(self, turns: Turns[_Job]) -> bool:
        """Take what was handed off, and wait until a turn has come; False: the end."""
        while True:
            wait_s = turns.due_s() - time.monotonic()
            if wait_s <= 0 and self._jobs.empty():
                return True
            try:
                job = self._jobs.get(
                    timeout=min(max(wait_s, 0.0), threading.TIMEOUT_MAX)
                )
            except Empty:
                return True
            if job is None:
                return False
            self._add(turns, job)

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Run jobs of one chain as one batch, but for those whose budget is spent."""
        started_s = time.monotonic()
        try:
            if len(jobs) == 1:
                (job,) = jobs
                if started_s < job.expires_s:
                    job.results = job.chain.run(job.tokens)
            elif living := [job for job in jobs if started_s < job.expires_s]:
                results = living[0].chain.run_many([job.tokens for job in living])
                for job, result in zip(living, results, strict=True):
                    job.results = result
        except ActorError as error:
            if len(jobs) > 1:  # it is one's own fault, and not all of theirs
                for job in jobs:
                    self._run([job])
                    if job.results is not None:  # the next may reuse their memory
                        job.results = [np.copy(result) for result in job.results]
                return
            jobs[0].error = error
        except BaseException as error:  # raised again in the I/O loop
            jobs[0].error = error
        ended_s = time.monotonic()
        for job in jobs:
            job.started_s, job.ended_s = started_s, ended_s

    def _finish(self, job: _Job) -> None:
        if job.error is None:
            queue_s = job.started_s - job.queued_s
            job.done(job.results, queue_s, job.ended_s - job.started_s)
        elif isinstance(job.error, ActorError) and job.failed is not None:
            job.failed(job.error)
        else:
            raise job.error
