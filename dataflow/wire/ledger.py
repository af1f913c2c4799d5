"""The ledger of a stream: every frame is answered once, in order.

It lives where the join is, on the sink's device, and is at once the region's control
actor (it names the row of each iteration), its first-of join (the first answer counts)
and its memory (what was admitted and not yet settled). Only the ledger retries.

An iteration goes through::

    fired ── more than can be carried ─────────────────► dropped(rate)
      │ ──── window full ──────────────────────────────► dropped(window)
      │ admitted
      ▼
    computed up to the fork ── the mode has an answer ─► full
      │ the mode plays the region
      ▼
    forked ── row chosen ─► attempt open ── answer ────► full | degraded
                  ▲              │ lost, NACK
                  └── next ready branch, if any ── none ► dropped(no-branch, error)
                                 │ deadline
                                 └─────────────────────► dropped(deadline)

and is settled when all before it are. Attempts of one iteration may overlap; each
branch is started at most once per iteration, so there are at most as many as branches.

Lemma: deleting all tokens of one tag (stream, iteration, attempt) and forgetting its
firings gives a state that a run without that attempt reaches, because inside a region
no actor has state, no FIFO has initial tokens, and whatever a branch reads is retained
at the fork until its iteration is settled.

Sans-IO: no clock, socket, thread or random number. Each event returns the actions that
follow from it, in order.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from dataflow.outcome import Reason
from dataflow.redundancy import STANDBY, Redundancy
from dataflow.wire.iterations import (
    OUTSIDE,
    Action,
    Attempt,
    Iteration,
    Overdue,
    Settle,
    Start,
)
from dataflow.wire.rows import BranchView, Choice, choose, hedge_at_s
from dataflow.wire.sampling import Sampling

_new = tuple.__new__
"""Makes an action of a tuple in half the time of its constructor, which calls it."""

_NEVER_S = float("inf")
CROWDED_SHARE = 0.75
"""Of the window: with so much of it taken it is about to fill up."""
LOCAL_MARGIN_S = 0.004
"""Added to the p99 of the last local branch, so that a late timer costs no deadline."""


class Ledger:
    """Window, attempts, deadlines and order of one stream.

    Args:
        branches: In the policy's order; row i is branch i.
        window: Iterations admitted beyond the last settled.
        deadline_s: From the firing of the source to the drop.
        redundancy: How several branches that could answer are used. Hedging is bounded:
            of the iterations admitted at most `redundancy.hedged_share` are hedged in
            the long run, and at most a window of them at once.
        link_full: Given the time that is left and the present time: tells whether a
            link has no time for one more token. A slow server is no reason to lower the
            rate: it may be fast again in the next moment.
        kin: For each branch the bits of those that ask the same server for the same,
            see `rows.kin`; None: each stands alone.
    """

    def __init__(
        self,
        branches: Sequence[BranchView],
        *,
        window: int,
        deadline_s: float,
        redundancy: Redundancy = STANDBY,
        kin: Sequence[int] | None = None,
        link_full: Callable[[float, float], bool] = lambda _left_s, _now_s: False,
    ) -> None:
        self._link_full = link_full
        self._branches = branches
        self._kin = kin or [1 << index for index in range(len(branches))]
        self._window = window
        self._deadline_s = deadline_s
        self._redundancy = redundancy
        self._hedges_left = float(window)
        self._fired_s = float("-inf")
        self._period_s = float("inf")
        """Between two firings, of late."""
        self._sampling = Sampling()
        # Of kin, those further on in the order send smaller tokens.
        self._lightens = [bits >> index > 1 for index, bits in enumerate(self._kin)]
        self._lighter = False
        """What was started last could be played with smaller tokens."""
        self._open: deque[Iteration] = deque()
        self._next = 0
        self._held = False
        """Iterations before the first are another ledger's, and not settled there."""
        self._last_local = max(
            (i for i, branch in enumerate(branches) if branch.local), default=None
        )
        self.late_answers = 0

    def follow(self, first: int) -> None:
        """Begin at `first`: those before it are another ledger's.

        Nothing is settled until `release`, since outcomes come in order; the window
        goes on counting from the last that is.
        """
        assert not self._open, "a ledger that began already"
        self._next, self._held = first, True

    def release(self) -> list[Action]:
        """All before the first are settled: what waited for them is, too."""
        self._held = False
        return self._settle()

    @property
    def fired(self) -> int:
        """Iterations fired so far: the number of the next one."""
        return self._next

    @property
    def settled(self) -> int:
        """Iterations settled so far: all below this number are."""
        return self._next - len(self._open)

    @property
    def idle(self) -> bool:
        return not self._open

    def fire(self, now_s: float) -> tuple[int, bool, list[Action]]:
        """Number the next iteration; admit it while the window has room.

        Returns:
            Its number, whether it was admitted, and the actions that follow.
        """
        number, self._next = self._next, self._next + 1
        self._period_s = _smoothed(self._period_s, now_s - self._fired_s)
        self._fired_s = now_s
        under_way = len(self._open)
        iteration = Iteration(number, now_s)
        self._open.append(iteration)
        if not self._sampling.admits(now_s, lighter=self._lighter):
            self._drop(iteration, "rate", now_s)
            return number, False, self._settle()
        self._sampling.met(under_way, self._window)
        crowded = under_way and under_way + 1 >= CROWDED_SHARE * self._window
        relief = self._relieve(now_s) if crowded else []
        if under_way < self._window:  # number < settled + window
            return number, True, relief
        self._drop(iteration, "window", now_s)
        return number, False, relief + self._settle()

    def forked(self, number: int, now_s: float) -> list[Action]:
        """The fork has the iteration's tokens: name its row."""
        iteration = self._find(number)
        if iteration is None or iteration.verdict is not None:
            return []  # the deadline passed while the head ran
        iteration.forked = True
        earned = self._hedges_left + self._redundancy.hedged_share
        self._hedges_left = min(earned, self._window)
        return self._advance(iteration, now_s) + self._settle()

    def outside(self, number: int, value: Any, now_s: float) -> list[Action]:
        """The iteration's mode does not play the region: its answer is there."""
        iteration = self._find(number)
        if iteration is None or iteration.verdict is not None:
            return []  # the deadline passed while the head ran
        self._sampling.answered()
        iteration.verdict = Settle(
            number, OUTSIDE, "", value, iteration.fired_s, now_s, 0
        )
        return self._settle()

    def cut_short(self, now_s: float) -> list[Action]:
        """The stream ended within an iteration: number it, and drop it."""
        iteration = Iteration(self._next, now_s)
        self._next += 1
        self._open.append(iteration)
        self._drop(iteration, "end", now_s)
        return self._settle()

    def answer(
        self, number: int, attempt: int, value: Any, now_s: float
    ) -> list[Action]:
        """A branch answered. The first answer of an iteration counts."""
        iteration = self._find(number)
        if iteration is None or iteration.verdict is not None:
            self.late_answers += 1
            return []
        attempts = iteration.attempts
        if attempt >= len(attempts) or not attempts[attempt].open:
            self.late_answers += 1
            return []
        answered = attempts[attempt]
        answered.open = False
        self._sampling.answered()
        fired_s, started = iteration.fired_s, len(attempts)
        iteration.verdict = _new(
            Settle, (number, answered.branch, "", value, fired_s, now_s, started)
        )
        return self._settle()

    def refused(
        self, number: int, attempt: int, now_s: float, *, error: bool
    ) -> list[Action]:
        """A branch will not answer (NACK, or it failed): start the next one."""
        iteration = self._find(number)
        if (
            iteration is None
            or iteration.verdict is not None
            or attempt >= len(iteration.attempts)
        ):
            return []
        iteration.attempts[attempt].open = False
        iteration.failed |= error
        return self._advance(iteration, now_s) + self._settle()

    def lost(
        self, branches: Iterable[int], now_s: float, *, final: bool
    ) -> list[Action]:
        """Branches became suspect (late answers count) or died (`final`: none come)."""
        gone = set(branches)
        self._sampling.interrupted()
        actions: list[Action] = []
        for iteration in self._open:
            hit = False
            for attempt in iteration.attempts:
                if attempt.branch in gone and attempt.open:
                    hit |= final or not attempt.suspect
                    attempt.suspect = True
                    attempt.open = not final
            if hit and iteration.verdict is None:
                actions += self._advance(iteration, now_s)
        return actions + self._settle()

    def doubted(self, number: int, branch: int, now_s: float) -> list[Action]:
        """A branch takes too long over one iteration: start the next one for it."""
        iteration = self._find(number)
        if iteration is None or iteration.verdict is not None:
            return []
        for attempt in iteration.attempts:
            attempt.suspect |= attempt.branch == branch
        return self._advance(iteration, now_s) + self._settle()

    def tick(self, now_s: float) -> list[Action]:
        """Time passed: deadlines, the last local start, branches that became ready."""
        if not self._open:
            return []
        actions: list[Action] = []
        for iteration in self._open:
            if iteration.verdict is not None:
                continue
            if now_s >= iteration.fired_s + self._deadline_s:
                actions.extend(
                    Overdue(iteration.number, a.branch, now_s - a.started_s)
                    for a in iteration.attempts
                    if a.open and not a.suspect and not self._branches[a.branch].local
                )
                self._drop(
                    iteration, "error" if iteration.failed else "deadline", now_s
                )
            elif iteration.forked:
                if now_s >= self._local_start_s(iteration, now_s):
                    actions.extend(self._start_local(iteration, now_s))
                actions += self._advance(iteration, now_s)
        return actions + self._settle()

    def abort(self, now_s: float) -> list[Action]:
        """The device fails: whatever is open is dropped, so nothing is unaccounted."""
        for iteration in self._open:
            if iteration.verdict is None:
                self._drop(iteration, "error", now_s)
        return self._settle()

    def due_s(self, now_s: float) -> float:
        """When `tick` has something to do next, unless an event comes before."""
        if not self._open:
            return _NEVER_S
        due_s = self._deadline_due_s(now_s)
        if not self._redundancy.percentile:
            return due_s
        return min(due_s, self._hedge_due_s(now_s))

    def _deadline_due_s(self, now_s: float) -> float:
        # Deadlines are equal for all, so the oldest open one is due first; its local
        # branch may have been started already, while that of a younger one is due.
        due_s = _NEVER_S
        for iteration in self._open:
            if iteration.verdict is None:
                due_s = min(due_s, iteration.fired_s + self._deadline_s)
                if self._last_local is None:
                    return due_s
                start_s = self._local_start_s(iteration, now_s)
                if start_s < _NEVER_S:
                    return min(due_s, start_s)
        return due_s

    def outstanding(self, branches: Iterable[int] | None = None) -> list[int]:
        """Iterations without a verdict, if given with an open attempt on `branches`."""
        wanted = None if branches is None else set(branches)
        return [
            iteration.number
            for iteration in self._open
            if iteration.verdict is None
            and (
                wanted is None
                or any(a.open and a.branch in wanted for a in iteration.attempts)
            )
        ]

    def branch_of(self, number: int, attempt: int) -> int | None:
        """The branch of an attempt; None for what is settled or unknown."""
        iteration = self._find(number)
        if iteration is None or attempt >= len(iteration.attempts):
            return None
        return iteration.attempts[attempt].branch

    def started_s(self, number: int, attempt: int) -> float | None:
        """When an attempt was started; None for what is settled or unknown."""
        iteration = self._find(number)
        if iteration is None or attempt >= len(iteration.attempts):
            return None
        return iteration.attempts[attempt].started_s

    def _find(self, number: int) -> Iteration | None:
        # Open are all from the first unsettled to the last fired, without a hole.
        open_ = self._open
        index = number - self._next + len(open_)
        return open_[index] if 0 <= index < len(open_) else None

    def _advance(self, iteration: Iteration, now_s: float) -> list[Action]:
        """Start what is to stand beside the sound attempts; drop if nobody can."""
        if not iteration.forked or iteration.verdict is not None:
            return []
        sound, before = 0, None
        for attempt in iteration.attempts:
            if attempt.open and not attempt.suspect:
                sound |= 1 << attempt.branch
            else:
                before = attempt.branch
        late = self._is_late(iteration, now_s)
        if not late and sound.bit_count() >= self._redundancy.copies:
            return []  # what was started is to be waited for: it is so in every turn
        remaining_s = iteration.fired_s + self._deadline_s - now_s
        # Rather a branch that answers before the window is full: behind one that does
        # not, as over a slow link, frames wait that others would have answered.
        soon_s = remaining_s
        if self._redundancy.mode == "standby":
            full_s = iteration.fired_s + self._window * self._period_s - now_s
            soon_s = min(full_s, remaining_s)
        choice = self._choose(iteration, sound, late, soon_s, now_s)
        if choice.reason == "deadline" and soon_s < remaining_s:
            choice = self._choose(iteration, sound, late, remaining_s, now_s)
        if choice.reason and not any(a.open for a in iteration.attempts):
            if choice.reason == "deadline" and self._link_full(remaining_s, now_s):
                self._sampling.refused()
            self._drop(iteration, "error" if iteration.failed else choice.reason, now_s)
        if late:
            self._hedges_left -= len(choice.branches)
        return [self._start(iteration, b, now_s, before) for b in choice.branches]

    def _choose(
        self,
        iteration: Iteration,
        sound: int,
        late: bool,
        remaining_s: float,
        now_s: float,
    ) -> Choice:
        return choose(
            self._branches,
            self._redundancy,
            tried=iteration.tried,
            sound=sound,
            late=late,
            turn=iteration.number,
            remaining_s=remaining_s,
            now_s=now_s,
        )

    def _relieve(self, now_s: float) -> list[Action]:
        """Doubt the branches that the oldest iteration of a full window waits for.

        One that is only slow, as behind a slow link, would answer in the end. But
        frames would be dropped for it while another branch has nothing to do.
        """
        oldest = next((each for each in self._open if each.verdict is None), None)
        if oldest is None:
            return []
        another = choose(
            self._branches,
            tried=oldest.tried,
            remaining_s=oldest.fired_s + self._deadline_s - now_s,
            now_s=now_s,
        )
        if not another.branches:
            return []
        full = len(self._open) >= self._window
        return [
            Overdue(oldest.number, a.branch, now_s - a.started_s, True, full)
            for a in oldest.attempts
            if a.open and not a.suspect and not self._branches[a.branch].local
        ]

    def _is_late(self, iteration: Iteration, now_s: float) -> bool:
        """Tell whether the iteration's one sound attempt is to be hedged now."""
        return (
            self._redundancy.percentile > 0
            and self._hedges_left >= 1
            and self._hedge_at_s(iteration) <= now_s
        )

    def _hedge_at_s(self, iteration: Iteration) -> float:
        """When the iteration's one sound attempt has taken long enough; inf: never."""
        if not self._redundancy.percentile:
            return float("inf")
        sound = [a for a in iteration.attempts if a.open and not a.suspect]
        if len(sound) != 1 or iteration.verdict is not None:
            return float("inf")
        return hedge_at_s(
            self._branches,
            self._redundancy,
            branch=sound[0].branch,
            started_s=sound[0].started_s,
        )

    def _hedge_due_s(self, now_s: float) -> float:
        """When the next iteration may be hedged.

        What could be hedged already and was not has no other server: it is not due, or
        the loop would spin.
        """
        if not self._redundancy.percentile or self._hedges_left < 1:
            return float("inf")
        times_s = (self._hedge_at_s(iteration) for iteration in self._open)
        return min((at_s for at_s in times_s if at_s > now_s), default=float("inf"))

    def _start(
        self, iteration: Iteration, branch: int, now_s: float, before: int | None
    ) -> Start:
        attempts = iteration.attempts
        attempt = len(attempts)
        iteration.tried |= self._kin[branch]
        self._lighter = self._lightens[branch]
        attempts.append(Attempt(branch, now_s))
        budget_s = iteration.fired_s + self._deadline_s - now_s
        return _new(Start, (iteration.number, branch, attempt, budget_s, before))

    def _start_local(self, iteration: Iteration, now_s: float) -> Iterator[Action]:
        """Start the last local branch beside attempts that may miss the deadline.

        And, before it, better local ones that still fit. One that does not fit must
        not be started in its place.
        """
        remaining_s = iteration.fired_s + self._deadline_s - now_s
        before = iteration.attempts[-1].branch if iteration.attempts else None
        for index, branch in enumerate(self._branches):
            fits = index == self._last_local or branch.p99_s(now_s) <= remaining_s
            tried = iteration.tried >> index & 1
            if branch.local and branch.ready and fits and not tried:
                yield self._start(iteration, index, now_s, before)

    def _local_start_s(self, iteration: Iteration, now_s: float) -> float:
        """When the last local branch must be started, to be in time; inf: not now."""
        if self._last_local is None or not iteration.forked:
            return float("inf")
        last = self._branches[self._last_local]
        if iteration.tried >> self._last_local & 1 or not last.ready:
            return float("inf")
        needed_s = last.p99_s(now_s) + LOCAL_MARGIN_S
        return iteration.fired_s + self._deadline_s - needed_s

    def _drop(self, iteration: Iteration, reason: Reason, now_s: float) -> None:
        iteration.verdict = Settle(
            iteration.number,
            None,
            reason,
            None,
            iteration.fired_s,
            now_s,
            len(iteration.attempts),
        )

    def _settle(self) -> list[Action]:
        settled: list[Action] = []
        if self._held:
            return settled
        open_ = self._open
        while open_ and (verdict := open_[0].verdict) is not None:
            open_.popleft()
            settled.append(verdict)
        return settled


def _smoothed(period_s: float, latest_s: float) -> float:
    return latest_s if period_s == float("inf") else 0.9 * period_s + 0.1 * latest_s
