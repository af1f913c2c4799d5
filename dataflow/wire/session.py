"""One session at the side that listens, and what follows from what comes in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow.wire.control import Control, Hello, StreamOffer
from dataflow.wire.header import Header
from dataflow.wire.peer_clock import PeerClock


class Send(NamedTuple):
    """Send on the control lane with this routing id."""

    route: bytes
    message: Control


class Reply(NamedTuple):
    """Send a header alone on the data lane with this routing id."""

    route: bytes
    header: Header


class Accept(NamedTuple):
    """Fire the branch's actors on the token, then call `answered`."""

    session: "Session"
    offer: StreamOffer
    header: Header


class Opened(NamedTuple):
    """A session was opened."""

    session: "Session"


class Bound(NamedTuple):
    """Let so much be in flight to us on the session's data lane; None: as it likes."""

    session: "Session"
    flight_bytes: int | None


class Ended(NamedTuple):
    """A session is over; nothing is to be sent in it any more."""

    session: "Session"
    why: str


Action = Send | Reply | Accept | Opened | Bound | Ended


@dataclass(slots=True, eq=False)
class Session:
    """One connection of a link, at the side that listens."""

    number: int
    device: str
    incarnation: int
    control: bytes
    """Routing id of the control lane."""
    lane: bytes
    """Routing id of the data lane."""
    offers: Mapping[int, StreamOffer]
    limits: dict[int, int]
    """Per stream: ordinals below it are within the credit."""
    heard_s: float
    reserved_bytes: int
    seen: dict[int, int]
    """Per stream: the ordinal after the highest that came."""
    queued: dict[int, int]
    """Per stream: tokens that wait for their firing, or are in it."""
    about: str = ""
    clock: PeerClock = field(default_factory=PeerClock, compare=False)
    deployment: str = ""
    play: int = 0

    @property
    def owner(self) -> tuple[str, str]:
        """Whose it is: two deployments may have devices of one name."""
        return self.deployment, self.device

    def is_replaced_by(self, hello: Hello) -> bool:
        """Tell whether its device opens a newer session in its place.

        While one plan follows another a device has a session for each.
        """
        return self.owner == (hello.deployment, hello.device) and (
            self.play == hello.play or self.incarnation != hello.incarnation
        )
