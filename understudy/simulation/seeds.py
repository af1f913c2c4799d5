"""Many seeds, and one that fails: made small, and said how to see it again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from understudy.simulation.figures import Tally
from understudy.simulation.setup import Setup, Violation
from understudy.simulation.simulation import simulate

VIOLATIONS_MAX = 10
"""So many violations end it: more of them say nothing more."""
SHRINKING_RUNS_MAX = 60


@dataclass(frozen=True, slots=True)
class Origin:
    """What the command line gave, to be given again.

    Attributes:
        words: The deployment, or the size of what is drawn.
        setup: Makes the setup of a seed.
    """

    words: tuple[str, ...]
    setup: Callable[[int], Setup]

    def command(self, setup: Setup) -> str:
        """Return the one line that repeats a run and tells what happens in it."""
        words = ["understudy simulate", *self.words]
        words += ["--seed", str(setup.seed), "--frames", str(setup.frames)]
        if setup.faults is not None:
            words += ["--faults", ",".join(setup.faults) or "none"]
        if setup.kept is not None:
            words += ["--keep", ",".join(map(str, sorted(setup.kept))) or "none"]
        return " ".join([*words, "--trace"])


def run_seeds(
    origin: Origin, first: int, number: int, progress: Callable[[int], None]
) -> Tally:
    """Run `number` seeds from `first` on, but no more after too many violations.

    Args:
        origin: Gives the setup of each seed.
        first: The first seed.
        number: How many.
        progress: Told how many are done; may raise KeyboardInterrupt to end it.
    """
    tally = Tally()
    try:
        for seed in range(first, first + number):
            try:
                tally.add(simulate(origin.setup(seed)))
            except Violation as violation:
                tally.violations.append(violation)
                if len(tally.violations) == VIOLATIONS_MAX:
                    break
            progress(seed - first + 1)
    except KeyboardInterrupt:
        tally.stopped = True
    return tally


def shrink(violation: Violation) -> Violation:
    """Return the same promise broken by fewer faults and in fewer frames."""
    runs = count()
    again = True
    while again:
        again = False
        for setup in _smaller(violation):
            if next(runs) >= SHRINKING_RUNS_MAX:
                return violation
            smaller = _broken(setup, violation.promise)
            if smaller is not None:
                violation, again = smaller, True
                break
    return violation


def _smaller(violation: Violation) -> Iterator[Setup]:
    """Yield setups with fewer faults, then with fewer frames."""
    setup, kept = violation.setup, violation.setup.kept
    if kept is None:
        kept = frozenset(range(violation.planned))
    numbers = sorted(kept)
    if len(numbers) > 2:
        half = len(numbers) // 2
        yield replace(setup, kept=frozenset(numbers[:half]))
        yield replace(setup, kept=frozenset(numbers[half:]))
    for fault in numbers:
        yield replace(setup, kept=kept - {fault})
    for frames in (setup.frames // 2, setup.frames * 9 // 10, setup.frames - 1):
        if 0 < frames < setup.frames:
            yield replace(setup, frames=frames)


def _broken(setup: Setup, promise: str) -> Violation | None:
    try:
        simulate(setup)
    except Violation as violation:
        return violation if violation.promise == promise else None
    return None
