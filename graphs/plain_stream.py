"""One stream of the plain graph: upstream, fork, join, row and sink.

The window, unless the deployment fixes it, is W = ceil(rate_hz x (t_detect +
t_service)) + 1, at least 4: the frames that come while a dead server is not yet known
to be dead, and one more. t_detect is 0.1 s, the bound on detecting a silent peer;
t_service is taken as 0.02 s until profiles say better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataflow.graph import (
    ALL_ROW,
    CONTROL_TOKEN,
    DROP_ROW,
    Actor,
    Branch,
    Dpg,
    Fifo,
    Port,
    PortRef,
    Region,
    TokenType,
)
from graphs.actor_types import fresh_name
from graphs.deployment import WINDOW_MAX
from graphs.exits import EXIT_MODE
from graphs.iterations import frames_per_iteration
from graphs.located_yaml import Place
from graphs.plain import Home, Plain, control_input, dynamic_port
from graphs.plain_gate import GATE_PORT, PlainGate
from graphs.rows import Row, rows_of
from graphs.streams import Stream
from graphs.units import End, Unit

DETECT_MS = 100
SERVICE_MS = 20
WINDOW_MIN = 4
BYPASS_EXTRA = 2  # the frame that is fired and the one that is settled
RESULTS_TYPE = "results"


def default_window(rate_hz: float) -> int:
    """Return the frames that may be under way at a source's rate.

    >>> default_window(50), default_window(1)
    (7, 4)
    """
    window = math.ceil(rate_hz * (DETECT_MS + SERVICE_MS) / 1000) + 1
    return min(max(window, WINDOW_MIN), WINDOW_MAX)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who reads tokens of an end upstream: an input port; None: the region."""

    target: PortRef | None
    capacity: int | None
    delay: int
    place: Place


class PlainStream:
    """Adds one stream to the plain graph."""

    def __init__(
        self, plain: Plain, stream: Stream, device: str, name: str, index: int
    ) -> None:
        self.plain = plain
        self.units = plain.units
        self.deployment = plain.deployment
        self.stream = stream
        self.frames = frames_per_iteration(stream, plain.units)
        places = self.deployment.places
        self.home = Home(
            plain,
            device,
            name,
            self.deployment.window or default_window(self._rate_hz() / self.frames),
            places.get("failover", places["map"]),
        )
        self.rows = rows_of(stream, self.home, index)
        self.fork_inputs = self._name_fork_inputs()
        self.gate: PlainGate | None = None
        if stream.gate is not None:
            self.gate = PlainGate(self.home, stream.gate, self.fork_inputs)
        self.dynamic: list[dict[PortRef, int]] = [{} for _ in self.rows]
        """For each row, the rates of the ports that it plays."""
        self.carried: set[str] = set()
        self.controlled: list[str] = []

    def _rate_hz(self) -> float:
        source = self.deployment.graph.graph.actors[self.stream.source]
        rate = source.params.get("rate_hz")
        return float(rate) if isinstance(rate, int | float) else 0.0

    # The parts of a stream, in the order in which they stand in the plain graph

    def begin(self) -> None:
        """Add what stands before the branches: upstream and fork."""
        stream = self.stream
        for unit in stream.upstream:
            self._add_unit(unit, self.home.called(str(unit)), self.home.device)
        for dpg in stream.dpgs:
            self._add_dpg(dpg)
        self._add_fork()
        for end, readers in self._readers().items():
            self._lead(end, readers)
        if self.gate is not None:
            self.gate.open()

    def _readers(self) -> dict[End, list[_Reader]]:
        """Return who reads each end upstream: units there, the fork, the exit."""
        before = self.stream.upstream
        readers: dict[End, list[_Reader]] = {}
        for edge in self.stream.edges:
            if edge.source.unit in before and edge.target.unit in before:
                target = self.ref(self.home.called(str(edge.target.unit)), edge.target)
                reader = _Reader(target, edge.capacity, edge.delay, edge.place)
                readers.setdefault(edge.source, []).append(reader)
        entered = dict.fromkeys(self.fork_inputs)
        if self.gate is not None and self.stream.gate is not None:
            entered.setdefault(self.stream.gate.answer)
        for end in entered:
            edges = [e for e in self.stream.edges if e.source == end]
            place = edges[0].place if edges else self.home.policy
            readers.setdefault(end, []).append(_Reader(None, None, 0, place))
        return readers

    def _lead(self, end: End, readers: Sequence[_Reader]) -> None:
        """Lead the tokens of an end upstream to all that read them."""
        source = self._upstream_port(end)
        if len(readers) == 1:
            self._lead_to(end, source, readers[0])
            return
        name = self.home.called(f"{end.unit}.{source.port}.copy")
        made = self.plain.actors[source.actor].port(source.port)
        outputs = tuple(
            replace(made, name=f"to{i}", optional=False) for i in range(len(readers))
        )
        taken = replace(made, name="of", direction="in", optional=False)
        actor = Actor(name, "copy", (taken, *outputs), {}, self.home.device)
        self.plain.add_actor(actor, readers[0].place)
        self.plain.add_fifo(Fifo(source, PortRef(name, "of")), readers[0].place)
        for i, reader in enumerate(readers):
            self._lead_to(end, PortRef(name, f"to{i}"), reader)

    def _lead_to(self, end: End, source: PortRef, reader: _Reader) -> None:
        if reader.target is not None:
            fifo = Fifo(source, reader.target, reader.capacity, reader.delay)
            self.plain.add_fifo(fifo, reader.place)
        elif self.gate is not None:
            self.gate.enter(end, source, reader.place)
        else:
            target = PortRef(self.home.called("fork"), self.fork_inputs[end])
            self.plain.add_fifo(self.home.roomy(Fifo(source, target)), reader.place)

    def _add_dpg(self, dpg: Dpg) -> None:
        """Add a DPG of the graph file, all of it upstream."""
        modes = {
            mode: {
                PortRef(self.home.called(ref.actor), ref.port): rate
                for ref, rate in row.items()
            }
            for mode, row in dpg.modes.items()
        }
        name = self.home.called(dpg.name)
        self.plain.dpgs.append(Dpg(name, self.home.called(dpg.controller), modes))

    def end(self, branches: tuple[Branch, ...]) -> None:
        """Add what stands behind the branches, and the region with its control."""
        self._add_join()
        self._add_row(branches)
        self._add_sink()

    def _add_unit(self, unit: Unit, name: str, device: str) -> None:
        actor = self.units.kinds[unit].actor(name, device)
        self.plain.add_actor(actor, self.place(unit))

    def place(self, unit: Unit) -> Place:
        if unit.part not in ("", "head"):
            return self.units.place(unit.actor)
        return self.deployment.graph.places[unit.actor]

    def ref(self, actor: str, end: End) -> PortRef:
        """Return the input port that an end is on the plain actor called `actor`."""
        return PortRef(actor, self.units.kinds[end.unit].inputs[end.name])

    def _upstream_port(self, end: End) -> PortRef:
        name = self.units.kinds[end.unit].outputs[end.name]
        return PortRef(self.home.called(str(end.unit)), name)

    # Fork, join, row, sink

    def _name_fork_inputs(self) -> dict[End, str]:
        """Name the fork's inputs after the ports that feed it."""
        ends = dict.fromkeys(
            edge.source
            for edge in self.stream.edges
            if edge.source.unit in self.stream.upstream
            and edge.target.unit not in self.stream.upstream
        )
        ends |= dict.fromkeys(w.answer for w in self.stream.ways if not w.units)
        names: dict[End, str] = {}
        for end in ends:
            port = self.units.kinds[end.unit].outputs[end.name]
            names[end] = fresh_name(port, names.values())
        return names

    def _add_fork(self) -> None:
        name = self.home.called("fork")
        inputs: list[Port] = []
        outputs: list[Port] = []
        for end, port_name in self.fork_inputs.items():
            made = self.units.port(end, "out")
            taken = Port(port_name, "in", made.token, made.rates)
            inputs.append(taken if self.gate is None else self.gate.governs(taken))
            for row in self.rows:
                if end in self._entries(row):
                    out = f"b{row.index}_{port_name}"
                    outputs.append(dynamic_port(out, "out", made))
                    self.dynamic[row.index][PortRef(name, out)] = made.rate
        ports = (*inputs, *self._controls(), *outputs)
        self.plain.add_actor(
            Actor(name, "fork", ports, {}, self.home.device), self.home.policy
        )
        self.controlled.append(name)

    def _controls(self) -> tuple[Port, ...]:
        """Return the control inputs of fork and join."""
        row = control_input()
        if self.gate is None:
            return (row,)
        return (row, replace(row, name=GATE_PORT))

    def _entries(self, row: Row) -> set[End]:
        """Return the ends upstream that a row reads."""
        if not row.way.units:
            return {row.way.answer}
        return {
            edge.source
            for edge in self.stream.edges
            if edge.target.unit in row.way.units
            and edge.source.unit in self.stream.upstream
        }

    def _answer_token(self) -> TokenType | None:
        return self.units.port(self.stream.answer, "out").token

    def _add_join(self) -> None:
        name = self.home.called("join")
        token = self._answer_token()
        outcome = Port("outcome", "out", token)
        ports = (
            *self._controls(),
            *(Port(f"r{row.index}", "in", token, (0, 1)) for row in self.rows),
            outcome if self.gate is None else self.gate.governs(outcome),
        )
        self.plain.add_actor(
            Actor(name, "join", ports, {}, self.home.device), self.home.policy
        )
        self.controlled.append(name)
        for row in self.rows:
            self.dynamic[row.index][PortRef(name, f"r{row.index}")] = 1

    def _add_row(self, branches: tuple[Branch, ...]) -> None:
        name = self.home.called("row")
        ports = tuple(
            Port(f"c{i}", "out", CONTROL_TOKEN, control=True)
            for i in range(len(self.controlled))
        )
        self.plain.add_actor(
            Actor(name, "row", ports, {}, self.home.device), self.home.policy
        )
        for i, actor in enumerate(self.controlled):
            target = next(p for p in self.plain.actors[actor].inputs if p.control)
            fifo = Fifo(PortRef(name, f"c{i}"), PortRef(actor, target.name))
            self.plain.add_fifo(self.home.roomy(fifo), self.home.policy)
        region = self.home.called("region")
        every = {ref: 0 for rates in self.dynamic for ref in rates}
        modes = {
            row.name: every | rates
            for row, rates in zip(self.rows, self.dynamic, strict=True)
        }
        redundancy = self.deployment.redundancy
        if redundancy.together:
            modes[ALL_ROW] = {
                ref: r for rates in self.dynamic for ref, r in rates.items()
            }
        modes[DROP_ROW] = every
        self.plain.dpgs.append(Dpg(region, name, modes, frozenset(self.carried)))
        self.plain.regions.append(
            Region(
                name=region,
                stream=self.home.name,
                source=self.home.called(self.stream.source),
                sink=self.home.called(self.stream.sink),
                control=name,
                fork=self.home.called("fork"),
                join=self.home.called("join"),
                branches=branches,
                window=self.home.window,
                deadline_ms=self.deployment.deadline_ms,
                redundancy=redundancy,
            )
        )
        self.plain.places[region] = self.home.policy

    def _answered(self) -> PortRef:
        """Return the port where the outcomes come from."""
        if self.gate is not None:
            return self.gate.leave()
        return PortRef(self.home.called("join"), "outcome")

    def _add_sink(self) -> None:
        stream = self.stream
        unit, name = Unit(stream.sink), self.home.called(stream.sink)
        kind = self.units.kinds[unit]
        answer = stream.answer_fifo.target.port
        ports = tuple(
            replace(p, token=p.token or self._answer_token()) if p.name == answer else p
            for p in kind.ports
        )
        params = dict(kind.params)
        if kind.type == RESULTS_TYPE:
            # The first line of its file says what it is a result of.
            params |= {
                "deployment": self.deployment.name,
                "graph": self.deployment.graph.graph.name,
                "rows": [EXIT_MODE] * bool(self.gate) + [r.name for r in self.rows],
                "codec": str(stream.codec),
            }
        actor = replace(kind.actor(name, self.home.device), ports=ports, params=params)
        self.plain.add_actor(actor, self.place(unit))
        places = self.deployment.graph.places
        answered = stream.answer_fifo
        self.plain.add_fifo(
            Fifo(
                self._answered(),
                PortRef(name, answer),
                answered.capacity,
                answered.delay,
            ),
            places[str(answered)],
        )
        room = (self.home.window + BYPASS_EXTRA) * self.frames
        for fifo in stream.bypass:
            self.plain.add_fifo(
                Fifo(
                    PortRef(self.home.called(stream.source), fifo.source.port),
                    PortRef(name, fifo.target.port),
                    max(fifo.capacity or 0, room),
                    fifo.delay,
                ),
                places[str(fifo)],
            )
