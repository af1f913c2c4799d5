"""The failure table: what it predicts, that it asks `choose`, that it is sound."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import failures, iteration, standing
from dataflow.errors import UnderstudyError
from dataflow.failures import FailureTable, failure_table, surviving
from dataflow.graph import Fifo, Graph, Port, PortRef
from dataflow.standing import Failure
from dataflow.wire import ledger, rows
from tests.dataflow.test_dynamic_properties import graphs, quick
from tests.support.toy_plan import toy_plan


def bipartite(
    endpoints: int, servers: int, *, local: bool = False, redundancy: str = "standby"
) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        return toy_plan(
            Path(folder), port=7000, endpoints=endpoints, servers=servers, local=local,
            redundancy=redundancy,
        ).graph  # fmt: skip


def told(table: FailureTable) -> dict[str, str]:
    """Return failure -> the row of each stream, ``-`` where it ended."""
    return {
        " + ".join(row.failure.names): " ".join(a.row or "-" for a in row.answers)
        for row in table.rows
    }


TABLES = {
    (1, 1, False): {
        "": "edge.0",
        "cam.0": "-",
        "edge.0": "drop",
        "cam.0 - edge.0": "drop",
    },
    (1, 1, True): {
        "": "edge.0",
        "cam.0": "-",
        "edge.0": "here",
        "cam.0 - edge.0": "here",
    },
    (2, 1, False): {
        "": "edge.0 edge.0",
        "cam.0": "- edge.0",
        "edge.0": "drop drop",
        "cam.1": "edge.0 -",
        "cam.0 - edge.0": "drop edge.0",
        "cam.1 - edge.0": "edge.0 drop",
    },
    (2, 1, True): {
        "": "edge.0 edge.0",
        "cam.0": "- edge.0",
        "edge.0": "here here",
        "cam.1": "edge.0 -",
        "cam.0 - edge.0": "here edge.0",
        "cam.1 - edge.0": "edge.0 here",
    },
    (1, 2, False): {
        "": "edge.0",
        "cam.0": "-",
        "edge.0": "edge.1",
        "edge.1": "edge.0",
        "cam.0 - edge.0": "edge.1",
        "cam.0 - edge.1": "edge.0",
    },
    (2, 2, False): {
        "": "edge.0 edge.1",
        "cam.0": "- edge.1",
        "edge.0": "edge.1 edge.1",
        "edge.1": "edge.0 edge.0",
        "cam.1": "edge.0 -",
        "cam.0 - edge.0": "edge.1 edge.1",
        "cam.0 - edge.1": "edge.0 edge.1",
        "cam.1 - edge.1": "edge.0 edge.0",
        "cam.1 - edge.0": "edge.0 edge.1",
    },
}
"""Endpoints, servers, with a branch on the endpoint -> the table."""
for _servers in ((1, 2), (2, 2)):  # a branch that no single failure calls for
    TABLES[*_servers, True] = TABLES[*_servers, False]


@pytest.mark.parametrize("shape", TABLES, ids=str)
def test_table_of_a_small_deployment(shape: tuple[int, int, bool]) -> None:
    endpoints, servers, local = shape
    table = failure_table(bipartite(endpoints, servers, local=local))
    assert told(table) == TABLES[shape]
    assert all(row.live for row in table.rows)


@pytest.mark.parametrize("endpoints", [1, 2, 6])
def test_one_server_and_each_link_to_it_are_single_points(endpoints: int) -> None:
    table = failure_table(bipartite(endpoints, 1))
    found = {failure.names for failure in table.single_points}
    links = {(f"cam.{i} - edge.0",) for i in range(endpoints)}
    assert found == {("edge.0",)} | links


@pytest.mark.parametrize("endpoints", [1, 2, 4, 6])
def test_two_servers_survive_each_device_and_link(endpoints: int) -> None:
    table = failure_table(bipartite(endpoints, 2))
    assert len(table.rows) == 1 + (endpoints + 2) + 2 * endpoints
    assert table.single_points == ()
    assert {row.verdict for row in table.rows} == {"full"}
    for row in table.rows:
        ended = {a.stream for a in row.answers if a.status == "ended"}
        assert ended == {name for name in row.failure.devices if name[:3] == "cam"}


def test_branch_on_the_endpoint_answers_degraded_when_both_servers_die() -> None:
    table = failure_table(bipartite(1, 2, local=True), 2)
    (row,) = (r for r in table.rows if r.failure.names == ("edge.0", "edge.1"))
    (answer,) = row.answers
    assert (answer.status, answer.row, answer.device) == ("degraded", "here", "cam.0")
    assert row.verdict == "answered"


MODES = {
    "spread": {"": ("edge.0", "edge.1", "edge.2"), "edge.1": ("edge.0", "edge.2")},
    "replicate 2": {"": ("edge.0", "edge.1"), "edge.1": ("edge.0", "edge.2")},
    "hedge p95": {"": ("edge.0", "edge.1"), "edge.0": ("edge.1", "edge.2")},
}
ONE_LEFT, NONE_LEFT = "edge.1 + edge.2", "edge.0 + edge.1 + edge.2"


@pytest.mark.parametrize("mode", MODES)
def test_table_names_all_that_answer_in_a_mode_of_redundancy(mode: str) -> None:
    table = failure_table(bipartite(1, 3, local=True, redundancy=mode), 3)
    found = {
        " + ".join(row.failure.names): (row.answers[0].row, *row.answers[0].others)
        for row in table.rows
    }
    expected = MODES[mode] | {ONE_LEFT: ("edge.0",), NONE_LEFT: ("here",)}
    assert {failure: found[failure] for failure in expected} == expected


def test_pairs_drop_what_no_branch_is_left_for() -> None:
    table = failure_table(bipartite(1, 2), 2)
    dropped = {r.failure.names: r for r in table.rows if r.verdict == "dropped"}
    assert set(dropped) == {
        ("edge.0", "edge.1"),
        ("edge.0", "cam.0 - edge.1"),
        ("edge.1", "cam.0 - edge.0"),
        ("cam.0 - edge.0", "cam.0 - edge.1"),
    }
    assert {r.answers[0].reason for r in dropped.values()} == {"no-branch"}
    assert table.single_points == ()


def test_link_of_a_dead_device_is_no_further_failure() -> None:
    pairs = {r.failure.names for r in failure_table(bipartite(1, 1), 2).rows}
    assert pairs == {(), ("cam.0",), ("edge.0",), ("cam.0 - edge.0",),
                     ("cam.0", "edge.0")}  # fmt: skip


def timed(graph: Graph, **times: int) -> Graph:
    """Give actors times, in ms, by the beginnings of their names; others have 0."""

    def time(name: str) -> int:
        crosses = name.endswith(("tx", "rx"))
        found = (t for begin, t in times.items() if name.startswith(begin))
        return 0 if crosses else next(found, 0)

    actors = {n: replace(actor, time=time(n)) for n, actor in graph.actors.items()}
    return replace(graph, actors=actors)


@pytest.mark.parametrize(
    ("camera", "local", "row"),
    [(0, 1000, "here"), (1, 1000, "drop"), (0, 1001, "drop")],
)
def test_fallback_that_takes_longer_than_the_deadline_answers_nothing(
    camera: int, local: int, row: str
) -> None:
    """It was predicted to answer, whatever its time: the deadline is 1,000 ms."""
    graph = timed(bipartite(1, 1, local=True), camera=camera, tail=9, local=local)
    table = failure_table(graph)
    assert told(table)["edge.0"] == row
    assert table.baseline.answers[0].row == "edge.0"
    if row == "drop":
        answer = next(r for r in table.rows if str(r.failure) == "edge.0 dies")
        assert answer.answers[0].reason == "deadline"
        assert table.least_fix("answered") == (
            "add a server that cam.0 can fail over to, or a deadline of 1001 ms for "
            "what is left"
        )


def test_branch_too_slow_from_the_start_is_passed_over() -> None:
    graph = timed(bipartite(1, 2, local=True), tail=1001, local=5)
    assert told(failure_table(graph))[""] == "here"


def test_slowest_way_counts_not_the_sum_of_all() -> None:
    graph = timed(bipartite(1, 1), camera=400, result=900, tail=600)
    assert told(failure_table(graph))[""] == "edge.0"


def test_no_failures_leave_one_row() -> None:
    (row,) = failure_table(bipartite(2, 2), 0).rows
    assert str(row.failure) == "nothing fails"
    assert [a.row for a in row.answers] == ["edge.0", "edge.1"]


@pytest.mark.parametrize(
    ("shape", "count", "required", "servers"),
    [((2, 1), 1, "answered", 1), ((2, 1), 2, "full", 2), ((1, 2), 2, "answered", 1)],
)
def test_least_fix_is_enough_and_one_less_is_not(
    shape: tuple[int, int], count: int, required: failures.Required, servers: int
) -> None:
    endpoints, present = shape
    fix = failure_table(bipartite(*shape), count).least_fix(required)
    assert fix.startswith(f"add {'a server' if servers == 1 else f'{servers} servers'}")
    for added in range(servers + 1):
        table = failure_table(bipartite(endpoints, present + added), count)
        assert bool(table.broken(required)) is (added < servers)


def test_local_understudy_is_the_other_least_fix_of_answered() -> None:
    assert "local understudy" in failure_table(bipartite(2, 1)).least_fix("answered")
    assert not failure_table(bipartite(2, 1, local=True), 2).broken("answered")
    assert "local" not in failure_table(bipartite(2, 1)).least_fix("full")


def test_kept_requirement_needs_no_fix() -> None:
    assert failure_table(bipartite(2, 2)).least_fix("full") == ""


def test_prediction_and_ledger_call_the_very_same_choice() -> None:
    assert vars(standing)["choose"] is rows.choose
    assert vars(ledger)["choose"] is rows.choose


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.data())
@settings(max_examples=60)
def test_prediction_is_what_choose_says_of_branches_that_are_left(
    endpoints: int, servers: int, local: bool, data: st.DataObject
) -> None:
    graph = bipartite(endpoints, servers, local=local)
    row = data.draw(st.sampled_from(failure_table(graph, 2).rows))
    for region, answer in zip(graph.regions, row.answers, strict=True):
        home = region.stream
        if home in row.failure.devices:
            assert answer.status == "ended"
            continue
        left = [
            branch.row == "here"
            or not (
                branch.device in row.failure.devices
                or (home, branch.device) in row.failure.links
            )
            for branch in region.branches
        ]
        expected = region.branches[left.index(True)].row if any(left) else "drop"
        assert answer.row == expected


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2))
@settings(max_examples=25)
def test_every_surviving_graph_passes_the_rules_when_run_again(
    endpoints: int, servers: int, local: bool, count: int
) -> None:
    graph = bipartite(endpoints, servers, local=local)
    for row in failure_table(graph, count).rows:
        assert_sound(surviving(graph, row.failure))


@given(graphs(), st.data())
@quick
def test_any_part_of_a_sound_graph_is_sound(graph: Graph, data: st.DataObject) -> None:
    """The inheritance that spares the table its reruns, on graphs with own DPGs."""
    devices = st.sampled_from(["a", "b", "c"])
    actors = {
        name: replace(actor, device=data.draw(devices))
        for name, actor in graph.actors.items()
    }
    graph = replace(graph, actors=actors)
    if any(failures._unsound(graph)):
        return
    for row in failure_table(graph, 2).rows:
        assert_sound(surviving(graph, row.failure))


def assert_sound(graph: Graph) -> None:
    for rule in (iteration.consistent, iteration.live, iteration.bounded):
        assert list(rule(graph)) == []


def test_surviving_graph_lacks_actors_fifos_and_modes_that_were_lost() -> None:
    graph = bipartite(1, 2)
    left = surviving(graph, Failure(devices=("edge.0",)))
    assert {a.device for a in left.actors.values()} == {"cam.0", "edge.1"}
    assert list(left.dpgs[0].modes) == ["edge.1", "drop"]
    cut = surviving(graph, Failure(links=(("cam.0", "edge.1"),)))
    assert cut.actors == graph.actors
    assert len(cut.fifos) == len(graph.fifos) - 2
    assert list(cut.dpgs[0].modes) == ["edge.0", "drop"]


def test_unsound_remains_are_told_and_break_every_requirement() -> None:
    """A cycle without initial tokens on one endpoint stops it until it dies."""
    graph = bipartite(2, 2)
    knot = Fifo(PortRef("result[cam.0]", "again"), PortRef("camera[cam.0]", "again"))
    graph = tied(graph, knot)
    table = failure_table(graph)
    live = {str(row.failure) for row in table.rows if row.live}
    assert live == {"cam.0 dies"}
    assert table.baseline.verdict == "dropped"
    assert table.baseline.unsound[0].rule == "R10"
    assert "token" in table.least_fix("answered")


def tied(graph: Graph, knot: Fifo) -> Graph:
    actors = dict(graph.actors)
    for port, ref in (
        (Port(knot.source.port, "out"), knot.source),
        (Port(knot.target.port, "in"), knot.target),
    ):
        actor = actors[ref.actor]
        actors[ref.actor] = replace(actor, ports=(*actor.ports, port))
    return replace(graph, actors=actors, fifos=(*graph.fifos, knot))


def test_table_of_too_many_failures_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures, "FAILURES_MAX", 36)
    assert len(failure_table(bipartite(2, 2), 1).rows) == 9
    with pytest.raises(UnderstudyError) as refused:
        failure_table(bipartite(2, 2), 2)
    assert str(refused.value) == (
        "failures: 8 devices and links, up to 2 of them at once, fail in 37 ways, and "
        "a table holds 36; let fewer fail"
    )
