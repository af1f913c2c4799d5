"""Who plays for an iteration: a total function of the branches' states.

The running system and the failure analysis call the very same function. It walks the
policy's order and takes the first branch that is ready; in other modes than `standby`
the one with the least work, or several; when there is none, the iteration is dropped,
with the reason. It costs a walk over a short list.

Modes choose among branches that are *alike* only: servers that stand together in the
policy's order and give the same quality. Else `spread` would send frames to an early
exit because it is idle, and `replicate` would let its answer, which is first, win over
the network's. The order between kinds stands in every mode.

Branches of one server may differ in the codec alone: one sends tokens whole, one with
loss. They are *kin*: a server is asked once for an iteration, by whichever of them its
link carries then. What a link carries, `wire.codecs` learns.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dataflow.graph import Branch
from dataflow.outcome import Reason
from dataflow.redundancy import STANDBY, Redundancy


class BranchView(Protocol):
    """What the choice of a row needs to know of a branch."""

    @property
    def local(self) -> bool:
        """It crosses no link: no failure but its own can stop it."""

    @property
    def grade(self) -> int:
        """The same for branches that are alike, see `grades`."""

    @property
    def ready(self) -> bool:
        """Not loading, cold, draining, suspect or dead; it has credit."""

    @property
    def carried(self) -> bool:
        """Its tokens are those that its link is sent now, as they come fast enough."""

    @property
    def outstanding(self) -> int:
        """Tokens that wait or are computed there, as far as we know."""

    def p90_s(self, now_s: float) -> float:
        """90th percentile of its time to an answer, queue included; 0: unknown."""

    def p99_s(self, now_s: float) -> float:
        """99th percentile of the same."""

    def learned_s(self, fraction: float) -> float:
        """A percentile of the same, however old; 0: it answered too seldom to tell."""


class Choice(NamedTuple):
    """A row: the branches to start now, by index.

    None of them and no reason: what was started is to be waited for. None of them and
    a reason: a drop.
    """

    branches: tuple[int, ...]
    reason: Reason = ""


WAIT = Choice(())
_new = tuple.__new__  # a constructor of a NamedTuple takes twice as long


def grades(branches: Sequence[Branch], home: str | None) -> list[int]:
    """Return for each branch the index of the first of those that it is alike.

    Args:
        branches: In the policy's order.
        home: Device of the fork. A branch there is like no other.
    """
    found: list[int] = []
    for index, branch in enumerate(branches):
        before = branches[index - 1] if index else None
        alike = (
            before is not None
            and home not in (branch.device, before.device)
            and branch.quality == before.quality
            and branch.codec == before.codec
        )
        found.append(found[-1] if alike else index)
    return found


def kin(branches: Sequence[Branch]) -> list[int]:
    """Return for each branch the bits of its kin, its own among them."""
    bits = [1 << index for index in range(len(branches))]
    for index, encoded in enumerate(branches):
        for whole, branch in enumerate(branches):
            if (
                encoded.codec
                and branch.quality == "full"
                and _path(branch) == _path(encoded)
            ):
                bits[whole] |= 1 << index
                bits[index] |= 1 << whole
    return bits


def _path(branch: Branch) -> tuple[str, ...]:
    return (branch.device, *(asked.device for asked in branch.onward))


def choose(
    branches: Sequence[BranchView],
    redundancy: Redundancy = STANDBY,
    *,
    tried: int = 0,
    sound: int = 0,
    late: bool = False,
    turn: int = 0,
    remaining_s: float,
    now_s: float,
) -> Choice:
    """Return the row of an iteration.

    Args:
        branches: In the policy's order.
        redundancy: The mode.
        tried: Bit i is set when branch i, or one of its kin, was started for this
            iteration already: each is started at most once.
        sound: Bit i is set when that attempt may still answer and nothing speaks
            against it.
        late: The sound attempt takes longer than usual, and may be hedged.
        turn: Whose turn it is among servers with equal work: the iteration's number.
        remaining_s: Time left until the iteration's deadline.
        now_s: Monotonic time.
    """
    wanted = redundancy.copies + late - sound.bit_count()
    if wanted <= 0:
        return WAIT
    spread = redundancy.mode == "spread"
    # Beside a sound attempt, and beside the first that is taken now, only its like.
    grade = branches[(sound & -sound).bit_length() - 1].grade if sound else None
    able: list[int] = []
    too_slow = False
    for index, branch in enumerate(branches):
        if grade is not None and branch.grade != grade:
            continue
        if tried >> index & 1 or not (branch.carried and branch.ready):
            continue
        if branch.p90_s(now_s) > remaining_s:
            too_slow = True
            continue
        grade = branch.grade
        able.append(index)
        if len(able) == wanted and not spread:
            break
    if able:
        chosen = [_least(branches, able, turn)] if spread else able
        return _new(Choice, (tuple(chosen), ""))
    if sound:
        return WAIT
    return Choice((), "deadline" if too_slow else "no-branch")


def _least(branches: Sequence[BranchView], able: Sequence[int], turn: int) -> int:
    """Return the branch with the least outstanding work; equals take turns.

    Work is the tokens that are there times what one takes. Of a server that has not
    answered yet the time is taken as the longest of the others: it must not look idle
    when all that it has is unanswered.
    """
    if len(able) == 1:
        return able[0]
    times_s = {index: branches[index].learned_s(0.5) for index in able}
    unknown_s = max(times_s.values()) or 1.0
    count = len(branches)

    def work(index: int) -> tuple[float, int]:
        waits = branches[index].outstanding * (times_s[index] or unknown_s)
        return waits, (index - turn) % count

    return min(able, key=work)


def hedge_at_s(
    branches: Sequence[BranchView],
    redundancy: Redundancy,
    *,
    branch: int,
    started_s: float,
) -> float:
    """Return when an attempt has taken longer than usual; inf: that is not known."""
    if not redundancy.percentile or branches[branch].local:
        return float("inf")
    usual_s = branches[branch].learned_s(redundancy.percentile / 100)
    return started_s + usual_s if usual_s else float("inf")
