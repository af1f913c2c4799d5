"""Who plays: the table of branch states and the row that follows."""

from dataclasses import dataclass

import pytest

from dataflow.outcome import Reason
from dataflow.wire.rows import Choice, choose


@dataclass
class Branch:
    ready: bool = True
    local: bool = False
    p90: float = 0.0

    def p90_s(self, now_s: float) -> float:
        return self.p90

    def p99_s(self, now_s: float) -> float:
        return self.p90


READY, AWAY, SLOW = Branch(), Branch(ready=False), Branch(p90=2.0)

CHOICES = [
    ("first ready", [READY, READY], 0b00, Choice(0)),
    ("next when first is away", [AWAY, READY], 0b00, Choice(1)),
    ("next when first was tried", [READY, READY], 0b01, Choice(1)),
    ("next when first is too slow", [SLOW, READY], 0b00, Choice(1)),
    ("none there", [AWAY, AWAY], 0b00, Choice(None, "no-branch")),
    ("all tried", [READY, READY], 0b11, Choice(None, "no-branch")),
    ("only too slow ones", [SLOW, AWAY], 0b00, Choice(None, "deadline")),
    ("tried ones are not too slow", [SLOW, AWAY], 0b01, Choice(None, "no-branch")),
    ("no branches", [], 0b00, Choice(None, "no-branch")),
]


@pytest.mark.parametrize(
    ("branches", "tried", "choice"),
    [pytest.param(*case[1:], id=case[0]) for case in CHOICES],
)
def test_row_is_the_first_branch_in_order_that_can(
    branches: list[Branch], tried: int, choice: Choice
) -> None:
    assert choose(branches, tried=tried, remaining_s=1.0, now_s=0.0) == choice


def test_a_branch_that_just_fits_is_taken() -> None:
    assert choose([SLOW], tried=0, remaining_s=2.0, now_s=0.0) == Choice(0)


def test_a_choice_without_a_branch_has_a_reason() -> None:
    reasons: set[Reason] = {
        choose(branches, tried=tried, remaining_s=1.0, now_s=0.0).reason
        for _, branches, tried, choice in CHOICES
        if choice.branch is None
    }
    assert reasons == {"no-branch", "deadline"}
