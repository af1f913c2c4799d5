"""Rates that agree in every mode (R3), and control that reaches every member (R4).

Across a cut, control travels in the header of the data message it governs: no message,
no control token, no firing. So a carried actor (`Dpg.carried`) needs no control FIFO,
but whatever feeds it must come through a TX that has one and is silent in the modes
that it is off in.
"""

import itertools
from collections.abc import Iterator, Mapping

from dataflow.finding import Finding
from dataflow.graph import Dpg, Fifo, Graph, PortRef

TX = "tx"
RX = "rx"


def zero_together(graph: Graph) -> Iterator[Finding]:
    """R3: in each mode both ends of a FIFO have rate 0, or neither has."""
    owner = {ref: dpg for dpg in graph.dpgs for ref in dpg.playing}
    static = {
        PortRef(actor.name, port.name): port.rate
        for actor in graph.actors.values()
        for port in actor.ports
    }
    for fifo in graph.fifos:
        source, target = owner.get(fifo.source), owner.get(fifo.target)
        if source is None and target is None:
            agree = bool(static[fifo.source]) == bool(static[fifo.target])
        elif source is target:
            assert source is not None
            on = source.playing[fifo.source].keys()
            agree = on == source.playing[fifo.target].keys()
        else:
            agree = False  # the modes of two DPGs, or of one and of none, combine
        if not agree:
            yield from _one_sided(graph, fifo, owner)


def _one_sided(
    graph: Graph, fifo: Fifo, owner: Mapping[PortRef, Dpg]
) -> Iterator[Finding]:
    """Look at the modes of a FIFO one by one."""
    ends = (fifo.source, fifo.target)
    governing = {owner[ref].name: owner[ref] for ref in ends if ref in owner}
    one_sided = []
    for chosen in itertools.product(*(d.modes for d in governing.values())):
        modes = dict(zip(governing, chosen, strict=True))
        produced, consumed = (
            owner[ref].playing[ref].get(modes[owner[ref].name], 0)
            if ref in owner
            else graph.port(ref).rate
            for ref in ends
        )
        if bool(produced) != bool(consumed):
            one_sided.append((modes, produced, consumed))
    if one_sided:
        modes, produced, consumed = one_sided[0]
        names = " and ".join(f"'{mode}'" for mode in modes.values())
        where = f"in mode {names} " if modes else ""
        others = f" ({len(one_sided)} such modes)" if len(one_sided) > 1 else ""
        left = "tokens pile up" if produced else "its target starves"
        problem = f"{where}it is written {produced} and read {consumed}: {left}"
        fix = "set both rates to 0, or neither"
        yield Finding("R3", f"fifo {fifo}", problem + others, fix)


def control_reaches(graph: Graph) -> Iterator[Finding]:
    """R4: every member gets its control token, on a FIFO or carried by a message."""
    for dpg in graph.dpgs:
        controlled = {}
        for fifo in graph.outputs(dpg.controller):
            if graph.port(fifo.source).control:
                controlled[fifo.target.actor] = fifo
                yield from _undelayed(fifo)
        for member in sorted(dpg.members - {dpg.controller}):
            subject = f"actor '{member}'"
            if member in dpg.carried:
                if member in controlled:
                    problem = "has a control FIFO and is listed as carried"
                    yield Finding("R4", subject, problem, "keep one of the two")
                yield from _carried(graph, dpg, member, controlled)
            elif member not in controlled:
                problem = f"has dynamic ports in '{dpg.name}' but no control FIFO"
                fix = f"add a control FIFO from '{dpg.controller}' to '{member}'"
                yield Finding("R4", subject, problem, fix)
        yield from _rootless(graph, dpg)


def _undelayed(fifo: Fifo) -> Iterator[Finding]:
    if fifo.delay:
        problem = f"control tokens come {fifo.delay} firings late: modes would mix"
        fix = "remove its initial tokens; delay the data that the choice is made from"
        yield Finding("R4", f"fifo {fifo}", problem, fix)


def _carried(
    graph: Graph, dpg: Dpg, member: str, controlled: dict[str, Fifo]
) -> Iterator[Finding]:
    """Only an RX may take what actors that are not carried send, and from a TX only."""
    actor = graph.actors[member]
    subject = f"actor '{member}'"
    home = graph.actors[dpg.controller].device
    if actor.type != RX and actor.device is not None and actor.device == home:
        problem = f"is carried, but stands on '{home}' beside its controller"
        fix = f"add a control FIFO from '{dpg.controller}' instead"
        yield Finding("R4", subject, problem, fix)
    for fifo in (*graph.inputs(member), *graph.outputs(member)):
        mine = fifo.target if fifo.target.actor == member else fifo.source
        if not graph.port(mine).control and mine not in dpg.dynamic_ports:
            problem = f"is carried, but its port {mine.port} has a rate in every mode"
            fix = f"make {mine.port} dynamic in '{dpg.name}'"
            yield Finding("R4", subject, problem, fix)
    for fifo in graph.inputs(member):
        feeder = graph.actors[fifo.source.actor]
        if feeder.name in dpg.carried:
            continue
        if actor.type != RX or feeder.type != TX:
            problem = f"is carried, but fed by '{feeder.name}' without a TX and an RX"
            fix = "feed it over the cut whose messages carry its control"
            yield Finding("R4", subject, problem, fix)
        elif feeder.name not in controlled:
            problem = f"its control is carried by '{feeder.name}', which has none"
            fix = f"add a control FIFO from '{dpg.controller}' to '{feeder.name}'"
            yield Finding("R4", subject, problem, fix)


def _rootless(graph: Graph, dpg: Dpg) -> Iterator[Finding]:
    """Carried actors that no message from a controlled actor can ever reach."""
    reached = set()
    frontier = [
        name
        for name in dpg.carried
        if any(f.source.actor not in dpg.carried for f in graph.inputs(name))
    ]
    while frontier:
        if (name := frontier.pop()) not in reached:
            reached.add(name)
            following = (fifo.target.actor for fifo in graph.outputs(name))
            frontier.extend(target for target in following if target in dpg.carried)
    for name in sorted(dpg.carried - reached):
        problem = "is carried, but no message brings its control"
        yield Finding("R4", f"actor '{name}'", problem, "feed it through a TX")
