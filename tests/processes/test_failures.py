"""Promise 1 with real processes, real sockets and real signals: one failure each."""

import signal
from pathlib import Path

import pytest

from tests.support.run import outcome, played, results
from tests.support.toy_plan import LOCAL_ADDS, SERVER_ADDS, toy_plan
from understudy.launch import free_ports
from understudy.records import Result


def _is_right(answered: list[Result], adds: dict[str, float]) -> bool:
    """Tell whether every answer is its own frame's, by the branch that it names."""
    return all(
        r.value[0] == r.frame + adds[r.row] for r in answered if r.value is not None
    )


ADDS = {"edge.0": SERVER_ADDS, "edge.1": SERVER_ADDS, "here": LOCAL_ADDS}


def test_restarted_endpoint_does_not_wait_for_a_server_that_is_dead(
    tmp_path: Path,
) -> None:
    """Its first frame came after 5 s, though another server was there."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 10)
        run.kill("edge.0")
        run.kill("cam.0")
        run.forget()
        run.launcher.start("cam.0")
        ready = run.wait_event("cam.0", "device.ready")
        awaited = run.wait_event("cam.0", "link.awaited")
        started = run.wait_event("cam.0", "stream.started")
        run.wait_rows("cam.0", "edge.1", 10)
    assert awaited["peers"] == ["edge.0"]
    assert started["t_s"] - ready["t_s"] < 3.0


def test_killed_servers_cost_no_frame_and_are_used_again(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        run.kill("edge.1")
        run.wait_rows("cam.0", "here", 20)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert {r.status for r in answered if r.row == "here"} == {"degraded"}
    assert not [r for r in answered if r.status == "dropped"]
    assert _is_right(answered, ADDS)


def test_stopped_server_that_wakes_again_doubles_no_frame(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0", signal.SIGSTOP)
        suspect = run.wait_event("cam.0", "link.suspect", peer="edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        run.kill("edge.0", signal.SIGCONT)
        run.wait_event("cam.0", "link.back", peer="edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert suspect["evidence"] == "heartbeat"
    assert _is_right(results(found, "cam.0"), ADDS)


def test_hung_interpreter_is_found_by_its_missing_beats(tmp_path: Path) -> None:
    """ZMTP heartbeats go on while the interpreter hangs: only our own beats stop."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(2), tail={"hang_at": 40})
    with played(plan, tmp_path) as run:
        suspect = run.wait_event("cam.0", "link.suspect", peer="edge.0")
        run.wait_event("cam.0", "link.suspect", peer="edge.1")
        run.wait_rows("cam.0", "here", 20)
        run.kill("edge.0")
        run.kill("edge.1")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert suspect["evidence"] in ("beat", "deadline")
    assert [r.row for r in results(found, "cam.0") if r.frame == 40] == ["here"]


def test_actor_that_kills_its_server_costs_no_frame(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2), tail={"die_at": 40})
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "here", 10)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert [r.row for r in results(found, "cam.0") if r.frame == 40] == ["here"]


def test_token_that_no_server_can_take_ends_none_of_them(tmp_path: Path) -> None:
    """The ledger asks one after the other: each was ended by the same token."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(2), tail={"raise_at": 40})
    with played(plan, tmp_path) as run:
        run.wait_event("edge.0", "link.garbage", reason="actor")
        run.wait_event("edge.1", "link.garbage", reason="actor")
        run.wait_rows("cam.0", "edge.0", 10)
        log = run.log("edge.0")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert [r.row for r in results(found, "cam.0") if r.frame == 40] == ["here"]
    assert {r.row for r in results(found, "cam.0") if r.frame > 40} == {"edge.0"}
    assert log.count("actor 'tail[cam.0]@edge.0': ValueError: told to") == 1
    assert "Traceback" not in log


def test_killed_endpoint_leaves_the_others_undisturbed(tmp_path: Path) -> None:
    """While one endpoint starts, a busy server may be late, and the other one asked.

    But no link may be doubted, and no session ended, for what others do.
    """
    plan = toy_plan(tmp_path / "plan", port=free_ports(2), endpoints=2)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.wait_rows("cam.1", "edge.1", 20)
        run.kill("cam.0")
        run.wait_rows("cam.1", "edge.1", 100)
        run.launcher.start("cam.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert len([r for r in found.streams if r.stream == "cam.0"]) == 2
    others = results(found, "cam.1")
    assert {r.status for r in others if r.reason not in ("window", "rate")} == {"full"}
    (life,) = (each for each in found.devices if each.device == "cam.1")
    assert not [*life.named("link.suspect"), *life.named("link.dead")]
    ended = [e for each in found.devices for e in each.named("session.ended")]
    assert {e.text("why") for e in ended if e.text("peer") == "cam.1"} == {"bye"}


def test_no_server_and_no_branch_here_drops_with_the_reason(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1, local=False)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0")
        run.wait_rows("cam.0", "drop", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    dropped = {r.reason for r in results(found, "cam.0") if r.status == "dropped"}
    assert dropped == {"no-branch"}


def test_slow_server_is_overtaken_by_the_branch_here(tmp_path: Path) -> None:
    """The last local branch starts before the deadline, beside the open attempt."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, deadline_ms=100, window=40,
        tail={"take_s": 0.3},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "here", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    slow = [r for r in results(found, "cam.0") if r.latency_ms > 150]
    assert slow == []


def test_terminated_endpoint_answers_what_is_under_way(tmp_path: Path) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), source={"rate_hz": 30},
        tail={"take_s": 0.02},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("cam.0", signal.SIGTERM)
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert not [r for r in results(found, "cam.0") if r.status == "dropped"]


def test_terminated_server_says_goodbye(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0", signal.SIGTERM)
        suspect = run.wait_event("cam.0", "link.suspect", peer="edge.0")
        assert run.wait_exit("edge.0") == 0
    assert outcome(tmp_path)[1].kept
    assert suspect["evidence"] == "bye"


def test_long_firings_run_beside_the_io_loop(tmp_path: Path) -> None:
    """A tail of 20 ms is handed to the compute thread: beats go on, no false alarm."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, tail={"take_s": 0.02},
        source={"rate_hz": 40, "frames": 60},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        assert run.wait_exit("cam.0") == 0
        assert not [r for _, r in run.records if r.get("event") == "link.suspect"]
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.row for r in results(found, "cam.0")} == {"edge.0"}


def test_long_head_does_not_delay_the_detection_of_a_death(tmp_path: Path) -> None:
    """A head of 8 ms is handed to the compute thread, and the I/O loop stays free."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), head={"take_s": 0.008},
        source={"rate_hz": 60},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        threads = run.wait_event("cam.0", "device.ready")["compute_thread"]
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        run.kill("cam.0", signal.SIGTERM)
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert threads
    assert _is_right(results(found, "cam.0"), ADDS)


def test_processes_of_a_killed_launcher_end_by_themselves(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 5)
        for process in run.launcher._processes.values():
            assert process.stdin is not None
            process.stdin.close()  # what the death of the launcher does
        assert run.wait_exit("cam.0") == 0
        assert run.wait_exit("edge.0") == 0
    assert outcome(tmp_path)[1].kept


@pytest.mark.parametrize("rate_hz", [50, 1000])
def test_every_frame_is_answered_at_any_rate(tmp_path: Path, rate_hz: int) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, window=4,
        source={"rate_hz": rate_hz, "frames": 100},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert len(results(found, "cam.0")) == 100


def test_full_window_drops_before_any_inference(tmp_path: Path) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, window=2, local=False,
        tail={"take_s": 0.1}, source={"rate_hz": 200, "frames": 100},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    by_reason = [r for r in results(found, "cam.0") if r.reason == "window"]
    assert len(by_reason) > 50
    assert {r.attempts for r in by_reason} == {0}
