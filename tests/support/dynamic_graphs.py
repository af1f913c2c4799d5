"""Graphs with DPGs, built piece by piece: chains, regions with branches, nested."""

from collections.abc import Mapping

from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef

Table = dict[str, dict[PortRef, int]]


class Builder:
    """Actors come into being where they are first connected."""

    def __init__(self) -> None:
        self.ports: dict[str, list[Port]] = {}
        self.fifos: list[Fifo] = []
        self.tables: dict[str, Table] = {}
        self.controllers: dict[str, str] = {}

    def static(
        self, source: str, target: str, rates: tuple[int, int] = (1, 1), delay: int = 0
    ) -> None:
        """Connect two actors in all modes."""
        ends = self._ends(source, target)
        for ref, direction, rate in zip(ends, ("out", "in"), rates, strict=True):
            self._port(ref, direction, (rate,))
        self.fifos.append(Fifo(*ends, delay=delay))

    def gated(
        self, dpg: str, source: str, target: str, rates: Mapping[str, int | None]
    ) -> None:
        """Connect two actors with the rate of each mode, at both ends."""
        ends = self._ends(source, target)
        allowed = tuple(sorted({rate or 0 for rate in rates.values()} | {0}))
        for ref, direction in zip(ends, ("out", "in"), strict=True):
            self._port(ref, direction, allowed)
            for mode, rate in rates.items():
                self.tables.setdefault(dpg, {}).setdefault(mode, {})[ref] = rate or 0
        self.fifos.append(Fifo(*ends))

    def graph(self, *without_control: str) -> Graph:
        """Return the graph, with a control FIFO to each member of each DPG."""
        dpgs = []
        for name, table in self.tables.items():
            dpg = Dpg(name, self.controllers[name], table)
            dpgs.append(dpg)
            for member in sorted(dpg.members - {dpg.controller, *without_control}):
                ends = self._ends(dpg.controller, member)
                for ref, direction in zip(ends, ("out", "in"), strict=True):
                    self._port(ref, direction, (1,), control=True)
                self.fifos.append(Fifo(*ends))
        actors = {n: Actor(n, "moves", tuple(p)) for n, p in self.ports.items()}
        return Graph("dynamic", actors, tuple(self.fifos), tuple(dpgs))

    def _ends(self, source: str, target: str) -> tuple[PortRef, PortRef]:
        number = len(self.fifos)
        return PortRef(source, f"o{number}"), PortRef(target, f"i{number}")

    def _port(
        self,
        ref: PortRef,
        direction: str,
        rates: tuple[int, ...],
        *,
        control: bool = False,
    ) -> None:
        port = Port(ref.port, direction, None, rates, control)  # type: ignore[arg-type]
        self.ports.setdefault(ref.actor, []).append(port)


def region(build: Builder, name: str, *, modes: int = 2, wide: int = 1) -> str:
    """Add a region with as many branches, each on in one mode; return its exit.

    Its entry is ``name.in``, its exit ``name.out``, its branches ``name.0``, ….
    """
    build.controllers[name] = f"{name}.c"
    for branch in range(wide):
        rates = {f"m{mode}": int(mode % wide == branch) for mode in range(modes)}
        build.gated(name, f"{name}.in", f"{name}.{branch}", rates)
        build.gated(name, f"{name}.{branch}", f"{name}.out", rates)
    build.static(f"{name}.in", f"{name}.out")
    return f"{name}.out"
