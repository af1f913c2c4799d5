"""What a device plays of a plain graph: its streams' parts and the branches it hosts.

The plain graph holds everything; this page only cuts it along fork, join, TX and RX
into the chains that fire together. A branch is started in its own mode only, so the
mode of its region is fixed in its chain: no control token is read there (the row
travels in the header, or in the start of a local branch).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour
from dataflow.engine import Chain
from dataflow.graph import (
    Branch,
    Fifo,
    Graph,
    PortRef,
    Region,
    TokenType,
)


@dataclass(frozen=True, slots=True)
class ChainPart:
    """Actors that fire together, and the ports where tokens enter and leave.

    Attributes:
        modes: Regions whose mode is fixed in this chain.
        sources: For each of `inputs`, the port outside that feeds it.
    """

    graph: Graph
    actors: tuple[str, ...]
    inputs: tuple[PortRef, ...]
    sources: tuple[PortRef, ...]
    outputs: tuple[PortRef, ...]
    modes: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.actors)

    def zeros(self) -> list[NDArray[np.generic]]:
        """Return tokens to try the chain on: zeros of the types that enter."""
        types = (self.graph.port(ref).token for ref in self.inputs)
        return [np.zeros(t.shape, t.dtype) for t in types if t is not None]


@dataclass(frozen=True, slots=True)
class BranchPart:
    """What the fork's device plays of a branch.

    Attributes:
        chain: Local actors: the whole branch, or what stands before its TX.
        reads: Indices of the fork's inputs that `chain` takes, in its order.
        sends: Per tensor that crosses: a fork input index, or -1 - index of a `chain`
            output. Empty for a local branch.
        sent: Types of the tensors that cross, in order.
        received: Types of the tensors that come back, in order.
    """

    branch: Branch
    chain: ChainPart
    reads: tuple[int, ...]
    sends: tuple[int, ...]
    sent: tuple[TokenType, ...]
    received: tuple[TokenType, ...]


@dataclass(frozen=True, slots=True)
class StreamPart:
    """What the endpoint plays of a stream.

    Attributes:
        fork_reads: Output ports whose tokens the fork retains, in its ports' order.
        suffix_reads: Output ports that feed `suffix`, in order; the join's outcome is
            one of them, the others are the source's own.
    """

    region: Region
    source: str
    prefix: ChainPart
    fork_reads: tuple[PortRef, ...]
    branches: tuple[BranchPart, ...]
    suffix: ChainPart
    answer: TokenType


@dataclass(frozen=True, slots=True)
class HostedPart:
    """What a server plays of a branch: between its RX and its returning TX."""

    region: Region
    branch: Branch
    chain: ChainPart
    received: tuple[TokenType, ...]


def stream_parts(graph: Graph, device: str) -> list[StreamPart]:
    """Return the parts of the streams whose source is on `device`."""
    return [
        _stream_part(graph, region)
        for region in graph.regions
        if graph.actors[region.source].device == device
    ]


def hosted_parts(graph: Graph, device: str) -> list[HostedPart]:
    """Return the parts of the branches that cross a link to `device`."""
    return [
        _hosted_part(graph, region, branch)
        for region in graph.regions
        for branch in region.branches
        if branch.device == device and graph.actors[region.fork].device != device
    ]


def _stream_part(graph: Graph, region: Region) -> StreamPart:
    fork_reads = tuple(
        fifo.source
        for fifo in graph.inputs(region.fork)
        if not graph.port(fifo.target).control
    )
    prefix = _reach(graph, region.fork, graph.inputs, lambda f: f.source.actor)
    prefix -= {region.source, region.control}
    suffix = _reach(graph, region.join, graph.outputs, lambda f: f.target.actor)
    (outcome,) = graph.outputs(region.join)
    answer = graph.token(outcome)
    assert answer is not None
    return StreamPart(
        region=region,
        source=region.source,
        prefix=_chain(graph, prefix, {}),
        fork_reads=fork_reads,
        branches=tuple(
            _branch_part(graph, region, branch) for branch in region.branches
        ),
        suffix=_chain(graph, suffix, {}),
        answer=answer,
    )


def _branch_part(graph: Graph, region: Region, branch: Branch) -> BranchPart:
    here = graph.actors[region.fork].device
    retained = {
        port.name: index
        for index, port in enumerate(
            p for p in graph.actors[region.fork].inputs if not p.control
        )
    }
    local = [a for a in branch.actors if graph.actors[a].device == here]
    tx = next((a for a in local if graph.actors[a].type == "tx"), None)
    rx = next((a for a in local if graph.actors[a].type == "rx"), None)
    chain = _chain(graph, set(local) - {tx, rx}, {region.name: branch.row})
    sends: list[int] = []
    if tx is not None:
        for fifo in graph.inputs(tx):
            if graph.port(fifo.target).control:
                continue
            if fifo.source.actor == region.fork:
                sends.append(retained[_fork_input(fifo.source)])
            else:
                sends.append(-1 - chain.outputs.index(fifo.source))
    return BranchPart(
        branch=branch,
        chain=chain,
        reads=tuple(retained[_fork_input(ref)] for ref in chain.sources),
        sends=tuple(sends),
        sent=_tokens(graph, graph.inputs(tx)) if tx else (),
        received=_tokens(graph, graph.inputs(rx)) if rx else (),
    )


def _hosted_part(graph: Graph, region: Region, branch: Branch) -> HostedPart:
    there = [a for a in branch.actors if graph.actors[a].device == branch.device]
    rx = next(a for a in there if graph.actors[a].type == "rx")
    tx = next(a for a in there if graph.actors[a].type == "tx")
    return HostedPart(
        region=region,
        branch=branch,
        chain=_chain(graph, set(there) - {rx, tx}, {region.name: branch.row}),
        received=_tokens(graph, graph.outputs(rx)),
    )


def _fork_input(ref: PortRef) -> str:
    """Name of the fork's input behind its output ``b<row>_<input>``."""
    return ref.port.partition("_")[2]


def _chain(graph: Graph, actors: set[str], modes: Mapping[str, str]) -> ChainPart:
    """Return the part that holds `actors`, in the graph's own order."""
    entering = [
        f for a in graph.actors if a in actors for f in graph.inputs(a)
        if f.source.actor not in actors and not graph.port(f.target).control
    ]  # fmt: skip
    leaving = [
        f for a in graph.actors if a in actors for f in graph.outputs(a)
        if f.target.actor not in actors
    ]  # fmt: skip
    return ChainPart(
        graph=graph,
        actors=tuple(a for a in graph.actors if a in actors),
        inputs=tuple(f.target for f in entering),
        sources=tuple(f.source for f in entering),
        outputs=tuple(f.source for f in leaving),
        modes=modes,
    )


def _reach(
    graph: Graph,
    start: str,
    fifos_of: Callable[[str], Iterable[Fifo]],
    other: Callable[[Fifo], str],
) -> set[str]:
    """Return the actors reached from `start` along FIFOs, without `start`."""
    found: set[str] = set()
    todo = [start]
    while todo:
        for fifo in fifos_of(todo.pop()):
            if (name := other(fifo)) not in found:
                found.add(name)
                todo.append(name)
    return found


def _tokens(graph: Graph, fifos: Iterable[Fifo]) -> tuple[TokenType, ...]:
    tokens = []
    for fifo in fifos:
        if graph.port(fifo.target).control:
            continue
        token = graph.token(fifo)
        assert token is not None, f"{fifo} crosses a link and has no type"
        tokens.append(token)
    return tuple(tokens)


def make_chain(part: ChainPart, behaviours: Mapping[str, Behaviour]) -> Chain:
    """Return the chain of `part`, whose actors were made and started."""
    return Chain(
        part.graph,
        part.actors,
        behaviours,
        part.inputs,
        part.outputs,
        modes=part.modes,
    )
