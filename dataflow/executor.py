"""Where chains run: short ones inline in the I/O loop, long ones on a compute thread.

A hand-off costs a wake-up at each end, 45-75 µs a round trip, which a chain of a few
hundred microseconds feels and one of milliseconds does not. A long chain inline would
keep the I/O loop from seeing a death: with an 8 ms head detection takes 8.0 instead of
1.6 ms. So: up to 2 ms inline, beyond it on the thread. Each chain's time is measured
before the first frame.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from dataflow.engine import Chain
from dataflow.errors import ActorError

HAND_OFF_S = 0.002
_NEVER_S = float("inf")
TRIALS = 5
JOIN_S = 2.0

Done = Callable[[list[Any] | None, float, float], None]
"""Called in the I/O loop with the results (None: the budget was spent in the queue),
seconds in the queue and seconds of computing."""


@dataclass(slots=True)
class _Job:
    chain: Chain
    tokens: Sequence[Any]
    done: Done
    queued_s: float
    expires_s: float
    copies: bool = False
    """The results are read later than the chain's rings go round: copy them."""
    results: list[Any] | None = None
    error: BaseException | None = None
    started_s: float = 0.0
    ended_s: float = 0.0


def time_chain(chain: Chain, tokens: Sequence[Any]) -> float:
    """Fire a stateless chain a few times; return its best time in seconds.

    First firings pay for allocations that later ones do not; so nobody waits for them
    when frames come, and the best time stands for the others. An actor may reject what
    it is tried on, which is no fault: then the time is unknown, 0.
    """
    best_s = _NEVER_S
    for _ in range(TRIALS):
        start_s = time.monotonic()
        try:
            chain.run(tokens)
        except ActorError:
            return 0.0
        best_s = min(best_s, time.monotonic() - start_s)
    return best_s


class Executor:
    """Runs the chains of one device, each job once, in the order of submission."""

    def __init__(self) -> None:
        self._waiting: deque[_Job] = deque()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: deque[_Job] = deque()
        self._handed = 0
        self._best_s: dict[int, float] = {}
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
        return self._handed + len(self._waiting)

    @property
    def waiting(self) -> bool:
        """Deferred jobs are there for `step`."""
        return bool(self._waiting)

    def firing(self, now_s: float) -> tuple[float, float]:
        """Return the age of the firing under way and its best time, in seconds."""
        under_way = self._under_way
        if under_way is None:
            return 0.0, 0.0
        return now_s - under_way[0], under_way[1]

    def place(self, chain: Chain, best_s: float) -> None:
        """Decide where `chain` runs, from its best time in seconds."""
        if best_s > HAND_OFF_S:
            self._best_s[id(chain)] = best_s

    def submit(
        self,
        chain: Chain,
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
        chain: Chain,
        tokens: Sequence[Any],
        done: Done,
        *,
        expires_s: float = _NEVER_S,
    ) -> None:
        """Like `submit`, but an inline chain waits for `step`: receive first.

        The results are copies where the chain runs on the thread: it goes on firing
        for others before they are read.
        """
        job = _Job(chain, tokens, done, time.monotonic(), expires_s)
        if id(chain) in self._best_s:
            job.copies = True
            self._hand_off(job)
        else:
            self._waiting.append(job)

    def step(self) -> None:
        """Run one deferred inline job, if any."""
        if self._waiting:
            job = self._waiting.popleft()
            self._run(job)
            self._finish(job)

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
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closing:
            self._under_way = time.monotonic(), self._best_s[id(job.chain)]
            self._run(job)
            if job.copies and job.results is not None:
                job.results = [np.copy(result) for result in job.results]
            self._under_way = None
            self._ended.append(job)
            os.eventfd_write(self.wake_fd, 1)

    def _run(self, job: _Job) -> None:
        job.started_s = time.monotonic()
        if job.started_s < job.expires_s:
            try:
                job.results = job.chain.run(job.tokens)
            except BaseException as error:  # raised again in the I/O loop
                job.error = error
        job.ended_s = time.monotonic()

    def _finish(self, job: _Job) -> None:
        if job.error is not None:
            raise job.error
        job.done(job.results, job.started_s - job.queued_s, job.ended_s - job.started_s)
