"""The endpoint's half of a stream: source, prefix, region, sink.

A source fires at its pace and numbers its frames. An admitted frame runs the prefix up
to the fork; the ledger names its row; a local branch runs here, a remote one is sent;
the outcome is handed to the sink, in order. All of it happens in the device's I/O loop,
except chains that the executor hands to the compute thread.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dataflow.attempts import Attempts, Outbox
from dataflow.behaviour import Behaviour, Sink, Source, StreamEnd
from dataflow.branches import RemoteBranch, make_branches, placed_chain
from dataflow.clock import now_s as clock_s
from dataflow.coding import link_codecs
from dataflow.engine import Chain
from dataflow.errors import ActorError, UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.graph import PortRef
from dataflow.meters import StreamMeter
from dataflow.outcomes import Outcomes
from dataflow.pacing import Pacer
from dataflow.parts import StreamPart
from dataflow.suffix import Suffix
from dataflow.wire.iterations import Action, Overdue, Settle, Start
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.rows import kin


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
        after: The same stream under the plan that is played now. Its source and its
            sink, the very actors, are taken over at `take_over`; until then nothing
            happens here.
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
        after: "Stream | None" = None,
    ) -> None:
        self.name = part.region.stream
        self.incarnation = incarnation
        self._part = part
        self._executor = executor
        self._events = events
        source, sink = behaviours[part.source], behaviours[part.region.sink]
        if not isinstance(source, Source) or not isinstance(sink, Sink):
            raise UnderstudyError(
                f"stream '{self.name}': '{part.source}' is no source or "
                f"'{part.region.sink}' is no sink; give actors of such types"
            )
        self._sink = sink
        ports = part.prefix.graph.actors[part.source].outputs
        self._after = after
        self._fires = after is None
        self._pacer: Pacer = (
            Pacer(source, part.source, ports, part.frames)
            if after is None
            else after._pacer
        )
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
        self._prefix, _ = placed_chain(part.prefix, behaviours, executor, part.frames)
        suffix, _ = placed_chain(part.suffix, behaviours, executor)
        assert suffix is not None, "a stream without a sink"
        self._suffix = Suffix(part, suffix, made, len(source_ports))
        self.branches = make_branches(part, behaviours, links, executor)
        self._ledger = Ledger(
            self.branches,
            window=part.region.window,
            deadline_s=part.region.deadline_ms / 1e3,
            redundancy=part.region.redundancy,
            link_full=self._link_full,
            kin=kin(part.region.branches),
        )
        self._retained: dict[int, _Retained] = {}
        self._actions: deque[Action] = deque()
        self._acting = False
        self._late_before = 0
        self.ending = False
        self.ended = False
        self.meter: StreamMeter = StreamMeter() if after is None else after.meter
        self.attempts = Attempts(
            part,
            self.branches,
            incarnation=incarnation,
            ledger=self._ledger,
            executor=executor,
            outbox=outbox,
            events=events,
            meter=self.meter,
            do=self._do,
            codecs=link_codecs(part, self.branches, part.frames / source.rate_hz),
        )
        self.outcomes: Outcomes = Outcomes(
            part,
            self.branches,
            incarnation=incarnation,
            events=events,
            meter=self.meter,
            counts=None if after is None else after.outcomes.counts,
        )

    def _link_full(self, left_s: float, now_s: float) -> bool:
        """Tell whether a token of some branch could not be there and back in time."""
        remote = (b for b in self.branches if isinstance(b, RemoteBranch))
        return any(branch.wait_s(now_s) > left_s for branch in remote)

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

    @property
    def may_be_followed(self) -> bool:
        """It fires, is the newest of its name, and no iteration of it is half made."""
        return (
            self._fires
            and self._after is None
            and not (self.ending or self._pacer.gathering)
        )

    def take_over(self) -> int:
        """Fire from now on, in the place of the stream before; return the first frame.

        Iterations before it stay with the older ledger, since they can be answered
        under the older plan only. Outcomes come in order: ours wait for those.
        """
        assert self._after is not None, "a stream that follows nobody"
        first = self._after._ledger.fired
        self._after._fires, self._fires = False, True
        self._ledger.follow(first)
        return self._first(first)

    def skip(self) -> None:
        """The stream ended before it could be taken over: nothing will come here."""
        self._after, self.ended = None, True

    @property
    def follows(self) -> bool:
        """Outcomes of the stream under an older plan are still to come."""
        return self._after is not None

    @property
    def drained(self) -> bool:
        """Another stream has taken over, and nothing is under way here any more."""
        return not self._fires and self._ledger.idle and not self._actions

    def end(self) -> None:
        """Fire no more; what is under way is still answered."""
        if not self._fires:
            return
        self.ending = True
        self._pacer.end()
        self._cut_short()

    def tick(self, now_s: float) -> float:
        """Time passed, or a branch became ready; return when there is more to do."""
        self._do(self._ledger.tick(now_s), now_s)
        if not self._fires:
            return self._ledger.due_s(now_s)
        if self._after is not None and self._after.drained:
            self._succeed(now_s)
        if now_s >= self._pacer.due_s:
            self._fire(now_s)
        if self.ending and self._ledger.idle and self._after is None and not self.ended:
            self._finish()
        return min(self._pacer.due_s, self._ledger.due_s(now_s))

    def abort(self, now_s: float) -> None:
        """The device fails: account for what is under way, as far as the sink lives."""
        if self._after is not None and self._fires:
            self._after.abort(now_s)
            self._succeed(now_s)
        if not self.ended:
            # Outcomes that the ledger has let go of are still to be handed over; what
            # was to be started would only fail again.
            self._actions = deque(a for a in self._actions if isinstance(a, Settle))
            if self._fires:
                self._cut_short()
            self._do(self._ledger.abort(now_s), now_s)
            if self._fires:
                self._finish()

    def lost(self, link: Link, now_s: float, *, final: bool) -> list[int]:
        """A link became suspect or died: decide, and `act` on it later.

        Returns:
            The first frames of the iterations that were under way there.
        """
        gone = self.attempts.on(link)
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

    def wants(self, link: Link) -> bool:
        """Tell whether an answer from `link` could still be of use."""
        return bool(self._ledger.outstanding(self.attempts.on(link)))

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
        return self._late_before + self._ledger.late_answers

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
            "row": self.outcomes.row,
            **self.outcomes.counts,
            "rows": self.meter.row_counts,
            "codecs": self.meter.codec_counts,
        }

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
        self.attempts.look(now_s)
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
                        self.attempts.overdue(action, now_s)
        finally:
            self._acting = False

    def _start(self, start: Start) -> None:
        retained = self._retained.get(start.iteration)
        if retained is not None:  # else settled by an action before this one
            self.attempts.start(start, retained.fork)

    def _settle(self, settle: Settle) -> None:
        retained = self._retained.pop(settle.iteration)
        outcome = self.outcomes.make(
            settle, mode=retained.mode, fired=self._pacer.fired
        )
        self._suffix.run(outcome, retained.made, retained.mode)

    def _first(self, iteration: int) -> int:
        """Return the first frame of an iteration."""
        return iteration * self._part.frames

    def _succeed(self, now_s: float) -> None:
        """The older plan has answered its last frame: the sink is ours."""
        assert self._after is not None
        self._late_before = self._after.late_answers
        self._after = None
        params = self._part.suffix.graph.actors[self._part.region.sink].params
        self._sink.become(params, self._first(self._ledger.settled))
        self._do(self._ledger.release(), now_s)

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
            counts=self.outcomes.counts,
            missed=self._pacer.missed,
            late_answers=self.late_answers,
            codecs=self.meter.codec_counts,
        )
