"""What happens on the sockets of a device, as `Transport.poll` yields it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dataflow.wire.link_states import Lane

Failure = Literal["closed", "protocol", "key"]
_EXPLAINED: Mapping[Failure, str] = {
    "closed": (
        "it closed the connection, as it does when '{peer}.key' in the keys folder of "
        "'{device}' is not its public key, or it has no keys; copy its present "
        "'{peer}.key' there"
    ),
    "protocol": "it speaks another protocol, or one of the two has no keys",
    "key": (
        "its keys folder does not hold the public key that '{device}' uses, or it shut "
        "'{device}' out for a flood; copy the present '{device}.key' to '{peer}'"
    ),
}

Received = list[Any]
"""Frames: bytes, but large tensors are a `zmq.Frame`, a buffer with a length too."""


class LaneOpened(NamedTuple):
    """The handshake of a lane that we dialled succeeded."""

    peer: str
    lane: Lane


class LaneLost(NamedTuple):
    """A lane that we dialled was disconnected, or found nobody."""

    peer: str
    lane: Lane


class HandshakeFailed(NamedTuple):
    """The peer took the connection but not the handshake."""

    peer: str
    why: Failure
    """It closed the connection, as it does when it has another key than the one that
    we expect; it speaks another protocol; it does not take our key."""


class FromPeer(NamedTuple):
    """A message came from a peer that we dialled."""

    peer: str
    lane: Lane
    frames: Received


class FromRoute(NamedTuple):
    """A message came from a peer that dialled us."""

    route: bytes
    frames: Received
    key: str
    """Its public key, Z85; empty on a plain link."""
    fd: int
    """Of its connection."""


class Woken(NamedTuple):
    """A watched descriptor became readable."""

    fd: int


Happening = LaneOpened | LaneLost | HandshakeFailed | FromPeer | FromRoute | Woken
Frame = Any
"""bytes, or anything with the buffer protocol: a C-contiguous NumPy array."""


def explain(why: Failure, *, device: str, peer: str) -> str:
    """Return what it means that `peer` failed the handshake of `device`."""
    return _EXPLAINED[why].format(device=device, peer=peer)
