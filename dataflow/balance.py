"""Which rates a mode sets, and how often each actor fires for them to balance.

A graph with every DPG in one mode is a *mode graph*: a static SDF graph, FIFOs whose
two rates are 0 dropped. Its repetition vector q is the smallest positive solution of
``q[source] * produced == q[target] * consumed``, per weakly connected component.

A component of carried actors only (`Dpg.carried`) rests: the message that would bring
its control token is not sent in this mode, so it does not fire and its q is 0.

Source:
    Lee and Messerschmitt, "Synchronous Data Flow", Proc. IEEE 75(9), 1987.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from dataflow.errors import UnderstudyError
from dataflow.graph import Fifo, Graph, PortRef

Modes = Mapping[str, str]
"""DPG name -> mode name."""


class AnalysisError(UnderstudyError):
    """What an analysis found wrong with a graph, with its witness.

    Attributes:
        subject: What it concerns, such as ``fifo a.y -> b.x``.
        problem: What is wrong, with the values.
        fix: What to do.
    """

    def __init__(self, subject: str, problem: str, fix: str) -> None:
        super().__init__(f"{subject}: {problem}; {fix}")
        self.subject = subject
        self.problem = problem
        self.fix = fix


class RateError(AnalysisError):
    """The balance equations have no solution (R8).

    Attributes:
        fifo: The first FIFO, in the graph's order, that contradicts those before it.
        path: Actors from its source to its target along the earlier FIFOs.
        wanted: Firings of the target per firing of the source that `fifo` asks for.
        implied: The same, as `path` has it; None if `fifo` has one rate 0.
    """

    def __init__(
        self,
        fifo: Fifo,
        path: tuple[str, ...],
        wanted: Fraction,
        implied: Fraction | None,
    ) -> None:
        source, target = fifo.source.actor, fifo.target.actor
        if implied is None:
            problem = "one of its rates is 0 and the other is not"
        else:
            by_path = f"the path {' -> '.join(path)}" if len(path) > 1 else "an actor"
            problem = (
                f"asks for {wanted} firing{'' if wanted == 1 else 's'} of {target} per "
                f"firing of {source}, but {by_path} gives {implied}"
            )
        super().__init__(f"fifo {fifo}", problem, "change a rate on that cycle")
        self.fifo = fifo
        self.path = path
        self.wanted = wanted
        self.implied = implied


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class ModeGraph:
    """A graph in one mode, as integers: entry i of each list belongs to `fifos[i]`."""

    actors: tuple[str, ...]
    fifos: tuple[Fifo, ...]
    """Those with rates other than 0 at either end."""
    source: list[int]
    """Index in `actors`."""
    target: list[int]
    produced: list[int]
    consumed: list[int]
    resting: frozenset[str]
    """Carried actors that no message reaches in this mode."""
    control: frozenset[Fifo]
    """FIFOs of control tokens, which may hold no initial tokens (R4)."""

    @cached_property
    def inputs(self) -> list[list[int]]:
        """Entries whose target is each actor."""
        found: list[list[int]] = [[] for _ in self.actors]
        for i, target in enumerate(self.target):
            found[target].append(i)
        return found

    @cached_property
    def outputs(self) -> list[list[int]]:
        """Entries whose source is each actor."""
        found: list[list[int]] = [[] for _ in self.actors]
        for i, source in enumerate(self.source):
            found[source].append(i)
        return found

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Place of each actor in `actors`."""
        return {name: i for i, name in enumerate(self.actors)}

    @cached_property
    def entries(self) -> Mapping[Fifo, list[int]]:
        """Entries of each FIFO: with all modes at once, one for each of its rates."""
        found: dict[Fifo, list[int]] = {}
        for i, fifo in enumerate(self.fifos):
            found.setdefault(fifo, []).append(i)
        return found

    def narrowed(self, entries: Sequence[int]) -> "ModeGraph":
        """Return the part of some of its FIFOs, with the actors at their ends."""
        ends = {end for i in entries for end in (self.source[i], self.target[i])}
        kept = sorted(ends)
        place = {actor: i for i, actor in enumerate(kept)}
        actors = tuple(self.actors[actor] for actor in kept)
        return ModeGraph(
            actors,
            tuple(self.fifos[i] for i in entries),
            [place[self.source[i]] for i in entries],
            [place[self.target[i]] for i in entries],
            [self.produced[i] for i in entries],
            [self.consumed[i] for i in entries],
            self.resting.intersection(actors),
            self.control,
        )


def mode_graph(graph: Graph, modes: Modes | None = None) -> ModeGraph:
    """Return `graph` with every DPG in the mode that `modes` names for it."""
    rates = _rates(graph, modes or {})
    actors = tuple(graph.actors)
    index = {name: i for i, name in enumerate(actors)}
    control = {
        PortRef(actor.name, port.name)
        for actor in graph.actors.values()
        for port in actor.ports
        if port.control
    }
    fifos = tuple(f for f in graph.fifos if rates[f.source] or rates[f.target])
    return ModeGraph(
        actors,
        fifos,
        [index[f.source.actor] for f in fifos],
        [index[f.target.actor] for f in fifos],
        [rates[f.source] for f in fifos],
        [rates[f.target] for f in fifos],
        resting(graph, fifos),
        frozenset(f for f in fifos if f.source in control),
    )


def _rates(graph: Graph, modes: Modes) -> dict[PortRef, int]:
    """`Graph.rate` of every port at once: one pass instead of a search per port."""
    rates = {
        PortRef(actor.name, port.name): port.rate
        for actor in graph.actors.values()
        for port in actor.ports
    }
    for dpg in graph.dpgs:
        rates.update(dpg.modes[modes[dpg.name]])
    return rates


def resting(graph: Graph, fifos: tuple[Fifo, ...]) -> frozenset[str]:
    """Return the carried actors that none of `fifos` connects to one that is not."""
    carried = frozenset(name for dpg in graph.dpgs for name in dpg.carried)
    if not carried:
        return carried
    joined = _Partition(graph.actors)
    for fifo in fifos:
        joined.join(fifo.source.actor, fifo.target.actor)
    awake = {joined.root(name) for name in graph.actors if name not in carried}
    return frozenset(name for name in carried if joined.root(name) not in awake)


class _Partition:
    """Disjoint sets of names (union-find with path halving)."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self._parent = {name: name for name in names}

    def root(self, name: str) -> str:
        parent = self._parent
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, first: str, second: str) -> None:
        self._parent[self.root(second)] = self.root(first)


def parts(graph: Graph) -> tuple[Graph, ...]:
    """Return the weakly connected parts of `graph`, each with its own DPGs.

    A DPG holds its controller and members together. Nothing that happens in one part
    depends on another, so each may be analysed for itself, in its own modes.
    """
    joined = _Partition(graph.actors)
    for fifo in graph.fifos:
        joined.join(fifo.source.actor, fifo.target.actor)
    for dpg in graph.dpgs:
        for member in dpg.members:
            joined.join(dpg.controller, member)
    actors: dict[str, list[str]] = {}
    for name in graph.actors:
        actors.setdefault(joined.root(name), []).append(name)
    fifos: dict[str, list[Fifo]] = {root: [] for root in actors}
    for fifo in graph.fifos:
        fifos[joined.root(fifo.source.actor)].append(fifo)
    return tuple(
        Graph(
            graph.name,
            {name: graph.actors[name] for name in names},
            tuple(fifos[root]),
            tuple(d for d in graph.dpgs if joined.root(d.controller) == root),
            tuple(r for r in graph.regions if joined.root(r.control) == root),
        )
        for root, names in actors.items()
    )


def repetition_vector(graph: Graph, modes: Modes | None = None) -> dict[str, int]:
    """Return the firings of each actor per iteration, the smallest positive ones.

    Each weakly connected component of the mode graph is normalised for itself. Carried
    actors that no message reaches in this mode have 0.

    Args:
        graph: Any graph that rules R1 and R2 accept.
        modes: Mode of each DPG; may be left out if there is none.

    Raises:
        RateError: Only the zero solution exists.

    >>> from dataflow.graph import Actor, Port
    >>> batch = Actor("batch", "", (Port("x", "in", rates=(4,)),))
    >>> camera = Actor("camera", "", (Port("y", "out"),))
    >>> fifo = Fifo(PortRef("camera", "y"), PortRef("batch", "x"))
    >>> repetition_vector(Graph("g", {"camera": camera, "batch": batch}, (fifo,)))
    {'camera': 4, 'batch': 1}
    """
    return repetitions(mode_graph(graph, modes))


def repetitions(mode: ModeGraph) -> dict[str, int]:
    """Return the repetition vector of a mode graph; see `repetition_vector`."""
    roots, ratios = _solve(mode)
    denominators: dict[int, int] = {}
    for root, ratio in zip(roots, ratios, strict=True):
        known = denominators.get(root, 1)
        denominators[root] = math.lcm(known, ratio.denominator)
    counts = [
        ratio.numerator * (denominators[root] // ratio.denominator)
        for root, ratio in zip(roots, ratios, strict=True)
    ]
    divisors: dict[int, int] = {}
    for root, count in zip(roots, counts, strict=True):
        divisors[root] = math.gcd(divisors.get(root, 0), count)
    return {
        name: 0 if name in mode.resting else count // divisors[root]
        for name, root, count in zip(mode.actors, roots, counts, strict=True)
    }


def _solve(mode: ModeGraph) -> tuple[list[int], list[int | Fraction]]:
    """Return, for each actor, the root of its component and its firings per root's.

    Weighted union-find over the FIFOs in their order, so that the FIFO blamed for a
    contradiction is the first that closes one.
    """
    parent = list(range(len(mode.actors)))
    ratio: list[int | Fraction] = [1] * len(parent)  # firings per firing of the parent

    def root_of(actor: int) -> int:
        trail = []
        while parent[actor] != actor:
            trail.append(actor)
            actor = parent[actor]
        above: int | Fraction = 1
        for step in reversed(trail):
            above = ratio[step] = ratio[step] * above
            parent[step] = actor
        return actor

    edges = zip(mode.source, mode.target, mode.produced, mode.consumed, strict=True)
    for i, (source, target, produced, consumed) in enumerate(edges):
        if not (produced and consumed):
            raise RateError(mode.fifos[i], (), Fraction(0), None)
        source_root, target_root = root_of(source), root_of(target)
        if source_root != target_root:
            below = ratio[target] * consumed  # first: `target` may be its own root
            parent[target_root] = source_root
            ratio[target_root] = _divide(ratio[source] * produced, below)
        elif ratio[source] * produced != ratio[target] * consumed:
            implied = Fraction(ratio[target]) / ratio[source]
            wanted = Fraction(produced, consumed)
            raise RateError(mode.fifos[i], _path(mode, i), wanted, implied)
    roots = [root_of(actor) for actor in range(len(parent))]
    return roots, ratio


def _divide(a: int | Fraction, b: int | Fraction) -> int | Fraction:
    """Exact; stays an integer where it can, which is ten times faster."""
    return a // b if a % b == 0 else Fraction(a) / b


def _path(mode: ModeGraph, contradicting: int) -> tuple[str, ...]:
    """Return a shortest path between that FIFO's ends along the FIFOs before it."""
    neighbours: dict[int, list[int]] = {}
    for i in range(contradicting):
        neighbours.setdefault(mode.source[i], []).append(mode.target[i])
        neighbours.setdefault(mode.target[i], []).append(mode.source[i])
    start, end = mode.source[contradicting], mode.target[contradicting]
    came_from = {start: start}
    queue = deque([start])
    while end not in came_from:
        actor = queue.popleft()
        for neighbour in neighbours[actor]:
            if neighbour not in came_from:
                came_from[neighbour] = actor
                queue.append(neighbour)
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(mode.actors[actor] for actor in reversed(path))
