"""A server between others: what it passed on, and to whom the answers belong.

A relay keeps ids, never payloads. Of each token that it passed on it knows whose it was
and until when an answer is wanted; the answer takes the way back through it. When the
server behind it is lost it answers NACK(hop) for what is there, and the ledger, which
retains the tokens, starts a branch that avoids that server. Its beats list the ways
that end behind it, so that the ledger starts none of them in the first place.

On its link to the next server it is a client like any other: one session, with credit
for each thing that it asks for there, however many streams it asks it for.

Sans-IO: events in, decisions out, time as an argument.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dataflow.graph import Asked
from dataflow.wire.control import STREAMS_MAX, StreamOffer
from dataflow.wire.header import MAX_US, Header, Kind, Nack, microseconds
from dataflow.wire.link import Link
from dataflow.wire.session import Session

WINDOW_MAX = 2**16 - 1
WAY_MARK = "+"
"""Between the devices of a way: no name of a device has it."""


class Way(NamedTuple):
    """What a segment's tokens go on to, and how many may be there at once."""

    onward: tuple[Asked, ...]
    window: int


class Passed(NamedTuple):
    """A token that was passed on: whose it is, and what it cost here."""

    session: Session
    header: Header
    """As it came."""
    expires_s: float
    sent_s: float
    queue_us: int
    compute_us: int

    def answered(self, answer: Header, limit: int, now_s: float) -> Header:
        """Return the header of the answer to whoever sent the token here.

        All the time since it was passed on, less what was computed, it has waited: who
        sent it must not take the way behind us for a slow link to us.
        """
        away_us = microseconds(now_s - self.sent_s)
        waited_us = max(away_us - answer.compute_us, answer.queue_us)
        return self.header.answer(
            answer.kind,
            flags=answer.flags,
            tensors=answer.tensors,
            limit=limit,
            codec=answer.codec,
            queue_us=min(self.queue_us + waited_us, MAX_US),
            compute_us=min(self.compute_us + answer.compute_us, MAX_US),
            payload_bytes=answer.payload_bytes,
        )


class Relay:
    """What a device passes on.

    Args:
        device: Our name.
        ways: By segment, those whose tokens go on to another server.
    """

    def __init__(self, device: str, ways: Iterable[tuple[int, Way]]) -> None:
        self._device = device
        self._next: dict[int, Asked] = {}
        windows: dict[Asked, int] = {}
        prefixes: dict[str, dict[tuple[str, ...], None]] = {}
        for segment, way in ways:
            following = self._next[segment] = way.onward[0]
            windows[following] = windows.get(following, 0) + way.window
            names = tuple(asked.device for asked in way.onward)
            prefixes.setdefault(following.device, {})[names[1:]] = None
        self._behind = {peer: tuple(ways) for peer, ways in prefixes.items()}
        self.offers: dict[str, list[StreamOffer]] = {}
        for asked, window in windows.items():
            offer = StreamOffer(
                stream=self._number(asked),
                name=device,
                segment=asked.segment,
                window=min(window, WINDOW_MAX),
            )
            self.offers.setdefault(asked.device, []).append(offer)
        self._passed: dict[tuple[str, int, int], Passed] = {}

    def __len__(self) -> int:
        return len(self._passed)

    def knows(self, segment: int) -> bool:
        """Tell whether there is a way for tokens of `segment`."""
        return segment in self._next

    def next(self, segment: int) -> str:
        """Return the device that tokens of `segment` go on to."""
        return self._next[segment].device

    def pass_on(
        self,
        link: Link,
        passed: Passed,
        *,
        codec: int = 0,
        tensors: int,
        payload_bytes: int,
        now_s: float,
    ) -> Header | Nack:
        """Return the header under which a token goes on, or why it does not."""
        asked = self._next[passed.header.segment]
        number = self._number(asked)
        if now_s >= passed.expires_s:
            return Nack.EXPIRED
        if not link.takes(number):
            return Nack.BUSY if link.ready else Nack.HOP
        ordinal = link.take_ordinal(number)
        self._passed[link.peer, number, ordinal] = passed
        return passed.header._replace(
            kind=Kind.TOKEN,
            session=link.session,
            stream=number,
            codec=codec,
            tensors=tensors,
            segment=asked.segment,
            ordinal=ordinal,
            budget_us=microseconds(passed.expires_s - now_s),
            payload_bytes=payload_bytes,
        )

    def returned(self, link: Link, answer: Header) -> Passed | None:
        """An answer or NACK came back; return whose, None if nobody waits for it."""
        link.raise_limit(answer.stream, answer.limit)
        return self._passed.pop((link.peer, answer.stream, answer.ordinal), None)

    def lost(self, peer: str) -> list[Passed]:
        """Return, and forget, what is under way at a peer that was lost."""
        gone = [key for key in self._passed if key[0] == peer]
        return [self._passed.pop(key) for key in gone]

    def expired(self, now_s: float) -> list[tuple[str, Passed]]:
        """Return, and forget, what nobody waits for any more, and where it is."""
        gone = [key for key, p in self._passed.items() if now_s >= p.expires_s]
        return [(key[0], self._passed.pop(key)) for key in gone]

    def due_s(self) -> float:
        """When the next token expires."""
        if not self._passed:  # asked in every turn of the I/O loop
            return float("inf")
        return min(p.expires_s for p in self._passed.values())

    def unreachable(self, links: Mapping[str, Link]) -> tuple[str, ...]:
        """Return the ways behind us that no token can take, as beats list them."""
        found: dict[str, None] = {}
        for peer, ways in self._behind.items():
            if not links[peer].ready:
                found[peer] = None
                continue
            for names in ways:
                lost = links[peer].first_lost(prefixes_of(names))
                if lost:
                    found[f"{peer}{WAY_MARK}{lost}"] = None
        return tuple(found)[:STREAMS_MAX]

    def _number(self, asked: Asked) -> int:
        """Return the stream that we ask this under, on the wire."""
        text = f"{self._device} {asked.device} {asked.segment:016x}"
        return zlib.crc32(text.encode())


def prefixes_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return each beginning of a way, as beats name it.

    >>> prefixes_of(["b", "c"])
    ('b', 'b+c')
    """
    return tuple(WAY_MARK.join(names[: i + 1]) for i in range(len(names)))
