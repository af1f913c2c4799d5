"""How long a branch takes to answer, learned from its own answers."""

import math
from bisect import bisect_left, insort
from collections import deque

KEPT = 64
STALE_S = 1.0


class ServiceTime:
    """Percentiles over the latest answers of one branch.

    What was measured more than a second ago says nothing of now: then the answer is 0,
    "unknown", so that a branch once too slow for its deadline is tried again.
    """

    def __init__(self) -> None:
        self._samples_s: deque[float] = deque()
        self._sorted_s: list[float] = []
        self._latest_s = float("-inf")

    def add(self, took_s: float, now_s: float) -> None:
        if len(self._samples_s) == KEPT:
            oldest_s = self._samples_s.popleft()
            del self._sorted_s[bisect_left(self._sorted_s, oldest_s)]
        self._samples_s.append(took_s)
        insort(self._sorted_s, took_s)
        self._latest_s = now_s

    def forget(self) -> None:
        self._samples_s.clear()
        self._sorted_s.clear()

    def percentile_s(self, fraction: float, now_s: float) -> float:
        """Return the smallest sample that `fraction` of them do not exceed."""
        if not self._samples_s or now_s - self._latest_s > STALE_S:
            return 0.0
        rank = math.ceil(fraction * len(self._sorted_s))
        return self._sorted_s[max(rank, 1) - 1]
