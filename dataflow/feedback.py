"""No choice of a mode waits for what it decides (R6).

Every actor that a DPG governs waits for the control token. If the controller in turn
waits, in the same iteration, for a token that comes of one of them, both wait forever:
whatever closes that cycle needs initial tokens.
"""

from collections.abc import Iterator

from dataflow.balance import parts
from dataflow.finding import Finding
from dataflow.graph import Dpg, Fifo, Graph
from dataflow.iteration import stuck_in
from dataflow.modes import at_once
from dataflow.strong import components


def undelayed_choice(graph: Graph) -> Iterator[Finding]:
    """R6: no cycle through a controller and what it governs lacks initial tokens."""
    for part in parts(graph):
        if part.dpgs:
            yield from _undelayed(part)


def _undelayed(part: Graph) -> Iterator[Finding]:
    together = at_once(part)
    index = {name: i for i, name in enumerate(together.actors)}
    following: list[list[int]] = [[] for _ in together.actors]
    into: dict[str, list[Fifo]] = {}
    for fifo in together.fifos:
        if not fifo.delay:
            source, target = fifo.source.actor, fifo.target.actor
            following[index[source]].append(index[target])
            into.setdefault(target, []).append(fifo)
    cyclic = {
        together.actors[i]: {together.actors[j] for j in component}
        for component in components(following)
        if len(component) > 1
        for i in component
    }
    for dpg in part.dpgs:
        path = _path(dpg, into, cyclic.get(dpg.controller, set()))
        if path is None:
            continue
        modes = _modes_of(part, path)
        error = None if modes is None else stuck_in(part, modes)
        if error is not None:  # else FIFOs that are never on together: R10 decides
            shown = " -> ".join([path[0].source.actor, *(f.target.actor for f in path)])
            problem = (
                f"'{dpg.controller}' chooses its mode only after {shown}, which waits "
                "for the choice: deadlock"
            )
            yield Finding("R6", f"dpg '{dpg.name}'", problem, error.fix)


def _path(dpg: Dpg, into: dict[str, list[Fifo]], cyclic: set[str]) -> list[Fifo] | None:
    """Return a shortest way without initial tokens from a member to the controller."""
    after: dict[str, Fifo] = {}
    level = [dpg.controller]
    while level:
        before = []
        for name in level:
            for fifo in into.get(name, ()):
                source = fifo.source.actor
                if source not in cyclic or source in after:
                    continue
                after[source] = fifo
                if source in dpg.members:
                    path = [fifo]
                    while path[-1].target.actor != dpg.controller:
                        path.append(after[path[-1].target.actor])
                    return path
                before.append(source)
        level = before
    return None


def _modes_of(part: Graph, path: list[Fifo]) -> dict[str, str] | None:
    """Return modes in which all of `path` is on; None: there are none."""
    modes = {}
    for dpg in part.dpgs:
        on = [
            dpg.playing[ref].keys()
            for fifo in path
            for ref in (fifo.source, fifo.target)
            if ref in dpg.playing
        ]
        fitting = [mode for mode in dpg.modes if all(mode in row for row in on)]
        if not fitting:
            return None
        modes[dpg.name] = fitting[0]
    return modes
