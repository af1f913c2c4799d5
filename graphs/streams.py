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

from dataflow.behaviour import Behaviour
from dataflow.graph import Dpg, Fifo, PortRef
from graphs.between import Between
from graphs.deployment import Codec, Deployment
from graphs.located_yaml import Problems
from graphs.units import Edge, End, Unit, Units
from graphs.ways import Way, Ways


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
        self._ways = Ways(deployment, units, problems)

    def find(self) -> list[Stream]:
        """Return the streams, in the order of their sources."""
        found = []
        for actors in self._components():
            stream = self._stream(actors)
            if stream is not None:
                found.append(stream)
        for index, choice in enumerate(self._deployment.order):
            if found and not self._problems and index not in self._ways.claimed:
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
        always = () if gate is None else (gate.unit, gate.answer.unit)
        between = Between(self._units, source, sink, actors, always)
        if gate is not None and not self._gate_can_be(between, gate, answer):
            return None
        ways = self._ways.find(between, answers[0].source, answer)
        upstream = between.upstream(answer)
        if ways is None or not self._upstream_at_home(source, upstream):
            return None
        dpgs = self._dpgs(actors, upstream)
        codecs = [edge.codec for edge in between.edges]
        return Stream(
            source=source,
            sink=sink,
            group=self._units.placement(source).group,
            upstream=upstream,
            ways=ways,
            edges=between.edges,
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

    def _gate_can_be(self, between: Between, gate: Gate, answer: End) -> bool:
        """Check that an exit is decided before the cut."""
        main = between.main(answer)
        for unit in (gate.answer.unit, gate.unit):
            late = [u for u in main if u in between.ancestors(unit)]
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
