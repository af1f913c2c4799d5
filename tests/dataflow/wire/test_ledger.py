"""The ledger as tables: what happens to it, and what it decides."""

from dataclasses import dataclass
from typing import Any

import pytest

from dataflow.redundancy import STANDBY, Redundancy
from dataflow.wire.iterations import OUTSIDE, Action, Overdue, Settle, Start
from dataflow.wire.ledger import LOCAL_MARGIN_S, Ledger

DEADLINE_S = 1.0


@dataclass
class Branch:
    """A branch whose state the test sets."""

    local: bool = False
    ready: bool = True
    carried: bool = True
    p90: float = 0.0
    p99: float = 0.0
    grade: int = 0
    outstanding: int = 0
    learned: float = 0.0

    def p90_s(self, now_s: float) -> float:
        return self.p90

    def p99_s(self, now_s: float) -> float:
        return self.p99

    def learned_s(self, fraction: float) -> float:
        return self.learned


def _ledger(
    *branches: Branch, window: int = 4, redundancy: Redundancy = STANDBY
) -> Ledger:
    return Ledger(branches, window=window, deadline_s=DEADLINE_S, redundancy=redundancy)


def _forked(ledger: Ledger, now_s: float = 0.0) -> list[Action]:
    """Fire and fork the next iteration at once."""
    number, admitted, actions = ledger.fire(now_s)
    assert (admitted, actions) == (True, [])
    return ledger.forked(number, now_s)


def _told(actions: list[Action]) -> list[tuple[Any, ...]]:
    """Actions as short tuples, for tables."""
    told: list[tuple[Any, ...]] = []
    for action in actions:
        match action:
            case Start(iteration, branch, attempt):
                told.append(("start", iteration, branch, attempt))
            case Settle(iteration, None, reason):
                told.append(("drop", iteration, reason))
            case Settle(iteration, branch):
                told.append(("by", iteration, branch))
            case Overdue(iteration, branch):
                told.append(("overdue", iteration, branch))
    return told


# --- window and order ----------------------------------------------------------


def test_beyond_the_window_frames_are_dropped_but_told_in_order() -> None:
    ledger = _ledger(Branch(), window=2)
    _forked(ledger)
    _forked(ledger)
    assert ledger.fire(0.0) == (2, False, [])
    assert _told(ledger.answer(1, 0, "b", 0.1)) == []
    assert _told(ledger.answer(0, 0, "a", 0.2)) == [
        ("by", 0, 0),
        ("by", 1, 0),
        ("drop", 2, "window"),
    ]
    assert (ledger.settled, ledger.idle) == (3, True)


def test_a_frame_dropped_by_the_window_of_an_idle_ledger_is_told_at_once() -> None:
    ledger = _ledger(Branch(), window=0)
    number, admitted, actions = ledger.fire(0.0)
    assert (number, admitted) == (0, False)
    assert _told(actions) == [("drop", 0, "window")]


def test_the_window_opens_as_iterations_settle() -> None:
    ledger = _ledger(Branch(), window=1)
    _forked(ledger)
    assert ledger.fire(0.0)[1] is False
    ledger.answer(0, 0, "a", 0.1)
    assert ledger.fire(0.1)[1] is True


def test_full_window_doubts_what_its_oldest_frame_waits_for() -> None:
    """Behind a slow link frames were dropped while another server was idle."""
    ledger = _ledger(Branch(), Branch(), window=2)
    _forked(ledger)
    (overdue,) = ledger.fire(0.3)[2]
    assert overdue == Overdue(0, 0, 0.3, crowded=True, full=True)
    ledger.forked(1, 0.3)
    assert _told(ledger.fire(0.4)[2]) == [("overdue", 0, 0)]
    assert _told(ledger.lost([0], 0.4, final=False)) == [
        ("start", 0, 1, 1),
        ("start", 1, 1, 1),
    ]


def test_doubt_about_one_iteration_leaves_the_others_where_they_are() -> None:
    ledger = _ledger(Branch(), Branch(), window=3)
    _forked(ledger)
    _forked(ledger)
    assert _told(ledger.doubted(0, 0, 0.2)) == [("start", 0, 1, 1)]
    assert ledger.doubted(0, 0, 0.3) == [], "it is asked once"
    assert ledger.outstanding([1]) == [0]
    assert _told(ledger.answer(0, 0, "late", 0.4)) == [("by", 0, 0)]


def test_ledger_that_follows_another_holds_its_outcomes_until_that_is_settled() -> None:
    ledger = _ledger(Branch(), window=2)
    ledger.follow(7)
    assert _told(_forked(ledger)) == [("start", 7, 0, 0)]
    assert ledger.answer(7, 0, "a", 0.1) == []
    assert ledger.fire(0.1)[:2] == (8, True)
    assert ledger.fire(0.2)[1] is False, "the window counts from what is settled"
    assert _told(ledger.release()) == [("by", 7, 0)]


def test_full_window_doubts_nobody_while_no_other_branch_is_ready() -> None:
    ledger = _ledger(Branch(), Branch(ready=False), window=1)
    _forked(ledger)
    assert ledger.fire(0.5)[2] == []


def test_an_outcome_says_who_answered_what_and_when() -> None:
    ledger = _ledger(Branch())
    _forked(ledger, now_s=5.0)
    (settle,) = ledger.answer(0, 0, "value", 5.3)
    assert settle == Settle(0, 0, "", "value", fired_s=5.0, decided_s=5.3, attempts=1)


# --- answers from outside the region -------------------------------------------


def test_an_answer_that_is_there_waits_for_older_iterations() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    ledger.fire(0.0)
    assert _told(ledger.outside(1, "early", 0.1)) == []
    assert _told(ledger.answer(0, 0, "late", 0.2)) == [("by", 0, 0), ("by", 1, OUTSIDE)]


def test_an_iteration_outside_the_region_starts_no_branch() -> None:
    ledger = _ledger(Branch())
    ledger.fire(5.0)
    (settle,) = ledger.outside(0, "early", 5.1)
    assert settle == Settle(0, OUTSIDE, "", "early", 5.0, 5.1, attempts=0)
    assert ledger.idle


def test_an_answer_from_outside_after_the_deadline_is_too_late() -> None:
    ledger = _ledger(Branch())
    ledger.fire(0.0)
    assert _told(ledger.tick(DEADLINE_S)) == [("drop", 0, "deadline")]
    assert ledger.outside(0, "early", DEADLINE_S + 0.1) == []


def test_losing_every_branch_leaves_an_answer_from_outside() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    ledger.fire(0.0)
    ledger.outside(1, "early", 0.1)
    assert _told(ledger.lost([0], 0.2, final=True)) == [
        ("drop", 0, "no-branch"),
        ("by", 1, OUTSIDE),
    ]


def test_an_iteration_cut_short_is_told_in_its_turn() -> None:
    ledger = _ledger(Branch(), window=1)
    _forked(ledger)
    assert _told(ledger.cut_short(0.1)) == []
    assert ledger.fired == 2
    assert _told(ledger.answer(0, 0, "a", 0.2)) == [("by", 0, 0), ("drop", 1, "end")]
    assert ledger.idle


# --- attempts ------------------------------------------------------------------


def test_a_start_carries_what_is_left_until_the_deadline() -> None:
    ledger = _ledger(Branch())
    ledger.fire(0.0)
    (start,) = ledger.forked(0, 0.3)
    assert start == Start(0, 0, 0, DEADLINE_S - 0.3, instead_of=None)


def test_a_lost_branch_is_replaced_by_the_next() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    (start,) = ledger.lost([0], 0.1, final=False)
    assert start == Start(0, 1, 1, DEADLINE_S - 0.1, instead_of=0)


def test_attempts_overlap_and_the_first_answer_counts() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    ledger.lost([0], 0.1, final=False)
    assert _told(ledger.answer(0, 0, "late but first", 0.2)) == [("by", 0, 0)]
    assert ledger.answer(0, 1, "second", 0.3) == []
    assert ledger.late_answers == 1


def test_a_dead_branch_answers_no_more() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    assert _told(ledger.lost([0], 0.1, final=True)) == [("start", 0, 1, 1)]
    assert ledger.answer(0, 0, "from the dead", 0.2) == []
    assert _told(ledger.answer(0, 1, "alive", 0.3)) == [("by", 0, 1)]


def test_a_branch_suspected_and_then_dead_is_replaced_once() -> None:
    ledger = _ledger(Branch(), Branch(), Branch())
    _forked(ledger)
    assert _told(ledger.lost([0], 0.1, final=False)) == [("start", 0, 1, 1)]
    assert ledger.lost([0], 0.2, final=True) == []
    assert _told(ledger.lost([1], 0.3, final=True)) == [("start", 0, 2, 2)]


def test_each_branch_is_started_at_most_once_per_iteration() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    assert _told(ledger.refused(0, 0, 0.1, error=False)) == [("start", 0, 1, 1)]
    assert _told(ledger.refused(0, 1, 0.2, error=False)) == [("drop", 0, "no-branch")]


@pytest.mark.parametrize("attempt", [1, 255])
def test_an_answer_to_an_attempt_never_made_is_late(attempt: int) -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    assert ledger.answer(0, attempt, "?", 0.1) == []
    assert ledger.refused(0, attempt, 0.1, error=True) == []
    assert ledger.late_answers == 1


@pytest.mark.parametrize("number", [1, 2**64 - 1])
def test_an_answer_to_a_frame_never_fired_is_late(number: int) -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    assert ledger.answer(number, 0, "?", 0.1) == []
    assert ledger.refused(number, 0, 0.1, error=True) == []
    assert ledger.started_s(number, 0) is None
    assert ledger.late_answers == 1


def test_a_refusal_after_the_answer_changes_nothing() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    ledger.fire(0.0)
    ledger.answer(0, 0, "a", 0.1)
    assert ledger.refused(0, 0, 0.2, error=True) == []


def test_a_late_answer_saves_a_frame_that_no_other_branch_can() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    assert ledger.lost([0], 0.1, final=False) == []
    assert _told(ledger.answer(0, 0, "late", 0.5)) == [("by", 0, 0)]


def test_a_branch_that_becomes_ready_takes_what_waits() -> None:
    there = Branch(ready=False)
    ledger = _ledger(Branch(), there)
    _forked(ledger)
    ledger.lost([0], 0.1, final=False)
    assert ledger.tick(0.2) == []
    there.ready = True
    assert _told(ledger.tick(0.3)) == [("start", 0, 1, 1)]


# --- reasons -------------------------------------------------------------------


def test_no_branch_there_drops_at_once() -> None:
    ledger = _ledger(Branch(ready=False))
    ledger.fire(0.0)
    assert _told(ledger.forked(0, 0.0)) == [("drop", 0, "no-branch")]


def test_no_branch_in_time_drops_at_once() -> None:
    ledger = _ledger(Branch(p90=2.0))
    ledger.fire(0.0)
    assert _told(ledger.forked(0, 0.0)) == [("drop", 0, "deadline")]


def test_an_error_is_the_reason_when_nothing_helps() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    ledger.refused(0, 0, 0.1, error=True)
    assert _told(ledger.refused(0, 1, 0.2, error=False)) == [("drop", 0, "error")]


def test_the_death_of_the_only_branch_drops_at_once() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    assert _told(ledger.lost([0], 0.1, final=True)) == [("drop", 0, "no-branch")]


def test_the_deadline_drops_and_tells_who_was_waited_for() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    assert ledger.tick(0.999) == []
    overdue, drop = ledger.tick(1.0)
    assert overdue == Overdue(0, 0, waited_s=1.0)
    assert _told([drop]) == [("drop", 0, "deadline")]


def test_an_error_stays_the_reason_at_the_deadline() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    ledger.refused(0, 0, 0.1, error=True)
    assert _told(ledger.tick(1.0))[-1] == ("drop", 0, "error")


def test_a_suspect_is_not_accused_again_at_the_deadline() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    ledger.lost([0], 0.1, final=False)
    assert _told(ledger.tick(1.0)) == [("drop", 0, "deadline")]


def test_a_frame_still_in_the_head_at_its_deadline_is_dropped() -> None:
    ledger = _ledger(Branch())
    ledger.fire(0.0)
    assert _told(ledger.tick(1.0)) == [("drop", 0, "deadline")]
    assert ledger.forked(0, 1.1) == []


def test_nothing_is_started_before_the_fork_has_the_tokens() -> None:
    ledger = _ledger(Branch(), Branch(local=True))
    ledger.fire(0.0)
    assert ledger.lost([0], 0.1, final=True) == []
    assert ledger.tick(0.9999) == []
    assert _told(ledger.forked(0, 0.9999)) == [("start", 0, 0, 0)]


def test_abort_accounts_for_all_that_is_open() -> None:
    ledger = _ledger(Branch())
    _forked(ledger)
    _forked(ledger)
    ledger.answer(1, 0, "b", 0.1)
    assert _told(ledger.abort(0.2)) == [("drop", 0, "error"), ("by", 1, 0)]
    assert ledger.idle


# --- local branches ------------------------------------------------------------

LAST_S = DEADLINE_S - 0.02 - LOCAL_MARGIN_S


def test_the_last_local_branch_is_started_beside_a_remote_attempt_in_time() -> None:
    ledger = _ledger(Branch(), Branch(local=True, p99=0.02))
    _forked(ledger)
    assert ledger.due_s(0.0) == pytest.approx(LAST_S)
    assert ledger.tick(LAST_S - 0.001) == []
    assert _told(ledger.tick(LAST_S + 1e-9)) == [("start", 0, 1, 1)]
    assert _told(ledger.answer(0, 0, "remote after all", 0.99)) == [("by", 0, 0)]


def test_a_local_branch_that_does_not_fit_never_stands_in_for_the_last() -> None:
    slow, quick = Branch(local=True, p99=0.3), Branch(local=True, p99=0.02)
    ledger = _ledger(Branch(), slow, quick)
    _forked(ledger)
    assert _told(ledger.tick(LAST_S + 1e-9)) == [("start", 0, 2, 1)]


def test_a_better_local_branch_that_fits_is_started_as_well() -> None:
    better, last = Branch(local=True, p99=0.01), Branch(local=True, p99=0.02)
    ledger = _ledger(Branch(), better, last)
    _forked(ledger)
    expected = [("start", 0, 1, 1), ("start", 0, 2, 2)]
    assert _told(ledger.tick(LAST_S + 1e-9)) == expected


def test_the_last_local_branch_is_started_while_another_local_one_hangs() -> None:
    hangs, last = Branch(local=True, p99=0.01), Branch(local=True, p99=0.02)
    ledger = _ledger(hangs, last)
    _forked(ledger)
    assert _told(ledger.tick(LAST_S + 1e-9)) == [("start", 0, 1, 1)]


def test_a_local_branch_is_never_evidence_against_a_link() -> None:
    ledger = _ledger(Branch(local=True))
    _forked(ledger)
    assert _told(ledger.tick(1.0)) == [("drop", 0, "deadline")]


# --- modes of redundancy -------------------------------------------------------

TWO = Redundancy("replicate", copies=2)
HEDGE = Redundancy("hedge", percentile=95)


def test_replicas_start_together_and_the_first_answer_counts() -> None:
    ledger = _ledger(Branch(), Branch(), Branch(), redundancy=TWO)
    assert _told(_forked(ledger)) == [("start", 0, 0, 0), ("start", 0, 1, 1)]
    (settle,) = ledger.answer(0, 1, "second was first", 0.1)
    assert (settle.branch, settle.attempts) == (1, 2)
    assert ledger.answer(0, 0, "the other", 0.2) == []
    assert ledger.late_answers == 1


def test_a_lost_replica_is_replaced_and_no_frame_waits_for_it() -> None:
    ledger = _ledger(Branch(), Branch(), Branch(), redundancy=TWO)
    _forked(ledger)
    (start,) = ledger.lost([0], 0.1, final=True)
    assert start == Start(0, 2, 2, DEADLINE_S - 0.1, instead_of=0)
    assert ledger.lost([2], 0.2, final=True) == []
    assert _told(ledger.answer(0, 1, "the one that lives", 0.3)) == [("by", 0, 1)]


def test_a_second_replica_stands_in_nobodys_place() -> None:
    ledger = _ledger(Branch(), Branch(), redundancy=TWO)
    assert [start.instead_of for start in _forked(ledger)] == [None, None]


def test_replicas_that_all_refuse_are_followed_by_another_kind() -> None:
    exit_ = Branch(local=True, grade=2)
    ledger = _ledger(Branch(), Branch(), exit_, redundancy=TWO)
    _forked(ledger)
    assert ledger.refused(0, 0, 0.1, error=True) == []
    assert _told(ledger.refused(0, 1, 0.2, error=True)) == [("start", 0, 2, 2)]


def test_a_late_attempt_is_hedged_once_at_its_percentile() -> None:
    ledger = _ledger(Branch(learned=0.02), Branch(learned=0.02), redundancy=HEDGE)
    _forked(ledger)
    assert ledger.due_s(0.0) == 0.02
    assert ledger.tick(0.019) == []
    (start,) = ledger.tick(0.02)
    assert start == Start(0, 1, 1, DEADLINE_S - 0.02, instead_of=None)
    assert ledger.tick(0.5) == []
    assert _told(ledger.answer(0, 0, "slow, but first", 0.6)) == [("by", 0, 0)]


def test_an_attempt_is_not_hedged_before_its_percentile_is_known() -> None:
    ledger = _ledger(Branch(), Branch(), redundancy=HEDGE)
    _forked(ledger)
    assert ledger.due_s(0.0) == DEADLINE_S
    assert ledger.tick(0.9) == []


def test_late_without_another_server_does_not_keep_the_loop_spinning() -> None:
    away = Branch(ready=False)
    ledger = _ledger(Branch(learned=0.02), away, redundancy=HEDGE)
    _forked(ledger)
    assert ledger.tick(0.02) == []
    assert ledger.due_s(0.02) == DEADLINE_S
    away.ready = True
    assert _told(ledger.tick(0.1)) == [("start", 0, 1, 1)]


def test_hedges_are_a_window_at_once_and_then_their_share() -> None:
    """Two servers that are both overloaded must not get twice the load."""
    ledger = _ledger(
        Branch(learned=0.02), Branch(learned=0.02), window=4, redundancy=HEDGE
    )
    hedged = []
    for number in range(84):
        _forked(ledger, now_s=float(number))
        hedged.append(len(ledger.tick(number + 0.02)))
        ledger.answer(number, 0, "late", number + 0.5)
    assert hedged[:4] == [1, 1, 1, 1]
    assert sum(hedged) == pytest.approx(4 + 80 * HEDGE.hedged_share, abs=1)


def test_a_hedged_attempt_that_is_lost_leaves_the_other() -> None:
    ledger = _ledger(Branch(learned=0.02), Branch(learned=0.02), redundancy=HEDGE)
    _forked(ledger)
    ledger.tick(0.02)
    assert ledger.lost([0], 0.1, final=True) == []
    assert _told(ledger.lost([1], 0.2, final=True)) == [("drop", 0, "no-branch")]


# --- when it wants to be called ------------------------------------------------


def test_an_idle_ledger_is_never_due() -> None:
    assert _ledger(Branch()).due_s(0.0) == float("inf")


def test_waiting_for_the_head_does_not_keep_the_loop_spinning() -> None:
    """The local start was due already, with nothing to start it on."""
    ledger = _ledger(Branch(), Branch(local=True, p99=0.02))
    ledger.fire(0.0)
    assert ledger.tick(0.99) == []
    assert ledger.due_s(0.99) == DEADLINE_S


def test_a_local_branch_away_does_not_keep_the_loop_spinning() -> None:
    ledger = _ledger(Branch(), Branch(local=True, ready=False, p99=0.02))
    _forked(ledger)
    assert ledger.tick(0.99) == []
    assert ledger.due_s(0.99) == DEADLINE_S


def test_the_local_start_of_a_younger_frame_is_not_slept_through() -> None:
    """The oldest has its local attempt and waits; the next one's start comes first."""
    ledger = _ledger(Branch(), Branch(local=True, p99=0.1))
    _forked(ledger, now_s=0.0)
    _forked(ledger, now_s=0.05)
    now_s = DEADLINE_S - 0.1 - LOCAL_MARGIN_S + 1e-9
    assert _told(ledger.tick(now_s)) == [("start", 0, 1, 1)]
    assert ledger.due_s(now_s) == pytest.approx(now_s + 0.05)


def test_outstanding_names_what_is_under_way_on_given_branches() -> None:
    ledger = _ledger(Branch(), Branch())
    _forked(ledger)
    _forked(ledger)
    ledger.lost([0], 0.1, final=True)
    ledger.answer(1, 1, "b", 0.2)
    assert ledger.outstanding() == [0]
    assert ledger.outstanding([0]) == []
    assert ledger.outstanding([1]) == [0]


def test_started_s_is_known_until_the_frame_is_settled() -> None:
    ledger = _ledger(Branch())
    _forked(ledger, now_s=0.5)
    assert ledger.started_s(0, 0) == 0.5
    assert ledger.started_s(0, 1) is None
    ledger.answer(0, 0, "a", 0.6)
    assert ledger.started_s(0, 0) is None


# --- more frames than can be carried -------------------------------------------


def test_stream_that_is_not_carried_admits_frames_evenly() -> None:
    """50 frames/s, an answer every 200 ms: soon one frame in ten is tried, not lost."""
    ledger = _ledger(Branch(), window=4)
    waiting: list[int] = []
    reasons: list[str] = []
    for i in range(600):
        now_s = i / 50
        if i % 10 == 0 and waiting:
            ledger.answer(waiting.pop(0), 0, "late", now_s)
        number, admitted, actions = ledger.fire(now_s)
        reasons += [a.reason for a in actions if isinstance(a, Settle)]
        if admitted:
            waiting.append(number)
            ledger.forked(number, now_s)
    late = reasons[-200:]
    assert late.count("rate") >= 0.85 * len(late)
    assert late.count("window") <= 0.05 * len(late)


def test_server_is_asked_once_whatever_the_codec() -> None:
    """Its link became slow: nobody asks it again for what is under way there."""
    whole, encoded, here = Branch(), Branch(), Branch(local=True, ready=False)
    ledger = Ledger(
        [whole, encoded, here], window=4, deadline_s=DEADLINE_S, kin=[0b11, 0b11, 0b100]
    )
    number, _, _ = ledger.fire(0.0)
    (start,) = ledger.forked(number, 0.0)
    assert isinstance(start, Start)
    assert start.branch == 0
    whole.carried = False
    assert ledger.tick(0.1) == []
    here.ready = True
    (start,) = ledger.lost([0, 1], 0.2, final=False)
    assert isinstance(start, Start)
    assert start.branch == 2
