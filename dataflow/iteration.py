"""What an iteration must satisfy in every mode: R8, R9, R10 and R11.

Each rule first looks at all modes at once. Where that is refused it looks at the modes
one by one, as it must: what is wrong at once need not be wrong in any mode.
"""

from collections.abc import Collection, Iterator, Mapping

from dataflow.analysis import CapacityError, capacities
from dataflow.balance import (
    AnalysisError,
    RateError,
    mode_graph,
    parts,
    repetition_vector,
    repetitions,
)
from dataflow.deadlock import DeadlockError, deadlock
from dataflow.execution import alone
from dataflow.finding import Finding
from dataflow.graph import Fifo, Graph
from dataflow.modes import (
    at_once,
    combined,
    mode_combinations,
    relevant_modes,
    shared_counts,
)
from dataflow.schedule import schedule
from dataflow.strong import strong_parts


def consistent(graph: Graph) -> Iterator[Finding]:
    """R8: in every mode the balance equations have a solution."""
    for part in parts(graph):
        try:
            repetitions(at_once(part))
        except RateError as error:
            yield from _inconsistent(part, error)


def _inconsistent(part: Graph, together: RateError) -> Iterator[Finding]:
    """Look at the modes one by one; if they are not too many."""
    seen: set[Fifo] = set()
    try:
        combinations = mode_combinations(part)
    except AnalysisError as error:
        problem = f"with all modes at once, {together.problem}; {error.problem}"
        yield Finding("R8", together.subject, problem, together.fix)
        return
    for modes in combinations:
        try:
            repetition_vector(part, modes)
        except RateError as error:
            if error.fifo not in seen:
                yield finding("R8", error, modes)
            seen.add(error.fifo)


def same_counts(graph: Graph) -> Iterator[Finding]:
    """R9: modes change between iterations, and only what they govern notices."""
    for part in parts(graph):
        shared = shared_counts(part, at_once(part)) if part.dpgs else {}
        if shared is not None:
            yield from _chosen_within(part, shared)
            continue
        try:
            combinations = list(mode_combinations(part))
        except AnalysisError as error:
            yield finding("R9", error)
            continue
        dynamic = {name for dpg in part.dpgs for name in dpg.members}
        static = [name for name in part.actors if name not in dynamic]
        first = repetition_vector(part, combinations[0])
        yield from _chosen_within(part, first)
        for modes in combinations[1:]:
            counts = repetition_vector(part, modes)
            for name in static:
                if counts[name] != first[name]:
                    yield _period(name, (first, combinations[0]), (counts, modes))
                    break
            else:
                continue
            break


def _chosen_within(part: Graph, counts: Mapping[str, int]) -> Iterator[Finding]:
    """Controllers that name several modes per iteration, which may differ.

    What holds of each mode for a whole iteration says nothing of half a one.
    """
    for dpg in part.dpgs:
        if len(dpg.modes) > 1 and counts[dpg.controller] > 1:
            problem = (
                f"names a mode of '{dpg.name}' {counts[dpg.controller]} times per "
                "iteration, and a mode lasts for a whole one"
            )
            fix = (
                "raise the rates at its ports, and at those of what it governs, so "
                "that all fire once"
            )
            yield Finding("R9", f"actor '{dpg.controller}'", problem, fix)


def _period(
    name: str,
    one: tuple[Mapping[str, int], Mapping[str, str]],
    other: tuple[Mapping[str, int], Mapping[str, str]],
) -> Finding:
    (before, here), (after, there) = one, other
    changed = [dpg for dpg in here if here[dpg] != there[dpg]]
    first = named({dpg: here[dpg] for dpg in changed})
    second = named({dpg: there[dpg] for dpg in changed})
    problem = (
        f"fires {_times(before[name])} per iteration in mode {first}, but "
        f"{_times(after[name])} in mode {second}, and no mode governs it"
    )
    fix = "make the rates around it the same in both modes, or its ports dynamic"
    return Finding("R9", f"actor '{name}'", problem, fix)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def live(graph: Graph) -> Iterator[Finding]:
    """R10: in every mode an iteration completes."""
    for part in parts(graph):
        together = at_once(part)
        counts = shared_counts(part, together)
        if counts is None:
            yield from _stuck(part)
            continue
        for entries in strong_parts(together):
            if not alone(together, list(counts.values()), entries).run():
                if not part.dpgs:
                    yield from _stuck(part)
                    break
                fifos = dict.fromkeys(together.fifos[i] for i in entries)
                yield from _stuck_within(part, fifos, counts)


def _stuck(part: Graph) -> Iterator[Finding]:
    try:
        combinations = mode_combinations(part)
    except AnalysisError as error:
        yield finding("R10", error)
        return
    seen: set[frozenset[tuple[Fifo, int]]] = set()  # modes often share a cure
    for modes in combinations:
        if (stuck := stuck_in(part, modes)) is not None:
            cure = frozenset(stuck.extra.items())
            if cure not in seen:
                yield finding("R10", stuck, modes)
            seen.add(cure)


def _stuck_within(
    part: Graph, fifos: Collection[Fifo], counts: Mapping[str, int]
) -> Iterator[Finding]:
    """Look at one strongly connected part for itself, in the modes that differ there.

    Waiting closes a cycle, and a cycle lies within one strongly connected part of the
    graph with all modes at once. So a combination of modes is live if each of these
    parts is, given all that it takes from elsewhere.
    """
    usual = {dpg.name: next(iter(dpg.modes)) for dpg in part.dpgs}
    try:
        combinations = combined(relevant_modes(part, fifos))
    except AnalysisError as error:
        yield finding("R10", error)
        return
    seen: set[frozenset[tuple[Fifo, int]]] = set()  # modes often share a cure
    for modes in combinations:
        mode = mode_graph(part, {**usual, **modes})
        left = [0 if n in mode.resting else counts[n] for n in mode.actors]
        inside = [i for i, fifo in enumerate(mode.fifos) if fifo in fifos]
        execution = alone(mode, left, inside)
        if not execution.run():
            stuck = deadlock(execution, part)
            cure = frozenset(stuck.extra.items())
            if cure not in seen:
                yield finding("R10", stuck, modes)
            seen.add(cure)


def stuck_in(part: Graph, modes: Mapping[str, str]) -> DeadlockError | None:
    """Return why an iteration in `modes` does not complete, or None if it does."""
    try:
        schedule(part, modes)
    except DeadlockError as error:
        return error
    return None


def bounded(graph: Graph) -> Iterator[Finding]:
    """R11: the declared capacities let every mode complete its iterations."""
    for part in parts(graph):
        try:
            capacities(part)
        except CapacityError as error:
            yield finding("R11", error)


def finding(
    rule: str, error: AnalysisError, modes: Mapping[str, str] | None = None
) -> Finding:
    """Return an error of an analysis as what a rule found."""
    where = f"in mode {named(modes)}: " if modes else ""
    return Finding(rule, error.subject, where + error.problem, error.fix)


def named(modes: Mapping[str, str]) -> str:
    return ", ".join(f"{mode!r} of {dpg!r}" for dpg, mode in modes.items())
