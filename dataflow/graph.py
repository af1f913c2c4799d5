"""The model of computation: actors, ports, FIFOs, token rates, DPGs and regions.

A graph says what is computed. Actors fire when each input port has as many tokens as
its rate; a firing reads, computes and writes. A token is one fixed-size typed tensor.
Rates are static, except inside a *dynamic processing graph* (DPG): there a control
token names a mode, and the mode's row of the control table gives the rate of every
dynamic port. A *region* is a DPG whose modes are ways to an answer: which branch plays
for an iteration, or none (a drop). Failover is that choice and nothing else.

A *plain* graph is one whose actors carry the device they are mapped to, with every
K_{m,n} unrolled and every cut FIFO made a TX/RX pair. It is what the analyser sees and
what the engine runs.

Everything here is immutable data. `dataflow.rules` judges it, `dataflow.analysis`
computes on it, `dataflow.engine` runs it.

Source:
    Boutellier, Tan, Nurmi, "Fault-Tolerant Collaborative Inference through the
    Edge-PRUNE Framework", 2022. Lee and Messerschmitt, "Synchronous Data Flow", Proc.
    IEEE 75(9), 1987.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple, Self

from dataflow.errors import UnderstudyError
from dataflow.redundancy import STANDBY, Redundancy

Rates = tuple[int, ...]
"""Allowed token rates of a port, ascending: one is static, several are dynamic."""

CONTROL_DTYPE = "int32"

_DTYPE_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
_TOKEN_TYPE = re.compile(r"([a-z]+\d*)\[((?:\d+(?:\s*,\s*\d+)*)?)\]")


@dataclass(frozen=True, slots=True)
class TokenType:
    """Type of the tokens of a FIFO: a NumPy dtype name and a fixed shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the type that `text` writes.

        Raises:
            UnderstudyError: Not of the form ``dtype[n,n,…]``, or an unknown dtype.

        >>> TokenType.parse("float32[1,16,8,8]").nbytes
        4096
        """
        match = _TOKEN_TYPE.fullmatch(text.strip())
        if match is None or match[1] not in _DTYPE_BYTES:
            raise UnderstudyError(
                f"token type '{text}': not a dtype with a shape; write one like "
                f"float32[1,16,8,8] with a dtype of {', '.join(_DTYPE_BYTES)}"
            )
        return cls(match[1], tuple(int(n) for n in match[2].split(",") if n))


CONTROL_TOKEN = TokenType(CONTROL_DTYPE, ())
"""A control token is the index of a mode in its DPG's control table."""


@dataclass(frozen=True, slots=True)
class Port:
    """Where an actor meets a FIFO."""

    name: str
    direction: Literal["in", "out"]
    token: TokenType | None = None
    """None: any type. Pure SDF graphs, where only rates matter."""
    rates: Rates = (1,)
    """Tokens per firing. Several: the port is dynamic, a mode chooses among them."""
    control: bool = False
    """Carries control tokens, always at rate 1."""
    optional: bool = False
    """May stay unconnected: an output's tokens are then discarded, an input is not
    there for its actor."""

    @property
    def dynamic(self) -> bool:
        return len(self.rates) > 1

    @property
    def rate(self) -> int:
        """The rate of a static port; the largest of a dynamic one."""
        return self.rates[-1]


class PortRef(NamedTuple):
    """One port of one actor, written ``actor.port``."""

    actor: str
    port: str

    def __str__(self) -> str:
        return f"{self.actor}.{self.port}"

    @classmethod
    def parse(cls, text: str) -> "PortRef":
        """Split at the last dot: actor names may hold dots, port names may not."""
        actor, dot, port = text.strip().rpartition(".")
        if not (actor and dot and port):
            raise UnderstudyError(f"port '{text}': not of the form actor.port")
        return cls(actor, port)


@dataclass(frozen=True, slots=True)
class Actor:
    """What fires: a name, a type that says what its firing does, ports, parameters."""

    name: str
    type: str
    """Name in the actor library, or ``package.module:Class``."""
    ports: tuple[Port, ...]
    params: Mapping[str, object] = field(default_factory=dict)
    """What YAML gave beside `type`, checked by the type itself. JSON values only."""
    device: str | None = None
    """Where it is mapped; None in a graph that was not deployed."""
    stateful: bool = False
    """Its firings depend on earlier ones, or have an effect: sources, sinks, trackers.
    Such an actor may not stand inside a region (R14)."""
    time: int | Fraction | None = None
    """Time units that a firing takes, for throughput and latency; None: unknown."""

    def port(self, name: str) -> Port:
        return next(p for p in self.ports if p.name == name)

    @property
    def inputs(self) -> tuple[Port, ...]:
        return tuple(p for p in self.ports if p.direction == "in")

    @property
    def outputs(self) -> tuple[Port, ...]:
        return tuple(p for p in self.ports if p.direction == "out")


@dataclass(frozen=True, slots=True)
class Fifo:
    """A bounded queue from one output port to one input port."""

    source: PortRef
    target: PortRef
    capacity: int | None = None
    """In tokens; None: the analyser's least live capacity is used."""
    delay: int = 0
    """Initial tokens. The engine makes them zeros of the FIFO's token type."""

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class Dpg:
    """A dynamic processing graph: a controller, and the rates that each mode sets."""

    name: str
    controller: str
    """Actor whose control tokens choose the mode."""
    modes: Mapping[str, Mapping[PortRef, int]]
    """The control table: mode name -> rate of every dynamic port. The order of the
    modes gives their indices, which is what control tokens carry."""
    carried: frozenset[str] = frozenset()
    """Members behind a cut, whose control token travels in the header of the data
    message it governs: no message, no control token, no firing (R4 across a cut)."""

    @cached_property
    def dynamic_ports(self) -> frozenset[PortRef]:
        return frozenset[PortRef]().union(*self.modes.values())

    @cached_property
    def playing(self) -> Mapping[PortRef, Mapping[str, int]]:
        """The control table by port, zeros left out: port -> mode -> its rate there.

        Far smaller than `modes` where a mode plays one branch of many.
        """
        playing: dict[PortRef, dict[str, int]] = {ref: {} for ref in self.dynamic_ports}
        for mode, row in self.modes.items():
            for ref, rate in row.items():
                if rate:
                    playing[ref][mode] = rate
        return playing

    @cached_property
    def members(self) -> frozenset[str]:
        """Actors with a dynamic port, boundary actors included."""
        return frozenset(ref.actor for ref in self.dynamic_ports)


class Asked(NamedTuple):
    """What a server behind another is asked for."""

    device: str
    segment: int
    """Identity of the computation from there on (u64)."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way to an answer: a row of the region's control table."""

    row: str
    """Its mode in the DPG's table, and its name in results, such as ``edge.0``."""
    actors: tuple[str, ...]
    """Everything between fork and join, in dataflow order, TX and RX included."""
    device: str
    """Where its work is done, or begins: a server, or the endpoint itself."""
    quality: Literal["full", "degraded"]
    segment: int = 0
    """Identity of the computation behind a cut (u64); 0 for a local branch."""
    onward: tuple[Asked, ...] = ()
    """The servers behind `device` that it passes, in order."""
    codec: str = ""
    """How it encodes, with loss, what another branch sends the same way whole: it is
    for links that do not carry that one's tokens. Empty: it is no such branch."""


@dataclass(frozen=True, slots=True)
class Region:
    """An abortable region: fork, branches, first-of join (rule R14)."""

    name: str
    """Also the name of its DPG."""
    stream: str
    """Name of the stream it answers, such as ``cam.0``: the device of its source."""
    source: str
    sink: str
    control: str
    fork: str
    join: str
    branches: tuple[Branch, ...]
    """In the policy's order. The DPG has one more mode, ``drop``, last; and before it,
    where rows may play several branches at once, ``all``."""
    window: int
    """Iterations admitted beyond the last settled."""
    deadline_ms: float
    """From the source's firing, on the source's clock."""
    redundancy: Redundancy = STANDBY

    @property
    def rows(self) -> tuple[str, ...]:
        """The modes of its DPG, in order."""
        together = (ALL_ROW,) if self.redundancy.together else ()
        return (*(branch.row for branch in self.branches), *together, DROP_ROW)


DROP_ROW = "drop"
ALL_ROW = "all"
"""The row in which every branch plays, see `dataflow.redundancy`."""


@dataclass(frozen=True)
class Graph:
    """Actors and FIFOs, with the DPGs and regions among them."""

    name: str
    actors: Mapping[str, Actor]
    fifos: tuple[Fifo, ...]
    dpgs: tuple[Dpg, ...] = ()
    regions: tuple[Region, ...] = ()

    def port(self, ref: PortRef) -> Port:
        return self.actors[ref.actor].port(ref.port)

    def token(self, fifo: Fifo) -> TokenType | None:
        return self.port(fifo.source).token

    @cached_property
    def fifo_into(self) -> Mapping[PortRef, Fifo]:
        return {f.target: f for f in self.fifos}

    @cached_property
    def fifo_from(self) -> Mapping[PortRef, Fifo]:
        return {f.source: f for f in self.fifos}

    def inputs(self, actor: str) -> Iterator[Fifo]:
        """FIFOs into `actor`, in the order of its ports; unconnected ports skipped."""
        for port in self.actors[actor].inputs:
            if (fifo := self.fifo_into.get(PortRef(actor, port.name))) is not None:
                yield fifo

    def outputs(self, actor: str) -> Iterator[Fifo]:
        """FIFOs out of `actor`, in the order of its ports; unconnected ones skipped."""
        for port in self.actors[actor].outputs:
            if (fifo := self.fifo_from.get(PortRef(actor, port.name))) is not None:
                yield fifo

    def rate(self, ref: PortRef, modes: Mapping[str, str]) -> int:
        """Rate of a port when each DPG is in the mode that `modes` names for it."""
        for dpg in self.dpgs:
            if ref in dpg.dynamic_ports:
                return dpg.modes[modes[dpg.name]][ref]
        return self.port(ref).rate
