"""Modes of redundancy: how a stream uses several servers that could answer it.

Every mode is the same first-of join over the same branches; they differ in the order in
which branches are asked, and in how many are asked before the first has failed:

=========== ==================================================================
standby     the policy's order; the next branch when one is lost
spread      the server with the least outstanding work; the next when it is lost
replicate m the first m that are ready at once; the first answer counts
hedge p     the first; beside it a second when it takes longer than its own
            percentile p
=========== ==================================================================

In the model of computation an attempt is one firing of the region in the mode of its
branch, and attempts of one iteration may overlap (R14). `standby` and `spread` play one
row after another. `replicate` and `hedge` have rows that play several branches: the
fork gives each of them its tokens, and the first-of join takes one from each and hands
on the first. Of these rows the control table lists the largest only, ``all``, in which
every branch plays. A row that plays some of them has a part of its FIFOs at the same
rates: each firing waits for no more tokens and no more space than in ``all``, and the
repetition vector of ``all``, restricted, balances it. So what R8, R10 and R11 find of
``all`` holds of every row that the control actor may name.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self

Mode = Literal["standby", "spread", "replicate", "hedge"]
COPIES_MAX = 8
PERCENTILE_MIN, PERCENTILE_MAX = 50, 99
_TEXT = re.compile(r"(\w+)(?: p?(\d+))?")


@dataclass(frozen=True, slots=True)
class Redundancy:
    """A mode, with the number that belongs to it.

    Attributes:
        copies: Branches that are asked at once; more than one in `replicate` only.
        percentile: Of the first server's time to an answer; a second one is asked when
            it is passed. 0 in the other modes.
    """

    mode: Mode = "standby"
    copies: int = 1
    percentile: int = 0

    @property
    def together(self) -> bool:
        """Rows may play several branches: the control table has the row ``all``."""
        return self.mode in ("replicate", "hedge")

    @property
    def hedged_share(self) -> float:
        """The most of all iterations that may be hedged in the long run.

        Twice what a percentile lets through by its meaning, so that a percentile that
        is still being learned does not starve, and servers that are all overloaded
        get a bounded part of extra load and no more.
        """
        return 2 * (1 - self.percentile / 100) if self.percentile else 0.0

    def __str__(self) -> str:
        number = {"replicate": f" {self.copies}", "hedge": f" p{self.percentile}"}
        return self.mode + number.get(self.mode, "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `str` wrote.

        Raises:
            ValueError: Not of that form, or a number out of bounds.

        >>> Redundancy.parse("replicate 2").copies, str(Redundancy.parse("hedge p95"))
        (2, 'hedge p95')
        """
        match = _TEXT.fullmatch(text)
        mode = match[1] if match else ""
        number = int(match[2]) if match and match[2] else 0
        if mode == "replicate" and 2 <= number <= COPIES_MAX:
            return cls("replicate", copies=number)
        if mode == "hedge" and PERCENTILE_MIN <= number <= PERCENTILE_MAX:
            return cls("hedge", percentile=number)
        if mode in ("standby", "spread") and not number:
            return cls(mode)  # type: ignore[arg-type]
        raise ValueError(
            f"'{text}' is no mode of redundancy; write standby, spread, 'replicate N' "
            f"with N from 2 to {COPIES_MAX}, or 'hedge pN' with N from "
            f"{PERCENTILE_MIN} to {PERCENTILE_MAX}"
        )


STANDBY = Redundancy()
