"""The plain graph while it is built, and what its builders share."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dataflow.graph import CONTROL_TOKEN, Actor, Dpg, Fifo, Port, Region
from graphs.actor_types import fresh_name
from graphs.deployment import Deployment
from graphs.located_yaml import Place, Problems
from graphs.units import Units

STRUCTURAL = frozenset({"fork", "row", "join", "switch", "select", "copy", "tx", "rx"})
"""Types of the actors that expansion adds. They compute nothing: where the graph file
gives execution times, theirs is 0."""


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
    _timed: bool = field(init=False)

    def __post_init__(self) -> None:
        given = self.deployment.graph.graph.actors.values()
        self._timed = any(actor.time is not None for actor in given)

    def add_actor(self, actor: Actor, place: Place) -> None:
        assert actor.name not in self.actors, actor.name
        if self._timed and actor.type in STRUCTURAL:
            actor = replace(actor, time=0)
        self.actors[actor.name] = actor
        self.places[actor.name] = place

    def add_fifo(self, fifo: Fifo, place: Place) -> None:
        self.fifos.append(fifo)
        self.places[str(fifo)] = place


@dataclass(frozen=True, slots=True)
class Home:
    """The endpoint's side of one stream: where its actors are, what they are called.

    Attributes:
        name: Of the stream.
        window: Iterations that FIFOs inside the region, and into it, have room for.
        policy: Where the user's files say how the stream fails over.
    """

    plain: Plain
    device: str
    name: str
    window: int
    policy: Place

    def called(self, label: str, server: str | None = None) -> str:
        return f"{label}[{self.name}]" + (f"@{server}" if server else "")

    def roomy(self, fifo: Fifo) -> Fifo:
        """Give a FIFO inside the region, or into it, room for a window of frames."""
        rate = self.plain.actors[fifo.source.actor].port(fifo.source.port).rate
        return replace(fifo, capacity=max(fifo.capacity or 0, self.window * rate))


def control_input(taken: Iterable[str] = ()) -> Port:
    return Port(fresh_name("row", taken), "in", CONTROL_TOKEN, control=True)


def dynamic_port(name: str, direction: str, like: Port) -> Port:
    assert direction in ("in", "out")
    return Port(name, "in" if direction == "in" else "out", like.token, (0, like.rate))
