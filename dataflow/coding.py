"""The codec of a stream on one link, where the deployment leaves it to be chosen.

`wire.codecs` decides; here it is given what happens to the stream's tokens, and what it
decides is done: a branch compresses from now on, or is not carried any more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

from dataflow.branches import Branch, RemoteBranch
from dataflow.parts import StreamPart
from dataflow.wire.codecs import ROOM, Change, CodecChoice, Coding
from dataflow.wire.compression import AUTO, trial
from dataflow.wire.header import Header
from dataflow.wire.rows import kin

DEADLINE_SHARE = 0.5
"""Of the deadline, what a token may spend on the link."""


class LinkCodec:
    """The choice for one link, or for one way over several.

    Args:
        whole: The branch that sends tokens as they are.
        encoded: The one that encodes them; None: none does.
        room_s: What a token may take on the link.

    Attributes:
        tell: Called with every change, and the peer.
    """

    def __init__(
        self, whole: RemoteBranch, encoded: RemoteBranch | None, room_s: float
    ) -> None:
        self._whole = whole
        self._branches = [whole] if encoded is None else [whole, encoded]
        codings = [_coding(branch) for branch in self._branches]
        self._choice = CodecChoice(room_s, codings[0], codings[1:])
        self._codings = {
            branch.number: coding
            for branch, coding in zip(self._branches, codings, strict=True)
        }
        self.tell: Callable[[Change, str], None] = lambda change, peer: None
        for branch in self._branches:
            branch.chosen = self
            branch.packs = False
            branch.carried = branch is whole

    def tick(self, now_s: float) -> None:
        """A token of the stream is about to be sent, here or elsewhere."""
        self._apply(self._choice.tick(now_s))

    def sent(self, header: Header, packed_s: float, now_s: float) -> str:
        """A message was sent, compressed in `packed_s`; return its codec's name."""
        coding = self._codings[header.stream]
        if header.codec:
            coding.packed(header.payload_bytes, packed_s)
        self._choice.sent(_key(header), header.payload_bytes, now_s)
        return coding.name

    def answered(self, header: Header, now_s: float) -> None:
        """The answer to a message came."""
        clock = self._whole.link.clock.offset
        change = self._choice.answered(
            _key(header),
            service_s=(header.queue_us + header.compute_us) / 1e6,
            round_trip_s=clock.round_trip_s if clock is not None else 0.0,
            now_s=now_s,
        )
        self._apply(change)

    def refused(self, header: Header) -> None:
        """A message came back without an answer."""
        self._choice.refused(_key(header))

    def forget(self) -> None:
        """The session ended."""
        self._choice.forget()

    def _apply(self, change: Change | None) -> None:
        if change is None:
            return
        for branch in self._branches:
            # One at a time: a server with too much to do gets no smaller tokens.
            branch.carried = self._choice.carried is (branch is self._whole)
            branch.packs = self._codings[branch.number].packs
        self.tell(change, self._whole.link.peer)


def link_codecs(
    part: StreamPart, branches: Sequence[Branch], period_s: float
) -> Iterator[LinkCodec]:
    """Yield the choices that a stream has, one for each way to a server.

    Args:
        part: The stream's.
        branches: Its branches, made.
        period_s: Between two iterations.
    """
    alike = kin(part.region.branches)
    grades = [branch.grade for branch in branches]
    spread = part.region.redundancy.mode == "spread"
    for index, whole in enumerate(branches):
        if not _chooses(whole) or whole.part.branch.codec:
            continue
        others = [b for i, b in enumerate(branches) if alike[index] >> i & 1]
        encoded = next((b for b in others if b is not whole and _chooses(b)), None)
        # Servers that take turns get a share of the tokens each.
        shares = grades.count(whole.grade) if spread else 1
        deadline_s = part.region.deadline_ms / 1e3
        room_s = min(ROOM * period_s * shares, DEADLINE_SHARE * deadline_s)
        yield LinkCodec(whole, encoded, room_s)


def _chooses(branch: Branch) -> TypeGuard[RemoteBranch]:
    return isinstance(branch, RemoteBranch) and branch.part.compression == AUTO


def _coding(branch: RemoteBranch) -> Coding:
    """Return how a branch sends, timed on tokens of noise."""
    assert branch.compression is not None
    tokens = branch.part.sent
    return Coding(
        encoding=branch.part.branch.codec,
        plain_bytes=sum(token.nbytes for token in tokens),
        encode_s=branch.encode_s,
        packed_bytes=sum(map(len, branch.compression.run(trial(tokens)))),
        pack_s=branch.compression.time_s(tokens),
    )


def _key(header: Header) -> tuple[int, int]:
    """Return what finds a message again: no branch is asked twice for an iteration."""
    return header.stream, header.frame
