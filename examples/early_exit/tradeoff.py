"""What a threshold costs and saves: figures over several rounds of runs."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from examples.early_exit.play import EXIT, Frame, Played, Scene, right_share

COMPUTED_MBIT_S = (16, 100)
"""Links whose latency is computed from runs without one."""


@dataclass(frozen=True, slots=True)
class RowFigures:
    """What one way to an answer came to; medians over the rounds."""

    frames: float
    accuracy: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold in one scene; medians over the rounds."""

    scene: str
    threshold: float
    rounds: int
    exited: float
    """Share of the frames whose answer came from the exit because the gate was sure."""
    sent_bytes: float
    """Per frame: header and tensors of each attempt at a server."""
    link_bytes: float | None
    """Per frame, on the link's connections: also hellos, heartbeats, framing."""
    cpu_ms: float
    """Processor time of the endpoint per frame."""
    overall: RowFigures
    rows: Mapping[str, RowFigures]
    """By who answered: `exit`, `server`, `early`."""
    computed: Mapping[str, RowFigures]
    """Overall, with the time that a link of so many Mbit/s would add."""


def point(scene: Scene, runs: Sequence[Played]) -> Point:
    """Return the medians of `runs`, all of the same scene."""
    whos = sorted({frame.who for run in runs for frame in run.frames})
    links = COMPUTED_MBIT_S if scene.name == "alone" else ()
    link_bytes = [
        r.link_bytes / len(r.frames) for r in runs if r.link_bytes is not None
    ]
    return Point(
        scene=scene.name,
        threshold=scene.threshold,
        rounds=len(runs),
        exited=_median(runs, lambda r: _count(r, EXIT) / len(r.frames)),
        sent_bytes=_median(
            runs,
            lambda r: r.there_bytes * sum(f.asked for f in r.frames) / len(r.frames),
        ),
        link_bytes=median(link_bytes) if link_bytes else None,
        cpu_ms=_median(runs, lambda r: r.cpu_ms),
        overall=_row(r.frames for r in runs),
        rows={
            who: _row([f for f in r.frames if f.who == who] for r in runs)
            for who in whos
        },
        computed={
            f"{mbit}": _row(behind(r, mbit * 1e6) for r in runs) for mbit in links
        },
    )


def behind(run: Played, bits_per_s: float) -> list[Frame]:
    """Return the frames of `run` with the time that a link would have added.

    What is sent for a frame passes the link after its making and before the server's
    work, the answer after it; frames do not wait for one another. Computed, not
    measured.
    """
    per_attempt_ms = (run.there_bytes + run.back_bytes) * 8 / bits_per_s * 1e3
    return [
        Frame(f.who, f.latency_ms + f.asked * per_attempt_ms, f.right, f.asked)
        for f in run.frames
    ]


def _count(run: Played, who: str) -> int:
    return sum(frame.who == who for frame in run.frames)


def _median(runs: Iterable[Played], figure: Callable[[Played], float]) -> float:
    return median(map(figure, runs))


def _row(runs: Iterable[Sequence[Frame]]) -> RowFigures:
    """Return the medians over the runs in which anybody answered so."""
    rounds = [frames for frames in runs if frames]
    return RowFigures(
        frames=median(len(frames) for frames in rounds),
        accuracy=median(right_share(frames) for frames in rounds),
        mean_ms=median(fmean(f.latency_ms for f in frames) for frames in rounds),
        p50_ms=median(_rank(frames, 0.5) for frames in rounds),
        p99_ms=median(_rank(frames, 0.99) for frames in rounds),
    )


def _rank(frames: Sequence[Frame], q: float) -> float:
    """Return the nearest-rank quantile of the latency."""
    ascending = sorted(frame.latency_ms for frame in frames)
    return ascending[math.ceil(q * len(ascending)) - 1]


def write(points: Sequence[Point], conditions: Mapping[str, Any], folder: Path) -> None:
    """Write ``tradeoff.json`` and ``tradeoff.csv`` into `folder`."""
    data = {"conditions": conditions, "points": [asdict(p) for p in points]}
    (folder / "tradeoff.json").write_text(json.dumps(data, indent=1) + "\n")
    rows = [dict(_flat(asdict(p))) for p in points]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "tradeoff.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _flat(data: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each figure under a name with its place: ``rows.exit.p50_ms``."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value


def table(points: Sequence[Point]) -> str:
    """Return `points` as a table in Markdown."""
    titles = ["scene", "threshold", "exited", "accuracy", "of exits", "of servers"]
    titles += ["B/frame", "mean ms", "p50", "p99", "exits' p50", "servers' p50"]
    titles += ["CPU ms"]
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    for p in points:
        rows = [p.rows.get(EXIT), p.rows.get("server")]
        cells = [p.scene, f"{p.threshold:g}", f"{p.exited:.1%}"]
        cells += [f"{row.accuracy:.1%}" if row else "-" for row in (p.overall, *rows)]
        cells += [f"{p.sent_bytes:,.0f}", f"{p.overall.mean_ms:.2f}"]
        cells += [f"{p.overall.p50_ms:.2f}", f"{p.overall.p99_ms:.2f}"]
        cells += [f"{row.p50_ms:.2f}" if row else "-" for row in rows]
        cells += [f"{p.cpu_ms:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
