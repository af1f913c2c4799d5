"""What goes wrong: a fault is set from `begin_s` on, and returns how long it lasts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataflow.wire.link import Lane
from tests.simulation.network import Wire
from tests.simulation.server import Server

if TYPE_CHECKING:
    from tests.simulator import Simulation


Fault = Callable[["Simulation", float], float]


def _server(sim: "Simulation") -> Server:
    return sim.random.choice(sim.servers)


def _wire(sim: "Simulation") -> Wire:
    return sim.random.choice(sim.random.choice(sim.endpoints).wires)


def _crash(sim: "Simulation", begin_s: float) -> float:
    server, away_s = _server(sim), sim.random.uniform(0.05, 1.0)
    sim.at(begin_s, server.crash)
    sim.at(begin_s + away_s, server.restart)
    return away_s


def _flap(sim: "Simulation", begin_s: float) -> float:
    server, away_s = _server(sim), sim.random.uniform(0.02, 0.3)
    for i in range(3):
        sim.at(begin_s + 2 * i * away_s, server.crash)
        sim.at(begin_s + (2 * i + 1) * away_s, server.restart)
    return 6 * away_s


def _stop(sim: "Simulation", begin_s: float) -> float:
    """SIGTERM: it says goodbye, answers what it has, and goes."""
    server, away_s = _server(sim), sim.random.uniform(0.2, 1.0)
    sim.at(begin_s, server.bye)
    sim.at(begin_s + 0.15, server.crash)
    sim.at(begin_s + away_s, server.restart)
    return away_s


def _freeze(sim: "Simulation", begin_s: float) -> float:
    """SIGSTOP: lanes stay, but the control lane's heartbeats are not answered."""
    server = _server(sim)
    length_s = sim.random.choice((0.03, 0.3, 1.0, 3.0)) * sim.random.uniform(0.5, 1.0)
    sim.at(begin_s, server.pause)
    sim.at(begin_s, setattr, server, "frozen", True)
    for wire in server.wires:
        sim.at(begin_s + sim.random.uniform(0.06, 0.08), _miss_heartbeat, wire)
    sim.at(begin_s + length_s, setattr, server, "frozen", False)
    sim.at(begin_s + length_s, server.thaw)
    return length_s


def _miss_heartbeat(wire: Wire) -> None:
    if wire.server.frozen or "control" in wire.holes:
        wire.lose("control", 0.0)


def _hang(sim: "Simulation", begin_s: float) -> float:
    """The interpreter hangs: libzmq still shakes hands and answers heartbeats."""
    server, length_s = _server(sim), sim.random.uniform(0.05, 2.5)
    sim.at(begin_s, server.pause)
    sim.at(begin_s + length_s, server.thaw)
    return length_s


def _stall(sim: "Simulation", begin_s: float) -> float:
    """An endpoint is stopped for a while."""
    endpoint = sim.random.choice(sim.endpoints)
    length_s = sim.random.choice((0.05, 0.4, 2.5))
    sim.at(begin_s, endpoint.pause)
    sim.at(begin_s + length_s, endpoint.thaw)
    return length_s


def _slow(sim: "Simulation", begin_s: float) -> float:
    server, length_s = _server(sim), sim.random.uniform(0.1, 1.0)
    factor = sim.random.choice((3.0, 10.0, 50.0, 200.0))
    sim.at(begin_s, setattr, server, "slowness", factor)
    sim.at(begin_s + length_s, setattr, server, "slowness", 1.0)
    return length_s


def _cut(sim: "Simulation", begin_s: float) -> float:
    wire, length_s = _wire(sim), sim.random.uniform(0.02, 1.0)
    sim.at(begin_s, _cut_now, wire)
    sim.at(begin_s + length_s, setattr, wire, "cut", False)
    return length_s


def _cut_now(wire: Wire) -> None:
    wire.cut = True
    for lane in list(wire.lanes):
        wire.lose(lane, wire.sim.random.uniform(0.001, 0.05))


def _reset(sim: "Simulation", begin_s: float) -> float:
    """One lane's connection is reset; the other does not notice."""
    wire = _wire(sim)
    lane: Lane = sim.random.choice(("data", "control"))
    sim.at(begin_s, wire.lose, lane, sim.random.uniform(0.0, 0.02))
    return 0.1


def _blackhole(sim: "Simulation", begin_s: float) -> float:
    """Packets vanish: on the data lane only, or on both."""
    wire, length_s = _wire(sim), sim.random.uniform(0.05, 2.5)
    holes: list[Lane] = ["data", "control"] if sim.random.random() < 0.5 else ["data"]
    sim.at(begin_s, wire.holes.update, holes)
    if "control" in holes:
        sim.at(begin_s + sim.random.uniform(0.06, 0.08), _miss_heartbeat, wire)
    for lane in holes:
        sim.at(begin_s + length_s, wire.flow, lane)
    return length_s


def _block(sim: "Simulation", begin_s: float) -> float:
    """Sends on the data lane would block."""
    wire, length_s = _wire(sim), sim.random.uniform(0.01, 1.0)
    sim.at(begin_s, setattr, wire, "blocked", True)
    sim.at(begin_s + length_s, setattr, wire, "blocked", False)
    return length_s


def _nack(sim: "Simulation", begin_s: float) -> float:
    wire, length_s = _wire(sim), sim.random.uniform(0.05, 0.5)
    kind = sim.random.choice(("segment", "busy", "error", "expired", "hop"))
    on: tuple[Any, str, Any, Any] = (wire, "mangled", kind, None)
    if kind == "hop":
        on = (wire.server, "hop_lost", True, False)
    target, name, value, usual = on
    sim.at(begin_s, setattr, target, name, value)
    sim.at(begin_s + length_s, setattr, target, name, usual)
    return length_s


def _slow_head(sim: "Simulation", begin_s: float) -> float:
    """The prefix takes nearly the whole deadline."""
    stream, length_s = sim.random.choice(sim.streams), sim.random.uniform(0.1, 0.5)
    sim.at(begin_s, setattr, stream, "head_s", stream.deadline_s - 0.002)
    sim.at(begin_s + length_s, setattr, stream, "head_s", stream.head_s)
    return length_s


def _mute(sim: "Simulation", begin_s: float) -> float:
    server, length_s = _server(sim), sim.random.uniform(0.05, 1.0)
    sim.at(begin_s, setattr, server, "mute", True)
    sim.at(begin_s + length_s, setattr, server, "mute", False)
    return length_s


def _replay(sim: "Simulation", begin_s: float) -> float:
    """A lane is lost, and the next session gets what the last had in flight."""
    wire = _wire(sim)
    sim.at(begin_s, setattr, wire, "replays", True)
    sim.at(begin_s + 0.1, wire.lose, "data", 0.005)
    sim.at(begin_s + 1.0, setattr, wire, "replays", False)
    return 1.0


FAULTS: dict[str, Fault] = {
    "crash": _crash,
    "flap": _flap,
    "stop": _stop,
    "freeze": _freeze,
    "hang": _hang,
    "stall": _stall,
    "slow": _slow,
    "cut": _cut,
    "reset": _reset,
    "blackhole": _blackhole,
    "block": _block,
    "nack": _nack,
    "mute": _mute,
    "slow head": _slow_head,
    "replay": _replay,
}
