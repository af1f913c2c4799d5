"""The rows of a stream's control table: each way to an answer, on each of its servers.

A way whose tensors may be encoded as its link needs it has a second row for every
server, behind those that send whole: answers that are full come before others.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataflow.graph import ALL_ROW, DROP_ROW
from dataflow.wire.compression import AUTO
from graphs.deployment import AUTO_ENCODING, NO_CODEC, Codec
from graphs.exits import EXIT_MODE
from graphs.plain import Home
from graphs.streams import Stream
from graphs.units import Edge, Units
from graphs.ways import Way

ROWS_MAX = 254
"""A row is one byte on the wire, and `all` and `drop` are two."""
PATH_MARK = "+"
"""Between the servers of a row: no name of a device has it."""


def paths(tiers: Sequence[Sequence[str]], start: int) -> Iterator[tuple[str, ...]]:
    """Yield every way through the tiers, a server of each, in rotation order.

    Rows next to each other have as little in common as can be: when a frame does not
    come back, what went wrong on its way is not known yet.

    Args:
        tiers: The servers of each.
        start: Which one of the first tier comes first; streams begin at different ones.

    >>> list(paths([["a", "b"], ["x", "y"]], 1))
    [('b', 'y'), ('a', 'x'), ('b', 'x'), ('a', 'y')]
    """
    first, *others = tiers
    for shifts in itertools.product(*(range(len(tier)) for tier in others)):
        for turn in range(start, start + len(first)):
            rest = zip(others, shifts, strict=True)
            yield (
                first[turn % len(first)],
                *(tier[(turn + shift) % len(tier)] for tier, shift in rest),
            )


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one stream's control table: a way, on a device."""

    index: int
    name: str
    way: Way
    path: tuple[str, ...]
    """Servers that a frame passes; none: it stays at home."""
    encoding: str = ""
    """Of what crosses links, where another row of this way sends it whole."""


def rows_of(stream: Stream, home: Home, index: int) -> tuple[Row, ...]:
    """Return the rows of a stream, in the policy's order.

    Args:
        stream: What its source leads to.
        home: Where it is at home; is told what is wrong.
        index: Of the stream: each begins with another server.
    """
    groups = home.plain.deployment.groups
    rows: list[Row] = []
    for way in stream.ways:
        if not way.hops:
            rows.append(Row(len(rows), way.actor, way, ()))
            continue
        tiers = [groups[hop.group].instances for hop in way.hops]
        for encoding in _encodings(stream, way, home.plain.units):
            for path in itertools.islice(paths(tiers, index), ROWS_MAX + 1):
                name = PATH_MARK.join(path)
                if encoding or way.quality != "full":
                    name = f"{encoding or way.actor}@{name}"
                rows.append(Row(len(rows), name, way, path, encoding))
    _check(rows, stream, home)
    return tuple(rows)


def encodes(edge: Edge, units: Units) -> bool:
    """Tell whether rows may encode what crosses there: as ``auto`` finds best."""
    token = units.port(edge.source, "out").token
    if token is None or edge.codec.compression != AUTO:
        return False
    return Codec(AUTO_ENCODING).of(token) != NO_CODEC


def _encodings(stream: Stream, way: Way, units: Units) -> tuple[str, ...]:
    """Return how a way has rows of: whole tokens first, then each encoding.

    What a server of an understudy reads is sent whole: its answer is degraded anyway,
    and comes behind the rows that encode.
    """
    chosen = way.quality == "full" and any(
        edge.target.unit in way.units and encodes(edge, units) for edge in stream.edges
    )
    return ("", AUTO_ENCODING) if chosen else ("",)


def _check(rows: Sequence[Row], stream: Stream, home: Home) -> None:
    place, problems = home.policy, home.plain.problems
    names = [row.name for row in rows]
    if len(rows) > ROWS_MAX:
        problems.add(
            place,
            f"failover: {len(rows)} ways to an answer for one stream; "
            f"the most is {ROWS_MAX}, so list fewer servers",
        )
    taken = {DROP_ROW}
    taken |= {EXIT_MODE} if stream.gate else set()
    taken |= {ALL_ROW} if home.plain.deployment.redundancy.together else set()
    for name in dict.fromkeys(names):
        if names.count(name) > 1 or name in taken:
            problems.add(
                place,
                f"failover: two rows would be called '{name}'; "
                "rename the device group or the actor",
            )
