"""Outcomes of a stream: what the ledger settled, as sink and events are told."""

from collections.abc import Sequence

from dataflow.branches import Branch
from dataflow.events import EventLog
from dataflow.graph import DROP_ROW
from dataflow.meters import StreamMeter
from dataflow.outcome import Outcome, Status
from dataflow.parts import StreamPart
from dataflow.wire.ledger import OUTSIDE, Settle


class Outcomes:
    """Makes and counts the outcomes of one stream.

    Args:
        counts: Outcomes before, under another plan; counted on.

    Attributes:
        counts: Outcomes so far, by status.
    """

    def __init__(
        self,
        part: StreamPart,
        branches: Sequence[Branch],
        *,
        incarnation: int,
        events: EventLog,
        meter: StreamMeter,
        counts: dict[str, int] | None = None,
    ) -> None:
        self._stream = part.region.stream
        self._frames = part.frames
        self._modes = part.around.modes if part.around is not None else ()
        self._branches = branches
        self._incarnation = incarnation
        self._events = events
        self._meter = meter
        self._row: int | None = OUTSIDE
        """Branch that answered last, None for a drop; `OUTSIDE`: none has yet."""
        standby = part.region.redundancy.mode == "standby"
        self._kinds = [
            index if standby else branch.grade for index, branch in enumerate(branches)
        ]
        """Who plays, as events tell it: where alike servers answer in turn or at once,
        it changes when their kind does, and not with every frame."""
        self.counts = counts or {"full": 0, "degraded": 0, "dropped": 0}

    @property
    def row(self) -> str:
        """Who plays; empty: nobody has yet."""
        return "" if self._row == OUTSIDE else self._row_name(self._row)

    def make(self, settle: Settle, *, mode: int, fired: int) -> Outcome:
        """Return the outcome of an iteration, counted, and told if the row changed.

        Args:
            settle: What the ledger decided.
            mode: Of the DPG around the region; -1: there is none.
            fired: Frames that the source has numbered.
        """
        if settle.branch != OUTSIDE:
            self._tell_row(settle)
        first = settle.iteration * self._frames
        outcome = Outcome(
            self._stream,
            self._incarnation,
            first,
            min(first + self._frames, fired) - 1,
            self._status(settle.branch),
            self._row_of(settle, mode),
            settle.reason,
            settle.value,
            settle.fired_s,
            settle.decided_s,
            settle.attempts,
        )
        self.counts[outcome.status] += 1
        self._meter.settled(outcome)
        return outcome

    def _tell_row(self, settle: Settle) -> None:
        """Write an event if another kind of branch answers than before."""
        before, self._row = self._row, settle.branch
        if before == OUTSIDE or self._kind(before) != self._kind(settle.branch):
            self._events.write(
                "row",
                stream=self._stream,
                frame=settle.iteration * self._frames,
                row=self._row_name(settle.branch),
            )

    def _status(self, branch: int | None) -> Status:
        if branch is None:
            return "dropped"
        if branch == OUTSIDE:
            return "full"  # what the graph wants of this frame
        return self._branches[branch].part.branch.quality

    def _row_of(self, settle: Settle, mode: int) -> str:
        if settle.branch == OUTSIDE:
            return self._modes[mode]
        return self._row_name(settle.branch)

    def _kind(self, branch: int | None) -> int | None:
        return None if branch is None else self._kinds[branch]

    def _row_name(self, branch: int | None) -> str:
        return DROP_ROW if branch is None else self._branches[branch].part.branch.row
