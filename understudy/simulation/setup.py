"""What a run is a function of, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow.turns import Turns
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.relay import Relay
from dataflow.wire.sessions import Sessions
from understudy.records import Run
from understudy.simulation.scenario import Scenario


class Violation(AssertionError):  # noqa: N818, it is no error of ours
    """A promise is broken.

    Attributes:
        promise: Its number, such as S1.
        setup: The run that broke it, which breaks it again.
        planned: Faults that its seed drew.
    """

    def __init__(
        self, promise: str, text: str, setup: "Setup", time_s: float, planned: int
    ) -> None:
        self.promise = promise
        self.setup = setup
        self.planned = planned
        super().__init__(f"{promise} at {time_s:.3f} s: {text}")


class Machines(NamedTuple):
    """The classes under test; a planted bug is a subclass of one."""

    ledger: type[Ledger] = Ledger
    link: type[Link] = Link
    sessions: type[Sessions] = Sessions
    relay: type[Relay] = Relay
    turns: type[Turns[Any]] = Turns


REAL = Machines()


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is a function of."""

    seed: int
    scenario: Scenario
    frames: int = 100
    """Of each stream while faults come; some follow until all is well again."""
    faults: Sequence[str] | None = None
    """Names of the faults to draw from; None: all."""
    kept: frozenset[int] | None = None
    """Of the faults that the seed draws only these happen; None: all."""
    machines: Machines = REAL
    trace: bool = False
    """Print what happens."""


class Fault(NamedTuple):
    """A fault that was set in a run."""

    number: int
    """Among all that the seed drew, as `Setup.kept` counts them."""
    name: str
    target: str
    begin_s: float
    length_s: float


class Result(NamedTuple):
    """What a run that kept its promises was."""

    run: Run
    """Its outcomes, as a run folder holds them."""
    faults: Sequence[Fault]
    planned: int
    """Faults that the seed drew."""
    attempts: int
    events: int
    seconds: float
    """Of virtual time."""
