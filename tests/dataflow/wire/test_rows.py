"""Who plays: the table of branch states and the row that follows."""

from dataclasses import dataclass
from typing import Literal

import pytest

from dataflow.graph import Branch as GraphBranch
from dataflow.outcome import Reason
from dataflow.redundancy import Redundancy
from dataflow.wire.rows import Choice, choose, grades, hedge_at_s, kin


@dataclass
class Branch:
    ready: bool = True
    carried: bool = True
    local: bool = False
    p90: float = 0.0
    grade: int = 0
    outstanding: int = 0
    learned: float = 0.0

    def p90_s(self, now_s: float) -> float:
        return self.p90

    def p99_s(self, now_s: float) -> float:
        return self.p90

    def learned_s(self, fraction: float) -> float:
        return self.learned


READY, AWAY, SLOW = Branch(), Branch(ready=False), Branch(p90=2.0)

CHOICES = [
    ("first ready", [READY, READY], 0b00, Choice((0,))),
    ("next when first is away", [AWAY, READY], 0b00, Choice((1,))),
    ("next when first was tried", [READY, READY], 0b01, Choice((1,))),
    ("next when first is too slow", [SLOW, READY], 0b00, Choice((1,))),
    ("none there", [AWAY, AWAY], 0b00, Choice((), "no-branch")),
    ("all tried", [READY, READY], 0b11, Choice((), "no-branch")),
    ("only too slow ones", [SLOW, AWAY], 0b00, Choice((), "deadline")),
    ("tried ones are not too slow", [SLOW, AWAY], 0b01, Choice((), "no-branch")),
    ("no branches", [], 0b00, Choice((), "no-branch")),
]


@pytest.mark.parametrize(
    ("branches", "tried", "choice"),
    [pytest.param(*case[1:], id=case[0]) for case in CHOICES],
)
def test_row_is_the_first_branch_in_order_that_can(
    branches: list[Branch], tried: int, choice: Choice
) -> None:
    assert choose(branches, tried=tried, remaining_s=1.0, now_s=0.0) == choice


def test_branch_that_its_link_does_not_carry_is_passed_over() -> None:
    whole, encoded = Branch(carried=False), Branch(grade=1)
    assert choose([whole, encoded], remaining_s=1.0, now_s=0.0) == Choice((1,))
    other = Branch()
    assert choose([whole, other, encoded], remaining_s=1.0, now_s=0.0) == Choice((1,))


def _row(
    row: str, device: str, quality: Literal["full", "degraded"], codec: str = ""
) -> GraphBranch:
    return GraphBranch(row, (), device, quality, codec=codec)


def test_kin_are_the_branches_of_one_server_that_differ_in_the_codec() -> None:
    branches = [
        _row("edge.0", "edge.0", "full"),
        _row("edge.1", "edge.1", "full"),
        _row("int8@edge.0", "edge.0", "degraded", "int8"),
        _row("int8@edge.1", "edge.1", "degraded", "int8"),
        _row("exit@edge.0", "edge.0", "degraded"),
        _row("exit", "cam", "degraded"),
    ]
    assert kin(branches) == [0b101, 0b1010, 0b101, 0b1010, 0b10000, 0b100000]
    # Nor are they alike: modes of redundancy choose among equal answers.
    assert grades(branches, "cam") == [0, 0, 2, 2, 4, 5]


def test_a_branch_that_just_fits_is_taken() -> None:
    assert choose([SLOW], tried=0, remaining_s=2.0, now_s=0.0) == Choice((0,))


# --- modes of redundancy -------------------------------------------------------

SPREAD = Redundancy("spread")
TWO, THREE = Redundancy("replicate", copies=2), Redundancy("replicate", copies=3)
HEDGE = Redundancy("hedge", percentile=95)
EXIT = Branch(local=True, grade=9)


def _busy(tokens: int, each_s: float = 1.0) -> Branch:
    return Branch(outstanding=tokens, learned=each_s)


LATE = {"tried": 0b01, "sound": 0b01, "late": 1}
MODES = [
    ("spread takes the least work", SPREAD, [_busy(2), _busy(1)], {}, (1,)),
    ("work is tokens times time", SPREAD, [_busy(2, 0.1), _busy(1)], {}, (0,)),
    ("unknown time is the longest", SPREAD, [_busy(2, 0), _busy(1)], {}, (1,)),
    ("none known: fewer tokens", SPREAD, [_busy(2, 0), _busy(1, 0)], {}, (1,)),
    ("even turns", SPREAD, [READY, READY], {"turn": 6}, (0,)),
    ("odd turns", SPREAD, [READY, READY], {"turn": 7}, (1,)),
    ("spread never picks an idle exit", SPREAD, [_busy(9), EXIT], {}, (0,)),
    ("but falls back to it", SPREAD, [AWAY, EXIT], {}, (1,)),
    ("spread after a loss", SPREAD, [_busy(0), _busy(9)], {"tried": 0b01}, (1,)),
    ("replicas start at once", TWO, [READY, READY, READY], {}, (0, 1)),
    ("who is away is passed over", TWO, [READY, AWAY, READY], {}, (0, 2)),
    ("fewer than wanted", THREE, [READY, AWAY, READY], {}, (0, 2)),
    ("no replica of another kind", TWO, [READY, EXIT], {}, (0,)),
    ("of the next kind when all are away", TWO, [AWAY, AWAY, EXIT], {}, (2,)),
    ("a lost replica is replaced", TWO, [READY] * 3, {"tried": 3, "sound": 2}, (2,)),
    ("by its like only", TWO, [READY, READY, EXIT], {"tried": 3, "sound": 2}, ()),
    ("enough replicas", TWO, [READY] * 3, {"tried": 3, "sound": 3}, ()),
    ("hedge asks one first", HEDGE, [READY, READY], {}, (0,)),
    ("nobody beside it in time", HEDGE, [READY] * 2, {"tried": 1, "sound": 1}, ()),
    ("the next when late", HEDGE, [READY] * 2, LATE, (1,)),
    ("no third", HEDGE, [READY] * 3, {"tried": 3, "sound": 3, "late": 1}, ()),
    ("no exit as a hedge", HEDGE, [READY, EXIT], LATE, ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("redundancy", "branches", "state", "chosen"),
    [pytest.param(*case[1:], id=case[0]) for case in MODES],
)
def test_row_follows_from_the_mode_of_redundancy(
    redundancy: Redundancy,
    branches: list[Branch],
    state: dict[str, int],
    chosen: tuple[int, ...],
) -> None:
    choice = choose(branches, redundancy, remaining_s=1.0, now_s=0.0, **state)  # type: ignore[arg-type]
    assert choice == Choice(chosen)


def test_branches_are_alike_when_servers_stand_together_with_one_quality() -> None:
    def on(device: str, quality: Literal["full", "degraded"]) -> GraphBranch:
        return GraphBranch(device, (), device, quality)

    order = [
        on("edge.0", "full"), on("edge.1", "full"), on("cam", "full"),
        on("edge.2", "full"), on("edge.3", "degraded"), on("edge.4", "degraded"),
        on("cam", "degraded"), on("cam", "degraded"),
    ]  # fmt: skip
    assert grades(order, "cam") == [0, 0, 2, 3, 4, 4, 6, 7]


def test_a_late_attempt_is_one_beyond_the_learned_percentile() -> None:
    known, unknown = Branch(learned=0.02), Branch()
    branches = [known, unknown, Branch(local=True, learned=0.02)]
    at_s = [hedge_at_s(branches, HEDGE, branch=i, started_s=5.0) for i in range(3)]
    assert at_s == [5.02, float("inf"), float("inf")]
    late_s = hedge_at_s(branches, Redundancy(), branch=0, started_s=5.0)
    assert late_s == float("inf")


@pytest.mark.parametrize("text", ["standby", "spread", "replicate 2", "hedge p95"])
def test_mode_of_redundancy_is_read_as_it_is_written(text: str) -> None:
    assert str(Redundancy.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "spraed", "replicate", "replicate 1", "replicate 9", "hedge p100", "spread 2"],
)
def test_what_is_no_mode_of_redundancy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no mode of redundancy"):
        Redundancy.parse(text)


def test_a_choice_without_a_branch_has_a_reason() -> None:
    reasons: set[Reason] = {
        choose(branches, tried=tried, remaining_s=1.0, now_s=0.0).reason
        for _, branches, tried, choice in CHOICES
        if not choice.branches
    }
    assert reasons == {"no-branch", "deadline"}
