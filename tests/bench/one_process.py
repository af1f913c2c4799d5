"""What a cut that `explore` recommends costs in itself.

    python -m tests.bench.one_process [MODEL ...] [--every] [--json FILE]

Head and tail, one after the other in this process, the tail with what the head has just
written, against the whole model: all with bound memory, and in turn. The cuts are those
that `explore` recommends from a profile of this machine, the best and those not to be
told from it, over links of 1 to 1000 Mbit/s, for an endpoint as fast as the server, 5
and 15 times slower, where the raw frame may cross and where it may not, nor all be
local; `--every`: all useful cuts of one tensor. The figure is the median over the
rounds of head and tail over the whole. *Floor*: how far the median of every other round
is from that of the rest.

Models: the light ones of the onnx package with drawn weights, those of UNDERSTUDY_DATA.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Site
from graphs.cuts import cuts
from graphs.external import SharedWeights
from graphs.onnx_model import Model
from graphs.split import Segment, split, whole
from tests.bench.common import Figure, arguments, conditions, write
from tests.bench.prediction import models
from understudy.candidates import Device
from understudy.constraints import Constraints
from understudy.costs import Link
from understudy.exploration import Row
from understudy.exploring import Wish, explore
from understudy.model_input import natural
from understudy.profile_file import Profile
from understudy.profiling import Wanted, profile
from understudy.timing import SLOTS, in_turn

BUDGET = 1.05
RATES_MBIT_S = (1, 2, 5, 10, 16, 25, 50, 100, 200, 500, 1000)
SLOWER = (1.0, 5.0, 15.0)
TOGETHER = 6
"""Cuts whose sessions are open at a time."""
ROUNDS, SECONDS = 60, 8.0
_WEIGHTS = "weights.bin"

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Head and tail over the whole.

    Attributes:
        predicted: As the profile has it.
        floor: How far two halves of the rounds differ.
    """

    cut: str
    source: str
    median: float
    least: float
    predicted: float
    floor: float


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--every", action="store_true", help="all useful single cuts")
    options = parser.parse_args()
    print(conditions())
    print(f"{'cut':<58}{'ratio':>7}{'least':>7}{'predicted':>11}{'floor':>8}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.models or models(Path(folder)):
            made = profile(path, Wanted(), lambda _: None)
            model = Model.read(path)
            names = every(model) if options.every else recommended(model, made)
            for ratio in measured(model, made, names):
                name = f"{path.stem}: {ratio.cut}"
                figure = Figure(name, ratio.median, "x", BUDGET)
                figures.append(figure)
                print(
                    f"{name[-58:]:<58}{ratio.median:>7.3f}{ratio.least:>7.3f}"
                    f"{ratio.predicted:>7.3f} {ratio.source[:3]}{ratio.floor:>8.3f}"
                    f"{figure.verdict}",
                    flush=True,
                )
    missed = sum(bool(figure.verdict) for figure in figures)
    print(f"{len(figures)} cuts, {missed} over {BUDGET:g} x")
    write(options.json, {"head and tail over the whole": figures})
    return int(missed > 0)


def every(model: Model) -> list[tuple[str, ...]]:
    """Return the useful cuts of one tensor."""
    return [c.tensors for c in cuts(model) if c.useful and len(c.tensors) == 1]


def recommended(model: Model, made: Profile) -> list[tuple[str, ...]]:
    """Return the cuts that `explore` calls best, or not to be told from it."""
    links = [[Link(f"{r} Mbit/s", r, r, 2.0)] for r in RATES_MBIT_S]
    forced = Constraints(no_raw_input=True, pins={model.outputs[-1]: "server"})
    found: dict[tuple[str, ...], None] = {}
    for slower in SLOWER:
        devices = (Device("endpoint", "", made, slower), Device("server", "", made))
        for constraints in (Constraints(), forced):
            wish = Wish(devices, links, constraints=constraints)
            for panel in explore(model, wish).panels:
                found |= {r.tensors: None for r in panel.rows if _advised(r)}
    return [*found]


def _advised(row: Row) -> bool:
    return row.kind in ("single", "multi") and (row.best or row.tie)


def measured(
    model: Model, made: Profile, names: Sequence[tuple[str, ...]]
) -> Iterator[Ratio]:
    """Yield what each cut costs."""
    inputs, _ = model.interface()
    feed = natural(inputs)
    times = {cut.tensors: cut for cut in made.cuts}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        parts = Parts(model, feed, Path(folder), opened)
        alone = parts.alone()
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            with ExitStack() as pairs:
                both = [parts.both(name, pairs) for name in some]
                whole_s, *each_s = (
                    [took.wall_s for took in calls]
                    for calls in in_turn(
                        [alone, *both], ROUNDS, enough=9, budget_s=SECONDS
                    )
                )
            for name, both_s in zip(some, each_s, strict=True):
                ratios = [b / w for b, w in zip(both_s, whole_s, strict=True)]
                halves = [statistics.median(ratios[i::2]) for i in (0, 1)]
                time = times[name]
                yield Ratio(
                    " + ".join(name),
                    time.source,
                    statistics.median(ratios),
                    min(both_s) / min(whole_s),
                    (time.head_ms + time.tail_ms) / made.whole.min_ms,
                    abs(halves[0] - halves[1]),
                )


class Parts:
    """Parts of a model that run in this process, one file of weights for all.

    Args:
        model: What they are parts of.
        feed: Input -> token.
        folder: For files.
        opened: Closes the file of weights, and the whole.
    """

    def __init__(
        self, model: Model, feed: Mapping[str, Array], folder: Path, opened: ExitStack
    ) -> None:
        self._model = model
        self._feed = feed
        self._folder = folder
        self._opened = opened
        self._file = opened.enter_context((folder / _WEIGHTS).open("wb"))
        self._weights = SharedWeights(self._file, _WEIGHTS, model.folder)
        self._count = 0

    def alone(self) -> Callable[[], object]:
        """Return the whole model, ready to run."""
        segment = whole(self._model)
        actor = self._actor(segment, self._opened)
        tokens = [self._feed[name] for name in segment.given]
        return lambda: actor.fire(*tokens)

    def both(self, names: Sequence[str], opened: ExitStack) -> Callable[[], object]:
        """Return head and tail of a cut, ready to run one after the other."""
        parts = split(self._model, names, self._model.outputs)
        head, tail = (self._actor(s, opened) for s in (parts.head, parts.tail))
        tokens = [self._feed[name] for name in parts.head.given]
        made, given, feed = parts.head.made, parts.tail.given, self._feed

        def run() -> object:
            answer = head.fire(*tokens)
            values = zip(made, answer if len(made) > 1 else (answer,), strict=True)
            known = {**feed, **dict(values)}
            return tail.fire(*(known[name] for name in given))

        return run

    def _actor(self, segment: Segment, opened: ExitStack) -> OnnxSegment:
        self._count += 1
        file = self._folder / f"{self._count}.onnx"
        file.write_bytes(segment.referring(self._weights))
        self._file.flush()
        params = {
            "file": str(file),
            "inputs": [tensor.json() for tensor in segment.inputs],
            "outputs": [tensor.json() for tensor in segment.outputs],
        }
        site = Site("bench", "bench", 0, self._folder, None, SLOTS)
        actor = OnnxSegment(params, site)
        actor.start()
        opened.callback(actor.stop)
        return actor


if __name__ == "__main__":
    sys.exit(main())
