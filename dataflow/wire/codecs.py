"""Which codec a stream uses on one link, chosen anew as link and processor change.

There are two choices. Whether to *compress* loses nothing and is made for each message:
zstd pays where it takes less time than it saves on the link. Whether to *encode* loses
something, and is a row of its own: the branch that sends tokens whole is not `carried`
any more, so `rows.choose` walks on to the one that encodes them. That is done only
where the link does not carry whole tokens as fast as they come.

What a link carries is measured with the tokens themselves. With each answer the peer
says how long it had the token, so it is known when the token had arrived. It was on
the link no longer than since the token before it had arrived, and no longer than since
it was sent, less a round trip. The shorter of the two is what the link took for its
bytes: the first where tokens queue up, the second where the link was idle. A hiccup, at
either end or between them, makes some tokens late, and a slow link all of them: so the
fastest of the latest must have been too slow before anything is lost for it, and a fast
quarter is enough to try without. For what loses nothing, the median speaks.

Source:
    The fastest delivery of late as what a path carries: Cardwell et al., "BBR:
    Congestion-Based Congestion Control", ACM Queue 14(5), 2016.

Back and forth is prevented twice. A stream goes back to whole tokens when they would
take clearly less than there is, for some time; and when that was too much, waits twice
as long before the next try.

Sans-IO: no clock, no random number.
"""

import itertools
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow.wire.compression import ZSTD

KEPT = 7
"""Tokens that a link is judged by."""
KNOWN = 4
"""So many of them are needed before anything is changed, and so many in a row must have
been too slow before anything is lost."""
ROOM = 0.8
"""Of the time between two tokens, what one may take on the link."""
CLEARLY = 0.6
"""Of that room, what whole tokens may take for a stream that would send them again."""
CALM_S, CALM_S_MAX = 2.0, 64.0
"""How long they would have to, at first and after failures."""
UNUSED = 16
"""After so many times its room without a token the link is tried anew: what it carried
then says nothing of now."""
SILENT_S = 0.1
"""No answer for so long, and for three times the room, says that the link is too slow:
the first token of a link that has become slow may take a second. A peer that is dead is
noticed before."""
GAIN, LOSS = 0.8, 0.95
"""A message is compressed when it then takes so much of the time, until it takes this
much again."""
GAIN_S = 0.001
"""And when it saves this: what is measured of a fast link is noise, and of a small
token what each message costs, however short it is."""
UNPACK = 0.5
"""Decompressing takes about half as long as compressing (`tests.bench.codecs`)."""


class Change(NamedTuple):
    """Another codec from now on, and why."""

    before: str
    after: str
    why: str


@dataclass(slots=True)
class Coding:
    """How one branch sends its tokens.

    Attributes:
        encoding: With loss; "": whole.
        plain_bytes: Of its message, not compressed.
        encode_s: What encoding takes.
        packed_bytes: Of the last compressed message; of a trial before there was one.
        pack_s: What compressing took.
        packs: Messages are compressed.
    """

    encoding: str
    plain_bytes: int
    encode_s: float
    packed_bytes: float
    pack_s: float
    packs: bool = False

    @property
    def name(self) -> str:
        return "+".join(filter(None, (self.encoding, ZSTD * self.packs))) or "none"

    @property
    def nbytes(self) -> float:
        return self.packed_bytes if self.packs else self.plain_bytes

    def packed(self, nbytes: int, took_s: float) -> None:
        """A message was compressed."""
        self.packed_bytes = nbytes
        self.pack_s = took_s

    def judge(self, byte_s: float) -> None:
        """Decide whether to compress, on a link that takes `byte_s` for a byte."""
        plain_s = self.plain_bytes * byte_s
        packed_s = self.packed_bytes * byte_s + (1 + UNPACK) * self.pack_s
        if self.packs:
            self.packs = packed_s < LOSS * plain_s
        else:
            self.packs = packed_s < min(GAIN * plain_s, plain_s - GAIN_S)

    def needs_s(self, byte_s: float) -> float:
        """Return what a token takes at the slowest place, processor or link."""
        processor_s = self.encode_s + self.pack_s * self.packs
        return max(self.nbytes * byte_s, processor_s)


class _Sent(NamedTuple):
    nbytes: int
    sent_s: float


@dataclass(slots=True)
class CodecChoice:
    """The codec of one stream on one link.

    Attributes:
        room_s: What a token may take on the link.
        whole: How tokens are sent without loss.
        lossy: How with loss: one way, or none.
        carried: Whole ones are sent.
    """

    room_s: float
    whole: Coding
    lossy: Sequence[Coding] = ()
    carried: bool = True
    _under_way: dict[Hashable, _Sent] = field(default_factory=dict)
    _byte_s: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _sent_s: float = float("-inf")
    _arrived_s: float = float("-inf")
    _service_s: float = 0.0
    """How long the peer had the last token."""
    _base_s: float = float("inf")
    """The shortest round trip."""
    _calm_since_s: float = float("-inf")
    _calm_s: float = CALM_S
    _returned_s: float = float("-inf")

    @property
    def name(self) -> str:
        return self._used.name

    @property
    def _used(self) -> Coding:
        return self.whole if self.carried else self.lossy[0]

    def sent(self, key: Hashable, nbytes: int, now_s: float) -> None:
        """A token was sent; `key` finds it again."""
        self._under_way[key] = _Sent(nbytes, now_s)
        self._sent_s = now_s

    def answered(
        self, key: Hashable, *, service_s: float, round_trip_s: float, now_s: float
    ) -> Change | None:
        """An answer came, late or not.

        Args:
            key: Of the token.
            service_s: How long the peer says that it had it.
            round_trip_s: Of small messages on this link, as far as it is known.
            now_s: Monotonic time.
        """
        sent = self._under_way.pop(key, None)
        if sent is None:
            return None
        self._base_s = min(self._base_s, round_trip_s)
        arrived_s = now_s - service_s
        on_its_way_s = arrived_s - sent.sent_s - self._base_s
        took_s = min(on_its_way_s, arrived_s - self._arrived_s)
        self._arrived_s = max(arrived_s, self._arrived_s)
        self._service_s = service_s
        self._byte_s.append(max(took_s, 0.0) / sent.nbytes)
        if len(self._byte_s) < KNOWN:
            return None
        return self._judge(now_s)

    def refused(self, key: Hashable) -> None:
        """A token came back without an answer."""
        self._under_way.pop(key, None)

    def tick(self, now_s: float) -> Change | None:
        """A token is about to be sent somewhere: look at what did not happen."""
        if self.carried:
            if not self.lossy:
                return None
            oldest = next(iter(self._under_way.values()), None)
            if oldest is None:
                return None
            waits_s = now_s - max(oldest.sent_s, self._arrived_s) - self._service_s
            if waits_s > max(SILENT_S, 3 * self.room_s):
                return self._encode(f"no answer for {waits_s * 1e3:.0f} ms", now_s)
        else:
            unused_s = now_s - max(self._sent_s, self._calm_since_s)
            if unused_s >= max(self._calm_s, UNUSED * self.room_s):
                return self._send_whole(f"not used for {unused_s:.0f} s", now_s)
        return None

    def forget(self) -> None:
        """A session ended: what was under way in it gets no answer.

        The choice stands: a link that was given up because it is slow is as slow in
        its next session.
        """
        self._under_way.clear()
        self._byte_s.clear()
        self._arrived_s = float("-inf")

    def _judge(self, now_s: float) -> Change | None:
        ranked_s = sorted(self._byte_s)
        byte_s = ranked_s[len(ranked_s) // 2]
        fastest_s = min(itertools.islice(reversed(self._byte_s), KNOWN))
        before = self._used.name
        for coding in (self.whole, *self.lossy):
            coding.judge(byte_s)
        for encoded in self.lossy:
            quick_s = ranked_s[len(ranked_s) // 4]
            needs_s = self.whole.needs_s(fastest_s if self.carried else quick_s)
            says = (
                f"a token of {self.whole.nbytes / 1e3:.1f} kB takes "
                f"{needs_s * 1e3:.1f} ms, and there are {self.room_s * 1e3:.1f}"
            )
            helps = encoded.needs_s(fastest_s) < needs_s
            if self.carried and helps and needs_s > self.room_s:
                return self._encode(says, now_s, before)
            calm = needs_s <= CLEARLY * self.room_s
            if not self.carried and not calm:
                self._calm_since_s = now_s
            elif not self.carried and now_s - self._calm_since_s >= self._calm_s:
                return self._send_whole(says, now_s, before)
        if before == self._used.name:
            return None
        why = f"the link takes {self._used.plain_bytes * byte_s * 1e3:.2f} ms without"
        return Change(before, self._used.name, why)

    def _encode(self, why: str, now_s: float, before: str = "") -> Change:
        before = before or self._used.name
        if now_s - self._returned_s < self._calm_s:
            self._calm_s = min(2 * self._calm_s, CALM_S_MAX)
        else:
            self._calm_s = CALM_S
        self.carried = False
        self._calm_since_s = now_s
        return Change(before, self._used.name, why)

    def _send_whole(self, why: str, now_s: float, before: str = "") -> Change:
        before = before or self._used.name
        self.carried = True
        self._returned_s = now_s
        return Change(before, self._used.name, why)
