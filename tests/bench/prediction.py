"""How far the predicted times of cuts are from measured ones.

    python -m tests.bench.prediction [MODEL ...] [--json FILE]

Each model is profiled as `understudy profile` does by default, and then once more with
20 cuts measured, spread over it, or all useful ones. What the first predicted is
compared with what the second measured: only cuts that the first did not measure count.
*Floor* is the same figure for the cuts that both measured: how far two measurements are
apart on this machine.

Models: the light ones of the onnx package with drawn weights, those of UNDERSTUDY_DATA.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from tests.bench.common import Figure, arguments, conditions, write
from tests.support.light import HUGE, SMALL, with_weights
from understudy.profile_file import CutTime, Profile
from understudy.profiling import Wanted, profile

BUDGET_PERCENT = 5.0
TRUTH_CUTS, TRUTH_ROUNDS = 20, 20


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of heads and tails, percent, and how many bounds held."""

    heads: list[float]
    tails: list[float]
    bounded: int

    @property
    def means(self) -> tuple[float, float]:
        return (
            statistics.fmean(self.heads or [0.0]),
            statistics.fmean(self.tails or [0.0]),
        )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    options = parser.parse_args()
    print(conditions())
    print(
        f"{'model':<34}{'whole ms':>9}{'s':>6}{'held':>6}{'head %':>8}{'tail %':>8}"
        f"{'worst':>12}{'floor %':>12}{'bounds':>8}{'noise':>7}"
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
    made = profile(path, Wanted(), lambda _: None)
    truth = profile(
        path,
        Wanted(anchors=TRUTH_CUTS, front=False, rounds=TRUTH_ROUNDS),
        lambda _: None,
    )
    held, floor = compare(made, truth)
    head, tail = held.means
    worst = f"{max(held.heads, default=0):.0f}/{max(held.tails, default=0):.0f}"
    apart = "/".join(f"{mean:.1f}" for mean in floor.means)
    print(
        f"{path.stem:<34}{truth.whole.min_ms:>9.3f}{made.seconds:>6.1f}"
        f"{len(held.heads):>6}{head:>8.1f}{tail:>8.1f}{worst:>12}{apart:>12}"
        f"{held.bounded:>5}/{2 * len(held.heads)}{truth.noise.p90_over_min:>7.2f}",
        flush=True,
    )
    if not held.heads:
        return []
    return [
        Figure(f"{path.stem} head", head, "%"),
        Figure(f"{path.stem} tail", tail, "%"),
    ]


def compare(made: Profile, truth: Profile) -> tuple[Errors, Errors]:
    """Return the errors of held-out cuts, and how far measured ones are apart."""
    pairs = [
        (mine, real)
        for mine, real in zip(made.cuts, truth.cuts, strict=True)
        if real.source == "measured"
    ]
    return (
        _errors([pair for pair in pairs if pair[0].source != "measured"]),
        _errors([pair for pair in pairs if pair[0].source == "measured"]),
    )


def _errors(pairs: Sequence[tuple[CutTime, CutTime]]) -> Errors:
    heads = [100 * abs(m.head_ms / r.head_ms - 1) for m, r in pairs]
    tails = [100 * abs(m.tail_ms / r.tail_ms - 1) for m, r in pairs]
    bounded = 0
    for (mine, _), head, tail in zip(pairs, heads, tails, strict=True):
        bounded += head <= 100 * (mine.head_error or 0)
        bounded += tail <= 100 * (mine.tail_error or 0)
    return Errors(heads, tails, bounded)


if __name__ == "__main__":
    sys.exit(main())
