"""The modes of a graph: one combination after the other, or all of them at once.

`at_once` is the graph in every mode together: each FIFO as often as it has different
rates in some mode, rates of 0 left out. It needs one analysis where the modes would
need as many as there are combinations, and what it shows holds in each of them:

- *Balance.* The FIFOs of a combination are among its FIFOs. So a repetition vector of
  it, restricted to the actors that do not rest, balances every combination. Is it also
  the smallest? By R3 a FIFO that is off in some mode joins two members of one DPG, and
  by R4 each member that is not carried hangs on its controller by a control FIFO of
  rate 1. So all actors that never rest are connected by FIFOs that are always on, and
  if their counts have no common divisor, no combination has a smaller vector.
- *Liveness.* A firing in a combination waits for no more than it does here: for the
  same firings, along a part of the FIFOs (a FIFO with several rates stands here once
  for each). An execution that completes here is, restricted, one that completes there.
- *Capacities.* Free space is a FIFO backwards, so the same holds with bounds.

The converse fails: FIFOs that are never on together can close a cycle. Where the graph
at once is refused, the combinations decide, of those DPGs only that can matter.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from dataflow.balance import (
    AnalysisError,
    ModeGraph,
    RateError,
    repetitions,
    resting,
)
from dataflow.graph import Dpg, Fifo, Graph, PortRef

MODE_COMBINATIONS_MAX = 4096
"""Products of modes that are looked at one by one. Independent streams are parts of
their own, so only DPGs that touch one another multiply."""


def mode_combinations(part: Graph) -> Iterator[dict[str, str]]:
    """Return every combination of modes of a part's DPGs; one, empty, if it has none.

    Raises:
        AnalysisError: There are more than `MODE_COMBINATIONS_MAX`.
    """
    return combined({dpg.name: list(dpg.modes) for dpg in part.dpgs})


def combined(modes: Mapping[str, list[str]]) -> Iterator[dict[str, str]]:
    """Return every choice of one mode for each DPG.

    Raises:
        AnalysisError: There are more than `MODE_COMBINATIONS_MAX`.
    """
    count = math.prod(map(len, modes.values()))
    if count > MODE_COMBINATIONS_MAX:
        raise AnalysisError(
            f"dpg '{next(iter(modes))}'",
            f"it and {len(modes) - 1} DPGs connected to it are refused with all modes "
            f"at once, and have {count} combinations of modes, more than the "
            f"{MODE_COMBINATIONS_MAX} that are checked one by one",
            "merge DPGs that switch together, give them fewer modes, or make the FIFOs "
            "between them agree in all modes",
        )
    products = itertools.product(*modes.values())
    return (dict(zip(modes, chosen, strict=True)) for chosen in products)


def at_once(part: Graph) -> ModeGraph:
    """Return `part` in all its modes together; what that is good for stands above."""
    actors = tuple(part.actors)
    index = {name: i for i, name in enumerate(actors)}
    ports = {
        PortRef(actor.name, port.name): port
        for actor in part.actors.values()
        for port in actor.ports
    }
    owner = {ref: dpg for dpg in part.dpgs for ref in dpg.playing}
    static = {ref: port.rate for ref, port in ports.items() if ref not in owner}
    entries = [
        (fifo, produced, consumed)
        for fifo in part.fifos
        for produced, consumed in _pairs(fifo, owner, static)
    ]
    fifos = tuple(fifo for fifo, _, _ in entries)
    return ModeGraph(
        actors,
        fifos,
        [index[fifo.source.actor] for fifo in fifos],
        [index[fifo.target.actor] for fifo in fifos],
        [produced for _, produced, _ in entries],
        [consumed for _, _, consumed in entries],
        resting(part, fifos),
        frozenset(fifo for fifo in fifos if ports[fifo.source].control),
    )


def _pairs(
    fifo: Fifo, owner: Mapping[PortRef, Dpg], static: Mapping[PortRef, int]
) -> list[tuple[int, int]]:
    """Return the rates that a FIFO has in some mode, other than 0 at both ends."""
    source, target = owner.get(fifo.source), owner.get(fifo.target)
    if source is None and target is None:
        found = {(static[fifo.source], static[fifo.target])}
    elif source is target:
        assert source is not None
        written, read = source.playing[fifo.source], source.playing[fifo.target]
        if written == read:
            found = {(rate, rate) for rate in written.values()}
        else:
            modes = written.keys() | read.keys()
            found = {(written.get(m, 0), read.get(m, 0)) for m in modes}
    else:
        written_rates = _rates(source, fifo.source, static)
        read_rates = _rates(target, fifo.target, static)
        found = set(itertools.product(written_rates, read_rates))
    return sorted(found - {(0, 0)})


def _rates(dpg: Dpg | None, ref: PortRef, static: Mapping[PortRef, int]) -> set[int]:
    if dpg is None:
        return {static[ref]}
    played = dpg.playing[ref]
    silent = {0} if len(played) < len(dpg.modes) else set()
    return {*played.values(), *silent}


def shared_counts(part: Graph, together: ModeGraph) -> dict[str, int] | None:
    """Return the repetition vector that all combinations of modes share.

    Args:
        part: A weakly connected graph that rules R1 to R4 accept.
        together: `at_once` of it.

    Returns:
        The firings of each actor where it does not rest; None if the combinations have
        no such vector in common, or none was found without looking at each.
    """
    try:
        counts = repetitions(together)
    except RateError:
        return None
    carried = frozenset(name for dpg in part.dpgs for name in dpg.carried)
    awake = [count for name, count in counts.items() if name not in carried]
    return counts if math.gcd(*awake) == 1 else None


def relevant_modes(part: Graph, fifos: Iterable[Fifo]) -> dict[str, list[str]]:
    """Return, for each DPG that sets rates of `fifos`, the modes that differ there.

    Of several modes with the same rates on all of `fifos` the first is returned, and of
    a DPG that has the same rates there in all its modes nothing.
    """
    owner = {ref: dpg for dpg in part.dpgs for ref in dpg.playing}
    rows: dict[str, dict[str, list[tuple[PortRef, int]]]] = {}
    for fifo in fifos:
        for ref in (fifo.source, fifo.target):
            if (dpg := owner.get(ref)) is not None:
                row = rows.setdefault(dpg.name, {mode: [] for mode in dpg.modes})
                for mode, rate in dpg.playing[ref].items():
                    row[mode].append((ref, rate))
    found = {}
    for name, row in rows.items():
        differing = {tuple(rates): mode for mode, rates in reversed(row.items())}
        if len(differing) > 1:
            kept = set(differing.values())
            found[name] = [mode for mode in row if mode in kept]
    return found
