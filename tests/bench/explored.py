"""How long a frame takes from end to end, as `explore` predicts it and as it is.

    python -m tests.bench.explored [MODEL ...] [--rounds 2] [--cuts 6] [--json FILE]

Each model is profiled here, its cuts are explored over 100 and over 16 Mbit/s, and the
best, all local, the raw frame and cuts spread over the model are run: two processes, a
link that the fault proxy shapes, frames one at a time. Rounds go over all of them in
turn; a partition's time is the median of its rounds' least ones, since others' work
makes it longer only. *Held out*: cuts that the profile did not measure. *Floor*: how
far the rounds are from each other.

Models: those of UNDERSTUDY_DATA, unless they are named.
"""

import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.common import Figure, arguments, conditions, show, write
from understudy.candidates import Device
from understudy.costs import Link
from understudy.exploration import Exploration, Panel, Row
from understudy.explore_measure import measured
from understudy.explore_subject import Subject, read_subject
from understudy.exploring import Wish, explore
from understudy.profile_file import Profile
from understudy.profiling import Wanted, profile

MODELS = (
    "mobilenet_v2_1.0_224_imagenet.onnx",
    "ssd_mobilenet_v1_coco_300.onnx",
    "vehicle_cnn_4.onnx",
)
LINKS = (Link("100mbit,1ms", 100, 100, 1), Link("16mbit,5ms", 16, 16, 5))
BUDGET_PERCENT = 10.0
FRAMES = 30


@dataclass(slots=True)
class Tried:
    """A partition, and the least and the median time of each round."""

    row: Row
    least_ms: list[float] = field(default_factory=list)
    median_ms: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Predicted against measured, percent of what was measured."""
        took_ms = statistics.median(self.least_ms)
        return 100 * (self.row.cost.total_ms - took_ms) / took_ms

    @property
    def floor(self) -> float:
        spread = max(self.least_ms) - min(self.least_ms)
        return 100 * spread / statistics.median(self.least_ms)


def chosen(panel: Panel, cuts: int) -> list[Row]:
    """Return the rows to try: the ends, the best, and cuts spread over the model."""
    allowed = [row for row in panel.rows if not row.excluded]
    single = [row for row in allowed if row.kind in ("single", "multi")]
    spread = [single[i * len(single) // cuts] for i in range(min(cuts, len(single)))]
    best = [panel.best] if panel.best is not None else []
    rows = [row for row in allowed if row.kind in ("local", "raw", "input")]
    return list({row.number: row for row in (*rows, *best, *spread)}.values())


def tried(
    exploration: Exploration, panel: Panel, subject: Subject, rounds: int, cuts: int
) -> list[Tried]:
    found = {row.number: Tried(row) for row in chosen(panel, cuts)}
    rows = [each.row for each in found.values()]
    for _ in range(rounds):
        result = measured(exploration, panel, subject, rows, frames=FRAMES)
        index = exploration.panels.index(panel)
        for row in result.panels[index].rows:
            if row.measured is not None:
                found[row.number].least_ms.append(row.measured.min_ms)
                found[row.number].median_ms.append(row.measured.p50_ms)
    return [each for each in found.values() if each.least_ms]


def figures(every: Sequence[Tried]) -> Iterator[Figure]:
    held_out = [t for t in every if t.row.source != "measured"]
    for each in every:
        name = f"{each.row.label} ({each.row.source})"
        took_ms = statistics.median(each.least_ms)
        yield Figure(f"{name}: predicted", each.row.cost.total_ms, "ms")
        yield Figure(f"{name}: least", took_ms, "ms")
        yield Figure(f"{name}: median", statistics.median(each.median_ms), "ms")
        yield Figure(f"{name}: error", each.error, "%")
    for title, some in (("all", every), ("held out", held_out)):
        if some:
            errors = [abs(each.error) for each in some]
            yield Figure(
                f"mean error, {title} {len(some)}",
                statistics.fmean(errors), "%", BUDGET_PERCENT,
            )  # fmt: skip
    yield Figure("floor", statistics.fmean(t.floor for t in every), "%")


def explored(subject: Subject, made: Profile) -> Exploration:
    devices = [Device(name, "", made) for name in ("endpoint", "server")]
    return explore(subject.model, Wish(devices, [[link] for link in LINKS]))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cuts", type=int, default=6)
    options = parser.parse_args()
    print(conditions("endpoint", "server", "proxy"))
    tables: dict[str, Any] = {}
    for path in options.models or list(shipped()):
        subject = read_subject(path)
        made = profile(path, Wanted("here"), lambda _: None)
        exploration = explored(subject, made)
        for panel in exploration.panels:
            every = tried(exploration, panel, subject, options.rounds, options.cuts)
            title = f"{path.name} over {panel.name}"
            tables[title] = list(figures(every))
            show(title, tables[title])
    write(options.json, tables)


def shipped() -> Iterator[Path]:
    folder = os.environ.get("UNDERSTUDY_DATA")
    if not folder:
        sys.exit("UNDERSTUDY_DATA is not set; name models")
    yield from (Path(folder) / "models" / name for name in MODELS)


if __name__ == "__main__":
    main()
