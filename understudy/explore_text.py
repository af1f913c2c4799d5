"""An exploration as a person reads it: what is recommended, then the best rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from understudy.exploration import Exploration, Panel, Row
from understudy.summary import three_digits

ROWS = 10
"""Shown unless all are asked for; all local and the frame as it is always are."""
PIPE_WIDTH = 132
NARROW = 110
"""Columns below which some figures are put together."""
_ALWAYS = ("local", "raw", "jpeg")
_LABEL_MAX = 36


def show(exploration: Exploration, *, everything: bool) -> None:
    """Print a table for each panel; coloured on a terminal, plain in a pipe."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for line in _opening(exploration):
        console.print(line, soft_wrap=True)
    for panel in exploration.panels:
        console.print()
        console.print(Text(_over(panel), style="bold"), soft_wrap=True)
        narrow = console.width < NARROW
        console.print(_table(exploration, panel, everything, narrow=narrow))
        for line in _closing(panel, everything):
            console.print(line, soft_wrap=True)


def _opening(exploration: Exploration) -> Iterator[str]:
    yield exploration.model
    for device in exploration.devices:
        whole = device.profile.whole.min_ms * device.factor
        facts = device.profile.machine.get("processor", "")
        scaled = f", {device.scaled}" if device.scaled else ""
        noisy = ", noisy" if device.profile.noise.flagged else ""
        yield f"  {device.name}: {whole:.4g} ms whole ({facts}{scaled}{noisy})"
    if exploration.exit is not None:
        early = exploration.exit
        yield (
            f"  early exit at {early.tensor}: {early.share:.0%} of the frames, "
            f"{early.ms:.3g} ms; figures are means over frames"
            f"{'' if early.share else ' (say how many with --exit-share)'}"
        )


def _over(panel: Panel) -> str:
    if not panel.links:
        return "no link"
    return "; ".join(
        f"{link.name}: {link.there_mbit_s:g}/{link.back_mbit_s:g} Mbit/s, "
        f"{link.rtt_ms:g} ms"
        for link in panel.links
    )


def _table(
    exploration: Exploration, panel: Panel, everything: bool, *, narrow: bool
) -> Table:
    figures = _COLUMNS_NARROW if narrow else _COLUMNS
    if any(row.measured for row in panel.rows):
        figures = {**figures, "measured": _measured}
    if exploration.power is not None:
        figures = {**figures, "mJ": lambda row: row.cost.endpoint_mj}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("partition", max_width=_LABEL_MAX, min_width=16)
    table.add_column("codec")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("slowest", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in _shown(panel, everything):
        table.add_row(
            "*" if row.best else "=" if row.tie else "",
            row.label,
            " ".join(codec for _, codec in row.crossings),
            *(_number(figure(row)) for figure in figures.values()),
            row.cost.bottleneck.name.replace(" to ", "→"),
            _remarks(row),
            style="bold" if row.best else "dim" if row.excluded else "",
        )
    return table


_Figure = Callable[[Row], float | None]


def _measured(row: Row) -> float | None:
    return None if row.measured is None else row.measured.p50_ms


_COLUMNS: Mapping[str, _Figure] = {
    "endpoint": lambda row: row.cost.endpoint_ms,
    "coding": lambda row: row.cost.codec_ms,
    "network": lambda row: row.cost.network_ms,
    "server": lambda row: row.cost.server_ms,
    "return": lambda row: row.cost.return_ms,
    "total ms": lambda row: row.cost.total_ms,
    "1/s": lambda row: row.cost.fps,
    "kB": lambda row: row.cost.wire_bytes / 1e3,
    "MB": lambda row: row.cost.endpoint_mb,
}
_COLUMNS_NARROW: Mapping[str, _Figure] = {
    "endpoint": lambda row: row.cost.busy_ms,
    "server": lambda row: row.cost.server_ms,
    "total ms": lambda row: row.cost.total_ms,
    "1/s": lambda row: row.cost.fps,
    "kB": lambda row: row.cost.wire_bytes / 1e3,
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
    yield panel.why
    for row in _shown(panel, everything):
        if row.excluded and panel.best is not None and row.kind != "local":
            yield f"{row.label} is excluded: {', '.join(row.excluded)}"
    if len(panel.thresholds) > 1:
        yield "the quickest by rate: " + "; ".join(
            f"{t.label}{_codec(t.codec)} from {t.from_mbit_s:.3g} Mbit/s"
            if t.from_mbit_s
            else f"{t.label}{_codec(t.codec)} below {t.to_mbit_s:.3g} Mbit/s"
            for t in panel.thresholds
        )
    hidden = len(panel.rows) - len(_shown(panel, everything))
    if hidden:
        yield f"{hidden} more with --all"


def _codec(name: str) -> str:
    return "" if name in ("", "none") else f" ({name})"
