"""How long a branch takes to answer, learned from its own answers."""

import math
from bisect import bisect_left, insort
from collections import deque

KEPT = 64
RECENT_S = 5.0
STALE_S = 1.0


class ServiceTime:
    """Percentiles over the latest answers of one branch.

    What was measured more than a second ago says nothing of now: then the answer is 0,
    "unknown", so that a branch once too slow for its deadline is tried again. Nor do
    those among the latest answers, where they are few, that came some time before.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._sorted_s: list[float] = []
        self._latest_s = float("-inf")

    def add(self, took_s: float, now_s: float) -> None:
        samples, sorted_s = self._samples, self._sorted_s
        if len(samples) == KEPT:
            del sorted_s[bisect_left(sorted_s, samples.popleft()[1])]
        samples.append((now_s, took_s))
        insort(sorted_s, took_s)
        self._latest_s = now_s

    def fresh(self, now_s: float, age_s: float) -> bool:
        """Tell whether an answer came in the last `age_s`."""
        return now_s - self._latest_s <= age_s

    def forget(self) -> None:
        self._samples.clear()
        self._sorted_s.clear()
        self._latest_s = float("-inf")

    def percentile_s(self, fraction: float, now_s: float) -> float:
        """Return the smallest sample that `fraction` of them do not exceed."""
        if now_s - self._latest_s > STALE_S:
            return 0.0
        since_s = now_s - RECENT_S
        if self._samples[0][0] >= since_s:
            return _ranked_s(self._sorted_s, fraction)
        return _ranked_s(
            sorted(t for at, t in self._samples if at >= since_s), fraction
        )

    def learned_s(self, fraction: float) -> float:
        """Return the same, however old; 0 while no sample can lie above it.

        The 95th percentile of twenty samples is the first that says anything.
        """
        if len(self._samples) < min(round(1 / (1 - fraction)), KEPT):
            return 0.0
        return _ranked_s(self._sorted_s, fraction)


def _ranked_s(sorted_s: list[float], fraction: float) -> float:
    return sorted_s[max(math.ceil(fraction * len(sorted_s)) - 1, 0)]
