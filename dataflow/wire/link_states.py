"""The states of a link, what leads from one to the next, and what it has done then.

`TRANSITIONS` is the whole truth; as a picture::

    WAITING ─dial─► DIALLING ─welcome─► PROVING ─proved─► READY
       ▲               │  └─loading─► LOADING ─┘ ▲ │         │ doubt
       │ close         │                         │ └─ doubt ─┤
       │               │                         └─recovered─┤
       └───────────────┴────────────── close ─────────── SUSPECT
"""

from collections.abc import Mapping
from enum import Enum
from typing import Literal, NamedTuple

from dataflow.wire.control import Control
from dataflow.wire.peer_clock import Offset
from dataflow.wire.rate import LinkRate
from dataflow.wire.timers import HEARTBEAT, Heartbeat

Lane = Literal["data", "control"]
Evidence = Literal["connection", "heartbeat", "beat", "send", "deadline", "bye"]


class State(Enum):
    """Where a link is in its life."""

    WAITING = "waiting"
    DIALLING = "dialling"
    LOADING = "loading"
    PROVING = "proving"
    READY = "ready"
    SUSPECT = "suspect"


class Event(Enum):
    """What moves a link from state to state."""

    DIAL = "dial"
    LOADING = "loading"
    WELCOME = "welcome"
    PROVED = "proved"
    DOUBT = "doubt"
    RECOVERED = "recovered"
    CLOSE = "close"


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.WAITING, Event.DIAL): State.DIALLING,
    (State.DIALLING, Event.LOADING): State.LOADING,
    (State.DIALLING, Event.WELCOME): State.PROVING,
    (State.LOADING, Event.LOADING): State.LOADING,
    (State.LOADING, Event.WELCOME): State.PROVING,
    (State.PROVING, Event.PROVED): State.READY,
    (State.READY, Event.DOUBT): State.SUSPECT,
    (State.PROVING, Event.DOUBT): State.SUSPECT,
    (State.SUSPECT, Event.RECOVERED): State.PROVING,
    (State.DIALLING, Event.CLOSE): State.WAITING,
    (State.LOADING, Event.CLOSE): State.WAITING,
    (State.PROVING, Event.CLOSE): State.WAITING,
    (State.SUSPECT, Event.CLOSE): State.WAITING,
}


class LinkError(AssertionError):
    """An event that the state forbids: our own fault, so it prints the history."""


class Dial(NamedTuple):
    """Open both lanes for a new session."""

    session: int
    heartbeat: Heartbeat = HEARTBEAT
    """Of the control lane."""


class Close(NamedTuple):
    """Close both lanes."""


class Send(NamedTuple):
    """Send on the control lane."""

    message: Control


class Probe(NamedTuple):
    """Send a probe on the data lane."""

    session: int
    number: int
    size: int = 0
    """Bytes that it carries, which mean nothing."""


class Up(NamedTuple):
    """The peer may be used."""

    session: int
    away_s: float | None
    """Time since it was lost; None when it comes up for the first time."""


class Suspect(NamedTuple):
    """Start nothing there; start the next branch for what is outstanding."""

    session: int
    evidence: Evidence
    text: str


class Dead(NamedTuple):
    """The session is over: no late answer can come."""

    session: int


class Refused(NamedTuple):
    """A configuration error, told once: somebody must change something."""

    why: str


class Measured(NamedTuple):
    """How the peer's clock differs from ours, now and then."""

    offset: Offset


class Rated(NamedTuple):
    """What the link carries was learned, or is not what was told before."""

    rate: LinkRate


Action = Rated | Dial | Close | Send | Probe | Up | Suspect | Dead | Refused | Measured
