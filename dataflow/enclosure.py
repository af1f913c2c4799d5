"""Where the region of a DPG begins and ends (R5), and how regions nest (R7).

A DPG lies between two dynamic actors: its *entry*, through which all data come in, and
its *exit*, through which all data go out. In the words of flow graphs the entry
dominates, and the exit post-dominates, every actor between. Then the outside sees what
the rates of the two say, in whatever mode, and what a mode turns off is turned off
whole. Only data FIFOs count, and only those without initial tokens: a token of the
iteration before comes from no place in this one.

The entry is the first member in dataflow order and the exit is the last, if there are
such at all; so it is enough to go back and forth from the members between.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dataflow.finding import Finding
from dataflow.graph import Dpg, Fifo, Graph


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The region of a DPG that R5 accepts."""

    dpg: Dpg
    entry: str
    exit: str
    inside: frozenset[str]
    """Actors between the two, of inner DPGs too."""

    @property
    def whole(self) -> frozenset[str]:
        return self.inside | {self.entry, self.exit}


def single_entry(graph: Graph) -> Iterator[Finding]:
    """R5: the entry of a DPG dominates, its exit post-dominates, what is between."""
    flow = _Flow(graph)
    for dpg in graph.dpgs:
        if not dpg.members:
            continue
        entry, between, last = flow.ends(dpg)
        subject = f"dpg '{dpg.name}'"
        _, path = flow.back(dpg, between, entry)
        if path:
            problem = f"data enter it around '{entry}', by {_shown(path)}"
            fix = f"lead them through '{entry}', or leave what takes them out of it"
            yield Finding("R5", subject, problem, fix)
        _, path = flow.forth(dpg, between, last)
        if path:
            problem = f"data leak out of it around '{last}', by {_shown(path)}"
            fix = f"lead them through '{last}', which knows the mode"
            yield Finding("R5", subject, problem, fix)


def broken_regions(graph: Graph, delayed: Fifo) -> int:
    """Return how much R5 and R7 would find if a FIFO had initial tokens.

    Data that come of the iteration before do not count, so tokens inside a region make
    it look as if it were entered or left elsewhere.
    """
    fifos = (replace(f, delay=1) if f == delayed else f for f in graph.fifos)
    changed = replace(graph, fifos=tuple(fifos))
    return len(list(single_entry(changed)) or list(properly_nested(changed)))


def _shown(path: Sequence[str]) -> str:
    shown = [*path[:3], "…", *path[-2:]] if len(path) > 6 else path
    return " -> ".join(shown)


def enclosures(graph: Graph) -> list[Enclosure]:
    """Return the regions of DPGs of a graph that R5 accepts, in its order."""
    flow = _Flow(graph)
    found = []
    for dpg in graph.dpgs:
        if dpg.members:
            entry, between, last = flow.ends(dpg)
            before, _ = flow.back(dpg, between, entry)
            after, _ = flow.forth(dpg, between, last)
            certain = before & after | set(between)
            inside = flow.enclosed(certain, before | after, entry, last)
            found.append(Enclosure(dpg, entry, last, inside))
    return found


def properly_nested(graph: Graph) -> Iterator[Finding]:
    """R7: two regions have no actor in common, or one contains the other.

    They may share boundaries: the exit of one may be the entry of the next.
    """
    regions = enclosures(graph)
    around: dict[str, list[int]] = {}
    for i, region in enumerate(regions):
        for name in region.inside:
            around.setdefault(name, []).append(i)
    seen: set[tuple[int, int]] = set()
    for i, region in enumerate(regions):
        for name in sorted(region.whole):
            for other in around.get(name, ()):
                pair = (min(i, other), max(i, other))
                if i != other and pair not in seen:
                    seen.add(pair)
                    yield from _overlap(*(regions[n] for n in pair), shared=name)
    for region in regions:
        for other in around.get(region.dpg.controller, ()):
            yield from _governs_outside(region, regions[other])


def _overlap(one: Enclosure, other: Enclosure, *, shared: str) -> Iterator[Finding]:
    if one.whole <= other.whole or other.whole <= one.whole:
        return
    problem = (
        f"it has '{shared}' in common with dpg '{other.dpg.name}', and neither region "
        "contains the other"
    )
    fix = "put one inside a branch of the other, or one behind the other"
    yield Finding("R7", f"dpg '{one.dpg.name}'", problem, fix)


def _governs_outside(inner: Enclosure, outer: Enclosure) -> Iterator[Finding]:
    outside = sorted(inner.whole - outer.whole)
    if outside and inner is not outer:
        problem = (
            f"its controller '{inner.dpg.controller}' stands in dpg "
            f"'{outer.dpg.name}', but '{outside[0]}', which it governs, does not"
        )
        fix = "move the controller out, or all that it governs in"
        yield Finding("R7", f"dpg '{inner.dpg.name}'", problem, fix)


class _Flow:
    """Data FIFOs that are on in some mode, without initial tokens: who follows whom."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._next: dict[str, list[str]] = {name: [] for name in graph.actors}
        self._before: dict[str, list[str]] = {name: [] for name in graph.actors}
        owner = {ref: dpg for dpg in graph.dpgs for ref in dpg.playing}
        control = {
            (actor.name, port.name)
            for actor in graph.actors.values()
            for port in actor.ports
            if port.control
        }
        self._delayed: dict[str, list[Fifo]] = {}
        self._chooses = {fifo.source.actor for fifo in graph.fifos
                         if fifo.source in control}  # fmt: skip
        for fifo in graph.fifos:
            dpg = owner.get(fifo.source)
            if fifo.source in control or (dpg and not dpg.playing[fifo.source]):
                continue
            source, target = fifo.source.actor, fifo.target.actor
            if fifo.delay:
                self._delayed.setdefault(source, []).append(fifo)
                self._delayed.setdefault(target, []).append(fifo)
            else:
                self._next[source].append(target)
                self._before[target].append(source)
        self._place = self._order()

    def _order(self) -> dict[str, int]:
        """Return a dataflow order; a cycle begins where one comes to it from a source.

        That is the order in which a depth-first search leaves the actors, reversed.
        """
        left: dict[str, None] = {}
        seen: set[str] = set()
        for root in sorted(self._next, key=lambda name: bool(self._before[name])):
            if root in seen:
                continue
            seen.add(root)
            trail = [(root, iter(self._next[root]))]
            while trail:
                name, ahead = trail[-1]
                following = next((n for n in ahead if n not in seen), None)
                if following is None:
                    left[name] = None
                    trail.pop()
                else:
                    seen.add(following)
                    trail.append((following, iter(self._next[following])))
        return {name: place for place, name in enumerate(reversed(left))}

    def ends(self, dpg: Dpg) -> tuple[str, list[str], str]:
        """Return the entry, the members between, and the exit."""
        members = sorted(dpg.members, key=self._place.__getitem__)
        # The controller of an inner DPG passes no data on: it ends nothing.
        passing = [m for m in members if self._next[m] or m not in self._chooses]
        entry, last = members[0], (passing or members)[-1]
        return entry, [m for m in members if m not in (entry, last)], last

    def enclosed(
        self, certain: set[str], possible: set[str], entry: str, last: str
    ) -> frozenset[str]:
        """Return `certain`, and those of `possible` that lie wholly between the ends.

        What takes data from elsewhere, or gives data elsewhere, is left out; then what
        it feeds and what feeds it, and so on.
        """
        found = certain | possible
        waiting = list(possible - certain)
        while waiting:
            name = waiting.pop()
            before, after = self._before[name], self._next[name]
            fed = before and found.issuperset(n for n in before if n != entry)
            passes = (after or name in self._chooses) and found.issuperset(
                n for n in after if n != last
            )
            if name in found and not (fed and passes):
                found.discard(name)
                waiting += {*before, *after} & (found - certain)
        return frozenset(found - {entry, last})

    def back(
        self, dpg: Dpg, starts: Sequence[str], entry: str
    ) -> tuple[set[str], tuple[str, ...]]:
        """Return what leads to `starts` from `entry` on, and a way around it."""
        reached, path = self._search(dpg, starts, entry, self._before, set())
        return reached, tuple(reversed(path))

    def forth(
        self, dpg: Dpg, starts: Sequence[str], last: str
    ) -> tuple[set[str], tuple[str, ...]]:
        """Return what `starts` lead to before `last`, and a way around it.

        The controller of an inner DPG ends no way: what it says stays inside (R7).
        """
        return self._search(dpg, starts, last, self._next, self._chooses)

    def _search(
        self,
        dpg: Dpg,
        starts: Sequence[str],
        border: str,
        steps: Mapping[str, list[str]],
        harmless: set[str],
    ) -> tuple[set[str], tuple[str, ...]]:
        came: dict[str, str | None] = dict.fromkeys(starts)
        around: tuple[str, ...] = ()
        waiting = list(starts)
        for name in waiting:
            ends = not steps[name] and name not in harmless
            if ends and not around and not self._delayed_within(name, dpg):
                around = _trail(came, name)
            for other in steps[name]:
                if other != border and other not in came:
                    came[other] = name
                    waiting.append(other)
        return set(came), around

    def _delayed_within(self, name: str, dpg: Dpg) -> bool:
        """Say whether an actor meets another member over a FIFO with initial tokens."""
        return any(
            {fifo.source.actor, fifo.target.actor} - {name} <= dpg.members
            for fifo in self._delayed.get(name, ())
        )


def _trail(came: Mapping[str, str | None], name: str) -> tuple[str, ...]:
    trail = [name]
    while (before := came[trail[-1]]) is not None:
        trail.append(before)
    return tuple(reversed(trail))
