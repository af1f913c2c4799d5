"""Regions of DPGs: where they begin and end, how they nest, what all modes share."""

from dataclasses import replace

import pytest

from dataflow.analysis import capacities
from dataflow.graph import Graph
from dataflow.modes import at_once, mode_combinations, shared_counts
from dataflow.rules import check
from tests.support.dynamic_graphs import Builder, region


def said(graph: Graph) -> list[tuple[str, str]]:
    return [(finding.rule, finding.problem) for finding in check(graph)]


def chain(count: int, *, modes: int = 2, wide: int = 1) -> Builder:
    """A source, regions one behind the other, a sink."""
    build = Builder()
    last = "src"
    for i in range(count):
        build.static(last, f"d{i}.in")
        last = region(build, f"d{i}", modes=modes, wide=wide)
    build.static(last, "snk")
    return build


def nested(depth: int) -> Builder:
    """A region inside a branch of a region inside …, innermost a single actor."""
    build = Builder()
    build.static("src", "d0.in")
    for i in range(depth):
        build.controllers[f"d{i}"] = f"c{i}"
        rates = {"off": 0, "on": 1}
        inner = (f"d{i + 1}.in", f"d{i + 1}.out") if i + 1 < depth else ("p", "p")
        build.gated(f"d{i}", f"d{i}.in", inner[0], rates)
        build.gated(f"d{i}", inner[1], f"d{i}.out", rates)
    build.static("d0.out", "snk")
    return build


def test_regions_one_behind_the_other_are_accepted_whatever_their_number() -> None:
    graph = chain(200, modes=4, wide=2).graph()  # 4 ** 200 combinations of modes
    assert check(graph) == []


def test_regions_inside_regions_are_accepted_whatever_their_depth() -> None:
    assert check(nested(30).graph()) == []


def test_exit_of_one_region_may_be_the_entry_of_the_next() -> None:
    build = Builder()
    build.static("src", "a")
    for name, first, last in (("d", "a", "b"), ("e", "b", "c")):
        build.controllers[name] = f"{name}.c"
        build.gated(name, first, f"{name}.p", {"off": 0, "on": 1})
        build.gated(name, f"{name}.p", last, {"off": 0, "on": 1})
        build.static(first, last)
    build.static("c", "snk")
    assert check(build.graph()) == []


def test_branch_with_integer_rates_is_accepted() -> None:
    build = Builder()
    build.controllers["d"] = "c"
    build.static("src", "x")
    build.gated("d", "x", "p", {"off": 0, "half": 2, "full": 4})
    build.gated("d", "p", "y", {"off": 0, "half": 2, "full": 4})
    build.static("y", "snk")
    graph = build.graph()
    assert check(graph) == []
    assert max(capacities(graph).values()) == 4


def test_actor_without_dynamic_ports_may_stand_in_a_branch() -> None:
    build = Builder()
    build.controllers["d"] = "c"
    build.static("src", "x")
    build.gated("d", "x", "p", {"off": 0, "on": 1})
    build.static("p", "q")
    build.static("q", "r")
    build.gated("d", "r", "y", {"off": 0, "on": 1})
    build.static("y", "snk")
    assert check(build.graph()) == []


def test_data_that_leak_out_of_a_region_are_refused() -> None:
    build = chain(1)
    build.static("d0.0", "other")
    ((rule, problem),) = said(build.graph())
    assert rule == "R5"
    assert problem == "data leak out of it around 'd0.out', by d0.0 -> other"


def test_data_that_enter_a_region_around_its_entry_are_refused() -> None:
    build = chain(1)
    build.static("aside", "d0.0")
    ((rule, problem),) = said(build.graph())
    assert rule == "R5"
    assert problem == "data enter it around 'd0.in', by aside -> d0.0"


def test_region_with_two_beginnings_is_refused() -> None:
    build = chain(1, wide=2)
    build.gated("d0", "second", "d0.0", {"m0": 1, "m1": 0})
    assert {rule for rule, _ in said(build.graph())} == {"R5"}


def test_data_of_the_iteration_before_come_from_nowhere() -> None:
    build = chain(1)
    build.static("d0.0", "d0.0", delay=1)
    assert check(build.graph()) == []


def test_regions_that_overlap_are_refused() -> None:
    build = Builder()
    on_off = {"on": 1, "off": 0}
    build.controllers |= {"d": "c", "e": "f"}
    build.static("src", "a")
    build.gated("d", "a", "b", on_off)  # d: a to d; e: b to e
    build.gated("e", "b", "p", on_off)
    build.static("b", "m")
    build.static("m", "n")
    build.gated("d", "n", "d", on_off)
    build.static("m", "z")
    build.gated("e", "p", "z", on_off)
    build.static("z", "d")
    build.static("d", "snk")
    assert check(build.graph()) == []  # e from b to z lies inside d from a to d
    build.static("z", "out")
    assert {rule for rule, _ in said(build.graph())} == {"R5"}


def test_controller_inside_a_region_that_governs_outside_is_refused() -> None:
    build = chain(2)
    build.gated("d0", "d0.0", "d1.c", {"m0": 1, "m1": 0})
    ((rule, problem),) = said(build.graph())
    assert rule == "R7"
    assert problem.startswith("its controller 'd1.c' stands in dpg 'd0', but 'd1.")


def test_choice_that_waits_for_its_outcome_is_refused_and_a_token_cures_it() -> None:
    build = chain(3)
    build.static("d1.out", "d1.c")
    ((rule, problem),) = said(build.graph())
    assert rule == "R6"
    assert "only after d1.out -> d1.c, which waits for the choice" in problem
    cured = chain(3)
    cured.static("d1.out", "d1.c", delay=1)
    assert check(cured.graph()) == []


def test_choice_that_waits_for_an_outcome_far_behind_is_refused() -> None:
    build = chain(3)
    build.static("snk", "d0.c")
    assert [rule for rule, _ in said(build.graph())] == ["R6"]


def test_feedback_that_no_mode_closes_is_accepted() -> None:
    """Forth in one mode and back in the other: no mode has the cycle."""
    build = Builder()
    build.controllers["d"] = "c"
    build.static("src", "x")
    build.gated("d", "x", "p", {"one": 1, "two": 1})
    build.gated("d", "x", "q", {"one": 1, "two": 1})
    build.gated("d", "p", "q", {"one": 1, "two": 0})
    build.gated("d", "q", "p", {"one": 0, "two": 1})
    build.gated("d", "p", "y", {"one": 1, "two": 1})
    build.gated("d", "q", "y", {"one": 1, "two": 1})
    build.static("y", "snk")
    assert check(build.graph()) == []
    build.tables["d"]["two"] |= {
        ref: 1 for ref in build.tables["d"]["one"] if build.tables["d"]["one"][ref]
    }
    ((rule, problem),) = said(build.graph())
    assert rule == "R10"
    assert problem.startswith("in mode 'two' of 'd': deadlock: 2 actors")


def test_deadlock_among_many_regions_names_only_the_modes_that_matter() -> None:
    build = chain(30)
    build.gated("d7", "d7.0", "d7.x", {"m0": 1, "m1": 0})
    build.gated("d7", "d7.x", "d7.0", {"m0": 1, "m1": 0})
    ((rule, problem),) = said(build.graph())
    assert rule == "R10"
    assert problem.startswith("in mode 'm0' of 'd7': deadlock: 2 actors")


def test_rates_that_change_how_often_ungoverned_actors_fire_are_refused() -> None:
    build = Builder()
    build.controllers["d"] = "c"
    build.static("src", "x")
    build.gated("d", "x", "y", {"one": 1, "two": 2})
    graph = build.graph()
    changed = tuple(
        replace(p, rates=(1,)) if p.direction == "out" and p.dynamic else p
        for p in graph.actors["x"].ports
        if not p.control
    )
    actors = {**graph.actors, "x": replace(graph.actors["x"], ports=changed)}
    taken = {ref for ref in graph.dpgs[0].dynamic_ports if ref.actor == "x"}
    dpg = replace(
        graph.dpgs[0],
        modes={
            mode: {ref: rate for ref, rate in row.items() if ref not in taken}
            for mode, row in graph.dpgs[0].modes.items()
        },
    )
    fifos = tuple(
        f for f in graph.fifos if (f.source.actor, f.target.actor) != ("c", "x")
    )
    control = {(f.source.port) for f in graph.fifos} - {f.source.port for f in fifos}
    c = actors["c"]
    actors["c"] = replace(c, ports=tuple(p for p in c.ports if p.name not in control))
    graph = replace(graph, actors=actors, fifos=fifos, dpgs=(dpg,))
    ((rule, problem),) = said(graph)
    assert rule == "R9"
    assert problem == (
        "fires once per iteration in mode 'one' of 'd', but 2 times in mode "
        "'two' of 'd', and no mode governs it"
    )


def test_what_is_shown_for_all_modes_at_once_holds_in_each() -> None:
    graph = chain(3, modes=3, wide=3).graph()
    counts = shared_counts(graph, at_once(graph))
    assert counts is not None
    assert set(counts.values()) == {1}
    assert len(list(mode_combinations(graph))) == 27


def bipartite(endpoints: int, servers: int) -> Graph:
    """Edge-PRUNE's K_{m,n}: four actors an endpoint; one actor a server, n inputs."""
    build = Builder()
    for i in range(endpoints):
        for here, there in (("input", "l1"), ("l1", "l2"), ("l2", "l3")):
            build.static(f"{here}.{i}", f"{there}.{i}")
        for j in range(servers):
            build.static(f"l3.{i}", f"server.{j}")
    return build.graph()


@pytest.mark.parametrize(
    ("endpoints", "servers", "actors", "fifos"),
    [(6, 2, 26, 30), (6, 1, 25, 24), (1, 1, 5, 4), (128, 2, 514, 640)],
)
def test_complete_bipartite_graphs_have_the_published_size(
    endpoints: int, servers: int, actors: int, fifos: int
) -> None:
    graph = bipartite(endpoints, servers)
    assert (len(graph.actors), len(graph.fifos)) == (actors, fifos)
    assert check(graph) == []
    assert set((shared_counts(graph, at_once(graph)) or {}).values()) == {1}


def test_region_in_a_ring_without_tokens_is_a_deadlock_and_no_leak() -> None:
    """Its ends were mistaken for one another, and data said to leak around both."""
    build = Builder()
    region(build, "d")
    build.static("d.out", "d.in")
    build.static("source", "d.in")
    (found,) = check(build.graph())
    assert found.rule == "R10"
    assert found.fix.startswith("add 1 initial token to fifo d.out.")


def test_controller_that_chooses_within_an_iteration_is_refused() -> None:
    """It was accepted, and stopped the engine when it named two modes."""
    build = Builder()
    region(build, "d")
    build.static("src", "d.in")
    build.static("d.out", "snk", (1, 2))
    (found,) = check(build.graph())
    assert str(found) == (
        "actor 'd.c': names a mode of 'd' 2 times per iteration, and a mode lasts for "
        "a whole one; raise the rates at its ports, and at those of what it governs, "
        "so that all fire once (R9)"
    )


def test_controller_of_a_single_mode_may_fire_often() -> None:
    build = Builder()
    region(build, "d", modes=1)
    build.static("src", "d.in")
    build.static("d.out", "snk", (1, 2))
    assert check(build.graph()) == []


def test_least_fix_breaks_no_region_open() -> None:
    """One token inside it is fewer than two on what closes the ring, and R5 said no."""
    build = Builder()
    build.controllers["d"] = "c"
    build.static("src", "a")
    rates = {"off": 0, "on": 1}
    build.gated("d", "a", "b", rates)
    build.gated("d", "b", "e", rates)
    build.static("e", "a", (3, 3), 1)
    build.static("e", "snk")
    build.static("a", "aside")
    (found,) = check(build.graph())
    assert found.fix.startswith("add 2 initial tokens to fifo e.")
