"""What goes wrong: each draws what it hits and how long, and is set from `begin_s` on.

All is drawn before anything happens, so that leaving one fault out of a run leaves the
others as they were.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from dataflow.wire.link_states import Lane
from understudy.simulation.network import DOWN, UP, Hole, Wire
from understudy.simulation.server import Server
from understudy.simulation.setup import Fault

if TYPE_CHECKING:
    from understudy.simulation.endpoint import Endpoint
    from understudy.simulation.simulation import Simulation

LANES: tuple[Lane, Lane] = ("data", "control")
PARTITIONS: tuple[tuple[Hole, ...], ...] = (
    (("data", UP), ("data", DOWN)),
    (("data", UP), ("data", DOWN), ("control", UP), ("control", DOWN)),
    (("data", UP), ("control", UP)),
    (("data", DOWN), ("control", DOWN)),
    (("data", UP),),
    (("data", DOWN),),
    (("control", UP),),
    (("control", DOWN),),
)
"""Both directions or one, both lanes or one: packets vanish, nobody is told."""


class Script:
    """Sets the faults of one run.

    Args:
        kept: Numbers of the faults that are to happen; None: all.
    """

    def __init__(self, sim: "Simulation", kept: frozenset[int] | None) -> None:
        self.sim = sim
        self.random: Random = sim.random
        self.faults: list[Fault] = []
        """Those that happen."""
        self.planned = 0
        self._kept = kept
        self._happens = True

    @property
    def end_s(self) -> float:
        return max((fault.begin_s + fault.length_s for fault in self.faults), default=0)

    def add(self, name: str, begin_s: float) -> None:
        """Draw the fault called `name`, and set it if it is to happen."""
        number, self.planned = self.planned, self.planned + 1
        self._happens = self._kept is None or number in self._kept
        target, length_s = FAULTS[name](self, begin_s)
        if self._happens:
            self.faults.append(Fault(number, name, target, begin_s, length_s))

    def at(self, time_s: float, call: Callable[[Any], None], argument: Any) -> None:
        if self._happens:
            self.sim.at(time_s, call, argument)

    def hit(self, servers: Sequence[Server], begin_s: float, length_s: float) -> None:
        """Something is wrong with `servers`, or on wires to them, for so long."""
        for server in servers:
            self.at(begin_s, server.trouble, None)
            self.at(begin_s + length_s, server.relief, None)

    def set(
        self, target: object, name: str, value: object, usual: object, *times: float
    ) -> None:
        """Set an attribute at the first of `times`, and back at the second."""
        begin_s, length_s = times
        self.at(begin_s, _set, (target, name, value))
        self.at(begin_s + length_s, _set, (target, name, usual))

    def server(self) -> Server:
        return self.random.choice(self.sim.servers)

    def endpoint(self) -> "Endpoint":
        return self.random.choice(self.sim.endpoints)

    def wire(self) -> Wire:
        return self.random.choice(self.sim.wires)


def _set(arguments: tuple[Any, str, Any]) -> None:
    target, name, value = arguments
    setattr(target, name, value)
    if isinstance(target, Wire):
        target.look()


Drawn = tuple[str, float]
"""What is hit, and for how long."""


def _crash(script: Script, begin_s: float) -> Drawn:
    """SIGKILL, and a start some time later."""
    server, away_s = script.server(), script.random.uniform(0.05, 1.0)
    load_s = script.random.uniform(0.0, 0.3)
    script.hit([server], begin_s, away_s)
    script.at(begin_s, server.crash, None)
    script.at(begin_s + away_s, server.restart, load_s)
    return server.name, away_s


def _flap(script: Script, begin_s: float) -> Drawn:
    """Three crashes in a row."""
    server, away_s = script.server(), script.random.uniform(0.02, 0.3)
    script.hit([server], begin_s, 6 * away_s)
    for i in range(3):
        script.at(begin_s + 2 * i * away_s, server.crash, None)
        script.at(begin_s + (2 * i + 1) * away_s, server.restart, 0.05 * i)
    return server.name, 6 * away_s


def _stop(script: Script, begin_s: float) -> Drawn:
    """SIGTERM: it says goodbye, answers what it has, and goes."""
    server, away_s = script.server(), script.random.uniform(0.2, 1.0)
    script.hit([server], begin_s, away_s)
    script.at(begin_s, server.bye, None)
    script.at(begin_s + 0.15, server.crash, None)
    script.at(begin_s + away_s, server.restart, 0.1)
    return server.name, away_s


def _blackout(script: Script, begin_s: float) -> Drawn:
    """All servers crash at once."""
    away_s = script.random.uniform(0.05, 1.0)
    script.hit(script.sim.servers, begin_s, away_s)
    for server in script.sim.servers:
        script.at(begin_s, server.crash, None)
        script.at(begin_s + away_s, server.restart, 0.1)
    return "all servers", away_s


def _rebirth(script: Script, begin_s: float) -> Drawn:
    """The process of a source is killed; a new one begins a stream from frame 0."""
    index = script.random.randrange(len(script.sim.endpoints))
    away_s = script.random.uniform(0.01, 1.0)
    script.hit(_reached(script.sim.endpoints[index]), begin_s, away_s)
    script.at(begin_s, script.sim.kill_endpoint, index)
    script.at(begin_s + away_s, script.sim.start_endpoint, index)
    return script.sim.endpoints[index].name, away_s


def _freeze(script: Script, begin_s: float) -> Drawn:
    """SIGSTOP, and a zombie that returns: lanes stay, heartbeats are not answered."""
    server, random = script.server(), script.random
    length_s = random.choice((0.03, 0.3, 1.0, 3.0)) * random.uniform(0.5, 1.0)
    script.hit([server], begin_s, length_s)
    script.at(begin_s, server.pause, None)
    script.set(server, "frozen", True, False, begin_s, length_s)
    script.at(begin_s + random.uniform(0.06, 0.08), _miss_heartbeats, server)
    script.at(begin_s + length_s, server.thaw, None)
    return server.name, length_s


def _miss_heartbeats(server: Server) -> None:
    for wire in server.wires:
        _miss_heartbeat(wire)


def _miss_heartbeat(wire: Wire) -> None:
    holes = {("control", UP), ("control", DOWN)} & wire.holes
    if wire.server.frozen or holes:
        wire.lose("control", 0.0)


def _hang(script: Script, begin_s: float) -> Drawn:
    """The interpreter hangs: libzmq still shakes hands and answers heartbeats."""
    server, length_s = script.server(), script.random.uniform(0.05, 2.5)
    script.hit([server], begin_s, length_s)
    script.at(begin_s, server.pause, None)
    script.at(begin_s + length_s, server.thaw, None)
    return server.name, length_s


def _stall(script: Script, begin_s: float) -> Drawn:
    """An endpoint is stopped for a while."""
    endpoint = script.endpoint()
    length_s = script.random.choice((0.05, 0.4, 2.5))
    script.hit(_reached(endpoint), begin_s, length_s)
    script.at(begin_s, endpoint.pause, None)
    script.at(begin_s + length_s, endpoint.thaw, None)
    return endpoint.name, length_s


def _reached(endpoint: "Endpoint") -> list[Server]:
    return [wire.server for wire in endpoint.wires]


def _slow(script: Script, begin_s: float) -> Drawn:
    """A server computes slowly: the slowest exhausts the credit."""
    server, length_s = script.server(), script.random.uniform(0.1, 1.0)
    factor = script.random.choice((3.0, 10.0, 50.0, 200.0))
    script.hit([server], begin_s, length_s)
    script.set(server, "slowness", factor, 1.0, begin_s, length_s)
    return server.name, length_s


def _mute(script: Script, begin_s: float) -> Drawn:
    """A server's answers are lost, and the credit in them."""
    server, length_s = script.server(), script.random.uniform(0.05, 1.0)
    script.hit([server], begin_s, length_s)
    script.set(server, "mute", True, False, begin_s, length_s)
    return server.name, length_s


def _cut(script: Script, begin_s: float) -> Drawn:
    """Connections are reset, and refused for a while."""
    wire, length_s = script.wire(), script.random.uniform(0.02, 1.0)
    script.hit([wire.server], begin_s, length_s)
    script.set(wire, "cut", True, False, begin_s, length_s)
    script.at(begin_s, wire.lose_all, 0.05)
    return wire.name, length_s


def _reset(script: Script, begin_s: float) -> Drawn:
    """One lane's connection is reset; the other does not notice."""
    wire, lane = script.wire(), script.random.choice(LANES)
    script.hit([wire.server], begin_s, 0.1)
    notice_s = script.random.uniform(0.0, 0.02)
    script.at(begin_s, lambda _: wire.lose(lane, notice_s), None)
    return f"{wire.name} {lane}", 0.1


def _partition(script: Script, begin_s: float) -> Drawn:
    """Packets vanish: on both lanes or one, in both directions or one."""
    wire, length_s = script.wire(), script.random.uniform(0.05, 2.5)
    holes = set(script.random.choice(PARTITIONS))
    script.hit([wire.server], begin_s, length_s)

    def begin(_: None) -> None:
        wire.holes |= holes
        wire.look()

    script.at(begin_s, begin, None)
    if any(lane == "control" for lane, _ in holes):
        script.at(begin_s + script.random.uniform(0.06, 0.08), _miss_heartbeat, wire)
    script.at(begin_s + length_s, wire.flow, holes)
    return f"{wire.name} {_holes_text(holes)}", length_s


def _holes_text(holes: set[Hole]) -> str:
    names = {UP: "up", DOWN: "down"}
    return ", ".join(sorted(f"{lane} {names[way]}" for lane, way in holes))


def _block(script: Script, begin_s: float) -> Drawn:
    """Sends on the data lane would block."""
    wire, length_s = script.wire(), script.random.uniform(0.01, 1.0)
    script.hit([wire.server], begin_s, length_s)
    script.set(wire, "blocked", True, False, begin_s, length_s)
    return wire.name, length_s


def _lose(script: Script, begin_s: float) -> Drawn:
    """Messages vanish one by one, which TCP does not do, but full sockets do."""
    return _spoil(script, begin_s, "lost", script.random.uniform(0.02, 0.3), 0.0)


def _double(script: Script, begin_s: float) -> Drawn:
    """Messages come twice."""
    return _spoil(script, begin_s, "doubled", script.random.uniform(0.05, 0.5), 0.0)


def _reorder(script: Script, begin_s: float) -> Drawn:
    """Messages overtake each other on their lane."""
    latest_s = script.random.choice((0.005, 0.05, 0.2))
    return _spoil(script, begin_s, "reordered_s", latest_s, 0.0)


def _delay(script: Script, begin_s: float) -> Drawn:
    """The network is slow for a while."""
    lag_s = script.random.choice((0.01, 0.05, 0.1, 0.3))
    return _spoil(script, begin_s, "lag_s", lag_s, 0.0)


def _spoil(
    script: Script, begin_s: float, name: str, value: float, usual: float
) -> Drawn:
    wire, length_s = script.wire(), script.random.uniform(0.05, 1.0)
    script.hit([wire.server], begin_s, length_s)
    script.set(wire, name, value, usual, begin_s, length_s)
    return wire.name, length_s


def _nack(script: Script, begin_s: float) -> Drawn:
    """A server refuses tokens, for each of the reasons there are."""
    wire, length_s = script.wire(), script.random.uniform(0.05, 0.5)
    kind = script.random.choice(("segment", "busy", "error", "expired", "hop"))
    script.hit([wire.server], begin_s, length_s)
    if kind == "hop":
        script.set(wire.server, "hop_lost", True, False, begin_s, length_s)
    else:
        script.set(wire, "mangled", kind, None, begin_s, length_s)
    return f"{wire.name} {kind}", length_s


def _replay(script: Script, begin_s: float) -> Drawn:
    """A lane is lost, and the next session gets what the last had in flight."""
    wire = script.wire()
    script.hit([wire.server], begin_s, 1.0)
    script.set(wire, "replays", True, False, begin_s, 1.0)
    script.at(begin_s + 0.1, lambda _: wire.lose("data", 0.005), None)
    return wire.name, 1.0


def _slow_head(script: Script, begin_s: float) -> Drawn:
    """The head takes nearly the whole deadline."""
    stream, length_s = _stream(script)
    late_s = stream.source.deadline_s - 0.002
    script.set(stream, "head_s", late_s, stream.head_s, begin_s, length_s)
    return stream.source.name, length_s


def _burst(script: Script, begin_s: float) -> Drawn:
    """A source fires far faster than it is answered: the window is exhausted."""
    stream, length_s = _stream(script)
    factor = script.random.choice((3.0, 10.0, 30.0))
    script.at(begin_s, stream.hurry, factor)
    script.at(begin_s + length_s, stream.hurry, 1.0)
    return stream.source.name, length_s


def _stream(script: Script) -> Any:
    stream = script.random.choice(script.sim.streams)
    return stream, script.random.uniform(0.05, 0.5)


FAULTS: Mapping[str, Callable[[Script, float], Drawn]] = {
    "crash": _crash,
    "flap": _flap,
    "stop": _stop,
    "blackout": _blackout,
    "rebirth": _rebirth,
    "freeze": _freeze,
    "hang": _hang,
    "stall": _stall,
    "slow": _slow,
    "mute": _mute,
    "cut": _cut,
    "reset": _reset,
    "partition": _partition,
    "block": _block,
    "lose": _lose,
    "double": _double,
    "reorder": _reorder,
    "delay": _delay,
    "nack": _nack,
    "replay": _replay,
    "slow-head": _slow_head,
    "burst": _burst,
}
"""Name -> how it is drawn and set."""

OF_SOURCES = frozenset({"stall", "slow-head", "burst"})
"""Those that need no server."""
