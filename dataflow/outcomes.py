"""Outcomes of a stream: what the ledger settled, as sink and events are told."""

from collections.abc import Sequence

from dataflow.branches import Branch
from dataflow.events import EventLog
from dataflow.graph import DROP_ROW
from dataflow.meters import StreamMeter
from dataflow.outcome import Outcome, Status
from dataflow.parts import StreamPart
from dataflow.wire.iterations import OUTSIDE, Settle

_new = tuple.__new__  # a constructor of a NamedTuple takes twice as long


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
        self._rows: dict[int | None, tuple[Status, str]] = {
            index: (branch.part.branch.quality, branch.part.branch.row)
            for index, branch in enumerate(branches)
        }
        """By branch, None for a drop: status and row of what it answers."""
        self._rows[None] = "dropped", DROP_ROW
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
        return "" if self._row == OUTSIDE else self._rows[self._row][1]

    def make(self, settle: Settle, *, mode: int, fired: int) -> Outcome:
        """Return the outcome of an iteration, counted, and told if the row changed.

        Args:
            settle: What the ledger decided.
            mode: Of the DPG around the region; -1: there is none.
            fired: Frames that the source has numbered.
        """
        iteration, branch, reason, value, fired_s, decided_s, attempts = settle
        if branch == OUTSIDE:
            status: Status = "full"  # what the graph wants of this frame
            row = self._modes[mode]
        else:
            status, row = self._rows[branch]
            if branch != self._row:
                self._tell_row(branch, iteration)
        first = iteration * self._frames
        last = min(first + self._frames, fired) - 1
        outcome = _new(Outcome, (
            self._stream, self._incarnation, first, last, status, row, reason, value,
            fired_s, decided_s, attempts,
        ))  # fmt: skip
        self.counts[status] += 1
        self._meter.settled(outcome)
        return outcome

    def _tell_row(self, branch: int | None, iteration: int) -> None:
        """Another branch answers than before: write an event if it is another kind."""
        before, self._row = self._row, branch
        if before == OUTSIDE or self._kind(before) != self._kind(branch):
            self._events.write(
                "row",
                stream=self._stream,
                frame=iteration * self._frames,
                row=self._rows[branch][1],
            )

    def _kind(self, branch: int | None) -> int | None:
        return None if branch is None else self._kinds[branch]
