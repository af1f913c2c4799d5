"""What a ledger keeps of an iteration, and what follows from what becomes of it."""

from typing import Any, NamedTuple

from dataflow.outcome import Reason

OUTSIDE = -1
"""As a branch: the answer was there before the fork, no branch played."""


class Start(NamedTuple):
    """Start a branch: send or run it on the tokens retained for the iteration."""

    iteration: int
    branch: int
    attempt: int
    budget_s: float
    """Time left until the deadline."""
    instead_of: int | None
    """The branch whose attempt failed, or may miss the deadline; None: there is none,
    and it is asked beside those that were asked already."""


class Settle(NamedTuple):
    """Hand the outcome to the sink, and release what was retained. In order."""

    iteration: int
    branch: int | None
    """None: dropped, for `reason`; `OUTSIDE`: answered without the region."""
    reason: Reason
    value: Any
    fired_s: float
    decided_s: float
    attempts: int


class Overdue(NamedTuple):
    """An attempt on `branch` was still open when its deadline passed: evidence."""

    iteration: int
    branch: int
    waited_s: float
    crowded: bool = False
    """Its deadline did not pass, but the window is filling up behind it."""
    full: bool = False
    """The next frame would be dropped for it."""


Action = Start | Settle | Overdue


class Attempt:
    """A branch that was started for an iteration."""

    __slots__ = ("branch", "open", "started_s", "suspect")

    def __init__(self, branch: int, started_s: float) -> None:
        self.branch = branch
        self.started_s = started_s
        self.open = True
        """An answer may still come."""
        self.suspect = False
        """Its branch was lost: another one was asked, but a late answer counts."""


class Iteration:
    """What is known of an iteration until it is settled."""

    __slots__ = (
        "attempts",
        "failed",
        "fired_s",
        "forked",
        "number",
        "tried",
        "verdict",
    )

    def __init__(self, number: int, fired_s: float) -> None:
        self.number = number
        self.fired_s = fired_s
        self.forked = False
        self.tried = 0
        self.failed = False
        self.attempts: list[Attempt] = []
        self.verdict: Settle | None = None
