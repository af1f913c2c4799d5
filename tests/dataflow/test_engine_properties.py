"""Random graphs: what the analysis promises is what happens when they run.

Graphs are multirate, cyclic or not, with initial tokens, consistent by construction,
and may hold a DPG: a controller that gates some FIFOs, differently in each mode.
"""

import random
from math import lcm

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dataflow.analysis import (
    DeadlockError,
    capacities,
    mode_combinations,
    schedule,
)
from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef
from dataflow.rules import check
from tests.support.playing import (
    Play,
    assert_least,
    cured,
    deadlock_of,
    mode_sequence,
    stuck_actors,
)

quick = settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a weakly connected, consistent graph of two to seven actors."""
    size = draw(st.integers(2, 6))
    counts = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(size)]
    pairs = [(draw(st.integers(0, i - 1)), i) for i in range(1, size)]
    any_actor = st.integers(0, size - 1)
    pairs += draw(st.lists(st.tuples(any_actor, any_actor), max_size=4))
    modes = draw(st.sampled_from([0, 0, 2, 3]))
    ports: dict[str, list[Port]] = {f"a{i}": [] for i in range(size)}
    fifos: list[Fifo] = []
    table: dict[str, dict[PortRef, int]] = {f"m{m}": {} for m in range(modes)}
    gated_count = draw(st.sampled_from([1, *counts]))
    for n, (a, b) in enumerate(pairs):
        if a != b and draw(st.integers(0, 3)) == 0:
            a, b = b, a  # noqa: PLW2901
        both = lcm(counts[a], counts[b])
        scale = draw(st.sampled_from([1, 1, 2]))
        rate = both // counts[a] * scale, both // counts[b] * scale
        delay = draw(st.sampled_from([0, 0, 1, 3])) if a != b else rate[0]
        gated = (
            modes and a != b and counts[a] == counts[b] == gated_count
            and draw(st.booleans())
        )  # fmt: skip
        ends = PortRef(f"a{a}", f"o{n}"), PortRef(f"a{b}", f"i{n}")
        for ref, direction, r in zip(ends, ("out", "in"), rate, strict=True):
            rates = (0, r) if gated else (r,)
            ports[ref.actor].append(Port(ref.port, direction, None, rates))  # type: ignore[arg-type]
        if gated:
            for row in table.values():
                on = draw(st.booleans())
                row.update(zip(ends, rate if on else (0, 0), strict=True))
        fifos.append(Fifo(*ends, delay=delay))
    dpgs = []
    if modes and table["m0"]:
        dpgs = [Dpg("d", "ca", table)]
        ports["ca"] = []
        for member in sorted(dpgs[0].members):
            ports["ca"].append(Port(f"c{member}", "out", control=True))
            ports[member].append(Port("c", "in", control=True))
            fifos.append(Fifo(PortRef("ca", f"c{member}"), PortRef(member, "c")))
    actors = {name: Actor(name, "random", tuple(p)) for name, p in ports.items()}
    return Graph("random", actors, tuple(fifos), tuple(dpgs))


@quick
@given(graphs(), st.integers(0, 2**32))
def test_accepted_graphs_run_in_any_sequence_of_modes_within_their_capacities(
    graph, seed
):
    found = check(graph)
    if found:
        # FIFOs are gated wherever it falls, so regions are rarely proper (R5), and
        # controllers often fire more than once (R9).
        assert {finding.rule for finding in found} <= {"R5", "R9", "R10"}
        return
    play = Play(graph)
    for modes in mode_sequence(graph, random.Random(seed)):
        play.iterate(modes)
    stats = play.chain.stats().actors
    assert sum(s.firings + s.skips for s in stats.values()) > 0


@quick
@given(graphs(), st.integers(0, 2**32))
def test_deadlocks_block_the_actors_foretold_and_the_fix_cures_them(graph, seed):
    for modes in mode_combinations(graph):
        stuck = stuck_actors(graph, modes, random.Random(seed))
        error = deadlock_of(graph, modes)
        assert set(error.blocked if error else ()) == stuck
        if error is not None:
            assert_least(graph, modes, error)


@quick
@given(graphs())
def test_engine_stops_at_the_actors_foretold(graph):
    assume(not graph.dpgs)
    error = deadlock_of(graph, {})
    assume(error is not None)
    endless = dict.fromkeys(graph.fifos, 1_000)
    with pytest.raises(DeadlockError) as caught:
        Play(graph, endless).iterate({})
    assert caught.value.blocked == error.blocked


@quick
@given(graphs())
def test_cures_of_all_modes_together_make_a_graph_acceptable(graph):
    assert {finding.rule for finding in check(cured(graph))} <= {"R5", "R9"}


@quick
@given(graphs())
def test_no_proposed_capacity_can_be_lowered_alone(graph):
    if check(graph):
        return
    sized = capacities(graph)
    for fifo, places in sized.items():
        if places <= max(fifo.delay, 1) or fifo.source.actor == fifo.target.actor:
            continue
        fewer = {**sized, fifo: places - 1}
        with pytest.raises(DeadlockError):  # noqa: PT012
            for modes in mode_combinations(graph):
                schedule(graph, modes, fewer)
