"""`understudy check` of a graph by itself: counts, room, throughput, latency."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dataflow import rules
from dataflow.analysis import AnalysisError, Room, least_room, parts
from dataflow.balance import Modes, repetition_vector
from dataflow.finding import Finding
from dataflow.graph import Fifo, Graph
from dataflow.modes import at_once, mode_combinations, shared_counts
from dataflow.selftimed import EndlessError
from dataflow.sizing import Front, front
from dataflow.throughput import latency, throughput
from understudy.summary import counted

if TYPE_CHECKING:
    from graphs.graph_file import GraphFile

MODES_MAX = 64
"""Combinations of modes that are timed one by one."""
_SHOWN_MAX = 12
_QUOTED = re.compile("'([^']+)'")


Known = Fraction | None | EndlessError
"""A throughput, None where nothing bounds it, a latency; or why it is not known."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Throughputs and latencies in one combination of modes."""

    modes: Modes
    throughput: Known
    """Firings of an actor may overlap."""
    one_at_a_time: Known
    with_capacities: Known
    """One at a time."""
    with_capacities_overlapping: Known
    latency: Known
    """One at a time."""
    latency_overlapping: Known

    def to_json(self) -> dict[str, Any]:
        return {
            "modes": dict(self.modes),
            "throughput": _exact(self.throughput),
            "throughput_one_at_a_time": _exact(self.one_at_a_time),
            "throughput_with_capacities": _exact(self.with_capacities),
            "throughput_with_capacities_overlapping": _exact(
                self.with_capacities_overlapping
            ),
            "latency": _exact(self.latency),
            "latency_overlapping": _exact(self.latency_overlapping),
        }


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class CheckedGraph:
    """A graph that every rule accepts, by itself."""

    graph: Graph
    size: bool = False
    """Look for the least room, and for that which full throughput needs."""
    file: "GraphFile | None" = None
    """What is printed for the graph: a file that can be deployed, if it is from one."""

    def expanded(self) -> str:
        """Return the graph with its ports written out, as a graph file."""
        from graphs.graph_writer import write_graph

        file = self.file
        if file is None:
            return write_graph(self.graph)
        return write_graph(file.graph, file.understudies, file.exits)

    @cached_property
    def repetitions(self) -> dict[str, int]:
        """Firings per iteration; in the first modes, if they depend on the mode."""
        counts: dict[str, int] = {}
        for part in parts(self.graph):
            first = {dpg.name: next(iter(dpg.modes)) for dpg in part.dpgs}
            shared = shared_counts(part, at_once(part))
            counts |= shared or repetition_vector(part, first)
        return {name: counts[name] for name in self.graph.actors}

    @cached_property
    def room(self) -> Room:
        """Capacities that suffice to be live in every mode."""
        return least_room(self.graph)

    @cached_property
    def timings(self) -> list[Timing] | str:
        """What each combination of modes comes to, or why that is not known."""
        graph, sized = self.graph, self.room.capacities
        try:
            modes = list(mode_combinations(graph))
            if len(modes) > MODES_MAX:
                return f"{len(modes)} combinations of modes are too many to time"
            return [
                Timing(
                    chosen,
                    _tried(throughput, graph, chosen, None, alone=False),
                    _tried(throughput, graph, chosen, None, alone=True),
                    _tried(throughput, graph, chosen, sized, alone=True),
                    _tried(throughput, graph, chosen, sized, alone=False),
                    _tried(latency, graph, chosen, None, alone=True),
                    _tried(latency, graph, chosen, None, alone=False),
                )
                for chosen in modes
            ]
        except AnalysisError as error:
            return f"{error.subject} {error.problem}"

    @cached_property
    def fronts(self) -> list[tuple[Modes, bool, Front]] | str:
        """For each combination of modes: one at a time?, and room for throughput."""
        if isinstance(self.timings, str):
            return self.timings
        found = []
        try:
            for timing in self.timings:
                alone = timing.throughput is None
                sizes = front(self.graph, timing.modes, one_at_a_time=alone)
                found.append((timing.modes, alone, sizes))
        except AnalysisError as error:
            return f"{error.subject} {error.problem}"
        return found

    def to_json(self) -> dict[str, Any]:
        timed = self.timings
        found: dict[str, Any] = {
            "understudy": 1,
            "sound": True,
            "graph": self.graph.name,
            "actors": len(self.graph.actors),
            "fifos": len(self.graph.fifos),
            "repetitions": self.repetitions,
            "live": True,
            "capacities": _named(self.room.capacities),
            "capacity_total": _total(self.room.capacities),
            "capacities_exact": self.room.exact,
            "timings": None if isinstance(timed, str) else [t.to_json() for t in timed],
        }
        if self.size:
            sizes = self.fronts
            found["sizes"] = (
                None if isinstance(sizes, str) else [_front_json(*s) for s in sizes]
            )
        return found

    def text(self) -> str:
        """Return what a person wants to know, in lines."""
        counts = [f"{name} {count}" for name, count in self.repetitions.items()]
        lines = [
            f"{self.graph.name}: sound",
            f"  graph       {size_of(self.graph)}",
            f"  iteration   {counted(sum(self.repetitions.values()), 'firing')}: "
            f"{_some(counts)}",
            f"  capacities  {_total(self.room.capacities)} places "
            + ("are the fewest" if self.room.exact else "suffice")
            + " to be live",
        ]
        if isinstance(self.timings, str):
            lines.append(f"  throughput  not known: {self.timings}")
        else:
            for timing in self.timings:
                lines += _timing_text(timing)
        if self.size:
            lines += self._sizes_text()
        return "\n".join(lines) + "\n"

    def _sizes_text(self) -> list[str]:
        if isinstance(self.fronts, str):
            rows = (f"    {fifo}: {n}" for fifo, n in self.room.capacities.items())
            return [f"  sizes       only for being live ({self.fronts}):", *rows]
        lines = []
        for modes, alone, found in self.fronts:
            how = "least places" if found.exact else "few places"
            how += ", one firing of an actor at a time" if alone else ""
            lines.append(f"  sizes       {how}{_in_modes(modes)}:")
            ends = dict.fromkeys((0, len(found.points) - 1))
            for point in (found.points[i] for i in ends):
                least = f" (at least {point.at_least})" * (not found.exact)
                lines.append(f"    {point.total}{least} for {_pace(point.throughput)}:")
                lines += [f"      {f}: {n}" for f, n in point.capacities.items()]
            if found.points[-1].throughput != found.most:
                lines.append(
                    f"    the graph is too large to size it for {_pace(found.most)}"
                )
            if len(found.points) > 2:
                lines.append(f"    and {len(found.points) - 2} between (see --json)")
        return lines


def check_graph(
    path: Path, *, size: bool = False, layers: bool = False
) -> CheckedGraph:
    """Check the graph file, or the XML file of SDF3, at `path`.

    Args:
        path: What to check.
        size: Also look for the least room and for that of full throughput.
        layers: Take each model as one actor for each of its layer groups.

    Raises:
        MisuseError: No such file.
        FileErrors: Something is wrong in the file, or a rule is broken.
    """
    from graphs.graph_file import read_graph
    from graphs.layered import layered
    from graphs.located_yaml import FileErrors
    from graphs.sdf3 import read_sdf3

    places: Mapping[str, object] = {}
    printed = None
    if path.suffix == ".xml":
        graph = read_sdf3(path)
    else:
        file = layered(read_graph(path)) if layers else read_graph(path)
        graph, places = file.undivided, file.places
        # By itself a graph with exits is printed with the DPGs that they are.
        printed = file if layers or not file.exits else None
    if found := rules.check(graph):
        located = [(str(_place(f, places, path)), f) for f in found]
        raise FileErrors.broken(located)
    return CheckedGraph(graph, size, printed)


def size_of(graph: Graph) -> str:
    """Return how many actors, FIFOs and regions a graph has."""
    words = [counted(len(graph.actors), "actor"), counted(len(graph.fifos), "FIFO")]
    if graph.regions:
        words.append(counted(len(graph.regions), "region"))
    return ", ".join(words)


def _place(finding: Finding, places: Mapping[str, object], path: Path) -> object:
    """Return where ``actor 'net'``, ``fifo a.x -> b.y`` or the like stands.

    What is wrong with a cycle, a DPG or a region is told where its first actor stands.
    """
    kind, _, name = finding.subject.partition(" ")
    name = name.strip("'")
    within = _QUOTED.findall(finding.problem)
    names = (name, name.rpartition(".")[0], kind, *within)
    return next((places[n] for n in names if n in places), f"{path}:1:1")


class _Analysis(Protocol):
    def __call__(
        self,
        graph: Graph,
        modes: Modes | None,
        capacities: Mapping[Fifo, int] | None,
        *,
        one_at_a_time: bool,
    ) -> Fraction | None: ...


def _tried(
    analysis: _Analysis,
    graph: Graph,
    modes: Modes,
    sized: Mapping[Fifo, int] | None,
    *,
    alone: bool,
) -> Known:
    try:
        return analysis(graph, modes, sized, one_at_a_time=alone)
    except EndlessError as error:
        return error


def _exact(number: Known) -> str | None:
    if isinstance(number, EndlessError):
        return f"not known: {number.problem}"
    return None if number is None else str(number)


def _named(sized: Mapping[Fifo, int]) -> dict[str, int]:
    return {str(fifo): places for fifo, places in sized.items()}


def _total(sized: Mapping[Fifo, int]) -> int:
    """Return the places in all FIFOs but those from an actor to itself."""
    between = (f for f in sized if f.source.actor != f.target.actor)
    return sum(sized[fifo] for fifo in between)


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = len(listed) - _SHOWN_MAX
    shown = ", ".join(listed[:_SHOWN_MAX])
    return f"{shown}, and {more} more" if more > 0 else shown


def _in_modes(modes: Modes) -> str:
    named = ", ".join(f"'{mode}' of '{dpg}'" for dpg, mode in modes.items())
    return f" in mode {named}" if named else ""


def _pace(number: Known) -> str:
    if isinstance(number, EndlessError):
        return f"not known ({number.problem})"
    if number is None:
        return "unbounded throughput"
    return f"{number} iterations per time unit"


def _timing_text(timing: Timing) -> list[str]:
    lines = [
        f"  throughput  {_pace(timing.one_at_a_time)}, one firing of an actor at a "
        f"time{_in_modes(timing.modes)}",
        f"              {_pace(timing.with_capacities)} with the capacities above",
    ]
    if timing.throughput != timing.one_at_a_time:
        overlap = f"{_pace(timing.throughput)} if firings may overlap"
        lines.append(f"              {overlap}")
    lines.append(
        f"  latency     {_exact(timing.latency)} time units for an iteration by itself"
        if not isinstance(timing.latency, EndlessError)
        else f"  latency     not known ({timing.latency.problem})"
    )
    return lines


def _front_json(modes: Modes, alone: bool, found: Front) -> dict[str, Any]:
    return {
        "modes": dict(modes),
        "one_at_a_time": alone,
        "exact": found.exact,
        "most": _exact(found.most),
        "points": [
            {
                "total": point.total,
                "at_least": point.at_least,
                "throughput": _exact(point.throughput),
                "capacities": _named(point.capacities),
            }
            for point in found.points
        ],
    }
