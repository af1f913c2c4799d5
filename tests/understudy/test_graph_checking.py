"""`understudy check` of graphs by themselves."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graphs.graph_writer import write_graph
from tests.support.random_sdf import graph_of
from tests.support.sdf_oracle import Edge, Sdf
from understudy.cli import main

CONFORMANCE = Path(__file__).parents[1] / "dataflow" / "conformance"

XML = """\
<sdf3><applicationGraph name="pair"><sdf>
<actor name="a"><port name="o" type="out" rate="2"/></actor>
<actor name="b"><port name="i" type="in" rate="3"/></actor>
<channel srcActor="a" srcPort="o" dstActor="b" dstPort="i"/>
</sdf></applicationGraph></sdf3>
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_graph_is_told_with_counts_room_and_pace() -> None:
    result = run(CONFORMANCE / "expansion.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "expansion: sound\n"
        "  graph       3 actors, 3 FIFOs\n"
        "  iteration   10 firings: t1 3, t2 3, t3 4\n"
        "  capacities  33 places are the fewest to be live\n"
        "  throughput  1/5 iterations per time unit, one firing of an actor at a time\n"
        "              1/7 iterations per time unit with the capacities above\n"
        "              2/9 iterations per time unit if firings may overlap\n"
        "  latency     7 time units for an iteration by itself\n"
    )


def test_sizes_are_those_of_the_pareto_front() -> None:
    result = run(CONFORMANCE / "tutorial.yaml", "--size", "--json")
    (sizes,) = json.loads(result.stdout)["sizes"]
    assert sizes["exact"]
    assert [(p["total"], p["throughput"]) for p in sizes["points"]] == [
        (6, "1/7"),
        (8, "1/6"),
        (9, "1/5"),
        (10, "1/4"),
    ]
    text = run(CONFORMANCE / "tutorial.yaml", "--size").stdout
    assert "6 for 1/7 iterations per time unit:\n      a.to_b -> b.from_a: 4\n" in text


def test_firings_that_overlap_and_that_do_not_are_both_timed() -> None:
    (timing,) = json.loads(run(CONFORMANCE / "expansion.yaml", "--json").stdout)[
        "timings"
    ]
    assert timing == {
        "modes": {},
        "throughput": "2/9",
        "throughput_one_at_a_time": "1/5",
        "throughput_with_capacities": "1/7",
        "throughput_with_capacities_overlapping": "1/6",
        "latency": "7",
        "latency_overlapping": "6",
    }


def test_room_that_may_not_be_the_least_is_told_with_what_it_cannot_be_below(
    tmp_path: Path,
) -> None:
    pairs = [(i, i + 1) for i in range(299)] + [(i, i + 7) for i in range(0, 290, 3)]
    edges = tuple(Edge(f"a{i}", 1, 1, f"a{j}") for i, j in pairs)
    graph = graph_of(Sdf({f"a{i}": Fraction(1 + i % 5) for i in range(300)}, edges))
    actors = {name: replace(a, type="") for name, a in graph.actors.items()}
    path = tmp_path / "long.yaml"
    path.write_text(write_graph(replace(graph, actors=actors)))
    (sizes,) = json.loads(run(path, "--size", "--json").stdout)["sizes"]
    last = sizes["points"][-1]
    assert (sizes["exact"], sizes["most"], last["throughput"]) == (False, "1/5", "1/5")
    assert last["at_least"] < last["total"] < 1.3 * last["at_least"]
    text = run(path, "--size").stdout
    assert f"    {last['total']} (at least {last['at_least']}) for 1/5 iter" in text


def test_deadlock_is_told_with_its_least_fix() -> None:
    result = run(CONFORMANCE / "preesm-38.yaml")
    assert result.exit_code == 1
    assert "add 1 initial token to fifo C.to_A -> A.from_C, which is the least" in (
        result.stderr
    )


def test_what_rules_find_is_json_too() -> None:
    path = CONFORMANCE / "preesm-38.yaml"
    result = run(path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["sound"] is False
    (finding,) = found["findings"]
    assert finding == {
        "rule": "R10",
        "subject": "A -> C -> B -> A",
        "problem": finding["problem"],
        "fix": "add 1 initial token to fifo C.to_A -> A.from_C, which is the least "
        "that makes it live",
        "place": f"{path}:6:3",
    }
    assert finding["problem"].startswith("deadlock: 4 actors never reach")
    assert result.stderr == (
        f"{path}:6:3: A -> C -> B -> A: {finding['problem']}; {finding['fix']} (R10)\n"
    )


def test_what_is_wrong_in_files_is_json_too(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(
        "understudy: 1\ngraph: g\nactors:\n"
        "  a: {ports: {out: {x: 'float32[2]'}}}\n"
        "  b: {ports: {in: {y: 'float32[3]'}}}\n"
        "fifos: [a.x -> b.y, a.x -> c.y]\n"
    )
    result = run(path, "--json")
    assert result.exit_code == 1
    typed, unknown = json.loads(result.stdout)["findings"]
    assert typed == {
        "rule": "R1",
        "subject": "fifo a.x -> b.y",
        "problem": "carries float32[2], but b.y takes float32[3]",
        "fix": "put an actor between that converts, or connect another port",
        "place": f"{path}:6:9",
    }
    assert (unknown["rule"], unknown["place"]) == (None, f"{path}:6:21")
    assert unknown["problem"] == "actor 'c' is not in the graph"


def test_misuse_is_not_json(tmp_path: Path) -> None:
    result = run(tmp_path / "none.yaml", "--json")
    assert (result.exit_code, result.stdout) == (2, "")


def test_file_of_sdf3_is_checked_like_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "pair.xml"
    path.write_text(XML)
    found = json.loads(run(path, "--json").stdout)
    assert found["repetitions"] == {"a": 3, "b": 2}
    assert found["capacity_total"] == 4
    assert found["timings"] is None
    assert "not known: actor 'a' has no execution time" in run(path).stdout
    assert "  sizes       only for being live" in run(path, "--size").stdout


@pytest.mark.parametrize(
    ("path", "options"),
    [("pair.xml", ["--plan", "plan"]), ("none.xml", []), ("pair.xml", ["--sizes"])],
)
def test_misuse_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pair.xml").write_text(XML)
    assert run(path, *options).exit_code == 2


def test_room_of_a_deployment_is_not_asked_for() -> None:
    digits = Path(__file__).parents[2] / "graphs" / "digits" / "two-by-two.yaml"
    result = run(digits, "--size")
    assert result.exit_code == 2
    assert "is a deployment" in result.stderr
