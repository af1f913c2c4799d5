"""Whatever happens to a ledger, in whatever order, its promises stand."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dataflow.redundancy import Redundancy
from dataflow.wire.iterations import Action, Settle, Start
from dataflow.wire.ledger import Ledger
from dataflow.wire.rows import BranchView

BRANCHES = 4
MODES = [
    Redundancy.parse(text)
    for text in ("standby", "spread", "replicate 2", "replicate 3", "hedge p95")
]
DEADLINE_S = 1.0


class _Branch:
    def __init__(self, *, local: bool) -> None:
        self.local = local
        self.ready = True
        self.carried = True
        self.grade = int(local)
        self.outstanding = 0

    def p90_s(self, now_s: float) -> float:
        return 0.05

    def p99_s(self, now_s: float) -> float:
        return 0.1

    def learned_s(self, fraction: float) -> float:
        return 0.04


class LedgerMachine(RuleBasedStateMachine):
    """Frames fire, fork, are answered, refused, lost; time passes."""

    @initialize(
        window=st.integers(1, 5),
        locals_=st.integers(0, 2),
        redundancy=st.sampled_from(MODES),
    )
    def begin(self, window: int, locals_: int, redundancy: Redundancy) -> None:
        self.window = window
        self.now_s = 0.0
        self.branches = [
            _Branch(local=index >= BRANCHES - locals_) for index in range(BRANCHES)
        ]
        views: list[BranchView] = list(self.branches)
        self.ledger = Ledger(
            views, window=window, deadline_s=DEADLINE_S, redundancy=redundancy
        )
        self.fired_s: dict[int, float] = {}
        self.heads: list[int] = []
        self.admitted: set[int] = set()
        self.spread: set[int] = set()
        self.attempts: dict[int, list[int]] = {}
        self.settled: list[Settle] = []
        self.dead: set[tuple[int, int]] = set()

    @rule()
    def fire(self) -> None:
        number, admitted, actions = self.ledger.fire(self.now_s)
        assert number == len(self.fired_s)
        room = number < len(self.settled) + self.window
        assert room or not admitted
        if room and not admitted:
            self.spread.add(number)  # more was fired than is answered
        self.fired_s[number] = self.now_s
        if admitted:
            self.admitted.add(number)
            self.heads.append(number)
        self.carry_out(actions)

    @precondition(lambda self: self.heads)
    @rule()
    def fork(self) -> None:
        self.carry_out(self.ledger.forked(self.heads.pop(0), self.now_s))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        number, attempt = self._attempt(data)
        before = self.ledger.late_answers
        actions = self.ledger.answer(number, attempt, (number, attempt), self.now_s)
        if (number, attempt) in self.dead:
            assert actions == []
            assert self.ledger.late_answers == before + 1
        self.carry_out(actions)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), error=st.booleans())
    def refuse(self, data: Any, error: bool) -> None:
        number, attempt = self._attempt(data)
        self.dead.add((number, attempt))
        self.carry_out(self.ledger.refused(number, attempt, self.now_s, error=error))

    @rule(branch=st.integers(0, BRANCHES - 1), final=st.booleans())
    def lose(self, branch: int, final: bool) -> None:
        if self.branches[branch].local:
            return
        self.branches[branch].ready = False
        if final:
            self.dead |= {
                (number, attempt)
                for number, branches in self.attempts.items()
                for attempt, started in enumerate(branches)
                if started == branch
            }
        self.carry_out(self.ledger.lost([branch], self.now_s, final=final))

    @rule(branch=st.integers(0, BRANCHES - 1))
    def come_back(self, branch: int) -> None:
        self.branches[branch].ready = True

    @rule(seconds=st.floats(0.0, 0.4))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.carry_out(self.ledger.tick(self.now_s))
        open_s = [s for n, s in self.fired_s.items() if n in self.ledger.outstanding()]
        assert all(self.now_s < fired_s + DEADLINE_S for fired_s in open_s)

    @rule()
    def abort(self) -> None:
        self.carry_out(self.ledger.abort(self.now_s))
        assert self.ledger.idle

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start(number, branch, attempt):
                    started = self.attempts.setdefault(number, [])
                    assert number in self.admitted
                    assert attempt == len(started)
                    assert branch not in started
                    assert self.branches[branch].ready
                    started.append(branch)
                case Settle() as settle:
                    self.settle(settle)

    def settle(self, settle: Settle) -> None:
        assert settle.iteration == len(self.settled)
        assert (settle.branch is None) == (settle.reason != "")
        assert (settle.reason == "rate") >= (settle.iteration in self.spread)
        if settle.branch is not None:
            number, attempt = settle.value
            assert number == settle.iteration
            assert self.attempts[number][attempt] == settle.branch
        self.settled.append(settle)

    def _attempt(self, data: Any) -> tuple[int, int]:
        number = data.draw(st.sampled_from(sorted(self.attempts)))
        return number, data.draw(st.integers(0, len(self.attempts[number]) - 1))

    @invariant()
    def accounts_are_right(self) -> None:
        assert self.ledger.fired == len(self.fired_s)
        assert self.ledger.settled == len(self.settled)
        held = self.admitted - {settle.iteration for settle in self.settled}
        assert len(held) <= self.window

    @invariant()
    def it_does_not_spin(self) -> None:
        self.carry_out(self.ledger.tick(self.now_s))
        assert self.ledger.tick(self.now_s) == []
        assert self.ledger.due_s(self.now_s) > self.now_s


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
test_a_ledger_keeps_its_promises_whatever_happens = LedgerMachine.TestCase
