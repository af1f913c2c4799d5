"""Which frames are admitted when not all of them can be carried: evenly spread ones.

A link too slow for its stream fills the window, or what it can carry before a deadline.
Then every frame waits for as many others as there is room for, and which frames are
dropped is an accident. So a stream watches what share of its frames was answered. When
frames were turned away in a whole period it admits that share of them, one in so many,
and drops the rest before any inference, `rate`: the window drains, and latency is that
of the link. When the window stayed half empty for some periods it tries more, and waits
twice as long before the next try if that was too much.

A failure does not look like this: the window is made to outlast its detection. And a
stream that could send smaller tokens gets a period more before it sends fewer: its
codec notices a slow link within a few tokens (`wire.codecs`), and then all are carried.

Sans-IO: no clock, no random number.
"""

PERIOD_S = 1.0
FIRINGS_MIN = 8
"""A period has at least so many firings: a slow camera's last longer."""
REFUSED_SHARE = 0.1
"""Frames turned away in a period from which on the stream is too fast."""
DRAIN = 0.9
"""Of what was answered: the rest lets the window drain."""
GROWTH_FIRST, GROWTH = 2.0, 1.2
"""Of the share: until a try was too much, for the first share is a guess from what a
link carried while it was full of frames too many; and from then on."""
SHARE_MIN = 1 / 256
CALM_FIRST, CALM_PERIODS = 2, 4
CALM_PERIODS_MAX = 64


class Sampling:
    """The admission of one stream.

    Attributes:
        share: Of its frames that are admitted, 0 < share <= 1.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._phase = 0.0
        self._began_s: float | None = None
        self._fired = self._answered = self._refused = 0
        self._filled = 0.0
        """The largest share of the window that was taken in this period."""
        self._calm = 0
        self._calm_needed = CALM_FIRST
        self._growth = GROWTH_FIRST
        self._tried = False
        self._lighter = self._spared = False
        """In this period smaller tokens could have been sent; in the last they could,
        and so the share stood though frames were turned away."""

    def admits(self, now_s: float, *, lighter: bool = False) -> bool:
        """A frame was fired: tell whether it is one of those to be admitted.

        Args:
            now_s: Monotonic time.
            lighter: What plays now could be played with smaller tokens.
        """
        if self._began_s is None:
            self._began_s = now_s
        elif now_s - self._began_s >= PERIOD_S and self._fired >= FIRINGS_MIN:
            self._judge()
            self._began_s = now_s
        self._fired += 1
        self._lighter |= lighter
        self._phase += self.share
        if self._phase < 1.0:
            return False
        self._phase -= 1.0
        return True

    def met(self, open_iterations: int, window: int) -> None:
        """The frame met a window with so many iterations in it; it may be full."""
        self._refused += open_iterations >= window
        self._filled = max(self._filled, open_iterations / max(window, 1))

    def refused(self) -> None:
        """The frame could only have been answered after its deadline."""
        self._refused += 1
        self._filled = 1.0

    def answered(self) -> None:
        """An iteration was answered."""
        self._answered += 1

    def interrupted(self) -> None:
        """A branch was lost: what happens now says nothing of what a link carries."""
        self._began_s = None
        self._forget()

    def _judge(self) -> None:
        """Decide on the share for the period that begins now."""
        # With a lowered share there is room for each, or the share is too large.
        bearable = REFUSED_SHARE * self._fired if self.share == 1.0 else 0
        over = self._refused > bearable and self._answered > 0
        spared, self._spared = self._spared, over and self._lighter
        if over and self._lighter and not spared:
            self._calm = 0
        elif over:
            carried = self._answered / self._fired
            self.share = max(SHARE_MIN, min(self.share, DRAIN * carried))
            if self._tried:
                self._growth = GROWTH
                needed = max(2 * self._calm_needed, CALM_PERIODS)
                self._calm_needed = min(needed, CALM_PERIODS_MAX)
            self._calm, self._tried = 0, False
        elif self.share < 1.0:
            self._calm = self._calm + 1 if self._filled <= 0.5 else 0
            if self._calm >= self._calm_needed:
                self.share = min(1.0, self.share * self._growth)
                self._calm, self._tried = 0, True
        if self.share == 1.0:
            self._calm_needed, self._growth = CALM_FIRST, GROWTH_FIRST
        self._forget()

    def _forget(self) -> None:
        self._lighter = False
        self._fired = self._answered = self._refused = 0
        self._filled = 0.0
