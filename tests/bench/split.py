"""A split model over two processes, against a hand-written script of the same split.

    python -m tests.bench.split [--pairs 3] [--batches 30] [--json FILE]

Each process runs a device, whole but for its source and sink, and a script as one would
write it: the plan's own segments in plain onnxruntime sessions with one thread that
does not spin, ``session.run``, and pyzmq with copies, without header, heartbeat or
deadline. Both make the network's input with the same actor. Batches of frames
alternate: device, script, script again.

`latency` is the median from a picture to its answer with one frame under way, `time`
that of a whole frame with several under way, as many as the plan's window; both as ours
/ script, median over the batches.

The models are the shipped digits (a split of microseconds: it shows what a frame costs
us, not what splitting costs) and, if UNDERSTUDY_DATA names a folder that has them, the
vehicle CNN (2 ms), MobileNetV2 and YOLOX-Nano (tens of ms), each cut where `understudy
explore` recommends.
"""

import statistics
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import zmq

import actors
from actors.images import Images
from dataflow.behaviour import Behaviour, Site
from dataflow.clock import now_s as clock_s
from dataflow.graph import Actor
from dataflow.plan import SEGMENTS, Plan, read_plan
from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    median_ratio,
    show,
    warn_if_void,
    write,
)
from tests.bench.models import make_split, networks
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
from understudy.launch import free_ports

MODULE = "tests.bench.split"
BUDGET = 1.05
FRAMES = {"digits": 100, "vehicle": 10, "mobilenet": 4, "yolox": 4}
CAMERA, PREP, HEAD = "camera[cam.0]", "prep[cam.0]", "net.head[cam.0]"
TAIL = "net.tail[cam.0]@edge.0"
OURS: dict[str, type[Behaviour]] = {"images": asked(Images), "results": Asked}


def library(name: str) -> type[Behaviour]:
    return OURS.get(name) or actors.behaviour(name)


def session(plan: Plan, actor: str) -> onnxruntime.InferenceSession:
    """Return a session of the segment that `actor` runs, as a script would make it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    sha256 = plan.graph.actors[actor].params["segment"]
    path = plan.folder / SEGMENTS / f"{sha256}.onnx"
    return onnxruntime.InferenceSession(str(path), options)


def start(plan: Plan, actor: Actor) -> Behaviour:
    site = Site("script", "script", 0, plan.folder, None, 6)
    behaviour = actors.behaviour(actor.type)(actor.params, site)
    behaviour.start()
    return behaviour


def crossing(plan: Plan, actor: str) -> tuple[str, tuple[int, ...]]:
    """Return name and shape of the tensor that `actor`, a tail, takes."""
    inputs: Any = plan.graph.actors[actor].params["inputs"]
    name, _dtype, shape = inputs[0]
    return name, tuple(shape)


def serve(folder: str, port: str, _window: str, _frames: str) -> None:
    """Be the server: the device, and beside it the script's half."""
    plan = read_plan(Path(folder))
    tail = session(plan, TAIL)
    name, shape = crossing(plan, TAIL)
    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{port}")

    def answer() -> None:
        while True:
            route, token = router.recv_multipart()
            tensor = np.frombuffer(token, np.float32).reshape(shape)
            (value,) = tail.run(None, {name: tensor})
            router.send_multipart([route, value])

    threading.Thread(target=answer, daemon=True).start()
    device(plan, "edge.0", library).run()


def call(
    server: str, batches: str, folder: str, port: str, window: str, frames: str
) -> None:
    """Be the endpoint: run all batches, tell them."""
    plan = read_plan(Path(folder))
    head, crosses = session(plan, HEAD), crossing(plan, TAIL)[0]
    taken = head.get_inputs()[0].name
    camera = start(plan, plan.graph.actors[CAMERA])
    prep = start(plan, plan.graph.actors[PREP])
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(f"tcp://127.0.0.1:{port}")

    def script(count: int) -> list[float]:
        latencies: list[float] = []
        started: deque[float] = deque()
        sent = 0
        while len(latencies) < count:
            while sent < count and len(started) < int(window):
                made = camera.fire()
                picture = made[0] if isinstance(made, tuple) else made
                started.append(clock_s())
                (token,) = head.run([crosses], {taken: prep.fire(picture)})
                socket.send(token)
                sent += 1
            np.frombuffer(socket.recv(), np.float32).argmax()
            latencies.append(clock_s() - started.popleft())
        return latencies

    driver = Driver(
        [script, script],
        server=int(server),
        frames=int(frames),
        batches=int(batches),
        window=int(window),
    )
    driver.run(device(plan, "cam.0", library))
    tell(driver)


def measure(
    model: str, window: int, pairs: int, batches: int, folder: Path
) -> tuple[Batches, ...]:
    """Return ours, the script and the script again, over several pairs."""
    every = [
        run_pair(MODULE, [folder, free_ports(1), window, FRAMES[model]], batches)
        for _ in range(pairs)
    ]
    return tuple(sum(variant, Batches()) for variant in zip(*every, strict=True))


def figures(model: str, pairs: int, batches: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        plan = make_split(model, Path(name), camera={"rate_hz": NEVER_HZ})
        window = plan.graph.regions[0].window
        one = measure(model, 1, pairs, batches, plan.folder)
        several = measure(model, window, pairs, batches, plan.folder)
    ours, script, again = one
    more_s = statistics.median(ours.p50) - statistics.median(script.p50)
    found = [
        Figure("A/A latency", median_ratio(script.p50, again.p50), "x"),
        Figure("script latency", 1e3 * statistics.median(script.p50), "ms"),
        Figure("latency", median_ratio(ours.p50, script.p50, again.p50), "x", BUDGET),
        Figure("latency, difference", 1e6 * more_s, "us"),
        Figure("CPU", median_ratio(ours.cpu, script.cpu, again.cpu), "x"),
    ]
    ours, script, again = several
    return [
        *found,
        Figure("A/A time", median_ratio(script.whole, again.whole), "x"),
        Figure("script time, several under way", 1e3 * statistics.median(script.whole),
               "ms"),
        Figure("time, several under way",
               median_ratio(ours.whole, script.whole, again.whole), "x", BUDGET),
    ]  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--model", choices=networks(), action="append")
    chosen = parser.parse_args()
    print(conditions("endpoint", "server"))
    tables: dict[str, Any] = {}
    for model in chosen.model or networks():
        title = (
            f"{model}: {chosen.pairs} pairs of processes, each {chosen.batches} "
            f"batches of {FRAMES[model]} frames"
        )
        tables[title] = figures(model, chosen.pairs, chosen.batches)
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
