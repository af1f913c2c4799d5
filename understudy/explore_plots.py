"""The plots of an exploration, as SVG text to stand inside a page or as files.

Colours name the parts of a frame's way, the same in all plots, and keep apart for the
colour-blind (Okabe and Ito, "Color Universal Design", 2008).

Source:
    The stacked bars, one a partition point with a dashed line for the model uncut, are
    those of Boutellier, Tan, Nurmi, "Fault-Tolerant Collaborative Inference through the
    Edge-PRUNE Framework", 2022, figure 3, with the server and the way back on top: up
    to the network a bar has that figure's height.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.costs import Cost
from understudy.exploration import Panel, Row
from understudy.svg import FAINT, INK, PAPER, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS: Mapping[str, tuple[str, Callable[[Cost], float]]] = {
    "endpoint": ("#0072b2", lambda cost: cost.endpoint_ms),
    "codec": ("#cc79a7", lambda cost: cost.codec_ms),
    "network": ("#e69f00", lambda cost: cost.network_ms),
    "server": ("#009e73", lambda cost: cost.server_ms),
    "return": ("#f0d442", lambda cost: cost.return_ms),
}
"""The way of a frame, in order: colour, and ms."""
ENDS = ("raw", "jpeg", "input", "local")
"""Kinds of rows that do not cut the model."""
_BEST = "#d55e00"
_ROWS_WIDE, _ROWS_NARROW = 60, 30
_HIGHER = 1.9
"""A bar is drawn up to so many times the model uncut; what is higher is cut off."""
_LABEL_MAX = 26
_SEAM = 0.5
"""Of paper between the parts of a bar: they stay apart in grey."""


def bars(panel: Panel, width: int) -> Plot:
    """Return what each partition takes, part by part, and the model uncut."""
    wide = width > 500
    rows = shown(panel, _ROWS_WIDE if wide else _ROWS_NARROW)
    limit_ms = _limit_ms(panel, rows)
    height = 360 if wide else 104 + 17 * len(rows)
    plot = Plot(width, height)
    with plot:
        ax = plot.axes_at(
            left=50, right=62 if wide else 14, bottom=46, top=44 if wide else 56
        )
        places = [float(place) for place in range(len(rows))]
        below = [0.0] * len(rows)
        draw = ax.bar if wide else ax.barh
        start = "bottom" if wide else "left"
        for name, (colour, part) in PARTS.items():
            sizes = [part(row.cost) for row in rows]
            styles: dict[str, Any] = {start: below, "color": colour, "label": name}
            draw(places, sizes, 0.78, edgecolor=PAPER, linewidth=_SEAM, **styles)
            below = [b + s for b, s in zip(below, sizes, strict=True)]
        for place, row, total in zip(places, rows, below, strict=True):
            _mark_bar(ax, row, place, min(total, limit_ms), total > limit_ms, wide=wide)
        _levels(ax, panel, wide=wide)
        names = [str(row.number) for row in rows]
        span, time = (ax.set_xlim, ax.set_ylim) if wide else (ax.set_ylim, ax.set_xlim)
        if wide:
            ax.set_xticks(places, names, fontsize=8.5 if len(rows) > 40 else 9.5)
            ax.set_xlabel("partition point")
            ax.set_ylabel("ms a frame")
            span(-0.7, len(rows) - 0.3)
        else:
            ax.set_yticks(places, names, fontsize=9)
            ax.set_xlabel("ms a frame")
            span(len(rows) - 0.3, -0.7)
        time(0, limit_ms * 1.08)
        _legend_above(plot, ax, columns=5 if wide else 3, distance=22)
    return plot


def _legend_above(plot: Plot, ax: "Axes", *, columns: int, distance: float) -> None:
    """Say above the axes what the colours mean, so that a plot alone says it, too."""
    above = 1 + distance / (ax.get_position().height * plot.height)
    ax.legend(
        loc="lower left", bbox_to_anchor=(0, above), ncols=columns, frameon=False,
        fontsize=9, labelcolor=INK, handlelength=1.1, handleheight=0.9,
        handletextpad=0.5, columnspacing=1.4, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def shown(panel: Panel, most: int) -> list[Row]:
    """Return up to `most` rows in the order of the model, none of the important out."""
    rows = panel.rows
    if len(rows) <= most:
        return list(rows)
    important = {row.number for row in rows if _is_important(row)}
    others = [row.number for row in rows if row.number not in important]
    room = max(0, most - len(important))
    step = len(others) / room if room else math.inf
    picked = {others[int(i * step)] for i in range(room)} if others else set()
    return [row for row in rows if row.number in important | picked]


def _is_important(row: Row) -> bool:
    marked = row.best or row.tie or row.pareto or row.measured is not None
    return marked or row.kind in ENDS


def _limit_ms(panel: Panel, rows: Sequence[Row]) -> float:
    """Return up to where bars are drawn."""
    highest = max(row.cost.total_ms for row in rows)
    best = panel.best
    levels = [row.cost.total_ms for row in rows if row.kind == "local"]
    levels += [] if best is None else [best.cost.total_ms]
    return min(highest, _HIGHER * max(levels)) if levels else highest


def _mark_bar(
    ax: "Axes", row: Row, place: float, end: float, over: bool, *, wide: bool
) -> None:
    """Mark the best row, those as good, those forbidden, and bars that are cut off."""
    mark = "▲" if wide else "◀"
    words = mark if row.best else "△" if row.tie and wide else "◁" if row.tie else ""
    if row.excluded:
        words = "✕"
    if over:
        words = f"{row.cost.total_ms:.0f}{words}"
    x, y = (place, end) if wide else (end, place)
    ax.annotate(
        words,
        (x, y),
        xytext=(0, 3) if wide else (4, 0),
        textcoords="offset points",
        ha="center" if wide else "left",
        va="bottom" if wide else "center",
        fontsize=8,
        color=_BEST if row.best else INK,
        rotation=90 if over and wide else 0,
        annotation_clip=False,
    )


def _levels(ax: "Axes", panel: Panel, *, wide: bool) -> None:
    """Draw what the model uncut takes, here and with the frame sent as it is."""
    for kind, words, dashes in (
        ("local", "all local", (0, (5, 2))),
        ("raw", "send raw", (0, (1.5, 2))),
    ):
        row = next((r for r in panel.rows if r.kind == kind), None)
        if row is None or row.cost.total_ms > _limit_ms(panel, panel.rows):
            continue
        level = row.cost.total_ms
        line = ax.axhline if wide else ax.axvline
        line(level, color=INK, linewidth=0.9, linestyle=dashes)
        ax.annotate(
            words,
            (1, level) if wide else (level, 1),
            xycoords=("axes fraction", "data") if wide else ("data", "axes fraction"),
            xytext=(4, 0) if wide else (0, 3),
            textcoords="offset points",
            ha="left" if wide else "center",
            va="center" if wide else "bottom",
            fontsize=9,
            color=INK,
        )


def pareto(panel: Panel, width: int) -> Plot:
    """Return latency against bytes sent; filled: nothing is better in all respects."""
    plot = Plot(width, 320)
    with plot:
        ax = plot.axes_at(left=58, right=16, bottom=38, top=14)
        rows = [row for row in panel.rows if not row.excluded]
        most = max((row.cost.busy_ms for row in rows), default=0.0) or 1.0
        local = 0.6 * min(
            (row.cost.wire_bytes for row in rows if row.cost.wire_bytes), default=1.0
        )
        for row in rows:
            size = row.cost.wire_bytes or local
            area = 14 + 150 * row.cost.busy_ms / most
            colour = _BEST if row.best else PARTS["endpoint"][0]
            ax.scatter(
                [row.cost.total_ms], [size / 1e3], s=area,
                facecolor=colour if row.pareto else "none",
                edgecolor=colour if row.pareto or row.best else FAINT,
                linewidth=0.9, alpha=0.85, zorder=3 if row.pareto else 2,
            )  # fmt: skip
            if row.pareto or row.kind in ENDS:
                ax.annotate(
                    str(row.number), (row.cost.total_ms, size / 1e3),
                    xytext=(7, 4), textcoords="offset points", fontsize=9, color=INK,
                )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        _plain_ticks(ax)
        ax.set_xlabel("ms a frame, end to end")
        ax.set_ylabel("kB sent a frame")
    return plot


def throughput(panel: Panel, width: int) -> Plot:
    """Return frames a second by depth, beside what latency would choose."""
    plot = Plot(width, 276)
    with plot:
        ax = plot.axes_at(left=58, right=16, bottom=38, top=30)
        rows = [r for r in panel.rows if not r.excluded and math.isfinite(r.cost.fps)]
        for kind in ("device", "link"):
            found = [row for row in rows if row.cost.bottleneck.kind == kind]
            ax.scatter(
                [100 * row.depth for row in found],
                [row.cost.fps for row in found],
                s=22, color=PARTS["endpoint" if kind == "device" else "network"][0],
                marker="o" if kind == "device" else "s", linewidth=0, zorder=2,
                label=f"bound by a {kind}",
            )  # fmt: skip
        _legend_above(plot, ax, columns=2, distance=6)
        quickest = min(rows, key=lambda r: r.cost.total_ms)
        most = max(rows, key=lambda r: r.cost.fps)
        marked = [(quickest, "least latency"), (most, "most frames")]
        if quickest is most:
            marked = [(most, "least latency, most frames")]
        for row, words in marked:
            ax.scatter(
                [100 * row.depth], [row.cost.fps], s=90, facecolor="none",
                edgecolor=_BEST, linewidth=1.3, zorder=3,
            )  # fmt: skip
            ax.annotate(
                f"{words}: {row.number}", (100 * row.depth, row.cost.fps),
                xytext=(9 if row.depth < 0.6 else -9, 8),
                textcoords="offset points", fontsize=9, color=INK,
                ha="left" if row.depth < 0.6 else "right",
            )  # fmt: skip
        ax.set_ylim(0, 1.2 * most.cost.fps)
        ax.set_xlabel("depth of the cut, % of the nodes")
        ax.set_ylabel("frames/s")
    return plot


def sizes(panel: Panel, width: int) -> Plot:
    """Return the bytes that cross by depth, beside what the frame itself has."""
    plot = Plot(width, 280)
    with plot:
        ax = plot.axes_at(left=58, right=16, bottom=38, top=14)
        cuts = [r for r in panel.rows if r.kind not in ENDS]
        single = [row for row in cuts if row.kind == "single"]
        for found, words, colour in (
            ([row.cost.bytes for row in single], "as computed", FAINT),
            ([row.cost.wire_bytes for row in single], "as sent", PARTS["network"][0]),
        ):
            ax.plot(
                [100 * row.depth for row in single],
                [size / 1e3 for size in found],
                color=colour, linewidth=1.4, marker="o", markersize=3, label=words,
            )  # fmt: skip
        several = [row for row in cuts if row.kind != "single"]
        ax.scatter(
            [100 * row.depth for row in several],
            [row.cost.wire_bytes / 1e3 for row in several],
            s=9, marker="x", linewidth=0.8, color=PARTS["network"][0],
        )  # fmt: skip
        for row in panel.rows:
            if row.kind in ("raw", "jpeg", "input"):
                ax.axhline(
                    row.cost.bytes / 1e3, color=INK, linewidth=0.8, dashes=(4, 2)
                )
                ax.annotate(
                    _short(row.label), (100, row.cost.bytes / 1e3), xytext=(0, 2),
                    textcoords="offset points", ha="right", fontsize=8.5, color=INK,
                )  # fmt: skip
        ax.set_yscale("log")
        _plain_ticks(ax)
        ax.set_xlim(0, 100)
        ax.set_xlabel("depth of the cut, % of the nodes")
        ax.set_ylabel("kB a frame")
        ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    return plot


def memory(panel: Panel, width: int) -> Plot:
    """Return weights and activations on both sides, by depth."""
    plot = Plot(width, 220)
    with plot:
        ax = plot.axes_at(left=58, right=16, bottom=38, top=14)
        rows = [r for r in panel.rows if r.kind in ("single", "local", "input")]
        rows.sort(key=lambda row: row.depth)
        for name, found in (
            ("endpoint", [row.cost.endpoint_mb for row in rows]),
            ("server", [row.cost.server_mb for row in rows]),
        ):
            ax.step(
                [100 * row.depth for row in rows], found,
                where="post", color=PARTS[name][0], linewidth=1.6, label=name,
            )  # fmt: skip
        ax.set_ylim(bottom=0)
        ax.set_xlim(0, 100)
        ax.set_xlabel("depth of the cut, % of the nodes")
        ax.set_ylabel("MB")
        ax.legend(frameon=False, fontsize=9, labelcolor=INK)
    return plot


def predicted(panels: Sequence[Panel], width: int) -> Plot:
    """Return what rows were predicted to take against what they took."""
    plot = Plot(width, min(width, 420))
    with plot:
        ax = plot.axes_at(left=58, right=16, bottom=38, top=14)
        marks = "osD^v"
        ends: list[float] = []
        for panel, mark in zip(panels, marks * len(panels), strict=False):
            found = [(r, r.measured) for r in panel.rows if r.measured is not None]
            for row, measured in found:
                ends += [row.cost.total_ms, measured.p50_ms]
                ax.errorbar(
                    [row.cost.total_ms], [measured.p50_ms],
                    xerr=[[row.cost.error_ms], [row.cost.error_ms]],
                    yerr=[[measured.p50_ms - measured.min_ms],
                          [measured.p90_ms - measured.p50_ms]],
                    fmt=mark, markersize=5, color=_BEST if row.best else "#0072b2",
                    ecolor=FAINT, elinewidth=0.9,
                )  # fmt: skip
                ax.annotate(
                    str(row.number), (row.cost.total_ms, measured.p50_ms),
                    xytext=(6, -9), textcoords="offset points", fontsize=8.5,
                    color=INK,
                )  # fmt: skip
        low, high = 0.85 * min(ends), 1.18 * max(ends)
        ax.plot([low, high], [low, high], color=INK, linewidth=0.9)
        ax.fill_between(
            [low, high], [0.9 * low, 0.9 * high], [1.1 * low, 1.1 * high],
            color=FAINT, alpha=0.22, linewidth=0,
        )  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        _plain_ticks(ax)
        ax.set_xlim(low, high)
        ax.set_ylim(low, high)
        ax.set_xlabel("predicted ms")
        ax.set_ylabel("measured ms")
    return plot


def _plain_ticks(ax: "Axes") -> None:
    """Write the ticks of logarithmic axes as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() != "log":
            continue
        low, high = axis.get_view_interval()
        subs = (1.0, 2.0, 5.0) if high / max(low, 1e-9) < 300 else (1.0,)
        axis.set_major_locator(LogLocator(base=10, subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_MAX else f"…{label[1 - _LABEL_MAX :]}"
