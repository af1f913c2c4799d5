"""A finished run: read, judged, its figures and its report written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.clocks import aligned
from understudy.figures import Figures, figures
from understudy.live import Live
from understudy.promise import Verdict, judge
from understudy.reference import full_error
from understudy.report import write_report
from understudy.run_folder import read_run

REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished run, read and judged."""

    figures: Figures
    verdict: Verdict
    folder: Path
    trouble: tuple[str, ...] = ()
    """What went wrong beside the promise: devices that failed, an unwritten report."""
    unwritten: tuple[str, ...] = ()
    """Streams whose sink could not write all of its outcomes, and says which."""

    @property
    def good(self) -> bool:
        return self.verdict.kept and not (self.trouble or self.unwritten)

    def to_json(self) -> dict[str, Any]:
        return {**self.figures.to_json(), "promise": self.verdict.to_json()}


def finish(folder: Path, live: Live | None = None) -> Judged:
    """Read the run in `folder`, judge it, and write its figures and its report.

    Args:
        folder: The run folder. On a full disk only the report is missing.
        live: Who followed the run, if it was just now.

    Raises:
        KeyboardInterrupt: The run was stopped before its first frame.
    """
    if live and live.stopped and not any(folder.glob("results-*.jsonl")):
        raise KeyboardInterrupt
    run = read_run(folder)
    error = full_error(run.plan, run) if run.plan is not None else None
    verdict = judge(run)
    run = aligned(run)
    judged = Judged(
        figures(run, error),
        verdict,
        folder,
        trouble=tuple(live.failed) if live else (),
        unwritten=tuple(_unwritten(verdict)),
    )
    try:
        text = json.dumps(judged.to_json(), indent=1) + "\n"
        (folder / SUMMARY_FILE).write_text(text)
        write_report(run, judged.figures, judged.verdict, folder / REPORT_FILE)
    except OSError as reason:
        no_report = (
            f"{folder}: the report cannot be written ({reason.strerror}); make room, "
            f"then `understudy report {folder}`"
        )
        return replace(judged, trouble=(*judged.trouble, no_report))
    return judged


def _unwritten(verdict: Verdict) -> list[str]:
    return [
        f"stream '{stream.stream}': {stream.unwritten} outcomes reached the sink but "
        "could not be written; free the disk, or raise the sink's limit_mb"
        for stream in verdict.streams
        if stream.unwritten
    ]
