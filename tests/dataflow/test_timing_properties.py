"""Random graphs: two ways to one throughput, and brute force where it can be had."""

import itertools
from dataclasses import replace
from fractions import Fraction
from math import lcm

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dataflow.analysis import capacities
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from dataflow.rules import check
from dataflow.sizing import front
from dataflow.throughput import latency, pace, throughput
from dataflow.timed import Timed, timed

quick = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@st.composite
def graphs(
    draw: st.DrawFn, *, counts: tuple[int, ...], size: int, more: int = 3
) -> Graph:
    """Return a connected, consistent graph with times, cycles and initial tokens."""
    number = draw(st.integers(2, size))
    fires = [draw(st.sampled_from(counts)) for _ in range(number)]
    pairs = [(draw(st.integers(0, i - 1)), i) for i in range(1, number)]
    any_actor = st.integers(0, number - 1)
    pairs += draw(st.lists(st.tuples(any_actor, any_actor), max_size=more))
    ports: list[list[Port]] = [[] for _ in range(number)]
    fifos = []
    for n, (a, b) in enumerate(pairs):
        both = lcm(fires[a], fires[b])
        ports[a].append(Port(f"o{n}", "out", rates=(both // fires[a],)))
        ports[b].append(Port(f"i{n}", "in", rates=(both // fires[b],)))
        least = both // fires[a] if a == b else 0
        delay = least + draw(st.sampled_from([0, 0, 1, 2, 5]))
        fifos.append(
            Fifo(PortRef(f"a{a}", f"o{n}"), PortRef(f"a{b}", f"i{n}"), None, delay)
        )
    times = [draw(st.sampled_from([0, 1, 2, 3, 7, Fraction(1, 2)])) for _ in ports]
    actors = {
        f"a{i}": Actor(f"a{i}", "moves", tuple(some), time=time)
        for i, (some, time) in enumerate(zip(ports, times, strict=True))
    }
    return Graph("timed", actors, tuple(fifos))


homogeneous = graphs(counts=(1,), size=7, more=6)
multirate = graphs(counts=(1, 1, 2, 3), size=5)
tiny = graphs(counts=(1, 2, 3), size=3, more=1)


def bounded(graph: Graph, room: int) -> dict[Fifo, int]:
    return {fifo: places + room for fifo, places in capacities(graph).items()}


@quick
@given(homogeneous, st.booleans(), st.integers(0, 3))
def test_throughput_by_states_is_that_of_the_slowest_cycle(
    graph: Graph, one: bool, room: int
) -> None:
    by_states_and_by_cycles(graph, one=one, room=room)


@quick
@given(multirate, st.booleans(), st.integers(0, 3))
def test_throughput_by_states_is_that_of_the_slowest_cycle_when_unfolded(
    graph: Graph, one: bool, room: int
) -> None:
    by_states_and_by_cycles(graph, one=one, room=room)


def by_states_and_by_cycles(graph: Graph, *, one: bool, room: int) -> None:
    def both(found: Timed) -> Fraction | None:
        by_states = pace(found, prefer="states").throughput
        assert by_states == pace(found, prefer="cycles").throughput
        return by_states

    unbounded = both(timed(graph, one_at_a_time=one))
    if check(graph):
        assert unbounded == 0
    else:
        sized = bounded(graph, room)
        assert both(timed(graph, None, sized, one_at_a_time=one)) != 0


def at_least(one: Fraction | None, other: Fraction | None) -> bool:
    return one is None or (other is not None and one >= other)


@quick
@given(multirate, st.data(), st.booleans())
def test_room_never_slows_a_graph_down(
    graph: Graph, data: st.DataObject, one: bool
) -> None:
    assume(not check(graph))
    small = bounded(graph, 0)
    large = {fifo: n + data.draw(st.integers(0, 3)) for fifo, n in small.items()}
    slow, fast, most = (
        throughput(graph, None, sized, one_at_a_time=one)
        for sized in (small, large, None)
    )
    assert slow != 0
    assert at_least(fast, slow)
    assert at_least(most, fast)
    took = [latency(graph, None, s, one_at_a_time=one) for s in (small, large, None)]
    assert took[0] is not None
    assert took == sorted(took, reverse=True)  # type: ignore[type-var]


@quick
@given(multirate)
def test_overlapping_firings_never_slow_a_graph_down(graph: Graph) -> None:
    assume(not check(graph))
    assert at_least(throughput(graph), throughput(graph, one_at_a_time=True))


@settings(quick, max_examples=40)
@given(tiny, st.booleans())
def test_pareto_front_is_that_of_brute_force(graph: Graph, one: bool) -> None:
    assume(not check(graph) and ends(graph, one=one))
    found = front(graph, one_at_a_time=one)
    assume(found.exact)  # not if it takes thousands of distributions
    free = [f for f in graph.fifos if f.source.actor != f.target.actor]
    fixed = {f: max(f.delay, 1) for f in graph.fifos}
    last = found.points[-1]
    assert last.throughput == throughput(graph, one_at_a_time=one)
    least = {f: max(f.delay, 1) for f in free}
    spare = last.total - sum(least.values())
    assume(spare ** len(free) < 2_000)
    best: dict[int, Fraction | None] = {}
    for more in itertools.product(range(spare + 1), repeat=len(free)):
        if sum(more) <= spare:
            sized = {f: least[f] + n for f, n in zip(free, more, strict=True)}
            value = throughput(graph, None, fixed | sized, one_at_a_time=one)
            total = sum(sized.values())
            if total not in best or not at_least(best[total], value):
                best[total] = value
    expected: list[tuple[int, Fraction | None]] = []
    for total, value in sorted(best.items()):
        before = expected[-1][1] if expected else Fraction(0)
        if not at_least(before, value):
            expected.append((total, value))
    assert [(p.total, p.throughput) for p in found.points] == expected


def ends(graph: Graph, *, one: bool) -> bool:
    """Say whether anything but room bounds the throughput."""
    most = throughput(graph, one_at_a_time=one)
    some = throughput(graph, None, capacities(graph), one_at_a_time=one)
    return most is not None or some is None


@settings(quick, max_examples=30)
@given(multirate, st.booleans())
def test_points_of_a_front_give_what_they_say(graph: Graph, one: bool) -> None:
    assume(not check(graph) and ends(graph, one=one))
    found = front(graph, one_at_a_time=one)
    totals = [point.total for point in found.points]
    assert totals == sorted(set(totals))
    for point in found.points:
        again = throughput(graph, None, point.capacities, one_at_a_time=one)
        assert again == point.throughput
    declared = [
        replace(f, capacity=last) for f, last in found.points[0].capacities.items()
    ]
    assert check(replace(graph, fifos=tuple(declared))) == []
