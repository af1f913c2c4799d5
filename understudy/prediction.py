"""Times of the cuts that were not measured, from those that were.

The coordinate of a cut is its *share*: of the whole model's time, what the nodes of the
head take, by a profile of single nodes. A head then takes its share of the whole, and
what comes on top at a cut: to write out what stays in caches and in another layout when
the model is whole, which grows with the bytes that cross. That is fitted to the heads
alone, each weighed by its time: the sum of head and tail would tell it free of errors
of the shares, but an early cut has a long tail, whose noise is as much as its head.
What is left between that and the measured times changes slowly with the share, and is
interpolated.
"""

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENDS = 0.02
"""Share of the first anchor; the last one's is as near to the other end."""
_ALIKE_BYTES = 200_000
_DOUBT = 2.0
"""Standard errors by which a fitted cost per byte is taken to be too high."""
_SHORT = 0.01
"""Share of the whole below which a head's time weighs no more than at it."""
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

    Closer at its ends: errors are relative, and there heads or tails are short.

    >>> spread([0.0, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0], 5)
    [1, 3, 4, 5, 7]
    """
    end = _stretched(ENDS)
    wanted = np.linspace(end, -end, count) if count > 1 else [0.0] * count
    chosen: list[int] = []
    for at in wanted:
        free = [i for i in range(len(shares)) if i not in chosen]
        if free:
            chosen.append(min(free, key=lambda i: abs(_stretched(shares[i]) - at)))
    return sorted(chosen)


def _stretched(share: float) -> float:
    """Return the logarithm of head over tail, which stays finite at the ends."""
    share = min(max(share, 0.0), 1.0)
    return math.log((share + ENDS) / (1 - share + ENDS))


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
        self._per_byte = _per_byte(whole_ms, known)
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
        share_ms = place.share * self._whole_ms
        return share_ms + self._per_byte * place.bytes, self._whole_ms - share_ms


def _per_byte(whole_ms: float, measured: Sequence[Measured]) -> float:
    """Return how the time of a head grows per byte that it writes out, ms.

    By least squares of relative errors, less what they leave in doubt; never below 0.
    A factor on all shares is fitted with it: early cuts are the large ones, so it would
    else be taken for a cost of bytes. Where all sizes are much alike, what differs has
    other reasons: the slope is drawn to 0, noticeably so when they differ by less than
    `_ALIKE_BYTES`.
    """
    if len(measured) < 4:  # two would go to the fit, and one tells no doubt
        return 0.0
    heads_ms = np.array([m.head_ms for m in measured])
    shares = np.array([m.place.share for m in measured])
    sizes = np.array([m.place.bytes for m in measured], float)
    weights = 1 / (heads_ms + _SHORT * whole_ms)
    weights /= np.sqrt(np.mean(weights**2))
    along = weights * shares
    along /= np.linalg.norm(along) or 1.0
    # What the shares do not explain, of the sizes and of the times.
    x, y = (weights * each for each in (sizes, heads_ms))
    x, y = x - (along @ x) * along, y - (along @ y) * along
    spread_of_x = float(x @ x) + _ALIKE_BYTES**2
    slope = float(x @ y) / spread_of_x
    left = y - slope * x
    doubt = math.sqrt(float(left @ left) / (len(measured) - 2) / spread_of_x)
    return max(0.0, slope - _DOUBT * doubt)


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
