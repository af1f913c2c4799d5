"""Early exits: who may answer before the rest of a network has to.

Under `exits` a graph file says whose answer may come early, and which actor, its
*gate*, decides that frame by frame::

    exits:
      net.logits: {answer: early.logits, gate: sure}

That is a DPG of two modes. In mode ``exit`` the early answer goes on; in mode
``server`` the other, and what computes it is part of the graph. The gate is its
controller. `undivided` writes it out for a graph by itself, where the network is one
actor and fires in any mode; a deployment puts the DPG around the region instead
(`graphs.plain_gate`), so that in mode ``exit`` nothing behind the cut fires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dataflow.graph import CONTROL_TOKEN, Actor, Dpg, Fifo, Graph, Port, PortRef
from graphs.actor_types import fresh_name

EXIT_MODE = "exit"
GO_MODE = "server"
EXIT_MODES = (EXIT_MODE, GO_MODE)
"""In the order of their indices: a gate names 0 or 1."""

_CONTROL = Port("gate", "in", CONTROL_TOKEN, control=True)


@dataclass(frozen=True, slots=True)
class Exit:
    """An early answer."""

    answer: PortRef
    """The port whose token it is."""
    gate: str
    """The actor that names the mode."""


def undivided(graph: Graph, exits: Mapping[PortRef, Exit]) -> Graph:
    """Return `graph` with a DPG for each of its exits.

    Args:
        graph: As its file gives it.
        exits: Answering port -> who may answer before it.
    """
    for answer, early in exits.items():
        graph = _Writer(graph, answer, early).written()
    return graph


class _Writer:
    """Writes one exit out: two switches, a select, a control table."""

    def __init__(self, graph: Graph, answer: PortRef, early: Exit) -> None:
        self._graph = graph
        self._answer = answer
        self._early = early
        self._actors = dict(graph.actors)
        self._fifos = list(graph.fifos)

    def written(self) -> Graph:
        token = self._graph.port(self._answer).token
        switch, select = self._name("switch"), self._name("select")
        either = tuple(Port(mode, "in", token, (0, 1)) for mode in EXIT_MODES)
        self._actors[switch] = Actor(
            switch,
            "switch",
            (
                *(Port(f"in{i}", "in", token) for i in range(len(EXIT_MODES))),
                _CONTROL,
                *(replace(port, direction="out") for port in either),
            ),
            {"gives": [0, 1]},
        )
        onward = self._graph.fifo_from.get(self._answer)
        answer = Port("answer", "out", token, optional=onward is None)
        self._actors[select] = Actor(select, "select", (*either, _CONTROL, answer))
        modes: dict[str, dict[PortRef, int]] = {}
        for i, source in enumerate((self._early.answer, self._answer)):
            mode = EXIT_MODES[i]
            self._read(source, PortRef(switch, f"in{i}"))
            self._fifos.append(Fifo(PortRef(switch, mode), PortRef(select, mode)))
            modes[mode] = {PortRef(switch, mode): 1, PortRef(select, mode): 1}
        if onward is not None:
            answered = replace(onward, source=PortRef(select, "answer"))
            self._fifos[self._fifos.index(onward)] = answered
        return self._governed(modes)

    def _name(self, part: str) -> str:
        return fresh_name(f"{self._answer}.{part}", self._actors)

    def _read(self, source: PortRef, target: PortRef) -> None:
        """Let `target` read a port that others may read as well."""
        other = self._graph.fifo_from.get(source)
        if other is None or source == self._answer:
            self._fifos.append(Fifo(source, target))
            return
        copy = self._name("copy")
        token = self._graph.port(source).token
        outputs = tuple(Port(name, "out", token) for name in ("a", "b"))
        self._actors[copy] = Actor(copy, "copy", (Port("of", "in", token), *outputs))
        self._fifos[self._fifos.index(other)] = replace(
            other, source=PortRef(copy, "a")
        )
        self._fifos.append(Fifo(source, PortRef(copy, "of")))
        self._fifos.append(Fifo(PortRef(copy, "b"), target))

    def _governed(self, modes: dict[str, dict[PortRef, int]]) -> Graph:
        gate = self._early.gate
        members = dict.fromkeys(ref.actor for row in modes.values() for ref in row)
        controls, fifos = control_ports(self._actors[gate], list(members))
        self._actors[gate] = replace(
            self._actors[gate], ports=(*self._actors[gate].ports, *controls)
        )
        every = {ref: 0 for row in modes.values() for ref in row}
        table = {mode: every | row for mode, row in modes.items()}
        dpg = Dpg(fresh_name(f"{self._answer}.exit", self._actors), gate, table)
        return replace(
            self._graph,
            actors=self._actors,
            fifos=(*self._fifos, *fifos),
            dpgs=(*self._graph.dpgs, dpg),
        )


def control_ports(
    gate: Actor, members: list[str]
) -> tuple[tuple[Port, ...], tuple[Fifo, ...]]:
    """Return an output port of `gate` for each of `members`, and the FIFOs there.

    Each member has an input port ``gate``.
    """
    names: list[str] = []
    for i in range(len(members)):
        names.append(fresh_name(f"c{i}", [p.name for p in gate.ports] + names))
    ports = tuple(Port(name, "out", CONTROL_TOKEN, control=True) for name in names)
    fifos = tuple(
        Fifo(PortRef(gate.name, name), PortRef(member, "gate"))
        for name, member in zip(names, members, strict=True)
    )
    return ports, fifos
