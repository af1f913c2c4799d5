"""What a picture of a graph shows: names, rates, sizes, and what is off.

A chosen mode gives dynamic ports one rate; those with rate 0 are off. A failed device
takes its actors with it, each branch of a region that passes through it, and every
actor all of whose tokens came from there.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dataflow.errors import MisuseError, nearest
from dataflow.graph import Actor, Dpg, Fifo, Graph, PortRef

WIRE = frozenset({"tx", "rx"})
"""Types of the actors that stand at the rim of a device."""


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class Picture:
    """A graph, and the modes and failures that it is drawn for."""

    graph: Graph
    modes: Mapping[str, str]
    """The chosen mode of some DPGs; the others are drawn with all their rates."""
    failed: frozenset[str]

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices, in the order of their first actors; "" for none."""
        return tuple(dict.fromkeys(a.device or "" for a in self.graph.actors.values()))

    @cached_property
    def dpg_of(self) -> Mapping[str, Dpg]:
        """Each actor with dynamic ports, and each controller, to its DPG."""
        found = {dpg.controller: dpg for dpg in self.graph.dpgs}
        for dpg in self.graph.dpgs:
            found |= dict.fromkeys(dpg.members, dpg)
        return found

    @cached_property
    def _dpg_of_port(self) -> Mapping[PortRef, Dpg]:
        return {ref: dpg for dpg in self.graph.dpgs for ref in dpg.dynamic_ports}

    def rates(self, ref: PortRef) -> tuple[int, ...]:
        """Return the rates that a port may have in the chosen modes."""
        dpg = self._dpg_of_port.get(ref)
        if dpg is None or dpg.name not in self.modes:
            return self.graph.port(ref).rates
        return (dpg.modes[self.modes[dpg.name]][ref],)

    def rate_text(self, ref: PortRef) -> str:
        return "|".join(map(str, self.rates(ref)))

    def is_control(self, fifo: Fifo) -> bool:
        return self.graph.port(fifo.target).control

    def is_cut(self, fifo: Fifo) -> bool:
        ends = (self.graph.actors[end.actor] for end in (fifo.source, fifo.target))
        return len({actor.device for actor in ends}) > 1

    def size_text(self, fifo: Fifo) -> str:
        """Return the bytes of one firing's tokens; "" where the type is not known."""
        token = self.graph.token(fifo)
        if token is None:
            return ""
        return byte_text(token.nbytes * self.graph.port(fifo.source).rate)

    def short_name(self, actor: Actor) -> str:
        """Return the actor's name without what its box says: its stream, its place."""
        plain, bracket, rest = actor.name.partition("[")
        stream = rest.partition("]")[0]
        if not bracket or stream.partition("/")[0] == actor.device:
            return plain
        return f"{plain} · {stream}"

    @cached_property
    def silent(self) -> frozenset[Fifo]:
        """FIFOs that carry no token in the chosen modes."""
        return frozenset(
            fifo
            for fifo in self.graph.fifos
            if any(self.rates(end) == (0,) for end in (fifo.source, fifo.target))
        )

    @cached_property
    def off_actors(self) -> frozenset[str]:
        """Actors that do not fire in the chosen modes, or after the failures."""
        graph = self.graph
        off = {a.name for a in graph.actors.values() if a.device in self.failed}
        for region in graph.regions:
            for branch in region.branches:
                if not off.isdisjoint(branch.actors):
                    off |= set(branch.actors)
        waiting = [name for name in graph.actors if name not in off]
        while True:
            idle = {name for name in waiting if self._idle(name, off)}
            if not idle:
                return frozenset(off)
            off |= idle
            waiting = [name for name in waiting if name not in idle]

    def _idle(self, name: str, off: Collection[str]) -> bool:
        inputs = [f for f in self.graph.inputs(name) if not self.is_control(f)]
        outputs = [f for f in self.graph.outputs(name) if not self.is_control(f)]
        if (inputs or outputs) and self.silent.issuperset([*inputs, *outputs]):
            return True
        # The borders of a region rest with it: in a mode of the DPG that it lies in.
        if name in self._forks:
            return self.silent.issuperset(inputs)
        if name in self._joins:  # tells the outcome also of a frame nobody answered
            return self.silent.issuperset(outputs)
        wanted = [f for f in inputs if f not in self.silent]
        return bool(wanted) and all(f.source.actor in off for f in wanted)

    @cached_property
    def _forks(self) -> frozenset[str]:
        return frozenset(region.fork for region in self.graph.regions)

    @cached_property
    def _joins(self) -> frozenset[str]:
        return frozenset(region.join for region in self.graph.regions)

    @cached_property
    def off_fifos(self) -> frozenset[Fifo]:
        off = self.off_actors
        return frozenset(
            fifo
            for fifo in self.graph.fifos
            if fifo in self.silent
            # An actor that a mode switches off still reads its control token.
            or (fifo.source.actor in off and not self.is_control(fifo))
            or (fifo.target.actor in off and not self.is_control(fifo))
            or any(
                self.graph.actors[end.actor].device in self.failed
                for end in (fifo.source, fifo.target)
            )
        )

    @cached_property
    def usual_capacity(self) -> int | None:
        """The capacity of most FIFOs, which is written once and not at each."""
        declared = [f.capacity for f in self.graph.fifos if f.capacity is not None]
        [(most, count)] = Counter(declared).most_common(1) or [(0, 0)]
        return most if count > 3 and 2 * count > len(declared) else None

    def notes(self) -> list[str]:
        """Return what is written below the picture, a line each."""
        lines = []
        for dpg in self.graph.dpgs:
            chosen = self.modes.get(dpg.name)
            modes = ", ".join(f"[{m}]" if m == chosen else m for m in dpg.modes)
            lines.append(f"DPG {dpg.name}, set by {dpg.controller}: modes {modes}")
        rest = ["rate 1 where none is written"]
        if self.usual_capacity is not None:
            rest.append(f"capacity {self.usual_capacity} where no ⟨n⟩ is written")
        elif any(fifo.capacity is not None for fifo in self.graph.fifos):
            rest.append("⟨n⟩: capacity")
        if any(fifo.delay for fifo in self.graph.fifos):
            rest.append("●: initial tokens, 1 where no number is written")
        if self.failed:
            rest.append(f"failed: {', '.join(sorted(self.failed))}")
        if self.off_actors or self.off_fifos:
            rest.append("grey: off")
        return [*lines, "; ".join(rest)]

    def fifo_text(self, fifo: Fifo) -> str:
        """Return all about a FIFO, for a tooltip."""
        token = self.graph.token(fifo)
        rates = f"{self.rate_text(fifo.source)} to {self.rate_text(fifo.target)}"
        words = [str(fifo), f"rates {rates}"]
        if token is not None:
            words.append(f"{token}, {byte_text(token.nbytes)} a token")
        if fifo.capacity is not None:
            words.append(f"capacity {fifo.capacity}")
        if fifo.delay:
            words.append(f"{fifo.delay} initial tokens")
        return "; ".join(words)


def picture(
    graph: Graph, modes: Iterable[str] = (), failed: Iterable[str] = ()
) -> Picture:
    """Return the picture of `graph` for ``DPG=MODE`` texts and failed devices.

    Raises:
        MisuseError: No such DPG, mode or device.
    """
    chosen = dict(_chosen(graph, text) for text in modes)
    devices = {a.device for a in graph.actors.values() if a.device is not None}
    for device in failed:
        if device not in devices:
            known = ", ".join(sorted(devices)) or "none"
            raise MisuseError(
                f"device '{device}': not in graph '{graph.name}'"
                f"{nearest(device, devices)}; its devices are {known}"
            )
    return Picture(graph, chosen, frozenset(failed))


def _chosen(graph: Graph, text: str) -> tuple[str, str]:
    name, equals, mode = text.rpartition("=")
    if not equals:
        raise MisuseError(f"mode '{text}': not of the form DPG=MODE")
    dpgs = {dpg.name: dpg for dpg in graph.dpgs}
    if name not in dpgs:
        raise MisuseError(
            f"dpg '{name}': not in graph '{graph.name}'{nearest(name, dpgs)}; its DPGs "
            f"are {', '.join(dpgs) or 'none'}"
        )
    if mode not in dpgs[name].modes:
        raise MisuseError(
            f"dpg '{name}': no mode '{mode}'{nearest(mode, dpgs[name].modes)}; its "
            f"modes are {', '.join(dpgs[name].modes)}"
        )
    return name, mode


def byte_text(count: int) -> str:
    """Return a number of bytes with its unit.

    >>> byte_text(64), byte_text(8192), byte_text(3 * 2**20)
    ('64 B', '8 KiB', '3 MiB')
    """
    if count < 1024:
        return f"{count} B"
    if count < 1024**2:
        return f"{count / 1024:.4g} KiB"
    return f"{count / 1024**2:.4g} MiB"
