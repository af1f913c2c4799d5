"""The partition points as text."""

from collections.abc import Sequence

from examples.partition_points.points import Point, Points
from understudy.exploration import Panel


def table(links: Sequence[Points]) -> str:
    """Return every point over every link as text."""
    lines = []
    for points in links:
        lines.append(f"{points.link}")
        lines.append(
            f"{'#':>3} {'cut':<24} {'kB':>8} {'endpoint':>9} {'commun.':>9} "
            f"{'both':>8} {'gain':>6} {'total':>8} {'gain':>6} {'1/s':>7} {'gain':>6}"
        )
        lines += [_line(point, points.local) for point in points.points]
        lines.append("")
    return "\n".join(lines)


def _line(point: Point, local: Point) -> str:
    return (
        f"{point.number:>3} {point.label[:24]:<24} {point.kilobytes:>8.1f} "
        f"{point.endpoint_ms:>9.1f} {point.communication_ms:>9.1f} "
        f"{point.waited_ms:>8.1f} {local.waited_ms / point.waited_ms:>6.2f} "
        f"{point.total_ms:>8.1f} {local.total_ms / point.total_ms:>6.2f} "
        f"{point.fps:>7.1f} {point.fps / local.fps:>6.2f}"
    )


def run_table(panel: Panel) -> str:
    """Return the rows that were run: predicted against what they took."""
    lines = [
        f"{'cut':<24} {'total':>8} {'took p50':>9} {'p90':>8} {'1/s':>7} {'gave':>7}"
    ]
    for row in panel.rows:
        if (took := row.measured) is not None:
            gave = "" if took.fps is None else f"{took.fps:.1f}"
            lines.append(
                f"{row.label[:24]:<24} {row.cost.total_ms:>8.1f} {took.p50_ms:>9.1f} "
                f"{took.p90_ms:>8.1f} {row.cost.fps:>7.1f} {gave:>7}"
            )
    return "\n".join(lines)
