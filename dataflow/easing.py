"""How much a stream has under way at a server that cannot keep up.

The server answers, so it is not lost; but tokens wait there longer than the window of
the stream lasts, and frames would be dropped for it while another branch has nothing to
do. So fewer are sent: half as many each time that the window fills up, one more for
each round of answers. What is not sent there plays elsewhere.

Source:
    Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
    avoidance in computer networks", Computer Networks and ISDN Systems 17(1), 1989.
"""


class Easing:
    """The room of one branch: tokens that it may have under way.

    Args:
        most: The stream's window, which is all that it ever has.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.room = self._most
        self._again_s = float("-inf")

    def crowded(self, under_way: int, waited_s: float, now_s: float) -> None:
        """The window is full, and its oldest iteration waits for the branch.

        What was sent before the last time is judged once: `waited_s` must pass.
        """
        if now_s >= self._again_s:
            self._again_s = now_s + waited_s
            self.room = max(min(self.room, under_way) / 2, 1.0)

    def answered(self) -> None:
        """An answer came."""
        self.room = min(self.room + 1 / self.room, self._most)

    def forget(self) -> None:
        """The server is there again: what it did before says nothing of now."""
        self.room = self._most
