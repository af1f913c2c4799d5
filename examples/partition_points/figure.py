"""The figures: a bar a partition point, and the gain by how slow the endpoint is."""

from collections.abc import Sequence

from examples.partition_points.gains import Gain
from examples.partition_points.points import Points
from understudy.svg import FAINT, INK, Plot, document

EDGE_PRUNE = 6.0
"""Gain of the best partition points of SSD-MobileNet that Edge-PRUNE reports."""
_COMPUTES, _COMMUNICATES, _BEST = "#0072b2", "#e69f00", "#d55e00"
_WIDTH = 860
_LINKS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")


def points(links: Sequence[Points]) -> str:
    """Return a panel a link: endpoint and communication, the rest hollow on top."""
    tall = 270
    plot = Plot(_WIDTH, tall * len(links) + 10)
    with plot:
        for index, found in enumerate(links):
            ax = plot.axes_at(
                left=56, right=70, bottom=46 + tall * (len(links) - 1 - index),
                top=26 + tall * index,
            )  # fmt: skip
            places = [point.number for point in found.points]
            computes = [point.endpoint_ms for point in found.points]
            waits = [point.waited_ms for point in found.points]
            ax.bar(places, computes, 0.78, color=_COMPUTES, linewidth=0,
                   label="endpoint")  # fmt: skip
            ax.bar(places, [p.communication_ms for p in found.points], 0.78,
                   bottom=computes, color=_COMMUNICATES, linewidth=0,
                   label="communication")  # fmt: skip
            ax.bar(places, [p.rest_ms for p in found.points], 0.78, bottom=waits,
                   facecolor="none", edgecolor=FAINT, linewidth=0.8,
                   label="server and way back")  # fmt: skip
            local = found.local.waited_ms
            limit = 2.0 * local
            ax.axhline(local, color=INK, linewidth=0.9, linestyle=(0, (5, 2)))
            ax.annotate("all local", (1, local), xycoords=("axes fraction", "data"),
                        xytext=(4, 0), textcoords="offset points", va="center",
                        fontsize=9, color=INK)  # fmt: skip
            best = found.best
            ax.annotate(
                f"{local / best.waited_ms:.1f} x", (best.number, best.waited_ms),
                xytext=(0, 16), textcoords="offset points", ha="center",
                fontsize=10.5, color=_BEST,
                arrowprops={"arrowstyle": "-", "color": _BEST, "linewidth": 0.8},
            )  # fmt: skip
            for point in found.points:
                if point.total_ms > limit:
                    ax.annotate(
                        f"{point.total_ms:,.0f}", (point.number, limit),
                        xytext=(0, -3), textcoords="offset points", ha="center",
                        va="top", rotation=90, fontsize=7.5, color=INK,
                    )  # fmt: skip
            ax.set_xticks(places, [str(place) for place in places], fontsize=8.5)
            ax.set_xlim(-0.7, len(places) - 0.3)
            ax.set_ylim(0, limit)
            ax.set_ylabel("ms a frame")
            ax.set_title(f"{found.mbit_s:g} Mbit/s", fontsize=11, color=INK, loc="left")
            if index == 0:
                ax.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=3,
                          loc="lower right", bbox_to_anchor=(1, 1))  # fmt: skip
        ax.set_xlabel("partition point: 0 sends the frame, the last sends nothing")
        return document(plot.text("points"))


def gains(found: Sequence[Gain]) -> str:
    """Return the gain of the best cut over the slowness of the endpoint."""
    plot = Plot(_WIDTH, 320)
    with plot:
        ax = plot.axes_at(left=56, right=120, bottom=46, top=18)
        names = dict.fromkeys(gain.link for gain in found)
        for link, colour in zip(names, _LINKS, strict=False):
            mine = [gain for gain in found if gain.link == link]
            for kind, dashes in (("waited", "-"), ("total", (0, (4, 2))),
                                 ("fps", (0, (1, 1.5)))):  # fmt: skip
                values = [getattr(gain, kind) for gain in mine]
                ax.plot([gain.slow for gain in mine], values, color=colour,
                        linestyle=dashes, linewidth=1.6)  # fmt: skip
            ax.annotate(link, (mine[-1].slow, mine[-1].waited), xytext=(6, 0),
                        textcoords="offset points", va="center", fontsize=9,
                        color=colour)  # fmt: skip
        ax.axhline(EDGE_PRUNE, color=INK, linewidth=0.8, linestyle=(0, (1.5, 2)))
        ax.annotate("Edge-PRUNE, 6.0 x", (0, EDGE_PRUNE), xytext=(6, 3),
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                    fontsize=9, color=INK)  # fmt: skip
        ax.axhline(1, color=FAINT, linewidth=0.8)
        ax.set_xscale("log")
        ticks = sorted({gain.slow for gain in found})
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_ylim(bottom=0)
        ax.set_xlabel(
            "endpoint slower than the machine of the profile, times "
            "(line: endpoint and communication, dashes: end to end, dots: frames/s)"
        )
        ax.set_ylabel("all local over the best cut")
        return document(plot.text("gains"))
