"""What a deployment makes of each stream: what runs always, and the ways to an answer.

What a stream's source leads to falls into three parts:

- *upstream*: units on the source's device that run for every frame, up to the fork;
- *ways*: for each entry of the failover order, the units between fork and join that
  give this answer and serve no other purpose. On a server or, one after the other, on
  several, unless the way is local;
- the sink, and FIFOs that lead from the source straight to it.

This is done once per source actor; `graphs.expand` repeats it for every device.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dataflow.behaviour import Behaviour
from dataflow.graph import Dpg, Fifo, PortRef
from graphs.deployment import Choice, Codec, Deployment
from graphs.located_yaml import Problems
from graphs.units import Edge, End, Unit, Units


@dataclass(frozen=True, slots=True)
class Way:
    """One way to an answer.

    Attributes:
        actor: Of the graph file; names the row of a local way.
        units: In dataflow order, those at home first. Empty where the answer is
            computed for every frame anyway.
        hops: The server groups that a frame passes, in order, and what runs on each;
            empty when all of it runs at home.
    """

    actor: str
    answer: End
    units: tuple[Unit, ...]
    hops: tuple["Hop", ...]
    quality: Literal["full", "degraded"]

    def hop_of(self, unit: Unit) -> int:
        """Return which one of `hops` a unit runs on; -1: it runs at home."""
        found = (i for i, hop in enumerate(self.hops) if unit in hop.units)
        return next(found, -1)


@dataclass(frozen=True, slots=True)
class Hop:
    """What a server of one group computes of a way."""

    group: str
    units: frozenset[Unit]


@dataclass(frozen=True, slots=True)
class Gate:
    """An early exit of a stream: who decides, and what the early answer is."""

    unit: Unit
    answer: End


@dataclass(frozen=True, slots=True)
class Stream:
    """What one source actor leads to; every device of its group plays it once."""

    source: str
    sink: str
    group: str
    upstream: tuple[Unit, ...]
    ways: tuple[Way, ...]
    edges: tuple[Edge, ...]
    """Between upstream units and units of ways."""
    answer: End
    answer_fifo: Fifo
    bypass: tuple[Fifo, ...]
    codec: Codec
    gate: Gate | None
    dpgs: tuple[Dpg, ...]
    """Those of the graph file among its upstream units."""


class Streams:
    """Finds the streams of a deployment; notes what cannot be one."""

    def __init__(self, deployment: Deployment, units: Units, problems: Problems):
        self._deployment = deployment
        self._file = deployment.graph
        self._units = units
        self._problems = problems
        self._claimed: set[int] = set()

    def find(self) -> list[Stream]:
        """Return the streams, in the order of their sources."""
        found = []
        for actors in self._components():
            stream = self._stream(actors)
            if stream is not None:
                found.append(stream)
        for index, choice in enumerate(self._deployment.order):
            if found and not self._problems and index not in self._claimed:
                self._problems.add(
                    choice.place,
                    f"failover: order: '{choice.actor}' neither leads to a sink nor is "
                    "under `understudies`; add it there",
                )
        for kind, keys in (
            ("understudies", self._file.understudies),
            ("exits", self._file.exits),
        ):
            for key in keys:
                if found and not any(s.answer_fifo.source == key for s in found):
                    self._problems.add(
                        self._file.places[f"{kind} {key}"],
                        f"{kind} of {key}: it does not lead to the answer of a sink; "
                        "name the port whose FIFO ends there",
                    )
        return found

    def _components(self) -> list[list[str]]:
        """Return the actors that FIFOs connect, component by component."""
        root = {name: name for name in self._units.actors}

        def find(name: str) -> str:
            while root[name] != name:
                root[name] = root[root[name]]
                name = root[name]
            return name

        links = [(f.source.actor, f.target.actor) for f in self._units.fifos]
        for key, refs in self._file.understudies.items():
            links += [(key.actor, ref.actor) for ref in refs]
        for key, early in self._file.exits.items():
            links += [(key.actor, early.answer.actor), (key.actor, early.gate)]
        for a, b in links:
            if a in root and b in root:
                root[find(b)] = find(a)
        components: dict[str, list[str]] = {}
        for name in self._units.actors:
            components.setdefault(find(name), []).append(name)
        return list(components.values())

    def _stream(self, actors: Sequence[str]) -> Stream | None:
        source = self._only(actors, "source", lambda kind: kind.source)
        sink = self._only(actors, "sink", lambda kind: kind.sink)
        if source is None or sink is None:
            return None
        first = self._file.graph.actors[sink].inputs[0]
        answers = [f for f in self._units.fifos if f.target == (sink, first.name)]
        if not answers:
            self._problems.add(
                self._file.places[sink],
                f"actor '{sink}': nothing leads to its port '{first.name}'; "
                "connect the answer to it",
            )
            return None
        answer = self._units.end(answers[0].source, "out")
        if answer is None or not self._at_home(source, sink):
            return None
        if answer.unit.actor == source:
            self._problems.add(
                self._file.places[str(answers[0])],
                f"fifo {answers[0]}: nothing stands between source and sink; "
                "put the actor that answers there",
            )
            return None
        bypass = self._bypass(source, sink, answers[0])
        gate = self._gate(answers[0].source)
        inner = _Inner(self._units, source, sink, actors, gate)
        if gate is not None and not self._gate_can_be(inner, gate, answer):
            return None
        ways = self._ways(inner, answers[0].source, answer)
        upstream = inner.upstream(answer)
        if ways is None or not self._upstream_at_home(source, upstream):
            return None
        dpgs = self._dpgs(actors, upstream)
        codecs = [edge.codec for edge in inner.edges]
        return Stream(
            source=source,
            sink=sink,
            group=self._units.placement(source).group,
            upstream=upstream,
            ways=ways,
            edges=inner.edges,
            answer=answer,
            answer_fifo=answers[0],
            bypass=bypass,
            codec=Codec(
                max((codec.encoding for codec in codecs), default=""),
                max((codec.compression for codec in codecs), default=""),
            ),
            gate=gate,
            dpgs=dpgs,
        )

    def _gate(self, answer: PortRef) -> Gate | None:
        """Return the gate in front of an answer, if its graph has an exit there."""
        found = self._file.exits.get(answer)
        end = self._units.end(found.answer, "out") if found else None
        if found is None or end is None or Unit(found.gate) not in self._units.kinds:
            return None
        return Gate(Unit(found.gate), end)

    def _gate_can_be(self, inner: "_Inner", gate: Gate, answer: End) -> bool:
        """Check that an exit is decided before the cut."""
        main = inner.main(answer)
        for unit in (gate.answer.unit, gate.unit):
            late = [u for u in main if u in inner.ancestors(unit)]
            if late:
                self._problems.add(
                    self._units.place(unit.actor),
                    f"map: {unit}: reads what '{late[-1]}' computes in the branches; "
                    "an exit is decided for every frame before them, so cut "
                    f"'{late[-1].actor}' behind the tensor that it reads",
                )
                return False
        return True

    def _dpgs(
        self, actors: Collection[str], upstream: Iterable[Unit]
    ) -> tuple[Dpg, ...]:
        """Return the DPGs of the graph file among `actors`: all before the fork."""
        before = {unit.actor for unit in upstream}
        found = []
        for dpg in self._file.graph.dpgs:
            members = [*sorted(dpg.members), dpg.controller]
            late = [name for name in members if name in actors and name not in before]
            if late:
                self._problems.add(
                    self._file.places[late[0]],
                    f"dpg '{dpg.name}': '{late[0]}' stands behind the fork; a "
                    "deployment has such DPGs in front of it, so let only `exits` and "
                    "the failover order choose behind",
                )
            elif not before.isdisjoint(members):
                found.append(dpg)
        return tuple(found)

    def _only(
        self,
        actors: Sequence[str],
        role: str,
        plays: Callable[[type[Behaviour]], bool],
    ) -> str | None:
        """Return the one actor that plays a role."""
        found = [
            name for name in actors if (b := self._units.behaviours[name]) and plays(b)
        ]
        if len(found) == 1:
            return found[0]
        if any(self._units.behaviours[name] is None for name in actors):
            return None
        listed = ", ".join(f"'{name}'" for name in found) or "none"
        connected = ", ".join(f"'{name}'" for name in actors)
        self._problems.add(
            self._file.places[found[1] if found else actors[0]],
            f"actors {connected}: connected, with {len(found)} {role}s ({listed}); "
            f"a stream has one {role}, so add or separate",
        )
        return None

    def _at_home(self, source: str, sink: str) -> bool:
        home = self._units.placement(source).group
        if self._deployment.groups[home].role != "endpoint":
            self._problems.add(
                self._units.place(source),
                f"map: {source}: '{home}' is of role server; "
                "map a source to a group of role endpoint",
            )
            return False
        if self._units.placement(sink).group != home:
            self._problems.add(
                self._units.place(sink),
                f"map: {sink}: on '{self._units.placement(sink).group}', but its "
                f"source '{source}' is on '{home}'; answers go back to the source's "
                "device, so map both to the same group",
            )
            return False
        return True

    def _bypass(self, source: str, sink: str, answer: Fifo) -> tuple[Fifo, ...]:
        found = []
        for fifo in self._units.fifos:
            if fifo.target.actor != sink or fifo == answer:
                continue
            if fifo.source.actor != source:
                self._problems.add(
                    self._file.places[str(fifo)],
                    f"fifo {fifo}: passes by the answer, but does not come from the "
                    f"source; only '{source}' may feed '{sink}' beside the answer",
                )
            found.append(fifo)
        return tuple(found)

    def _upstream_at_home(self, source: str, upstream: Iterable[Unit]) -> bool:
        home = self._units.placement(source).group
        for unit in upstream:
            if self._units.group(unit) != home:
                self._problems.add(
                    self._units.place(unit.actor),
                    f"map: {unit}: on '{self._units.group(unit)}', but it runs for "
                    f"every frame of '{source}', which is on '{home}'; "
                    f"map it to '{home}'",
                )
                return False
        return True

    # Ways

    def _ways(
        self, inner: "_Inner", ref: PortRef, answer: End
    ) -> tuple[Way, ...] | None:
        main = inner.main(answer)
        hops = self._hops(inner, main)
        if hops is None:
            return None
        stand_ins = {
            r.actor: r
            for r in self._file.understudies.get(ref, ())
            if r.actor in self._units.actors
        }
        order = self._deployment.order
        if not any(c.actor in {u.actor for u in main} for c in order) and not any(
            c.actor in stand_ins for c in order
        ):
            order = (Choice(ref.actor, (), self._units.place(ref.actor)),)
        ways = []
        for index, choice in enumerate(order):
            if choice.actor in {unit.actor for unit in main}:
                ways.append(self._main_way(inner, choice, main, hops, answer))
            elif choice.actor in stand_ins:
                end = self._units.end(stand_ins[choice.actor], "out")
                if end is not None:
                    ways.append(self._stand_in(inner, choice, end, answer))
            else:
                continue
            self._claimed.add(index)
        if not ways or None in ways:
            return None
        return tuple(way for way in ways if way is not None)

    def _hops(self, inner: "_Inner", main: Sequence[Unit]) -> tuple[Hop, ...] | None:
        """Return the servers that the main way passes, as they are mapped.

        Returns:
            None if a frame cannot go from one to the next so.
        """
        remote = [unit for unit in main if self._units.is_remote(unit)]
        groups = list(dict.fromkeys(map(self._units.group, remote)))
        place = {unit: groups.index(self._units.group(unit)) for unit in remote}
        for edge in inner.edges:
            before, after = edge.source.unit, edge.target.unit
            if after not in place:
                continue
            step = place[after] - place.get(before, -1)
            if step not in (0, 1):
                here, there = self._units.group(before), self._units.group(after)
                self._problems.add(
                    self._units.place(after.actor),
                    f"map: {after}: on '{there}', but reads '{before}' on '{here}'; a "
                    f"frame goes from the source to {', '.join(groups)} in this order, "
                    "and each reads what the one before it sends",
                )
                return None
        if not self._returns_last(main, remote):
            return None
        return tuple(
            Hop(group, frozenset(unit for unit in remote if place[unit] == index))
            for index, group in enumerate(groups)
        )

    def _main_way(
        self,
        inner: "_Inner",
        choice: Choice,
        main: tuple[Unit, ...],
        hops: tuple[Hop, ...],
        answer: End,
    ) -> Way | None:
        actor = answer.unit.actor
        path = choice.path or tuple(hop.group for hop in hops)
        path = path or (self._units.group(main[0]),)
        roles = [self._deployment.groups[group].role for group in path]
        if roles == ["endpoint"]:
            if not self._home(inner, choice, path[0]):
                return None
            return Way(actor, answer, main, (), "full")
        if "endpoint" in roles or len(set(path)) < len(path):
            self._problems.add(
                choice.place,
                f"failover: order: {', '.join(path)}: a frame goes from server to "
                "server and passes none twice; name different groups of role server",
            )
            return None
        if len(path) == len(hops):
            moved = tuple(
                Hop(group, hop.units) for group, hop in zip(path, hops, strict=True)
            )
        else:
            remote = [unit for hop in hops for unit in hop.units]
            moved = (Hop(path[0], frozenset(remote or main)),)
        return Way(actor, answer, main, moved, "full")

    def _returns_last(self, units: Sequence[Unit], remote: Collection[Unit]) -> bool:
        """Check that nothing at home stands behind what is on a server."""
        seen: Unit | None = None
        for unit in units:
            if unit in remote:
                seen = unit
            elif seen is not None:
                self._problems.add(
                    self._units.place(unit.actor),
                    f"map: {unit}: on '{self._units.group(unit)}', behind '{seen}' on "
                    f"'{self._units.group(seen)}'; a frame goes to a server once and "
                    f"its answer comes back, so map '{unit.actor}' there too",
                )
                return False
        return True

    def _home(self, inner: "_Inner", choice: Choice, group: str) -> bool:
        home = self._units.placement(inner.source).group
        if group == home:
            return True
        self._problems.add(
            choice.place,
            f"failover: order: '{group}' is another endpoint than '{home}', where "
            f"'{inner.source}' is; name '{home}' or a server",
        )
        return False

    def _stand_in(
        self, inner: "_Inner", choice: Choice, end: End, answer: End
    ) -> Way | None:
        units = inner.private(end, answer)
        lost = [unit for unit in units if unit in inner.main(answer)]
        if lost:
            self._problems.add(
                choice.place,
                f"failover: order: '{choice.actor}' reads what '{lost[-1]}' computes "
                f"on '{self._units.group(lost[-1])}'; an understudy reads what the "
                "endpoint computes for every frame, so tap in front of the cut",
            )
            return None
        if not units:  # it runs for every frame anyway
            if choice.path and not self._home(inner, choice, choice.path[0]):
                return None
            return Way(choice.actor, end, (), (), "degraded")
        remote = {unit for unit in units if self._units.is_remote(unit)}
        if not choice.path and not self._returns_last(units, remote):
            return None
        group = choice.path[0] if choice.path else self._units.group(end.unit)
        if self._deployment.groups[group].role == "endpoint":
            if not self._home(inner, choice, group):
                return None
            return Way(choice.actor, end, units, (), "degraded")
        # What stands at home in front of the first on a server stays there.
        first = remote or self._units.with_its_parts(end.unit)
        moved = frozenset(u for u in units if inner.ancestors(u) & first)
        return Way(choice.actor, end, units, (Hop(group, moved),), "degraded")


class _Inner:
    """The units between source and sink, and who needs whom."""

    def __init__(
        self,
        units: Units,
        source: str,
        sink: str,
        actors: Iterable[str],
        gate: Gate | None,
    ) -> None:
        self._units = units
        self._gate = gate
        self.source = source
        mine = set(actors) - {sink}
        self.edges = tuple(
            e
            for e in units.edges
            if e.source.unit.actor in mine and e.target.unit.actor in mine
        )
        # A FIFO with initial tokens does not say who fires first.
        self._feeds: dict[Unit, list[Unit]] = {}
        for edge in self.edges:
            if not edge.delay:
                self._feeds.setdefault(edge.target.unit, []).append(edge.source.unit)
        self._ancestors: dict[Unit, frozenset[Unit]] = {}

    def ancestors(self, unit: Unit) -> frozenset[Unit]:
        """Return the units that `unit` needs, itself among them."""
        if unit not in self._ancestors:
            found, todo = {unit}, [unit]
            while todo:
                fresh = set(self._feeds.get(todo.pop(), ())) - found
                found |= fresh
                todo.extend(fresh)
            self._ancestors[unit] = frozenset(found)
        return self._ancestors[unit]

    @cached_property
    def _rank(self) -> dict[Unit, int]:
        """Place of each unit in dataflow order; the file's order where that is free."""
        rank: dict[Unit, int] = {}
        waiting = list(self._units.kinds)
        while waiting:
            ready = next(
                (u for u in waiting if all(f in rank for f in self._feeds.get(u, ()))),
                waiting[0],  # a cycle without initial tokens: rule R10 will say it
            )
            rank[ready] = len(rank)
            waiting.remove(ready)
        return rank

    def _ordered(self, units: Iterable[Unit]) -> tuple[Unit, ...]:
        return tuple(sorted(units, key=self._rank.__getitem__))

    def main(self, answer: End) -> tuple[Unit, ...]:
        """Return the units of the main way: from the first on a server to the answer.

        Where none is on a server, it is the answering unit, a model with its parts.
        """
        needed = self.ancestors(answer.unit)
        remote = {unit for unit in needed if self._units.is_remote(unit)}
        if not remote:
            return self._ordered(self._units.with_its_parts(answer.unit))
        return self._ordered(u for u in needed if self.ancestors(u) & remote)

    def upstream(self, answer: End) -> tuple[Unit, ...]:
        """Return the units that run for every frame, the source first."""
        rest = self.ancestors(answer.unit) - set(self.main(answer))
        if self._gate is not None:
            rest |= self.ancestors(self._gate.unit)
            rest |= self.ancestors(self._gate.answer.unit)
        return self._ordered(rest | {Unit(self.source)})

    def private(self, end: End, answer: End) -> tuple[Unit, ...]:
        """Return the units of an understudy that do not run for every frame."""
        rest = self.ancestors(end.unit) - set(self.upstream(answer))
        return self._ordered(rest)
