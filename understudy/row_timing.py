"""How long each row of a deployed graph takes, where its actors have times.

Times are milliseconds there. A stream is looked at by itself, as if no other shared its
devices, and each actor as if it had a core of its own, on which it fires once at a
time. Links take no time but what their actors are given.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from dataflow.analysis import least_room, parts
from dataflow.balance import Modes
from dataflow.graph import Branch, Fifo, Graph, Region
from dataflow.modes import combined
from dataflow.throughput import latency, throughput

MODES_MAX = 64
"""Combinations of modes of a stream that are timed; rows that are alike count once."""


@dataclass(frozen=True, slots=True)
class RowTime:
    """What a row comes to; in the slowest of the modes that other DPGs may be in."""

    latency_ms: float
    """From the source's firing to the sink's end, of a frame by itself."""
    frames_per_s_max: float | None
    """With as many frames under way as the window admits; None: nothing bounds it."""


def row_times(graph: Graph) -> dict[str, dict[str, RowTime]]:
    """Return the times of each row of each stream, but of streams without all times."""
    found = {}
    for part in parts(graph):
        if part.regions and all(a.time is not None for a in part.actors.values()):
            sized = least_room(part).capacities
            for region in part.regions:
                found[region.stream] = _rows(part, region, sized)
    return found


def _rows(part: Graph, region: Region, sized: Mapping[Fifo, int]) -> dict[str, RowTime]:
    known: dict[object, RowTime] = {}
    rows = {}
    others = {d.name: list(d.modes) for d in part.dpgs if d.name != region.name}
    alike = {branch.row: _alike(part, branch) for branch in region.branches}
    count = len(set(alike.values()))
    for names in others.values():
        count *= len(names)
    if count > MODES_MAX:
        return {}
    for row, kind in alike.items():
        if kind not in known:
            every = ({**modes, region.name: row} for modes in combined(others))
            known[kind] = _slowest(part, region.window, sized, every)
        rows[row] = known[kind]
    return rows


def _alike(part: Graph, branch: Branch) -> object:
    """Return what two branches have in common that take the same time."""
    inside = set(branch.actors)
    fifos = [f for name in branch.actors for f in part.outputs(name)]
    return (
        tuple(part.actors[name].time for name in branch.actors),
        tuple((f.capacity, f.target.actor in inside) for f in fifos),
    )


def _slowest(
    part: Graph, window: int, sized: Mapping[Fifo, int], every: Iterator[Modes]
) -> RowTime:
    longest, most = Fraction(0), None
    for modes in every:
        took = latency(part, modes, sized, one_at_a_time=True)
        pace = throughput(part, modes, sized, one_at_a_time=True)
        assert took is not None  # R11 accepted it
        bounds = [pace, window / took if took else None, most]
        most = min((bound for bound in bounds if bound is not None), default=None)
        longest = max(longest, took)
    return RowTime(float(longest), None if most is None else float(most * 1000))
