"""Which partition is the quickest at which rate of the links, in closed form.

With the rate of all links, both ways, as the only variable, the latency of a partition
is a line over its inverse: what does not depend on the rate, plus megabits over Mbit/s.
The quickest at each rate are the lines of the lower envelope.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from understudy.chains import Found, Search
from understudy.costs import Partition, cost
from understudy.exploration import Threshold


@dataclass(frozen=True, slots=True)
class _Line:
    """The latency of a partition: `ms` plus `megabits` at 1 Mbit/s each 1000 ms."""

    number: int
    label: str
    codec: str
    ms: float
    ms_at_1: float
    """What 1 Mbit/s adds."""


def thresholds(
    search: Search, allowed: Mapping[int, tuple[str, Found]]
) -> tuple[Threshold, ...]:
    """Return the quickest partition at every rate, from the lowest rate on.

    Args:
        search: Whose devices, codecs and round trips are taken.
        allowed: Number of a row -> its label and what was found for it. Each is tried
            with every codec that its first crossing may have.
    """
    lines = [
        _line(number, label, each.partition)
        for number, (label, found) in allowed.items()
        for each in search.variants(found)
    ]
    return tuple(_envelope(lines))


def _line(number: int, label: str, partition: Partition) -> _Line:
    ms = _latency_ms(partition, math.inf)
    codec = partition.crossings[0].codec if partition.crossings else ""
    return _Line(number, label, codec, ms, _latency_ms(partition, 1.0) - ms)


def _latency_ms(partition: Partition, mbit_s: float) -> float:
    links = tuple(
        replace(link, there_mbit_s=mbit_s, back_mbit_s=mbit_s)
        for link in partition.links
    )
    return cost(replace(partition, links=links)).total_ms


def _envelope(lines: Iterable[_Line]) -> Iterator[Threshold]:
    """Yield the lines of the lower envelope, from the lowest rate to the highest."""
    left = list(lines)
    line = min(left, key=lambda each: (each.ms_at_1, each.ms))
    from_mbit_s = 0.0
    while True:
        # At higher rates only a line with less in front of it can take over.
        left = [each for each in left if each.ms < line.ms]
        if not left:
            yield Threshold(from_mbit_s, None, line.number, line.label, line.codec)
            return
        meets = [(_meet(line, each), each.ms, each) for each in left]
        to_mbit_s, _, other = min(meets, key=lambda meet: meet[:2])
        yield Threshold(from_mbit_s, to_mbit_s, line.number, line.label, line.codec)
        line, from_mbit_s = other, to_mbit_s


def _meet(line: _Line, other: _Line) -> float:
    """Return the rate from which `other`, the steeper one, is quicker."""
    return (other.ms_at_1 - line.ms_at_1) / (line.ms - other.ms)
