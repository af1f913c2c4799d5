"""How long `check` takes: every rule, mode and single failure of deployed K_{m,n}.

    python tests/bench/check.py [--json FILE]

Budget of the architecture: a graph of 1,000 actors with all its modes and at least 50
single failures within 0.5 s, K_{8,128} with all single failures within 10 s.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from dataflow.analysis import capacities
from dataflow.failures import failure_table
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from dataflow.rules import check
from dataflow.throughput import throughput
from tests.support.toy_plan import toy_plan
from understudy.machine import machine_facts

ROUNDS = 5
SHAPES = ((1, 200, 0.5), (12, 15, 0.5), (8, 128, 10.0), (10, 200, 10.0))
"""Endpoints, servers, budget in seconds; of the failures together with the rules."""


def best_s(what: Callable[[], object]) -> float:
    """Return the shortest of a few runs: what the work takes on an undisturbed core."""
    times = []
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        what()
        times.append(time.perf_counter() - start_s)
    return min(times)


def random_graph(actors: int, extra: int) -> Graph:
    """Return a homogeneous chain with random forward FIFOs beside it, seeded."""
    rnd = random.Random(1)
    pairs = [(i, i + 1) for i in range(actors - 1)]
    pairs += [
        (a, b) for a, b in (sorted(rnd.sample(range(actors), 2)) for _ in range(extra))
    ]
    ports: dict[int, list[Port]] = {i: [] for i in range(actors)}
    fifos = []
    for number, (a, b) in enumerate(pairs):
        ports[a].append(Port(f"o{number}", "out"))
        ports[b].append(Port(f"i{number}", "in"))
        ends = PortRef(f"n{a}", f"o{number}"), PortRef(f"n{b}", f"i{number}")
        fifos.append(Fifo(*ends))
    made = {
        f"n{i}": replace(Actor(f"n{i}", "x", tuple(p)), time=rnd.randrange(1, 50))
        for i, p in ports.items()
    }
    return Graph("random", made, tuple(fifos))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for endpoints, servers, budget_s in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            graph = toy_plan(
                Path(folder), port=7000, endpoints=endpoints, servers=servers
            ).graph
        took_s = best_s(lambda graph=graph: check(graph))
        name = f"check K_{{{endpoints},{servers}}}, {len(graph.actors):,} actors"
        rows.append((name, took_s, budget_s))
        took_s = best_s(lambda graph=graph: (check(graph), failure_table(graph)))
        fail = len(failure_table(graph).rows) - 1
        rows.append((f"  and {fail:,} single failures", took_s, budget_s))
    graph = random_graph(1000, 300)
    sized = capacities(graph)
    took_s = best_s(lambda: throughput(graph, None, sized, one_at_a_time=True))
    rows.append(("exact throughput, 1,000 homogeneous actors", took_s, None))
    for name, took_s, budget_s in rows:
        budget = f"budget {budget_s:g} s" if budget_s else ""
        print(f"{name:46}{took_s:9.3f} s  {budget}")
    if arguments.json:
        data = {"machine": machine_facts(), "s": {n: t for n, t, _ in rows}}
        arguments.json.write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
