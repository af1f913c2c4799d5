"""What is simulated: devices, and streams with their rows, windows and deadlines."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from dataflow.branches import number_of
from dataflow.errors import UnderstudyError
from dataflow.graph import Graph, Region
from dataflow.outcome import Status
from dataflow.parts import Around, BranchPart, StreamPart, stream_parts
from dataflow.plan import Plan
from dataflow.redundancy import STANDBY, Redundancy
from dataflow.turns import ALONE, Batching
from dataflow.wire.rows import grades

DRAWN_TOKEN_BYTES = (100,)
SEGMENT, CHAIN_SEGMENTS, HOP_SEGMENT = 0xCAFE0000, 0x10000, 0xBEEF
"""Identities of drawn computations: of a stream, its parts in chains, those behind."""
_MODES = tuple(
    Redundancy.parse(text)
    for text in ("standby", "spread", "replicate 2", "hedge p50", "hedge p95")
)
_BATCHES = (ALONE, Batching(2, 0.0), Batching(4, 0.004), Batching(8, 0.001))
DEFAULT_RATE_HZ = 50.0
"""Of a source that does not say its rate."""


class Hop(NamedTuple):
    """A server behind another, and what it is asked for."""

    server: int
    segment: int


class Row(NamedTuple):
    """A branch as the simulation needs it."""

    name: str
    server: int | None
    """Index of the server that computes it; None: the endpoint does."""
    quality: Status
    segment: int = 0
    token_bytes: tuple[int, ...] = ()
    """Sizes of the tensors that cross, of a remote one."""
    compute_s: float | None = None
    """Of a local one, at best; None: drawn."""
    onward: tuple[Hop, ...] = ()
    """Servers behind that one, which passes tokens on."""
    grade: int = 0
    """The same for rows that are alike, see `dataflow.wire.rows.grades`."""


class Source(NamedTuple):
    """A stream as the simulation needs it."""

    name: str
    number: int
    """On the wire."""
    endpoint: int
    """Index of its endpoint."""
    period_s: float
    deadline_s: float
    window: int
    rows: tuple[Row, ...]
    """In the policy's order."""
    head_s: float | None = None
    """Time from the last frame to the fork; None: drawn."""
    frames: int = 1
    """Of an iteration."""
    outside: str = ""
    """The mode in which a gate has the answer, and no branch plays; empty: none."""
    redundancy: Redundancy = STANDBY


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is about. Several runs may share one."""

    name: str
    endpoints: Sequence[str]
    servers: Sequence[str]
    sources: Sequence[Source]
    batching: Sequence[Batching] = ()
    """Of each server; none: their tokens run alone."""


def deployed(plan: Plan) -> Scenario:
    """Return the scenario of a compiled deployment: exactly its streams and rows.

    What a deployment does not say is drawn anew in each run: how long heads, branches
    and the network take.

    Raises:
        UnderstudyError: No stream starts in it.
    """
    graph = plan.graph
    parts = [part for name in plan.devices for part in stream_parts(graph, name)]
    if not parts:
        raise UnderstudyError(
            f"{plan.name}: no stream starts in it, so there is nothing to simulate; "
            "give it a source"
        )
    homes = {p.region.stream: graph.actors[p.source].device or "" for p in parts}
    endpoints = list(dict.fromkeys(homes.values()))
    servers = list(
        dict.fromkeys(
            device
            for part in parts
            for each in part.branches
            if each.sends
            for device in (each.branch.device, *(a.device for a in each.branch.onward))
        )
    )
    return Scenario(
        plan.name,
        endpoints,
        servers,
        [_source(graph, part, endpoints, servers) for part in parts],
        [plan.devices[name].batching for name in servers],
    )


def _source(
    graph: Graph, part: StreamPart, endpoints: list[str], servers: list[str]
) -> Source:
    region = part.region
    home = graph.actors[part.source].device or ""
    alike = grades(region.branches, home)
    return Source(
        name=region.stream,
        number=number_of(region.stream, ""),
        endpoint=endpoints.index(home),
        period_s=1.0 / _rate_hz(graph, region),
        deadline_s=region.deadline_ms / 1e3,
        window=region.window,
        rows=tuple(
            _row(branch, servers)._replace(grade=grade)
            for branch, grade in zip(part.branches, alike, strict=True)
            if not branch.branch.codec  # for links that carry less than ours
        ),
        head_s=None if part.prefix else 0.0,
        frames=part.frames,
        outside=_outside(part.around),
        redundancy=region.redundancy,
    )


def _row(part: BranchPart, servers: list[str]) -> Row:
    branch = part.branch
    if not part.sends:
        # What was computed before the fork takes no time behind it.
        best_s = None if part.chain else 0.0
        return Row(branch.row, None, branch.quality, compute_s=best_s)
    sizes = tuple(token.nbytes for token in part.sent)
    server = servers.index(branch.device)
    onward = tuple(
        Hop(servers.index(asked.device), asked.segment) for asked in branch.onward
    )
    return Row(branch.row, server, branch.quality, branch.segment, sizes, onward=onward)


def _outside(around: Around | None) -> str:
    return "" if around is None else around.modes[next(iter(around.answers))]


def _rate_hz(graph: Graph, region: Region) -> float:
    rate = graph.actors[region.source].params.get("rate_hz")
    known = isinstance(rate, int | float) and rate > 0
    return float(rate) if known else DEFAULT_RATE_HZ  # type: ignore[arg-type]


def drawn(
    seed: int,
    *,
    endpoints: int | None = None,
    servers: int | None = None,
    local: bool | None = None,
    redundancy: Redundancy | None = None,
    chained: bool | None = None,
    batching: Batching | None = None,
) -> Scenario:
    """Return a K_{m,n} whose streams follow the seed, as its size does if not given.

    Args:
        seed: Of the run.
        endpoints: Devices with a stream, or two for each fifth seed.
        servers: Devices that each endpoint dials.
        local: Whether streams have two local branches behind the remote ones.
        redundancy: How they use their servers.
        chained: Whether servers pass tokens on, each to those after it.
        batching: Of every server; then all streams share a segment.
    """
    chained = seed % 9 in (4, 5) if chained is None else chained
    mode = redundancy or _MODES[seed // 4 % len(_MODES) if seed % 4 == 3 else 0]
    random = Random(seed)
    ends = 1 + (seed % 7 == 0) if endpoints is None else endpoints
    count = 1 + seed % 3 if servers is None else servers
    if batching is None:
        batching = _BATCHES[seed // 6 % len(_BATCHES) if seed % 6 == 5 else 0]
    per_endpoint = 2 if seed % 5 == 0 else 1
    shape = _Shape(count, chained=chained and count > 1, shared=batching.most > 1)
    return Scenario(
        "drawn",
        _names("cam", ends),
        _names("edge", count),
        [
            _drawn_source(random, seed, i + 1, i // per_endpoint, shape, local, mode)
            for i in range(ends * per_endpoint)
        ],
        [batching] * count,
    )


class _Shape(NamedTuple):
    """How drawn streams use their servers."""

    servers: int
    chained: bool
    """Each passes tokens on to those after it; else all are asked directly."""
    shared: bool
    """Streams have their segments in common."""


def _drawn_source(
    random: Random,
    seed: int,
    number: int,
    endpoint: int,
    shape: _Shape,
    local: bool | None,
    redundancy: Redundancy,
) -> Source:
    has_local = random.random() < 0.6 if local is None else local
    period_s = random.uniform(0.008, 0.030)
    return Source(
        name=f"cam.{endpoint}/{number}",
        number=number,
        endpoint=endpoint,
        period_s=period_s,
        deadline_s=random.uniform(0.05, 0.6),
        window=random.randint(1, 8),
        rows=_drawn_rows(number, shape, has_local),
        head_s=random.choice((0.0, 0.002, 0.3 * period_s)),
        frames=3 if seed % 8 == 7 else 1,
        outside="exit" if seed % 8 == 6 else "",
        redundancy=redundancy,
    )


@lru_cache(maxsize=4096)
def _drawn_rows(number: int, shape: _Shape, has_local: bool) -> tuple[Row, ...]:
    segment = SEGMENT + (0 if shape.shared else number)
    servers = shape.servers
    if shape.chained:
        remote = [
            Row(
                "+".join(f"edge.{j}" for j in way), way[0], "full",
                segment + CHAIN_SEGMENTS * len(way), DRAWN_TOKEN_BYTES,
                # Whatever the stream, and however it came: servers behind have it once.
                onward=tuple(Hop(j, HOP_SEGMENT + j) for j in way[1:]),
            )
            for way in _ways(servers)
        ]  # fmt: skip
    else:
        remote = [
            Row(f"edge.{j}", j, "full", segment, DRAWN_TOKEN_BYTES)
            for j in ((number + i) % servers for i in range(servers))
        ]
    local = (
        Row("exit2", None, "degraded", compute_s=0.012, grade=servers),
        Row("exit1", None, "degraded", compute_s=0.0, grade=servers + 1),
    )
    return (*remote, *(local if has_local else ()))


def _ways(servers: int) -> list[tuple[int, ...]]:
    """Return ways from the first server to the last, the longest first, and the last.

    >>> _ways(3)
    [(0, 1, 2), (0, 2), (2,)]
    """
    last = servers - 1
    ways = [tuple(range(servers)), (0, last), (last,)]
    return list(dict.fromkeys(ways))


@lru_cache(maxsize=64)
def _names(group: str, count: int) -> tuple[str, ...]:
    return tuple(f"{group}.{i}" for i in range(count))
