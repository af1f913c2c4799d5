"""What a device plays of a plain graph: its streams' parts and the branches it hosts.

The plain graph holds everything; this page only cuts it along fork, join, TX and RX
into the chains that fire together. A branch is started in its own mode only, so the
mode of its region is fixed in its chain: no control token is read there (the row
travels in the header, or in the start of a local branch).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow.balance import parts, repetition_vector
from dataflow.behaviour import Behaviour
from dataflow.engine import Chain
from dataflow.graph import (
    Actor,
    Asked,
    Branch,
    Fifo,
    Graph,
    Port,
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

    def zeros(self, firings: int = 1) -> list[Any]:
        """Return tokens to try the chain on: zeros of the types that enter.

        Args:
            firings: Of what feeds the chain, per iteration.
        """
        tried: list[Any] = []
        for ref, source in zip(self.inputs, self.sources, strict=True):
            token = self.graph.port(ref).token
            assert token is not None, f"{source} leads out of its device, has no type"
            zero = np.zeros(token.shape, token.dtype)
            count = firings * self.graph.port(source).rate
            tried.append(zero if count == 1 else [zero] * count)
        return tried


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
        compression: Of the messages that cross, see `wire.compression`; "": none.
        answer_compression: Of the answers, where the message was compressed.
    """

    branch: Branch
    chain: ChainPart
    reads: tuple[int, ...]
    sends: tuple[int, ...]
    sent: tuple[TokenType, ...]
    received: tuple[TokenType, ...]
    compression: str
    answer_compression: str


@dataclass(frozen=True, slots=True)
class Around:
    """The DPG that a region lies in: its mode says whether the region plays at all.

    Attributes:
        port: Output port of the prefix whose control token is the mode.
        modes: Their names, in order.
        answers: For each mode in which the fork gets no tokens, by index: the output
            port of the prefix whose token is the answer then.
        inside: Index of a mode in which it gets some. It stands for the mode of a frame
            that was dropped before there was one.
    """

    port: PortRef
    modes: tuple[str, ...]
    answers: Mapping[int, PortRef]
    inside: int


@dataclass(frozen=True, slots=True)
class StreamPart:
    """What the endpoint plays of a stream.

    Attributes:
        firings: Per iteration, of each actor that fires more than once.
        prefix: Everything that fires before the region is entered, or passed by.
        fork_reads: Output ports whose tokens the fork retains, in its ports' order.
        suffix: What takes the outcome, up to the sink. It reads the join's output port,
            and those of the source and of `prefix`.
    """

    region: Region
    source: str
    firings: Mapping[str, int]
    prefix: ChainPart
    fork_reads: tuple[PortRef, ...]
    branches: tuple[BranchPart, ...]
    suffix: ChainPart
    answer: TokenType
    around: Around | None

    @property
    def frames(self) -> int:
        """Firings of the source per iteration."""
        return self.firings.get(self.source, 1)


@dataclass(frozen=True, slots=True)
class HostedPart:
    """What a server plays of a branch: between its RX and its next TX.

    Attributes:
        segment: What it is asked for.
        onward: The servers behind it on the branch's way; none: it answers.
        sends: Outputs of `chain` that go on, in the order of the TX's ports.
        sent: Their types.
        returned: Types of the tensors of the answer.
        compression: Of the messages that come; `sent_compression`: of those that go
            on, or of the answers, to what came compressed.
    """

    region: Region
    segment: int
    onward: tuple[Asked, ...]
    chain: ChainPart
    received: tuple[TokenType, ...]
    sends: tuple[int, ...]
    sent: tuple[TokenType, ...]
    returned: tuple[TokenType, ...]
    compression: str
    sent_compression: str


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
        _hosted_part(graph, region, branch, stops[index:])
        for region in graph.regions
        for branch in region.branches
        if graph.actors[region.fork].device != branch.device
        for stops in [(Asked(branch.device, branch.segment), *branch.onward)]
        for index, asked in enumerate(stops)
        if asked.device == device
    ]


def _stream_part(graph: Graph, region: Region) -> StreamPart:
    suffix = _reach(graph, {region.join}, graph.outputs, lambda f: f.target.actor)
    branches = {name for branch in region.branches for name in branch.actors}
    not_before = branches | {region.join, region.control}
    prefix = _reach(
        graph,
        suffix | {region.fork},
        lambda name: () if name in not_before else graph.inputs(name),
        lambda fifo: fifo.source.actor,
    )
    prefix -= suffix | not_before | {region.fork, region.source}
    (outcome,) = graph.outputs(region.join)
    answer = graph.token(outcome)
    assert answer is not None
    passing = [f.source for a in suffix for f in _data_into(graph, a)
               if f.source.actor in prefix]  # fmt: skip
    return StreamPart(
        region=region,
        source=region.source,
        firings=several_firings(graph, region.source),
        prefix=_chain(graph, prefix, {}),
        fork_reads=tuple(fifo.source for fifo in _data_into(graph, region.fork)),
        branches=tuple(
            _branch_part(graph, region, branch) for branch in region.branches
        ),
        suffix=_chain(graph, suffix, {}),
        answer=answer,
        around=_around(graph, region, passing),
    )


def several_firings(graph: Graph, actor: str) -> dict[str, int]:
    """Return the firings per iteration of those that fire more than once.

    Args:
        graph: Any graph that the rules accept.
        actor: The actors connected to it are looked at.
    """
    if all(port.rates[-1] == 1 for port in _ports(graph)):
        return {}
    part = next(p for p in parts(graph) if actor in p.actors)
    modes = {dpg.name: next(iter(dpg.modes)) for dpg in part.dpgs}
    counts = repetition_vector(part, modes)
    return {name: count for name, count in counts.items() if count > 1}


def _ports(graph: Graph) -> Iterator[Port]:
    return (port for actor in graph.actors.values() for port in actor.ports)


def _around(
    graph: Graph, region: Region, answering: Collection[PortRef]
) -> Around | None:
    """Return the DPG around a region.

    Args:
        graph: The plain graph.
        region: One of its regions.
        answering: Output ports of the prefix that lead past the region.
    """
    entries = [fifo.target for fifo in _data_into(graph, region.fork)]
    for dpg in graph.dpgs:
        if dpg.name == region.name or not dpg.dynamic_ports.issuperset(entries):
            continue
        plays = [any(row[ref] for ref in entries) for row in dpg.modes.values()]
        return Around(
            port=next(
                fifo.source
                for fifo in graph.inputs(region.fork)
                if fifo.source.actor == dpg.controller
            ),
            modes=tuple(dpg.modes),
            answers={
                i: next(ref for ref in answering if row.get(ref))
                for i, row in enumerate(dpg.modes.values())
                if not plays[i]
            },
            inside=plays.index(True),
        )
    return None


def _data_into(graph: Graph, actor: str) -> list[Fifo]:
    return [f for f in graph.inputs(actor) if not graph.port(f.target).control]


def _branch_part(graph: Graph, region: Region, branch: Branch) -> BranchPart:
    here = graph.actors[region.fork].device
    entries = _data_into(graph, region.fork)
    retained = {fifo.target.port: index for index, fifo in enumerate(entries)}
    if not branch.actors:
        return _identity_part(graph, region, branch, retained)
    local = [a for a in branch.actors if graph.actors[a].device == here]
    tx = next((a for a in local if graph.actors[a].type == "tx"), None)
    rx = next((a for a in local if graph.actors[a].type == "rx"), None)
    chain = _chain(graph, set(local) - {tx, rx}, {region.name: branch.row})
    sends: list[int] = []
    if tx is not None:
        for fifo in _data_into(graph, tx):
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
        compression=compression_of(graph.actors[tx]) if tx else "",
        answer_compression=compression_of(graph.actors[rx]) if rx else "",
    )


def _identity_part(
    graph: Graph, region: Region, branch: Branch, retained: Mapping[str, int]
) -> BranchPart:
    """A branch whose answer was computed before the fork."""
    dpg = next(d for d in graph.dpgs if d.name == region.name)
    source = next(
        fifo.source
        for fifo in graph.inputs(region.join)
        if fifo.source.actor == region.fork and dpg.modes[branch.row].get(fifo.source)
    )
    read = retained[_fork_input(source)]
    return BranchPart(branch, _chain(graph, set(), {}), (read,), (), (), (), "", "")


def _hosted_part(
    graph: Graph, region: Region, branch: Branch, stops: tuple[Asked, ...]
) -> HostedPart:
    """Return what the first of `stops` plays; the others stand behind it."""
    asked, *onward = stops
    there = [a for a in branch.actors if graph.actors[a].device == asked.device]
    # In dataflow order: where it passes tokens on, the pair of the answer comes last.
    rx = next(a for a in there if graph.actors[a].type == "rx")
    tx = next(a for a in there if graph.actors[a].type == "tx")
    back = next(a for a in reversed(there) if graph.actors[a].type == "tx")
    fired = {a for a in there if graph.actors[a].type not in ("rx", "tx")}
    # A message holds its tensors in the order of the RX, whoever reads them.
    place = {PortRef(rx, port.name): i for i, port in enumerate(graph.actors[rx].ports)}
    chain = _chain(graph, fired, {region.name: branch.row}, place)
    return HostedPart(
        region=region,
        segment=asked.segment,
        onward=tuple(onward),
        chain=chain,
        received=_tokens(graph, graph.outputs(rx)),
        sends=tuple(chain.outputs.index(fifo.source) for fifo in graph.inputs(tx)),
        sent=_tokens(graph, graph.inputs(tx)),
        returned=_tokens(graph, graph.outputs(back)),
        compression=compression_of(graph.actors[rx]),
        sent_compression=compression_of(graph.actors[tx]),
    )


def compression_of(actor: Actor) -> str:
    """Return how a TX compresses its messages, or an RX wants them; "": not at all."""
    return str(actor.params.get("compression", ""))


def _fork_input(ref: PortRef) -> str:
    """Name of the fork's input behind its output ``b<row>_<input>``."""
    return ref.port.partition("_")[2]


def _chain(
    graph: Graph,
    actors: set[str],
    modes: Mapping[str, str],
    place: Mapping[PortRef, int] | None = None,
) -> ChainPart:
    """Return the part that holds `actors`, in the graph's own order.

    Args:
        graph: The plain graph.
        actors: Some of it.
        modes: Regions whose mode is fixed.
        place: Of each port that feeds it among the tokens that enter; None: they
            enter in the order of the actors.
    """
    told = {dpg.controller for dpg in graph.dpgs if dpg.name in modes}
    entering = [
        f for a in graph.actors if a in actors for f in graph.inputs(a)
        if f.source.actor not in actors
        and not (graph.port(f.target).control and f.source.actor in told)
    ]  # fmt: skip
    if place is not None:
        entering.sort(key=lambda fifo: place[fifo.source])
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
    starts: set[str],
    fifos_of: Callable[[str], Iterable[Fifo]],
    other: Callable[[Fifo], str],
) -> set[str]:
    """Return the actors reached from `starts` along FIFOs, without those."""
    found: set[str] = set()
    todo = list(starts)
    while todo:
        for fifo in fifos_of(todo.pop()):
            if (name := other(fifo)) not in found:
                found.add(name)
                todo.append(name)
    return found - starts


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
