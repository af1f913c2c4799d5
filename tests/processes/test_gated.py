"""Early exits on real processes: two nested DPGs, one of them failing over."""

import signal
from pathlib import Path

import pytest

from dataflow.plan import Plan
from graphs.exits import EXIT_MODE
from tests.support.run import outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.records import Result
from understudy.reference import full_error

GATED = Path(__file__).resolve().parents[2] / "graphs/digits/gated-two-by-two.yaml"


def gated(folder: Path, cameras: int, threshold: float = 0.9) -> Plan:
    return compile_deployment(
        GATED,
        folder,
        counts={"cam": cameras},
        params={"sure": {"threshold": threshold}},
        listen_base=free_ports(2),
    )


def by_row(answered: list[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in answered:
        found.setdefault(result.row, []).append(result)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_gate_and_failover_work_at_the_same_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    plan = gated(tmp_path / "plan", 2)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 10)
        run.kill("edge.0", number)
        run.wait_rows("cam.0", "edge.1", 10)
        run.wait_rows("cam.0", EXIT_MODE, 10)
        run.kill("edge.1", number)
        run.wait_rows("cam.1", "early", 10)
        run.wait_rows("cam.1", EXIT_MODE, 10)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    for stream in ("cam.0", "cam.1"):
        rows = by_row(results(found, stream))
        assert set(rows) <= {EXIT_MODE, "edge.0", "edge.1", "early"}
        assert {r.status for r in rows["early"]} == {"degraded"}
        assert {r.status for r in rows[EXIT_MODE]} == {"full"}
        assert {r.attempts for r in rows[EXIT_MODE]} == {0}
    error = full_error(plan, found)
    assert error is not None
    assert error <= 1e-4


def test_server_that_comes_back_gets_the_unsure_frames_again(tmp_path: Path) -> None:
    with played(gated(tmp_path / "plan", 1), tmp_path) as run:
        run.kill("edge.0")
        run.kill("edge.1")
        run.wait_rows("cam.0", "early", 5)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 10)
    _, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations


@pytest.mark.parametrize(("threshold", "row"), [(0.0, EXIT_MODE), (1.5, "edge.0")])
def test_threshold_decides_who_answers(
    tmp_path: Path, threshold: float, row: str
) -> None:
    with played(gated(tmp_path / "plan", 1, threshold), tmp_path) as run:
        run.wait_rows("cam.0", row, 30)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert set(by_row(results(found, "cam.0"))) == {row}


def test_answer_that_is_there_waits_for_its_turn(tmp_path: Path) -> None:
    """A server that stops holds up sure frames behind the unsure one, in order."""
    with played(gated(tmp_path / "plan", 1), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 10)
        run.kill("edge.0", signal.SIGSTOP)
        run.wait_rows("cam.0", "edge.1", 10)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert [r.frame for r in answered] == list(range(len(answered)))


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_gate_reads_what_no_codec_has_touched(tmp_path: Path, codec: str) -> None:
    plan = compile_deployment(
        GATED,
        tmp_path / "plan",
        counts={"cam": 1},
        codec=codec,
        listen_base=free_ports(2),
    )
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.wait_rows("cam.0", EXIT_MODE, 5)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    error = full_error(plan, found)
    assert error is not None
    assert error <= 1e-4
