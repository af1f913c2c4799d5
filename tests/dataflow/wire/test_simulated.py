"""The protocol under a thousand seeded runs, and proof that each rule is needed.

A planted bug is a machine with one rule taken out. If the simulator does not catch it
within the stated number of seeds, the simulator is blind there.
"""

from typing import Any

import pytest

from dataflow.wire.control import Control, Hello
from dataflow.wire.header import Header, Nack
from dataflow.wire.ledger import Action, Ledger, Settle, _Iteration
from dataflow.wire.link import Action as LinkAction
from dataflow.wire.link import Event, Link, State
from dataflow.wire.sessions import Action as SessionsAction
from dataflow.wire.sessions import Session, Sessions
from tests.simulation.faults import FAULTS
from tests.simulation.setup import Machines, Setup, Violation
from tests.simulator import main, setups, simulate

SEEDS = 1000
"""About ten seconds on one core."""


@pytest.mark.parametrize("first", range(0, SEEDS, 250))
def test_every_promise_is_kept_whatever_fails(first: int) -> None:
    for setup in setups(first, 250):
        simulate(setup)


@pytest.mark.slow
def test_every_promise_is_kept_in_twenty_thousand_runs() -> None:
    for setup in setups(SEEDS, 20_000):
        simulate(setup)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_promise_is_kept_when_one_thing_fails(fault: str) -> None:
    for setup in setups(0, 15, faults=(fault,)):
        simulate(setup)


def test_same_seed_gives_the_same_run() -> None:
    setup = Setup(seed=5, endpoints=2, servers=2)
    assert simulate(setup) == simulate(setup)
    assert simulate(setup).digest != simulate(Setup(seed=6)).digest


def test_without_faults_every_frame_is_answered_in_full() -> None:
    for seed in range(20):
        result = simulate(Setup(seed=seed, faults=(), local=True))
        assert result.full == result.outcomes


def test_a_violation_says_how_to_repeat_it() -> None:
    broken = Machines(ledger=DropsUnderOtherNumbers)
    with pytest.raises(Violation, match=r"--seed 3 --endpoints 1 --servers 2 --frames"):
        simulate(Setup(seed=3, machines=broken))


def test_the_command_repeats_one_seed_and_counts_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "3", "--frames", "20", "--trace"]) == 0
    printed = capsys.readouterr().out
    assert "cam.0-edge.0 Dial(session=1)" in printed
    assert "1 runs" in printed


# --- one rule taken out of each ------------------------------------------------


class DropsUnderOtherNumbers(Ledger):
    """In-order settling: an outcome leaves as soon as there is a verdict."""

    def _settle(self) -> list[Action]:
        settled: list[Action] = []
        for iteration in list(self._open):
            if iteration.verdict is not None:
                self._open.remove(iteration)
                settled.append(iteration.verdict)
        return settled


class CountsEveryAnswer(Ledger):
    """First-of join: each answer of an iteration is an outcome."""

    def answer(
        self, number: int, attempt: int, value: Any, now_s: float
    ) -> list[Action]:
        actions = super().answer(number, attempt, value, now_s)
        if not actions and number < self.settled:
            actions.append(Settle(number, 0, "", value, now_s, now_s, 1))
        return actions


class IgnoresAttempt(Ledger):
    """Tags: an answer counts for the latest attempt, whichever it came from."""

    def answer(
        self, number: int, attempt: int, value: Any, now_s: float
    ) -> list[Action]:
        iteration = self._find(number)
        latest = len(iteration.attempts) - 1 if iteration else attempt
        return super().answer(number, latest, value, now_s)


class IgnoresFrame(Ledger):
    """Tags: an answer counts for the oldest iteration that waits."""

    def answer(
        self, number: int, attempt: int, value: Any, now_s: float
    ) -> list[Action]:
        return super().answer(
            next(iter(self.outstanding()), number), attempt, value, now_s
        )


class AdmitsAlways(Ledger):
    """Window."""

    def fire(self, now_s: float) -> tuple[int, bool, list[Action]]:
        self._window = 10**6
        return super().fire(now_s)


class IgnoresNack(Ledger):
    """A refused attempt is followed by the next branch at once."""

    def refused(
        self, number: int, attempt: int, now_s: float, *, error: bool
    ) -> list[Action]:
        return []


class WaitsForEver(Ledger):
    """Deadlines."""

    def tick(self, now_s: float) -> list[Action]:
        return []


class StartsNoLocalBranch(Ledger):
    """The last local branch is started in time."""

    def _local_start_s(self, iteration: _Iteration, now_s: float) -> float:
        return float("inf")


class StartsAgain(Ledger):
    """Each branch at most once per iteration."""

    def _advance(self, iteration: _Iteration, now_s: float) -> list[Action]:
        iteration.tried = 0
        return super()._advance(iteration, now_s)


class IgnoresLoss(Ledger):
    """What was under way at a lost peer is started elsewhere."""

    def lost(self, branches: Any, now_s: float, *, final: bool) -> list[Action]:
        return []


class IgnoresCredit(Link):
    """Credit."""

    def credit(self, stream: int) -> int:
        return 1000


class KeepsOrdinals(Link):
    """A new session starts from nothing: its messages are numbered from 0."""

    def _dial(self, now_s: float) -> list[LinkAction]:
        ordinals = dict(self._ordinals)
        actions = super()._dial(now_s)
        self._ordinals = ordinals
        return actions


class KeepsSession(Link):
    """Every connection is a session of its own."""

    def _dial(self, now_s: float) -> list[LinkAction]:
        actions = super()._dial(now_s)
        self.session = 1
        return actions


class NeverCloses(Link):
    """A suspect session is closed after 2 s."""

    def tick(self, now_s: float, **rest: Any) -> list[LinkAction]:
        return [] if self.state is State.SUSPECT else super().tick(now_s, **rest)


class KeepsStarvedSession(Link):
    """A session whose answers were lost is replaced."""

    def _check_credit(self, now_s: float, *, idle: bool) -> list[LinkAction]:
        return []


class SkipsProbes(Link):
    """A peer is used only when it has answered on the data lane."""

    def probed(self, session: int, now_s: float) -> list[LinkAction]:
        self._probes_left = 0
        return super().probed(session, now_s)

    def _prove(self, event: Event, now_s: float) -> list[LinkAction]:
        super()._prove(event, now_s)
        return self.probed(self.session, now_s)


class TakesAnySession(Sessions):
    """A token of another session is dropped."""

    def data(
        self, route: bytes, header: Header, frame_bytes: Any, now_s: float
    ) -> list[SessionsAction]:
        session = self._by_lane.get(route)
        if session is None:
            return []
        header = header._replace(session=session.number)
        return super().data(route, header, frame_bytes, now_s)


class GoesBack(Sessions):
    """A session does not end for an older one of the same device."""

    def _is_stale(self, hello: Hello) -> bool:
        return False


class TakesAnySegment(Sessions):
    """A token for a segment that was not offered is refused."""

    def _refusal(
        self, session: Session, header: Header, frame_bytes: Any
    ) -> Nack | None:
        why = super()._refusal(session, header, frame_bytes)
        return None if why is Nack.SEGMENT else why


class TakesMoreThanGranted(Sessions):
    """A token beyond the credit is refused."""

    def _refusal(
        self, session: Session, header: Header, frame_bytes: Any
    ) -> Nack | None:
        why = super()._refusal(session, header, frame_bytes)
        return None if why is Nack.BUSY else why


class GrantsNothing(Sessions):
    """Credit comes back with every answer."""

    def _grant(self, session: Session, stream: int) -> int:
        return session.limits.get(stream, 0)


class LosesRefusedCredit(Sessions):
    """Credit comes back with a NACK as well."""

    def nack(self, session: Session, header: Header, why: Nack) -> Any:
        limits = dict(session.limits)
        reply = super().nack(session, header, why)
        session.limits.update(limits)
        limit = limits.get(header.stream, 0)
        return reply._replace(header=reply.header._replace(limit=limit))


class ForgetsThoseWhoWait(Sessions):
    """Who came while models loaded is welcomed when they are there."""

    def load_done(self, now_s: float) -> list[SessionsAction]:
        self.loaded = True
        return []


class KeepsSilentAboutItself(Sessions):
    """A beat every 50 ms."""

    def tick(self, now_s: float, **rest: Any) -> list[SessionsAction]:
        self._beat_at_s = now_s + 1.0
        return []


class BelievesAnyMessage(Link):
    """A control message of an older session has no effect."""

    def control(self, message: Control, now_s: float) -> list[LinkAction]:
        if hasattr(message, "session"):
            object.__setattr__(message, "session", self.session)
        return super().control(message, now_s)


PLANTED: list[tuple[Machines, str, str, int]] = [
    (Machines(ledger=DropsUnderOtherNumbers), "S1", "crash", 5),
    (Machines(ledger=CountsEveryAnswer), "S1", "slow", 5),
    (Machines(ledger=IgnoresAttempt), "S1", "reset", 5),
    (Machines(ledger=IgnoresFrame), "S1", "crash", 5),
    (Machines(ledger=AdmitsAlways), "S2", "crash", 5),
    (Machines(ledger=IgnoresNack), "L2", "nack", 10),
    (Machines(ledger=WaitsForEver), "L3", "freeze", 5),
    (Machines(ledger=StartsNoLocalBranch), "L2", "slow", 5),
    (Machines(ledger=StartsAgain), "B1", "nack", 5),
    (Machines(ledger=IgnoresLoss), "L2", "freeze", 20),
    (Machines(link=IgnoresCredit), "S2", "blackhole", 20),
    (Machines(link=KeepsOrdinals), "L1", "crash", 5),
    (Machines(link=KeepsSession), "S4", "freeze", 5),
    (Machines(link=NeverCloses), "L3", "crash", 5),
    (Machines(link=KeepsStarvedSession), "L1", "mute", 5),
    (Machines(link=SkipsProbes), "S7", "crash", 5),
    (Machines(link=BelievesAnyMessage), "S4", "replay", 20),
    (Machines(sessions=TakesAnySession), "S4", "replay", 5),
    (Machines(sessions=GoesBack), "S4", "replay", 10),
    (Machines(sessions=TakesAnySegment), "S3", "nack", 10),
    (Machines(sessions=TakesMoreThanGranted), "S2", "nack", 5),
    (Machines(sessions=GrantsNothing), "L1", "freeze", 5),
    (
        Machines(link=KeepsStarvedSession, sessions=LosesRefusedCredit),
        "L1",
        "nack",
        5,
    ),
    (Machines(sessions=ForgetsThoseWhoWait), "L1", "cut", 5),
    (Machines(sessions=KeepsSilentAboutItself), "L1", "cut", 5),
]
"""Machines, the promise they break, under which fault, within how many seeds."""


def _names(machines: Machines) -> str:
    planted = set(machines) - set(Machines())
    return "-".join(sorted(cls.__name__ for cls in planted))


@pytest.mark.parametrize(
    ("machines", "promise", "fault", "seeds"),
    [pytest.param(*planted, id=_names(planted[0])) for planted in PLANTED],
)
def test_a_rule_taken_out_breaks_a_promise(
    machines: Machines, promise: str, fault: str, seeds: int
) -> None:
    def run() -> None:
        for setup in setups(0, seeds, faults=(fault,), machines=machines):
            simulate(setup)

    with pytest.raises(Violation, match=f"^{promise} .* --fault {fault} "):
        run()
