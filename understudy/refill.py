"""When a stream is itself again after a failure: its window is as full as usual.

While a failure is not yet noticed, frames go on firing and pile up in the window. Once
they are moved they are answered one by one, and the pile goes. The refill lasts until
no more frames are without an outcome than usual: the median, over the 200 frames before
the failure, of how many a new frame found there.
"""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

USUAL_FRAMES = 200
LIMIT_S = 2.0
"""A window that is not back by then had no way back: other rows are slower."""


@dataclass(frozen=True, slots=True)
class Fill:
    """How many frames of one stream were without an outcome, at any time.

    Attributes:
        fired_s: When each frame fired, ascending.
        settled_s: When each outcome was decided, ascending.
    """

    fired_s: Sequence[float]
    settled_s: Sequence[float]

    def at(self, t_s: float) -> int:
        """Return the frames fired before `t_s` and not settled by then."""
        return bisect_left(self.fired_s, t_s) - bisect_right(self.settled_s, t_s)

    def usual(self, t_s: float) -> float | None:
        """Return what the frames before `t_s` found; None: there were none."""
        last = bisect_left(self.fired_s, t_s)
        before = self.fired_s[max(0, last - USUAL_FRAMES) : last]
        return statistics.median(map(self.at, before)) if before else None

    def back_s(self, fault_s: float, from_s: float) -> float | None:
        """Return when the fill was usual again, at `from_s` or after; None: it was not.

        Args:
            fault_s: What was usual was so before it.
            from_s: When everything outstanding had been started again.
        """
        usual = self.usual(fault_s)
        if usual is None:
            return None
        if self.at(from_s) <= usual:
            return from_s
        first = bisect_right(self.settled_s, from_s)
        last = bisect_right(self.settled_s, from_s + LIMIT_S)
        return next(
            (t for t in self.settled_s[first:last] if self.at(t) <= usual), None
        )
