"""The engine's own cost of firing an actor in a static chain.

Fifty actors that do nothing, fired by a `Chain` and by a bare loop of method calls over
the same objects, in interleaved rounds. The difference per actor is the engine's own:
taking and checking tokens, counters, two clock reads. Run it as

    python tests/bench/firing.py [--json FILE]
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from dataflow.behaviour import Behaviour, Site
from dataflow.engine import Chain
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef, TokenType

ACTORS = 50
ROUNDS = 60
ITERATIONS = 100
OWN_US_MAX = 1.0
TIMES_A_CALL_MAX = 30.0
TOKEN = TokenType("float32", (1, 16, 8, 8))
SITE = Site("here", "here", 0, Path(), None, 3)


class Pass(Behaviour):
    def fire(self, token):
        return token


class PassTwo(Behaviour):
    def fire(self, first, second):
        return first, second


def chain(behaviour: type[Behaviour], ports: int) -> tuple[Chain, list[Behaviour]]:
    """Return `ACTORS` actors in a row with `ports` FIFOs between neighbours."""
    names = [f"a{i}" for i in range(ACTORS)]
    lanes = range(ports)
    declared = (
        *(Port(f"in{k}", "in", TOKEN) for k in lanes),
        *(Port(f"out{k}", "out", TOKEN) for k in lanes),
    )
    fifos = tuple(
        Fifo(PortRef(a, f"out{k}"), PortRef(b, f"in{k}"))
        for a, b in pairwise(names)
        for k in lanes
    )
    graph = Graph("bench", {n: Actor(n, "pass", declared) for n in names}, fifos)
    behaviours = {name: behaviour({}, SITE) for name in names}
    inputs = [PortRef(names[0], f"in{k}") for k in lanes]
    outputs = [PortRef(names[-1], f"out{k}") for k in lanes]
    made = Chain(graph, names, behaviours, inputs, outputs)
    return made, list(behaviours.values())


def per_actor_us(loop: Callable[[], None]) -> float:
    start_ns = time.perf_counter_ns()
    loop()
    return (time.perf_counter_ns() - start_ns) / 1000 / ITERATIONS / ACTORS


def measure(behaviour: type[Behaviour], ports: int) -> dict[str, float]:
    engine, actors = chain(behaviour, ports)
    tokens = [np.zeros(TOKEN.shape, TOKEN.dtype) for _ in range(ports)]

    def fired() -> None:
        for _ in range(ITERATIONS):
            engine.run(tokens)

    def called() -> None:
        for _ in range(ITERATIONS):
            for actor in actors:
                actor.fire(*tokens)

    fired()
    called()
    rounds = [(per_actor_us(fired), per_actor_us(called)) for _ in range(ROUNDS)]
    own = [with_engine - bare for with_engine, bare in rounds]
    calls = [bare for _, bare in rounds]
    return {
        "own_us_median": statistics.median(own),
        "own_us_min": min(own),
        "call_us_median": statistics.median(calls),
        "call_us_min": min(calls),
        "times_a_call_median": statistics.median(a / b for a, b in rounds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, {ROUNDS} rounds")
    figures = {"1 port": measure(Pass, 1), "2 ports": measure(PassTwo, 2)}
    kept = True
    for name, figure in figures.items():
        own, times = figure["own_us_median"], figure["times_a_call_median"]
        kept = kept and own <= OWN_US_MAX and times <= TIMES_A_CALL_MAX
        print(
            f"{name}: own {own:.2f} us median, {figure['own_us_min']:.2f} min "
            f"(budget {OWN_US_MAX}); {times:.1f} x a bare call of "
            f"{figure['call_us_median']:.3f} us (budget {TIMES_A_CALL_MAX:.0f})"
        )
    print("within the budgets" if kept else "OVER a budget")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
