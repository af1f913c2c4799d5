"""What an ONNX actor's own memory costs or saves: a bound segment against session.run.

    python -m tests.bench.segments [--rounds N] [--json FILE]

Both run one and the same session, turn and turn about, the first of a pair changing
every round; a figure is the median of the ratios of the pairs. `A/A` pairs session.run
with itself: when it is not near 1.00 the machine was too busy and the run says nothing.

Models: the shipped digits network, and a generated stack of convolutions and its first
layer alone. If UNDERSTUDY_DATA names a folder with `models/`, those that it has of
vehicle_cnn_4, resnet20_cifar10 and mobilenet_v2, and the first tensor of 1 MB or more
in the last.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Site

SEED = 1
SLOTS = 6
ROOT = Path(__file__).parents[2]
MODELS = (
    "vehicle_cnn_4.onnx",
    "resnet20_cifar10.onnx",
    "mobilenet_v2_1.0_224_imagenet.onnx",
)
LONG_MS = 3.0
LONG_BUDGET = 1.01
LARGE_BYTES = 1_000_000
LARGE_BUDGET = 0.98
AGAIN_LIMITS = (0.98, 1.02)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    path: Path
    inputs: list[tuple[str, str, list[int]]]
    outputs: list[tuple[str, str, list[int]]]
    head: bool = False
    """The first layers of a network: short, with a large output."""

    @property
    def output_bytes(self) -> int:
        return sum(int(np.prod(shape)) * 4 for _, _, shape in self.outputs)


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    output_bytes: int
    run_ms: float
    """Median of session.run."""
    again: float
    """session.run against itself: median of the pairs' ratios."""
    chained: float
    """The segment, fed by an upstream ring of its own length, against session.run."""
    received: float
    """The segment, fed by memory that is another each time, against session.run."""
    budget: float | None
    """For `chained`."""

    @property
    def verdict(self) -> str:
        if not AGAIN_LIMITS[0] <= self.again <= AGAIN_LIMITS[1]:
            return "void"
        if self.budget is None:
            return "-"
        return "ok" if self.chained <= self.budget else "OVER"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "seed": SEED,
        "rounds": options.rounds,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(
        f"{'model':<34}{'out kB':>8}{'run ms':>9}{'A/A':>7}{'chained':>9}"
        f"{'received':>10}{'budget':>8}"
    )
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            figure = measure(case, Path(folder), options.rounds)
            figures.append(figure)
            budget = f"{figure.budget:.2f}" if figure.budget else "-"
            print(
                f"{figure.name:<34}{figure.output_bytes / 1e3:>8.1f}"
                f"{figure.run_ms:>9.3f}{figure.again:>7.3f}{figure.chained:>9.3f}"
                f"{figure.received:>10.3f}{budget:>8}  {figure.verdict}"
            )
    if options.json:
        report = {
            "machine": machine,
            "figures": [{**asdict(f), "verdict": f.verdict} for f in figures],
        }
        options.json.write_text(json.dumps(report, indent=1))
    return int(any(f.verdict == "OVER" for f in figures))


def cases(folder: Path) -> Iterator[Case]:
    """Yield every model that is to be had."""
    yield whole(ROOT / "graphs" / "digits" / "digits.onnx")
    yield whole(convolutions(folder / "conv_head.onnx", layers=1), head=True)
    yield whole(convolutions(folder / "conv_stack.onnx", layers=6))
    data = os.environ.get("UNDERSTUDY_DATA")
    if not data:
        print("(UNDERSTUDY_DATA is not set: without the large models)", file=sys.stderr)
        return
    for name in MODELS:
        path = Path(data) / "models" / name
        if not path.exists():
            print(f"({path}: not there, left out)", file=sys.stderr)
            continue
        yield whole(path)
        if name == MODELS[-1]:
            yield whole(large_head(path, folder), head=True)


def whole(path: Path, *, head: bool = False) -> Case:
    """Return `path` with batch size 1 and all its outputs."""
    session = onnxruntime.InferenceSession(str(path), quiet())
    shapes = [
        [n if isinstance(n, int) else 1 for n in node.shape]
        for node in session.get_inputs()
    ]
    names = [node.name for node in session.get_inputs()]
    rng = np.random.default_rng(SEED)
    feed = {
        name: rng.random(shape, np.float32)
        for name, shape in zip(names, shapes, strict=True)
    }
    outputs = [node.name for node in session.get_outputs()]
    values = session.run(outputs, feed)
    return Case(
        path.stem,
        path,
        [(n, "float32", s) for n, s in zip(names, shapes, strict=True)],
        [(n, "float32", [*v.shape]) for n, v in zip(outputs, values, strict=True)],
        head,
    )


def convolutions(path: Path, layers: int) -> Path:
    """Write 3x3 convolutions on 3 x 112 x 112; one alone answers with 1.6 MB."""
    rng = np.random.default_rng(SEED)
    nodes, weights, tensor, channels = [], [], "image", 3
    for layer in range(layers):
        weight = rng.normal(0, 0.1, (32, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes += [
            helper.make_node(
                "Conv", [tensor, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]),
        ]
        tensor, channels = f"r{layer}", 32
    side = 112
    if layers > 1:
        nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["mean"]))
        tensor, side = "mean", 1
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)
        for n, shape in (("image", [1, 3, 112, 112]), (tensor, [1, 32, side, side]))
    ]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def large_head(path: Path, folder: Path) -> Path:
    """Write the part of a model up to its first activation of 1 MB or more."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    made = {info.name: info for info in model.graph.value_info}
    follows_conv = False
    for node in model.graph.node:
        follows_conv = follows_conv or node.op_type == "Conv"
        info = made.get(node.output[0])
        if info is None or not follows_conv or node.op_type == "Conv":
            continue
        shape = [d.dim_value or 1 for d in info.type.tensor_type.shape.dim]
        if np.prod(shape) * 4 >= LARGE_BYTES:
            inputs = [i.name for i in model.graph.input]
            head = Extractor(model).extract_model(inputs, [node.output[0]])
            target = folder / f"{path.stem[:12]}_head_of_{node.op_type}.onnx"
            onnx.save(head, target)
            return target
    raise SystemExit(f"{path}: no activation of {LARGE_BYTES} bytes")


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def measure(case: Case, folder: Path, rounds: int) -> Figure:
    """Return the ratios of `case`; its session is the segment's own."""
    site = Site("bench", "bench", 0, folder, None, SLOTS)
    segment = OnnxSegment(
        {"file": str(case.path), "inputs": case.inputs, "outputs": case.outputs}, site
    )
    segment.start()
    try:
        return _measure(case, segment, rounds)
    finally:
        segment.stop()


def _measure(case: Case, segment: OnnxSegment, rounds: int) -> Figure:
    session = segment._session
    assert session is not None
    rng = np.random.default_rng(SEED)
    feeds = [
        [rng.random(shape, np.float32) for _, _, shape in case.inputs]
        for _ in range(SLOTS + 1)
    ]
    names = [name for name, _, _ in case.inputs]
    outputs = [name for name, _, _ in case.outputs]

    # As many feeds as the ring has places: a place always gets the same memory.
    def run(k: int) -> object:
        return session.run(outputs, dict(zip(names, feeds[k % SLOTS], strict=True)))

    def chained(k: int) -> object:
        return segment.fire(*feeds[k % SLOTS])

    # One feed more: a place never gets the memory that it had before.
    def run_more(k: int) -> object:
        return session.run(
            outputs, dict(zip(names, feeds[k % len(feeds)], strict=True))
        )

    def received(k: int) -> object:
        return segment.fire(*feeds[k % len(feeds)])

    answer = segment.fire(*feeds[0])
    expected = session.run(outputs, dict(zip(names, feeds[0], strict=True)))
    np.testing.assert_equal(answer if len(outputs) > 1 else [answer], expected)
    run_s = statistics.median(seconds(run, k) for k in range(20))
    rounds = max(60, min(rounds, int(10 / run_s)))
    budget = LONG_BUDGET if run_s * 1e3 >= LONG_MS else None
    return Figure(
        name=case.name,
        output_bytes=case.output_bytes,
        run_ms=run_s * 1e3,
        again=paired(run, run, rounds),
        chained=paired(chained, run, rounds),
        received=paired(received, run_more, rounds),
        budget=LARGE_BUDGET if case.head else budget,
    )


def paired(
    ours: Callable[[int], object], theirs: Callable[[int], object], rounds: int
) -> float:
    """Return the median ratio of their times, turn and turn about."""
    ratios = []
    for k in range(rounds + 2 * SLOTS):
        if k % 2:
            theirs_s = seconds(theirs, k)
            ours_s = seconds(ours, k)
        else:
            ours_s = seconds(ours, k)
            theirs_s = seconds(theirs, k)
        if k >= 2 * SLOTS:  # the ring has gone round twice: everything is bound
            ratios.append(ours_s / theirs_s)
    return statistics.median(ratios)


def seconds(what: Callable[[int], object], k: int) -> float:
    start_s = time.perf_counter()
    what(k)
    return time.perf_counter() - start_s


if __name__ == "__main__":
    sys.exit(main())
