"""Random static graphs: what we say of them is what brute force says.

The campaigns that found the bugs below ran tens of thousands of such graphs; here runs
a part of them.
"""

import math
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction

import networkx
import pytest

from dataflow.analysis import (
    CapacityError,
    DeadlockError,
    RateError,
    least_room,
    repetition_vector,
    schedule,
)
from dataflow.balance import AnalysisError
from dataflow.blocks import blocks
from dataflow.graph import Fifo, Graph
from dataflow.rules import check
from dataflow.selftimed import EndlessError
from dataflow.sizing import DISTRIBUTIONS_MAX, Front, _Search, front
from dataflow.throughput import latency, throughput
from tests.support import sdf_oracle as oracle
from tests.support.random_sdf import graph_of, random_sdf, random_sizes
from tests.support.sdf_oracle import Edge, Sdf

GRAPHS = 250
BOTH = (True, False)
"""One firing of an actor at a time, or as many as there are tokens for."""


def live_graphs(seeds: range, **how: int) -> Iterator[tuple[int, Sdf, Graph]]:
    """Graphs that are live, and in which nothing goes on without taking time."""
    for seed in seeds:
        sdf = random_sdf(seed, **how)
        timeless = any(
            not any(sdf.times[name] for name in part) for part in oracle.components(sdf)
        )
        if not timeless and oracle.live(sdf):
            yield seed, sdf, graph_of(sdf)


def endless(sdf: Sdf) -> bool:
    """Whether an actor without FIFOs would start without end."""
    joined = {end for edge in sdf.edges for end in (edge.source, edge.target)}
    return joined != set(sdf.times)


@pytest.mark.parametrize("consistent", [True, False])
def test_counts_and_contradictions(consistent: bool) -> None:
    for seed in range(GRAPHS):
        sdf = random_sdf(seed, consistent=consistent)
        graph, counts = graph_of(sdf), oracle.repetitions(sdf)
        try:
            assert repetition_vector(graph) == counts, seed
        except RateError:
            assert counts is None, seed
            assert {found.rule for found in check(graph)} == {"R8"}, seed


def test_who_is_stuck_and_the_fewest_tokens_that_help() -> None:
    for seed in range(2 * GRAPHS):
        sdf = random_sdf(seed)
        graph = graph_of(sdf)
        found = deadlock_of(graph)
        assert set(found.blocked if found else ()) == oracle.stuck(sdf), seed
        if found is not None:
            extra = [found.extra.get(fifo, 0) for fifo in graph.fifos]
            assert oracle.live(oracle.delayed(sdf, extra)), seed
            if sum(extra) <= 6 and len(extra) <= 6:
                least = oracle.least_extra(sdf, sum(extra))
                assert (sum(extra), len(found.extra)) == least, seed
                assert found.exact, seed


def deadlock_of(graph: Graph) -> DeadlockError | None:
    try:
        schedule(graph)
    except DeadlockError as error:
        return error
    return None


def test_least_room_and_declared_capacities() -> None:
    for seed, sdf, graph in live_graphs(range(GRAPHS), actors=4):
        room = least_room(graph)
        total = places(room.capacities)
        if total <= 50 and len(sdf.edges) <= 6:
            assert room.exact, seed
            assert total == oracle.least_total(sdf, total), seed
        sizes = random_sizes(sdf, seed)
        try:
            sized = least_room(graph_of(sdf, sizes)).capacities
            assert oracle.live(sdf, sizes), seed
        except CapacityError as error:
            assert not oracle.live(sdf, sizes), seed
            sized = error.sized
            raised = [error.raises.get(f, f.capacity) for f in sized]
            assert oracle.live(sdf, raised), seed
        assert oracle.live(sdf, list(sized.values())), seed


def places(sized: Mapping[Fifo, int]) -> int:
    return sum(n for f, n in sized.items() if f.source.actor != f.target.actor)


@pytest.mark.parametrize("alone", BOTH)
def test_throughput_and_latency_with_capacities(alone: bool) -> None:
    for seed, sdf, graph in live_graphs(range(GRAPHS)):
        if alone or not endless(sdf):
            sized = {
                fifo: n + seed % 3 for fifo, n in least_room(graph).capacities.items()
            }
            sizes = list(sized.values())
            expected = oracle.throughput(sdf, sizes, alone=alone)
            found = throughput(graph, None, sized, one_at_a_time=alone)
            assert expected in (found, None), seed
            found = latency(graph, None, sized, one_at_a_time=alone)
            assert found == oracle.latency(sdf, sizes, alone=alone), seed


def test_throughput_in_fifos_that_are_large_enough_to_limit_nothing() -> None:
    for seed, sdf, graph in live_graphs(range(GRAPHS), actors=4):
        large = oracle.bounded_by_rate(sdf)
        sizes = [large + edge.delay for edge in sdf.edges]
        expected = oracle.throughput(sdf, sizes, alone=True)
        assert expected in (throughput(graph, one_at_a_time=True), None), seed
        assert latency(graph) == oracle.latency(sdf, None, alone=False), seed


@pytest.mark.parametrize("alone", BOTH)
def test_pareto_front(alone: bool) -> None:
    compared = 0
    for seed, sdf, graph in live_graphs(range(GRAPHS), actors=4, more=3):
        if (found := whole_front(graph, alone)) is None or endless(sdf):
            continue
        assert found.exact, seed
        last = found.points[-1].total
        between = [edge for edge in sdf.edges if not edge.loop]
        floor = sum(max(e.delay, e.produced, e.consumed) for e in between)
        if between and math.comb(last - floor + len(between), len(between)) < 500:
            points = [(point.total, point.throughput) for point in found.points]
            assert points == oracle.pareto(sdf, last, alone=alone), seed
            compared += 1
    assert compared > GRAPHS // 5


def whole_front(graph: Graph, alone: bool) -> Front | None:
    try:
        return front(graph, one_at_a_time=alone)
    except AnalysisError:  # the more room the faster, without end
        return None


@pytest.mark.parametrize("alone", BOTH)
def test_ends_found_for_large_graphs_enclose_those_of_the_exact_front(
    alone: bool,
) -> None:
    for seed, _, graph in live_graphs(range(GRAPHS), actors=4, more=3):
        exact = whole_front(graph, alone)
        if exact is None or not exact.exact:
            continue
        ends = _Search(graph, None, one_at_a_time=alone).ends()
        for mine, known in zip(
            (ends.points[0], ends.points[-1]),
            (exact.points[0], exact.points[-1]),
            strict=True,
        ):
            assert mine.at_least <= known.total <= mine.total, seed
            sized = mine.capacities
            again = throughput(graph, None, sized, one_at_a_time=alone)
            assert again == mine.throughput, seed
        assert ends.points[-1].throughput == exact.most, seed


def test_large_graphs_have_two_ends_and_not_a_search_without_end() -> None:
    edges = [Edge(f"a{i}", 1, 1, f"a{i + 1}") for i in range(299)]
    edges += [Edge(f"a{i}", 1, 1, f"a{i + 7}") for i in range(0, 290, 3)]
    times = {f"a{i}": Fraction(1 + i % 5) for i in range(300)}
    found = front(graph_of(Sdf(times, tuple(edges))), one_at_a_time=True)
    assert [point.throughput for point in found.points] == [
        found.points[0].throughput,
        Fraction(1, 5),
    ]
    assert not found.exact
    last = found.points[-1]
    assert 0.8 * last.total < last.at_least <= last.total


def test_two_fifos_are_delayed_where_that_takes_fewer_tokens_than_one() -> None:
    """It was called the least to put five tokens on one FIFO where three suffice."""
    sdf = Sdf(
        dict.fromkeys(("a", "b", "c", "d"), Fraction(1)),
        (
            Edge("b", 6, 2, "c", 1),
            Edge("a", 1, 1, "b"),
            Edge("d", 1, 2, "a"),
            Edge("d", 1, 2, "a"),
            Edge("d", 1, 2, "b"),
            Edge("c", 4, 6, "d"),
        ),
    )
    with pytest.raises(DeadlockError) as caught:
        schedule(graph_of(sdf))
    assert sum(caught.value.extra.values()) == 3
    assert len(caught.value.extra) == 2


def test_fifos_grow_where_that_takes_the_fewest_places() -> None:
    """Step by step, one place too many was given to parallel FIFOs."""
    edges = Edge("a", 2, 1, "b", 1), Edge("a", 4, 2, "b", 2), Edge("b", 2, 4, "a", 5)
    graph = graph_of(Sdf(dict.fromkeys("ab", Fraction(1)), edges))
    room = least_room(graph)
    assert (places(room.capacities), room.exact) == (13, True)


def test_capacities_too_small_in_two_parts_are_told_together() -> None:
    """Only the first part's were, and the others had no capacity at all."""
    edges = Edge("a", 2, 3, "b"), Edge("c", 1, 1, "d", 2), Edge("e", 1, 1, "f")
    sdf = Sdf(dict.fromkeys("abcdef", Fraction(1)), edges)
    with pytest.raises(CapacityError) as caught:
        least_room(graph_of(sdf, [3, 1, None]))
    assert list(caught.value.raises.values()) == [4, 2]
    assert list(caught.value.sized.values()) == [4, 2, 1]


def test_zero_times_do_not_make_a_ring_of_room_look_live() -> None:
    """Firings that take no time waited for one another's room, all at one instant."""
    edges = (
        Edge("c", 1, 2, "d", 3),
        Edge("d", 3, 1, "a", 3),
        Edge("a", 2, 3, "c", 5),
        Edge("a", 1, 3, "b"),
        Edge("d", 6, 2, "a", 3),
    )
    times = dict(zip("abcd", map(Fraction, (0, 1, "1/2", 0)), strict=True))
    graph = graph_of(Sdf(times, edges))
    for alone in BOTH:
        last = _Search(graph, None, one_at_a_time=alone).ends().points[-1]
        sized = last.capacities
        assert throughput(graph, None, sized, one_at_a_time=alone) == last.throughput


def test_rates_without_common_divisors_do_not_keep_check_busy() -> None:
    """Iterations of 10 ** 14 firings were played to the end, a few at a time."""
    rnd = random.Random(1)
    edges = [Edge("b", 1, 1, "a0", 1), Edge("a0", 1, 1, "b")]
    for i in range(20):
        produced, consumed = rnd.choice((3, 5, 7, 11)), rnd.choice((2, 4, 6, 10))
        edges.append(Edge(f"a{i}", produced, consumed, f"a{i + 1}"))
    names = ["b", *(f"a{i}" for i in range(21))]
    graph = graph_of(Sdf(dict.fromkeys(names, Fraction(1)), tuple(edges)))
    assert sum(repetition_vector(graph).values()) > 10**12
    assert check(graph) == []
    assert least_room(graph).exact
    with pytest.raises(EndlessError):
        latency(graph, one_at_a_time=True)


def test_blocks_are_the_biconnected_parts() -> None:
    for seed in range(GRAPHS):
        sdf = random_sdf(seed, actors=9, more=6)
        graph = graph_of(sdf)
        plain = networkx.Graph((e.source, e.target) for e in sdf.edges if not e.loop)
        expected = {
            frozenset(frozenset(pair) for pair in part)
            for part in networkx.biconnected_component_edges(plain)
        }
        found = blocks(graph.fifos)
        assert expected == {
            frozenset(frozenset((f.source.actor, f.target.actor)) for f in block)
            for block in found
        }
        between = {f for f in graph.fifos if f.source.actor != f.target.actor}
        assert {fifo for block in found for fifo in block} == between
        assert sum(map(len, found)) == len(between)


def test_small_graphs_are_searched_to_the_end() -> None:
    tutorial = Edge("a", 2, 3, "b"), Edge("b", 1, 2, "c")
    times = dict(zip("abc", map(Fraction, (1, 2, 2)), strict=True))
    graph = graph_of(Sdf(times, tutorial))
    search = _Search(graph, None, one_at_a_time=True)
    assert search.tries == DISTRIBUTIONS_MAX
    assert [p.total for p in front(graph, one_at_a_time=True).points] == [6, 8, 9, 10]
