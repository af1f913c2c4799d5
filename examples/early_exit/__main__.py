"""Measure what the threshold of an early exit costs and saves, and draw it.

python -m examples.early_exit --link 16mbit --out out
"""

import argparse
import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from dataflow.errors import MisuseError, UnderstudyError
from examples.early_exit import figure, tradeoff
from examples.early_exit.play import SERVERS, Played, Scene, play
from understudy.explore_words import parse_link
from understudy.machine import machine_facts

THRESHOLDS = "0,0.4,0.5,0.6,0.7,0.8,0.9,0.95,1.01"


def main() -> None:
    options = _options()
    try:
        _measure(options)
    except UnderstudyError as error:
        print(f"early_exit: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.early_exit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the figures and the runs")
    add("--thresholds", type=_thresholds, default=THRESHOLDS, help="%(default)s")
    add("--frames", type=_count, default=500, help="of each run; default: every image")
    add("--rate", type=_count, default=100, help="frames/s; %(default)s")
    add("--rounds", type=_count, default=3, help="of all runs, interleaved; 3")
    add("--link", type=_bits_per_s, help="also over a link of this rate, as in 16mbit")
    return parser.parse_args()


def _thresholds(text: str) -> list[float]:
    try:
        return sorted({float(each) for each in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: not numbers; write them as in {THRESHOLDS}"
        ) from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def _bits_per_s(text: str) -> float:
    try:
        link = parse_link(text)
    except UnderstudyError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if link.rtt_ms or link.there_mbit_s != link.back_mbit_s:
        raise argparse.ArgumentTypeError(f"{text}: write a rate alone, as 16mbit")
    return link.there_mbit_s * 1e6


def _measure(options: argparse.Namespace) -> None:
    folder: Path = options.out / "runs"
    if folder.exists():
        raise MisuseError(f"{folder}: holds runs already; give another folder")
    scenes = list(_scenes(options))
    runs: dict[Scene, list[Played]] = {scene: [] for scene in scenes}
    for number in range(options.rounds):
        # Every other round backwards: what drifts meets each scene early and late.
        for scene in scenes if number % 2 == 0 else reversed(scenes):
            name = f"{scene.name}-{scene.threshold:g}-{number}"
            print(f"round {number + 1}: {name}", file=sys.stderr)
            runs[scene].append(play(scene, folder / name))
    points = [tradeoff.point(scene, played) for scene, played in runs.items()]
    points.sort(key=lambda point: list(SERVERS).index(point.scene))
    tradeoff.write(points, _conditions(options), options.out)
    (options.out / "tradeoff.svg").write_text(figure.draw(points, options.link))
    print(f"\n{tradeoff.table(points)}\n\n{options.out / 'tradeoff.svg'}")


def _scenes(options: argparse.Namespace) -> Iterator[Scene]:
    for threshold in options.thresholds:
        for name in SERVERS:
            bits_per_s = options.link if name == "link" else math.inf
            if bits_per_s is not None:
                yield Scene(name, threshold, options.frames, options.rate, bits_per_s)


def _conditions(options: argparse.Namespace) -> dict[str, object]:
    return {
        "command": shlex.join(["python", "-m", "examples.early_exit", *sys.argv[1:]]),
        "frames": options.frames,
        "rate_hz": options.rate,
        "rounds": options.rounds,
        "link_bits_per_s": options.link,
        **machine_facts(),
    }


if __name__ == "__main__":
    main()
