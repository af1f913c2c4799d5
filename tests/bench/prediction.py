"""How far the predicted times of cuts are from measured ones.

    python -m tests.bench.prediction [MODEL ...] [--json FILE]

All useful cuts of each model are measured, in turn. Then those that `understudy
profile` measures by default predict the others, and these, held out, are compared with
what was measured of them. Parts of less than 0.1 ms are left out of the means and
counted: there a percent is less than a clock tells. *Floor*: how far the least times of
every other round are from those of the rest, for the held-out cuts. *Bounds*: of how
many predicted times the error is within its bound.

Models: the light ones of the onnx package with drawn weights, those of UNDERSTUDY_DATA.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from graphs.footprint import sides
from graphs.onnx_model import Model
from tests.bench.common import Figure, arguments, conditions, write
from tests.support.light import HUGE, SMALL, with_weights
from understudy.prediction import (
    Measured,
    Place,
    Predictor,
    bounds,
    left_out,
    to_measure,
)
from understudy.profile_file import CutTime, Profile
from understudy.profiling import ANCHORS, Wanted, profile

BUDGET_PERCENT = 5.0
ROUNDS = 16
SHORT_MS = 0.1


@dataclass(slots=True)
class Errors:
    """Relative errors of held-out heads and tails, percent.

    Attributes:
        anchors: Cuts that predicted them.
        cuts: That were predicted.
        heads: Of each that is not short.
        tails: Of each that is not short.
        shorts: Parts that are short.
        short_ms: The largest error of one of those.
        bounded: Predicted times whose error is within its bound.
        floor: Mean repeatability of the measured ones, percent.
    """

    anchors: int
    cuts: int
    heads: list[float]
    tails: list[float]
    shorts: int
    short_ms: float
    bounded: int
    floor: float


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    options = parser.parse_args()
    print(conditions())
    print(
        f"{'model':<30}{'whole ms':>9}{'known':>6}{'held':>6}{'head %':>8}{'tail %':>8}"
        f"{'worst':>9}{'floor':>8}{'short':>6}{'us':>6}{'bounds':>12}{'noise':>6}"
    )
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.models or models(Path(folder)):
            figures += measure(path)
    heads, tails = (
        [f.value for f in figures if f.name.endswith(side)]
        for side in (" head", " tail")
    )
    summary = [
        Figure("mean head", statistics.fmean(heads), "%", BUDGET_PERCENT),
        Figure("mean tail", statistics.fmean(tails), "%", BUDGET_PERCENT),
    ]
    for figure in summary:
        print(f"{figure.name}  {figure.value:.1f} %{figure.verdict}")
    write(options.json, {"models": figures, "all models": summary})
    return int(any(figure.verdict for figure in summary))


def models(folder: Path) -> Iterator[Path]:
    """Yield every model that is to be had, one at a time: some are large."""
    for name in (*SMALL, *HUGE):
        path = folder / f"{name}.onnx"
        onnx.save(with_weights(name), path)
        yield path
        path.unlink()
    data = os.environ.get("UNDERSTUDY_DATA")
    if not data:
        print("(UNDERSTUDY_DATA is not set: the light models only)", file=sys.stderr)
        return
    yield from sorted((Path(data) / "models").glob("*.onnx"))


def measure(path: Path) -> list[Figure]:
    """Print and return the errors for one model."""
    truth = profile(path, Wanted(anchors=None, rounds=ROUNDS), lambda _: None)
    held = errors_of(path, truth)
    head, tail = (statistics.fmean(each or [0.0]) for each in (held.heads, held.tails))
    worst = f"{max(held.heads, default=0):.0f}/{max(held.tails, default=0):.0f}"
    print(
        f"{path.stem:<30}{truth.whole.min_ms:>9.3f}{held.anchors:>6}{held.cuts:>6}"
        f"{head:>8.1f}{tail:>8.1f}{worst:>9}{held.floor:>8.1f}"
        f"{held.shorts:>6}{1e3 * held.short_ms:>6.0f}"
        f"{held.bounded:>7}/{2 * held.cuts:<4}{truth.noise.p90_over_min:>6.2f}",
        flush=True,
    )
    return [
        Figure(f"{path.stem} {side}", mean, "%", BUDGET_PERCENT)
        for side, mean, errors in (
            ("head", head, held.heads),
            ("tail", tail, held.tails),
        )
        if errors
    ]


def errors_of(path: Path, truth: Profile) -> Errors:
    """Return how wrong the anchors of `truth` predict its other measured cuts."""
    model, whole_ms = Model.read(path), truth.whole.min_ms
    shares = {model.producer[node.tensor]: node.ms / whole_ms for node in truth.nodes}
    rows = [row for row in truth.cuts if row.source == "measured"]
    cuts = [_measured(model, row, shares) for row in rows]
    anchors = to_measure([cut.place for cut in cuts], ANCHORS)
    known = [cuts[i] for i in anchors]
    predictor, left = Predictor(whole_ms, known), left_out(whole_ms, known)
    repeated = [e for row in rows for e in (row.head_error or 0, row.tail_error or 0)]
    floor = statistics.median(repeated)
    found = Errors(len(known), len(cuts) - len(known), [], [], 0, 0.0, 0, 0.0)
    floors = []
    for index, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        if index in anchors:
            continue
        predicted = predictor(cut.place)
        off = predicted[0] / cut.head_ms - 1, predicted[1] / cut.tail_ms - 1
        allowed = bounds(cut.place, predicted, left, floor)
        found.bounded += sum(abs(o) <= a for o, a in zip(off, allowed, strict=True))
        parts = (
            (found.heads, cut.head_ms, off[0], row.head_error),
            (found.tails, cut.tail_ms, off[1], row.tail_error),
        )
        for errors, ms, error, repeated_within in parts:
            if ms < SHORT_MS:
                found.shorts += 1
                found.short_ms = max(found.short_ms, abs(error) * ms)
            else:
                errors.append(100 * abs(error))
                floors.append(100 * (repeated_within or 0))
    found.floor = statistics.fmean(floors or [0.0])
    return found


def _measured(model: Model, row: CutTime, shares: Mapping[int, float]) -> Measured:
    head, _ = sides(model, row.tensors)
    size = sum(model.tensor(name).token.nbytes for name in row.tensors)
    place = Place(sum(shares.get(node, 0) for node in head), size)
    return Measured(place, row.head_ms, row.tail_ms)


if __name__ == "__main__":
    sys.exit(main())
