"""What a peer may send that nobody asked for: so many messages a second, then no more.

A token within its credit was asked for. Control messages, tokens that are refused and
whatever cannot be read were not: each takes one from the peer's allowance, which fills
up again with time (a token bucket, one for each peer). An honest device sends 20 beats
a second and greets at most ten times; one whose session ended may have whole windows of
tokens under way. What is beyond the allowance is a flood.

Sans-IO: time is an argument.
"""

from collections.abc import Hashable

RATE_HZ = 200.0
BURST = 1000.0
"""To refuse a message takes 20 to 50 µs: a peer can take 1 % of a core, and once 50 ms.
"""
STATUS_COST, GREETING_COST = 50.0, 10.0
"""Messages that a status request counts for, and a greeting: they take as long to
answer, and a greeting is told in the log, with the session that it ends."""
PIECE_COST = 0.05
"""A piece of a segment: a device that loads a model asks for thousands of them."""
PEERS_MAX = 1024
"""Peers remembered; on plain links anybody can be another one with each connection."""


class Allowances:
    """The allowances of all peers."""

    def __init__(self) -> None:
        self._left: dict[Hashable, tuple[float, float]] = {}
        """Per peer: what was left, and when; the one longest unheard of first."""

    def __len__(self) -> int:
        return len(self._left)

    def take(self, peer: Hashable, now_s: float, cost: float = 1.0) -> bool:
        """Take `cost` messages from the allowance of `peer`; False: it is used up."""
        left, since_s = self._left.pop(peer, (BURST, now_s))
        left = min(left + (now_s - since_s) * RATE_HZ, BURST)
        allowed = left >= cost
        self._left[peer] = (left - cost if allowed else left, now_s)
        if len(self._left) > PEERS_MAX:
            del self._left[next(iter(self._left))]
        return allowed
