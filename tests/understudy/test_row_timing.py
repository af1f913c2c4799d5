"""What `check` says of how long the rows of a deployment take."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataflow.failures import failure_table
from dataflow.graph import Graph
from dataflow.plan import Plan
from tests.support.toy_plan import toy_plan
from understudy.checking import Checked
from understudy.row_timing import RowTime, row_times

TIMES = {"camera[cam.0]": 2, "tail[cam.0]@edge.0": 30, "tail[cam.0]@edge.1": 30,
         "local[cam.0]": 80, "result[cam.0]": 1}  # fmt: skip


def with_times(graph: Graph, **other: None) -> Graph:
    """Give actors the times above, in ms; those that carry and choose take none."""
    times = {**TIMES, **other}
    actors = {n: replace(a, time=times.get(n, 0)) for n, a in graph.actors.items()}
    return replace(graph, actors=actors)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return toy_plan(tmp_path, port=7000, window=2)


def checked(plan: Plan, graph: Graph) -> Checked:
    return Checked(replace(plan, graph=graph), failure_table(graph))


def test_rows_have_the_latency_of_their_way_and_the_pace_of_its_slowest(
    plan: Plan,
) -> None:
    (rows,) = row_times(with_times(plan.graph)).values()
    remote = RowTime(33.0, pytest.approx(1000 / 30))
    assert rows == {
        "edge.0": remote,
        "edge.1": remote,
        "here": RowTime(83.0, pytest.approx(1000 / 80)),
    }


def test_window_bounds_the_frames_under_way(tmp_path: Path) -> None:
    graph = toy_plan(tmp_path, port=7000, window=1).graph
    (rows,) = row_times(with_times(graph)).values()
    assert rows["edge.0"].frames_per_s_max == pytest.approx(1000 / 33)


def test_times_stand_behind_the_rows(plan: Plan) -> None:
    found = checked(plan, with_times(plan.graph))
    lines = [" ".join(line.split()) for line in found.text().splitlines()]
    assert (
        "1. edge.0 full 16 B there, 16 B back, 33 ms, at most 33.33 frames/s" in lines
    )
    assert (
        "3. here degraded on cam.0, nothing sent, 83 ms, at most 12.5 frames/s" in lines
    )
    (stream,) = found.to_json()["streams"]
    assert stream["rows"][2]["latency_ms"] == 83
    assert stream["rows"][2]["frames_per_s_max"] == 12.5


def test_nothing_is_said_where_an_actor_has_no_time(plan: Plan) -> None:
    unknown = with_times(plan.graph, **{"local[cam.0]": None})
    for graph in (plan.graph, unknown):
        found = checked(plan, graph)
        assert row_times(graph) == {}
        assert " ms, at most" not in found.text()
        assert "latency_ms" not in found.to_json()["streams"][0]["rows"][0]


def test_rows_that_are_alike_are_timed_once(tmp_path: Path) -> None:
    """More rows than are timed at most, but of two kinds only."""
    graph = toy_plan(tmp_path, port=7000, servers=80).graph
    (rows,) = row_times(with_times(graph)).values()
    assert len(rows) == 81
