"""FIFOs that cross between devices: which are legal (R12), and what they hold.

A cut FIFO leaves a TX actor on one device and enters an RX actor on another. Between
the actor that writes and the one that reads there are then three FIFOs in a row, and
what can be under way is the sum of their capacities.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dataflow.finding import Finding
from dataflow.graph import Fifo, Graph
from dataflow.symmetry import RX, TX


@dataclass(frozen=True, slots=True)
class Cut:
    """One FIFO between devices."""

    fifo: Fifo
    source: str
    """Device that sends."""
    target: str
    """Device that receives."""
    capacity: int
    """Tokens that may be under way from the FIFO into TX to the one out of RX. What
    ZeroMQ buffers is not counted: it holds only tokens that credit admits."""
    token_bytes: int
    """0 if the token type is open."""


def cuts(graph: Graph, capacities: Mapping[Fifo, int]) -> list[Cut]:
    """Return the cut FIFOs of a plain graph that R12 accepts, in its order."""
    found = []
    for fifo in graph.fifos:
        source = graph.actors[fifo.source.actor]
        target = graph.actors[fifo.target.actor]
        if source.device is None or target.device is None:
            continue
        if source.device != target.device:
            row = [*_beside(graph, fifo), fifo]
            token = graph.token(fifo)
            held = sum(capacities[f] for f in row)
            size = token.nbytes if token else 0
            found.append(Cut(fifo, source.device, target.device, held, size))
    return found


def _beside(graph: Graph, cut: Fifo) -> Iterator[Fifo]:
    """Data FIFOs into the TX and out of the RX of a cut, matched by port position."""
    lanes = list(graph.outputs(cut.source.actor))
    entering = [f for f in graph.inputs(cut.source.actor) if not _control(graph, f)]
    leaving = list(graph.outputs(cut.target.actor))
    place = lanes.index(cut)
    for row in (entering, leaving):
        if place < len(row):
            yield row[place]


def _control(graph: Graph, fifo: Fifo) -> bool:
    return graph.port(fifo.source).control


def legal_cuts(graph: Graph) -> Iterator[Finding]:
    """R12: every actor is mapped, and each FIFO between devices is a TX/RX pair's."""
    if not any(actor.device for actor in graph.actors.values()):
        return  # not deployed
    for name, actor in graph.actors.items():
        if actor.device is None:
            problem = "is not mapped to a device, others are"
            yield Finding("R12", f"actor '{name}'", problem, "map it")
    for fifo in graph.fifos:
        source = graph.actors[fifo.source.actor]
        target = graph.actors[fifo.target.actor]
        crosses = source.device != target.device
        sends, receives = source.type == TX, target.type == RX
        if None in (source.device, target.device):
            continue
        if crosses and not (sends and receives):
            problem = f"goes from '{source.device}' to '{target.device}' without TX, RX"
            fix = "put a TX actor before and an RX actor behind the cut"
            yield Finding("R12", f"fifo {fifo}", problem, fix)
        elif not crosses and (sends or receives):
            which = f"TX '{source.name}'" if sends else f"RX '{target.name}'"
            problem = f"{which} stands at a FIFO that stays on '{source.device}'"
            yield Finding("R12", f"fifo {fifo}", problem, "remove the TX and the RX")
    yield from _pairs(graph)


def _pairs(graph: Graph) -> Iterator[Finding]:
    """All tokens of one attempt in one direction go through one TX and one RX."""
    for name, actor in graph.actors.items():
        if actor.type == TX:
            others = {fifo.target.actor for fifo in graph.outputs(name)}
        elif actor.type == RX:
            others = {fifo.source.actor for fifo in graph.inputs(name)}
        else:
            continue
        if len(others) != 1:
            problem = f"has {len(others)} partners: {', '.join(sorted(others)) or '-'}"
            fix = "pair each TX with one RX"
            yield Finding("R12", f"actor '{name}'", problem, fix)
        elif actor.type == TX:
            other = graph.actors[others.pop()]
            sent, wanted = (a.params.get("compression", "") for a in (actor, other))
            if sent != wanted:
                problem = f"compresses as '{sent}', RX '{other.name}' as '{wanted}'"
                fix = "give both the same `compression`"
                yield Finding("R12", f"actor '{name}'", problem, fix)
