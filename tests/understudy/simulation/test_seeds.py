"""Many seeds: what is counted, and a failing one made small and said how to repeat."""

import shlex
from typing import Any

import pytest

from dataflow.wire.link import Link
from dataflow.wire.link_states import Action
from understudy.simulation.figures import Tally, percentile_ms
from understudy.simulation.scenario import drawn
from understudy.simulation.seeds import Origin, run_seeds, shrink
from understudy.simulation.setup import Machines, Setup, Violation
from understudy.simulation.simulation import simulate


class ForgetsToClose(Link):
    """Planted: a suspect session is kept for ever."""

    def tick(self, now_s: float, **rest: Any) -> list[Action]:
        return [] if self.state.value == "suspect" else super().tick(now_s, **rest)


def _origin(**fixed: Any) -> Origin:
    return Origin((), lambda seed: Setup(seed, drawn(seed), **fixed))


def _run(origin: Origin, first: int, number: int) -> Tally:
    return run_seeds(origin, first, number, lambda done: None)


@pytest.fixture(scope="module")
def broken() -> Violation:
    origin = _origin(machines=Machines(link=ForgetsToClose))
    for violation in _run(origin, 0, 100).violations:
        if violation.planned > 2:
            return violation
    raise AssertionError("the planted bug was not seen")


def test_counts_add_up_over_the_runs() -> None:
    tally = _run(_origin(frames=30), 10, 25)
    assert tally.runs == 25
    assert tally.frames == tally.answered.total() + tally.dropped.total()
    assert tally.faults.total() >= 25
    assert sum(gaps.total() for gaps in tally.gaps.values()) <= 25
    assert not tally.violations


def test_ten_violations_are_enough() -> None:
    tally = _run(_origin(machines=Machines(link=ForgetsToClose)), 0, 1000)
    assert len(tally.violations) == 10


def test_interrupt_keeps_what_was_counted() -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    tally = run_seeds(_origin(), 0, 1000, stop)
    assert (tally.runs, tally.stopped) == (3, True)


def test_a_violation_shrinks_to_fewer_faults_and_frames(broken: Violation) -> None:
    shrunk = shrink(broken)
    assert shrunk.promise == broken.promise
    assert shrunk.setup.frames < broken.setup.frames
    kept = shrunk.setup.kept
    assert kept is not None
    assert len(kept) < broken.planned
    with pytest.raises(Violation, match=f"^{shrunk.promise} "):
        simulate(shrunk.setup)


def test_the_command_names_all_that_the_run_is_a_function_of(broken: Violation) -> None:
    setup = Setup(
        12, broken.setup.scenario, frames=7, faults=("cut", "nack"), kept=frozenset({0})
    )
    command = Origin(("two words.yaml",), lambda seed: setup).command(setup)
    assert shlex.split(command)[-9:] == [
        "--seed", "12", "--frames", "7", "--faults", "cut,nack", "--keep", "0",
        "--trace",
    ]  # fmt: skip


def test_percentiles_are_of_the_smallest_gap_that_so_many_do_not_exceed() -> None:
    gaps = {1: 50, 20: 40, 300: 9, 4000: 1}
    found = [percentile_ms(gaps, percent) for percent in (50, 90, 99, 100)]
    assert found == [0.1, 2.0, 30.0, 400.0]
    assert percentile_ms({}, 50) is None
