"""The plots of a report, as SVG text to stand inside a page.

Each plot is drawn for a width in CSS pixels, so that its letters have the page's size
on a desk and on a phone. Ink and paper are left to the page (`currentColor`,
``var(--paper)``), which makes the same drawing right in print and in dark mode. Colours
name rows only: cool ones answer in full, warm ones are degraded, and all keep apart for
the colour-blind (Okabe and Ito, "Color Universal Design", 2008).

The size of a plot is bounded whatever the length of the run: time is cut into as many
parts as can be told apart, and in each the worst is kept.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataflow.graph import DROP_ROW
from dataflow.outcome import Status
from understudy.figures import FaultFigures, Figures
from understudy.records import Result, Run
from understudy.svg import FAINT, INK, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COOL = ("#0072b2", "#56b4e9", "#009e73", "#6a51a3", "#9ecae1", "#41ab5d")
_WARM = ("#e69f00", "#f0d442", "#cc79a7", "#a6761d")
_DROP = "#d55e00"
_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1, 1.5)))

_BINS = 900
"""Parts of a timeline: about one per pixel."""
_DOTS = 1500
"""Dots of a latency plot; more would hide one another."""
_ZOOMS = 8
_BEFORE_MS, _AFTER_MS = 150.0, 350.0


@dataclass(frozen=True, slots=True)
class Palette:
    """Rows in the order of the legend, with their colours."""

    rows: Mapping[str, str]
    status: Mapping[str, Status]

    def label(self, row: str) -> str:
        if row == DROP_ROW:
            return "dropped"
        return f"{row} ({self.status[row]})" if row in self.status else row


def palette(run: Run) -> Palette:
    """Return a colour for each row of `run` that can answer, and one for a drop."""
    status: dict[str, Status] = {}
    for region in run.plan.graph.regions if run.plan else ():
        status.update({b.row: b.quality for b in region.branches})
    for record in run.streams:
        for result in record.results:
            status.setdefault(result.row, result.status)
    order = dict.fromkeys(row for record in run.streams for row in record.rows)
    names = [*order, *(row for row in status if row not in order)]
    cool, warm = iter(_COOL * len(names)), iter(_WARM * len(names))
    rows = {
        row: next(warm if status.get(row) == "degraded" else cool)
        for row in names
        if row != DROP_ROW
    }
    rows[DROP_ROW] = _DROP
    return Palette(rows, {row: s for row, s in status.items() if row != DROP_ROW})


def timeline(run: Run, figures: Figures, colours: Palette, width: int) -> str:
    """Return who answered each stream over time, failures and returns marked."""
    streams = list(dict.fromkeys(record.stream for record in run.streams))
    lanes = {stream: -i for i, stream in enumerate(streams)}
    marks = _marks(figures.faults, figures.seconds, width)
    top = 0.75 + 0.42 * (max((m.level for m in marks), default=-1) + 1)
    height = round(62 + 40 * (len(streams) - 1 + 0.6 + top))
    with Plot(width, height) as plot:
        ax = plot.axes_at(left=58, right=12, bottom=34, top=4)
        span_s = max(figures.seconds, 1e-3)
        px_s = 1.02 * span_s / (width - 70)
        for record in run.streams:
            for row, first_s, last_s, worst in _runs(record.results, figures.origin_s):
                lane = lanes[record.stream]
                low, tall = _band(worst)
                ax.broken_barh(
                    [(first_s, max(last_s - first_s, _least(worst) * px_s))],
                    (lane + low, tall),
                    facecolor=colours.rows.get(row, FAINT),
                    linewidth=0,
                    zorder=3 if worst == "dropped" else 2,
                )
        for stream, lane in lanes.items():
            ax.axhline(lane - 0.3, color=FAINT, linewidth=0.6)
            ax.text(
                -0.008, lane, stream, transform=ax.get_yaxis_transform(),
                ha="right", va="center", color=INK, fontsize=11,
            )  # fmt: skip
        for fault, mark in zip(figures.faults, marks, strict=True):
            _mark_fault(ax, fault, mark, 0.6 - len(streams))
        ax.set_ylim(1 - len(streams) - 0.6, top)
        ax.set_xlim(-0.01 * span_s, 1.01 * span_s)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("time since the first frame, s")
        return plot.text("timeline")


def latency_over_time(run: Run, figures: Figures, colours: Palette, width: int) -> str:
    """Return each frame's latency over time, coloured by row."""
    with Plot(width, 260) as plot:
        ax = plot.axes_at(left=58, right=12, bottom=34, top=12)
        ax.set_yscale("log")
        dots: dict[str, list[tuple[float, float]]] = {row: [] for row in colours.rows}
        for row, t_s, ms in thinned(run, figures, _DOTS if width > 500 else _DOTS // 2):
            dots.setdefault(row, []).append((t_s, ms))
        for row, points in dots.items():
            if points:
                _dots(ax, points, colours.rows.get(row, FAINT), row == DROP_ROW)
        for fault in figures.faults:
            ax.axvline(fault.t_s, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        _latency_axis(ax.yaxis)
        ax.set_xlim(-0.01 * figures.seconds, 1.01 * max(figures.seconds, 1e-3))
        ax.set_xlabel("time since the first frame, s")
        ax.set_ylabel("latency, ms")
        ax.grid(axis="y", color=FAINT, linewidth=0.4, alpha=0.5)
        return plot.text("latency")


def distribution(run: Run, colours: Palette, width: int) -> str:
    """Return the share of each row's frames that took at most so long."""
    groups: dict[str, list[float]] = {}
    for record in run.streams:
        for result in record.results:
            groups.setdefault(result.row, []).append(result.latency_ms)
    with Plot(width, 260) as plot:
        ax = plot.axes_at(left=58, right=16, bottom=34, top=12)
        ax.set_xscale("log")
        drawn = [row for row in colours.rows if groups.get(row)]
        for i, row in enumerate(drawn):
            if row == DROP_ROW:
                continue  # when a drop settles is policy, not performance
            values = sorted(groups[row])
            picks = sorted({round(k * (len(values) - 1) / 300) for k in range(301)})
            ax.step(
                [max(values[k], 1e-3) for k in picks],
                [(k + 1) / len(values) for k in picks],
                where="post",
                color=colours.rows[row],
                linestyle=_DASHES[i % len(_DASHES)],
                linewidth=1.8,
                label=f"{row}, n = {len(values):,}",
            )
        _latency_axis(ax.xaxis)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("latency, ms")
        ax.set_ylabel("share of frames")
        ax.grid(color=FAINT, linewidth=0.4, alpha=0.5)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=10.5)
        return plot.text("distribution")


def failures(run: Run, figures: Figures, colours: Palette, width: int) -> str:
    """Return each failure close up: latency of the frames around it."""
    faults = [f for f in figures.faults if f.gap_ms is not None][:_ZOOMS]
    columns = 2 if width > 500 else 1
    rows = max(1, math.ceil(len(faults) / columns))
    with Plot(width, 190 * rows) as plot:
        for i, fault in enumerate(faults):
            across, down = i % columns, i // columns
            cell = width / columns
            ax = plot.axes_at(
                left=58 + across * cell,
                right=12 + (columns - 1 - across) * cell,
                bottom=36 + 190 * (rows - 1 - down),
                top=26 + 190 * down,
            )
            _close_up(ax, run, figures, fault, colours)
        return plot.text("failures")


def _close_up(
    ax: "Axes", run: Run, figures: Figures, fault: FaultFigures, colours: Palette
) -> None:
    fault_s = figures.origin_s + fault.t_s
    ax.set_yscale("log")
    points: dict[str, list[tuple[float, float]]] = {}
    for record in run.streams:
        if record.stream in fault.streams:
            for r in record.results:
                at_ms = (r.fired_s - fault_s) * 1e3
                if -_BEFORE_MS <= at_ms <= _AFTER_MS:
                    points.setdefault(r.row, []).append((at_ms, _shown_ms(r)))
                if (record.stream, r.frame) == (fault.worst_stream, fault.worst_frame):
                    ax.plot([at_ms], [_shown_ms(r)], "o", ms=12, mfc="none", mec=INK)
    for row, dots in points.items():
        _dots(ax, dots, colours.rows.get(row, FAINT), row == DROP_ROW, size=5.5)
    ax.axvline(0, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    ax.margins(y=0.25)
    _latency_axis(ax.yaxis)
    ax.set_xlim(-_BEFORE_MS, _AFTER_MS)
    ax.set_title(
        f"{fault.name} at {fault.t_s:.2f} s", loc="left", fontsize=11, color=INK
    )
    ax.set_title(f"gap {fault.gap_ms:.3g} ms", loc="right", fontsize=11, color=INK)
    ax.set_xlabel("fired after the failure, ms")
    ax.set_ylabel("latency, ms")
    ax.grid(axis="y", color=FAINT, linewidth=0.4, alpha=0.5)


def thinned(
    run: Run, figures: Figures, most: int
) -> Iterator[tuple[str, float, float]]:
    """Yield (row, time in s, latency in ms), about `most` of them.

    Where there are more frames, each part of time keeps the fastest and the slowest of
    each row: an extreme is never hidden.
    """
    every = [
        (r.row, r.fired_s - figures.origin_s, _shown_ms(r))
        for record in run.streams
        for r in record.results
    ]
    if len(every) <= most:
        yield from every
        return
    parts: dict[tuple[str, int], list[tuple[str, float, float]]] = {}
    cell_s = max(figures.seconds, 1e-3) / (most / 4)
    for dot in every:
        parts.setdefault((dot[0], int(dot[1] / cell_s)), []).append(dot)
    for part in parts.values():
        part.sort(key=lambda dot: dot[2])
        yield from (part[0], part[-1]) if len(part) > 1 else part


def _shown_ms(result: Result) -> float:
    """Return the latency, at least 1 µs: a logarithmic axis has no zero."""
    return max(result.latency_ms, 1e-3)


_Run = tuple[str, float, float, Status]
_BADNESS: Mapping[Status, int] = {"full": 0, "degraded": 1, "dropped": 2}


def _runs(results: Sequence[Result], origin_s: float) -> Iterator[_Run]:
    """Yield (row, first s, last s, status) of stretches that one row answered.

    In a run of many frames, each part of time stands for its worst outcome.
    """
    worst: list[Result] = []
    if results:
        span_s = results[-1].fired_s - results[0].fired_s
        cell_s = span_s / _BINS if len(results) > _BINS else 0.0
        for r in results:
            same = worst and cell_s and _cell(r, cell_s) == _cell(worst[-1], cell_s)
            if not same:
                worst.append(r)
            elif _BADNESS[r.status] > _BADNESS[worst[-1].status]:
                worst[-1] = r
    start = 0
    for i in range(1, len(worst) + 1):
        if i == len(worst) or worst[i].row != worst[start].row:
            # A stretch lasts until the next begins, unless the stream paused there.
            last_s = worst[i - 1].settled_s
            if i < len(worst) and worst[i].fired_s - last_s < 0.5:
                last_s = worst[i].fired_s
            first = worst[start]
            yield first.row, first.fired_s - origin_s, last_s - origin_s, first.status
            start = i


def _cell(result: Result, cell_s: float) -> int:
    return int(result.fired_s / cell_s)


def _band(status: Status) -> tuple[float, float]:
    """Return foot and height of a bar: the status can be read without colours."""
    return {"full": (-0.3, 0.6), "degraded": (-0.3, 0.36), "dropped": (-0.44, 0.74)}[
        status
    ]


def _least(status: Status) -> float:
    """Return the least width of a bar in pixels: one dropped frame must be seen."""
    return 2.5 if status == "dropped" else 1.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the words of a failure stand: on a level, right or left of its line."""

    level: int
    left: bool


def _marks(faults: Sequence[FaultFigures], seconds: float, width: int) -> list[_Mark]:
    """Return for each failure the lowest level on which its words have room."""
    ends: list[float] = []
    marks = []
    room = width - 70
    for fault in faults:
        words = 6.3 * len(fault.name) + 14
        x = fault.t_s * room / max(seconds, 1e-3)
        left = x + words > room
        first, last = (x - words, x) if left else (x, x + words)
        level = next((i for i, end in enumerate(ends) if end <= first), len(ends))
        ends[level : level + 1] = [last]
        marks.append(_Mark(level, left))
    return marks


def _mark_fault(ax: "Axes", fault: FaultFigures, mark: _Mark, low: float) -> None:
    high = 0.72 + 0.42 * mark.level
    ax.plot([fault.t_s] * 2, [low, high], color=INK, lw=1.1, ls=(0, (3, 2)))
    ax.plot([fault.t_s], [high], marker="v", ms=6, color=INK, linestyle="none")
    ax.annotate(
        fault.name,
        (fault.t_s, high),
        xytext=(-7 if mark.left else 7, 0),
        textcoords="offset points",
        ha="right" if mark.left else "left",
        va="center",
        color=INK,
        fontsize=10.5,
    )
    if fault.back_s is not None:
        back_s = fault.t_s + fault.back_s
        ax.plot([back_s] * 2, [low, 0.5], color=INK, lw=1.1, ls=(0, (1, 1.6)))
        ax.plot([back_s], [low], marker="^", ms=6, color=INK, linestyle="none")


def _dots(
    ax: "Axes",
    points: Iterable[tuple[float, float]],
    colour: str,
    cross: bool,
    size: float = 3.4,
) -> None:
    """Draw dots, or crosses, as one path: a tenth of the size of as many markers."""
    if cross:
        xs, ys = zip(*points, strict=True)
        ax.plot(xs, ys, "x", color=colour, ms=size + 2.5, mew=1.6)
        return
    line: tuple[list[float], list[float]] = ([], [])
    for x, y in points:
        line[0].extend((x, x, math.nan))
        line[1].extend((y, y, math.nan))
    ax.plot(*line, color=colour, linewidth=size, solid_capstyle="round")


def _latency_axis(axis: object) -> None:
    """Write milliseconds of a logarithmic axis as plain numbers: 1, 2, 5, 10."""
    from matplotlib import ticker
    from matplotlib.axis import Axis

    assert isinstance(axis, Axis)
    low, high = sorted(axis.get_view_interval())
    subs = (1.0, 2.0, 5.0) if high > 20 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(ticker.FuncFormatter(lambda ms, _: f"{ms:g}"))
    axis.set_minor_locator(ticker.NullLocator())
