"""Partition points by two metrics: what the endpoint waits for, and end to end."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from understudy.exploration import Panel, Row


@dataclass(frozen=True, slots=True)
class Point:
    """A partition point: the model's first layers run on the endpoint.

    Attributes:
        number: In the order of the model; 0 sends the frame, the last sends nothing.
        endpoint_ms: The endpoint computes.
        communication_ms: What crosses is encoded, decoded and on its way.
        rest_ms: The server computes, and the answer comes back.
        fps: Frames a second with as many under way as it takes.
    """

    number: int
    label: str
    kilobytes: float
    endpoint_ms: float
    communication_ms: float
    rest_ms: float
    fps: float

    @property
    def waited_ms(self) -> float:
        """Endpoint and communication: the metric of Edge-PRUNE's figure 3."""
        return self.endpoint_ms + self.communication_ms

    @property
    def total_ms(self) -> float:
        return self.waited_ms + self.rest_ms


@dataclass(frozen=True, slots=True)
class Points:
    """All partition points over one link."""

    link: str
    mbit_s: float
    points: tuple[Point, ...]

    @classmethod
    def of(cls, panel: Panel) -> Self:
        """Return the points of a panel: cuts of one tensor, and both ends."""
        rows = [r for r in panel.rows if r.kind in ("raw", "single", "local")]
        if not any(row.kind == "raw" for row in rows):
            rows = [r for r in panel.rows if r.kind in ("input", "single", "local")]
        (link,) = panel.links
        points = tuple(_point(number, row) for number, row in enumerate(rows))
        return cls(panel.name, link.there_mbit_s, points)

    @property
    def local(self) -> Point:
        """The model uncut, on the endpoint."""
        return self.points[-1]

    @property
    def cuts(self) -> tuple[Point, ...]:
        return self.points[1:-1]

    @property
    def best(self) -> Point:
        """The cut for whose answer the endpoint waits least."""
        return min(self.cuts, key=lambda point: point.waited_ms)

    def to_json(self) -> dict[str, Any]:
        found = [
            {**asdict(p), "waited_ms": p.waited_ms, "total_ms": p.total_ms}
            for p in self.points
        ]
        return {"link": self.link, "points": found, "best": self.best.number}


def _point(number: int, row: Row) -> Point:
    cost = row.cost
    return Point(
        number,
        row.label,
        cost.wire_bytes / 1e3,
        cost.endpoint_ms,
        cost.codec_ms + cost.network_ms,
        cost.server_ms + cost.return_ms,
        cost.fps,
    )
