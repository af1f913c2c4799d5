"""The failure table as `understudy check` prints it: one line per kind of consequence.

Failures that lead to the same lie together on one line. Of a failure that concerns only
the streams of one endpoint the line says "its streams", so that all endpoints that die,
or all links that lead nowhere any more, share one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflow.failures import (
    VERDICTS,
    Consequence,
    FailureTable,
    Required,
    Verdict,
)
from dataflow.standing import Answer, Failure, link_name
from understudy.summary import counted

LINES_MAX = 24
_NAMES_MAX = 4


@dataclass(frozen=True, slots=True)
class Demand:
    """What a deployment must still do after every failure of its table."""

    required: Required
    table: FailureTable

    @property
    def broken(self) -> list[Consequence]:
        return self.table.broken(self.required)

    def text(self) -> str:
        """Return what breaks it and the least fix, as a message."""
        failing = [f"when {row.failure}" for row in self.broken]
        return (
            f"required '{self.required}': broken {_some(failing)}; "
            f"{self.table.least_fix(self.required)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "required": self.required,
            "kept": not self.broken,
            "broken_by": [list(row.failure.names) for row in self.broken],
            "least_fix": self.table.least_fix(self.required) or None,
        }


def table_json(table: FailureTable) -> dict[str, Any]:
    return {
        "at_once": table.count,
        "single_points": [name for f in table.single_points for name in f.names],
        "rows": [_row_json(row) for row in table.rows],
    }


def table_text(table: FailureTable, homes: Mapping[str, str]) -> list[str]:
    """Return the table in lines.

    Args:
        table: With or without failures.
        homes: Stream -> device of its source.
    """
    groups: dict[tuple[str, str], list[Failure]] = {}
    verdict: dict[tuple[str, str], Verdict] = {}
    for row in table.rows[1:]:
        key = _kind(row.failure), _told(row, table.baseline, homes)
        groups.setdefault(key, []).append(row.failure)
        verdict[key] = row.verdict
    rows = {row.failure: row for row in table.rows}
    lines = [("nothing fails", _absolute(table.baseline.answers))]
    # Where there are too many lines, what is worst stays.
    by_verdict = sorted(groups, key=lambda key: -VERDICTS.index(verdict[key]))
    shown = set(by_verdict[:LINES_MAX])
    for key in (key for key in groups if key in shown):
        members = groups[key]
        told = key[1]
        if len(members) == 1:
            told = _told(rows[members[0]], table.baseline, {})
        lines.append((_named(members), told))
    width = max(len(name) for name, _ in lines)
    text = ["", f"  {_heading(table)}"]
    text += [f"    {name:{width}}  {told}" for name, told in lines]
    if len(groups) > LINES_MAX:
        text.append(f"    and {len(groups) - LINES_MAX} lines more (see --json)")
    return text


def _heading(table: FailureTable) -> str:
    if table.count == 0:
        return "without failures:"
    singles = sum(row.failure.size == 1 for row in table.rows)
    more = len(table.rows) - 1 - singles
    heading = f"{counted(singles, 'single failure')}"
    heading += f" and {counted(more, 'combination')} of them" if more else ""
    if table.single_points:
        names = [name for f in table.single_points for name in f.names]
        noun = "point" if len(names) == 1 else "points"
        return f"{heading}; single {noun} of failure: {_some(names)}"
    return f"{heading}, no single point of failure:"


def _row_json(row: Consequence) -> dict[str, Any]:
    return {
        "devices": list(row.failure.devices),
        "links": [link_name(link) for link in row.failure.links],
        "verdict": row.verdict,
        "live": row.live,
        "findings": [str(finding) for finding in row.unsound],
        "streams": {
            answer.stream: {
                "status": answer.status,
                "row": answer.row,
                "device": answer.device,
                "reason": answer.reason,
                "others": list(answer.others),
            }
            for answer in row.answers
        },
    }


def _kind(failure: Failure) -> str:
    return f"{len(failure.devices)} {len(failure.links)}"


def _named(failures: Sequence[Failure]) -> str:
    """Return failures of one kind as one phrase."""
    if _kind(failures[0]) == "1 0":
        return f"{_some([f.names[0] for f in failures], ' or ', most=2)} dies"
    if _kind(failures[0]) == "0 1":
        return f"{_some([f.names[0] for f in failures], ' or ', most=2)} is cut"
    return _some([str(f) for f in failures], " or ", most=1)


def _told(row: Consequence, baseline: Consequence, homes: Mapping[str, str]) -> str:
    """Return what a failure changes; relative to its endpoint if `homes` tells it."""
    if row.unsound:
        return f"what remains is not sound: {row.unsound[0]}"
    pairs = list(zip(row.answers, baseline.answers, strict=True))
    changed = [answer for answer, before in pairs if answer != before]
    same = [answer for answer, before in pairs if answer == before]
    if not changed:
        return "nothing changes"
    if _own(row.failure, changed, homes):
        alike = {_what(answer) for answer in changed}
        if len(alike) == 1:
            noun = "its stream" if len(changed) == 1 else "its streams"
            told = _said(noun, changed[0], len(changed))
            return told + (", the others unchanged" if same else "")
    names = [answer.stream for answer in same]
    if not names:
        return _absolute(changed)
    rest = _some(names) if len(names) < _NAMES_MAX else "the others"
    return f"{_absolute(changed)}, {rest} unchanged"


def _own(failure: Failure, changed: Sequence[Answer], homes: Mapping[str, str]) -> bool:
    """Tell whether only streams of the one endpoint that fails change."""
    if failure.size != 1:
        return False
    ends = failure.devices or failure.links[0]
    return len({homes.get(a.stream) for a in changed}) == 1 and all(
        homes.get(answer.stream) in ends for answer in changed
    )


def _absolute(answers: Sequence[Answer]) -> str:
    alike: dict[Answer, list[str]] = {}
    for answer in answers:
        alike.setdefault(_what(answer), []).append(answer.stream)
    return ", ".join(
        _said(_some(names), answer, len(names)) for answer, names in alike.items()
    )


def _what(answer: Answer) -> Answer:
    """Return what two streams have in common that are told of in the same words."""
    return replace(answer, stream="", device="", needs_ms=0.0)


def _said(who: str, answer: Answer, count: int) -> str:
    if answer.status == "ended":
        return f"{who} ends" if count == 1 else f"{who} end"
    if answer.status == "dropped":
        return f"{who} dropped ({answer.reason})"
    return f"{who} -> {_players(answer)} ({answer.status})"


def _players(answer: Answer) -> str:
    """Return who answers, as the mode of redundancy has it."""
    between = {"spread": " or ", "replicate": " and "}
    rows = (answer.row, *answer.others)
    return between.get(answer.redundancy.mode, ", when late ").join(rows)


def _some(names: Sequence[str], last: str = ", ", most: int = _NAMES_MAX) -> str:
    """Return names as a list, the last joined by `last`; of many, how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])}{last}{len(names) - most} more"
    return last.join((", ".join(names[:-1]), names[-1])) if names[1:] else names[0]
