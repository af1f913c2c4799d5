"""What many runs come down to: who answered, what was dropped, how long the gaps."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from understudy.faults import gap_ms
from understudy.simulation.setup import Result, Violation
from understudy.summary import Column, format_table, milliseconds, share_text

GAP_STEP_MS = 0.1
"""Resolution of the gaps: what is kept of them does not grow with the runs."""
PERCENTILES = (50, 90, 99, 100)


class Tally:
    """Counts over the runs so far."""

    def __init__(self) -> None:
        self.runs = 0
        """That kept every promise."""
        self.frames = 0
        self.attempts = 0
        self.events = 0
        self.virtual_s = 0.0
        self.answered: Counter[tuple[str, str]] = Counter()
        """By row and status."""
        self.dropped: Counter[str] = Counter()
        """By reason."""
        self.faults: Counter[str] = Counter()
        self.gaps: dict[str, Counter[int]] = {}
        """By fault that came alone: how often its gap took so many `GAP_STEP_MS`."""
        self.violations: list[Violation] = []
        self.stopped = False
        """Somebody ended it before the last seed."""

    def add(self, result: Result) -> None:
        """Count a run that kept its promises."""
        self.runs += 1
        self.attempts += result.attempts
        self.events += result.events
        self.virtual_s += result.seconds
        for record in result.run.streams:
            for outcome in record.results:
                frames = outcome.last - outcome.frame + 1
                self.frames += frames
                if outcome.status == "dropped":
                    self.dropped[outcome.reason] += frames
                else:
                    self.answered[outcome.row, outcome.status] += frames
        self._add_gaps(result)

    def _add_gaps(self, result: Result) -> None:
        self.faults.update(fault.name for fault in result.faults)
        if len(result.faults) != 1:
            return  # whose gap it is could not be told
        (fault,) = result.faults
        found = [
            gap
            for record in result.run.streams
            if record.epoch_s is not None
            and (gap := gap_ms(record, fault.begin_s - record.epoch_s)) is not None
        ]
        if found:
            steps = max(0, math.ceil(max(found) / GAP_STEP_MS))
            self.gaps.setdefault(fault.name, Counter())[steps] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": self.runs + len(self.violations),
            "kept": not self.violations,
            "frames": self.frames,
            "attempts": self.attempts,
            "virtual_s": round(self.virtual_s, 3),
            "answered": [
                {"row": row, "status": status, "frames": count}
                for (row, status), count in sorted(self.answered.items())
            ],
            "dropped": dict(sorted(self.dropped.items())),
            "faults": dict(sorted(self.faults.items())),
            "gap_ms": {
                name: {f"p{p}": percentile_ms(gaps, p) for p in PERCENTILES}
                for name, gaps in sorted(self.gaps.items())
            },
        }

    def text(self, width: int, *, ink: bool) -> str:
        """Return tables of what happened, in lines of at most `width` letters."""
        tables = [
            format_table(*self._outcomes(), width, ink),
            format_table(*self._fault_table(), width, ink),
        ]
        return "\n\n".join(table for table in tables if table)

    def _outcomes(self) -> tuple[list[Column], list[list[str]]]:
        columns = [
            Column("outcome", number=False),
            Column("row or reason", number=False),
            Column("frames"),
            Column("share"),
        ]
        counts = [
            (status != "full", status, row, count)
            for (row, status), count in self.answered.items()
        ]
        counts += [(True, "dropped", why, n) for why, n in self.dropped.items()]
        return columns, [
            [what, who, f"{count:,}", share_text(count, self.frames)]
            for _, what, who, count in sorted(counts)
        ]

    def _fault_table(self) -> tuple[list[Column], list[list[str]]]:
        columns = [Column("fault", number=False), Column("times"), Column("alone")]
        columns += [Column(f"gap p{p} ms") for p in PERCENTILES[:-1]]
        columns += [Column("max ms")]
        return columns, [
            [name, f"{self.faults[name]:,}", *self._gap_cells(name)]
            for name in sorted(self.faults)
        ]

    def _gap_cells(self, name: str) -> list[str]:
        gaps = self.gaps.get(name, Counter())
        times = [milliseconds(percentile_ms(gaps, p)) for p in PERCENTILES]
        return [f"{gaps.total():,}", *times]


def percentile_ms(gaps: Mapping[int, int], percent: float) -> float | None:
    """Return the smallest gap that `percent` of them do not exceed.

    >>> percentile_ms({10: 98, 20: 1, 300: 1}, 99)
    2.0
    """
    wanted = math.ceil(percent / 100 * sum(gaps.values()))
    for steps in sorted(gaps):
        wanted -= gaps[steps]
        if wanted <= 0:
            return round(steps * GAP_STEP_MS, 1)
    return None
