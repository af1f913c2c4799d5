"""The endpoint's half of a stream: source, prefix, region, sink.

A source fires at its pace and numbers its frames. An admitted frame runs the prefix up
to the fork; the ledger names its row; a local branch runs here, a remote one is sent;
the outcome is handed to the sink, in order. All of it happens in the device's I/O loop,
except chains that the executor hands to the compute thread.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour, Sink, Source, StreamEnd
from dataflow.branches import LocalBranch, RemoteBranch, number_of
from dataflow.clock import now_s as clock_s
from dataflow.engine import Chain
from dataflow.errors import ActorError, UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor, time_chain
from dataflow.graph import DROP_ROW, PortRef
from dataflow.meters import StreamMeter
from dataflow.outcome import Outcome, Status
from dataflow.pacing import Pacer
from dataflow.parts import BranchPart, ChainPart, StreamPart, make_chain
from dataflow.suffix import Suffix
from dataflow.wire.control import StreamOffer
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.ledger import OUTSIDE, Action, Ledger, Overdue, Settle, Start
from dataflow.wire.link import SLOW_FACTOR, Link
from dataflow.wire.rows import grades


def offers_of(parts: Iterable[StreamPart]) -> dict[str, list[StreamOffer]]:
    """Return what streams want of each server, by its name."""
    found: dict[str, list[StreamOffer]] = {}
    for part in parts:
        for each in part.branches:
            if each.sends:
                offer = StreamOffer(
                    stream=number_of(part.region.stream, each.branch.row),
                    name=part.region.stream,
                    segment=each.branch.segment,
                    window=part.region.window,
                )
                found.setdefault(each.branch.device, []).append(offer)
    return found


class Outbox(Protocol):
    """What a stream needs of its device to send."""

    def send_token(self, link: Link, header: Header, frames: Sequence[Any]) -> bool:
        """Send on the data lane; False when it would block or nobody is there."""

    def overdue(self, link: Link, text: str, now_s: float) -> None:
        """Tell the link that an attempt is older than a slow model explains."""


@dataclass(slots=True)
class _Retained:
    """What is kept of an iteration until it is settled."""

    made: list[Any]
    """The tokens of each output port of the source, then of the prefix."""
    mode: int
    """Of the DPG around the region; -1: there is none."""
    fork: Sequence[Any] = ()
    """The tokens at the fork, before any codec."""


class Stream:
    """One source, in this life of its process, and all that answers it here.

    Args:
        part: Its part of the plain graph.
        behaviours: The actors of the part, made and started.
        links: Links of this device, by peer.
    """

    def __init__(
        self,
        part: StreamPart,
        *,
        behaviours: Mapping[str, Behaviour],
        links: Mapping[str, Link],
        incarnation: int,
        executor: Executor,
        outbox: Outbox,
        events: EventLog,
    ) -> None:
        self.name = part.region.stream
        self.incarnation = incarnation
        self._part = part
        self._behaviours = behaviours
        self._executor = executor
        self._outbox = outbox
        self._events = events
        source, sink = behaviours[part.source], behaviours[part.region.sink]
        if not isinstance(source, Source) or not isinstance(sink, Sink):
            raise UnderstudyError(
                f"stream '{self.name}': '{part.source}' is no source or "
                f"'{part.region.sink}' is no sink; give actors of such types"
            )
        self._sink = sink
        ports = part.prefix.graph.actors[part.source].outputs
        self._pacer = Pacer(source, part.source, ports, part.frames)
        # Where a retained token is found: the source's come first, then the prefix's.
        source_ports = [PortRef(part.source, port.name) for port in ports]
        made = [*source_ports, *part.prefix.outputs]
        self._prefix_reads = [made.index(ref) for ref in part.prefix.sources]
        self._fork_reads = [made.index(ref) for ref in part.fork_reads]
        self._mode_read = made.index(part.around.port) if part.around else -1
        self._answer_reads = (
            {mode: made.index(ref) for mode, ref in part.around.answers.items()}
            if part.around
            else {}
        )
        self._prefix, _ = self._make_chain(part.prefix, part.frames)
        suffix, _ = self._make_chain(part.suffix)
        assert suffix is not None, "a stream without a sink"
        self._suffix = Suffix(part, suffix, made, len(source_ports))
        home = part.prefix.graph.actors[part.region.fork].device
        alike = grades(part.region.branches, home)
        self.branches: list[LocalBranch | RemoteBranch] = [
            self._make_branch(branch, links, grade)
            for branch, grade in zip(part.branches, alike, strict=True)
        ]
        self._asked = {
            b.number: b for b in self.branches if isinstance(b, RemoteBranch)
        }
        self._ledger = Ledger(
            self.branches,
            window=part.region.window,
            deadline_s=part.region.deadline_ms / 1e3,
            redundancy=part.region.redundancy,
        )
        self._retained: dict[int, _Retained] = {}
        self._actions: deque[Action] = deque()
        self._acting = False
        self._row: int | None = OUTSIDE
        """Branch that answered last, None for a drop; `OUTSIDE`: none has yet."""
        standby = part.region.redundancy.mode == "standby"
        self._kinds = range(len(alike)) if standby else alike
        """Who plays, as events tell it: where alike servers answer in turn or at once,
        it changes when their kind does, and not with every frame."""
        self.ending = False
        self.ended = False
        self.counts = {"full": 0, "degraded": 0, "dropped": 0}
        self.meter = StreamMeter()

    def start(self, now_s: float) -> None:
        """Begin: the first frame is due now."""
        self._pacer.begin(now_s)
        self._events.write(
            "stream.started",
            stream=self.name,
            incarnation=f"{self.incarnation:016x}",
            source=self._part.source,
            rate_hz=self._pacer.rate_hz,
        )

    def end(self) -> None:
        """Fire no more; what is under way is still answered."""
        self.ending = True
        self._pacer.end()
        self._cut_short()

    def tick(self, now_s: float) -> float:
        """Time passed, or a branch became ready; return when there is more to do."""
        self._do(self._ledger.tick(now_s), now_s)
        if now_s >= self._pacer.due_s:
            self._fire(now_s)
        if self.ending and self._ledger.idle and not self.ended:
            self._finish()
        return min(self._pacer.due_s, self._ledger.due_s(now_s))

    def abort(self, now_s: float) -> None:
        """The device fails: account for what is under way, as far as the sink lives."""
        if not self.ended:
            # Outcomes that the ledger has let go of are still to be handed over; what
            # was to be started would only fail again.
            self._actions = deque(a for a in self._actions if isinstance(a, Settle))
            self._cut_short()
            self._do(self._ledger.abort(now_s), now_s)
            self._finish()

    def lost(self, link: Link, now_s: float, *, final: bool) -> list[int]:
        """A link became suspect or died: decide, and `act` on it later.

        Returns:
            The first frames of the iterations that were under way there.
        """
        gone = self._on(link)
        hit = self._ledger.outstanding(gone)
        self._actions.extend(self._ledger.lost(gone, now_s, final=final))
        return [self._first(iteration) for iteration in hit]

    def act(self, now_s: float) -> None:
        """Carry out what was decided."""
        self._do((), now_s)

    def reachable(self, link: Link, now_s: float) -> None:
        """A link is ready (again): what it measured before says nothing of now."""
        for branch in self.branches:
            if isinstance(branch, RemoteBranch) and branch.link is link:
                branch.forget()
        self._do(self._ledger.tick(now_s), now_s)

    def owns(self, number: int) -> bool:
        """Tell whether a number on the wire is that of one of its branches."""
        return number in self._asked

    @property
    def awaited(self) -> list[str]:
        """Servers that stand behind others, and to which no way is known yet."""
        return [
            branch.part.branch.onward[-1].device
            for branch in self._asked.values()
            if branch.link.ready and not branch.reachable
        ]

    def wants(self, link: Link) -> bool:
        """Tell whether an answer from `link` could still be of use."""
        return bool(self._ledger.outstanding(self._on(link)))

    def answer(
        self, link: Link, header: Header, frames: Sequence[bytes], now_s: float
    ) -> None:
        """An answer or a NACK came from the peer of `link`, in its present session."""
        link.raise_limit(header.stream, header.limit)
        branch = self._asked[header.stream]
        if branch.link is not link or header.incarnation != self.incarnation:
            self._events.rejected["stream"] += 1
            return
        asked = self._ledger.branch_of(header.frame, header.attempt)
        if asked is not None and self.branches[asked] is not branch:
            self._events.rejected["attempt"] += 1
            return  # it was never asked that
        asked_s = branch.asked_s.pop(header.frame, None)
        if header.kind is Kind.NACK:
            if header.flags == Nack.HOP:
                branch.hop_lost()
            error = header.flags not in (Nack.EXPIRED, Nack.HOP)
            why = _nack_name(header.flags)
            self.meter.nacks[link.peer, why] += 1
            if header.flags != Nack.EXPIRED:
                self._events.write(
                    "frame.refused",
                    stream=self.name,
                    frame=self._first(header.frame),
                    peer=link.peer,
                    why=why,
                )
            self._do(
                self._ledger.refused(header.frame, header.attempt, now_s, error=error),
                now_s,
            )
            return
        # An answer too late to count still tells how long the server takes.
        if asked_s is not None:
            branch.service.add(now_s - asked_s, now_s)
        if [len(frame) for frame in frames] != branch.received_bytes:
            self._events.rejected["answer"] += 1
            self._do(
                self._ledger.refused(header.frame, header.attempt, now_s, error=True),
                now_s,
            )
            return
        token = branch.part.received[0]
        value = np.ndarray(token.shape, token.dtype, frames[0])
        self._do(self._ledger.answer(header.frame, header.attempt, value, now_s), now_s)

    @property
    def source(self) -> str:
        return self._part.source

    @property
    def fired(self) -> int:
        """Frames that the source has numbered."""
        return self._pacer.fired

    @property
    def missed(self) -> int:
        """Firings that the device came too late for; they have no number."""
        return self._pacer.missed

    @property
    def window(self) -> tuple[int, int]:
        """Frames without an outcome yet, and how many are admitted at most."""
        frames, limit = self._part.frames, self._part.region.window
        return (self._ledger.fired - self._ledger.settled) * frames, limit * frames

    @property
    def late_answers(self) -> int:
        return self._ledger.late_answers

    @property
    def chains(self) -> list[Chain]:
        """All that fire here."""
        branches = (branch.chain for branch in self.branches)
        chains = (self._prefix, *branches, self._suffix.chain)
        return [chain for chain in chains if chain is not None]

    def describe(self) -> dict[str, Any]:
        """Return what `understudy status` shows of the stream."""
        return {
            "stream": self.name,
            "frames": self._pacer.fired,
            "row": "" if self._row == OUTSIDE else self._row_name(self._row),
            **self.counts,
        }

    def _make_chain(
        self, part: ChainPart, firings: int = 1
    ) -> tuple[Chain | None, float]:
        """Return the chain of `part` and its best time in seconds.

        A chain with state is not fired for a trial: it runs inline, its time unknown.

        Args:
            part: What it is made of.
            firings: Per iteration, of what feeds it.
        """
        if not part:
            return None, 0.0
        chain, best_s = make_chain(part, self._behaviours), 0.0
        if not any(part.graph.actors[name].stateful for name in part.actors):
            best_s = time_chain(chain, part.zeros(firings))
            self._executor.place(chain, best_s)
        return chain, best_s

    def _make_branch(
        self, part: BranchPart, links: Mapping[str, Link], grade: int
    ) -> LocalBranch | RemoteBranch:
        chain, best_s = self._make_chain(part.chain)
        if part.sends:
            link = links[part.branch.device]
            made = RemoteBranch(part, chain, link, stream=self.name, grade=grade)
            if made.compression is not None:
                tried_s = made.compression.time_s(part.sent)
                self._executor.place(made.compression, tried_s)
            return made
        return LocalBranch(part, chain, best_s, grade)

    def _fire(self, now_s: float) -> None:
        began_s = clock_s()
        try:
            made = self._pacer.fire(now_s)
        except StreamEnd:
            self.end()
            return
        fired_s = clock_s()
        self.meter.source_busy_s += fired_s - began_s
        if made is None:
            return
        iteration, admitted, actions = self._ledger.fire(fired_s)
        self._retain(iteration, made, admitted=admitted)
        self._do(actions, fired_s)
        if not admitted:
            return
        if self._prefix is None:
            self._computed(iteration, [], 0.0, 0.0)
            return
        inputs = [made[index] for index in self._prefix_reads]
        # What waited half its time for the prefix would be too late behind it.
        expires_s = fired_s + self._part.region.deadline_ms / 2e3
        self._executor.submit(
            self._prefix,
            inputs,
            partial(self._computed, iteration),
            expires_s=expires_s,
        )

    def _retain(self, iteration: int, made: list[Any], *, admitted: bool) -> None:
        # Of frames that are not admitted only what the sink reads is kept, as a copy:
        # the source keeps its memory for a window and two, and these may be more.
        kept = made if admitted else self._suffix.for_sink(made)
        # Admission comes before the mode is known: what is dropped there is dropped
        # as the region drops.
        mode = -1 if self._part.around is None else self._part.around.inside
        self._retained[iteration] = _Retained(kept, mode)

    def _cut_short(self) -> None:
        """Drop the frames of an iteration that will not be complete."""
        made = self._pacer.rest()
        if made:
            now_s = clock_s()
            self._retain(self._ledger.fired, made, admitted=False)
            self._do(self._ledger.cut_short(now_s), now_s)

    def _computed(
        self,
        iteration: int,
        results: list[Any] | None,
        _queue_s: float,
        _compute_s: float,
    ) -> None:
        """The prefix has run: enter the region, or pass it by."""
        retained = self._retained.get(iteration)
        if retained is None or results is None:
            return  # dropped at its deadline while the prefix ran
        made = retained.made
        made.extend(results)
        now_s = clock_s()
        if self._part.around is not None:
            retained.mode = int(made[self._mode_read])
            if retained.mode in self._answer_reads:
                value = made[self._answer_reads[retained.mode]]
                self._do(self._ledger.outside(iteration, value, now_s), now_s)
                return
        retained.fork = [made[index] for index in self._fork_reads]
        self._do(self._ledger.forked(iteration, now_s), now_s)

    def _do(self, actions: Sequence[Action], now_s: float) -> None:
        """Carry out `actions` after those already under way.

        Carrying one out may have consequences at once: a branch that answers inline, a
        send that shows a dead peer. Theirs come later in the queue, so that outcomes
        reach the sink in the ledger's order.
        """
        self._actions.extend(actions)
        if self._acting or not self._actions:
            return
        self._acting = True
        try:
            while self._actions:
                action = self._actions.popleft()
                match action:
                    case Start():
                        self._start(action)
                    case Settle():
                        self._settle(action)
                    case Overdue():
                        self._tell_overdue(action, now_s)
        finally:
            self._acting = False

    def _start(self, start: Start) -> None:
        branch = self.branches[start.branch]
        retained = self._retained.get(start.iteration)
        if retained is None:
            return  # settled by an action before this one
        self.meter.attempts[branch.part.branch.row] += 1
        fork = retained.fork
        tokens = [fork[index] for index in branch.part.reads]
        if isinstance(branch, LocalBranch) and branch.chain is None:
            self._local_answer(start, tokens, 0.0, 0.0)
        elif isinstance(branch, LocalBranch):
            assert branch.chain is not None
            self._executor.submit(
                branch.chain,
                tokens,
                partial(self._local_answer, start),
                expires_s=clock_s() + start.budget_s,
            )
        elif branch.chain is None:
            self._pack(branch, start, fork, [])
        else:
            self._executor.submit(
                branch.chain,
                tokens,
                partial(self._encoded, branch, start),
                expires_s=clock_s() + start.budget_s,
            )
        if start.instead_of is not None:  # told after the fact: frames first
            self._events.write(
                "frame.restarted",
                stream=self.name,
                frame=self._first(start.iteration),
                **{"from": self._row_name(start.instead_of)},
                to=self._row_name(start.branch),
            )

    def _local_answer(
        self, start: Start, results: list[Any] | None, _queue: float, _compute: float
    ) -> None:
        now_s = clock_s()
        if results is None:
            return
        self._do(
            self._ledger.answer(start.iteration, start.attempt, results[0], now_s),
            now_s,
        )

    def _encoded(
        self,
        branch: RemoteBranch,
        start: Start,
        results: list[Any] | None,
        _queue: float,
        _compute: float,
    ) -> None:
        retained = self._retained.get(start.iteration)
        if retained is not None and results is not None:
            self._pack(branch, start, retained.fork, results)

    def _pack(
        self,
        branch: RemoteBranch,
        start: Start,
        fork: Sequence[Any],
        encoded: Sequence[Any],
    ) -> None:
        """Make the frames of an attempt's message of the tensors that cross."""
        tensors: list[NDArray[Any]] = [
            fork[index] if index >= 0 else encoded[-1 - index]
            for index in branch.part.sends
        ]
        if branch.compression is None:
            self._send(branch, start, tensors, 0.0, 0.0)
            return
        self._executor.submit(
            branch.compression,
            tensors,
            partial(self._send, branch, start),
            expires_s=clock_s() + start.budget_s,
        )

    def _send(
        self,
        branch: RemoteBranch,
        start: Start,
        frames: Sequence[Any] | None,
        _queue: float,
        _compute: float,
    ) -> None:
        if frames is None:
            return  # its budget was spent while it waited to be compressed
        if not branch.ready:
            # An action before this one took the last credit, or lost the link.
            self._refused(start)
            return
        header = Header(
            kind=Kind.TOKEN,
            session=branch.link.session,
            stream=branch.number,
            attempt=start.attempt,
            row=start.branch,
            codec=branch.codec,
            tensors=len(frames),
            incarnation=self.incarnation,
            segment=branch.part.branch.segment,
            frame=start.iteration,
            ordinal=branch.link.take_ordinal(branch.number),
            budget_us=microseconds(start.budget_s),
            payload_bytes=sum(memoryview(frame).nbytes for frame in frames),
        )
        asked_s = self._ledger.started_s(start.iteration, start.attempt)
        if not self._outbox.send_token(branch.link, header, frames):
            self._refused(start)
        elif asked_s is not None:
            branch.asked_s[start.iteration] = asked_s

    def _refused(self, start: Start) -> None:
        now_s = clock_s()
        self._do(
            self._ledger.refused(start.iteration, start.attempt, now_s, error=False),
            now_s,
        )

    def _settle(self, settle: Settle) -> None:
        retained = self._retained.pop(settle.iteration)
        if settle.branch != OUTSIDE:
            self._tell_row(settle)
        row = self._row_of(settle, retained.mode)
        outcome = self._outcome(settle, row)
        self.counts[outcome.status] += 1
        self.meter.settled(outcome)
        self._suffix.run(outcome, retained.made, retained.mode)

    def _tell_row(self, settle: Settle) -> None:
        """Write an event if another kind of branch answers than before."""
        before, self._row = self._row, settle.branch
        if before == OUTSIDE or self._kind(before) != self._kind(settle.branch):
            self._events.write(
                "row",
                stream=self.name,
                frame=self._first(settle.iteration),
                row=self._row_name(settle.branch),
            )

    def _outcome(self, settle: Settle, row: str) -> Outcome:
        first = self._first(settle.iteration)
        return Outcome(
            stream=self.name,
            incarnation=self.incarnation,
            first=first,
            last=min(first + self._part.frames, self._pacer.fired) - 1,
            status=self._status(settle.branch),
            row=row,
            reason=settle.reason,
            value=settle.value,
            fired_s=settle.fired_s,
            settled_s=settle.decided_s,
            attempts=settle.attempts,
        )

    def _status(self, branch: int | None) -> Status:
        if branch is None:
            return "dropped"
        if branch == OUTSIDE:
            return "full"  # what the graph wants of this frame
        return self.branches[branch].part.branch.quality

    def _first(self, iteration: int) -> int:
        """Return the first frame of an iteration."""
        return iteration * self._part.frames

    def _row_of(self, settle: Settle, mode: int) -> str:
        if settle.branch == OUTSIDE:
            assert self._part.around is not None
            return self._part.around.modes[mode]
        return self._row_name(settle.branch)

    def _finish(self) -> None:
        self.ended = True
        last = self._pacer.fired - 1
        try:
            self._sink.end(last)
        except UnderstudyError:
            raise
        except Exception as error:
            raise ActorError(
                f"actor '{self._part.region.sink}': end raised {error!r}; mend it"
            ) from error
        self._events.write(
            "stream.ended",
            stream=self.name,
            last=last,
            counts=self.counts,
            missed=self._pacer.missed,
            late_answers=self._ledger.late_answers,
        )

    def _tell_overdue(self, overdue: Overdue, now_s: float) -> None:
        branch = self.branches[overdue.branch]
        assert isinstance(branch, RemoteBranch), "only links are overdue"
        limit_s = branch.link.slow_ms / 1e3
        if not overdue.crowded:
            limit_s = max(limit_s, SLOW_FACTOR * branch.p99_s(now_s))
        # A little less, since a deadline of exactly that long is evidence too.
        if overdue.waited_s > limit_s * 0.9:
            self._outbox.overdue(
                branch.link,
                f"frame {overdue.iteration} unanswered for "
                f"{overdue.waited_s * 1e3:.0f} ms",
                now_s,
            )

    def _on(self, link: Link) -> list[int]:
        """Return the branches that cross `link` first."""
        return [
            index
            for index, branch in enumerate(self.branches)
            if isinstance(branch, RemoteBranch) and branch.link is link
        ]

    def _kind(self, branch: int | None) -> int | None:
        return None if branch is None else self._kinds[branch]

    def _row_name(self, branch: int | None) -> str:
        return DROP_ROW if branch is None else self.branches[branch].part.branch.row


def _nack_name(flags: int) -> str:
    try:
        return Nack(flags).name.lower()
    except ValueError:  # whatever a peer says: the names are few
        return "unknown"
