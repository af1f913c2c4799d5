"""How much the best cut gains over the model uncut, the slower the endpoint is."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from examples.partition_points.points import Points

SLOWNESS = (1, 2, 5, 10, 15, 20, 30, 50, 75, 100)


@dataclass(frozen=True, slots=True)
class Gain:
    """The best cuts for an endpoint slower by a factor, and what they gain.

    Attributes:
        waited: All local over the best cut, by endpoint and communication time.
        total: The same end to end, of the best cut for that.
        fps: The same of frames a second.
    """

    link: str
    slow: float
    waited: float
    waited_at: int
    total: float
    total_at: int
    fps: float
    fps_at: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def gains(
    at: Callable[[float], Sequence[Points]], slowness: Sequence[float] = SLOWNESS
) -> list[Gain]:
    """Return the gains over each link for endpoints slower by each of `slowness`."""
    return [gain(slow, points) for slow in slowness for points in at(slow)]


def gain(slow: float, points: Points) -> Gain:
    local = points.local
    waited = points.best
    total = min(points.cuts, key=lambda point: point.total_ms)
    fps = max(points.cuts, key=lambda point: point.fps)
    return Gain(
        points.link,
        slow,
        local.waited_ms / waited.waited_ms,
        waited.number,
        local.total_ms / total.total_ms,
        total.number,
        fps.fps / local.fps,
        fps.number,
    )
