"""The branches of a region at the fork's device: what the choice of a row looks at."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dataflow.behaviour import Behaviour
from dataflow.easing import Easing
from dataflow.engine import Chain
from dataflow.errors import PeerError
from dataflow.executor import Executor, time_chain
from dataflow.parts import BranchPart, ChainPart, StreamPart, make_chain
from dataflow.wire.compression import CODES, all_fit, compression
from dataflow.wire.control import StreamOffer
from dataflow.wire.header import Header
from dataflow.wire.link import Link
from dataflow.wire.relay import prefixes_of
from dataflow.wire.rows import grades
from dataflow.wire.service_time import ServiceTime

if TYPE_CHECKING:
    from dataflow.coding import LinkCodec


def number_of(stream: str, row: str) -> int:
    """Return a branch's number on the wire: the same in every deployment."""
    return zlib.crc32(f"{stream} {row}".encode())


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


class LocalBranch:
    """A branch that this device computes itself."""

    local = True
    carried = True
    outstanding = 0

    def __init__(
        self, part: BranchPart, chain: Chain | None, best_s: float, grade: int
    ) -> None:
        self.part = part
        self.chain = chain
        """None: the answer was computed before the fork; the branch passes it on."""
        self.grade = grade
        self.ready = True
        self._best_s = best_s

    def p90_s(self, now_s: float) -> float:
        return self._best_s

    def p99_s(self, now_s: float) -> float:
        return 2 * self._best_s

    def learned_s(self, fraction: float) -> float:
        return self._best_s


class RemoteBranch:
    """A branch that a server computes, over a link."""

    local = False

    def __init__(
        self,
        part: BranchPart,
        chain: Chain | None,
        link: Link,
        *,
        stream: str,
        grade: int,
        window: int,
        encode_s: float = 0.0,
    ) -> None:
        self.part = part
        self.grade = grade
        self.easing = Easing(window)
        self.chain = chain
        """What runs here before the token is sent: an encoder."""
        self.encode_s = encode_s
        self.link = link
        self.number = number_of(stream, part.branch.row)
        """Of the branch, on the wire: each has its own credit."""
        self._ways = prefixes_of([asked.device for asked in part.branch.onward])
        self.service = ServiceTime()
        self.asked_s: dict[int, float] = {}
        """When each frame was asked that the peer has not answered in the session."""
        self.expected_s: dict[int, float] = {}
        """What the link was to take for each of them."""
        self.sent_bytes = sum(token.nbytes for token in part.sent)
        """Of one message, if it is not compressed."""
        self.received_bytes = [token.nbytes for token in part.received]
        self._carried = self.sent_bytes, sum(self.received_bytes)
        """Bytes of a token and of its answer."""
        answer = part.received[0]
        self.answer = answer.shape, np.dtype(answer.dtype)
        """Shape and dtype of the answer."""
        self.codec = CODES[part.compression]
        self.compression = compression(part.compression)
        self.answers = compression(part.answer_compression)
        self.packs = self.compression is not None
        """Messages are compressed."""
        self.carried = True
        self.chosen: LinkCodec | None = None
        """Sets the two above anew; None: the deployment has fixed the codec."""

    @property
    def ready(self) -> bool:
        return (
            self.link.takes(self.number)
            and len(self.asked_s) < self.easing.room
            and (not self._ways or self.reachable)
        )

    @property
    def reachable(self) -> bool:
        """No server behind the first is known to be lost."""
        return not self._ways or not self.link.first_lost(self._ways)

    def answered(self, took_s: float, now_s: float) -> None:
        """The peer answered what it was asked so long ago."""
        self.service.add(took_s, now_s)
        self.easing.answered()

    def hop_lost(self) -> None:
        """One of the servers behind the first did not take a token."""
        if self._ways:
            self.link.way_lost(self._ways[-1])

    def unpacked(self, header: Header, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Return the tensors that the frames of an answer are, or stand for.

        Raises:
            PeerError: They are not of the answer's size.
        """
        wanted, codec = self.received_bytes, header.codec
        if list(map(len, frames)) == wanted:
            return frames
        if self.answers is None or not all_fit(map(len, frames), wanted, codec):
            raise PeerError(
                f"answer of {sum(map(len, frames))} bytes, not {sum(wanted)}; dropped",
                "answer",
            )
        return [
            self.answers.token(frame, size)
            for frame, size in zip(frames, wanted, strict=True)
        ]

    @property
    def outstanding(self) -> int:
        return self.link.outstanding

    def p90_s(self, now_s: float) -> float:
        took_s = self.service.percentile_s(0.90, now_s)
        wait_s = self.wait_s(now_s)
        return took_s if took_s > wait_s else wait_s

    def wait_s(self, now_s: float) -> float:
        """Return how long a token sent now is on the way there and back; 0: unknown."""
        return self.link.wait_s(self.number, *self._carried, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)

    def learned_s(self, fraction: float) -> float:
        return self.service.learned_s(fraction)

    def forget(self) -> None:
        """The peer is there (again): what it did before says nothing of now."""
        self.service.forget()
        self.easing.forget()
        self.asked_s.clear()
        self.expected_s.clear()
        if self.chosen is not None:
            self.chosen.forget()


Branch = LocalBranch | RemoteBranch


def make_branches(
    part: StreamPart,
    behaviours: Mapping[str, Behaviour],
    links: Mapping[str, Link],
    executor: Executor,
) -> list[Branch]:
    """Return the branches of a stream, in the policy's order, ready to be started."""
    home = part.prefix.graph.actors[part.region.fork].device
    made: list[Branch] = []
    for each, grade in zip(
        part.branches, grades(part.region.branches, home), strict=True
    ):
        chain, best_s = placed_chain(each.chain, behaviours, executor)
        if not each.sends:
            made.append(LocalBranch(each, chain, best_s, grade))
            continue
        link = links[each.branch.device]
        remote = RemoteBranch(
            each,
            chain,
            link,
            stream=part.region.stream,
            grade=grade,
            window=part.region.window,
            encode_s=best_s,
        )
        if remote.compression is not None:
            executor.place(remote.compression, remote.compression.time_s(each.sent))
        made.append(remote)
    return made


def placed_chain(
    part: ChainPart,
    behaviours: Mapping[str, Behaviour],
    executor: Executor,
    firings: int = 1,
) -> tuple[Chain | None, float]:
    """Return the chain of `part` and its best time in seconds.

    A chain with state is not fired for a trial: it runs inline, its time unknown.

    Args:
        part: What it is made of.
        behaviours: Its actors, made and started.
        executor: Is told where it runs.
        firings: Per iteration, of what feeds it.
    """
    if not part:
        return None, 0.0
    chain, best_s = make_chain(part, behaviours), 0.0
    if not any(part.graph.actors[name].stateful for name in part.actors):
        best_s = time_chain(chain, part.zeros(firings))
        executor.place(chain, best_s)
    return chain, best_s
