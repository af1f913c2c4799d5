"""Random static graphs, small and seeded, for the oracle and as graphs of ours."""

import math
import random
from collections.abc import Sequence
from fractions import Fraction

from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from tests.support.sdf_oracle import Edge, Sdf

TIMES = tuple(map(Fraction, ("0", "1", "1", "2", "3", "1/2", "5/3", "7")))


def random_sdf(
    seed: int,
    *,
    actors: int = 5,
    more: int = 4,
    consistent: bool = True,
    times: Sequence[Fraction] = TIMES,
) -> Sdf:
    """Return a graph with several rates, cycles, parallel FIFOs, loops and parts.

    Args:
        seed: Another graph for each.
        actors: At most so many.
        more: At most so many FIFOs beside those that make it hang together.
        consistent: If not, a rate here and there may be off by one.
        times: To choose from.
    """
    rnd = random.Random(seed)
    number = rnd.randint(1, actors)
    fires = [rnd.choice((1, 1, 2, 3)) for _ in range(number)]
    pairs = []
    for i in range(1, number):
        if rnd.random() < 0.9:  # else another part begins
            pair = rnd.randrange(i), i
            pairs.append(pair if rnd.random() < 0.5 else pair[::-1])
    for _ in range(rnd.randint(0, more)):
        pair = rnd.randrange(number), rnd.randrange(number)
        pairs.append(pair)
        if rnd.random() < 0.2:
            pairs.append(rnd.choice((pair, pair[::-1])))
    rnd.shuffle(pairs)
    edges = []
    for a, b in pairs:
        scale = rnd.choice((1, 1, 1, 2))
        divisor = math.gcd(fires[a], fires[b])
        produced, consumed = fires[b] // divisor * scale, fires[a] // divisor * scale
        if not consistent and rnd.random() < 0.3:
            produced += 1
        delay = rnd.choice((0, 0, 0, 1, 2, 3, 5))
        if a == b and rnd.random() < 0.8:
            delay = max(delay, produced * rnd.choice((1, 1, 2)))
        edges.append(Edge(f"a{a}", produced, consumed, f"a{b}", delay))
    names = [f"a{i}" for i in range(number)]
    rnd.shuffle(names)
    return Sdf({name: rnd.choice(times) for name in names}, tuple(edges))


def random_sizes(sdf: Sdf, seed: int) -> list[int | None]:
    """Return capacities for some FIFOs, sometimes too small ones."""
    rnd = random.Random(seed)
    return [
        max(1, edge.delay) + rnd.choice((0, 0, 1, 2, 3, 4))
        if rnd.random() < 0.6
        else None
        for edge in sdf.edges
    ]


def graph_of(sdf: Sdf, sizes: Sequence[int | None] | None = None) -> Graph:
    """Return it as one of ours, with these capacities declared."""
    ports: dict[str, list[Port]] = {name: [] for name in sdf.times}
    fifos = []
    for i, edge in enumerate(sdf.edges):
        ports[edge.source].append(Port(f"o{i}", "out", rates=(edge.produced,)))
        ports[edge.target].append(Port(f"i{i}", "in", rates=(edge.consumed,)))
        ends = PortRef(edge.source, f"o{i}"), PortRef(edge.target, f"i{i}")
        fifos.append(Fifo(*ends, sizes[i] if sizes else None, edge.delay))
    actors = {
        name: Actor(name, "moves", tuple(listed), time=sdf.times[name])
        for name, listed in ports.items()
    }
    return Graph("random", actors, tuple(fifos))
