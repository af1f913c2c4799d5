"""Attempts of a stream: from a branch that is started to its answer.

The ledger says which branch is to be started for which iteration. A local one runs
here; a remote one is encoded, compressed and sent, each where the executor has it. What
comes back, or does not, is told to the ledger, and what follows from that is carried
out by the stream.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dataflow.branches import Branch, LocalBranch, RemoteBranch
from dataflow.clock import now_s as clock_s
from dataflow.coding import LinkCodec
from dataflow.errors import PeerError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.meters import StreamMeter
from dataflow.parts import StreamPart
from dataflow.wire.codecs import Change
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.iterations import Action, Overdue, Start
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.timers import SLOW_FACTOR

_TOKEN, _NACK = Kind.TOKEN, Kind.NACK  # 0.1 us each to look up in Python 3.11
_new = tuple.__new__  # a constructor of a NamedTuple takes twice as long


class Outbox(Protocol):
    """What a stream needs of its device to send."""

    def send_token(self, link: Link, header: Header, frames: Sequence[Any]) -> bool:
        """Send on the data lane; False when it would block or nobody is there."""

    def overdue(self, link: Link, text: str, now_s: float) -> None:
        """Tell the link that an attempt is older than a slow model explains."""


class Attempts:
    """The attempts of one stream.

    Args:
        part: The stream's.
        branches: As the ledger has them.
        do: Carries out what follows from what an attempt became of.
        codecs: What is chosen for its links.
    """

    def __init__(
        self,
        part: StreamPart,
        branches: Sequence[Branch],
        *,
        incarnation: int,
        ledger: Ledger,
        executor: Executor,
        outbox: Outbox,
        events: EventLog,
        meter: StreamMeter,
        do: Callable[[Sequence[Action], float], None],
        codecs: Iterable[LinkCodec],
    ) -> None:
        self._name = part.region.stream
        self._frames = part.frames
        self._branches = branches
        self._at_home = any(branch.local for branch in branches)
        """Some branch has room for whatever is not sent."""
        self._asked = {b.number: b for b in branches if isinstance(b, RemoteBranch)}
        self._incarnation = incarnation
        self._ledger = ledger
        self._executor = executor
        self._outbox = outbox
        self._events = events
        self._meter = meter
        self._do = do
        self._codecs = tuple(codecs)
        for codec in self._codecs:
            codec.tell = self._tell_codec

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

    def look(self, now_s: float) -> None:
        """An iteration is about to be forked: see whether links still carry theirs."""
        for codec in self._codecs:
            codec.tick(now_s)

    def start(self, start: Start, fork: Sequence[Any]) -> None:
        """Start a branch on the tokens at the fork."""
        branch = self._branches[start.branch]
        self._meter.attempts[branch.part.branch.row] += 1
        if isinstance(branch, RemoteBranch) and branch.chain is None:
            self._pack(branch, start, fork, ())
        else:
            tokens = [fork[index] for index in branch.part.reads]
            if branch.chain is None:
                self._local_answer(start, tokens, 0.0, 0.0)
            else:
                self._executor.submit(
                    branch.chain,
                    tokens,
                    partial(self._local_answer, start)
                    if isinstance(branch, LocalBranch)
                    else partial(self._encoded, branch, start, fork),
                    expires_s=clock_s() + start.budget_s,
                )
        if start.instead_of is not None:  # told after the fact: frames first
            self._events.write(
                "frame.restarted",
                stream=self._name,
                frame=start.iteration * self._frames,
                **{"from": self._branches[start.instead_of].part.branch.row},
                to=branch.part.branch.row,
            )

    def answer(
        self, link: Link, header: Header, frames: Sequence[bytes], now_s: float
    ) -> None:
        """An answer or a NACK came from the peer of `link`, in its present session."""
        link.raise_limit(header.stream, header.limit)
        branch = self._asked[header.stream]
        if branch.link is not link or header.incarnation != self._incarnation:
            self._events.rejected["stream"] += 1
            return
        frame, attempt = header.frame, header.attempt
        asked = self._ledger.branch_of(frame, attempt)
        if asked is not None and self._branches[asked] is not branch:
            self._events.rejected["attempt"] += 1
            return  # it was never asked that
        asked_s = branch.asked_s.pop(frame, None)
        if branch.expected_s:
            branch.expected_s.pop(frame, None)
        if header.kind is _NACK:
            self._nacked(branch, header, now_s)
            return
        # An answer too late to count still tells how long the server takes.
        if asked_s is not None:
            branch.answered(now_s - asked_s, now_s)
        if branch.chosen is not None:
            branch.chosen.answered(header, now_s)
        try:
            frames = branch.unpacked(header, frames)
        except PeerError as error:
            self._events.reject(error, link.peer)
            self._do(self._ledger.refused(frame, attempt, now_s, error=True), now_s)
            return
        value = np.ndarray(*branch.answer, frames[0])
        self._do(self._ledger.answer(frame, attempt, value, now_s), now_s)

    def overdue(self, overdue: Overdue, now_s: float) -> None:
        """Tell a link that it was waited for too long."""
        branch = self._branches[overdue.branch]
        assert isinstance(branch, RemoteBranch), "only links are overdue"
        limit_s = branch.link.slow_ms / 1e3
        answers = overdue.crowded and branch.service.fresh(now_s, limit_s)
        if answers and self._at_home:
            branch.easing.crowded(len(branch.asked_s), overdue.waited_s, now_s)
        # On a link that is known to be slow a token takes its time.
        expected_s = branch.expected_s.get(overdue.iteration, 0.0)
        limit_s = max(limit_s, SLOW_FACTOR * expected_s)
        if not overdue.crowded:
            limit_s = max(limit_s, SLOW_FACTOR * branch.p99_s(now_s))
        if answers:  # it has too much to do, and is not lost
            if overdue.full:
                doubted = self._ledger.doubted(overdue.iteration, overdue.branch, now_s)
                self._do(doubted, now_s)
        # A little less, since a deadline of exactly that long is evidence too.
        elif overdue.waited_s > limit_s * 0.9:
            self._outbox.overdue(
                branch.link,
                f"frame {overdue.iteration} unanswered for "
                f"{overdue.waited_s * 1e3:.0f} ms",
                now_s,
            )

    def on(self, link: Link) -> list[int]:
        """Return the branches that cross `link` first."""
        return [
            index
            for index, branch in enumerate(self._branches)
            if isinstance(branch, RemoteBranch) and branch.link is link
        ]

    def _nacked(self, branch: RemoteBranch, header: Header, now_s: float) -> None:
        """A server told why an attempt gets no result."""
        if header.flags == Nack.HOP:
            branch.hop_lost()
        error = header.flags not in (Nack.EXPIRED, Nack.HOP)
        why, peer = _nack_name(header.flags), branch.link.peer
        if branch.chosen is not None:
            branch.chosen.refused(header)
        self._meter.nacks[peer, why] += 1
        if header.flags != Nack.EXPIRED:
            self._events.write(
                "frame.refused",
                stream=self._name,
                frame=header.frame * self._frames,
                peer=peer,
                why=why,
            )
        self._do(
            self._ledger.refused(header.frame, header.attempt, now_s, error=error),
            now_s,
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
        fork: Sequence[Any],
        results: list[Any] | None,
        _queue: float,
        _compute: float,
    ) -> None:
        settled = start.iteration < self._ledger.settled
        if not settled and results is not None:
            self._pack(branch, start, fork, results)

    def _pack(
        self,
        branch: RemoteBranch,
        start: Start,
        fork: Sequence[Any],
        encoded: Sequence[Any],
    ) -> None:
        """Make the frames of an attempt's message of the tensors that cross."""
        tensors: list[NDArray[Any]] = []
        for index in branch.part.sends:
            tensors.append(fork[index] if index >= 0 else encoded[-1 - index])
        if not branch.packs or branch.compression is None:
            self._send(branch, start, 0, tensors, 0.0, 0.0)
            return
        self._executor.submit(
            branch.compression,
            tensors,
            partial(self._send, branch, start, branch.codec),
            expires_s=clock_s() + start.budget_s,
        )

    def _send(
        self,
        branch: RemoteBranch,
        start: Start,
        codec: int,
        frames: Sequence[Any] | None,
        _queue: float,
        packed_s: float,
    ) -> None:
        if frames is None:
            return  # its budget was spent while it waited to be compressed
        if not branch.ready:
            # An action before this one took the last credit, or lost the link.
            self._refused(start)
            return
        link, number = branch.link, branch.number
        payload_bytes = branch.sent_bytes
        if codec:
            payload_bytes = sum(memoryview(frame).nbytes for frame in frames)
        iteration, row, attempt, budget_s, _ = start
        header = _new(Header, (
            _TOKEN, link.session, number, 0, attempt, row, codec, len(frames),
            self._incarnation, branch.part.branch.segment, iteration,
            link.take_ordinal(number), 0, microseconds(budget_s), 0, 0, payload_bytes,
        ))  # fmt: skip
        expected_s = branch.wait_s(clock_s())
        asked_s = self._ledger.started_s(iteration, attempt)
        if not self._outbox.send_token(link, header, frames):
            self._refused(start)
            return
        if asked_s is not None:
            branch.asked_s[iteration] = asked_s
            if expected_s:
                branch.expected_s[iteration] = expected_s
        if branch.chosen is not None:
            name = branch.chosen.sent(header, packed_s, clock_s())
            self._meter.codecs[link.peer, name] += 1

    def _tell_codec(self, change: Change, peer: str) -> None:
        self._events.write(
            "codec",
            stream=self._name,
            peer=peer,
            before=change.before,
            codec=change.after,
            why=change.why,
        )

    def _refused(self, start: Start) -> None:
        now_s = clock_s()
        self._do(
            self._ledger.refused(start.iteration, start.attempt, now_s, error=False),
            now_s,
        )


def _nack_name(flags: int) -> str:
    try:
        return Nack(flags).name.lower()
    except ValueError:  # whatever a peer says: the names are few
        return "unknown"
