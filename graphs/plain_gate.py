"""The DPG of an early exit around a stream's region.

For a stream whose answer may come early, `gate` names the mode of each frame::

    early -> copy -> gate ~~~> switch, fork, join, select      control tokens
             copy -> switch --exit-------------------> select -> result
    head  ---------> switch --server-> fork … join --> select

In mode ``exit`` the early answer goes to `select` and the region gets nothing; in mode
``server`` the region plays, with its own control table: a DPG within a DPG.
"""

from collections.abc import Mapping
from dataclasses import replace

from dataflow.graph import CONTROL_TOKEN, Actor, Dpg, Fifo, Port, PortRef
from graphs.exits import EXIT_MODE, EXIT_MODES, GO_MODE, control_ports
from graphs.located_yaml import Place
from graphs.plain import Home
from graphs.streams import Gate
from graphs.units import End

GATE_PORT = "gate"


class PlainGate:
    """Adds the gate of one stream to the plain graph, around its region.

    Args:
        home: Of the stream.
        gate: Who decides, and the early answer.
        fork_inputs: What enters the region, and the fork's ports for it.
    """

    def __init__(self, home: Home, gate: Gate, fork_inputs: Mapping[End, str]) -> None:
        self._home = home
        self._plain = home.plain
        self._gate = gate
        self._fork_inputs = fork_inputs
        self._switch = home.called("switch")
        self._select = home.called("select")
        self._rates: dict[str, dict[PortRef, int]] = {mode: {} for mode in EXIT_MODES}
        self._entries: list[tuple[End, PortRef, Place]] = []

    def enter(self, end: End, source: PortRef, place: Place) -> None:
        """Note that `source` leads into the DPG.

        Args:
            end: What it carries: an input of the fork, the early answer, or both.
            source: The port upstream.
            place: Of the FIFO, in the user's files.
        """
        self._entries.append((end, source, place))

    def open(self) -> None:
        """Add the switch behind all that entered, and what leads on from it."""
        inputs: list[Port] = []
        outputs: list[Port] = []
        gives: list[int] = []
        onward: list[Fifo] = []
        for i, (end, source, _) in enumerate(self._entries):
            made = self._plain.actors[source.actor].port(source.port)
            inputs.append(Port(f"in{i}", "in", made.token, made.rates))
            targets = []
            if end == self._gate.answer:
                targets.append((EXIT_MODE, PortRef(self._select, EXIT_MODE)))
            if (name := self._fork_inputs.get(end)) is not None:
                fork = PortRef(self._home.called("fork"), name)
                targets.append((GO_MODE, fork))
            for mode, target in targets:
                out = PortRef(self._switch, f"{mode}{i}")
                outputs.append(Port(out.port, "out", made.token, (0, made.rate)))
                gives.append(i)
                onward.append(Fifo(out, target))
                self._rates[mode] |= {out: made.rate, target: made.rate}
        ports = (*inputs, _control(), *outputs)
        params = {"gives": gives}
        actor = Actor(self._switch, "switch", ports, params, self._home.device)
        self._plain.add_actor(actor, self._home.policy)
        for i, (_, source, place) in enumerate(self._entries):
            self._plain.add_fifo(Fifo(source, PortRef(self._switch, f"in{i}")), place)
        for fifo in onward:
            self._plain.add_fifo(self._home.roomy(fifo), self._home.policy)

    def governs(self, port: Port) -> Port:
        """Make a port of the fork or the join dynamic: it rests in mode ``exit``."""
        return replace(port, rates=(0, port.rate))

    def leave(self) -> PortRef:
        """Add the select behind the join and the control; return the answer's port."""
        join = PortRef(self._home.called("join"), "outcome")
        token = self._plain.actors[join.actor].port(join.port).token
        ports = (
            *(Port(mode, "in", token, (0, 1)) for mode in EXIT_MODES),
            _control(),
            Port("answer", "out", token),
        )
        actor = Actor(self._select, "select", ports, {}, self._home.device)
        self._plain.add_actor(actor, self._home.policy)
        late = PortRef(self._select, GO_MODE)
        self._rates[GO_MODE] |= {join: 1, late: 1}
        self._plain.add_fifo(self._home.roomy(Fifo(join, late)), self._home.policy)
        self._govern()
        return PortRef(self._select, "answer")

    def _govern(self) -> None:
        name = self._home.called(str(self._gate.unit))
        gate = self._plain.actors[name]
        around = [self._home.called(part) for part in ("fork", "join")]
        members = [self._switch, *around, self._select]
        ports, fifos = control_ports(gate, members)
        self._plain.actors[name] = replace(gate, ports=(*gate.ports, *ports))
        for fifo in fifos:
            self._plain.add_fifo(self._home.roomy(fifo), self._home.policy)
        every = {ref: 0 for row in self._rates.values() for ref in row}
        modes = {mode: every | row for mode, row in self._rates.items()}
        dpg = self._home.called("exit")
        self._plain.dpgs.append(Dpg(dpg, name, modes))
        self._plain.places[dpg] = self._home.policy


def _control() -> Port:
    return Port(GATE_PORT, "in", CONTROL_TOKEN, control=True)
