"""What a sink gets for an iteration: exactly one outcome, in frame order."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Status = Literal["full", "degraded", "dropped"]

Reason = Literal["", "rate", "window", "deadline", "no-branch", "error", "end"]
"""Why an iteration was dropped; empty when it was answered. ``end``: the stream ended
before its last iteration had all its frames."""


class Outcome(NamedTuple):
    """The token that a region's join emits, at rate 1 in every mode.

    `value` is undefined (None) when the iteration was dropped. Its memory is reused
    once the sink's firing returns: a sink that keeps it, copies it.
    """

    stream: str
    incarnation: int
    """Random per life of the source's process (u64)."""
    first: int
    """First frame that this outcome covers."""
    last: int
    status: Status
    row: str
    """The branch that answered, the mode of a DPG around the region in which another
    answer was there already (such as ``exit``), or ``drop``."""
    reason: Reason
    value: NDArray[np.generic] | None
    fired_s: float
    """When the source fired, on the monotonic clock of its device; for the last time,
    if the outcome covers several frames."""
    settled_s: float
    """When the ledger decided the outcome, same clock."""
    attempts: int
    """Branches started for this iteration."""
