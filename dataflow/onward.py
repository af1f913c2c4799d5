"""Tokens that a server passes on to the next server of their branch's way.

`wire.relay` decides; here its decisions are carried out. The host answers for both
ends: whoever sent the token here gets one answer, whatever happens behind us.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dataflow.clock import now_s as clock_s
from dataflow.executor import Executor
from dataflow.hosted import Hosted
from dataflow.parts import hosted_parts
from dataflow.plan import Plan
from dataflow.wire.compression import CODES, all_fit
from dataflow.wire.header import Header, Kind, Nack, microseconds
from dataflow.wire.link import Link
from dataflow.wire.relay import Passed, Relay, Way
from dataflow.wire.session import Session

if TYPE_CHECKING:
    from dataflow.links import Links


class Answers(Protocol):
    """Sends the one answer that each token of a session gets."""

    def refuse(self, session: Session, header: Header, why: Nack) -> None:
        """Answer with a NACK."""

    def give(self, passed: Passed, answer: Header, frames: Sequence[Any]) -> None:
        """Hand the answer of the next server on."""

    def reject(self, reason: str) -> None:
        """Count a message that was thrown away."""


class Onward:
    """What is between this server and those behind it.

    Args:
        relay: Whose each token is.
        hosted: What is computed here, by segment.
        links: To the next servers.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        hosted: Mapping[int, Hosted],
        links: "Links",
        executor: Executor,
        answers: Answers,
    ) -> None:
        self._relay = relay
        self._hosted = hosted
        self._links = links
        self._executor = executor
        self._answers = answers

    def expire(self, now_s: float) -> None:
        """Time passed: refuse what nobody waits for any more."""
        for peer, passed in self._relay.expired(now_s):
            link, waited_s = self._links.by_peer[peer], now_s - passed.sent_s
            if waited_s * 1e3 > link.slow_ms:
                text = f"a token unanswered for {waited_s * 1e3:.0f} ms"
                self._links.overdue(link, text, now_s)
            self._answers.refuse(passed.session, passed.header, Nack.EXPIRED)

    def pass_on(
        self,
        session: Session,
        header: Header,
        expires_s: float,
        results: list[Any] | None,
        queue_s: float,
        compute_s: float,
    ) -> None:
        """The part of the way that is ours is done: on to the next server."""
        if results is None:
            self._answers.refuse(session, header, Nack.EXPIRED)
            return
        hosted = self._hosted[header.segment]
        tokens = [results[index] for index in hosted.part.sends]
        costs = microseconds(queue_s), microseconds(compute_s)
        passed = Passed(session, header, expires_s, clock_s(), *costs)
        packs = hosted.packs_for(header)
        if packs is None:
            self._send(passed, 0, tokens, 0.0, 0.0)
            return
        self._executor.submit(
            packs,
            [np.copy(token) for token in tokens],  # the chain fires on meanwhile
            partial(self._send, passed, CODES[hosted.part.sent_compression]),
            expires_s=expires_s,
        )

    def returned(self, link: Link, answer: Header, frames: Sequence[Any]) -> bool:
        """An answer to what was passed on came back; False: it is no such answer."""
        passed = self._relay.returned(link, answer)
        if passed is None:
            return False
        session, header = passed.session, passed.header
        if answer.kind is Kind.NACK:
            self._answers.refuse(session, header, _reason(answer.flags))
            return True
        wanted = [token.nbytes for token in self._hosted[header.segment].part.returned]
        if not all_fit(map(len, frames), wanted, answer.codec):
            self._answers.reject("answer")
            self._answers.refuse(session, header, Nack.ERROR)
        else:
            self._answers.give(passed, answer, frames)
        return True

    def lost(self, link: Link) -> None:
        """A server that tokens were passed on to is lost: so are those."""
        for passed in self._relay.lost(link.peer):
            self._answers.refuse(passed.session, passed.header, Nack.HOP)

    def unreachable(self) -> tuple[str, ...]:
        """Return the ways behind us that no token can take."""
        return self._relay.unreachable(self._links.by_peer)

    def _send(
        self,
        passed: Passed,
        codec: int,
        frames: list[Any] | None,
        _queue: float,
        _compute: float,
    ) -> None:
        session, header = passed.session, passed.header
        if frames is None:
            self._answers.refuse(session, header, Nack.EXPIRED)
            return
        link = self._links.by_peer[self._relay.next(header.segment)]
        onward = self._relay.pass_on(
            link,
            passed,
            codec=codec,
            tensors=len(frames),
            payload_bytes=sum(memoryview(frame).nbytes for frame in frames),
            now_s=clock_s(),
        )
        if isinstance(onward, Nack):
            self._answers.refuse(session, header, onward)
        else:
            # One that cannot be sent makes its link suspect, and comes back as lost.
            self._links.send_token(link, onward, frames)


def ways_of(plans: Iterable[Plan], device: str) -> Iterator[tuple[int, Way]]:
    """Yield, for each stream of each plan, what `device` passes on of it."""
    for plan in plans:
        for part in hosted_parts(plan.graph, device):
            if part.onward:
                yield part.segment, Way(part.onward, part.region.window)


def _reason(flags: int) -> Nack:
    try:
        return Nack(flags)
    except ValueError:  # whatever a peer says: the names are few
        return Nack.ERROR
