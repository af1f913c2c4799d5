"""The simulator that mypyc compiles does what the interpreted one does."""

import hashlib
import subprocess
import sys

import pytest

from tests import compiled
from understudy.simulation.scenario import drawn
from understudy.simulation.setup import Setup
from understudy.simulation.simulation import simulate

SEEDS = 300
ASK = "from tests.test_compiled import digest; print(digest())"


def digest() -> str:
    """Return what the first seeds come down to, to the last digit."""
    found = hashlib.sha256()
    for seed in range(SEEDS):
        result = simulate(Setup(seed, drawn(seed), frames=40))
        found.update(repr((result.events, result.seconds)).encode())
        for record in result.run.streams:
            found.update(repr(record.results).encode())
    return found.hexdigest()


def _compiled(program: str) -> str:
    """Return the last line that a program says, compiled."""
    command = [sys.executable, "-m", "tests.compiled", "-c", program]
    said = subprocess.check_output(command, cwd=compiled.ROOT, text=True)
    return said.splitlines()[-1]


@pytest.mark.slow
def test_compiled_runs_give_the_same_outcomes_to_the_last_digit() -> None:
    assert _compiled(ASK) == digest()


@pytest.mark.slow
def test_what_is_run_compiled_is_compiled() -> None:
    ask = "import dataflow.wire.ledger as m; print(m.__file__)"
    assert _compiled(ask).endswith(".so")
