"""Random graphs with many and nested DPGs: what the rules accept runs in any modes."""

import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow.analysis import capacities, repetition_vector
from dataflow.behaviour import Behaviour, Site
from dataflow.engine import Chain
from dataflow.graph import Graph, PortRef
from dataflow.modes import at_once, mode_combinations, shared_counts
from dataflow.rules import check
from dataflow.schedule import schedule
from tests.support.dynamic_graphs import Builder

SITE = Site("here", "here", 0, Path(), None, 8)

quick = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)

Rates = dict[str, int | None]


class Drawing:
    """Draws a graph of chains and regions, some of them inside others."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.build = Builder()
        self.actors = 0
        self.regions = 0

    def actor(self) -> str:
        self.actors += 1
        return f"a{self.actors}"

    def piece(self, depth: int) -> tuple[str, str]:
        """Return the first and the last actor of a piece."""
        kind = self.draw(st.sampled_from(["actor", "chain", "region", "region"]))
        if kind == "actor" or not depth or self.regions > 4:
            name = self.actor()
            return name, name
        if kind == "chain":
            first, middle = self.piece(depth - 1)
            again, last = self.piece(depth - 1)
            self.build.static(middle, again)
            return first, last
        return self.region(depth)

    def region(self, depth: int) -> tuple[str, str]:
        self.regions += 1
        dpg = f"d{self.regions}"
        entry, last = self.actor(), self.actor()
        self.build.controllers[dpg] = f"c{dpg}"
        modes = self.draw(st.integers(2, 3))
        for _ in range(self.draw(st.integers(1, 3))):
            some = st.sampled_from([0, 1, 2, 4])
            rates: Rates = {f"m{mode}": self.draw(some) for mode in range(modes)}
            if not any(rates.values()):
                rates["m1"] = 1
            first, end = self.piece(depth - 1)
            self.build.gated(dpg, entry, first, rates)
            self.build.gated(dpg, end, last, rates)
        if self.draw(st.booleans()):
            self.build.static(entry, last, delay=self.draw(st.sampled_from([0, 0, 2])))
        if self.draw(st.integers(0, 3)) == 0:
            delay = self.draw(st.sampled_from([0, 1, 2]))
            self.build.static(last, f"c{dpg}", delay=delay)
        return entry, last


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a graph with regions; some feed back, some leak, some lack tokens."""
    drawing = Drawing(draw)
    first, last = drawing.region(2)
    drawing.build.static("source", first)
    drawing.build.static(last, "sink", (1, draw(st.sampled_from([1, 1, 2]))))
    if draw(st.integers(0, 7)) == 0:
        inside = draw(st.integers(1, drawing.actors))
        drawing.build.static(f"a{inside}", "aside")
    return drawing.build.graph()


class Mover(Behaviour):
    """Moves numbers at the rates of the mode; a controller names the mode drawn."""

    def __init__(self, graph: Graph, name: str, modes: dict[str, str]) -> None:
        super().__init__({}, SITE)
        self.graph = graph
        self.modes = modes
        ports = graph.actors[name].outputs
        self.outs = [PortRef(name, p.name) for p in ports if not p.control]
        self.governs = next((d for d in graph.dpgs if d.controller == name), None)

    def fire(self, *tokens: object) -> object:
        rates = [self.graph.rate(ref, self.modes) for ref in self.outs]
        made: list[object] = [7 if rate == 1 else [7] * rate for rate in rates]
        if self.governs is not None:
            made.append(list(self.governs.modes).index(self.modes[self.governs.name]))
        return made[0] if len(made) == 1 else tuple(made) or None


@quick
@given(graphs(), st.integers(0, 2**32))
def test_accepted_graphs_run_in_any_sequence_of_modes(graph: Graph, seed: int) -> None:
    found = {finding.rule for finding in check(graph)}
    if found:
        assert found <= {"R5", "R6", "R8", "R9", "R10"}
        return
    rnd = random.Random(seed)
    sized = capacities(graph)
    modes: dict[str, str] = {}
    movers = {name: Mover(graph, name, modes) for name in graph.actors}
    chain = Chain(graph, list(graph.actors), movers, (), (), capacities=sized)
    for _ in range(50):
        modes.update({d.name: rnd.choice(list(d.modes)) for d in graph.dpgs})
        chain.run(())
        peaks = schedule(graph, modes, sized).peaks
        assert all(peaks[fifo] <= sized[fifo] for fifo in peaks)
        assert chain.fill() == {fifo: fifo.delay for fifo in graph.fifos}


def one_by_one(graph: Graph) -> set[str]:
    """Return what R8, R9 and R10 find when they look at every combination of modes."""
    found = set()
    vectors = set()
    dynamic = {name for dpg in graph.dpgs for name in dpg.members}
    for modes in mode_combinations(graph):
        try:
            counts = repetition_vector(graph, modes)
            vectors.add(tuple(n for name, n in counts.items() if name not in dynamic))
            schedule(graph, modes)
        except Exception as error:
            found.add(type(error).__name__)
    if len(vectors) > 1:
        found.add("periods")
    return found


@quick
@given(graphs())
def test_all_modes_at_once_say_what_each_mode_says(graph: Graph) -> None:
    named = {"R6": "DeadlockError", "R8": "RateError", "R9": "periods",
             "R10": "DeadlockError"}  # fmt: skip
    rules = {finding.rule for finding in check(graph)}
    each = one_by_one(graph)
    assert {named[rule] for rule in rules if rule in named} == (
        {"RateError"} if "RateError" in each else each
    )
    counts = shared_counts(graph, at_once(graph))
    if counts is not None:
        for modes in mode_combinations(graph):
            assert repetition_vector(graph, modes) == counts
