"""`understudy simulate`: what it prints of a deployment, and with which status."""

import json
import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dataflow.wire import sessions
from tests.support.chain_plan import chain_plan
from understudy.cli import main
from understudy.plans import compile_deployment
from understudy.simulation.scenario import deployed

DEPLOYMENT = "two-by-two.yaml"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped files in the working directory, as a user's own."""
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def test_scenario_is_the_deployments_own() -> None:
    plan = compile_deployment(Path(DEPLOYMENT), Path("plan"))
    scenario = deployed(plan)
    assert list(scenario.endpoints) == ["cam.0", "cam.1"]
    assert list(scenario.servers) == ["edge.0", "edge.1"]
    first, second = scenario.sources
    assert [row.name for row in first.rows] == ["edge.0", "edge.1", "exit2", "exit1"]
    assert [row.server for row in second.rows] == [1, 0, None, None]
    assert (first.deadline_s, first.period_s) == (0.2, 0.02)
    (region,) = (r for r in plan.graph.regions if r.stream == "cam.0")
    assert first.window == region.window
    assert first.rows[0].token_bytes == (1024,)
    assert first.rows[0].segment == region.branches[0].segment


def test_table_tells_rows_reasons_and_gaps_and_status_is_0() -> None:
    result = run(DEPLOYMENT, "--seeds", "30", "--faults", "crash,freeze")
    assert result.exit_code == 0, result.output
    assert "two-by-two: 30 runs of 100 frames a stream, seeds 0 to 29" in result.output
    for words in ("full", "edge.0", "edge.1", "exit2", "crash", "freeze", "gap p99"):
        assert words in result.output
    assert result.output.endswith("every frame answered once, in order: kept\n")


def test_a_chain_of_servers_is_simulated_by_all_its_ways() -> None:
    chain_plan(Path(), tiers="ab")
    result = run("plan", "--seeds", "20", "--frames", "60", "--json")
    assert result.exit_code == 0, result.output
    rows = {row["row"] for row in json.loads(result.output)["answered"]}
    assert rows >= {"a.0+b.0", "a.0+b.1", "a.1+b.1", "here"}


def test_json_has_the_same_for_machines() -> None:
    result = run(DEPLOYMENT, "--seeds", "10", "--json", "--frames", "20")
    figures = json.loads(result.output)
    assert (figures["deployment"], figures["runs"]) == ("two-by-two", 10)
    answered = sum(row["frames"] for row in figures["answered"])
    assert answered + sum(figures["dropped"].values()) == figures["frames"]
    assert figures["kept"]
    assert figures["violations"] == []


def test_a_plan_folder_stands_in_for_the_file() -> None:
    compile_deployment(Path(DEPLOYMENT), Path("plan"))
    assert run("plan", "--seeds", "3").exit_code == 0


def test_topologies_are_drawn_without_a_deployment() -> None:
    result = run("--seeds", "5", "--endpoints", "3", "--servers", "2", "--json")
    figures = json.loads(result.output)
    rows = {row["row"] for row in figures["answered"]}
    assert {"edge.0", "edge.1"} <= rows


def test_trace_tells_what_happens_in_one_run() -> None:
    result = run(DEPLOYMENT, "--seed", "3", "--faults", "crash", "--trace")
    assert result.exit_code == 0
    for words in ("cam.0-edge.0 session 1 ready", "fault 0: crash of", "cam.0: 0 on"):
        assert words in result.output
    assert "kept" in result.output.splitlines()[-1]


def test_kept_faults_have_the_numbers_that_the_trace_gave_them() -> None:
    words = [DEPLOYMENT, "--seed", "11", "--trace"]
    every = [line for line in run(*words).output.splitlines() if "fault" in line]
    second = [line for line in every if "fault 1: " in line]
    assert len(second) == 2  # begins, and is over
    only = run(*words, "--keep", "1").output.splitlines()
    assert [line for line in only if "fault" in line] == second


def test_a_broken_promise_gives_status_1_and_a_line_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "RESERVED_BYTES_MAX", 10)
    result = run(DEPLOYMENT, "--seeds", "2")
    assert result.exit_code == 1
    assert "BROKEN by seed 0, 1" in result.output
    assert "busy: 0 sessions hold 0 bytes of credit" in result.output
    _, command = result.output.split("to see it again: understudy simulate ")
    again = run(*shlex.split(command))
    assert again.exit_code == 1
    assert "L1 at" in again.output


MISUSES = {
    "fault that is not known": (["--faults", "crsh"], "did you mean 'crash'"),
    "kept that is no list": (["--keep", "first"], "--keep first: give numbers"),
    "sizes of a deployment": ([DEPLOYMENT, "--servers", "3"], "says how many devices"),
    "trace of many": (["--trace", "--seeds", "2"], "--trace: prints one run"),
    "no such deployment": (["nowhere.yaml"], "nowhere.yaml"),
    "no runs": (["--seeds", "0"], "--seeds"),
}


@pytest.mark.parametrize(("arguments", "words"), MISUSES.values(), ids=MISUSES)
def test_misuse_has_status_2_and_says_what_to_do(
    arguments: list[str], words: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.output


def test_help_has_an_example_that_runs() -> None:
    text = " ".join(run("--help").output.split())
    example = text.split("Example: understudy simulate ")[1].split("Options:")[0]
    file, *options = shlex.split(example)
    assert run(Path(file).name, *options, "--frames", "5").exit_code == 0
