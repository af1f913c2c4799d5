"""How often and how fast: exact throughput and latency of self-timed execution.

`dataflow.timed` states the conventions. One iteration fires each actor as often as the
repetition vector says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from dataflow.balance import Modes, parts
from dataflow.graph import Fifo, Graph
from dataflow.selftimed import FIRINGS_MAX, EndlessError, SelfTimed, Steady
from dataflow.strong import components
from dataflow.timed import Timed, timed
from dataflow.unfolded import local_counts, steady_by_ratio

FEW_FIRINGS = 300_000
"""Firings within which a state must recur, or the graph is unfolded instead."""
UNFOLDED_MAX = 100_000
"""Edges of an unfolded graph, past which it is executed after all."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Throughput, and what bounds it.

    Attributes:
        throughput: Iterations per time unit; None: nothing bounds it.
        full: Bounded FIFOs whose room bounds it: more throughput needs more room in one
            of them. Empty if it stops, or was known to be the most.
    """

    throughput: Fraction | None
    full: frozenset[Fifo] = frozenset()


def throughput(
    graph: Graph,
    modes: Modes | None = None,
    capacities: Mapping[Fifo, int] | None = None,
    *,
    one_at_a_time: bool = False,
) -> Fraction | None:
    """Return the iterations per time unit that self-timed execution comes to.

    Each strongly connected part is executed by itself, and the slowest decides: one
    that is ahead of what it feeds fills FIFOs, which is what `capacities` are for.
    Homogeneous parts are not executed; their maximum cycle ratio is the answer. So are
    others whose states do not soon recur, unfolded to one vertex per firing.

    Args:
        graph: Any graph that the rules accept, whose actors all have a `time`.
        modes: Mode of each DPG; may be left out if there is none.
        capacities: Places of every FIFO; None: unbounded.
        one_at_a_time: Firings of an actor never overlap.

    Returns:
        Iterations per time unit, 0 if it deadlocks; None if nothing bounds them.

    Raises:
        RateError: There is no repetition vector.
        AnalysisError: An actor has no time.
        EndlessError: The state space is too large.
    """
    found = timed(graph, modes, capacities, one_at_a_time=one_at_a_time)
    return pace(found).throughput


def pace(
    graph: Timed,
    *,
    at_most: Fraction | None = None,
    prefer: Literal["states", "cycles"] | None = None,
) -> Pace:
    """Return the throughput and what bounds it.

    Args:
        graph: The graph in one mode.
        at_most: What is known of the throughput, if anything.
        prefer: Way to find it, whatever it takes; None: whichever is short.
    """
    following: list[list[int]] = [[] for _ in graph.actors]
    for source, target in zip(graph.source, graph.target, strict=True):
        following[source].append(target)
    slowest = Pace(None)
    for component in components(following):
        steady = _steady(graph, component, at_most, prefer)
        if steady is not None and (
            slowest.throughput is None or steady.throughput < slowest.throughput
        ):
            slowest = Pace(steady.throughput, steady.full)
    return slowest


def _steady(
    graph: Timed,
    component: list[int],
    at_most: Fraction | None,
    prefer: Literal["states", "cycles"] | None,
) -> Steady | None:
    """Return what a strongly connected part comes to; None: nothing bounds it."""
    if any(graph.limits[actor] == 0 for actor in component):
        return Steady(Fraction(0), frozenset())
    if not any(graph.times[actor] for actor in component):
        # It takes no time, but it may still not turn at all.
        turns = SelfTimed(graph, component, once=True).finish() is not None
        return None if turns else Steady(Fraction(0), frozenset())
    if len(component) == 1:
        (actor,) = component
        limit = graph.limits[actor]
        busy = graph.counts[actor] * graph.times[actor]
        if limit is None:
            return None
        return Steady(Fraction(limit * graph.scale, busy), frozenset())
    inside = set(component)
    ends = zip(graph.source, graph.target, strict=True)
    edges = [i for i, (s, t) in enumerate(ends) if s in inside and t in inside]
    counts = local_counts(graph, component)
    if prefer == "cycles" or (prefer is None and max(counts.values()) == 1):
        return steady_by_ratio(graph, component, edges, at_most)
    unfolded = sum(counts[graph.target[i]] for i in edges)
    try:
        feasible = prefer is None and unfolded <= UNFOLDED_MAX
        firings = FEW_FIRINGS if feasible else FIRINGS_MAX
        return SelfTimed(graph, component).steady(firings)
    except EndlessError:
        if not feasible:
            raise
    return steady_by_ratio(graph, component, edges, at_most)


def latency(
    graph: Graph,
    modes: Modes | None = None,
    capacities: Mapping[Fifo, int] | None = None,
    *,
    one_at_a_time: bool = False,
) -> Fraction | None:
    """Return the time that one iteration takes that has the graph to itself.

    It begins with the initial tokens, all actors start as soon as they can, and it ends
    with the last of its firings. Arguments and errors are those of `throughput`.

    Returns:
        Time units; None if it deadlocks.
    """
    ends: list[Fraction] = []
    for part in parts(graph):
        found = timed(part, modes, capacities, one_at_a_time=one_at_a_time)
        everyone = range(len(found.actors))
        end = SelfTimed(found, everyone, once=True).finish()
        if end is None:
            return None
        ends.append(Fraction(end, found.scale))
    return max(ends)
