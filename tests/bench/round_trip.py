"""Round trip of a token between two devices, against a bare pyzmq copy echo.

    python -m tests.bench.round_trip [--pairs 3] [--batches 40] [--json FILE]

Two processes on loopback. Each runs a device, whole and unchanged, and beside it a bare
socket: DEALER sends the array and waits, ROUTER sends back what came (copies, no
header). Batches of round trips alternate: device, bare, bare again, in changing order.
A round trip of the device begins when the source has fired and ends in the sink: fork,
TX, link, RX, an actor that hands on its token, link, join. The actor runs in the
server's I/O loop (`inline`) or on its compute thread (`handed off`). With `CURVE` both
devices have keys and the actor runs inline; beside them stand the bare socket without
keys and one with.

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
from dataflow.wire.keys import Keys, load_keys, new_keys
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
    Other,
    asked,
    device,
    run_pair,
    tell,
)
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

MODULE = "tests.bench.round_trip"
KINDS = ("inline", "handed off", "CURVE")
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


def make_plan(folder: Path, size: int, *, handed_off: bool, curve: bool) -> None:
    """Write the plan, its toy actors replaced by ours, and its keys."""
    keys = folder / "keys" if curve else None
    if keys is not None:
        for name in ("cam.0", "edge.0"):
            new_keys(keys, name)
    plan = toy_plan(
        folder,
        port=free_ports(1),
        servers=1,
        size=size,
        window=1,
        deadline_ms=5000,
        local=False,
        keys=keys,
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


def echo(port: str, keys: Keys | None = None) -> None:
    """Send back what comes on `port`, for ever."""
    router = zmq.Context().socket(zmq.ROUTER)
    if keys is not None:
        router.curve_server = True
        router.curve_publickey, router.curve_secretkey = keys.public, keys.secret
    router.bind(f"tcp://127.0.0.1:{port}")
    while True:
        router.send_multipart(router.recv_multipart())


def bare(payload: Any, port: str, keys: Keys | None = None) -> Other:
    """Return what sends `payload` to an `echo` and waits, again and again."""
    socket = zmq.Context().socket(zmq.DEALER)
    if keys is not None:
        (socket.curve_serverkey,) = keys.peers["edge.0"]
        socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.connect(f"tcp://127.0.0.1:{port}")

    def run(trips: int) -> list[float]:
        latencies = []
        for _ in range(trips):
            start_s = clock_s()
            socket.send(payload)
            socket.recv()
            latencies.append(clock_s() - start_s)
        return latencies

    return run


def serve(folder: str, _size: str, *ports: str) -> None:
    """Be the server: the device, and beside it the bare echoes."""
    plan = read_plan(Path(folder))
    found = [None] if plan.keys is None else [None, load_keys(plan.keys, "edge.0")]
    for port, keys in zip(ports, found, strict=True):
        threading.Thread(target=echo, args=(port, keys), daemon=True).start()
    device(plan, "edge.0", ACTORS.__getitem__).run()


def call(server: str, batches: str, folder: str, size: str, *ports: str) -> None:
    """Be the endpoint: run all batches, tell them."""
    plan = read_plan(Path(folder))
    payload = np.ones(int(size), np.float32)
    plain = bare(payload, ports[0])
    others = [plain, plain]
    if plan.keys is not None:
        others.append(bare(payload, ports[1], load_keys(plan.keys, "cam.0")))
    driver = Driver(
        others,
        server=int(server),
        frames=TRIPS[4 * int(size)],
        batches=int(batches),
    )
    driver.run(device(plan, "cam.0", ACTORS.__getitem__))
    tell(driver)


def measure(bytes_: int, kind: str, pairs: int, batches: int) -> list[Figure]:
    """Return the figures over all batches of several pairs of processes."""
    every = []
    curve = kind == "CURVE"
    with tempfile.TemporaryDirectory() as folder:
        make_plan(
            Path(folder), bytes_ // 4, handed_off=kind == "handed off", curve=curve
        )
        for _ in range(pairs):
            first = free_ports(2 if curve else 1)
            ports = [first, first + 1] if curve else [first]
            every.append(run_pair(MODULE, [folder, bytes_ // 4, *ports], batches))
    p50s = [median_ratio(o.p50, b.p50, a.p50) for o, b, a, *_ in every]
    ours, plain, again, *keyed = (
        sum(variant, Batches()) for variant in zip(*every, strict=True)
    )
    more_s = statistics.median(ours.p50) - statistics.median(plain.p50)
    budgets = BUDGETS.get((bytes_, kind), {})
    return [
        Figure("A/A p50", median_ratio(plain.p50, again.p50), "x"),
        Figure("A/A CPU", median_ratio(plain.cpu, again.cpu), "x"),
        Figure("bare p50", 1e6 * statistics.median(plain.p50), "us"),
        Figure("bare CPU", 1e6 * statistics.median(plain.cpu), "us"),
        Figure(
            "p50", median_ratio(ours.p50, plain.p50, again.p50), "x", budgets.get("p50")
        ),
        Figure("p50, lowest pair", min(p50s), "x"),
        Figure("p50, highest pair", max(p50s), "x"),
        Figure("p50, difference", 1e6 * more_s, "us"),
        Figure("whole", median_ratio(ours.whole, plain.whole, again.whole), "x"),
        Figure(
            "CPU", median_ratio(ours.cpu, plain.cpu, again.cpu), "x", budgets.get("CPU")
        ),
        *(figure for each in keyed for figure in with_keys(ours, each, plain)),
    ]


def with_keys(ours: Batches, keyed: Batches, plain: Batches) -> list[Figure]:
    """Return what a bare socket with keys costs, and ours against it."""
    return [
        Figure("bare with CURVE, p50", median_ratio(keyed.p50, plain.p50), "x"),
        Figure("bare with CURVE, CPU", median_ratio(keyed.cpu, plain.cpu), "x"),
        Figure("p50 against bare with CURVE", median_ratio(ours.p50, keyed.p50), "x"),
        Figure("CPU against bare with CURVE", median_ratio(ours.cpu, keyed.cpu), "x"),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--bytes", type=int, choices=TRIPS, action="append")
    parser.add_argument("--kind", choices=KINDS, action="append")
    chosen = parser.parse_args()
    print(conditions("endpoint", "server"))
    tables = {}
    for bytes_ in chosen.bytes or TRIPS:
        for kind in chosen.kind or KINDS:
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
