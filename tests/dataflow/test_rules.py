from dataclasses import replace

import numpy as np
import pytest

from dataflow.analysis import capacities
from dataflow.behaviour import Behaviour
from dataflow.cuts import cuts
from dataflow.engine import Chain
from dataflow.graph import (
    Actor,
    Branch,
    Dpg,
    Fifo,
    Graph,
    Port,
    PortRef,
    Region,
    TokenType,
)
from dataflow.redundancy import Redundancy
from dataflow.rules import RULES, check

IMAGE = TokenType("float32", (1, 8, 8))


def ids(graph: Graph) -> set[str]:
    return {finding.rule for finding in check(graph)}


def only(graph: Graph) -> str:
    (finding,) = check(graph)
    return str(finding)


def actor(name: str, *ports: Port, **changes: object) -> Actor:
    return Actor(name, "pass", ports, **changes)  # type: ignore[arg-type]


def into(name: str, *rates: int, control: bool = False) -> Port:
    return Port(name, "in", rates=rates or (1,), control=control)


def out(name: str, *rates: int, control: bool = False) -> Port:
    return Port(name, "out", rates=rates or (1,), control=control)


def fifo(source: str, target: str, **changes: int) -> Fifo:
    return Fifo(PortRef.parse(source), PortRef.parse(target), **changes)


def graph_of(actors: list[Actor], *fifos: Fifo, **more: object) -> Graph:
    return Graph("g", {a.name: a for a in actors}, fifos, **more)  # type: ignore[arg-type]


def switched(
    *,
    rates: tuple[int, ...] = (0, 1),
    p_out: tuple[int, ...] | None = None,
    y_in: tuple[int, ...] | None = None,
    p_control: bool = True,
    feedback: int | None = None,
    leak: bool = False,
    controllers: tuple[str, ...] = ("CA", "CA", "CA"),
) -> Graph:
    """A switch X, an actor P that may be off, a merge Y, a bypass and a controller."""
    p_out, y_in = p_out or rates, y_in or rates
    dynamic = {"X.p": rates, "P.i": rates, "P.o": p_out, "Y.p": y_in}
    modes = {
        f"r{rate}": {
            PortRef.parse(ref): rate for ref, several in dynamic.items() if several[1:]
        }
        for rate in rates
    }
    names = dict.fromkeys(controllers)
    actors = [
        actor("SRC", out("x"), *(out(f"to{c}") for c in names)),
        actor("X", into("i"), into("c", control=True), out("p", *rates), out("y")),
        actor("P", into("i", *rates), out("o", *p_out)),
        actor("Y", into("p", *y_in), into("x"), into("c", control=True), out("o")),
        actor("SNK", into("i")),
        *(actor(c, into("i")) for c in names),
    ]
    fifos = [
        fifo("SRC.x", "X.i"),
        *(fifo(f"SRC.to{c}", f"{c}.i") for c in names),
        fifo("X.p", "P.i"),
        fifo("P.o", "Y.p"),
        fifo("X.y", "Y.x"),
        fifo("Y.o", "SNK.i"),
    ]
    made = {a.name: a for a in actors}

    def add(name: str, *ports: Port) -> None:
        made[name] = replace(made[name], ports=made[name].ports + ports)

    targets = ["X", "P", "Y"] if p_control else ["X", "Y"]
    if p_control:
        add("P", into("c", control=True))
    for target in targets:
        controller = controllers["XPY".index(target)]
        add(controller, out(f"c{target}", control=True))
        fifos.append(fifo(f"{controller}.c{target}", f"{target}.c"))
    if feedback is not None:
        add("Y", out("back"))
        add("CA", into("back"))
        fifos.append(fifo("Y.back", "CA.back", delay=feedback))
    if leak:
        add("P", out("leak", *rates))
        add("SNK", into("leak"))
        fifos.append(fifo("P.leak", "SNK.leak"))
        for name, row in modes.items():
            row[PortRef("P", "leak")] = int(name[1:])
    return graph_of(list(made.values()), *fifos, dpgs=(Dpg("d", "CA", modes),))


def test_dpg_with_a_bypass_is_accepted():
    assert check(switched()) == []


def test_dpg_with_variable_rates_is_accepted():
    assert check(switched(rates=(0, 2, 4))) == []


def test_processing_actor_that_always_writes_is_refused():
    assert only(switched(p_out=(1,))) == (
        "fifo P.o -> Y.p: in mode 'r0' it is written 1 and read 0: tokens pile up; "
        "set both rates to 0, or neither (R3)"
    )


def test_merge_that_always_reads_is_refused():
    assert "written 0 and read 1: its target starves" in only(switched(y_in=(1,)))


def test_leak_out_of_a_dpg_is_refused():
    starved, leaking = check(switched(leak=True))
    assert str(starved).startswith("fifo P.leak -> SNK.leak: in mode 'r0'")
    assert str(leaking) == (
        "dpg 'd': data leak out of it around 'Y', by P -> SNK; "
        "lead them through 'Y', which knows the mode (R5)"
    )


def test_member_without_control_is_refused():
    assert only(switched(p_control=False)) == (
        "actor 'P': has dynamic ports in 'd' but no control FIFO; "
        "add a control FIFO from 'CA' to 'P' (R4)"
    )


def test_choice_that_waits_for_its_own_outcome_is_refused():
    text = only(switched(feedback=0))
    assert "deadlock" in text
    assert "add 1 initial token" in text
    assert text.endswith("(R6)")


def test_choice_from_the_outcome_before_is_accepted():
    assert check(switched(feedback=1)) == []


def test_two_controllers_of_one_dpg_are_refused():
    found = check(switched(controllers=("CA", "CA", "CB")))
    assert {f.rule for f in found} == {"R2"}
    assert any("two controllers" in f.problem for f in found)


def test_controller_that_is_the_switch_itself_is_accepted():
    """The dynamic actor may provide the control signal for the others and itself."""
    rows = {f"r{r}": {PortRef.parse(p): r for p in ("X.p", "Y.p")} for r in (0, 1)}
    graph = graph_of(
        [
            actor("X", out("p", 0, 1), out("c", control=True)),
            actor("Y", into("p", 0, 1), into("c", control=True)),
        ],
        fifo("X.p", "Y.p"),
        fifo("X.c", "Y.c"),
        dpgs=(Dpg("d", "X", rows),),
    )
    assert check(graph) == []


def test_delayed_control_is_refused():
    graph = switched()
    late = tuple(
        replace(f, delay=1) if str(f.target) == "P.c" else f for f in graph.fifos
    )
    assert ids(replace(graph, fifos=late)) == {"R4"}


def pair(**changes: object) -> Graph:
    a = actor("a", out("o"))
    b = actor("b", into("i"))
    return graph_of([a, b], replace(fifo("a.o", "b.i"), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (
            pair(target=PortRef("bb", "i")),
            "fifo a.o -> bb.i: actor 'bb' is not in the graph (did you mean 'b'?); "
            "correct the name (R1)",
        ),
        (
            pair(target=PortRef("b", "in")),
            "fifo a.o -> b.in: actor 'b' has no port 'in' (did you mean 'i'?); "
            "its ports are i; correct the name (R1)",
        ),
        (
            pair(source=PortRef("b", "i")),
            "fifo b.i -> b.i: b.i is an input port; a FIFO leaves an output port (R1)",
        ),
        (pair(delay=-1), "fifo a.o -> b.i: has -1 initial tokens; give it 0 or more"),
        (pair(capacity=0), "fifo a.o -> b.i: has a capacity of 0;"),
        (
            graph_of([actor("a", out("o"))]),
            "port a.o: is not connected; connect it to a FIFO (R1)",
        ),
        (
            graph_of(
                [actor("a", out("o")), actor("b", into("i"), into("j"))],
                fifo("a.o", "b.i"),
                fifo("a.o", "b.j"),
            ),
            "port a.o: is on 2 FIFOs; give it one FIFO;",
        ),
        (
            graph_of(
                [
                    actor("a", Port("o", "out", IMAGE)),
                    actor("b", Port("i", "in", replace(IMAGE, shape=(1, 4, 4)))),
                ],
                fifo("a.o", "b.i"),
            ),
            "fifo a.o -> b.i: carries float32[1,8,8] but its target takes "
            "float32[1,4,4]; make the tokens equal (R1)",
        ),
        (
            graph_of(
                [actor("a", out("o", control=True)), actor("b", into("i"))],
                fifo("a.o", "b.i"),
            ),
            "fifo a.o -> b.i: its source is a control port and its target is not;",
        ),
        (
            graph_of(
                [actor("a", out("o", 0, 1, control=True)), actor("b", into("i"))],
                fifo("a.o", "b.i"),
            ),
            "port a.o: a control port has rates [0, 1];",
        ),
        (
            graph_of(
                [actor("a", out("o", 2, 1)), actor("b", into("i"))],
                fifo("a.o", "b.i"),
            ),
            "port a.o: rates [2, 1] are not ascending whole numbers from 0 on;",
        ),
    ],
)
def test_ill_formed_graphs_are_refused(graph, said):
    assert any(str(finding).startswith(said) for finding in check(graph))
    assert ids(graph) == {"R1"}


def test_optional_output_may_stay_unconnected():
    tap = Port("tap", "out", optional=True)
    assert (
        check(
            graph_of(
                [actor("a", out("o"), tap), actor("b", into("i"))], fifo("a.o", "b.i")
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("modes", "said"),
    [
        ({}, "dpg 'd': has no modes;"),
        (
            {"r0": {"X.p": 0}, "r1": {"X.p": 1, "P.i": 1}},
            "dpg 'd': mode 'r0' gives no rate to P.i;",
        ),
        ({"r0": {"X.p": 7}}, "dpg 'd': mode 'r0' gives X.p the rate 7;"),
        ({"r0": {"X.y": 1}}, "dpg 'd': its control table sets X.y, which has one rate"),
        ({"r0": {"Q.y": 1}}, "dpg 'd': its control table sets Q.y, which is not in"),
        ({"r0": {"X.p": 0}}, "port P.i: has several rates, but no control table"),
    ],
)
def test_broken_control_tables_are_refused(modes, said):
    table = {
        mode: {PortRef.parse(ref): rate for ref, rate in row.items()}
        for mode, row in modes.items()
    }
    graph = replace(switched(), dpgs=(Dpg("d", "CA", table),))
    assert any(str(finding).startswith(said) for finding in check(graph))
    assert ids(graph) == {"R2"}


def test_unknown_controller_is_refused():
    dpg = replace(switched().dpgs[0], controller="AC")
    found = [str(f) for f in check(replace(switched(), dpgs=(dpg,)))]
    assert any("controller 'AC' is not in the graph" in text for text in found)


def test_inconsistent_graph_is_refused_with_both_ratios(sdf):
    assert only(sdf("A 1->1 B; B 2->1 C; A 1->1 C")) == (
        "fifo A.o2 -> C.i2: asks for 1 firing of C per firing of A, but the path "
        "A -> B -> C gives 2; change a rate on that cycle (R8)"
    )


def test_findings_of_independent_streams_are_all_returned(sdf):
    text = only(sdf("a 1->1 b; b 1->1 a; c 1->1 d; d 1->1 c d1"))
    assert text.startswith(("a -> b -> a", "b -> a -> b"))
    found = check(sdf("a 1->1 b; b 1->1 a; c 1->1 d; d 1->1 c"))
    assert [f.rule for f in found] == ["R10", "R10"]


def test_too_small_a_capacity_is_refused_with_the_least_that_works(sdf):
    text = only(sdf("A 1->4 B; B 4->1 D; A 1->1 D cap3"))
    assert text == (
        "fifo A.o2 -> D.i2: capacity 3 is too small: deadlock; "
        "raise the capacity of fifo A.o2 -> D.i2 to 4 (R11)"
    )


def test_modes_of_switches_in_a_row_do_not_multiply():
    """Thirteen switches: 8,192 combinations of modes."""
    made = [chained(i) for i in range(13)]
    fifos = [f for _, inner, _ in made for f in inner]
    fifos += [fifo(f"y{i}.o", f"x{i + 1}.i") for i in range(12)]
    graph = graph_of(
        [actor("src", out("o")), *(a for some, _, _ in made for a in some),
         actor("snk", into("i"))],
        *fifos, fifo("src.o", "x0.i"), fifo("y12.o", "snk.i"),
        dpgs=tuple(dpg for _, _, dpg in made),
    )  # fmt: skip
    assert check(graph) == []


def chained(i: int) -> tuple[list[Actor], list[Fifo], Dpg]:
    """A switch that is its own controller, and a merge."""
    x, y = f"x{i}", f"y{i}"
    actors = [
        actor(x, into("i"), out("p", 0, 1), out("q"), out("c", control=True)),
        actor(y, into("p", 0, 1), into("q"), into("c", control=True), out("o")),
    ]
    fifos = [fifo(f"{x}.{p}", f"{y}.{p}") for p in "pqc"]
    rows = {f"r{r}": {PortRef(x, "p"): r, PortRef(y, "p"): r} for r in (0, 1)}
    return actors, fifos, Dpg(f"d{i}", x, rows)


def test_independent_streams_do_not_multiply_their_modes():
    made = [chained(i) for i in range(30)]
    ends = []
    for i in range(30):
        ends += [actor(f"src{i}", out("o")), actor(f"snk{i}", into("i"))]
    fifos = [f for _, inner, _ in made for f in inner]
    fifos += [fifo(f"src{i}.o", f"x{i}.i") for i in range(30)]
    fifos += [fifo(f"y{i}.o", f"snk{i}.i") for i in range(30)]
    graph = graph_of(
        [a for some, _, _ in made for a in some] + ends,
        *fifos,
        dpgs=tuple(dpg for _, _, dpg in made),
    )
    assert check(graph) == []


# A deployed graph: one stream, two branches, one of them behind a cut.

BRANCH = ("tx", "rx", "net", "tx2", "rx2")


def deployed() -> Graph:
    rows = {"edge": (1, 0), "exit": (0, 1), "drop": (0, 0)}
    governed = {
        0: ["fork.b0", "tx.i", "tx.o", "rx.i", "rx.o", "net.i", "net.o", "tx2.i",
            "tx2.o", "rx2.i", "rx2.o", "join.r0"],
        1: ["fork.b1", "exit.i", "exit.o", "join.r1"],
    }  # fmt: skip
    modes = {
        row: {PortRef.parse(ref): on[i] for i in (0, 1) for ref in governed[i]}
        for row, on in rows.items()
    }
    both = (into("i", 0, 1), out("o", 0, 1))
    steered = into("row", control=True)
    here = [
        actor("camera", out("o"), stateful=True),
        actor("fork", into("x"), steered, out("b0", 0, 1), out("b1", 0, 1)),
        actor("row", *(out(f"c{i}", control=True) for i in range(4))),
        actor("exit", *both, steered),
        replace(actor("tx", *both, steered), type="tx"),
        replace(actor("rx2", *both), type="rx"),
        actor("join", into("r0", 0, 1), into("r1", 0, 1), steered, out("outcome")),
        actor("result", into("answer"), stateful=True),
    ]
    there = [
        replace(actor("rx", *both), type="rx"),
        actor("net", *both),
        replace(actor("tx2", *both), type="tx"),
    ]
    return Graph(
        "deployed",
        {a.name: replace(a, device="cam") for a in here}
        | {a.name: replace(a, device="edge") for a in there},
        (
            fifo("camera.o", "fork.x"),
            fifo("fork.b0", "tx.i", capacity=8),
            fifo("tx.o", "rx.i", capacity=8),
            fifo("rx.o", "net.i", capacity=8),
            fifo("net.o", "tx2.i", capacity=8),
            fifo("tx2.o", "rx2.i", capacity=8),
            fifo("rx2.o", "join.r0", capacity=8),
            fifo("fork.b1", "exit.i", capacity=8),
            fifo("exit.o", "join.r1", capacity=8),
            fifo("join.outcome", "result.answer"),
            fifo("row.c0", "fork.row"),
            fifo("row.c1", "tx.row"),
            fifo("row.c2", "exit.row"),
            fifo("row.c3", "join.row"),
        ),
        (Dpg("region", "row", modes, frozenset({"rx", "net", "tx2", "rx2"})),),
        (
            Region(
                "region", "cam", "camera", "result", "row", "fork", "join",
                (
                    Branch("edge", BRANCH, "edge", "full"),
                    Branch("exit", ("exit",), "cam", "degraded"),
                ),
                window=8, deadline_ms=1000.0,
            ),
        ),
    )  # fmt: skip


def with_actor(graph: Graph, name: str, **changes: object) -> Graph:
    changed = replace(graph.actors[name], **changes)  # type: ignore[arg-type]
    return replace(graph, actors={**graph.actors, name: changed})


def with_fifo(graph: Graph, source: str, **changes: object) -> Graph:
    return replace(
        graph,
        fifos=tuple(
            replace(f, **changes) if str(f.source) == source else f  # type: ignore[arg-type]
            for f in graph.fifos
        ),
    )


def with_region(graph: Graph, **changes: object) -> Graph:
    return replace(graph, regions=(replace(graph.regions[0], **changes),))  # type: ignore[arg-type]


def together(graph: Graph, *rows: str) -> Graph:
    """Let some of the branches play in the row ``all`` of a replicating region."""
    graph = with_region(graph, redundancy=Redundancy("replicate", copies=2))
    (dpg,) = graph.dpgs
    drop = dpg.modes["drop"]
    every = {ref: max(dpg.modes[row][ref] for row in rows) for ref in drop}
    modes = {**{r: dpg.modes[r] for r in ("edge", "exit")}, "all": every, "drop": drop}
    return replace(graph, dpgs=(replace(dpg, modes=modes),))


def with_carried(graph: Graph, *names: str) -> Graph:
    return replace(graph, dpgs=(replace(graph.dpgs[0], carried=frozenset(names)),))


def test_row_in_which_all_branches_play_is_accepted():
    assert check(together(deployed(), "edge", "exit")) == []


def test_row_in_which_all_play_needs_room_for_all():
    """A FIFO too small there is found, though each row alone would not see it."""
    graph = together(deployed(), "edge", "exit")
    both = {PortRef("fork", "b0"): 2, PortRef("tx", "i"): 2}
    modes = {**graph.dpgs[0].modes, "all": {**graph.dpgs[0].modes["all"], **both}}
    graph = replace(graph, dpgs=(replace(graph.dpgs[0], modes=modes),))
    rates = (0, 1, 2)
    for name, port in (("fork", "b0"), ("tx", "i")):
        ports = graph.actors[name].ports
        wider = tuple(replace(p, rates=rates) if p.name == port else p for p in ports)
        graph = with_actor(graph, name, ports=wider)
    found = check(with_fifo(graph, "fork.b0", capacity=1))
    assert [f.rule for f in found] == ["R11"]


def test_deployed_stream_is_accepted():
    assert check(deployed()) == []


def test_member_behind_a_cut_that_is_not_carried_needs_a_control_fifo():
    found = check(with_carried(deployed(), "rx", "net", "rx2"))
    assert "actor 'tx2': has dynamic ports" in "".join(map(str, found))
    assert "R4" in {f.rule for f in found}


def test_carried_actor_beside_its_controller_is_refused():
    graph = deployed()
    assert any(
        "'exit': is carried, but stands on 'cam'" in str(finding)
        for finding in check(with_carried(graph, *graph.dpgs[0].carried, "exit"))
    )


def test_control_carried_by_a_tx_without_control_is_refused():
    graph = deployed()
    fifos = tuple(f for f in graph.fifos if str(f.source) != "row.c1")
    graph = replace(graph, fifos=fifos)
    row = replace(graph.actors["row"], ports=graph.actors["row"].ports[:1])
    row = replace(
        row, ports=tuple(p for p in deployed().actors["row"].ports if p.name != "c1")
    )
    tx = replace(graph.actors["tx"], ports=graph.actors["tx"].ports[:2])
    graph = replace(graph, actors={**graph.actors, "row": row, "tx": tx})
    texts = [str(f) for f in check(graph)]
    assert any("carried by 'tx', which has none" in text for text in texts)


def test_carried_actors_that_feed_only_each_other_are_refused():
    graph = deployed()
    loop = with_fifo(
        with_fifo(graph, "fork.b0", target=PortRef("rx2", "i")),
        "tx2.o",
        target=PortRef("tx", "i"),
    )
    assert "R4" in ids(loop)


def test_actor_without_a_device_among_others_is_refused():
    assert only(with_actor(deployed(), "camera", device=None)) == (
        "actor 'camera': is not mapped to a device, others are; map it (R12)"
    )


def test_fifo_between_devices_without_tx_and_rx_is_refused():
    text = only(with_actor(deployed(), "camera", device="edge"))
    assert text.startswith(
        "fifo camera.o -> fork.x: goes from 'edge' to 'cam' without TX, RX"
    )


def test_tx_at_a_fifo_that_stays_is_refused():
    assert "R12" in ids(with_actor(deployed(), "camera", type="tx"))


def test_pair_that_compresses_and_does_not_is_refused():
    text = only(with_actor(deployed(), "tx", params={"compression": "lz4"}))
    assert text == (
        "actor 'tx': compresses as 'lz4', RX 'rx' as ''; give both the same "
        "`compression` (R12)"
    )


def test_cut_holds_what_stands_before_in_and_behind_it():
    graph = deployed()
    found = cuts(graph, capacities(graph))
    assert [(c.source, c.target, c.capacity) for c in found] == [
        ("cam", "edge", 24),
        ("edge", "cam", 24),
    ]


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (
            with_actor(deployed(), "net", stateful=True),
            "actor 'net' is stateful and stands in a branch",
        ),
        (
            with_fifo(deployed(), "rx.o", delay=1),
            "fifo rx.o -> net.i has 1 initial tokens",
        ),
        (
            with_region(
                deployed(),
                branches=(
                    replace(
                        deployed().regions[0].branches[0], actors=(*BRANCH, "exit")
                    ),
                    deployed().regions[0].branches[1],
                ),
            ),
            "actor 'exit' of branch 'exit' is also in or the branch 'edge'",
        ),
        (
            with_region(
                deployed(),
                branches=(
                    replace(
                        deployed().regions[0].branches[0], actors=(*BRANCH, "result")
                    ),
                    deployed().regions[0].branches[1],
                ),
            ),
            "actor 'result' of branch 'edge' is also in or the sink",
        ),
        (
            with_region(deployed(), branches=deployed().regions[0].branches[::-1]),
            "its modes are edge, exit, drop, its rows exit, edge, drop",
        ),
        (
            with_region(deployed(), redundancy=Redundancy("replicate", copies=2)),
            "its modes are edge, exit, drop, its rows edge, exit, all, drop",
        ),
        (
            together(deployed(), "edge"),
            "in mode 'all' its join gets tokens on 1 FIFOs",
        ),
        (
            together(deployed(), "edge"),
            "fifo fork.b1 -> exit.i of branch 'exit' has tokens in the modes exit",
        ),
        (with_region(deployed(), fork="forks"), "its fork 'forks' is not in the graph"),
        (with_region(deployed(), name="other"), "has no DPG of its name"),
    ],
)
def test_regions_that_leave_traces_are_refused(graph, said):
    found = [finding for finding in check(graph) if finding.rule == "R14"]
    assert any(finding.problem == said for finding in found), found


def test_branch_that_reads_around_the_fork_is_refused():
    graph = deployed()
    camera = graph.actors["camera"]
    leaf = graph.actors["exit"]
    graph = with_actor(graph, "camera", ports=(*camera.ports, out("side")))
    graph = with_actor(graph, "exit", ports=(*leaf.ports, into("side")))
    graph = replace(graph, fifos=(*graph.fifos, fifo("camera.side", "exit.side")))
    found = [f for f in check(graph) if f.rule == "R14"]
    assert [f.fix for f in found] == ["lead it through 'fork', which retains it"]


def test_branch_that_fires_twice_where_it_begins_is_refused():
    graph = deployed()
    rates = (0, 1, 2)
    fork = graph.actors["fork"]
    ports = tuple(replace(p, rates=rates) if p.name == "b1" else p for p in fork.ports)
    graph = with_actor(graph, "fork", ports=ports)
    row = dict(graph.dpgs[0].modes["exit"]) | {PortRef("fork", "b1"): 2}
    dpg = replace(graph.dpgs[0], modes={**graph.dpgs[0].modes, "exit": row})
    assert ids(replace(graph, dpgs=(dpg,))) & {"R8", "R14"}


def test_rules_have_ids_of_their_own_and_stand_on_rules_before_them():
    seen: list[str] = []
    for rule in RULES:
        assert rule.id not in seen
        assert set(rule.stands_on) <= set(seen)
        seen.append(rule.id)


def test_optional_input_may_stay_open_and_is_not_there_for_its_actor() -> None:
    """A sink's label is optional; a graph without labels was rejected by R1."""
    source = Actor("camera", "x", (Port("frame", "out"),))
    sink = Actor(
        "result", "x", (Port("answer", "in"), Port("label", "in", optional=True))
    )
    fifo = Fifo(PortRef("camera", "frame"), PortRef("result", "answer"))
    graph = Graph("g", {"camera": source, "result": sink}, (fifo,))

    class Seen(Behaviour):
        def __init__(self) -> None:
            self.arguments: list[tuple[object, ...]] = []

        def fire(self, *tokens: object) -> object:
            self.arguments.append(tokens)
            return None

    class One(Behaviour):
        def __init__(self) -> None:
            pass

        def fire(self) -> object:
            return np.float32(1)

    seen = Seen()
    chain = Chain(
        graph, ["camera", "result"], {"camera": One(), "result": seen}, (), ()
    )
    chain.run(())
    assert check(graph) == []
    assert seen.arguments == [(np.float32(1),)]
