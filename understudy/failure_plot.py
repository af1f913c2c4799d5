"""The plot of what followed each failure: detect, decide, switch, refill."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from understudy.faults import Detection
from understudy.figures import FaultFigures, Figures
from understudy.summary import milliseconds
from understudy.svg import FAINT, INK, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS: Mapping[str, str] = {
    "detect": "#8c96a0",
    "decide": "#d55e00",
    "switch": "#cc79a7",
    "refill": "#0072b2",
}
"""Step -> colour; apart for the colour-blind, and in this order in every bar."""
_LANES = 16
_LANE_PX = 40
_LEAST_PX = 2.0
"""A step of microseconds must be seen too."""
_LINEAR_MS = 1.0
_ROOM_PX = 600
"""Width from which each step is told in figures, too."""


def steps(detection: Detection) -> list[tuple[str, float]]:
    """Return the steps that are known of what a device did, and their ms, in order."""
    decided_us = detection.decided_us
    durations = (
        detection.detected_ms,
        None if decided_us is None else decided_us / 1e3,
        detection.switched_ms,
        detection.refilled_ms,
    )
    found = []
    for name, took_ms in zip(STEPS, durations, strict=True):
        if took_ms is None:
            break  # what came after cannot be placed
        found.append((name, max(took_ms, 0.0)))
    return found


def failure_steps(figures: Figures, width: int) -> str:
    """Return the steps after each failure, one bar a device that had frames there."""
    lanes = [
        (fault, detection)
        for fault in figures.faults
        for detection in fault.acting
        if steps(detection)
    ][:_LANES]
    height = _LANE_PX * len(lanes) + 62
    longest_ms = max(sum(ms for _, ms in steps(d)) for _, d in lanes)
    with Plot(width, height) as plot:
        ax = plot.axes_at(left=12, right=16, bottom=36, top=24)
        ax.set_xscale("symlog", linthresh=_LINEAR_MS, linscale=0.5)
        ax.set_xlim(0, max(longest_ms, _LINEAR_MS) * 1.25)
        ax.set_ylim(-len(lanes) + 0.5, 0.5)
        for index, (fault, detection) in enumerate(lanes):
            _lane(ax, -index, fault, detection, width)
        _legend(ax)
        _axis(ax)
        return plot.text("steps")


def _lane(
    ax: "Axes", lane: int, fault: FaultFigures, detection: Detection, width: int
) -> None:
    px = (width - 28) / _scaled(ax, ax.get_xlim()[1])
    for name, start_ms, end_ms in _placed(ax, detection, _LEAST_PX / px):
        ax.broken_barh(
            [(start_ms, end_ms - start_ms)],
            (lane - 0.34, 0.36),
            facecolor=STEPS[name],
            linewidth=0,
        )
    told = steps(detection)
    _error(ax, lane, detection)
    figures = f"{milliseconds(sum(ms for _, ms in told))} ms"
    if width > _ROOM_PX:
        parts = " + ".join(f"{name} {milliseconds(ms)}" for name, ms in told)
        figures = f"{parts} = {figures}"
    words = f"{fault.name} at {fault.t_s:.2f} s, {detection.device}"
    ax.annotate(
        words, (0, lane + 0.1), (1, 0), textcoords="offset points",
        ha="left", va="bottom", color=INK, fontsize=10.5,
    )  # fmt: skip
    ax.text(
        1, lane + 0.1, figures, transform=ax.get_yaxis_transform(),
        ha="right", va="bottom", color=INK, fontsize=10.5,
    )  # fmt: skip


def _error(ax: "Axes", lane: int, detection: Detection) -> None:
    """Draw how well it is known when the device noticed, on the clock of the others."""
    detected_ms, error_ms = detection.detected_ms, detection.error_ms
    if detected_ms is not None and error_ms > 0:
        ends = max(detected_ms - error_ms, 0.0), detected_ms + error_ms
        ax.plot(ends, [lane - 0.16] * 2, "|-", color=INK, lw=1, ms=7)


def _placed(
    ax: "Axes", detection: Detection, least: float
) -> Iterator[tuple[str, float, float]]:
    """Yield step, start and end in ms, each at least `least` wide as it is drawn."""
    at = clock_ms = 0.0
    for name, took_ms in steps(detection):
        clock_ms += took_ms
        end = max(_scaled(ax, clock_ms), at + least)
        yield name, _unscaled(ax, at), _unscaled(ax, end)
        at = end


def _scaled(ax: "Axes", ms: float) -> float:
    """Return where `ms` stands on the axis, before it is stretched to pixels."""
    return float(ax.get_xaxis().get_transform().transform([ms])[0])


def _unscaled(ax: "Axes", place: float) -> float:
    return float(ax.get_xaxis().get_transform().inverted().transform([place])[0])


def _legend(ax: "Axes") -> None:
    from matplotlib.patches import Patch

    ax.legend(
        handles=[Patch(color=colour, label=name) for name, colour in STEPS.items()],
        loc="lower left",
        bbox_to_anchor=(0, 1, 1, 0),
        borderaxespad=0,
        ncols=len(STEPS),
        frameon=False,
        labelcolor=INK,
        fontsize=10.5,
        handlelength=1,
        columnspacing=1.2,
    )


def _axis(ax: "Axes") -> None:
    from matplotlib import ticker

    ticks = [0.0, 0.5, *(d * 10.0**p for p in range(5) for d in (1, 2, 5))]
    ax.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda ms, _: f"{ms:g}"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("since the failure, ms")
    ax.grid(axis="x", color=FAINT, linewidth=0.4, alpha=0.5)
    ax.set_axisbelow(True)
