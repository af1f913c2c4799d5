"""How long `check` takes: rules, modes, single failures, sizes of large graphs.

    python -m tests.bench.check [--json FILE]

Deployed K_{m,n}, m servers and n endpoints, are the vehicle classification network if
UNDERSTUDY_DATA names a folder that has it, else the shipped digits. Budgets of the
architecture: a graph of 1,000 actors with all its modes and at least 50 single failures
within 0.5 s; 10,000 actors, and K_{8,128} of the vehicle network, within 10 s. Sizing a
graph by itself is to be interactive: 5 s for 1,000 actors. Times are of one process
that does nothing else; the best of a few runs, what the work takes undisturbed.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from math import lcm
from pathlib import Path

from dataflow.analysis import least_room
from dataflow.failures import failure_table
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from dataflow.rules import check
from dataflow.sizing import front
from dataflow.throughput import throughput
from tests.bench.models import make_plan, models
from understudy.machine import machine_facts

ROUNDS = 5
SHAPES = ((8, 22, 0.5), (14, 130, 10.0), (8, 128, 10.0))
"""Servers, endpoints, budget in seconds of the rules together with the failures."""
SIZED_S = 5.0


def best_s(what: Callable[[], object], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        what()
        times.append(time.perf_counter() - start_s)
    return min(times)


def random_graph(actors: int, extra: int, fires: tuple[int, ...]) -> Graph:
    """Return a seeded acyclic graph of one part, actors firing so often per iteration.

    Homogeneous ones are a chain with FIFOs beside it, others a tree with more of them.
    """
    rnd = random.Random(1)
    counts = [rnd.choice(fires) for _ in range(actors)]
    deep = len(fires) == 1
    pairs = [(i - 1 if deep else rnd.randrange(max(0, i - 10), i), i)
             for i in range(1, actors)]  # fmt: skip
    pairs += [tuple(sorted(rnd.sample(range(actors), 2))) for _ in range(extra)]
    ports: list[list[Port]] = [[] for _ in range(actors)]
    fifos = []
    for n, (a, b) in enumerate(pairs):
        both = lcm(counts[a], counts[b])
        ports[a].append(Port(f"o{n}", "out", rates=(both // counts[a],)))
        ports[b].append(Port(f"i{n}", "in", rates=(both // counts[b],)))
        fifos.append(Fifo(PortRef(f"n{a}", f"o{n}"), PortRef(f"n{b}", f"i{n}")))
    made = [
        Actor(f"n{i}", "x", tuple(listed), time=rnd.randrange(1, 50))
        for i, listed in enumerate(ports)
    ]
    return Graph("random", {actor.name: actor for actor in made}, tuple(fifos))


Row = tuple[str, float, float | None]


def deployed(model: str, servers: int, endpoints: int, budget_s: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.perf_counter()
        plan = make_plan(model, Path(folder), endpoints=endpoints, servers=servers)
        compiled_s = time.perf_counter() - start_s
    graph = plan.graph
    failed = len(failure_table(graph).rows) - 1
    both_s = best_s(lambda: (check(graph), failure_table(graph)))
    name = f"{model} K_{{{servers},{endpoints}}}, {len(graph.actors):,} actors"
    return [
        (f"{name}: all rules, all modes", best_s(lambda: check(graph)), None),
        (f"  and {failed:,} single failures", both_s, budget_s),
        ("  from files to a plan, once, rules included", compiled_s, None),
    ]


def by_itself(name: str, graph: Graph) -> list[Row]:
    sized = least_room(graph).capacities
    found = front(graph, one_at_a_time=True)
    first, last = found.points[0], found.points[-1]

    def pace() -> object:
        return throughput(graph, None, sized, one_at_a_time=True)

    return [
        (f"{name}, {len(graph.fifos):,} FIFOs: all rules", best_s(lambda: check(graph)),
         None),
        ("  capacities to be live", best_s(lambda: least_room(graph)), None),
        ("  exact throughput with them", best_s(pace), None),
        (f"  sizes: {first.total:,} (>= {first.at_least:,}) live, {last.total:,} "
         f"(>= {last.at_least:,}) for full throughput",
         best_s(lambda: front(graph, one_at_a_time=True), 3), SIZED_S),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = models()[-1]
    rows = [row for shape in SHAPES for row in deployed(model, *shape)]
    rows += by_itself("1,000 actors of rate 1", random_graph(1000, 300, (1,)))
    several = random_graph(1000, 400, (1, 2, 3, 4, 6))
    rows += by_itself("1,000 actors of several rates", several)
    for name, took_s, budget_s in rows:
        budget = f"budget {budget_s:g} s" if budget_s else ""
        print(f"{name:78}{took_s:8.3f} s  {budget}")
    if arguments.json:
        data = {"machine": machine_facts(), "s": {n: t for n, t, _ in rows}}
        arguments.json.write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
