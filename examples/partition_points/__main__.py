"""Profile a model, and draw what each partition point costs a slow endpoint.

python -m examples.partition_points ssd_mobilenet_v1.onnx --slow 15 --out out
"""

import argparse
import json
import sys
from pathlib import Path

from dataflow.errors import UnderstudyError
from examples.partition_points import figure
from examples.partition_points.cpu_share import share
from examples.partition_points.detections import is_raw, write_best_detections
from examples.partition_points.gains import gains
from examples.partition_points.points import Points
from examples.partition_points.tables import run_table, table
from graphs.onnx_model import Model
from understudy.candidates import CODECS, Device
from understudy.costs import Link
from understudy.explore_measure import candidates
from understudy.explore_measure import measured as run_rows
from understudy.explore_page import write_folder
from understudy.explore_subject import read_subject
from understudy.explore_words import parse_link
from understudy.exploring import Wish, explore
from understudy.profile_file import Profile, read_profile, write_profile
from understudy.profile_text import profile_text
from understudy.profiling import Wanted, profile
from understudy.progress import Progress

LINKS = ("100mbit,1ms", "16mbit,5ms")
SLOW = 15.0
TRIED = 4
"""Partitions that are run for real, beside all local and the frame as it is."""


def main() -> None:
    options = _options()
    try:
        _explore(options)
    except UnderstudyError as error:
        print(f"partition_points: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.partition_points",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, help="an ONNX file")
    add("--out", type=Path, required=True, help="folder for figure, data and profile")
    add("--slow", type=float, default=SLOW, help="the endpoint, times; %(default)g")
    add("--link", action="append", help=f"RATE,RTT; default: {' and '.join(LINKS)}")
    add("--limit", action="store_true", help="also run the best on 1/SLOW core: root")
    add("--codec", choices=CODECS, default="none", help="of the cut; %(default)s")
    return parser.parse_args()


def _explore(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    file = _subject(options.model, options.out)
    model = Model.read(file)
    measured = _profile(file, model, options.out / "profile.json")
    links = [parse_link(text) for text in options.link or LINKS]

    def at(slow: float) -> list[Points]:
        wish = _wish(measured, slow, links, options.codec)
        return [Points.of(panel) for panel in explore(model, wish).panels]

    found = at(options.slow)
    gained = gains(at)
    (options.out / "points.json").write_text(
        json.dumps(
            {
                "model": str(options.model),
                "slow": options.slow,
                "machine": dict(measured.machine),
                "links": [points.to_json() for points in found],
                "gains": [gain.to_json() for gain in gained],
            },
            indent=1,
        )
    )
    for name, drawn in (
        ("points", figure.points(found)),
        ("gains", figure.gains(gained)),
    ):
        (options.out / f"{name}.svg").write_text(drawn)
        print(options.out / f"{name}.svg", file=sys.stderr)
    print(f"\n{table(found)}", end="")
    if options.limit:
        _run(file, model, measured, options, links)


def _subject(file: Path, out: Path) -> Path:
    """Return the model to explore: a detector's answer is cut down to the best."""
    if not is_raw(Model.read(file)):
        return file
    made = out / f"{file.stem}-best.onnx"
    write_best_detections(file, made)
    return made


def _profile(file: Path, model: Model, kept: Path) -> Profile:
    """Return the profile of a model on this machine: the kept one, if it is of it."""
    if kept.exists() and (found := read_profile(kept)).model.sha256 == model.sha256:
        return found
    with Progress() as progress:
        made = profile(file, Wanted(device="here"), progress.tell)
    write_profile(made, kept)
    print(profile_text(made), end="")
    return made


def _wish(measured: Profile, slow: float, links: list[Link], codec: str) -> Wish:
    scaled = f"the profile x {slow:g}" if slow != 1.0 else ""
    devices = (
        Device("endpoint", "profile.json", measured, slow, scaled),
        Device("server", "profile.json", measured),
    )
    return Wish(devices, [[link] for link in links], codecs=("none", codec))


def _run(
    file: Path,
    model: Model,
    measured: Profile,
    options: argparse.Namespace,
    links: list[Link],
) -> None:
    """Run the best partitions for real, the endpoint on a share of a core."""
    wish = _wish(measured, options.slow, links, options.codec)
    found = explore(model, wish)
    subject = read_subject(file)

    def tell(text: str) -> None:
        print(f"running {text}", file=sys.stderr)

    with share(1 / options.slow) as limited:
        for index in range(len(found.panels)):
            rows = candidates(found.panels[index], TRIED)
            found = run_rows(
                found, found.panels[index], subject, rows,
                throughput=True, slow=limited.hold, tell=tell,
            )  # fmt: skip
    page = write_folder(found, options.out / "limited")
    for panel in found.panels:
        print(f"\n{panel.name}, the endpoint on 1/{options.slow:g} of a core")
        print(run_table(panel))
    print(f"\n{page}")


if __name__ == "__main__":
    main()
