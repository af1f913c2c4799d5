"""How many frames one iteration of a stream spans.

One, unless actors before the fork take or give several tokens per firing: with a batch
of four in front of the network, an iteration is four frames.
"""

from dataflow.balance import AnalysisError, repetition_vector
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from graphs.streams import Stream
from graphs.units import Units

_FORK = ""
"""No unit has an empty name."""


def frames_per_iteration(stream: Stream, units: Units) -> int:
    """Return the firings of the source for one of the fork.

    Where the rates upstream contradict one another, or the fork would fire several
    times, the rules of the whole graph say so (R8, R14); here it is one then.
    """
    before = stream.upstream
    actors: dict[str, list[Port]] = {str(u): list(units.kinds[u].ports) for u in before}
    if all(
        p.rates == (1,) for ports in actors.values() for p in ports if not p.dynamic
    ):
        return 1
    taken: list[Port] = []
    fifos: list[Fifo] = []
    for edge in stream.edges:
        if edge.source.unit not in before or edge.delay:
            continue
        made = units.port(edge.source, "out")
        source = PortRef(str(edge.source.unit), made.name)
        if edge.target.unit in before:
            target = units.port(edge.target, "in").name
            fifos.append(Fifo(source, PortRef(str(edge.target.unit), target)))
        else:
            port = Port(f"in{len(taken)}", "in", None, (made.rate,))
            taken.append(port)
            fifos.append(Fifo(source, PortRef(_FORK, port.name)))
    graph = Graph(
        stream.source,
        {
            name: Actor(name, "", tuple(ports))
            for name, ports in {**actors, _FORK: taken}.items()
        },
        tuple(fifos),
    )
    try:
        counts = repetition_vector(graph, {})
    except AnalysisError:
        return 1
    return counts[stream.source] if counts[_FORK] == 1 else 1
