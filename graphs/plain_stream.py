"""One stream of the plain graph: upstream, fork, join, row and sink.

The window, unless the deployment fixes it, is W = ceil(rate_hz x (t_detect +
t_service)) + 1, at least 4: the frames that come while a dead server is not yet known
to be dead, and one more. t_detect is 0.1 s, the bound on detecting a silent peer;
t_service is taken as 0.02 s until profiles say better.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from dataflow.graph import (
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
from graphs.deployment import WINDOW_MAX, Deployment
from graphs.located_yaml import Place, Problems
from graphs.streams import Stream, Way
from graphs.units import Edge, End, Unit, Units

DETECT_MS = 100
SERVICE_MS = 20
WINDOW_MIN = 4
BYPASS_EXTRA = 2  # the frame that is fired and the one that is settled
ROWS_MAX = 255  # a row is one byte on the wire, and `drop` is one
RESULTS_TYPE = "results"


def default_window(rate_hz: float) -> int:
    """Return the frames that may be under way at a source's rate.

    >>> default_window(50), default_window(1)
    (7, 4)
    """
    window = math.ceil(rate_hz * (DETECT_MS + SERVICE_MS) / 1000) + 1
    return min(max(window, WINDOW_MIN), WINDOW_MAX)


@dataclass(slots=True)
class Plain:
    """The plain graph as far as it is built."""

    deployment: Deployment
    units: Units
    actors: dict[str, Actor] = field(default_factory=dict)
    fifos: list[Fifo] = field(default_factory=list)
    dpgs: list[Dpg] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)

    def add_actor(self, actor: Actor, place: Place) -> None:
        assert actor.name not in self.actors, actor.name
        self.actors[actor.name] = actor
        self.places[actor.name] = place

    def add_fifo(self, fifo: Fifo, place: Place) -> None:
        self.fifos.append(fifo)
        self.places[str(fifo)] = place


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one stream's control table: a way, on a device."""

    index: int
    name: str
    way: Way
    server: str | None


class PlainStream:
    """Adds one stream to the plain graph."""

    def __init__(
        self, plain: Plain, stream: Stream, device: str, name: str, index: int
    ) -> None:
        self.plain = plain
        self.units = plain.units
        self.deployment = plain.deployment
        self.stream = stream
        self.device = device
        self.name = name
        self.rows = self._all_rows(index)
        self.window = self.deployment.window or default_window(self._rate_hz())
        self.policy = self.deployment.places.get(
            "failover", self.deployment.places["map"]
        )
        self.fork_inputs = self._name_fork_inputs()
        self.dynamic: list[dict[PortRef, int]] = [{} for _ in self.rows]
        """For each row, the rates of the ports that it plays."""
        self.carried: set[str] = set()
        self.controlled: list[str] = []

    def _rate_hz(self) -> float:
        source = self.deployment.graph.graph.actors[self.stream.source]
        rate = source.params.get("rate_hz")
        return float(rate) if isinstance(rate, int | float) else 0.0

    def _all_rows(self, index: int) -> tuple[Row, ...]:
        rows: list[Row] = []
        for way in self.stream.ways:
            if way.group is None:
                rows.append(Row(len(rows), way.actor, way, None))
                continue
            servers = self.deployment.groups[way.group].instances
            start = index % len(servers)
            for server in servers[start:] + servers[:start]:
                main = way.quality == "full"
                name = server if main else f"{way.actor}@{server}"
                rows.append(Row(len(rows), name, way, server))
        self._check_rows(rows)
        return tuple(rows)

    def _check_rows(self, rows: Sequence[Row]) -> None:
        places = self.deployment.places
        place = places.get("failover", places["map"])
        names = [row.name for row in rows]
        if len(rows) > ROWS_MAX:
            self.plain.problems.add(
                place,
                f"failover: {len(rows)} ways to an answer for one stream; "
                f"the most is {ROWS_MAX}, so list fewer servers",
            )
        servers = [row.server for row in rows if row.server is not None]
        for server in dict.fromkeys(servers):
            if servers.count(server) > 1:
                ways = ", ".join(row.name for row in rows if row.server == server)
                # A session keeps the credit of a stream, not of a stream's branches.
                self.plain.problems.add(
                    place,
                    f"failover: {ways}: two ways to an answer on server '{server}'; "
                    "a stream may have one on each, so put one elsewhere",
                )
        for name in dict.fromkeys(names):
            if names.count(name) > 1 or name == DROP_ROW:
                self.plain.problems.add(
                    place,
                    f"failover: two rows would be called '{name}'; "
                    "rename the device group or the actor",
                )

    def called(self, label: str, server: str | None = None) -> str:
        return f"{label}[{self.name}]" + (f"@{server}" if server else "")

    # The parts of a stream, in the order in which they stand in the plain graph

    def begin(self) -> None:
        """Add what stands before the branches: upstream and fork."""
        stream = self.stream
        for unit in stream.upstream:
            self._add_unit(unit, self.called(str(unit)), self.device)
        for edge in stream.edges:
            if edge.source.unit in stream.upstream and edge.target.unit in (
                stream.upstream
            ):
                self.plain.add_fifo(
                    Fifo(
                        self._upstream_port(edge.source),
                        self.ref(self.called(str(edge.target.unit)), edge.target),
                        edge.capacity,
                        edge.delay,
                    ),
                    edge.place,
                )
        self._add_fork()

    def end(self, branches: tuple[Branch, ...]) -> None:
        """Add what stands behind the branches, and the region with its control."""
        self._add_join()
        self._add_row(branches)
        self._add_sink()

    def _add_unit(self, unit: Unit, name: str, device: str) -> None:
        kind = self.units.kinds[unit]
        self.plain.add_actor(
            Actor(name, kind.type, kind.ports, kind.params, device, kind.stateful),
            self.place(unit),
        )

    def place(self, unit: Unit) -> Place:
        if unit.part == "tail":
            return self.units.place(unit.actor)
        return self.deployment.graph.places[unit.actor]

    def ref(self, actor: str, end: End) -> PortRef:
        """Return the input port that an end is on the plain actor called `actor`."""
        return PortRef(actor, self.units.kinds[end.unit].inputs[end.name])

    def _upstream_port(self, end: End) -> PortRef:
        name = self.units.kinds[end.unit].outputs[end.name]
        return PortRef(self.called(str(end.unit)), name)

    # Fork, join, row, sink

    def _name_fork_inputs(self) -> dict[End, str]:
        """Name the fork's inputs after the ports that feed it."""
        ends = dict.fromkeys(
            edge.source
            for edge in self.stream.edges
            if edge.source.unit in self.stream.upstream
            and edge.target.unit not in self.stream.upstream
        )
        names: dict[End, str] = {}
        for end in ends:
            port = self.units.kinds[end.unit].outputs[end.name]
            names[end] = fresh_name(port, names.values())
        return names

    def _add_fork(self) -> None:
        name = self.called("fork")
        inputs, outputs = [control_input()], []
        for end, port_name in self.fork_inputs.items():
            made = self.units.port(end, "out")
            inputs.append(Port(port_name, "in", made.token, made.rates))
            for row in self.rows:
                if any(end == edge.source for edge in self._entries(row)):
                    out = f"b{row.index}_{port_name}"
                    outputs.append(dynamic_port(out, "out", made))
                    self.dynamic[row.index][PortRef(name, out)] = made.rate
        ports = (*inputs[1:], inputs[0], *outputs)
        self.plain.add_actor(Actor(name, "fork", ports, {}, self.device), self.policy)
        self.controlled.append(name)
        for end, port_name in self.fork_inputs.items():
            place = next(e.place for e in self.stream.edges if e.source == end)
            fifo = Fifo(self._upstream_port(end), PortRef(name, port_name))
            self.plain.add_fifo(self.roomy(fifo), place)
            self._check_single(end, place)

    def _check_single(self, end: End, place: Place) -> None:
        """Refuse an upstream port that is read upstream as well as behind the fork."""
        for edge in self.stream.edges:
            if edge.source == end and edge.target.unit in self.stream.upstream:
                self.plain.problems.add(
                    place,
                    f"fifo from {end.unit}: '{end.name}' goes to '{edge.target.unit}' "
                    "as well; put an actor with two outputs in front of both",
                )

    def _entries(self, row: Row) -> list[Edge]:
        """Return the edges from upstream into a row's units."""
        return [
            edge
            for edge in self.stream.edges
            if edge.target.unit in row.way.units
            and edge.source.unit in self.stream.upstream
        ]

    def roomy(self, fifo: Fifo) -> Fifo:
        """Give a FIFO inside the region, or into it, room for a window of frames."""
        rate = self.plain.actors[fifo.source.actor].port(fifo.source.port).rate
        return replace(fifo, capacity=max(fifo.capacity or 0, self.window * rate))

    def _answer_token(self) -> TokenType | None:
        return self.units.port(self.stream.answer, "out").token

    def _add_join(self) -> None:
        name = self.called("join")
        token = self._answer_token()
        ports = (
            control_input(),
            *(Port(f"r{row.index}", "in", token, (0, 1)) for row in self.rows),
            Port("outcome", "out", token),
        )
        self.plain.add_actor(Actor(name, "join", ports, {}, self.device), self.policy)
        self.controlled.append(name)
        for row in self.rows:
            self.dynamic[row.index][PortRef(name, f"r{row.index}")] = 1

    def _add_row(self, branches: tuple[Branch, ...]) -> None:
        name = self.called("row")
        ports = tuple(
            Port(f"c{i}", "out", CONTROL_TOKEN, control=True)
            for i in range(len(self.controlled))
        )
        self.plain.add_actor(Actor(name, "row", ports, {}, self.device), self.policy)
        for i, actor in enumerate(self.controlled):
            target = next(p for p in self.plain.actors[actor].inputs if p.control)
            fifo = Fifo(PortRef(name, f"c{i}"), PortRef(actor, target.name))
            self.plain.add_fifo(self.roomy(fifo), self.policy)
        region = self.called("region")
        every = {ref: 0 for rates in self.dynamic for ref in rates}
        modes = {
            row.name: every | rates
            for row, rates in zip(self.rows, self.dynamic, strict=True)
        } | {DROP_ROW: every}
        self.plain.dpgs.append(Dpg(region, name, modes, frozenset(self.carried)))
        self.plain.regions.append(
            Region(
                name=region,
                stream=self.name,
                source=self.called(self.stream.source),
                sink=self.called(self.stream.sink),
                control=name,
                fork=self.called("fork"),
                join=self.called("join"),
                branches=branches,
                window=self.window,
                deadline_ms=self.deployment.deadline_ms,
            )
        )
        self.plain.places[region] = self.policy

    def _add_sink(self) -> None:
        stream = self.stream
        unit, name = Unit(stream.sink), self.called(stream.sink)
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
                "rows": [row.name for row in self.rows],
                "codec": stream.codec,
            }
        self.plain.add_actor(
            Actor(name, kind.type, ports, params, self.device, kind.stateful),
            self.place(unit),
        )
        places = self.deployment.graph.places
        answered = stream.answer_fifo
        self.plain.add_fifo(
            Fifo(
                PortRef(self.called("join"), "outcome"),
                PortRef(name, answer),
                answered.capacity,
                answered.delay,
            ),
            places[str(answered)],
        )
        for fifo in stream.bypass:
            self.plain.add_fifo(
                Fifo(
                    PortRef(self.called(stream.source), fifo.source.port),
                    PortRef(name, fifo.target.port),
                    max(fifo.capacity or 0, self.window + BYPASS_EXTRA),
                    fifo.delay,
                ),
                places[str(fifo)],
            )


def control_input(taken: Iterable[str] = ()) -> Port:
    return Port(fresh_name("row", taken), "in", CONTROL_TOKEN, control=True)


def dynamic_port(name: str, direction: str, like: Port) -> Port:
    assert direction in ("in", "out")
    return Port(name, "in" if direction == "in" else "out", like.token, (0, like.rate))
