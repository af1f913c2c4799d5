"""`understudy check`: the failure table as printed, what is required of it."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dataflow.failures import failure_table
from tests.support.toy_plan import toy_plan
from understudy.cli import main
from understudy.failure_text import LINES_MAX, table_text

DEPLOYMENT = "two-by-two.yaml"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(*arguments: str) -> list[str]:
    """Return the lines of the failure table, single-spaced."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.rpartition("\n\n")[2]
    return [" ".join(line.split()) for line in lines.splitlines()]


def test_check_tells_what_every_single_failure_leads_to() -> None:
    assert table(DEPLOYMENT) == [
        "8 single failures, no single point of failure:",
        "nothing fails cam.0 -> edge.0 (full), cam.1 -> edge.1 (full)",
        "cam.0 or cam.1 dies its stream ends, the others unchanged",
        "edge.0 dies cam.0 -> edge.1 (full), cam.1 unchanged",
        "edge.1 dies cam.1 -> edge.0 (full), cam.0 unchanged",
        "cam.0 - edge.0 is cut cam.0 -> edge.1 (full), cam.1 unchanged",
        "cam.0 - edge.1 or cam.1 - edge.0 is cut nothing changes",
        "cam.1 - edge.1 is cut cam.1 -> edge.0 (full), cam.0 unchanged",
    ]


def test_failures_of_none_and_of_two_at_once() -> None:
    assert table(DEPLOYMENT, "--failures", "0") == [
        "without failures:",
        "nothing fails cam.0 -> edge.0 (full), cam.1 -> edge.1 (full)",
    ]
    both = table(DEPLOYMENT, "--failures", "2")
    told = "edge.0 dies and edge.1 dies cam.0, cam.1 -> exit2 (degraded)"
    assert told in both
    assert both[0].startswith("8 single failures and 20 combinations of them")


@pytest.mark.parametrize(
    ("mode", "told", "players"),
    [
        ("standby", "standby: the first that is ready", "edge.0"),
        ("spread", "spread: the server with the least work", "edge.0 or edge.1"),
        ("{replicate: 2}", "replicate 2: that many servers", "edge.0 and edge.1"),
        ("{hedge: p95}", "hedge p95: the first, and a", "edge.0, when late edge.1"),
    ],
)
def test_check_says_which_mode_of_redundancy_holds(
    here: Path, mode: str, told: str, players: str
) -> None:
    path = here / DEPLOYMENT
    text = path.read_text().replace("failover:", f"failover:\n  redundancy: {mode}")
    path.write_text(text)
    lines = [line.strip() for line in run(DEPLOYMENT).stdout.splitlines()]
    assert sum(line.startswith(told) for line in lines) == 2, "once for each stream"
    (whole,) = (line for line in lines if line.startswith("nothing fails"))
    assert f"cam.0 -> {players} (full)" in whole
    (left,) = (line for line in lines if line.startswith("edge.0 dies"))
    assert " -> edge.1 (full)" in left


def test_requirement_that_holds_is_silent() -> None:
    for arguments in (["full"], ["answered", "--failures", "2"]):
        result = run(DEPLOYMENT, "--require", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")


def lonely(here: Path) -> None:
    """Leave one server and no understudy."""
    path = here / DEPLOYMENT
    text = path.read_text()
    for old, new in (
        ("edge: {role: server, count: 2", "edge: {role: server, count: 1"),
        ("order: [{net: edge}, exit2, exit1]", "order: [{net: edge}]"),
        ("  exit1: cam\n  exit2: cam\n", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_broken_requirement_names_failures_and_the_least_fix(here: Path) -> None:
    lonely(here)
    result = run(DEPLOYMENT, "--require", "answered")
    assert result.exit_code == 1
    assert "single points of failure: edge.0, cam.0 - edge.0, cam.1" in result.stdout
    assert "edge.0 dies" in result.stdout
    assert "cam.0, cam.1 dropped (no-branch)" in result.stdout
    assert result.stderr == (
        "understudy: two-by-two: required 'answered': broken when edge.0 dies, when "
        "cam.0 - edge.0 is cut, when cam.1 - edge.0 is cut; add a server that "
        "cam.0, cam.1 can fail over to, or a local understudy: a last branch on the "
        "endpoint itself\n"
    )


def test_json_holds_the_table_and_the_requirement(here: Path) -> None:
    lonely(here)
    result = run(DEPLOYMENT, "--require", "full", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["failures"]
    assert found["at_once"] == 1
    assert (found["required"], found["kept"]) == ("full", False)
    assert found["broken_by"] == [["edge.0"], ["cam.0 - edge.0"], ["cam.1 - edge.0"]]
    assert found["single_points"] == ["edge.0", "cam.0 - edge.0", "cam.1 - edge.0"]
    assert found["least_fix"] == "add a server that cam.0, cam.1 can fail over to"
    row = next(row for row in found["rows"] if row["links"] == ["cam.1 - edge.0"])
    assert row["verdict"] == "dropped"
    assert row["live"] is True
    assert row["streams"] == {
        "cam.0": {
            "status": "full", "row": "edge.0", "device": "edge.0", "reason": "",
            "others": [],
        },
        "cam.1": {
            "status": "dropped", "row": "drop", "device": "", "reason": "no-branch",
            "others": [],
        },
    }  # fmt: skip


def test_json_without_requirement_judges_nothing() -> None:
    found = json.loads(run(DEPLOYMENT, "--json").stdout)["failures"]
    assert set(found) == {"at_once", "single_points", "rows"}
    assert len(found["rows"]) == 9


def test_failures_of_a_graph_file_are_misuse() -> None:
    for option in (["--require", "full"], ["--failures", "1"]):
        result = run("digits.yaml", *option)
        assert result.exit_code == 2
        assert "is a graph file, and what fails are devices and links" in result.stderr


def test_alike_failures_of_many_endpoints_share_a_line(tmp_path: Path) -> None:
    graph = toy_plan(tmp_path / "plan", port=7000, endpoints=6, servers=2).graph
    homes = {region.stream: region.stream for region in graph.regions}
    lines = [" ".join(line.split()) for line in table_text(failure_table(graph), homes)]
    assert "cam.0, cam.1 or 4 more dies its stream ends, the others unchanged" in lines
    assert (
        "cam.0 - edge.0, cam.2 - edge.0 or 1 more is cut its stream -> edge.1 (full), "
        "the others unchanged"
    ) in lines


def test_many_lines_are_cut_to_the_worst(tmp_path: Path) -> None:
    graph = toy_plan(
        tmp_path / "plan", port=7000, endpoints=3, servers=3, local=False
    ).graph
    homes = {region.stream: region.stream for region in graph.regions}
    lines = table_text(failure_table(graph, 2), homes)
    assert len(lines) == 2 + 1 + LINES_MAX + 1
    assert lines[-1].endswith("lines more (see --json)")


def test_dropped_streams_stay_among_the_lines_shown(tmp_path: Path) -> None:
    graph = toy_plan(tmp_path / "plan", port=7000, servers=2, local=False).graph
    lines = table_text(failure_table(graph, 2), {"cam.0": "cam.0"})
    assert any("edge.0 dies and edge.1 dies" in line for line in lines)
    assert any("dropped (no-branch)" in line for line in lines)
