"""`understudy simulate`: thousands of failures of a deployment, in virtual time."""

import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflow.errors import MisuseError, nearest
from understudy.plans import compile_deployment
from understudy.promise import PROMISE
from understudy.simulation.faults import FAULTS
from understudy.simulation.figures import Tally
from understudy.simulation.scenario import Scenario, deployed, drawn
from understudy.simulation.seeds import Origin, run_seeds, shrink
from understudy.simulation.setup import Setup, Violation
from understudy.simulation.simulation import simulate
from understudy.summary import uses_colour

NONE = "none"
PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be simulated.

    Attributes:
        deployment: The file, or a plan folder; None: K_{m,n} that the seeds draw.
        seeds: How many, from `seed` on.
        frames: Of each stream, while faults come.
        faults: Names of those to draw from; None: all.
        kept: Of those that a seed draws only these happen; None: all.
        endpoints: Of a drawn K_{m,n}; None: by the seed. So are `servers`.
    """

    deployment: Path | None
    seed: int = 0
    seeds: int = 1
    frames: int = 100
    faults: tuple[str, ...] | None = None
    kept: frozenset[int] | None = None
    endpoints: int | None = None
    servers: int | None = None


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it."""

    wish: Wish
    name: str
    tally: Tally
    took_s: float
    shrunk: Violation | None
    """The first violation, in as few faults and frames as were found."""
    command: str
    """That shows the violation again."""

    @property
    def kept(self) -> bool:
        return not self.tally.violations

    def to_json(self) -> dict[str, Any]:
        return {
            "understudy": 1,
            "deployment": self.name,
            "first_seed": self.wish.seed,
            "frames_each": self.wish.frames,
            **self.tally.to_json(),
            "took_s": round(self.took_s, 3),
            "stopped": self.tally.stopped,
            "violations": [
                {"seed": v.setup.seed, "promise": v.promise, "text": str(v)}
                for v in self.tally.violations
            ],
            "command": self.command,
        }

    def text(self, width: int) -> str:
        """Return what a person wants to know, in lines."""
        tally = self.tally
        runs = tally.runs + len(tally.violations)
        head = (
            f"{self.name}: {runs:,} runs of {self.wish.frames:,} frames a stream, "
            f"seeds {self.wish.seed} to {self.wish.seed + max(runs, 1) - 1}\n"
            f"{tally.frames:,} frames, {sum(tally.faults.values()):,} faults, "
            f"{tally.virtual_s:,.0f} s of virtual time in {self.took_s:.1f} s "
            f"({runs / self.took_s:,.0f} runs/s)"
        )
        parts = [head, tally.text(width, ink=uses_colour()), self._verdict()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _verdict(self) -> str:
        if self.shrunk is None:
            stopped = " in the runs before it was stopped" if self.tally.stopped else ""
            return f"{PROMISE}: kept{stopped}"
        seeds = ", ".join(str(v.setup.seed) for v in self.tally.violations)
        return (
            f"{PROMISE}: BROKEN by seed {seeds}\n"
            f"{self.shrunk}\nto see it again: {self.command}"
        )


def parse_faults(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a list with commas; None: all.

    Raises:
        MisuseError: No such fault.
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip() != NONE)
    for name in names:
        if name not in FAULTS:
            raise MisuseError(
                f"fault '{name}': not known{nearest(name, FAULTS)}; there are "
                f"{', '.join(FAULTS)}, or {NONE}"
            )
    return names


def parse_kept(text: str | None) -> frozenset[int] | None:
    """Return the numbers in a list with commas; None: all.

    Raises:
        MisuseError: Not a list of numbers.
    """
    if text is None:
        return None
    try:
        return frozenset(int(word) for word in text.split(",") if word != NONE)
    except ValueError:
        raise MisuseError(
            f"--keep {text}: give numbers of faults, such as 0,2, or {NONE}"
        ) from None


def run(wish: Wish) -> Simulated:
    """Simulate what is wished for; a violation is shrunk, not raised.

    Raises:
        MisuseError: No such deployment.
        UnderstudyError: Something in its files is wrong.
    """
    origin, name = _origin(wish)
    start_s = time.perf_counter()
    tally = run_seeds(origin, wish.seed, wish.seeds, _Progress(wish.seeds))
    took_s = time.perf_counter() - start_s
    shrunk = shrink(tally.violations[0]) if tally.violations else None
    command = origin.command(shrunk.setup) if shrunk else ""
    return Simulated(wish, name, tally, took_s, shrunk, command)


def trace(wish: Wish) -> int:
    """Print what happens in the run of one seed; return the exit status."""
    origin, _ = _origin(wish, traced=True)
    try:
        result = simulate(origin.setup(wish.seed))
    except Violation as violation:
        print(f"\n{PROMISE}: BROKEN\n{violation}")
        return 1
    frames = sum(len(record.results) for record in result.run.streams)
    print(f"\n{PROMISE}: kept, {frames} frames in {result.seconds:.3f} s")
    return 0


def _origin(wish: Wish, *, traced: bool = False) -> tuple[Origin, str]:
    def setup(seed: int) -> Setup:
        return Setup(
            seed=seed,
            scenario=scenario
            or drawn(seed, endpoints=wish.endpoints, servers=wish.servers),
            frames=wish.frames,
            faults=wish.faults,
            kept=wish.kept,
            trace=traced,
        )

    scenario = None if wish.deployment is None else _deployed(wish.deployment)
    if scenario is not None:
        return Origin((shlex.quote(str(wish.deployment)),), setup), scenario.name
    sizes = {"--endpoints": wish.endpoints, "--servers": wish.servers}
    words = [f"{key} {size}" for key, size in sizes.items() if size is not None]
    return Origin(tuple(words), setup), f"K_{{m,n}} {' '.join(words)}".strip()


def _deployed(path: Path) -> Scenario:
    with tempfile.TemporaryDirectory() as folder:
        return deployed(compile_deployment(path, Path(folder)))


class _Progress:
    """Counts runs on a terminal; says nothing in a pipe."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = sys.stderr.isatty() and total > 1
        self._again_s = 0.0

    def __call__(self, done: int) -> None:
        if not self._shown:
            return
        now_s = time.perf_counter()
        if done == self._total:
            sys.stderr.write("\r\x1b[K")
        elif now_s >= self._again_s:
            self._again_s = now_s + PROGRESS_EVERY_S
            sys.stderr.write(f"\r{done:,} of {self._total:,} runs")
            sys.stderr.flush()
