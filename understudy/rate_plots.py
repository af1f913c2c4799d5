"""What an exploration would say of other links and servers, drawn.

The rows stay as they were found, each with its codec; only rates and speeds change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from understudy.costs import Cost, Partition, cost
from understudy.exploration import Panel, Threshold
from understudy.svg import INK, PAPER, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATES = 1.0, 1000.0
"""Mbit/s: from a poor radio to a good cable."""
_STEPS = 120
_CELLS_WIDE, _CELLS_NARROW = (36, 17), (24, 13)
_SPEEDS = 0.25, 16.0
"""Of the servers, times what was profiled."""
_REGRET_MAX = 1.0
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


def by_rate(panel: Panel, width: int) -> Plot:
    """Return the latency of the quickest partitions over the rate of the links."""
    plot = Plot(width, 300)
    with plot:
        ax = plot.axes_at(left=50, right=14, bottom=38, top=30)
        low, high = _RATES
        rates = _spaced(low, high, _STEPS)
        here = [t for t in panel.thresholds if _meets(t, low, high)]
        colours = _tints(len(here))
        for threshold, colour in zip(here, colours, strict=True):
            first = max(threshold.from_mbit_s, low)
            last = min(threshold.to_mbit_s or high, high)
            ax.axvspan(first, last, color=colour, alpha=0.16, linewidth=0)
        rows = {row.number: row for row in panel.rows}
        top = 0.0
        for place, (threshold, colour) in enumerate(zip(here, colours, strict=True)):
            row = rows[threshold.number]
            if threshold.codec not in ("", row.codec):
                continue  # the row was drawn with the codec of this link
            times = [at_rate(row.pieces, rate).total_ms for rate in rates]
            first = max(threshold.from_mbit_s, low)
            dashes = _DASHES[place % len(_DASHES)]
            ax.plot(rates, times, color=colour, linewidth=1.8, linestyle=dashes)
            top = max(top, at_rate(row.pieces, first).total_ms)
        for link in panel.links:
            ax.axvline(link.there_mbit_s, color=INK, linewidth=0.9, dashes=(1.5, 2))
        for band in here[1:]:
            ax.annotate(
                f"{band.from_mbit_s:.3g}", (band.from_mbit_s, 0),
                xycoords=("data", "axes fraction"), xytext=(0, 4),
                textcoords="offset points", ha="center", fontsize=8.5, color=INK,
            )  # fmt: skip
        _name_bands(ax, here, low, high)
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.set_ylim(0, 1.15 * top if top else None)
        ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        ax.set_xlabel("Mbit/s")
        ax.set_ylabel("ms a frame")
    return plot


def _meets(threshold: Threshold, low: float, high: float) -> bool:
    return threshold.from_mbit_s < high and (threshold.to_mbit_s or high) > low


def _name_bands(
    ax: "Axes", bands: Sequence[Threshold], low: float, high: float
) -> None:
    for threshold in bands:
        first = max(threshold.from_mbit_s, low)
        last = min(threshold.to_mbit_s or high, high)
        ax.annotate(
            f"{threshold.number}",
            (math.sqrt(first * last), 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=9.5,
            color=INK,
        )


def _tints(count: int) -> list[str]:
    tints = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
    return [tints[i % len(tints)] for i in range(count)]


def at_rate(partition: Partition, mbit_s: float) -> Cost:
    """Return what a partition costs over links of this rate, both ways."""
    links = tuple(
        replace(link, there_mbit_s=mbit_s, back_mbit_s=mbit_s)
        for link in partition.links
    )
    return cost(replace(partition, links=links))


def regret(panel: Panel, width: int) -> Plot:
    """Return by how much the recommended partition is slower than the quickest.

    Over the rate of the links and the speed of the servers, for all rows with the codec
    that they have here.
    """
    wide = width > 500
    plot = Plot(width, 290)
    with plot:
        ax = plot.axes_at(left=58, right=82, bottom=38, top=14)
        columns, lines = _CELLS_WIDE if wide else _CELLS_NARROW
        rates, speeds = _spaced(*_RATES, columns), _spaced(*_SPEEDS, lines)
        best = panel.best
        assert best is not None
        mine, *lines_of = (
            Line.of(row.pieces)
            for row in (best, *(row for row in panel.rows if not row.excluded))
        )
        found = [
            [mine.ms(r, s) / min(line.ms(r, s) for line in lines_of) - 1 for r in rates]
            for s in speeds
        ]
        mesh = ax.pcolormesh(
            rates, speeds, found, cmap="YlOrBr", vmin=0, vmax=_REGRET_MAX,
            shading="nearest", linewidth=0, rasterized=False,
        )  # fmt: skip
        mesh.set_edgecolor("face")
        scale = plot.axes_at(left=width - 72, right=60, bottom=38, top=14)
        bar = plot.figure.colorbar(mesh, cax=scale, ticks=[0, 0.25, 0.5, 0.75, 1])
        bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "≥ 100 %"], fontsize=9)
        bar.outline.set_visible(False)
        for link in panel.links[:1]:
            ax.plot([link.there_mbit_s], [1.0], "o", color=INK, markersize=6,
                    markerfacecolor=PAPER)  # fmt: skip
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        ax.set_yticks([0.25, 1, 4, 16], ["1/4", "1", "4", "16"])
        ax.minorticks_off()
        ax.set_xlim(*_RATES)
        ax.set_ylim(*_SPEEDS)
        ax.set_xlabel("Mbit/s")
        ax.set_ylabel("speed of the server, times profiled")
    return plot


@dataclass(frozen=True, slots=True)
class Line:
    """The latency of a partition by the rate of links and the speed of servers, ms.

    Attributes:
        fixed: What neither changes.
        server: At the speed that was profiled.
        at_1: What links of 1 Mbit/s add.
    """

    fixed: float
    server: float
    at_1: float

    @classmethod
    def of(cls, partition: Partition) -> Self:
        server = at_rate(partition, math.inf).server_ms
        fixed = at_rate(partition, math.inf).total_ms - server
        slow = at_rate(partition, 1.0).total_ms
        return cls(fixed, server, slow - fixed - server)

    def ms(self, mbit_s: float, speed: float) -> float:
        return self.fixed + self.server / speed + self.at_1 / mbit_s


def _spaced(low: float, high: float, count: int) -> list[float]:
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]
