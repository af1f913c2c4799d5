"""Times of the cuts that were not measured, from those that were.

The coordinate of a cut is its *share*: of the whole model's time, what the nodes of the
head take, by a profile of single nodes. A head then takes its share of the whole, and
what comes on top at a cut: to write out what stays in caches and in another layout when
the model is whole, which grows with the bytes that cross. It is fitted to the measured
cuts as ``H + T - W = a + b x bytes``, half of it on either side. What is left between
that and the measured times changes slowly with the share, and is interpolated.
"""

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENDS = 0.02
"""Share of the first anchor; the last one's is as near to the other end. Errors are
relative, and short heads and tails have the largest."""
_ALIKE_BYTES = 200_000
_NEAR = 2
"""Measured cuts that count on either side of a predicted one, for its bounds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cut lies: its share of the whole, and what crosses, in bytes."""

    share: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A cut whose head and tail ran."""

    place: Place
    head_ms: float
    tail_ms: float


def spread(shares: Sequence[float], count: int) -> list[int]:
    """Return indices of `count` cuts, or all, that are spread over the model.

    >>> spread([0.0, 0.1, 0.2, 0.5, 0.6, 0.9, 1.0], 3)
    [0, 3, 6]
    """
    wanted = np.linspace(ENDS, 1 - ENDS, count) if count > 1 else [0.5] * count
    chosen: list[int] = []
    for share in wanted:
        free = [i for i in range(len(shares)) if i not in chosen]
        if free:
            chosen.append(min(free, key=lambda i: abs(shares[i] - share)))
    return sorted(chosen)


def smaller_than_before(places: Sequence[Place]) -> list[int]:
    """Return indices of the cuts that send less than any with a shorter head.

    For some link and some server one of them is best, if the boundary costs nothing.
    """
    found, least = [], math.inf
    for index in sorted(range(len(places)), key=lambda i: (places[i].share, i)):
        if places[index].bytes < least:
            least = places[index].bytes
            found.append(index)
    return sorted(found)


def to_measure(places: Sequence[Place], count: int, *, front: bool = True) -> list[int]:
    """Return indices of the cuts that are to be measured, to predict the others.

    Args:
        places: All cuts.
        count: To be spread over the model.
        front: Those that may be best, too.
    """
    chosen = {*spread([place.share for place in places], count)}
    if front:
        chosen |= {*smaller_than_before(places)}
    return sorted(chosen)


class Predictor:
    """Gives the times of any cut of a model.

    Args:
        whole_ms: Time of the uncut model.
        measured: In any order; none: shares alone.
    """

    def __init__(self, whole_ms: float, measured: Sequence[Measured] = ()) -> None:
        self._whole_ms = whole_ms
        known = sorted(measured, key=lambda m: m.place.share)
        self._per_byte = _slope(
            [m.place.bytes for m in known],
            [m.head_ms + m.tail_ms - whole_ms for m in known],
        )
        plain = [self._plain(m.place) for m in known]
        self._shares = [0.0, *(m.place.share for m in known), 1.0]
        self._heads = [m.head_ms - p[0] for m, p in zip(known, plain, strict=True)]
        self._tails = [m.tail_ms - p[1] for m, p in zip(known, plain, strict=True)]
        self._least_ms = min((min(m.head_ms, m.tail_ms) for m in known), default=0.0)

    def __call__(self, place: Place) -> tuple[float, float]:
        """Return the times of head and tail, ms."""
        head_ms, tail_ms = self._plain(place)
        if self._heads:
            # An empty head takes no time; nothing is known of what it would write out.
            heads = [0.0, *self._heads, self._heads[-1]]
            tails = [self._tails[0], *self._tails, 0.0]
            head_ms += float(np.interp(place.share, self._shares, heads))
            tail_ms += float(np.interp(place.share, self._shares, tails))
        return max(head_ms, self._least_ms), max(tail_ms, self._least_ms)

    def _plain(self, place: Place) -> tuple[float, float]:
        boundary_ms = self._per_byte * place.bytes / 2
        return (
            place.share * self._whole_ms + boundary_ms,
            (1 - place.share) * self._whole_ms + boundary_ms,
        )


def _slope(sizes: Sequence[int], extra_ms: Sequence[float]) -> float:
    """Return how a cut's cost grows per byte, by least squares; never below 0.

    Where all sizes are much alike, what differs has other reasons: the slope is drawn
    to 0, noticeably so when they differ by less than `_ALIKE_BYTES`.
    """
    if len(sizes) < 3:
        return 0.0
    x = np.array(sizes, float) - np.mean(sizes)
    return max(0.0, float(x @ np.array(extra_ms) / (x @ x + _ALIKE_BYTES**2)))


@dataclass(frozen=True, slots=True)
class Error:
    """How wrong a measured cut would be predicted by the others alone, ms."""

    of: Measured
    head_ms: float
    tail_ms: float


def left_out(whole_ms: float, measured: Sequence[Measured]) -> list[Error]:
    """Return the error of each measured cut, in the order of their shares.

    Of fewer than three nothing can be said, and nothing is returned.
    """
    if len(measured) < 3:
        return []
    found = []
    for truth in sorted(measured, key=lambda m: m.place.share):
        others = [m for m in measured if m is not truth]
        head_ms, tail_ms = Predictor(whole_ms, others)(truth.place)
        errors_ms = abs(head_ms - truth.head_ms), abs(tail_ms - truth.tail_ms)
        found.append(Error(truth, *errors_ms))
    return found


def bounds(
    place: Place,
    predicted_ms: tuple[float, float],
    errors: Sequence[Error],
    floor: float,
) -> tuple[float, float]:
    """Return bounds of the relative errors of a predicted head and tail.

    The largest error of the measured cuts around it, either as a time or as a part of
    one: a short tail beside a long one is not off by as much time, nor a long one
    beside a short one by as large a part.

    Args:
        place: Of the predicted cut.
        predicted_ms: Its head and tail.
        errors: At least one, as `left_out` gives them.
        floor: Relative error of what is measured, which comes on top.
    """
    behind = bisect([error.of.place.share for error in errors], place.share)
    near = errors[max(0, behind - _NEAR) : behind + _NEAR]
    head_ms, tail_ms = predicted_ms
    head = min(
        max(e.head_ms for e in near) / head_ms,
        max(e.head_ms / e.of.head_ms for e in near),
    )
    tail = min(
        max(e.tail_ms for e in near) / tail_ms,
        max(e.tail_ms / e.of.tail_ms for e in near),
    )
    return head + floor, tail + floor
