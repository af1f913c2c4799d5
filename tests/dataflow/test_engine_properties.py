"""Random graphs: what the analysis promises is what happens when they run.

Graphs are multirate, cyclic or not, with initial tokens, consistent by construction,
and may hold a DPG: a controller that gates some FIFOs, differently in each mode.
"""

import itertools
import random
from dataclasses import replace
from math import lcm
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.analysis import (
    DeadlockError,
    capacities,
    mode_combinations,
    repetition_vector,
    schedule,
)
from dataflow.behaviour import Behaviour, Site
from dataflow.engine import Chain
from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef
from dataflow.rules import check

ITERATIONS = 50
SITE = Site("here", "here", 0, Path(), None, 8)

quick = settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
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
    gated_count = draw(st.sampled_from(counts))
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


class Player(Behaviour):
    """Moves numbers at the rates of the mode, and watches the FIFOs' fill."""

    def __init__(self, graph: Graph, name: str, play: "Play") -> None:
        super().__init__({}, SITE)
        self.name = name
        self.play = play
        self.ins = [
            PortRef(name, p.name) for p in graph.actors[name].inputs if not p.control
        ]
        self.outs = [
            PortRef(name, p.name) for p in graph.actors[name].outputs if not p.control
        ]

    def fire(self, *tokens):
        play = self.play
        play.fired[self.name] = play.fired.get(self.name, 0) + 1
        play.watch()
        for ref, token in zip(self.ins, tokens, strict=True):
            rate = play.graph.rate(ref, play.modes)
            assert isinstance(token, int) if rate == 1 else len(token) == rate
        made = []
        for ref in self.outs:
            rate = play.graph.rate(ref, play.modes)
            made.append(7 if rate == 1 else [7] * rate)
        if self.name == "ca":
            made.append(list(play.graph.dpgs[0].modes).index(play.modes["d"]))
        return made[0] if len(made) == 1 else tuple(made) or None


class Play:
    """A graph that runs, one mode per iteration."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sized = capacities(graph)
        self.modes: dict[str, str] = {}
        self.fired: dict[str, int] = {}
        players = {name: Player(graph, name, self) for name in graph.actors}
        self.chain = Chain(graph, list(graph.actors), players, (), ())

    def watch(self) -> None:
        for fifo, count in self.chain.fill().items():
            assert count <= self.sized[fifo], fifo

    def iterate(self, modes: dict[str, str]) -> None:
        self.modes, self.fired = modes, {}
        self.chain.run(())
        self.watch()


@quick
@given(graphs(), st.integers(0, 2**32))
def test_accepted_graphs_run_in_any_sequence_of_modes_within_their_capacities(
    graph, seed
):
    found = check(graph)
    if found:
        # FIFOs are gated wherever it falls, so regions are rarely proper (R5).
        assert {finding.rule for finding in found} <= {"R5", "R10"}
        return
    rnd = random.Random(seed)
    sequences = list(mode_combinations(graph))
    play = Play(graph)
    for _ in range(ITERATIONS):
        modes = rnd.choice(sequences)
        play.iterate(modes)
        counts = repetition_vector(graph, modes)
        stats = play.chain.stats().actors
        for name, count in counts.items():
            assert play.fired.get(name, 0) in {count, 0}
        assert sum(s.firings + s.skips for s in stats.values()) > 0
        assert play.chain.fill() == {f: f.delay for f in graph.fifos}


def stuck_actors(graph: Graph, modes: dict[str, str], rnd: random.Random) -> set[str]:
    """Fire any enabled actor, one at a time, in random order, until none is left."""
    left = repetition_vector(graph, modes)
    tokens = {fifo: fifo.delay for fifo in graph.fifos}

    def enabled(name: str) -> bool:
        return left[name] > 0 and all(
            tokens[f] >= graph.rate(f.target, modes) for f in graph.inputs(name)
        )

    while able := [name for name in graph.actors if enabled(name)]:
        name = rnd.choice(able)
        left[name] -= 1
        for fifo in graph.inputs(name):
            tokens[fifo] -= graph.rate(fifo.target, modes)
        for fifo in graph.outputs(name):
            tokens[fifo] += graph.rate(fifo.source, modes)
    return {name for name, count in left.items() if count}


def with_tokens(graph: Graph, extra: dict[Fifo, int]) -> Graph:
    return replace(
        graph,
        fifos=tuple(replace(f, delay=f.delay + extra.get(f, 0)) for f in graph.fifos),
    )


def deadlock_of(graph: Graph, modes: dict[str, str]) -> DeadlockError | None:
    try:
        schedule(graph, modes)
    except DeadlockError as error:
        return error
    return None


def is_live(graph: Graph, modes: dict[str, str]) -> bool:
    return deadlock_of(graph, modes) is None


@quick
@given(graphs(), st.integers(0, 2**32))
def test_deadlocks_block_the_actors_foretold_and_the_fix_cures_them(graph, seed):
    for modes in mode_combinations(graph):
        stuck = stuck_actors(graph, modes, random.Random(seed))
        error = deadlock_of(graph, modes)
        assert set(error.blocked if error else ()) == stuck
        if error is not None:
            assert is_live(with_tokens(graph, dict(error.extra)), modes)
            assert_least(graph, modes, error)


def assert_least(graph: Graph, modes: dict[str, str], error: DeadlockError) -> None:
    """No smaller set of FIFOs would do, and no token of the fix can be left out."""
    for fifo, tokens in error.extra.items():
        fewer = {**error.extra, fifo: tokens - 1}
        assert not is_live(with_tokens(graph, fewer), modes)
    if error.exact:
        data = [f for f in graph.fifos if not graph.port(f.source).control]
        for chosen in itertools.combinations(data, len(error.extra) - 1):
            assert not is_live(with_tokens(graph, dict.fromkeys(chosen, 99)), modes)


@quick
@given(graphs())
def test_cures_of_all_modes_together_make_a_graph_acceptable(graph):
    extra: dict[Fifo, int] = {}
    for modes in mode_combinations(graph):
        if (error := deadlock_of(graph, modes)) is not None:
            for fifo, tokens in error.extra.items():
                extra[fifo] = max(extra.get(fifo, 0), tokens)
    assert {f.rule for f in check(with_tokens(graph, extra))} <= {"R5"}


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
