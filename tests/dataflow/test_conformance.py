"""Published graphs, and cases computed by hand: what we say of them is what is known.

The graphs are files of our own format; `answers.yaml` says what is known of each.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow.analysis import DeadlockError, RateError, capacities, repetition_vector
from dataflow.graph import Fifo, Graph
from dataflow.rules import check
from dataflow.schedule import schedule
from dataflow.sizing import front
from dataflow.throughput import throughput
from graphs.graph_file import read_graph

FOLDER = Path(__file__).parent / "conformance"
ANSWERS: dict[str, dict[str, Any]] = yaml.safe_load(
    (FOLDER / "answers.yaml").read_text()
)


def graph_of(name: str) -> Graph:
    return read_graph(FOLDER / f"{name}.yaml").graph


def known(key: str) -> list[Any]:
    """Return the graphs of which `key` is known, those that take seconds as slow."""
    return [
        pytest.param(
            name,
            answer[key],
            marks=pytest.mark.slow
            if answer.get("slow") and key in {"front", "ends"}
            else (),
            id=name,
        )
        for name, answer in ANSWERS.items()
        if key in answer
    ]


def between(graph: Graph) -> list[Fifo]:
    return [f for f in graph.fifos if f.source.actor != f.target.actor]


def short(fifo: Fifo) -> str:
    return f"{fifo.source.actor} -> {fifo.target.actor}"


def test_every_graph_has_answers() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")} - {"answers"}
    assert names == set(ANSWERS)


@pytest.mark.parametrize(("name", "counts"), known("repetitions"))
def test_repetition_vector(name: str, counts: dict[str, int]) -> None:
    found = repetition_vector(graph_of(name))
    assert {actor: found[actor] for actor in counts} == counts


@pytest.mark.parametrize(("name", "total"), known("sum"))
def test_firings_per_iteration(name: str, total: int) -> None:
    assert sum(repetition_vector(graph_of(name)).values()) == total


@pytest.mark.parametrize("name", [n for n, a in ANSWERS.items() if "throughput" in a])
def test_live_graphs_are_accepted(name: str) -> None:
    assert check(graph_of(name)) == []


@pytest.mark.parametrize(("name", "extra"), known("extra"))
def test_least_initial_tokens_of_a_deadlock(name: str, extra: dict[str, int]) -> None:
    with pytest.raises(DeadlockError) as caught:
        schedule(graph_of(name))
    assert {short(f): n for f, n in caught.value.extra.items()} == extra
    assert [f.rule for f in check(graph_of(name))] == ["R10"]


@pytest.mark.parametrize(("name", "tokens"), known("extra_tokens"))
def test_fewest_initial_tokens_wherever_they_are(name: str, tokens: int) -> None:
    with pytest.raises(DeadlockError) as caught:
        schedule(graph_of(name))
    assert sum(caught.value.extra.values()) == tokens


@pytest.mark.parametrize(("name", "fifo"), known("contradicts"))
def test_contradicting_fifo(name: str, fifo: str) -> None:
    with pytest.raises(RateError) as caught:
        repetition_vector(graph_of(name))
    assert short(caught.value.fifo) == fifo
    assert [f.rule for f in check(graph_of(name))] == ["R8"]


@pytest.mark.parametrize(("name", "total"), known("least"))
def test_least_capacities(name: str, total: int) -> None:
    graph = graph_of(name)
    sized = capacities(graph)
    assert sum(sized[fifo] for fifo in between(graph)) == total


@pytest.mark.parametrize(("name", "value"), known("throughput"))
def test_throughput_in_unbounded_fifos(name: str, value: str) -> None:
    assert throughput(graph_of(name)) == Fraction(value)


@pytest.mark.parametrize(("name", "pairs"), known("sized"))
def test_throughput_with_capacities(name: str, pairs: list[Any]) -> None:
    graph = graph_of(name)
    for places, value in pairs:
        sized = {fifo: max(fifo.delay, 1) for fifo in graph.fifos}
        sized |= dict(zip(between(graph), places, strict=True))
        assert throughput(graph, capacities=sized) == Fraction(value), places


@pytest.mark.parametrize(("name", "points"), known("front"))
def test_pareto_front(name: str, points: list[Any]) -> None:
    found = front(graph_of(name))
    assert found.exact
    assert [(p.total, p.throughput) for p in found.points] == [
        (total, Fraction(value)) for total, value in points
    ]


@pytest.mark.parametrize(("name", "ends"), known("ends"))
def test_ends_of_a_long_pareto_front(name: str, ends: list[Any]) -> None:
    found = front(graph_of(name))
    assert found.exact
    assert len(found.points) == ANSWERS[name]["points"]
    assert [(p.total, p.throughput) for p in (found.points[0], found.points[-1])] == [
        (total, Fraction(value)) for total, value in ends
    ]
