"""What a run is a function of, and what comes of it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.sessions import Sessions


class Violation(AssertionError):  # noqa: N818, it is no error of ours
    """A promise is broken; the message says how to see it again."""


class Machines(NamedTuple):
    """The classes under test; a planted bug is a subclass of one."""

    ledger: type[Ledger] = Ledger
    link: type[Link] = Link
    sessions: type[Sessions] = Sessions


class Value(NamedTuple):
    """What a branch computes: who computed what from which token."""

    stream: int
    frame: int
    branch: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is a function of."""

    seed: int
    endpoints: int = 1
    servers: int = 2
    frames: int = 60
    machines: Machines = field(default_factory=Machines)
    faults: tuple[str, ...] | None = None
    """Names of the faults to draw from; None: all."""
    local: bool | None = None
    """Whether streams have local branches; None: drawn."""
    trace: bool = False


class Result(NamedTuple):
    """What a run that kept its promises was."""

    digest: str
    """The same for the same setup, on every machine."""
    outcomes: int
    full: int
    dropped: int
    attempts: int
    events: int
