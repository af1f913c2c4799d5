"""A stream at its endpoint: branches, frames, and what is checked of them."""

from collections.abc import Mapping, Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Any

from dataflow.graph import DROP_ROW
from dataflow.outcome import Status
from dataflow.wire import iterations
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.iterations import OUTSIDE, Overdue, Settle, Start
from dataflow.wire.ledger import LOCAL_MARGIN_S
from understudy.records import Result
from understudy.simulation.branches import (
    TURN_S,
    Branch,
    Frame,
    LocalBranch,
    RemoteBranch,
    asked_at_once,
)
from understudy.simulation.device import NEVER_S, SPINS_MAX
from understudy.simulation.network import Value, Wire
from understudy.simulation.scenario import Source

if TYPE_CHECKING:
    from understudy.simulation.endpoint import Endpoint

PROBING_S = 0.1
"""Period of the sources after the frames asked for, until all is well again."""
HEAD_SHARE = 1 / 8
"""A head takes at most this share of the deadline, if nobody says more."""
TOLD_S = 0.3
"""By then a beat has told what a server can reach, on a link that is sound."""
OUTSIDE_MAX = 0.8
"""A gate is sure of at most this share of the iterations."""

_TOKEN, _NACK = Kind.TOKEN, Kind.NACK
_new = tuple.__new__  # a constructor of a NamedTuple takes twice as long


class Stream:
    """The endpoint's half of a stream, as `dataflow.stream` is."""

    def __init__(
        self, endpoint: "Endpoint", source: Source, wires: Mapping[int, Wire]
    ) -> None:
        sim = endpoint.sim
        self.sim = sim
        self.endpoint = endpoint
        self.source = source
        self.period_s = source.period_s
        self.head_s = source.head_s
        if self.head_s is None:
            head_s = sim.random.choice((0.0, 0.002, 0.3 * source.period_s))
            self.head_s = min(head_s, HEAD_SHARE * source.deadline_s)
        self.branches: list[Branch] = []
        for index, row in enumerate(source.rows):
            if row.server is None:
                self.branches.append(LocalBranch(row, source.deadline_s, sim.chance))
            else:
                onward = [endpoint.servers[hop.server] for hop in row.onward]
                branch = RemoteBranch(self, index, row, wires[row.server], onward)
                branch.wire.branches[branch.number] = branch
                self.branches.append(branch)
        locals_ = [b for b in self.branches if isinstance(b, LocalBranch)]
        last_s = locals_[-1].p99_s(0.0) + LOCAL_MARGIN_S if locals_ else 0.0
        self.hedges = source.redundancy.mode == "hedge"
        self.hedged = self.forks = 0
        self._due_after_s = -NEVER_S if self.hedges else source.deadline_s - last_s
        """From the firing to when the ledger has something to do, at the earliest."""
        self.has_remote = any(not branch.local for branch in self.branches)
        self.frames_each = source.frames
        self.outside_share = OUTSIDE_MAX * sim.chance() if source.outside else 0.0
        self.ledger = sim.setup.machines.ledger(
            self.branches,
            window=source.window,
            deadline_s=source.deadline_s,
            redundancy=source.redundancy,
        )
        self.frames: dict[int, Frame] = {}
        self.results: list[Result] = []
        self.attempts = 0
        self.well_since = 0
        """Answers as good as can be, since the faults are over."""
        self.fired = 0
        """Frames; some may not make an iteration yet."""
        self.over = False
        """Its process died."""
        self.watched = 0
        """Iterations below this number may wait for a branch to become ready."""
        self._held = 0
        self._due_s = NEVER_S
        self._wake_s = NEVER_S
        self._actions: list[iterations.Action] = []
        self._acting = False

    def start(self) -> None:
        """Begin: the first frame is due now."""
        self._due_s = self.endpoint.clock_s()
        self._fire()

    def end(self) -> None:
        """Fire no more; frames that make no iteration are dropped."""
        self._due_s = NEVER_S
        if self.fired % self.frames_each:
            now_s = self.endpoint.clock_s()
            self.frames[self.ledger.fired] = Frame(now_s, False)
            self.do(self.ledger.cut_short(now_s), now_s)

    def slow_down(self) -> None:
        """The frames asked for are fired: go on until all is well again."""
        self.period_s = max(self.period_s, PROBING_S / self.frames_each)

    def hurry(self, factor: float) -> None:
        """Fire faster by `factor`, or (1) as it should."""
        if self.fired < self.sim.setup.frames:
            self.period_s = self.source.period_s / factor

    def rearm(self, now_s: float) -> None:
        """After a pause: alarms that went by unseen are set again."""
        self._wake_s = NEVER_S
        self.do(self.ledger.tick(now_s), now_s)
        if self._due_s < now_s:
            self._fire()
        self._arm(now_s)

    def turn(self) -> bool:
        """Look for branches that became ready; tell whether to look again."""
        if self.ledger.settled >= self.watched:
            return False
        now_s = self.endpoint.clock_s()
        self.do(self.ledger.tick(now_s), now_s)
        return self.ledger.settled < self.watched

    def wants(self, branch: RemoteBranch) -> bool:
        return bool(self.ledger.outstanding((branch.index,)))

    def answer(self, branch: RemoteBranch, header: Header, value: Value | None) -> None:
        """An answer or a NACK came, in the link's present session."""
        limit = header.limit
        branch.link.raise_limit(branch.number, limit)
        branch.granted = max(branch.granted, limit)
        endpoint, ledger = self.endpoint, self.ledger
        now_s = endpoint.sim.now_s * endpoint.pace + endpoint.start_s
        if branch.ready_since_s == NEVER_S and branch.ready:
            branch.ready_since_s = now_s
        if header.incarnation != endpoint.incarnation:
            return
        number, attempt = header.frame, header.attempt
        asked_s = branch.asked_s.pop(number, None)
        frame = self.frames.get(number)
        started = [] if frame is None else frame.started
        if attempt < len(started) and started[attempt] != branch.index:
            return
        if header.kind is _NACK:
            if frame is not None:
                frame.refuse(attempt, now_s)
            if header.flags == Nack.HOP:
                branch.hop_lost(now_s)
            error = header.flags not in (Nack.EXPIRED, Nack.HOP)
            self.do(ledger.refused(number, attempt, now_s, error=error), now_s)
            return
        if asked_s is not None:
            branch.service.add(now_s - asked_s, now_s)
        self.do(ledger.answer(number, attempt, value, now_s), now_s)
        if self.hedges:
            self._arm(now_s)

    def decide(self, actions: Sequence[iterations.Action]) -> None:
        """Keep what was decided; `do` carries it out, before anything newer."""
        self._actions.extend(actions)

    def do(self, actions: Sequence[iterations.Action], now_s: float) -> None:
        """Carry out `actions` after those already under way."""
        if self._actions or self._acting:
            self._actions.extend(actions)
            if self._acting:
                return
            actions, self._actions = self._actions, []
        self._acting = True
        while actions:
            for action in actions:
                if type(action) is Settle:
                    self._settle(action, now_s)
                elif type(action) is Start:
                    self._start(action, now_s)
                elif type(action) is Overdue:
                    self._overdue(action, now_s)
            actions, self._actions = self._actions, []
        self._acting = False

    def _fire(self, _: Any = None) -> None:
        endpoint, sim = self.endpoint, self.sim
        if self.over or endpoint.paused:
            return
        now_s = sim.now_s * endpoint.pace + endpoint.start_s
        if self._due_s > now_s + 1e-9:
            return  # ended, or this alarm was overtaken
        # A camera keeps its beat: what was missed is missed, and has no number.
        period_s = self.period_s
        late = int((now_s - self._due_s) / period_s)
        self._due_s = due_s = self._due_s + (late + 1) * period_s
        due_s = (due_s - endpoint.start_s) / endpoint.pace
        heappush(sim.heap, (due_s, next(sim.count), self._fire, None))
        self.fired += 1
        if self.fired == sim.setup.frames:
            self.slow_down()
        if self.fired % self.frames_each:
            return
        number, admitted, actions = self.ledger.fire(now_s)
        if number in self.frames or number < len(self.results):
            sim.fail("S1", f"number {number} again")
        self.frames[number] = Frame(now_s, admitted)
        if admitted:
            self._held += 1
            if self._held > self.source.window:
                text = f"{self._held} admitted of {self.source.window}"
                sim.fail("S2", text)
        if actions:
            self.do(actions, now_s)
        if not admitted:
            return
        if self.head_s:
            forked_s = sim.now_s + self.head_s
            heappush(sim.heap, (forked_s, next(sim.count), self._forked, number))
        else:
            self._forked(number)

    def _forked(self, number: int) -> None:
        if self.over:
            return
        endpoint = self.endpoint
        if endpoint.paused:
            endpoint.keep(self, self._forked, number)
            return
        now_s = self.sim.now_s * endpoint.pace + endpoint.start_s
        frame = self.frames.get(number)
        if frame is not None:
            frame.forked_s = now_s
            if self.outside_share and self.sim.chance() < self.outside_share:
                value = self.source.number, number, OUTSIDE
                self.do(self.ledger.outside(number, value, now_s), now_s)
                return
            left_s = frame.fired_s + self.source.deadline_s - now_s
            wanted = asked_at_once(self.branches, self.source.redundancy, left_s, now_s)
            actions = self.ledger.forked(number, now_s)
            self.forks += 1
            started = 0
            for action in actions:
                started += type(action) is Start
            if started != wanted:
                text = f"{self._who(number)}: {started} started of {wanted}"
                self.sim.fail("M1", text)
            self.do(actions, now_s)
            if self._wake_s > frame.fired_s + self._due_after_s:
                self._arm(now_s)
        if endpoint.alert:
            endpoint.turn()

    def _check_hedge(self, start: Start) -> None:
        if start.attempt and start.instead_of is None:
            self.hedged += 1
            share = self.source.redundancy.hedged_share
            most = self.source.window + share * self.forks
            text = f"{self.hedged} hedged of {self.forks}, at most {most:.1f}"
            self.sim.check("M2", self.hedged <= most, text)

    def _arm(self, now_s: float) -> None:
        """Wake when the ledger has something to do."""
        due_s = self.ledger.due_s(now_s)
        if due_s < self._wake_s:
            self._wake_s = due_s
            self.endpoint.alarm(due_s, self._wake)

    def _wake(self, _: float) -> None:
        endpoint = self.endpoint
        now_s = endpoint.clock_s()
        if self.over or endpoint.paused or self._wake_s > now_s:
            return
        self._wake_s = NEVER_S
        for _turn in range(SPINS_MAX):
            self.do(self.ledger.tick(now_s), now_s)
            if self.ledger.due_s(now_s) > now_s:
                break
        else:
            text = f"stream {self.source.name} is always due, with nothing to do"
            self.sim.fail("L3", text)
        self._arm(now_s)
        endpoint.turn()

    def _start(self, start: Start, now_s: float) -> None:
        number, index, attempt, budget_s, _ = start
        frame = self.frames.get(number)
        if frame is None:
            return
        sim, branch = self.sim, self.branches[index]
        if sim.tracing:
            sim.note(f"{self.source.name}: {number} on {branch.row.name}")
        started = frame.started
        if index in started:
            sim.fail("B1", f"{branch.row.name} started twice")
        if attempt != len(started):
            sim.fail("B1", "attempts skip")
        if not frame.admitted:
            sim.fail("S5", "started what was not retained")
        started.append(index)
        if self.hedges:
            self._check_hedge(start)
        self.attempts += 1
        if isinstance(branch, RemoteBranch):
            self._send(branch, number, attempt, budget_s, now_s)
        elif isinstance(branch, LocalBranch) and branch.best_s:
            sim.at(sim.now_s + branch.takes_s(), self._local_answer, start)
        else:
            self._local_answer(start)

    def _local_answer(self, start: Start) -> None:
        endpoint = self.endpoint
        if self.over:
            return
        if endpoint.paused:
            endpoint.keep(self, self._local_answer, start)
            return
        now_s = endpoint.clock_s()
        number, index, attempt, _, _ = start
        value = self.source.number, number, index
        self.do(self.ledger.answer(number, attempt, value, now_s), now_s)
        if endpoint.alert:
            endpoint.turn()

    def _send(
        self,
        branch: RemoteBranch,
        number: int,
        attempt: int,
        budget_s: float,
        now_s: float,
    ) -> None:
        link, stream = branch.link, branch.number
        sent = False
        if link.takes(stream):
            header = _new(Header, (
                _TOKEN, link.session, stream, 0, attempt, branch.index, 0, 1,
                self.endpoint.incarnation, branch.row.segment, number,
                link.take_ordinal(stream), 0, microseconds(budget_s), 0, 0, 0,
            ))  # fmt: skip
            value = self.source.number, number, branch.index
            sent = self.endpoint.send_token(branch.wire, header, value)
        # Else several starts were decided at once, and the credit went to the first.
        if sent:
            if branch.ways:
                self._check_way(branch)
            branch.sent += 1
            branch.asked_s[number] = now_s
            if branch.sent >= branch.granted:
                branch.ready_since_s = NEVER_S
            if branch.sent > branch.granted:
                name = branch.row.name
                text = f"{branch.sent} tokens sent to {name}, {branch.granted} granted"
                self.sim.fail("S2", text)
        else:
            self.do(self.ledger.refused(number, attempt, now_s, error=False), now_s)

    def _check_way(self, branch: RemoteBranch) -> None:
        """Its server did not tell that it cannot pass the token on."""
        wire, now_s = branch.wire, self.sim.now_s
        text = f"{branch.row.name} is tried again, though nobody said that it is there"
        self.sim.check("R2", branch.hopped_s <= max(wire.told_s, wire.up_s), text)
        server, onward = wire.server, wire.server.onward
        if onward is None or not wire.plain or server.paused:
            return
        name = branch.ways[0]
        sound_s = max(
            wire.looked_s, wire.up_s, server.resumed_s, self.endpoint.resumed_s
        )
        lost_s = now_s - max(onward.lost_s[name], sound_s)
        text = f"{server.name} has lost {name} for {lost_s:.3f} s, and does not say so"
        self.sim.check("R2", lost_s < TOLD_S, text)

    def _settle(self, settle: Settle, now_s: float) -> None:
        number, index, reason, value, fired_s, decided_s, attempts = settle
        sim, results = self.sim, self.results
        if number != len(results):
            sim.fail("S1", f"{self._who(number)}: not {len(results)}")
        frame = self.frames.pop(number)
        if frame.admitted:
            self._held -= 1
        stalled = self.endpoint.thawed_s >= frame.fired_s
        if now_s - frame.fired_s > self.source.deadline_s + TURN_S and not stalled:
            sim.fail(
                "D1",
                f"{self._who(number)}: after {now_s - frame.fired_s:.3f} s, deadline "
                f"{self.source.deadline_s:.3f} s",
            )
        status: Status = "dropped"
        name = DROP_ROW
        if index is None:
            if not stalled and reason not in ("window", "rate", "end"):
                self._check_drop(settle, frame)
        else:
            if index == OUTSIDE:
                sim.check("B2", not frame.started, f"{self._who(number)}: both ways")
                status, name, best = "full", self.source.outside, not self.has_remote
            else:
                row = self.branches[index].row
                status, name = row.quality, row.name
                best = status == "full" or row.server is not None or index == 0
            self.well_since += best
            if value != (self.source.number, number, index):
                sim.fail("S1", f"{self._who(number)}: {value} by {name}")
        first = number * self.frames_each
        last = min(first + self.frames_each, self.fired) - 1
        results.append(
            _new(Result, (
                number + 2, first, last, status, name, reason, fired_s, decided_s,
                attempts, (), (), None,
            ))
        )  # fmt: skip
        if sim.tracing:
            sim.note(f"{self.source.name}: {number} {status} {reason or name}")

    def _check_drop(self, settle: Settle, frame: Frame) -> None:
        """A frame is not dropped while a sound branch was there for it."""
        deadline_s = frame.fired_s + self.source.deadline_s
        for branch in self.branches:
            if branch.was_there(frame, settle, deadline_s):
                who, name = self._who(settle.iteration), branch.row.name
                text = f"{who}: dropped({settle.reason}), {name} was there"
                self.sim.fail("L2", text)

    def _overdue(self, overdue: Overdue, now_s: float) -> None:
        branch = self.branches[overdue.branch]
        assert isinstance(branch, RemoteBranch), "only links are overdue"
        limit_s = branch.link.slow_ms / 1e3
        if not overdue.crowded:
            limit_s = max(limit_s, 4 * branch.p99_s(now_s))
        if overdue.waited_s > limit_s * 0.9:
            text = f"frame {overdue.iteration} unanswered"
            self.endpoint.do(branch.wire, branch.link.overdue(text, now_s))

    def _who(self, number: int) -> str:
        return f"{self.source.name} frame {number}"
