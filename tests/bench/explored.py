"""How long a frame takes from end to end, as `explore` predicts it and as it is.

    python -m tests.bench.explored [MODEL ...] [--link 100] [--rounds 2] [--cuts 6]
                                   [--frames 30] [--up] [--json FILE]

Partitions are run as two processes over a link that the fault proxy shapes to 100 or 16
Mbit/s, frames one at a time: the best, all local, the raw frame, and useful cuts spread
over the model, most of them *held out*: the profile did not measure them.

What is predicted, and compared, is the median of frames at a pace. It depends on what
else a machine does, so a round profiles the model, measures the link as `profile
--link` does, and runs the partitions right after. *Error*: of the mean prediction
against the mean of the rounds' medians. *Floor*: how far the rounds' medians are from
each other, in the mean; what cannot be measured twice cannot be predicted.

With `--up` the best partition is written as `explore --write` does, and run as `up`
does, over the loopback: its median must lie within the band that was stated.

Models: those of UNDERSTUDY_DATA, unless they are named.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench.common import Figure, arguments, conditions, show, write
from understudy.candidates import Device
from understudy.costs import Link
from understudy.exploration import Exploration, Panel, Row
from understudy.explore_measure import measured
from understudy.explore_subject import Subject, read_subject
from understudy.explored_deployment import write_deployment
from understudy.exploring import Wish, explore
from understudy.launch import free_ports
from understudy.link_profiling import Identity, profile_link
from understudy.profile_file import Profile
from understudy.profiling import Wanted, profile
from understudy.proxy import HOST, Condition, Proxy
from understudy.running import run_all

MODELS = (
    "mobilenet_v2_1.0_224_imagenet.onnx",
    "ssd_mobilenet_v1_coco_300.onnx",
    "vehicle_cnn_4.onnx",
)
LINKS = {
    100: Link("100mbit,1ms", 100, 100, 1),
    16: Link("16mbit,5ms", 16, 16, 5),
}
BUDGET_PERCENT = 10.0
UP_S = 6.0


@dataclass(slots=True)
class Tried:
    """A partition: what each round predicted, and measured; medians, ms."""

    row: Row
    predicted_ms: list[float] = field(default_factory=list)
    median_ms: list[float] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Predicted against measured, percent of what was measured."""
        took_ms = statistics.fmean(self.median_ms)
        return 100 * (statistics.fmean(self.predicted_ms) / took_ms - 1)

    @property
    def floor(self) -> float:
        spread = max(self.median_ms) - min(self.median_ms)
        return 100 * spread / statistics.fmean(self.median_ms)


def chosen(panel: Panel, cuts: int) -> list[Row]:
    """Return the rows to try: the ends, the best, and cuts spread over the model."""
    allowed = [row for row in panel.rows if not row.excluded]
    single = [row for row in allowed if row.kind in ("single", "multi")]
    spread = [single[i * len(single) // cuts] for i in range(min(cuts, len(single)))]
    best = [panel.best] if panel.best is not None else []
    rows = [row for row in allowed if row.kind in ("local", "raw", "input")]
    return list({row.number: row for row in (*rows, *best, *spread)}.values())


def tried(
    subject: Subject, path: Path, link: Link, *, rounds: int, cuts: int, frames: int
) -> list[Tried]:
    found: dict[int, Tried] = {}
    for _ in range(rounds):
        exploration = explored(subject, profiled(path), link_measured(link))
        # What it shapes its links to is what is asked of the proxy.
        panel = replace(exploration.panels[0], links=(link,))
        exploration = replace(exploration, panels=(panel,))
        if not found:
            found = {row.number: Tried(row) for row in chosen(panel, cuts)}
        rows = [row for row in panel.rows if row.number in found]
        result = measured(exploration, panel, subject, rows, frames=frames)
        for row in result.panels[0].rows:
            if row.measured is not None:
                found[row.number].predicted_ms.append(row.cost.total_ms)
                found[row.number].median_ms.append(row.measured.p50_ms)
    return [each for each in found.values() if each.median_ms]


def profiled(path: Path) -> Profile:
    return profile(path, Wanted("here"), lambda _: None)


def explored(subject: Subject, made: Profile, link: Link) -> Exploration:
    devices = [Device(name, "", made) for name in ("endpoint", "server")]
    return explore(subject.model, Wish(devices, [[link]]))


def link_measured(link: Link | None) -> Link:
    """Return what `profile --link` says of a shaped link; None: of the loopback."""
    target, port = free_ports(1), free_ports(1)
    command = [sys.executable, "-m", "understudy", "profile", "--listen"]
    with (
        subprocess.Popen(
            [*command, f"{HOST}:{target}", "--seconds", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process,
        Proxy() as proxy,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it listens
            if link is not None:
                condition = Condition(
                    bytes_per_s=link.there_mbit_s * 1e6 / 8, delay_s=link.rtt_ms / 2e3
                )
                proxy.link(port=port, target=target).become(condition)
            asked = f"{HOST}:{target if link is None else port}"
            found = profile_link(asked, Identity(), peer="", name="")
        finally:
            process.terminate()
    name = "loopback" if link is None else link.name
    print(
        f"{name}: {found.there_mbit_s:.4g}/{found.back_mbit_s:.4g} Mbit/s, "
        f"{found.rtt_ms:.3f} ms, jitter {found.jitter_ms:.3f}"
    )
    return Link(
        name, found.there_mbit_s, found.back_mbit_s, found.rtt_ms, found.jitter_ms, True
    )


def figures(every: Sequence[Tried]) -> Iterator[Figure]:
    held_out = [t for t in every if t.row.source != "measured"]
    for each in every:
        name = f"{each.row.label} ({each.row.source})"
        yield Figure(f"{name}: predicted", statistics.fmean(each.predicted_ms), "ms")
        yield Figure(f"{name}: measured", statistics.fmean(each.median_ms), "ms")
        yield Figure(f"{name}: error", each.error, "%")
    for title, some in (("all", every), ("held out", held_out)):
        if some:
            errors = [abs(each.error) for each in some]
            yield Figure(
                f"mean error, {title} {len(some)}",
                statistics.fmean(errors), "%", BUDGET_PERCENT,
            )  # fmt: skip
    yield Figure("floor", statistics.fmean(t.floor for t in every), "%")


def deployed(subject: Subject, path: Path) -> Iterator[Figure]:
    """Yield what the best partition with a server takes when `up` runs it."""
    exploration = explored(subject, profiled(path), link_measured(None))
    (panel,) = exploration.panels
    local = [row.number for row in panel.rows if row.kind == "local"]
    best = min(
        (r for r in panel.rows if r.number not in local and r.kind != "jpeg"),
        key=lambda row: row.score,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = write_deployment(Path(folder) / "best", subject, best)
        judged = run_all(
            file, run_folder=Path(folder) / "run", seconds=UP_S, insecure=False,
            metrics=None, codec=None, view="notes", say=lambda _: None,
        )  # fmt: skip
    took = next(o.latency for o in judged.figures.outcomes if o.latency)
    yield Figure(f"{best.label}: predicted", best.cost.total_ms, "ms")
    yield Figure("within", best.cost.error_ms, "ms")
    yield Figure("measured p50", took.p50_ms, "ms")
    off_ms = abs(took.p50_ms - best.cost.total_ms)
    yield Figure("off", off_ms, "ms", best.cost.error_ms)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--link", type=int, choices=LINKS, help="only this, Mbit/s")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cuts", type=int, default=6)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--up", action="store_true", help="run the best with `up`")
    options = parser.parse_args()
    print(conditions("endpoint", "server", "proxy"))
    tables: dict[str, Any] = {}
    links = LINKS.values() if options.link is None else [LINKS[options.link]]
    for path in options.models or list(shipped()):
        subject = read_subject(path)
        if options.up:
            title = f"{path.name}, `up`"
            tables[title] = list(deployed(subject, path))
            show(title, tables[title])
            continue
        for link in links:
            every = tried(
                subject,
                path,
                link,
                rounds=options.rounds,
                cuts=options.cuts,
                frames=options.frames,
            )
            title = f"{path.name} over {link.name}"
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
