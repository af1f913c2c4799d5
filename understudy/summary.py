"""The summary of a run as plain text, for a terminal or a pipe."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from understudy.figures import (
    Accuracy,
    FaultFigures,
    Figures,
    OutcomeFigures,
    ServedFigures,
)
from understudy.promise import PROMISE, Verdict

NONE = "-"
_GREEN, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
_MOST_VIOLATIONS = 10


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, and whether it holds numbers."""

    title: str
    number: bool = True


_ANSWERS = tuple(
    map(Column, ("frames", "share", "accuracy", "p50 ms", "p99 ms", "max ms"))
)
"""What is said of a group of frames."""


def format_summary(
    figures: Figures, verdict: Verdict, width: int, colour: bool | None = None
) -> str:
    """Return the summary in lines of at most `width` letters, where words allow.

    Args:
        figures: The figures to show.
        verdict: Whether the promise was kept.
        width: Letters in a line; a table that is wider becomes one block a row.
        colour: None: only if standard output is a terminal and NO_COLOR is not set.
    """
    ink = uses_colour() if colour is None else colour
    parts = [
        _head(figures),
        format_table(*outcome_table(figures), width, ink),
        format_table(*served_table(figures), width, ink),
        format_table(*stream_table(figures), width, ink),
        format_table(*fault_table(figures), width, ink) if figures.faults else "",
        f"tokens sent as {counts_text(figures.sent)}" if figures.sent else "",
        expected_text(figures),
        "" if figures.full_error is None else full_text(figures.full_error),
        _promise(verdict, width, ink),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def uses_colour() -> bool:
    """Return whether standard output is a terminal that is to have colours.

    Source:
        https://no-color.org
    """
    dumb = os.environ.get("TERM") == "dumb"
    return not os.environ.get("NO_COLOR") and not dumb and sys.stdout.isatty()


def outcome_table(figures: Figures) -> tuple[list[Column], list[list[str]]]:
    """Return the columns and rows of the table of outcomes."""
    columns = [Column("outcome", number=False), *_ANSWERS]
    return columns, [[o.name, *_answers(figures, o)] for o in figures.outcomes]


def served_table(figures: Figures) -> tuple[list[Column], list[list[str]]]:
    """Return the columns and rows of the table of who answered."""
    titles = ("answered by", "on", "as")
    columns = [*(Column(title, number=False) for title in titles), *_ANSWERS]
    rows = [
        [s.row, s.device or NONE, s.status, *_answers(figures, s)]
        for s in figures.served
    ]
    return columns, rows


def _answers(figures: Figures, group: OutcomeFigures | ServedFigures) -> list[str]:
    took = group.latency
    times = (took.p50_ms, took.p99_ms, took.max_ms) if took else (None,) * 3
    return [
        f"{group.frames:,}",
        share_text(group.frames, figures.frames),
        accuracy_text(group.accuracy),
        *map(milliseconds, times),
    ]


def stream_table(figures: Figures) -> tuple[list[Column], list[list[str]]]:
    """Return the columns and rows of the table of streams."""
    titles = ("frames", "full", "degraded", "dropped", "2+ tries", "fps", "p50 ms")
    columns = [Column("stream", number=False)]
    columns += [Column(title) for title in (*titles, "p99 ms")]
    lives = [stream.stream for stream in figures.streams]
    rows = []
    for i, stream in enumerate(figures.streams):
        life = f" (life {lives[: i + 1].count(stream.stream)})"
        took = stream.latency
        rows.append(
            [
                stream.stream + (life if lives.count(stream.stream) > 1 else ""),
                *(f"{n:,}" for n in (stream.frames, stream.full, stream.degraded)),
                *(f"{n:,}" for n in (stream.dropped, stream.retried)),
                NONE if stream.fps is None else f"{stream.fps:.1f}",
                milliseconds(took.p50_ms if took else None),
                milliseconds(took.p99_ms if took else None),
            ]
        )
    return columns, rows


def fault_table(figures: Figures) -> tuple[list[Column], list[list[str]]]:
    """Return the columns and rows of the table of failures."""
    columns = [Column("failure", number=False), Column("at s")]
    columns += [Column("evidence", number=False), Column("detect ms")]
    columns += [Column("decide µs"), Column("switch ms"), Column("gap ms")]
    columns += [Column("degraded"), Column("dropped"), Column("back s")]
    return columns, [_fault_row(fault) for fault in figures.faults]


def _fault_row(fault: FaultFigures) -> list[str]:
    return [
        fault.name,
        f"{fault.t_s:.2f}",
        ", ".join(fault.evidence) or NONE,
        milliseconds(fault.detected_ms),
        NONE if fault.decided_us is None else f"{fault.decided_us:.0f}",
        milliseconds(fault.switched_ms),
        milliseconds(fault.gap_ms),
        f"{fault.degraded:,}",
        f"{fault.dropped:,}",
        NONE if fault.back_s is None else f"{fault.back_s:.2f}",
    ]


def expected_text(figures: Figures) -> str:
    """Return what full answers took beside what was expected; empty: nothing was."""
    expected = figures.expected
    took = next((o.latency for o in figures.outcomes if o.status == "full"), None)
    if expected is None or took is None:
        return ""
    over = f" over {expected.over}" if expected.over else ""
    more_ms = took.p50_ms - expected.p50_ms
    verdict = "within that"
    if abs(more_ms) > expected.within_ms:
        verdict = "more than that" if more_ms > 0 else "less than that"
    return (
        f"full answers took {milliseconds(took.p50_ms)} ms (p50); expected were "
        f"{milliseconds(expected.p50_ms)} ms{over}, within "
        f"{milliseconds(expected.within_ms)}: {verdict}"
    )


def full_text(error: float) -> str:
    """Return how the full answers compare with the unsplit model's, in words."""
    if error == 0:
        return "full equals the unsplit model exactly"
    return f"full equals the unsplit model within {error:.1e}"


def promise_text(verdict: Verdict) -> str:
    """Return the verdict as a sentence."""
    streams = counted(len(verdict.streams), "stream")
    frames = f"{counted(verdict.frames, 'frame')} of {streams}"
    if verdict.kept:
        return f"{PROMISE}: kept ({frames})"
    wrong = counted(len(verdict.violations), "violation")
    return f"{PROMISE}: BROKEN ({wrong}; {frames})"


def three_digits(value: float, grouping: str = ",") -> str:
    """Return three digits, and no more zeros than it takes.

    >>> three_digits(0.0), three_digits(0.1234), three_digits(12.34)
    ('0', '0.123', '12.3')
    >>> three_digits(12345.0), three_digits(12345.0, "")
    ('12,345', '12345')
    """
    if value == 0:
        return "0"
    return f"{value:{grouping}.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """Return a time with three digits that count.

    >>> [milliseconds(v) for v in (0.0512, 3.14159, 20.25, 196.7, None)]
    ['0.05', '3.14', '20.2', '197', '-']
    """
    if value is None:
        return NONE
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f}"


def share_text(part: int, whole: int) -> str:
    """Return a share in percent that shows 0 for nothing only, and 100 for all only.

    >>> [share_text(part, 2500) for part in (0, 1, 1860, 2499, 2500)]
    ['0%', '<0.1%', '74.4%', '>99.9%', '100%']
    """
    if part in (0, whole):
        return "100%" if part else "0%"
    share = part / whole
    return "<0.1%" if share < 0.0005 else ">99.9%" if share > 0.9995 else f"{share:.1%}"


def accuracy_text(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return NONE
    return (
        f"{share_text(accuracy.correct, accuracy.labelled)} (n={accuracy.labelled:,})"
    )


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "frame"), counted(2500, "frame")
    ('1 frame', '2,500 frames')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return what was counted, the most frequent first.

    >>> counts_text({"exit": 40, "edge.0": 1200})
    'edge.0 1,200, exit 40'
    """
    most = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number:,}" for name, number in most)


def _head(figures: Figures) -> str:
    words = [
        figures.deployment or "run",
        f"graph {figures.graph}" if figures.graph else "",
        counted(figures.frames, "frame"),
        f"{figures.seconds:.1f} s",
        f"{figures.fps:.1f} answers/s" if figures.fps is not None else "",
    ]
    codecs = [codec for codec in figures.codecs if codec != "none"]
    words += [f"codec {', '.join(codecs)}"] if codecs else []
    return " · ".join(filter(None, words))


def format_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, ink: bool
) -> str:
    """Return a table in lines of at most `width` letters, or one block a row."""
    if not rows:
        return ""
    widths = [
        max(len(column.title), *(len(row[i]) for row in rows))
        for i, column in enumerate(columns)
    ]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        return "\n".join(_block(columns, row, width, ink) for row in rows)
    title = "  ".join(
        _padded(column.title, w, column.number)
        for column, w in zip(columns, widths, strict=True)
    ).rstrip()
    lines = [
        "  ".join(
            _padded(cell, w, column.number)
            for column, cell, w in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([_painted(title, _BOLD, ink), *lines])


def _block(columns: Sequence[Column], row: Sequence[str], width: int, ink: bool) -> str:
    """Return a row of a table that is too wide: its name, and what follows."""
    cells = [
        f"{column.title} {cell}".replace(" ", "\N{NO-BREAK SPACE}")
        for column, cell in zip(columns[1:], row[1:], strict=True)
    ]
    text = textwrap.fill(
        ", ".join(cells),
        max(width, 20),
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return _painted(row[0], _BOLD, ink) + "\n" + text.replace("\N{NO-BREAK SPACE}", " ")


def _padded(text: str, width: int, number: bool) -> str:
    return text.rjust(width) if number else text.ljust(width)


def _promise(verdict: Verdict, width: int, ink: bool) -> str:
    lines = textwrap.wrap(promise_text(verdict), max(width, 20))
    lines = [_painted(line, _GREEN if verdict.kept else _RED, ink) for line in lines]
    lines += [f"  {violation}" for violation in verdict.violations[:_MOST_VIOLATIONS]]
    more = len(verdict.violations) - _MOST_VIOLATIONS
    return "\n".join(lines + ([f"  and {more:,} more"] if more > 0 else []))


def _painted(text: str, code: str, ink: bool) -> str:
    return f"{code}{text}{_PLAIN}" if ink else text
