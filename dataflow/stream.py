"""The endpoint's half of a stream: source, prefix, region, sink.

A source fires at its pace and numbers its frames. An admitted frame runs the prefix up
to the fork; the ledger names its row; a local branch runs here, a remote one is sent;
the outcome is handed to the sink, in order. All of it happens in the device's I/O loop,
except chains that the executor hands to the compute thread.
"""

import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour, Sink, Source, StreamEnd
from dataflow.branches import LocalBranch, RemoteBranch
from dataflow.clock import now_s as clock_s
from dataflow.engine import Chain
from dataflow.errors import ActorError, UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor, time_chain
from dataflow.graph import DROP_ROW, PortRef
from dataflow.outcome import Outcome
from dataflow.parts import BranchPart, ChainPart, StreamPart, make_chain
from dataflow.wire.control import StreamOffer
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.ledger import Action, Ledger, Overdue, Settle, Start
from dataflow.wire.link import SLOW_FACTOR, Link


def stream_id(name: str) -> int:
    """Return the stream's number on the wire: the same in every deployment."""
    return zlib.crc32(name.encode())


class Outbox(Protocol):
    """What a stream needs of its device to send."""

    def send_token(self, link: Link, header: Header, frames: Sequence[Any]) -> bool:
        """Send on the data lane; False when it would block or nobody is there."""

    def overdue(self, link: Link, text: str, now_s: float) -> None:
        """Tell the link that an attempt is older than a slow model explains."""


@dataclass(slots=True)
class _Retained:
    """What is kept of an iteration until it is settled."""

    made: Sequence[Any]
    """The source's tokens, one for each of its output ports."""
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
        self.id = stream_id(self.name)
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
        self._source, self._sink = source, sink
        ports = part.prefix.graph.actors[part.source].outputs
        source_ports = [PortRef(part.source, port.name) for port in ports]
        self._source_count = len(source_ports)
        # Where a token is found: the source's come first, then the prefix's. What the
        # suffix takes is the source's, or (None) the outcome.
        made = [*source_ports, *part.prefix.outputs]
        self._prefix_reads = [made.index(ref) for ref in part.prefix.sources]
        self._fork_reads = [made.index(ref) for ref in part.fork_reads]
        self._suffix_reads = [
            source_ports.index(ref) if ref in source_ports else None
            for ref in part.suffix.sources
        ]
        self._prefix, _ = self._make_chain(part.prefix)
        self._suffix, _ = self._make_chain(part.suffix)
        self.branches: list[LocalBranch | RemoteBranch] = [
            self._make_branch(branch, links) for branch in part.branches
        ]
        self._ledger = Ledger(
            self.branches,
            window=part.region.window,
            deadline_s=part.region.deadline_ms / 1e3,
        )
        self._retained: dict[int, _Retained] = {}
        self._actions: deque[Action] = deque()
        self._acting = False
        self._row: int | None = -1
        self._period_s = 1.0 / source.rate_hz
        self._due_s = float("inf")
        self.ending = False
        self.ended = False
        self.counts = {"full": 0, "degraded": 0, "dropped": 0}
        self.missed = 0
        """Firings that the device came too late for; they have no number."""

    def offer(self, link: Link) -> StreamOffer | None:
        """Return what this stream wants of the peer of `link`, if anything."""
        branch = self._branch_on(link)
        if branch is None:
            return None
        return StreamOffer(
            stream=self.id,
            name=self.name,
            segment=branch.part.branch.segment,
            window=self._part.region.window,
        )

    def start(self, now_s: float) -> None:
        """Begin: the first frame is due now."""
        self._due_s = now_s
        self._events.write(
            "stream.started",
            stream=self.name,
            incarnation=f"{self.incarnation:016x}",
            source=self._part.source,
            rate_hz=self._source.rate_hz,
        )

    def end(self) -> None:
        """Fire no more; what is under way is still answered."""
        self.ending = True
        self._due_s = float("inf")

    def tick(self, now_s: float) -> float:
        """Time passed, or a branch became ready; return when there is more to do."""
        self._do(self._ledger.tick(now_s), now_s)
        if now_s >= self._due_s:
            self._fire(now_s)
        if self.ending and self._ledger.idle and not self.ended:
            self._finish()
        return min(self._due_s, self._ledger.due_s(now_s))

    def abort(self, now_s: float) -> None:
        """The device fails: account for what is under way, as far as the sink lives."""
        if not self.ended:
            # Outcomes that the ledger has let go of are still to be handed over; what
            # was to be started would only fail again.
            self._actions = deque(a for a in self._actions if isinstance(a, Settle))
            self._do(self._ledger.abort(now_s), now_s)
            self._finish()

    def lost(self, link: Link, now_s: float, *, final: bool) -> list[int]:
        """A link became suspect or died: decide, and `act` on it later.

        Returns:
            The iterations that were under way there.
        """
        gone = self._on(link)
        hit = self._ledger.outstanding(gone)
        self._actions.extend(self._ledger.lost(gone, now_s, final=final))
        return hit

    def act(self, now_s: float) -> None:
        """Carry out what was decided."""
        self._do((), now_s)

    def reachable(self, link: Link, now_s: float) -> None:
        """A link is ready (again): what it measured before says nothing of now."""
        branch = self._branch_on(link)
        if branch is not None:
            branch.service.forget()
        self._do(self._ledger.tick(now_s), now_s)

    def wants(self, link: Link) -> bool:
        """Tell whether an answer from `link` could still be of use."""
        return bool(self._ledger.outstanding(self._on(link)))

    def answer(
        self, link: Link, header: Header, frames: Sequence[bytes], now_s: float
    ) -> None:
        """An answer or a NACK came from the peer of `link`, in its present session."""
        link.raise_limit(self.id, header.limit)
        branch = self._branch_on(link)
        if branch is None or header.incarnation != self.incarnation:
            return
        asked = self._ledger.branch_of(header.frame, header.attempt)
        if asked is not None and self.branches[asked] is not branch:
            return  # it was never asked that
        started_s = self._ledger.started_s(header.frame, header.attempt)
        if header.kind is Kind.NACK:
            error = header.flags != Nack.EXPIRED
            if error:
                self._events.write(
                    "frame.refused",
                    stream=self.name,
                    frame=header.frame,
                    peer=link.peer,
                    why=_nack_name(header.flags),
                )
            self._do(
                self._ledger.refused(header.frame, header.attempt, now_s, error=error),
                now_s,
            )
            return
        # An answer too late to count still tells how long the server takes.
        there_s = (header.queue_us + header.compute_us) / 1e6
        branch.service.add(there_s if started_s is None else now_s - started_s, now_s)
        if [len(frame) for frame in frames] != branch.received_bytes:
            self._do(
                self._ledger.refused(header.frame, header.attempt, now_s, error=True),
                now_s,
            )
            return
        token = branch.part.received[0]
        value = np.ndarray(token.shape, token.dtype, frames[0])
        self._do(self._ledger.answer(header.frame, header.attempt, value, now_s), now_s)

    def describe(self) -> dict[str, Any]:
        """Return what `understudy status` shows of the stream."""
        return {
            "stream": self.name,
            "frames": self._ledger.fired,
            "row": self._row_name(self._row) if self._row != -1 else "",
            **self.counts,
        }

    def _make_chain(self, part: ChainPart) -> tuple[Chain | None, float]:
        """Return the chain of `part` and its best time in seconds.

        A chain with state is not fired for a trial: it runs inline, its time unknown.
        """
        if not part:
            return None, 0.0
        chain, best_s = make_chain(part, self._behaviours), 0.0
        if not any(part.graph.actors[name].stateful for name in part.actors):
            best_s = time_chain(chain, part.zeros())
            self._executor.place(chain, best_s)
        return chain, best_s

    def _make_branch(
        self, part: BranchPart, links: Mapping[str, Link]
    ) -> LocalBranch | RemoteBranch:
        chain, best_s = self._make_chain(part.chain)
        if part.sends:
            return RemoteBranch(part, chain, links[part.branch.device], self.id)
        assert chain is not None, f"{part.branch.row}: a local branch without actors"
        return LocalBranch(part, chain, best_s)

    def _fire(self, now_s: float) -> None:
        # A camera keeps its beat: what was missed is missed, and has no number.
        late = int((now_s - self._due_s) / self._period_s)
        self.missed += late
        self._due_s += (late + 1) * self._period_s
        try:
            fired = self._source.fire()
        except StreamEnd:
            self.end()
            return
        except UnderstudyError:
            raise
        except Exception as error:
            raise ActorError(
                f"actor '{self._part.source}': fire raised {error!r}; mend the actor"
            ) from error
        fired_s = clock_s()
        made = fired if isinstance(fired, tuple) else (fired,)
        if len(made) != self._source_count:
            raise ActorError(
                f"actor '{self._part.source}': returned {len(made)} tokens for "
                f"{self._source_count} output ports; return one for each"
            )
        frame, admitted, actions = self._ledger.fire(fired_s)
        # Of a frame that is not admitted only what the sink reads is kept, as a copy:
        # the source keeps its memory for window + 2 frames, and this may be one more.
        self._retained[frame] = _Retained(made if admitted else self._for_sink(made))
        self._do(actions, fired_s)
        if not admitted:
            return
        if self._prefix is None:
            self._fork(frame, [], 0.0, 0.0)
            return
        inputs = [made[index] for index in self._prefix_reads]
        # What waited half its time for the prefix would be too late behind it.
        expires_s = fired_s + self._part.region.deadline_ms / 2e3
        self._executor.submit(
            self._prefix, inputs, partial(self._fork, frame), expires_s=expires_s
        )

    def _for_sink(self, made: Sequence[Any]) -> list[Any]:
        return [
            np.copy(token) if index in self._suffix_reads else None
            for index, token in enumerate(made)
        ]

    def _fork(
        self, frame: int, results: list[Any] | None, _queue_s: float, _compute_s: float
    ) -> None:
        retained = self._retained.get(frame)
        if retained is None or results is None:
            return  # dropped at its deadline while the prefix ran
        tokens = [*retained.made, *results]
        retained.fork = [tokens[index] for index in self._fork_reads]
        now_s = clock_s()
        self._do(self._ledger.forked(frame, now_s), now_s)

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
        fork = retained.fork
        tokens = [fork[index] for index in branch.part.reads]
        if isinstance(branch, LocalBranch):
            self._executor.submit(
                branch.chain,
                tokens,
                partial(self._local_answer, start),
                expires_s=clock_s() + start.budget_s,
            )
        elif branch.chain is None:
            self._send(branch, start, fork, [])
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
                frame=start.iteration,
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
            self._send(branch, start, retained.fork, results)

    def _send(
        self,
        branch: RemoteBranch,
        start: Start,
        fork: Sequence[Any],
        encoded: Sequence[Any],
    ) -> None:
        if not branch.ready:
            # An action before this one took the last credit, or lost the link.
            self._refused(start)
            return
        frames: list[NDArray[Any]] = [
            fork[index] if index >= 0 else encoded[-1 - index]
            for index in branch.part.sends
        ]
        header = Header(
            kind=Kind.TOKEN,
            session=branch.link.session,
            stream=self.id,
            attempt=start.attempt,
            row=start.branch,
            tensors=len(frames),
            incarnation=self.incarnation,
            segment=branch.part.branch.segment,
            frame=start.iteration,
            ordinal=branch.link.take_ordinal(self.id),
            budget_us=microseconds(start.budget_s),
            payload_bytes=branch.sent_bytes,
        )
        if not self._outbox.send_token(branch.link, header, frames):
            self._refused(start)

    def _refused(self, start: Start) -> None:
        now_s = clock_s()
        self._do(
            self._ledger.refused(start.iteration, start.attempt, now_s, error=False),
            now_s,
        )

    def _settle(self, settle: Settle) -> None:
        retained = self._retained.pop(settle.iteration)
        if settle.branch != self._row:
            self._row = settle.branch
            self._events.write(
                "row",
                stream=self.name,
                frame=settle.iteration,
                row=self._row_name(settle.branch),
            )
        outcome = self._outcome(settle)
        self.counts[outcome.status] += 1
        assert self._suffix is not None, "a stream without a sink"
        self._suffix.run(
            [
                outcome if index is None else retained.made[index]
                for index in self._suffix_reads
            ]
        )

    def _outcome(self, settle: Settle) -> Outcome:
        return Outcome(
            stream=self.name,
            incarnation=self.incarnation,
            first=settle.iteration,
            last=settle.iteration,
            status=(
                "dropped"
                if settle.branch is None
                else self.branches[settle.branch].part.branch.quality
            ),
            row=self._row_name(settle.branch),
            reason=settle.reason,
            value=settle.value,
            fired_s=settle.fired_s,
            settled_s=settle.decided_s,
            attempts=settle.attempts,
        )

    def _finish(self) -> None:
        self.ended = True
        last = self._ledger.fired - 1
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
            missed=self.missed,
            late_answers=self._ledger.late_answers,
        )

    def _tell_overdue(self, overdue: Overdue, now_s: float) -> None:
        branch = self.branches[overdue.branch]
        assert isinstance(branch, RemoteBranch), "only links are overdue"
        limit_s = max(branch.link.slow_ms / 1e3, SLOW_FACTOR * branch.p99_s(now_s))
        # A little less, since a deadline of exactly that long is evidence too.
        if overdue.waited_s > limit_s * 0.9:
            self._outbox.overdue(
                branch.link,
                f"frame {overdue.iteration} unanswered for "
                f"{overdue.waited_s * 1e3:.0f} ms",
                now_s,
            )

    def _on(self, link: Link) -> list[int]:
        branch = self._branch_on(link)
        return [] if branch is None else [self.branches.index(branch)]

    def _branch_on(self, link: Link) -> RemoteBranch | None:
        """The one branch of this stream that the peer of `link` plays."""
        for branch in self.branches:
            if isinstance(branch, RemoteBranch) and branch.link is link:
                return branch
        return None

    def _row_name(self, branch: int | None) -> str:
        return DROP_ROW if branch is None else self.branches[branch].part.branch.row


def _nack_name(flags: int) -> str:
    try:
        return Nack(flags).name.lower()
    except ValueError:
        return f"reason {flags}"
