"""Well-formed graphs (R1) and control tables (R2): what every other rule relies on."""

from collections import Counter
from collections.abc import Iterator

from dataflow.errors import nearest
from dataflow.finding import Finding
from dataflow.graph import CONTROL_TOKEN, Actor, Dpg, Fifo, Graph, Port, PortRef, Rates


def well_formed(graph: Graph) -> Iterator[Finding]:
    """R1: ports and FIFOs fit each other in name, direction, number and type."""
    for name, actor in graph.actors.items():
        yield from _actor(name, actor)
    for fifo in graph.fifos:
        yield from _fifo(graph, fifo)
    yield from _connections(graph)


def _actor(name: str, actor: Actor) -> Iterator[Finding]:
    subject = f"actor '{name}'"
    if actor.name != name:
        yield Finding("R1", subject, f"is called '{actor.name}'", "use one name")
    for port, count in Counter(p.name for p in actor.ports).items():
        if count > 1:
            yield Finding("R1", subject, f"has {count} ports '{port}'", "rename them")
    for p in actor.ports:
        where = f"port {name}.{p.name}"
        if not p.name or "." in p.name:
            yield Finding("R1", where, "its name is empty or holds a dot", "rename it")
        if not p.rates or min(p.rates) < 0 or list(p.rates) != sorted(set(p.rates)):
            problem = f"rates {list(p.rates)} are not ascending whole numbers from 0 on"
            yield Finding("R1", where, problem, "list each allowed rate once")
        elif p.control and p.rates != (1,):
            problem = f"a control port has rates {list(p.rates)}"
            yield Finding("R1", where, problem, "give it the rate 1, in every mode")
        if p.control and p.token not in (None, CONTROL_TOKEN):
            problem = f"a control port has tokens {p.token}"
            yield Finding("R1", where, problem, f"make them {CONTROL_TOKEN}")


def _port(graph: Graph, ref: PortRef) -> Port | None:
    actor = graph.actors.get(ref.actor)
    ports = actor.ports if actor else ()
    return next((p for p in ports if p.name == ref.port), None)


def _fifo(graph: Graph, fifo: Fifo) -> Iterator[Finding]:
    subject = f"fifo {fifo}"
    if fifo.delay < 0:
        problem = f"has {fifo.delay} initial tokens"
        yield Finding("R1", subject, problem, "give it 0 or more")
    if fifo.capacity is not None and fifo.capacity < 1:
        problem = f"has a capacity of {fifo.capacity}"
        yield Finding(
            "R1", subject, problem, "give it 1 or more, or none to have it set"
        )
    ends = []
    for ref, direction in ((fifo.source, "out"), (fifo.target, "in")):
        port = _port(graph, ref)
        if port is None:
            yield _unknown(graph, subject, ref)
        elif port.direction != direction:
            problem = f"{ref} is an {port.direction}put port"
            end = "leaves" if direction == "out" else "enters"
            yield Finding(
                "R1", subject, problem, f"a FIFO {end} an {direction}put port"
            )
        else:
            ends.append(port)
    if len(ends) == 2:
        yield from _types(subject, *ends)


def _types(subject: str, source: Port, target: Port) -> Iterator[Finding]:
    if None not in (source.token, target.token) and source.token != target.token:
        problem = f"carries {source.token} but its target takes {target.token}"
        yield Finding("R1", subject, problem, "make the tokens equal")
    if source.control != target.control:
        control, data = ("source", "target") if source.control else ("target", "source")
        problem = f"its {control} is a control port and its {data} is not"
        yield Finding("R1", subject, problem, "join control ports to control ports")


def _unknown(graph: Graph, subject: str, ref: PortRef) -> Finding:
    actor = graph.actors.get(ref.actor)
    if actor is None:
        problem = f"actor '{ref.actor}' is not in the graph"
        close = nearest(ref.actor, graph.actors)
    else:
        names = [p.name for p in actor.ports]
        problem = f"actor '{ref.actor}' has no port '{ref.port}'"
        close = nearest(ref.port, names)
        close += f"; its ports are {', '.join(names) or 'none'}"
    return Finding("R1", subject, problem + close, "correct the name")


def _connections(graph: Graph) -> Iterator[Finding]:
    """Each port on exactly one FIFO, but for those that may stay unconnected."""
    used = Counter(ref for f in graph.fifos for ref in (f.source, f.target))
    carried = {name for dpg in graph.dpgs for name in dpg.carried}
    for name, actor in graph.actors.items():
        for port in actor.ports:
            ref = PortRef(name, port.name)
            may_be_open = port.optional or (port.control and name in carried)
            if used[ref] > 1:
                problem = f"is on {used[ref]} FIFOs"
                fix = "give it one FIFO; to send a token to several, use a fork"
                yield Finding("R1", f"port {ref}", problem, fix)
            elif not used[ref] and not may_be_open:
                yield Finding(
                    "R1", f"port {ref}", "is not connected", "connect it to a FIFO"
                )


def control_tables(graph: Graph) -> Iterator[Finding]:
    """R2: each dynamic port has a rate in every mode of one DPG with one controller."""
    dynamic = {
        PortRef(name, port.name)
        for name, actor in graph.actors.items()
        for port in actor.ports
        if port.dynamic
    }
    owners = Counter(ref for dpg in graph.dpgs for ref in dpg.dynamic_ports)
    for ref in sorted(dynamic - owners.keys()):
        problem = "has several rates, but no control table sets it"
        yield Finding("R2", f"port {ref}", problem, "add it to the modes of a DPG")
    for ref in sorted(ref for ref, count in owners.items() if count > 1):
        problem = f"is in the control tables of {owners[ref]} DPGs"
        yield Finding("R2", f"port {ref}", problem, "leave it in one of them")
    for field, names in (
        ("name", Counter(dpg.name for dpg in graph.dpgs)),
        ("controller", Counter(dpg.controller for dpg in graph.dpgs)),
    ):
        for name, count in names.items():
            if count > 1:
                problem = f"is the {field} of {count} DPGs"
                yield Finding("R2", f"'{name}'", problem, f"give each its own {field}")
    for dpg in graph.dpgs:
        yield from _table(graph, dpg, dynamic)
        yield from _controller(graph, dpg)
    yield from _stray_control(graph)


def _table(graph: Graph, dpg: Dpg, dynamic: set[PortRef]) -> Iterator[Finding]:
    subject = f"dpg '{dpg.name}'"
    if not dpg.modes:
        yield Finding("R2", subject, "has no modes", "write its control table")
    for ref in sorted(dpg.dynamic_ports):
        if ref not in dynamic:
            found = "has one rate" if _port(graph, ref) else "is not in the graph"
            problem = f"its control table sets {ref}, which {found}"
            yield Finding("R2", subject, problem, "name dynamic ports only")
            continue
        yield from _row_entries(dpg, ref, graph.port(ref).rates)
    for mode, row in dpg.modes.items():
        if row.keys() == dpg.dynamic_ports:
            continue
        for ref in sorted((dpg.dynamic_ports - row.keys()) & dynamic):
            problem = f"mode '{mode}' gives no rate to {ref}"
            fix = f"give one of {list(graph.port(ref).rates)}"
            yield Finding("R2", subject, problem, fix)
    for name in sorted(dpg.carried - dpg.members):
        problem = f"carried actor '{name}' has no dynamic port in it"
        yield Finding("R2", subject, problem, "list members only")


def _row_entries(dpg: Dpg, ref: PortRef, allowed: Rates) -> Iterator[Finding]:
    """What the modes say of one port. Zeros are counted, not visited: most are."""
    played = dpg.playing[ref]
    if set(played.values()) <= set(allowed) and (
        len(played) == len(dpg.modes) or 0 in allowed
    ):
        return
    fix = f"give one of {list(allowed)}"
    for mode, row in dpg.modes.items():
        if ref in row and row[ref] not in allowed:
            problem = f"mode '{mode}' gives {ref} the rate {row[ref]}"
            yield Finding("R2", f"dpg '{dpg.name}'", problem, fix)


def _controller(graph: Graph, dpg: Dpg) -> Iterator[Finding]:
    subject = f"dpg '{dpg.name}'"
    controller = graph.actors.get(dpg.controller)
    if controller is None:
        problem = f"controller '{dpg.controller}' is not in the graph"
        problem += nearest(dpg.controller, graph.actors)
        yield Finding("R2", subject, problem, "name the actor that chooses its mode")
        return
    if not any(p.control for p in controller.outputs):
        problem = f"controller '{dpg.controller}' has no control output port"
        yield Finding("R2", subject, problem, "give it one per actor that it governs")
    for ref in sorted(dpg.dynamic_ports):
        if ref.actor == dpg.controller and _is_input(graph, ref):
            problem = f"its controller reads {ref} at a rate that it sets by firing"
            yield Finding("R2", subject, problem, "give that port one rate")


def _is_input(graph: Graph, ref: PortRef) -> bool:
    port = _port(graph, ref)
    return port is not None and port.direction == "in"


def _stray_control(graph: Graph) -> Iterator[Finding]:
    """Control tokens come from a DPG's one controller, and from nowhere else."""
    controllers = {dpg.controller for dpg in graph.dpgs}
    members = {member for dpg in graph.dpgs for member in dpg.members}
    senders: dict[str, set[str]] = {}
    for fifo in graph.fifos:
        port = _port(graph, fifo.source)
        if port is None or not port.control:
            continue
        source, target = fifo.source.actor, fifo.target.actor
        senders.setdefault(target, set()).add(source)
        if source not in controllers and target not in members:
            problem = f"'{source}' is not the controller of a DPG"
            fix = "let one controller send all control tokens of a DPG"
            yield Finding("R2", f"fifo {fifo}", problem, fix)
    for dpg in graph.dpgs:
        for member in sorted(dpg.members - {dpg.controller}):
            others = senders.get(member, set())
            if others and dpg.controller not in others:
                problem = (
                    f"two controllers: '{dpg.controller}' chooses its mode, but "
                    f"'{member}' gets control tokens from '{min(others)}'"
                )
                fix = f"connect '{dpg.controller}' to '{member}'"
                yield Finding("R2", f"dpg '{dpg.name}'", problem, fix)
