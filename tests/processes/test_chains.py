"""Chains of servers with real processes: every frame answered, whoever dies."""

from pathlib import Path

import pytest

from dataflow.plan import Plan
from graphs import plain_branch
from tests.support.chain_plan import HERE_ADDS, chain_adds, chain_plan
from tests.support.run import Played, outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.records import Result
from understudy.reference import full_error

FULL_ERROR_MAX = 1e-4
DIGITS = """\
understudy: 1
deployment: chain
graph: GRAPH
devices:
  cam:  {role: endpoint}
  fog:  {role: server, count: 2, listen: "tcp://127.0.0.1:7000"}
  edge: {role: server, count: 2, listen: "tcp://127.0.0.1:7100"}
map:
  camera: cam
  prep: cam
  net: {cuts: [features1, features2], path: [cam, fog, edge], codec: float16+zstd}
  exit1: cam
  result: cam
failover:
  order: [net, exit1]
"""

FIRST, OTHER = "a.0+b.0+c.0", "a.1+b.1+c.1"


@pytest.fixture
def sums(tmp_path: Path) -> Plan:
    """Three servers in a row, two of each: tokens are always under way.

    Each server is busy for two fifths of the time: at four fifths, a machine with one
    core to spare fell behind after a kill, and then frames are dropped, as they must.
    """
    return chain_plan(tmp_path, tiers="abc", rate_hz=80, take_s=0.005)


@pytest.fixture(params=[40, 4096], ids=["answers compressed", "answers as they are"])
def digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Plan:
    monkeypatch.setattr(plain_branch, "ANSWER_BYTES_MIN", request.param)
    graph = Path("graphs/digits/digits.yaml").resolve()
    path = tmp_path / "chain.yaml"
    path.write_text(DIGITS.replace("GRAPH", str(graph)))
    return compile_deployment(
        path,
        tmp_path / "plan",
        listen_base=free_ports(4),
        params={"camera": {"rate_hz": 200}},
    )


def _is_right(answered: list[Result]) -> bool:
    """Tell whether every answer is its own frame's, by the row that it names."""
    return all(
        r.value[0] == r.frame + (HERE_ADDS if r.row == "here" else chain_adds("abc"))
        for r in answered
        if r.value is not None
    )


def _of_admitted(answered: list[Result]) -> set[str]:
    """Return the statuses of frames that were let in.

    A machine that stalls for longer than the window covers drops some, as it must, and
    lowers the rate for a while, so that those it drops are spread.
    """
    return {str(r.status) for r in answered if r.reason not in ("window", "rate")}


def _refusals(run: Played) -> set[str]:
    """Return why frames were refused, as the endpoint told."""
    return {
        str(record["why"])
        for name, record in run.records
        if name.startswith("events-cam-") and record.get("event") == "frame.refused"
    }


def test_chain_of_three_answers_every_frame_whichever_server_is_killed(
    tmp_path: Path, sums: Plan
) -> None:
    with played(sums, tmp_path) as run:
        run.wait_rows("cam", FIRST, 20)
        for victim in ("a.0", "b.0", "c.0"):
            run.kill(victim)
            run.wait_rows("cam", OTHER, 20)
            # Whose next server died says so; nobody finds out by a deadline.
            assert _refusals(run) <= {"hop"}
            run.launcher.start(victim)
            run.wait_rows("cam", FIRST, 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam")
    assert _of_admitted(answered) == {"full"}
    assert _is_right(answered)
    assert max(r.attempts for r in answered) > 1, "none was under way at a kill"


@pytest.mark.parametrize("victim", ["b.0", "c.0"])
def test_relay_refuses_what_it_passed_on_when_its_next_server_dies(
    tmp_path: Path, sums: Plan, victim: str
) -> None:
    with played(sums, tmp_path) as run:
        run.wait_rows("cam", FIRST, 20)
        run.kill(victim)
        refused = run.wait_event("cam", "frame.refused")
        run.wait_rows("cam", OTHER, 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert _of_admitted(results(found, "cam")) == {"full"}, "one waited too long"
    assert (refused["peer"], refused["why"]) == ("a.0", "hop")


def test_beats_tell_that_the_last_tier_is_gone_so_no_frame_is_sent_for_nothing(
    tmp_path: Path, sums: Plan
) -> None:
    with played(sums, tmp_path) as run:
        run.wait_rows("cam", FIRST, 20)
        run.kill("c.0")
        run.kill("c.1")
        run.wait_rows("cam", "here", 40)
        run.wait_rows("cam", "here", 40)
        run.launcher.start("c.1")
        run.wait_rows("cam", OTHER, 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam")
    assert _is_right(answered)
    assert _of_admitted(answered) == {"full", "degraded"}
    away = [r for r in answered if r.row == "here"]
    assert {r.attempts for r in away[20:]} == {1}


def test_network_over_two_tiers_is_the_whole_network_through_every_kill(
    tmp_path: Path, digits: Plan
) -> None:
    with played(digits, tmp_path) as run:
        for victim in ("fog.0", "edge.0"):
            run.wait_rows("cam", "fog.0+edge.0", 20)
            run.kill(victim)
            run.wait_rows("cam", "fog.1+edge.1", 20)
            run.launcher.start(victim)
        run.wait_rows("cam", "fog.0+edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert _of_admitted(results(found, "cam")) == {"full"}
    error = full_error(digits, found)
    assert error is not None
    assert error < FULL_ERROR_MAX
