"""Batches against single tokens: K_{1,n}, and more to do than one server can.

    python -m tests.bench.batching [--endpoints 1 2 4 8] [--rounds 3] [--json FILE]

One server computes a tail for n endpoints, each a process that sends ready-made
features at a fixed pace, so that the endpoints cost little and the server is what is
short. The server has a core of its own, the endpoints share the others. `alone` is
batch_max 1, `batch` 8 without a wait, `wait` 8 with one of 1 ms; they take turns, and
figures are medians over the rounds: frames answered in full per second, the server's
CPU time per answered frame, and the latency of what was answered.

`kernel` is onnxruntime alone, without a device around it: the time of a token in a call
of 8 against that of one, which is the most that batches can give on this processor.

Models: the tail of the shipped digits; and, if UNDERSTUDY_DATA names a folder that has
them, the dense tail of the vehicle CNN (7.4 MB of weights are read for each call) and
a whole ResNet-20 (convolutions, which one core computes no faster in batches).
"""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Params, Site, Source
from dataflow.graph import Port, TokenType
from dataflow.plan import Plan
from graphs.batching import batched
from graphs.onnx_model import Model
from graphs.split import Segment, split, whole
from tests.bench.common import Figure, arguments, conditions, show, write
from tests.bench.models import DIGITS
from tests.bench.topologies import started, used_s
from tests.support.run import played
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.run_folder import read_run

BATCH, WAIT_MS = 8, 1.0
SETTLE_S, KERNEL_TRIALS = 1.0, 30
VARIANTS: Mapping[str, str] = {
    "alone": "",
    "batch": f", batch_max: {BATCH}",
    "wait": f", batch_max: {BATCH}, batch_wait_ms: {WAIT_MS}",
}
MODELS: Mapping[str, tuple[str, str, int]] = {
    "digits tail": ("digits.onnx", "features2", 1000),
    "vehicle dense tail": ("vehicle_cnn_4.onnx", "/MaxPool_1_output_0", 600),
    "resnet20": ("resnet20_cifar10.onnx", "", 300),
}
"""Name -> file, cut, frames/s of each endpoint."""
GRAPH = """
understudy: 1
graph: tails
actors:
  features: {{type: "tests.bench.batching:Features", rate_hz: {rate}, token: "{token}"}}
  net: {{type: onnx, model: tail.onnx}}
  result: {{type: results}}
fifos:
  - features.out -> net.{input}
  - net.{output} -> result.answer
"""
DEPLOYMENT = """
understudy: 1
deployment: batching
graph: graph.yaml
devices:
  cam: {{role: endpoint, count: {endpoints}}}
  edge: {{role: server, listen: "tcp://127.0.0.1:{port}"{batching}}}
map: {{features: cam, net: edge, result: cam}}
failover: {{order: [net], deadline_ms: 1000, window: 16}}
"""


class Features(Source):
    """Emits one of a few random tokens."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (Port("out", "out", TokenType.parse(params["token"])),)

    def start(self) -> None:
        token = TokenType.parse(self.params["token"])
        random = np.random.default_rng(1)
        shape = (4, *token.shape)
        self._tokens = random.standard_normal(shape).astype(token.dtype)
        self._fired = 0

    def fire(self) -> NDArray[Any]:
        self._fired += 1
        kept: NDArray[Any] = self._tokens[self._fired % 4]
        return kept


@dataclass
class Samples:
    answered_hz: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)


def models() -> list[str]:
    return [name for name, (file, _, _) in MODELS.items() if _path(file).is_file()]


def _path(file: str) -> Path:
    shipped = DIGITS.parent / file
    if shipped.is_file():
        return shipped
    return Path(os.environ.get("UNDERSTUDY_DATA", "")) / "models" / file


def segment(name: str) -> Segment:
    file, cut, _ = MODELS[name]
    model = Model.read(_path(file))
    return split(model, [cut], list(model.outputs)).tail if cut else whole(model)


def make_plan(name: str, folder: Path, endpoints: int, batching: str) -> Plan:
    part, rate = segment(name), MODELS[name][2]
    (folder / "tail.onnx").write_bytes(part.data)
    params = {
        "file": "tail.onnx",
        "inputs": [t.json() for t in part.inputs],
        "outputs": [t.json() for t in part.outputs],
    }
    port_in, port_out = (port.name for port in OnnxSegment.ports(params))
    token = part.inputs[0].token
    graph = GRAPH.format(rate=rate, token=token, input=port_in, output=port_out)
    (folder / "graph.yaml").write_text(graph)
    path = folder / "deployment.yaml"
    path.write_text(
        DEPLOYMENT.format(endpoints=endpoints, port=free_ports(1), batching=batching)
    )
    return compile_deployment(path, folder / "plan")


def add_run(
    samples: Samples, name: str, endpoints: int, batching: str, seconds: float
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plan = make_plan(name, folder, endpoints, batching)
        run_folder = folder / "run"
        run_folder.mkdir()
        cams = [d for d in plan.devices if d != "edge"]
        with played(plan, run_folder, start=[]) as run:
            try:  # what is started inherits where it may run
                os.sched_setaffinity(0, cores[-1:])
                run.launcher.start("edge")
                os.sched_setaffinity(0, cores[:-1] or cores)
                for cam in cams:
                    run.launcher.start(cam)
            finally:
                os.sched_setaffinity(0, cores)
            for cam in cams:
                run.wait_event(cam, "stream.started")
            time.sleep(SETTLE_S)
            pids = started(run_folder)
            start_s, before = time.monotonic(), used_s(pids)
            time.sleep(seconds)
            end_s, after = time.monotonic(), used_s(pids)
        answered = [
            result
            for stream in read_run(run_folder).streams
            for result in stream.results
            if start_s <= result.settled_s < end_s and result.status == "full"
        ]
    samples.answered_hz.append(len(answered) / (end_s - start_s))
    used_ms = 1e3 * (after["edge"] - before["edge"])
    samples.server_ms.append(used_ms / max(len(answered), 1))
    samples.latency_ms.append(statistics.median(r.latency_ms for r in answered))


def kernel(name: str) -> list[Figure]:
    """Return what onnxruntime alone takes per token, in a batch against one by one."""
    part = batched(segment(name), BATCH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tail.onnx"
        file.write_bytes(part.data)
        params = {
            "file": str(file),
            "inputs": [t.json() for t in part.inputs],
            "outputs": [t.json() for t in part.outputs],
        }
        site = Site("bench", "bench", 0, Path(folder), None, BATCH + 1, BATCH)
        made = OnnxSegment(params, site)
        made.start()
        random = np.random.default_rng(1)
        tokens = [
            tuple(random.random(t.token.shape, np.float32) for t in part.inputs)
            for _ in range(BATCH)
        ]
        alone, together = [], []
        for _ in range(KERNEL_TRIALS):
            start_s = time.perf_counter()
            for token in tokens:
                made.fire(*token)
            middle_s = time.perf_counter()
            made.fire_many(tokens)
            alone.append((middle_s - start_s) / BATCH)
            together.append((time.perf_counter() - middle_s) / BATCH)
        made.stop()
    ratios = [a / t for a, t in zip(alone, together, strict=True)]
    return [
        Figure("kernel, alone", 1e3 * statistics.median(alone), "ms"),
        Figure(f"kernel, batch of {BATCH}", 1e3 * statistics.median(together), "ms"),
        Figure("kernel, gain", statistics.median(ratios), "x"),
    ]


def figures(every: Mapping[str, Samples]) -> list[Figure]:
    alone = every["alone"]
    found = []
    for variant, samples in every.items():
        rate = statistics.median(samples.answered_hz)
        found += [
            Figure(f"{variant}: answered", rate, "/s"),
            Figure(
                f"{variant}: server CPU", statistics.median(samples.server_ms), "ms"
            ),
            Figure(f"{variant}: latency", statistics.median(samples.latency_ms), "ms"),
        ]
        if variant != "alone":
            found += [
                Figure(
                    f"{variant} / alone, answered",
                    _ratio(samples.answered_hz, alone.answered_hz),
                    "x",
                ),
                Figure(
                    f"{variant} / alone, CPU",
                    _ratio(samples.server_ms, alone.server_ms),
                    "x",
                ),
            ]
    return found


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--model", nargs="+", choices=models(), default=models())
    chosen = parser.parse_args()
    print(conditions("edge", *(f"cam.{i}" for i in range(max(chosen.endpoints)))))
    tables: dict[str, list[Figure]] = {}
    for name in chosen.model:
        tables[name] = kernel(name)
        show(f"{name}, onnxruntime alone", tables[name])
        for endpoints in chosen.endpoints:
            every = {variant: Samples() for variant in VARIANTS}
            for _ in range(chosen.rounds):
                for variant, samples in every.items():
                    add_run(samples, name, endpoints, VARIANTS[variant], chosen.seconds)
            title = (
                f"{name}, K_1,{endpoints}: {MODELS[name][2]} frames/s each, "
                f"{chosen.rounds} x {chosen.seconds:g} s"
            )
            tables[title] = figures(every)
            show(title, tables[title])
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
