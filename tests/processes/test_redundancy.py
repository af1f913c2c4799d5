"""Modes of redundancy with real processes, real sockets and real signals."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.run import Played, outcome, played, results
from tests.support.toy_plan import SERVER_ADDS, toy_plan
from understudy.launch import free_ports
from understudy.records import Result

RATE_HZ = 100
UNDER_WAY_S = 0.03
"""Frames fired so shortly before the detection may still be under way then."""


def _all_right(answered: list[Result]) -> bool:
    """Tell whether every frame got the same answer, whoever gave it."""
    return all(
        r.status == "full"
        and r.value is not None
        and r.value[0] == r.frame + SERVER_ADDS
        for r in answered
    )


def _finish(run: Played) -> None:
    run.kill("cam.0", signal.SIGTERM)
    assert run.wait_exit("cam.0") == 0


def test_spread_shares_the_frames_of_one_stream_between_two_servers(
    tmp_path: Path,
) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), local=False, redundancy="spread",
        source={"rate_hz": RATE_HZ, "frames": 200},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_event("cam.0", "device.stopped")
        changes = [r for _, r in run.records if r.get("event") == "row"]
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert _all_right(answered)
    assert {r.attempts for r in answered} == {1}
    assert len(changes) == 1, "each frame has its row in the results already"
    by_server = Counter(r.row for r in answered)
    assert min(by_server["edge.0"], by_server["edge.1"]) > 0.35 * len(answered)


def test_spread_over_a_server_that_dies_goes_on_with_the_other(tmp_path: Path) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), local=False, redundancy="spread",
        source={"rate_hz": RATE_HZ},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0")
        run.wait_event("cam.0", "link.suspect", peer="edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
        _finish(run)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert _all_right(results(found, "cam.0"))


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_replicas_answer_every_frame_at_once_though_one_server_is_struck(
    tmp_path: Path, fault: signal.Signals
) -> None:
    """No frame is lost, and none waits for the detection: each was asked of both.

    A stopped server is noticed after 60 ms at the earliest, six frames later; those
    frames must be answered by the other, in their first attempts.
    """
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), local=False, redundancy="replicate 2",
        source={"rate_hz": RATE_HZ},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        struck_s = run.launcher.kill("edge.0", fault)
        suspect_s = run.wait_event("cam.0", "link.suspect", peer="edge.0")["t_s"]
        run.wait_rows("cam.0", "edge.1", 20)
        _finish(run)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert _all_right(answered)
    between = [r for r in answered if struck_s < r.fired_s < suspect_s - UNDER_WAY_S]
    assert {r.attempts for r in between} <= {2}
    assert [r for r in between if r.settled_s >= suspect_s] == []
    restarted = [r for _, r in run.records if r.get("event") == "frame.restarted"]
    assert restarted == []


def test_hedge_answers_what_a_stopped_server_holds_before_it_is_suspected(
    tmp_path: Path,
) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), local=False, redundancy="hedge p95",
        source={"rate_hz": RATE_HZ}, window=12,
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 100)
        struck_s = run.launcher.kill("edge.0", signal.SIGSTOP)
        suspect_s = run.wait_event("cam.0", "link.suspect", peer="edge.0")["t_s"]
        run.wait_rows("cam.0", "edge.1", 20)
        run.kill("edge.0", signal.SIGCONT)
        run.wait_event("cam.0", "link.back", peer="edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
        _finish(run)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert _all_right(answered)
    between = [r for r in answered if struck_s < r.fired_s < suspect_s - UNDER_WAY_S]
    hedged = [r for r in between if r.row == "edge.1" and r.settled_s < suspect_s]
    assert hedged
    assert {r.attempts for r in hedged} == {2}


def test_hedge_asks_little_more_of_servers_that_are_well(tmp_path: Path) -> None:
    frames, window = 300, 8
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), local=False, redundancy="hedge p90",
        source={"rate_hz": 200, "frames": frames}, window=window,
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert _all_right(answered)
    extra = sum(r.attempts for r in answered) - len(answered)
    assert extra <= 0.2 * frames + window
