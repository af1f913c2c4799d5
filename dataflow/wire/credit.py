"""What may be sent on a link: credit, in messages.

The peer grants each stream a limit when the session opens, and raises it with every
answer; our messages are numbered, and one may go while its number is below the limit.
"""

from collections.abc import Mapping

from dataflow.wire.control import StreamOffer


class Credit:
    """The credit of each stream that a link carries, in its present session.

    Attributes:
        offers: Streams that we want served.
        ready: The peer may be used; an attribute, since every choice of a row reads it.
    """

    def __init__(self, offers: tuple[StreamOffer, ...]) -> None:
        self.offers = offers
        self.ready = False
        self._limits: dict[int, int] = {}
        self._ordinals: dict[int, int] = {}
        self._others = 0
        """Tokens of others that the peer had to compute, when it last told."""
        self._starved_s: dict[int, float] = {}
        """Since when a stream has no credit, and got no answer."""

    def credit(self, stream: int) -> int:
        """Messages that may still be sent for `stream` in the session."""
        return self._limits.get(stream, 0) - self._ordinals.get(stream, 0)

    def takes(self, stream: int) -> bool:
        """Tell whether a token of `stream` may be sent now."""
        # As `credit`, without its call: the choice of each row asks every branch.
        return self.ready and (
            self._limits.get(stream, 0) > self._ordinals.get(stream, 0)
        )

    @property
    def outstanding(self) -> int:
        """Tokens that the peer has to compute: ours now, others' at its last beat."""
        return self.under_way() + self._others

    def take_ordinal(self, stream: int) -> int:
        """Return the number of the next message, which is then under way."""
        ordinal = self._ordinals.get(stream, 0)
        self._ordinals[stream] = ordinal + 1
        return ordinal

    def raise_limit(self, stream: int, limit: int) -> None:
        """Credit came with an answer. Limits only grow, in whatever order they come."""
        if self._starved_s:
            self._starved_s.pop(stream, None)
        if limit > self._limits.get(stream, 0):
            self._limits[stream] = limit

    def under_way(self) -> int:
        """Tokens sent in the session that got no answer yet."""
        return sum(o.window - self.credit(o.stream) for o in self.offers)

    def told_queue(self, queue: int) -> None:
        """The peer told how many tokens wait there."""
        self._others = max(queue - self.under_way(), 0)

    def grant(self, limits: Mapping[int, int]) -> None:
        """The session is welcome."""
        self._limits = dict(limits)

    def forget(self) -> None:
        """A new session begins."""
        self._limits.clear()
        self._ordinals.clear()
        self._starved_s.clear()
        self._others = 0

    def starved_s(self, now_s: float) -> float:
        """Return how long a stream has had no credit, and got no answer; the longest.

        The peer answers each message once, and credit comes with the answer. If it has
        nothing to do then, the answers were lost, and with them all credit: the link
        would be ready for ever and never be used.
        """
        starved_s = 0.0
        for stream in self._ordinals:
            if self.credit(stream) <= 0:
                since_s = self._starved_s.setdefault(stream, now_s)
                starved_s = max(starved_s, now_s - since_s)
        return starved_s
