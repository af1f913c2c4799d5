"""Abortable regions (R14): fork, branches, first-of join.

What the rule buys: deleting all tokens of one attempt and forgetting its firings gives
a state that a run without that attempt reaches. So a branch may be started late, twice
in different branches, or given up at any moment, and the analysis of each mode holds.

Where an iteration may be played by several branches at once (`dataflow.redundancy`) the
control table has a row ``all``, in which every branch plays and the join takes one
token from each; it hands on the first and forgets the rest. The branches have nothing
in common but fork and join, so a branch is abortable there exactly if it is in its own
row.
"""

from collections import Counter
from collections.abc import Iterator

from dataflow.analysis import AnalysisError, parts, repetition_vector
from dataflow.finding import Finding
from dataflow.graph import ALL_ROW, DROP_ROW, Branch, Dpg, Fifo, Graph, Region
from dataflow.modes import at_once, shared_counts


class _Borders:
    """FIFOs from the fork and into the join, by the actor of a branch."""

    def __init__(self, graph: Graph, region: Region, dpg: Dpg) -> None:
        self._join = region.join
        self._dpg = dpg
        self._from_fork: dict[str, list[Fifo]] = {}
        self._to_join: dict[str, list[Fifo]] = {}
        for fifo in graph.outputs(region.fork):
            self._from_fork.setdefault(fifo.target.actor, []).append(fifo)
        for fifo in graph.inputs(region.join):
            self._to_join.setdefault(fifo.source.actor, []).append(fifo)

    def entries(self, branch: Branch) -> list[Fifo]:
        """Return the FIFOs from the fork into a branch."""
        if not branch.actors:
            return self._identity(branch)
        return [f for name in branch.actors for f in self._from_fork.get(name, ())]

    def exits(self, branch: Branch) -> list[Fifo]:
        if not branch.actors:
            return self._identity(branch)
        return [f for name in branch.actors for f in self._to_join.get(name, ())]

    def _identity(self, branch: Branch) -> list[Fifo]:
        """Return the FIFO of an answer that was computed before the fork."""
        straight = self._from_fork.get(self._join, ())
        return [
            f for f in straight if self._dpg.modes.get(branch.row, {}).get(f.source)
        ]


def abortable(graph: Graph) -> Iterator[Finding]:
    """R14: every branch can be abandoned at any time without a trace."""
    part_of = {name: part for part in parts(graph) for name in part.actors}
    for region in graph.regions:
        named = list(_names(graph, region))
        yield from named
        if named:
            continue
        dpg = next(d for d in graph.dpgs if d.name == region.name)
        borders = _Borders(graph, region, dpg)
        yield from _modes(graph, region, dpg, borders)
        yield from _inside(graph, region)
        yield from _borders(graph, region, borders)
        yield from _firings(part_of[region.fork], region, dpg, borders)


def _found(region: Region, problem: str, fix: str) -> Finding:
    return Finding("R14", f"region '{region.name}'", problem, fix)


def _names(graph: Graph, region: Region) -> Iterator[Finding]:
    roles = {
        "source": region.source,
        "sink": region.sink,
        "control": region.control,
        "fork": region.fork,
        "join": region.join,
    }
    for role, name in roles.items():
        if name not in graph.actors:
            yield _found(region, f"its {role} '{name}' is not in the graph", "add it")
    if not any(dpg.name == region.name for dpg in graph.dpgs):
        yield _found(region, "has no DPG of its name", "give it a control table")
    owner = {name: role for role, name in roles.items()}
    for branch in region.branches:
        for name in branch.actors:
            where = f"actor '{name}' of branch '{branch.row}'"
            if name not in graph.actors:
                yield _found(region, f"{where} is not in the graph", "add it")
            if name in owner:
                problem = f"{where} is also in or the {owner[name]}"
                yield _found(region, problem, "give each branch its own actors")
            owner[name] = f"branch '{branch.row}'"


def _modes(
    graph: Graph, region: Region, dpg: Dpg, borders: _Borders
) -> Iterator[Finding]:
    rows = list(region.rows)
    if list(dpg.modes) != rows:
        problem = f"its modes are {', '.join(dpg.modes)}, its rows {', '.join(rows)}"
        fix = "give each row one mode, in order, drop last"
        if ALL_ROW in rows:
            fix += f"; before it '{ALL_ROW}', in which every branch plays"
        yield _found(region, problem, fix)
        return
    if dpg.controller != region.control:
        problem = f"'{dpg.controller}' controls its DPG, not '{region.control}'"
        yield _found(region, problem, "name one controller")
    for branch in region.branches:
        for fifo in borders.entries(branch) + borders.exits(branch):
            plays = _plays(graph, dpg, fifo, rows)
            if plays != [row for row in rows if row in (branch.row, ALL_ROW)]:
                problem = (
                    f"fifo {fifo} of branch '{branch.row}' has tokens in the modes "
                    f"{', '.join(plays) or 'none'}"
                )
                fix = "let it carry tokens in its own row only"
                if ALL_ROW in rows:
                    fix = f"let it carry tokens in its own row and in '{ALL_ROW}'"
                yield _found(region, problem, fix)
    into = Counter(
        row
        for fifo in graph.inputs(region.join)
        if not graph.port(fifo.target).control
        for row in _plays(graph, dpg, fifo, rows)
    )
    for row in rows:
        branches = {DROP_ROW: 0, ALL_ROW: len(region.branches)}.get(row, 1)
        if into[row] != branches:
            problem = f"in mode '{row}' its join gets tokens on {into[row]} FIFOs"
            fix = "let each branch that plays bring it one answer, and drop none"
            yield _found(region, problem, fix)


def _plays(graph: Graph, dpg: Dpg, fifo: Fifo, rows: list[str]) -> list[str]:
    """Return the rows in which a FIFO has tokens."""
    if fifo.source in dpg.playing:
        return [row for row in rows if row in dpg.playing[fifo.source]]
    return rows if graph.port(fifo.source).rate else []


def _inside(graph: Graph, region: Region) -> Iterator[Finding]:
    """Nothing inside outlives an attempt: no state, no initial tokens."""
    inside = {name for branch in region.branches for name in branch.actors}
    for name in sorted(name for name in inside if graph.actors[name].stateful):
        problem = f"actor '{name}' is stateful and stands in a branch"
        yield _found(region, problem, "move it before the fork or behind the join")
    inside |= {region.fork, region.join}
    for fifo in [f for name in sorted(inside) for f in graph.outputs(name)]:
        if fifo.delay and fifo.target.actor in inside:
            problem = f"fifo {fifo} has {fifo.delay} initial tokens"
            yield _found(region, problem, "remove them: an abandoned attempt eats them")


def _borders(graph: Graph, region: Region, borders: _Borders) -> Iterator[Finding]:
    """What a branch reads comes through the fork; what it writes goes to the join."""
    for branch in region.branches:
        inside = set(branch.actors)
        where = f"branch '{branch.row}'"
        for fifo in [f for name in branch.actors for f in graph.inputs(name)]:
            enters = fifo.source.actor not in {*inside, region.fork}
            if enters and not graph.port(fifo.source).control:
                problem = f"{where} reads {fifo}, which does not come from the fork"
                fix = f"lead it through '{region.fork}', which retains it"
                yield _found(region, problem, fix)
        for fifo in [f for name in branch.actors for f in graph.outputs(name)]:
            if fifo.target.actor not in {*inside, region.join}:
                problem = f"{where} writes {fifo}, which does not go to the join"
                yield _found(region, problem, f"lead it through '{region.join}'")
        if not borders.entries(branch):
            yield _found(region, f"{where} reads nothing of the fork", "connect it")


def _firings(
    part: Graph, region: Region, dpg: Dpg, borders: _Borders
) -> Iterator[Finding]:
    """Each branch fires once per iteration where it begins and where it ends."""
    shared = shared_counts(part, at_once(part))
    for branch in region.branches:
        modes = {d.name: next(iter(d.modes)) for d in part.dpgs}
        modes[dpg.name] = branch.row
        try:
            counts = shared or repetition_vector(part, modes)
        except AnalysisError:
            return  # R8 says it
        ends = [region.fork, region.join]
        ends += [f.target.actor for f in borders.entries(branch)]
        ends += [f.source.actor for f in borders.exits(branch)]
        for name in dict.fromkeys(ends):
            if counts[name] != 1:
                problem = (
                    f"'{name}' fires {counts[name]} times per iteration in branch "
                    f"'{branch.row}'"
                )
                fix = "make it fire once; an attempt is one firing of the branch"
                yield _found(region, problem, fix)
