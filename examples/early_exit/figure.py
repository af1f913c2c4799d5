"""The trade-off as a picture: what is sent, what is right, and how long it takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from examples.early_exit.tradeoff import Point
from understudy.svg import FAINT, INK, Plot, document

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 860, 310
_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"


def draw(points: Sequence[Point], bits_per_s: float | None) -> str:
    """Return the picture as SVG text.

    Args:
        points: Of all scenes.
        bits_per_s: Of the link whose latency is drawn; None: there was none.
    """
    with Plot(WIDTH, HEIGHT) as plot:
        _accuracy(
            plot.axes_at(left=58, right=WIDTH / 2 + 10, bottom=40, top=28), points
        )
        scene = "link" if bits_per_s else "alone"
        where = f"over {bits_per_s / 1e6:g} Mbit/s" if bits_per_s else "over loopback"
        shown = [point for point in points if point.scene == scene]
        axes = plot.axes_at(left=WIDTH / 2 + 36, right=14, bottom=40, top=28)
        _latency(axes, shown, where)
        return document(plot.text("early-exit"))


def _accuracy(ax: "Axes", points: Sequence[Point]) -> None:
    alone = _sorted(points, "alone")
    sent = [point.sent_bytes for point in alone]
    right = [point.overall.accuracy * 100 for point in alone]
    ax.plot(sent, right, "-o", color=_BLUE, markersize=5, linewidth=1.4)
    for point, x, y in zip(alone, sent, right, strict=True):
        _label(ax, _name(point.threshold), x, y)
    killed = _sorted(points, "killed")
    ax.plot(
        [point.sent_bytes for point in killed],
        [point.overall.accuracy * 100 for point in killed],
        "o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor=_ORANGE,
        label="a server killed halfway, another left",
    )
    ax.margins(x=0.07, y=0.12)
    ax.set_xlim(right=max(1.22 * max(sent), 1.0))  # room for the last label
    ax.set_title("Accuracy, by the gate's threshold", loc="left", fontsize=11)
    _finish(ax, "bytes sent to servers per frame", "frames answered right, %")
    if killed:
        ax.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=10)


def _latency(ax: "Axes", points: Sequence[Point], where: str) -> None:
    shown = sorted(points, key=lambda point: point.exited)
    exited = [point.exited * 100 for point in shown]
    for name, colour, dash, took_ms in (
        ("p99", _ORANGE, "--", [p.overall.p99_ms for p in shown]),
        ("mean", _BLUE, "-", [p.overall.mean_ms for p in shown]),
        ("p50", _GREEN, "-.", [p.overall.p50_ms for p in shown]),
    ):
        ax.plot(
            exited, took_ms, dash, marker="o", markersize=4, color=colour, label=name
        )
    ax.set_ylim(bottom=0)
    ax.set_title(f"Latency {where}, by how many exit", loc="left", fontsize=11)
    _finish(ax, "share of frames that exited, %", "latency, ms")
    ax.legend(
        loc="lower left", frameon=False, labelcolor=INK, fontsize=10, handlelength=2.8
    )


def _finish(ax: "Axes", x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(color=FAINT, linewidth=0.4, alpha=0.5)


def _label(ax: "Axes", text: str, x: float, y: float) -> None:
    ax.annotate(
        text,
        (x, y),
        xytext=(7, -13),
        textcoords="offset points",
        color=INK,
        fontsize=10,
    )


def _name(threshold: float) -> str:
    if threshold <= 0:
        return "0: always exit"
    return "never exit" if threshold > 1 else f"{threshold:g}"


def _sorted(points: Sequence[Point], scene: str) -> list[Point]:
    found = [point for point in points if point.scene == scene]
    return sorted(found, key=lambda point: point.threshold)
