"""Random graphs with many and nested DPGs: what the rules accept runs in any modes."""

import itertools
import random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dataflow.analysis import DeadlockError, repetition_vector
from dataflow.errors import UnderstudyError
from dataflow.graph import Graph
from dataflow.modes import at_once, mode_combinations, shared_counts
from dataflow.rules import check
from dataflow.schedule import schedule
from tests.support.dynamic_graphs import Builder
from tests.support.playing import (
    Play,
    assert_least,
    cured,
    deadlock_of,
    mode_sequence,
    stuck_actors,
)

quick = settings(
    max_examples=60,
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
            if self.draw(st.integers(0, 3)) == 0:  # one that remembers
                tokens = self.draw(st.sampled_from([0, 1, 2]))
                self.build.static(first, first, delay=tokens)
        if self.draw(st.booleans()):
            self.build.static(entry, last, delay=self.draw(st.sampled_from([0, 0, 2])))
        if self.draw(st.integers(0, 3)) == 0:
            delay = self.draw(st.sampled_from([0, 1, 2]))
            self.build.static(last, f"c{dpg}", delay=delay)
        if self.draw(st.integers(0, 3)) == 0:
            rates = (1, 1), (2, 2), (3, 3)
            delay = self.draw(st.sampled_from([0, 1, 2, 3]))
            self.build.static(last, entry, self.draw(st.sampled_from(rates)), delay)
        return entry, last


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return a graph with regions; some feed back, some leak, some lack tokens."""
    drawing = Drawing(draw)
    first, last = drawing.region(2)
    drawing.build.static("source", first)
    drawing.build.static(last, "sink", (1, draw(st.sampled_from([1, 1, 1, 2]))))
    several = draw(st.sampled_from([1, 1, 2, 3]))  # who fires more often than the rest
    drawing.build.static("burst", "source", (1, several))
    drawing.build.static("source", "burst", (several, 1), draw(st.integers(0, 3)))
    if draw(st.integers(0, 7)) == 0:
        inside = draw(st.integers(1, drawing.actors))
        drawing.build.static(f"a{inside}", "aside")
    return drawing.build.graph()


@quick
@given(graphs(), st.integers(0, 2**32))
def test_accepted_graphs_run_in_any_sequence_of_modes(graph: Graph, seed: int) -> None:
    found = {finding.rule for finding in check(graph)}
    if found:
        assert found <= {"R5", "R6", "R8", "R9", "R10"}
        return
    play = Play(graph)
    for modes in mode_sequence(graph, random.Random(seed)):
        play.iterate(modes)


@settings(quick, max_examples=30)
@given(graphs(), st.integers(0, 2**32))
def test_deadlocked_graphs_stop_where_foretold_and_run_when_cured(
    graph: Graph, seed: int
) -> None:
    found = {finding.rule for finding in check(graph)}
    assume(found & {"R6", "R10"} and not found & {"R5", "R8", "R9"})
    rnd = random.Random(seed)
    endless = dict.fromkeys(graph.fifos, 1_000)
    for modes in itertools.islice(mode_combinations(graph), 8):
        error = deadlock_of(graph, modes)
        assert set(error.blocked if error else ()) == stuck_actors(graph, modes, rnd)
        if error is None:
            continue
        assert_least(graph, modes, error)
        with pytest.raises(UnderstudyError) as caught:
            Play(graph, endless).iterate(modes)
        if isinstance(caught.value, DeadlockError):
            assert caught.value.blocked == error.blocked
        else:
            assert "controller cannot fire before its mode is known" in str(
                caught.value
            )
    mended = cured(graph)
    assert check(mended) == []
    play = Play(mended)
    for modes in mode_sequence(mended, rnd):
        play.iterate(modes)


def one_by_one(graph: Graph) -> set[str]:
    """Return what R8, R9 and R10 find when they look at every combination of modes."""
    found = set()
    vectors = set()
    dynamic = {name for dpg in graph.dpgs for name in dpg.members}
    for modes in mode_combinations(graph):
        try:
            counts = repetition_vector(graph, modes)
            vectors.add(tuple(n for name, n in counts.items() if name not in dynamic))
            if any(counts[dpg.controller] > 1 for dpg in graph.dpgs):
                found.add("periods")
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
