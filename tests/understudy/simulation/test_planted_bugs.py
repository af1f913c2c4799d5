"""Proof that each rule of the protocol is needed, and that the simulator sees it.

A planted bug is a machine with one rule taken out. If the simulator does not catch it
within the seeds of the default suite, the simulator is blind there.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dataflow.redundancy import Redundancy
from dataflow.turns import Batching, Turns
from dataflow.wire.control import Beat, Bye, Control, Hello
from dataflow.wire.header import Header, Nack
from dataflow.wire.iterations import Action, Iteration, Settle
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.link_states import Action as LinkAction
from dataflow.wire.link_states import Event, State
from dataflow.wire.relay import Passed, Relay
from dataflow.wire.session import Accept, Session
from dataflow.wire.session import Action as SessionsAction
from dataflow.wire.sessions import Sessions
from understudy.simulation.scenario import drawn
from understudy.simulation.setup import Machines, Setup, Violation
from understudy.simulation.simulation import simulate

SEEDS = 2000
"""As many as `test_simulation` runs of the machines as they are."""
FRAMES = 40


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

    def _local_start_s(self, iteration: Iteration, now_s: float) -> float:
        return float("inf")


class StartsAgain(Ledger):
    """Each branch at most once per iteration."""

    def _advance(self, iteration: Iteration, now_s: float) -> list[Action]:
        iteration.tried = 0
        return super()._advance(iteration, now_s)


class IgnoresLoss(Ledger):
    """What was under way at a lost peer is started elsewhere."""

    def lost(self, branches: Any, now_s: float, *, final: bool) -> list[Action]:
        return []


class IgnoresCredit(Link):
    """Credit."""

    def takes(self, stream: int) -> bool:
        return self.ready

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

    def starved_s(self, now_s: float) -> float:
        return 0.0


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
    """Each beat is answered."""

    def tick(self, now_s: float, **rest: Any) -> list[SessionsAction]:
        self._owed.clear()
        self._look_at_s = now_s + 1.0
        return []


class BelievesAnyMessage(Link):
    """A control message of an older session has no effect."""

    def control(self, message: Control, now_s: float) -> list[LinkAction]:
        if hasattr(message, "session"):
            object.__setattr__(message, "session", self.session)
        return super().control(message, now_s)


class AsksOneAtATime(Ledger):
    """`replicate` starts several branches at once."""

    def forked(self, number: int, now_s: float) -> list[Action]:
        self._redundancy = Redundancy()
        return super().forked(number, now_s)


class HedgesWithoutBound(Ledger):
    """Extra load by hedging is bounded, whatever seems late."""

    def _advance(self, iteration: Iteration, now_s: float) -> list[Action]:
        self._hedges_left = 1.0
        return super()._advance(iteration, now_s)

    def _hedge_at_s(self, iteration: Iteration) -> float:
        return super()._hedge_at_s(iteration) - 0.001


class LosesTheRest(Ledger):
    """Frames that make no iteration any more are accounted for."""

    def cut_short(self, now_s: float) -> list[Action]:
        return []


class AnswersOutsideTwice(Ledger):
    """A gate that is sure passes the region by: no branch plays for that frame."""

    def outside(self, number: int, value: Any, now_s: float) -> list[Action]:
        started = self.forked(number, now_s)
        return [*started, *super().outside(number, value, now_s)]


class NeverDoubts(Link):
    """A peer that falls silent, or says that it ended the session, is suspect."""

    def _doubt(self, evidence: Any, text: str, now_s: float) -> list[LinkAction]:
        if evidence in ("beat", "bye"):
            self._pulse.doubted()
            return []
        return super()._doubt(evidence, text, now_s)


class BelievesItsOwnClock(Link):
    """What a beat says of the peer's clock is held against our own."""

    def _measure(self, beat: Beat, now_s: float) -> list[LinkAction]:
        return super()._measure(replace(beat, clock_us=beat.echo_us), now_s)


class WaitsForWelcome(Link):
    """A welcome that was lost is asked for again."""

    def _judge(self, beat: Beat, now_s: float) -> list[LinkAction]:
        return [] if self.state is State.LOADING else super()._judge(beat, now_s)


class PlaysAfterDeadline(Ledger):
    """Deadlines: past its own, a frame is dropped."""

    def __init__(self, branches: Any, *, deadline_s: float, **rest: Any) -> None:
        super().__init__(branches, deadline_s=2 * deadline_s, **rest)


class AnswersWhatIsSettled(Ledger):
    """A late answer of a settled iteration has no effect."""

    def _find(self, number: int) -> Iteration | None:
        found = super()._find(number)
        if found is None and self._open:
            return self._open[0]
        return found


class HangsUpAtBye(Link):
    """What a server that says goodbye has under way still counts."""

    def control(self, message: Control, now_s: float) -> list[LinkAction]:
        if isinstance(message, Bye) and message.session == self.session and self.ready:
            return [*self._doubt("bye", "", now_s), *self._close(now_s)]
        return super().control(message, now_s)


class TakesWhileLeaving(Sessions):
    """Nobody new is taken by a server that goes."""

    def bye(self) -> list[SessionsAction]:
        actions = super().bye()
        self._leaving = False
        return actions


class KeepsWhatIsLost(Relay):
    """What was passed on to a server that is lost gets NACK(hop)."""

    def lost(self, peer: str) -> list[Passed]:
        return []


class KeepsLossesSecret(Relay):
    """Beats list the ways that end behind a relay."""

    def unreachable(self, links: Mapping[str, Link]) -> tuple[str, ...]:
        return ()


class NeverFindsAnother(Relay):
    """Beats no longer list a way that can be taken again."""

    def unreachable(self, links: Mapping[str, Link]) -> tuple[str, ...]:
        self._told = tuple({*getattr(self, "_told", ()), *super().unreachable(links)})
        return self._told


class WaitsForAnswers(Relay):
    """What nobody waits for any more is refused, and its credit comes back."""

    def expired(self, now_s: float) -> list[tuple[str, Passed]]:
        return []

    def due_s(self) -> float:
        return float("inf")


class MixesUp(Relay):
    """Tags: an answer goes back to whoever it belongs to."""

    def returned(self, link: Link, answer: Header) -> Passed | None:
        link.raise_limit(answer.stream, answer.limit)
        for key in self._passed:
            if key[0] == link.peer:
                return self._passed.pop(key)
        return None


class PassesOnWithoutCredit(Relay):
    """A relay keeps to the credit that the next server gave."""

    def pass_on(self, link: Link, passed: Passed, **rest: Any) -> Header | Nack:
        asked = self._next[passed.header.segment]
        link.raise_limit(self._number(asked), 10**6)
        return super().pass_on(link, passed, **rest)


class IgnoresHop(Link):
    """NACK(hop): the way is not tried again until a beat says that it is there."""

    def way_lost(self, way: str) -> None:
        pass


class FiresAll(Turns[Any]):
    """A batch is bounded."""

    def add(self, job: Any, *, batching: Batching, **rest: Any) -> None:
        batching = Batching(2 * batching.most, batching.wait_s)
        super().add(job, batching=batching, **rest)


class FirstComeFirstServed(Turns[Any]):
    """Sessions take turns, whoever filled the queue first."""

    def add(self, job: Any, *, session: Any, **rest: Any) -> None:
        super().add(job, session="all of them", **rest)


class WaitsToBeFull(Turns[Any]):
    """A lone token does not wait for others for ever."""

    def add(
        self, job: Any, *, batching: Batching, latest_s: float, **rest: Any
    ) -> None:
        super().add(job, batching=Batching(batching.most, 1e9), **rest)


class MixesSegments(Turns[Any]):
    """Only tokens of one segment are fired as one."""

    def add(self, job: Any, *, chain: Any, **rest: Any) -> None:
        super().add(job, chain="any", **rest)


class NacksSilently(Sessions):
    """A refused token is answered: NACK(segment), so that another branch starts."""

    def data(
        self, route: bytes, header: Header, frame_bytes: Any, now_s: float
    ) -> list[SessionsAction]:
        actions = super().data(route, header, frame_bytes, now_s)
        return [action for action in actions if isinstance(action, Accept)]


def _ledger(ledger: type[Ledger]) -> Machines:
    return Machines(ledger=ledger)


def _link(link: type[Link]) -> Machines:
    return Machines(link=link)


def _sessions(sessions: type[Sessions]) -> Machines:
    return Machines(sessions=sessions)


def _relay(relay: type[Relay]) -> Machines:
    return Machines(relay=relay)


def _turns(turns: type[Turns[Any]]) -> Machines:
    return Machines(turns=turns)


PLANTED: list[tuple[Machines, str, str]] = [
    (_ledger(CountsEveryAnswer), "S1", "slow"),
    (_ledger(AnswersWhatIsSettled), "S1", "slow"),
    (_ledger(DropsUnderOtherNumbers), "S1", "crash"),
    (_ledger(IgnoresAttempt), "S1", "reset"),
    (_ledger(IgnoresFrame), "S1", "crash"),
    (_ledger(AdmitsAlways), "S2", "burst"),
    (_ledger(IgnoresNack), "L2", "nack"),
    (_ledger(WaitsForEver), "L3", "freeze"),
    (_ledger(PlaysAfterDeadline), "D1", "slow"),
    (_ledger(StartsNoLocalBranch), "L2", "slow"),
    (_ledger(StartsAgain), "B1", "nack"),
    (_ledger(IgnoresLoss), "L2", "freeze"),
    (_ledger(AsksOneAtATime), "M1", "crash"),
    (_ledger(HedgesWithoutBound), "M2", "slow"),
    (_ledger(LosesTheRest), "S6", "cut"),
    (_ledger(AnswersOutsideTwice), "B2", "cut"),
    (_link(IgnoresCredit), "S2", "mute"),
    (_link(KeepsOrdinals), "L1", "crash"),
    (_link(KeepsSession), "L1", "freeze"),
    (_link(NeverCloses), "L3", "crash"),
    (_link(NeverDoubts), "L1", "stall"),
    (_link(KeepsStarvedSession), "L1", "mute"),
    (_link(BelievesItsOwnClock), "C1", "slow"),
    (_link(WaitsForWelcome), "L1", "crash,lose"),
    (_link(SkipsProbes), "S7", "crash"),
    (_link(HangsUpAtBye), "L4", "stop"),
    (_link(BelievesAnyMessage), "S4", "replay"),
    (_sessions(TakesAnySession), "S4", "replay"),
    (_sessions(GoesBack), "S4", "replay"),
    (_sessions(TakesAnySegment), "S3", "nack"),
    (_sessions(NacksSilently), "L1", "nack"),
    (_sessions(TakesMoreThanGranted), "S2", "nack"),
    (_sessions(GrantsNothing), "L1", "freeze"),
    (_sessions(TakesWhileLeaving), "S8", "stop"),
    (_sessions(KeepsSilentAboutItself), "L1", "cut"),
    (_relay(KeepsWhatIsLost), "R1", "crash"),
    (_relay(KeepsLossesSecret), "R2", "crash"),
    (_relay(NeverFindsAnother), "L1", "crash"),
    (_relay(WaitsForAnswers), "A1", "mute"),
    (_relay(MixesUp), "S1", "slow"),
    (_relay(PassesOnWithoutCredit), "S2", "slow"),
    (_link(IgnoresHop), "R2", "crash"),
    (_turns(FiresAll), "T1", "slow"),
    (_turns(MixesSegments), "T1", "slow"),
    (_turns(FirstComeFirstServed), "T2", "slow"),
    (_turns(WaitsToBeFull), "T3", "crash"),
    # These two rules stand in for one another: only without both is anything broken.
    (Machines(link=KeepsStarvedSession, sessions=LosesRefusedCredit), "L1", "nack"),
    (Machines(link=WaitsForWelcome, sessions=ForgetsThoseWhoWait), "L1", "crash"),
]
"""Machines, the promise that they break, and the faults that show it soon."""


def _names(machines: Machines) -> str:
    planted = set(machines) - set(Machines())
    return "-".join(sorted(cls.__name__ for cls in planted))


def _first_violation(machines: Machines, faults: tuple[str, ...] | None) -> str:
    for seed in range(SEEDS):
        try:
            simulate(
                Setup(
                    seed, drawn(seed), frames=FRAMES, faults=faults, machines=machines
                )
            )
        except Violation as violation:
            return violation.promise
    return "none"


@pytest.mark.parametrize(
    ("machines", "promise", "faults"),
    [pytest.param(*planted, id=_names(planted[0])) for planted in PLANTED],
)
def test_a_rule_taken_out_breaks_a_promise(
    machines: Machines, promise: str, faults: str
) -> None:
    assert _first_violation(machines, tuple(faults.split(","))) == promise


@pytest.mark.slow
@pytest.mark.parametrize(
    "machines", [pytest.param(planted[0], id=_names(planted[0])) for planted in PLANTED]
)
def test_the_default_seeds_show_every_rule_taken_out(machines: Machines) -> None:
    assert _first_violation(machines, None) != "none"
