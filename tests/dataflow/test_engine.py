from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataflow.behaviour import Behaviour, Sink, Site, Source, StreamEnd
from dataflow.engine import Chain, run_graph
from dataflow.errors import ActorError, UnderstudyError
from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef, TokenType
from dataflow.outcome import Outcome

SITE = Site("here", "here", 0, Path(), None, 8)
PAIR = TokenType("float32", (2,))


def token(value: float) -> np.ndarray:
    return np.full(2, value, np.float32)


class Does(Behaviour):
    """Fires a function of the test."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__({}, SITE)
        self.fire = function  # type: ignore[method-assign]


def into(name: str, *rates: int) -> Port:
    return Port(name, "in", PAIR, rates or (1,))


def out(name: str, *rates: int) -> Port:
    return Port(name, "out", PAIR, rates or (1,))


def control(name: str, direction: str) -> Port:
    return Port(name, direction, control=True)  # type: ignore[arg-type]


def fifo(text: str, **changes: int) -> Fifo:
    source, target = text.split(" -> ")
    return Fifo(PortRef.parse(source), PortRef.parse(target), **changes)


def graph_of(ports: dict[str, tuple[Port, ...]], *fifos: Fifo, dpg: Dpg | None = None):
    actors = {name: Actor(name, "test", p) for name, p in ports.items()}
    return Graph("test", actors, fifos, (dpg,) if dpg else ())


def chain(
    graph: Graph,
    functions: dict[str, Callable[..., object]],
    inputs: str = "",
    outputs: str = "",
    **more: object,
) -> Chain:
    return Chain(
        graph,
        list(functions),
        {name: Does(function) for name, function in functions.items()},
        [PortRef.parse(ref) for ref in inputs.split()],
        [PortRef.parse(ref) for ref in outputs.split()],
        **more,  # type: ignore[arg-type]
    )


ROW = graph_of(
    {"a": (into("i"), out("o")), "b": (into("i"), out("o"))}, fifo("a.o -> b.i")
)


def row(a: Callable[..., object], b: Callable[..., object]) -> Chain:
    return chain(ROW, {"a": a, "b": b}, "a.i", "b.o")


def same(x):
    return x


def test_tokens_pass_through_the_chain_in_order():
    made = row(lambda x: x + 1, lambda x: x * 2)
    assert made.run([token(3)])[0].tolist() == [8, 8]


def test_an_actor_of_several_ports_gets_and_gives_them_in_port_order():
    graph = graph_of({"a": (into("x"), out("p"), into("y"), out("q"))})
    made = chain(graph, {"a": lambda x, y: (y, x)}, "a.y a.x", "a.p a.q")
    assert [t[0] for t in made.run([token(2), token(1)])] == [2, 1]


def test_rates_above_one_are_lists():
    graph = graph_of(
        {
            "a": (into("i"), out("o", 2)),
            "b": (into("i", 3), out("o")),
        },
        fifo("a.o -> b.i"),
    )
    seen = []

    def add(tokens):
        seen.append([t[0] for t in tokens])
        return sum(tokens)

    made = chain(graph, {"a": lambda x: [x, x + 1], "b": add}, "a.i", "b.o")
    assert [t[0] for t in made.run([[token(0), token(10), token(20)]])[0]] == [11, 52]
    assert seen == [[0, 1, 10], [11, 20, 21]]


def test_initial_tokens_are_zeros_and_last_from_iteration_to_iteration():
    graph = graph_of(
        {"sum": (into("i"), into("before"), out("o"), out("after"))},
        fifo("sum.after -> sum.before", delay=1),
    )
    made = chain(graph, {"sum": lambda x, s: (x + s, x + s)}, "sum.i", "sum.o")
    assert [made.run([token(n)])[0][0] for n in (1, 2, 3)] == [1, 3, 6]


def test_a_firing_count_is_that_of_the_whole_graph():
    """The chain alone would be content with one firing of each."""
    graph = graph_of(
        {"a": (into("i"), out("o")), "batch": (into("i", 4),)}, fifo("a.o -> batch.i")
    )
    made = chain(graph, {"a": same}, "a.i", "a.o")
    tokens = [token(n) for n in range(4)]
    assert [t[0] for t in made.run([tokens])[0]] == [0, 1, 2, 3]


def test_unconnected_optional_output_is_discarded():
    tap = Port("tap", "out", PAIR, optional=True)
    graph = graph_of({"a": (into("i"), out("o"), tap)})
    made = chain(graph, {"a": lambda x: (x, x)}, "a.i", "a.o")
    assert len(made.run([token(1)])) == 1


def test_counters_tell_firings_and_time():
    made = row(same, same)
    for _ in range(5):
        made.run([token(0)])
    stats = made.stats()
    assert (stats.iterations, stats.actors["a"].firings) == (5, 5)
    assert 0 < stats.actors["b"].busy_ns < stats.busy_ns


def test_an_error_of_an_actor_names_it_and_keeps_the_cause():
    def fail(x):
        raise KeyError("weights")

    with pytest.raises(ActorError, match=r"actor 'b': KeyError: 'weights'") as caught:
        row(same, fail).run([token(0)], iteration=17)
    assert str(caught.value).endswith("(iteration 17)")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_iteration_that_failed_leaves_no_tokens():
    graph = graph_of(
        {
            "sum": (into("i"), into("before"), out("o"), out("after")),
            "b": (into("i"), out("o")),
        },
        fifo("sum.after -> sum.before", delay=1),
        fifo("sum.o -> b.i"),
    )

    def odd(x):
        if x[0] > 100:
            raise ValueError("too much")
        return x

    made = chain(graph, {"sum": lambda x, s: (x + s, x + s), "b": odd}, "sum.i", "b.o")
    made.run([token(1)])
    with pytest.raises(ActorError):
        made.run([token(100)])
    assert made.run([token(2)])[0][0] == 3


@pytest.mark.parametrize(
    ("ports", "made", "said"),
    [
        (
            (out("o"),),
            np.zeros(3, np.float32),
            "returned float32[3] on port 'o'; return float32[2]",
        ),
        (
            (out("o"),),
            np.zeros(2),
            "returned float64[2] on port 'o'; return float32[2]",
        ),
        ((out("o"),), None, "returned nothing on port 'o'; return float32[2]"),
        ((out("o"),), 3, "returned a int on port 'o'; return float32[2]"),
        (
            (out("o"), out("p")),
            token(0),
            "returned float32[2]; return a tuple of 2, one per output port",
        ),
        (
            (out("o"), out("p")),
            (token(0),),
            "returned a tuple of 1; return a tuple of 2, one per output port",
        ),
        (
            (out("o", 2),),
            [token(0)],
            "returned 1 tokens on port 'o'; its rate is 2, return a list of 2",
        ),
        (
            (out("o", 2),),
            token(0),
            "returned float32[2] on port 'o'; its rate is 2, return a list of 2",
        ),
        ((), token(0), "returned float32[2]; return None"),
    ],
)
def test_what_the_ports_do_not_declare_is_refused(ports, made, said):
    graph = graph_of({"a": (into("i"), *ports)})
    refs = " ".join(f"a.{p.name}" for p in ports)
    with pytest.raises(ActorError) as caught:
        chain(graph, {"a": lambda _: made}, "a.i", refs).run([token(0)])
    assert str(caught.value) == f"actor 'a': {said} (iteration 0)"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("entering", "said"),
    [
        (np.zeros(3, np.float32), "port a.i: gets float32[3]; it takes float32[2]"),
        ([], "port a.i: gets 0 tokens; this iteration takes 1"),
        (
            [token(0), token(0)],
            "port a.i: gets 2 tokens; this iteration takes 1",
        ),
    ],
)
def test_what_enters_is_checked_and_not_blamed_on_an_actor(entering, said):
    made = row(same, same)
    with pytest.raises(UnderstudyError) as caught:
        made.run([entering])
    assert not isinstance(caught.value, ActorError)
    assert str(caught.value) == said
    made.run([token(0)])


def test_an_outcome_passes_where_an_answer_is_declared():
    seen = []
    graph = graph_of({"result": (into("answer"),)})
    outcome = Outcome("cam", 1, 0, 0, "dropped", "drop", "rate", None, 0.0, 0.0, 0)
    chain(graph, {"result": seen.append}, "result.answer").run([outcome])
    assert seen == [outcome]


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ("", "b.o", "port a.i: fifo src.o -> a.i crosses the border"),
        ("a.i", "", "port b.o: fifo b.o -> snk.i crosses the border"),
        ("a.i b.i", "b.o", "port b.i: no FIFO crosses the border"),
    ],
)
def test_the_ports_of_a_chain_are_those_at_its_border(inputs, outputs, said):
    graph = graph_of(
        {
            "src": (out("o"),),
            "a": (into("i"), out("o")),
            "b": (into("i"), out("o")),
            "snk": (into("i"),),
        },
        fifo("src.o -> a.i"),
        fifo("a.o -> b.i"),
        fifo("b.o -> snk.i"),
    )
    with pytest.raises(UnderstudyError, match=said):
        chain(graph, {"a": same, "b": same}, inputs, outputs)


# A switch x, a branch p that may be off, a merge y; ca chooses.


def switched() -> Graph:
    on = {"x.p", "p.i", "p.o", "y.p"}
    modes = {
        m: {PortRef.parse(ref): n for ref in on} for n, m in enumerate(("off", "on"))
    }
    return graph_of(
        {
            "ca": (into("i"), *(control(c, "out") for c in ("cx", "cp", "cy"))),
            "x": (into("i"), control("c", "in"), out("p", 0, 1), out("q")),
            "p": (into("i", 0, 1), control("c", "in"), out("o", 0, 1)),
            "y": (into("p", 0, 1), into("q"), control("c", "in"), out("o")),
        },
        fifo("ca.cx -> x.c"),
        fifo("ca.cp -> p.c"),
        fifo("ca.cy -> y.c"),
        fifo("x.p -> p.i"),
        fifo("x.q -> y.q"),
        fifo("p.o -> y.p"),
        dpg=Dpg("d", "ca", modes),
    )


def split(x):
    """Give the token to the branch if it is asked for."""
    return (x if x[0] > 0 else [], x)


def merge(from_branch, bypass):
    return bypass if isinstance(from_branch, list) else from_branch


BRANCHED = {"x": split, "p": lambda x: x * 10, "y": merge}


def test_a_controller_inside_names_the_mode_of_each_iteration():
    functions = {"ca": lambda i: int(i[0] > 0), **BRANCHED}
    made = chain(switched(), functions, "ca.i x.i", "y.o")
    results = [made.run([token(n), token(n)])[0][0] for n in (-1, 2, -3, 4, 5)]
    assert results == [-1, 20, -3, 40, 50]
    assert not any(made.fill().values())


def test_an_actor_that_is_off_takes_its_control_token_and_is_not_called():
    functions = {"ca": lambda i: int(i[0] > 0), **BRANCHED}
    made = chain(switched(), functions, "ca.i x.i", "y.o")
    for n in (-1, 2, -3):
        made.run([token(n), token(n)])
    stats = made.stats().actors["p"]
    assert (stats.firings, stats.skips) == (1, 2)


def test_control_tokens_may_come_from_outside():
    made = chain(switched(), BRANCHED, "x.i x.c p.c y.c", "y.o")
    assert made.run([token(2), 1, 1, 1])[0][0] == 20
    assert made.run([token(-2), 0, 0, np.int32(0)])[0][0] == -2


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ((1, 0, 1), r"name the modes \[0, 1\]; they must name one"),
        ((2, 2, 2), "names mode 2 of 'd', which has 0 to 1"),
        (("on", "on", "on"), "names a mode by a str; give its index"),
    ],
)
def test_control_tokens_from_outside_are_checked(tokens, said):
    made = chain(switched(), BRANCHED, "x.i x.c p.c y.c", "y.o")
    with pytest.raises(UnderstudyError, match=said):
        made.run([token(2), *tokens])


def test_a_mode_that_does_not_exist_is_the_controllers_error():
    functions = {"ca": lambda _: 7, **BRANCHED}
    made = chain(switched(), functions, "ca.i x.i", "y.o")
    with pytest.raises(ActorError, match="actor 'ca': names mode 7 of 'd'"):
        made.run([token(1), token(1)])


def test_control_that_leaves_the_chain_is_handed_out():
    made = chain(switched(), {"ca": lambda _: 1}, "ca.i", "ca.cx ca.cp ca.cy")
    assert made.run([token(0)]) == [1, 1, 1]


def test_a_chain_of_one_fixed_mode_reads_no_control():
    """A branch of a region plays in its own row only."""
    made = chain(switched(), {"p": lambda x: x * 10}, "p.i", "p.o", modes={"d": "on"})
    assert made.run([token(3)])[0][0] == 30


def test_a_chain_that_cannot_know_its_mode_is_refused():
    graph = switched()
    actors = dict(graph.actors)
    for name in ("ca", "p"):
        ports = tuple(p for p in actors[name].ports if p.name not in ("cp", "c"))
        actors[name] = Actor(name, "test", ports)
    fifos = tuple(f for f in graph.fifos if f.target != PortRef("p", "c"))
    graph = Graph("test", actors, fifos, graph.dpgs)
    with pytest.raises(UnderstudyError, match="fix its mode with `modes`"):
        chain(graph, {"p": same}, "p.i", "p.o")


def test_a_controller_may_be_the_switch_itself():
    modes = {
        name: {PortRef("x", "p"): rate, PortRef("y", "p"): rate}
        for name, rate in (("none", 0), ("two", 2))
    }
    graph = graph_of(
        {
            "x": (into("i"), out("p", 0, 2), control("c", "out")),
            "y": (into("p", 0, 2), control("c", "in"), out("o")),
        },
        fifo("x.p -> y.p"),
        fifo("x.c -> y.c"),
        dpg=Dpg("d", "x", modes),
    )
    functions = {
        "x": lambda i: ([i, i], 1) if i[0] > 0 else ([], 0),
        "y": lambda p: sum(p, token(0)),
    }
    made = chain(graph, functions, "x.i", "y.o")
    assert [made.run([token(n)])[0][0] for n in (1, -1, 3)] == [2, 0, 6]


class Counting(Source):
    def __init__(self, last: int) -> None:
        super().__init__({"rate_hz": 1}, SITE)
        self.next = 0
        self.last = last
        self.calls: list[str] = []

    def start(self):
        self.calls.append("start")

    def fire(self):
        if self.next > self.last:
            raise StreamEnd
        self.next += 1
        return token(self.next - 1)

    def stop(self):
        self.calls.append("stop")


class Keeping(Sink):
    def __init__(self) -> None:
        super().__init__({}, SITE)
        self.seen: list[Outcome] = []
        self.ended: list[int] = []

    def fire(self, outcome):
        self.seen.append(outcome)

    def end(self, last):
        self.ended.append(last)


WHOLE = graph_of(
    {"src": (out("o"),), "net": (into("i"), out("o")), "snk": (into("answer"),)},
    fifo("src.o -> net.i"),
    fifo("net.o -> snk.answer"),
)


def test_a_whole_graph_runs_until_its_source_ends():
    source, sink = Counting(4), Keeping()
    stats = run_graph(WHOLE, {"src": source, "net": Does(lambda x: -x), "snk": sink})
    assert stats.iterations == 5
    assert [o.value[0] for o in sink.seen] == [0, -1, -2, -3, -4]
    assert [(o.first, o.status) for o in sink.seen] == [(n, "full") for n in range(5)]
    assert sink.ended == [4]
    assert source.calls == ["start", "stop"]


def test_a_whole_graph_stops_after_the_iterations_asked_for():
    stats = run_graph(
        WHOLE, {"src": Counting(9), "net": Does(same), "snk": Keeping()}, iterations=3
    )
    assert stats.iterations == 3


def test_behaviours_are_stopped_after_an_error():
    source = Counting(4)

    def fail(x):
        raise RuntimeError("boom")

    with pytest.raises(ActorError, match="boom"):
        run_graph(WHOLE, {"src": source, "net": Does(fail), "snk": Keeping()})
    assert source.calls == ["start", "stop"]


# --- several iterations at once ------------------------------------------------

LINE = graph_of(
    {"a": (into("x"), out("y")), "b": (into("x"), out("y"))}, fifo("a.y -> b.x")
)


class Counts(Does):
    """Notes how many firings come at once."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self.counts: list[int] = []

    def fire_many(self, firings):
        self.counts.append(len(firings))
        return super().fire_many(firings)


def line(first: Behaviour, second: Behaviour) -> Chain:
    ends = (PortRef("a", "x"),), (PortRef("b", "y"),)
    return Chain(LINE, ["a", "b"], {"a": first, "b": second}, *ends)


def test_several_iterations_at_once_are_those_one_after_the_other() -> None:
    first, second = Counts(lambda x: x + 1), Counts(lambda x: x * 2)
    made = line(first, second)
    results = made.run_many([[token(i)] for i in range(5)])
    assert [result[0].tolist() for result in results] == [
        [2 * (i + 1)] * 2 for i in range(5)
    ]
    assert (first.counts, second.counts) == ([5], [5])
    stats = made.stats()
    assert (stats.iterations, stats.actors["b"].firings) == (5, 5)


def test_actor_that_fires_twice_per_iteration_is_fired_as_ever() -> None:
    graph = graph_of({"a": (into("x"), out("y", 2)), "b": (into("x"), out("y"))},
                     fifo("a.y -> b.x"))  # fmt: skip
    made = Chain(
        graph,
        ["a", "b"],
        {"a": Does(lambda x: [x, -x]), "b": Counts(lambda x: x)},
        (PortRef("a", "x"),),
        (PortRef("b", "y"),),
    )
    results = made.run_many([[token(1)], [token(2)]])
    assert [[t[0] for t in result[0]] for result in results] == [[1, -1], [2, -2]]


def test_actor_that_takes_two_tokens_per_firing_is_fired_as_ever() -> None:
    graph = graph_of({"a": (into("x"), out("y", 2)), "b": (into("x", 2), out("y"))},
                     fifo("a.y -> b.x"))  # fmt: skip
    made = Chain(
        graph,
        ["a", "b"],
        {"a": Does(lambda x: [x, 3 * x]), "b": Does(lambda both: both[0] + both[1])},
        (PortRef("a", "x"),),
        (PortRef("b", "y"),),
    )
    results = made.run_many([[token(1)], [token(2)]])
    assert [result[0].tolist() for result in results] == [[4, 4], [8, 8]]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (lambda firings: [firings[0][0]], "1 answers to 3 firings"),
        (lambda firings: [np.zeros(3, np.float32)] * 3, r"float32\[3\]"),
    ],
)
def test_wrong_answers_of_a_batch_are_refused_and_leave_nothing_behind(
    answers: Callable[..., object], said: str
) -> None:
    first, second = Does(lambda x: x), Does(lambda x: x)
    second.fire_many = answers  # type: ignore[method-assign,assignment]
    made = line(first, second)
    with pytest.raises(ActorError, match=said):
        made.run_many([[token(i)] for i in range(3)])
    assert set(made.fill().values()) == {0}
    (result,) = made.run([token(7)])
    assert result.tolist() == [7, 7]
