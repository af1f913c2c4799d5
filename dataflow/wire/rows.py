"""Who plays for an iteration: a total function of the branches' states.

The running system and the failure analysis call the very same function. It walks the
policy's order and takes the first branch that is ready; when there is none, the
iteration is dropped, with the reason. It costs a walk over a short list.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dataflow.outcome import Reason


class BranchView(Protocol):
    """What the choice of a row needs to know of a branch."""

    @property
    def local(self) -> bool:
        """It crosses no link: no failure but its own can stop it."""

    @property
    def ready(self) -> bool:
        """Not loading, cold, draining, suspect or dead; it has credit."""

    def p90_s(self, now_s: float) -> float:
        """90th percentile of its time to an answer, queue included; 0: unknown."""

    def p99_s(self, now_s: float) -> float:
        """99th percentile of the same."""


class Choice(NamedTuple):
    """A row: the branch's index, or a drop with its reason."""

    branch: int | None
    reason: Reason = ""


def choose(
    branches: Sequence[BranchView], *, tried: int, remaining_s: float, now_s: float
) -> Choice:
    """Return the row of an iteration.

    Args:
        branches: In the policy's order.
        tried: Bit i is set when branch i was started for this iteration already: each
            branch is started at most once.
        remaining_s: Time left until the iteration's deadline.
        now_s: Monotonic time.
    """
    late = False
    for index, branch in enumerate(branches):
        if tried >> index & 1 or not branch.ready:
            continue
        if branch.p90_s(now_s) > remaining_s:
            late = True
            continue
        return Choice(index)
    return Choice(None, "deadline" if late else "no-branch")
