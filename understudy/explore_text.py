"""An exploration as a person reads it: what is recommended, then the best rows."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from understudy.exploration import Exploration, Panel, Row, Threshold
from understudy.explore_words import link_text, rate_text
from understudy.summary import three_digits

ROWS = 10
"""Shown unless all are asked for; all local and the frame as it is always are."""
PIPE_WIDTH = 120
NARROW = 106
"""Columns below which some figures are put together."""
_LONG_RETURN = 1 / 3
"""Of a frame's time: when the way back of the answer takes more, it is said."""
_ALWAYS = ("local", "raw", "jpeg")
_WHOLE = (*_ALWAYS, "input")
_LABEL_MAX = 36


def show(exploration: Exploration, *, everything: bool) -> None:
    """Print a table for each panel; coloured on a terminal, plain in a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for line in _opening(exploration):
        console.print(Text(line), soft_wrap=True)
    for panel in exploration.panels:
        console.print()
        console.print(Text(_over(panel)))
        console.print()
        narrow = console.width < NARROW
        console.print(_table(exploration, panel, everything, narrow=narrow))
        console.print()
        console.print(Text(panel.why, style="bold"))
        for line in _closing(panel, everything):
            console.print(Text(line))


def _over(panel: Panel) -> str:
    return (
        f"over {'; '.join(map(link_text, panel.links))}" if panel.links else "no link"
    )


def _opening(exploration: Exploration) -> Iterator[str]:
    yield exploration.model
    for device in exploration.devices:
        least_ms = device.profile.whole.min_ms * device.factor
        paced_ms = device.profile.paced.ms(device.profile.whole.min_ms) * device.factor
        facts = [device.profile.machine.get("processor", "")]
        facts += [device.scaled] if device.scaled else []
        if device.profile.noise.flagged:
            facts.append("too busy when profiled: do it again when it rests")
        yield (
            f"  {device.name}: {three_digits(least_ms)} ms whole at best, "
            f"{three_digits(paced_ms)} as frames come "
            f"({'; '.join(filter(None, facts))})"
        )
    if exploration.exit is not None:
        early = exploration.exit
        yield (
            f"  early exit at {early.tensor}: {early.share:.0%} of the frames, "
            f"{early.ms:.3g} ms; figures are means over frames"
            f"{'' if early.share else ' (say how many with --exit-share)'}"
        )


def _table(
    exploration: Exploration, panel: Panel, everything: bool, *, narrow: bool
) -> Table:
    figures = _COLUMNS_NARROW if narrow else _COLUMNS
    if any(row.measured for row in panel.rows):
        figures = {**figures, "measured\nms": _measured}
    if exploration.power is not None:
        figures = {**figures, "endpoint\nmJ": lambda row: row.cost.endpoint_mj}
    rows = _shown(panel, everything)
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("")
    table.add_column("partition", max_width=_LABEL_MAX, min_width=16)
    table.add_column("codec", no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("slowest", no_wrap=True)
    remarks = list(map(_remarks, rows))
    if any(remarks) and not narrow:
        table.add_column("", no_wrap=True)
    for row, remark in zip(rows, remarks, strict=True):
        table.add_row(
            "*" if row.best else "=" if row.tie else "x" if row.excluded else "",
            row.label,
            " ".join(codec for _, codec in row.crossings),
            *(_number(figure(row)) for figure in figures.values()),
            row.slowest,
            *[remark] * (len(table.columns) - len(figures) - 4),
            style="bold" if row.best else "dim" if row.excluded else "",
        )
    return table


_Figure = Callable[[Row], float | None]


def _measured(row: Row) -> float | None:
    return None if row.measured is None else row.measured.p50_ms


_COLUMNS: Mapping[str, _Figure] = {
    "endpoint\nms": lambda row: row.cost.endpoint_ms,
    "coding\nms": lambda row: row.cost.codec_ms,
    "network\nms": lambda row: row.cost.network_ms,
    "server\nms": lambda row: row.cost.server_ms,
    "return\nms": lambda row: row.cost.return_ms,
    "total\nms": lambda row: row.cost.total_ms,
    "frames\n/s": lambda row: row.cost.fps,
    "sent\nkB": lambda row: row.cost.wire_bytes / 1e3,
    "endpoint\nMB": lambda row: row.cost.endpoint_mb,
}
_COLUMNS_NARROW: Mapping[str, _Figure] = {
    "endpoint\nms": lambda row: row.cost.busy_ms,
    "server\nms": lambda row: row.cost.server_ms,
    "total\nms": lambda row: row.cost.total_ms,
    "frames\n/s": lambda row: row.cost.fps,
    "sent\nkB": lambda row: row.cost.wire_bytes / 1e3,
}


def _number(value: float | None) -> str:
    return "" if value is None else three_digits(value, "")


def _remarks(row: Row) -> str:
    """Return what is to be known of a row beside its figures."""
    if row.excluded:
        return "excluded"
    known = row.source in ("measured", "modelled")  # said of the device, above
    remarks = [] if known else [row.source]
    if row.raw_input:
        remarks.append("raw input")
    return ", ".join(remarks)


def _shown(panel: Panel, everything: bool) -> Sequence[Row]:
    ranked = panel.ranked()
    if everything:
        return ranked
    ties = sum(row.tie for row in ranked)
    most = max(ROWS, ties)
    return [
        row
        for place, row in enumerate(ranked)
        if place < most or row.kind in _ALWAYS or row.measured is not None
    ]


def _closing(panel: Panel, everything: bool) -> Iterator[str]:
    rows = _shown(panel, everything)
    for row in rows:
        if row.excluded and panel.best is not None and row.kind != "local":
            yield f"{row.label} is excluded: {', '.join(row.excluded)}"
    if len(panel.thresholds) > 1:
        yield f"the quickest by rate: {'; '.join(map(_threshold, panel.thresholds))}"
    yield from _of_the_answer(panel)
    known = {
        "* recommended": panel.best is not None,
        "= as good, as far as these profiles can tell": len(panel.ties) > 1,
        "x excluded": any(row.excluded for row in rows),
    }
    legend = "; ".join(words for words, here in known.items() if here)
    hidden = len(panel.rows) - len(rows)
    more = f"{hidden} more with --all" if hidden else ""
    yield "; ".join(filter(None, (legend, more)))


def _threshold(threshold: Threshold) -> str:
    codec = "" if threshold.codec in ("", "none") else f" ({threshold.codec})"
    if threshold.from_mbit_s:
        return f"{threshold.label}{codec} from {rate_text(threshold.from_mbit_s)}"
    return (
        f"{threshold.label}{codec} below {rate_text(threshold.to_mbit_s or math.inf)}"
    )


def _of_the_answer(panel: Panel) -> Iterator[str]:
    """Say so where it is the answer's way back that speaks against every cut."""
    cuts = [r for r in panel.rows if r.kind not in _WHOLE and not r.excluded]
    if not cuts:
        return
    row = min(cuts, key=lambda row: row.score)
    answer = max(crossing.answer_bytes for crossing in row.pieces.crossings)
    if row.cost.return_ms > _LONG_RETURN * row.cost.total_ms:
        yield (
            f"the answer of {three_digits(answer / 1e3)} kB takes "
            f"{three_digits(row.cost.return_ms)} ms to come back; if less of it is "
            "needed, say how much with --answer-bytes"
        )
