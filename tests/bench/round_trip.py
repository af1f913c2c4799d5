"""Round trip of a token between two devices, against a bare pyzmq copy echo.

    python -m tests.bench.round_trip [--pairs 3] [--batches 40] [--json FILE]

Two processes on loopback. Each runs a device, whole and unchanged, and beside it a bare
socket: DEALER sends the array and waits, ROUTER sends back what came (copies, no
header). Batches of round trips alternate: device, bare, bare again, in changing order.
A round trip of the device begins when the source has fired and ends in the sink: fork,
TX, link, RX, an actor that hands on its token, link, join. The actor runs in the
server's I/O loop (`inline`) or on its compute thread (`handed off`).

`p50` compares the medians of the batches, `whole` the batches' times, from one firing
of the source to the next, `CPU` the CPU time of both processes. Each figure is the
median over the batches of ours / bare. Which cores the threads of a pair of processes
meet on changes what a wake-up costs, and so the ratio; so the batches come from several
pairs, and the lowest and highest pair are shown too. The difference changes less.
"""

import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from dataflow.behaviour import Behaviour, Params, Site, Source
from dataflow.clock import now_s as clock_s
from dataflow.executor import HAND_OFF_S, TRIALS
from dataflow.graph import Port, TokenType
from dataflow.plan import read_plan, write_plan
from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    median_ratio,
    show,
    warn_if_void,
    write,
)
from tests.bench.side_by_side import (
    CALL,
    NEVER_HZ,
    SERVE,
    Asked,
    Batches,
    Driver,
    asked,
    device,
    run_pair,
    tell,
)
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

MODULE = "tests.bench.round_trip"
TRIPS = {1_000: 200, 150_000: 100, 1_200_000: 15}
"""Token bytes -> round trips per batch: short enough that no link grows suspicious."""
BUDGETS = {
    (150_000, "inline"): {"p50": 1.20, "CPU": 1.25},
    (150_000, "handed off"): {"p50": 1.5},
}
SLOW_S = 2 * HAND_OFF_S
"""What the tail takes while it is tried, so that it is handed off."""


class Camera(Source):
    """Shows the same frame again and again."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (Port("out", "out", TokenType("float32", (params["size"],))),)

    def start(self) -> None:
        self._frame = np.ones(self.params["size"], np.float32)

    def fire(self, *tokens: Any) -> Any:
        return self._frame


class Pass(Behaviour):
    """Hands on its token; slow while it is timed, if it is to be handed off."""

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._slow = TRIALS if params["handed_off"] else 0

    def fire(self, *tokens: Any) -> Any:
        if self._slow:
            self._slow -= 1
            time.sleep(SLOW_S)
        return tokens[0]


ACTORS: dict[str, type[Behaviour]] = {
    "camera": asked(Camera),
    "pass": Pass,
    "asked": Asked,
}


def make_plan(folder: Path, size: int, *, handed_off: bool) -> None:
    """Write the plan, its toy actors replaced by ours."""
    plan = toy_plan(
        folder,
        port=free_ports(1),
        servers=1,
        size=size,
        window=1,
        deadline_ms=5000,
        local=False,
    )
    ours = {
        "camera[cam.0]": "camera",
        "tail[cam.0]@edge.0": "pass",
        "result[cam.0]": "asked",
    }
    params = {"size": size, "rate_hz": NEVER_HZ, "handed_off": handed_off}
    actors = {
        name: replace(actor, type=ours[name], params=params) if name in ours else actor
        for name, actor in plan.graph.actors.items()
    }
    write_plan(replace(plan, graph=replace(plan.graph, actors=actors)))


def serve(folder: str, port: str, _size: str) -> None:
    """Be the server: the device, and beside it the bare echo."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port}")

    def echo() -> None:
        while True:
            router.send_multipart(router.recv_multipart())

    threading.Thread(target=echo, daemon=True).start()
    device(read_plan(Path(folder)), "edge.0", ACTORS.__getitem__).run()


def call(server: str, batches: str, folder: str, port: str, size: str) -> None:
    """Be the endpoint: run all batches, tell them."""
    payload: Any = np.ones(int(size), np.float32)
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{port}")

    def bare(trips: int) -> list[float]:
        latencies = []
        for _ in range(trips):
            start_s = clock_s()
            socket.send(payload)
            socket.recv()
            latencies.append(clock_s() - start_s)
        return latencies

    driver = Driver(
        [bare, bare],
        server=int(server),
        frames=TRIPS[4 * int(size)],
        batches=int(batches),
    )
    driver.run(device(read_plan(Path(folder)), "cam.0", ACTORS.__getitem__))
    tell(driver)


def measure(bytes_: int, kind: str, pairs: int, batches: int) -> list[Figure]:
    """Return the figures over all batches of several pairs of processes."""
    every = []
    with tempfile.TemporaryDirectory() as folder:
        make_plan(Path(folder), bytes_ // 4, handed_off=kind == "handed off")
        for _ in range(pairs):
            given = [folder, free_ports(1), bytes_ // 4]
            every.append(run_pair(MODULE, given, batches))
    p50s = [median_ratio(o.p50, b.p50, a.p50) for o, b, a in every]
    ours, bare, again = (
        sum(variant, Batches()) for variant in zip(*every, strict=True)
    )
    more_s = statistics.median(ours.p50) - statistics.median(bare.p50)
    budgets = BUDGETS.get((bytes_, kind), {})
    return [
        Figure("A/A p50", median_ratio(bare.p50, again.p50), "x"),
        Figure("A/A CPU", median_ratio(bare.cpu, again.cpu), "x"),
        Figure("bare p50", 1e6 * statistics.median(bare.p50), "us"),
        Figure("bare CPU", 1e6 * statistics.median(bare.cpu), "us"),
        Figure(
            "p50", median_ratio(ours.p50, bare.p50, again.p50), "x", budgets.get("p50")
        ),
        Figure("p50, lowest pair", min(p50s), "x"),
        Figure("p50, highest pair", max(p50s), "x"),
        Figure("p50, difference", 1e6 * more_s, "us"),
        Figure("whole", median_ratio(ours.whole, bare.whole, again.whole), "x"),
        Figure(
            "CPU", median_ratio(ours.cpu, bare.cpu, again.cpu), "x", budgets.get("CPU")
        ),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--bytes", type=int, choices=TRIPS, action="append")
    parser.add_argument("--kind", choices=["inline", "handed off"], action="append")
    chosen = parser.parse_args()
    print(conditions("endpoint", "server"))
    tables = {}
    for bytes_ in chosen.bytes or TRIPS:
        for kind in chosen.kind or ("inline", "handed off"):
            title = (
                f"{bytes_} B, {kind}: {chosen.pairs} pairs of processes, each "
                f"{chosen.batches} batches of {TRIPS[bytes_]} trips"
            )
            tables[title] = measure(bytes_, kind, chosen.pairs, chosen.batches)
            show(title, tables[title])
            warn_if_void(tables[title][0].value)
    write(chosen.json, tables)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [flag, *given] if flag == SERVE:
            serve(*given)
        case [flag, *given] if flag == CALL:
            call(*given)
        case _:
            main()
