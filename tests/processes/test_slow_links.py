"""Real processes in namespaces of their own, over links of 16 and 100 Mbit/s.

`pytest -m root` runs them: they need root, `ip` and `tc` (package iproute2).
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks import Networks, existing, networks
from tests.support.run import Played, outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.run_folder import Run

pytestmark = pytest.mark.root

PORT = 7000
LARGE, MEDIUM = 300_000, 1000
"""Floats of a token: 1.2 MB, which takes 0.6 s at 16 Mbit/s; and 4 KB."""
FILLED_S = 8.0


@contextmanager
def shaped(
    folder: Path, mbit_s: float, *, servers: int = 1, **options: Any
) -> Iterator[tuple[Played, Networks]]:
    """Start the devices of a plan, each in its namespace, and wait for the stream."""
    names = [f"edge.{i}" for i in range(servers)]
    with networks("cam.0", names, mbit_s=mbit_s) as made:
        plan = toy_plan(
            folder / "plan", port=PORT, servers=servers, hosts=made.hosts, **options
        )
        with played(plan, folder, start=[], insecure=True) as run:
            run.launcher.wrappers.update(made.wrappers)
            for name in (*names, "cam.0"):
                run.launcher.start(name)
            run.wait_event("cam.0", "stream.started")
            yield run, made


def events(run: Run, name: str) -> list[Any]:
    return [event for life in run.devices for event in life.named(name)]


@pytest.mark.parametrize(("mbit_s", "rate_hz"), [(16, 5), (100, 20)])
def test_link_full_of_long_tokens_is_not_taken_for_a_dead_one(
    tmp_path: Path, mbit_s: float, rate_hz: float
) -> None:
    """More is fired than the link carries: frames are dropped evenly, nothing else."""
    with shaped(
        tmp_path, mbit_s, size=LARGE, window=16, deadline_ms=3000, local=False,
        source={"rate_hz": rate_hz},
    ) as (run, _):  # fmt: skip
        time.sleep(FILLED_S)  # what must not happen has so much time to
        run.kill("cam.0", signal.SIGTERM)
        run.wait_exit("cam.0")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert not events(found, "link.suspect")
    told = [each.number("bytes_s") * 8e-6 for each in events(found, "link.rate")]
    assert 0.6 < told[-1] / mbit_s < 1.5, told
    outcomes = results(found, "cam.0")
    carried = FILLED_S * mbit_s * 1e6 / 8 / (4 * LARGE)
    assert sum(each.status == "full" for each in outcomes) > carried / 3
    late = outcomes[len(outcomes) // 2 :]  # when the rate has been lowered
    rate = [each.reason for each in late].count("rate")
    assert rate > 0.6 * sum(each.status == "dropped" for each in late)


@pytest.mark.parametrize("mbit_s", [16, 100])
def test_local_branch_answers_what_a_slow_link_cannot_carry(
    tmp_path: Path, mbit_s: float
) -> None:
    with shaped(
        tmp_path, mbit_s, size=LARGE, window=16, deadline_ms=3000,
        source={"rate_hz": mbit_s / 5},
    ) as (run, _):  # fmt: skip
        run.wait_rows("cam.0", "edge.0", 3)
        run.wait_rows("cam.0", "here", 10)
        run.wait_rows("cam.0", "edge.0", 1)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert not events(found, "link.suspect")


@pytest.mark.parametrize("size", [MEDIUM, LARGE])
@pytest.mark.parametrize("mbit_s", [16, 100])
def test_link_that_goes_down_is_noticed_by_its_heartbeat(
    tmp_path: Path, mbit_s: float, size: int
) -> None:
    rate_hz = 50 if size == MEDIUM else mbit_s / 20
    with shaped(
        tmp_path, mbit_s, servers=2, size=size, window=32, deadline_ms=4000,
        source={"rate_hz": rate_hz},
    ) as (run, links):  # fmt: skip
        run.wait_rows("cam.0", "edge.0", 3)
        links.cut("edge.0")
        suspect = run.wait_event("cam.0", "link.suspect", peer="edge.0")
        run.wait_rows("cam.0", "edge.1", 3)
        links.mend("edge.0")
        run.wait_event("cam.0", "link.back", peer="edge.0")
        run.wait_rows("cam.0", "edge.0", 3)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert suspect["evidence"] == "heartbeat"
    suspects = [(e.text("peer"), e.text("text")) for e in events(found, "link.suspect")]
    assert {peer for peer, _ in suspects} == {"edge.0"}, suspects


@pytest.mark.parametrize("mbit_s", [16, 100])
def test_killed_server_is_replaced_while_its_link_is_full(
    tmp_path: Path, mbit_s: float
) -> None:
    with shaped(
        tmp_path, mbit_s, servers=2, size=LARGE, window=32, deadline_ms=4000,
        source={"rate_hz": mbit_s / 16},
    ) as (run, _):  # fmt: skip
        run.wait_rows("cam.0", "edge.0", 3)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 3)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 3)
    _, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations


def test_namespaces_are_removed_though_the_test_fails() -> None:
    names: set[str] = set()

    def fail() -> None:
        with networks("cam.0", ["edge.0"], mbit_s=16) as made:
            names.update(made.names)
            assert names <= existing()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names
    assert not names & existing()
