"""Measure the kernels beside memcpy, their NumPy reference and the onnxruntime node.

    python tests/bench/kernels.py [--json FILE]

A size is that of the float32 tensor. memcpy is np.copyto of half as many bytes as the
kernel's input and output have together, since a copy reads and writes each of its
bytes; that quantise reads its input twice is not counted in its favour. All are called
from Python, in interleaved rounds, in one process: compare ratios, not times.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import native
from native import reference

SIZES = {"150 KB": 150_000, "4 MB": 4_000_000}
SEED = 1
RATIO_MAX = {"150 KB": 2.5, "4 MB": 1.3}
QUANTISE_RATIO_MAX = {"150 KB": 2.5, "4 MB": 1.5}
TYPES = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.float16): onnx.TensorProto.FLOAT16,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
}

Call = Callable[[], object]


def node(
    operator: str,
    inputs: list[np.ndarray],
    outputs: list[np.ndarray],
    **attributes: int,
) -> Call:
    """Return a call that runs one ONNX node on one thread between bound arrays."""
    names_in = [f"i{k}" for k in range(len(inputs))]
    names_out = [f"o{k}" for k in range(len(outputs))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, names_in, names_out, **attributes)],
        operator,
        [
            onnx.helper.make_tensor_value_info(name, TYPES[array.dtype], array.shape)
            for name, array in zip(names_in, inputs, strict=True)
        ],
        [
            onnx.helper.make_tensor_value_info(name, TYPES[array.dtype], array.shape)
            for name, array in zip(names_out, outputs, strict=True)
        ],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for name, array in zip(names_in, inputs, strict=True):
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in zip(names_out, outputs, strict=True):
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    return lambda: session.run_with_iobinding(binding)


def copy(*touched: np.ndarray) -> Call:
    """Return a memcpy that reads and writes as many bytes as `touched` have."""
    source = np.ones(sum(array.nbytes for array in touched) // 2, np.uint8)
    target = np.ones_like(source)
    return lambda: np.copyto(target, source)


def cases(float32_bytes: int) -> dict[str, dict[str, Call]]:
    """Return, for each kernel, the calls to compare."""
    random = np.random.default_rng(SEED)
    count = float32_bytes // 4 // 48 * 48
    x = random.standard_normal(count, np.float32)
    h = x.astype(np.float16)
    q = np.empty(count, np.uint8)
    scale, zero_point = native.quantise(x, q)
    y, g, r = np.empty_like(x), np.empty_like(h), np.empty_like(q)
    step, zero = np.array(scale, np.float32), np.array(zero_point, np.uint8)
    made = {
        "quantise": {
            "ours": lambda: native.quantise(x, r),
            "memcpy": copy(x, q),
            "NumPy": lambda: reference.quantise(x, r),
            "onnxruntime": node("DynamicQuantizeLinear", [x], [r, step, zero]),
        },
        "dequantise": {
            "ours": lambda: native.dequantise(q, scale, zero_point, y),
            "memcpy": copy(x, q),
            "NumPy": lambda: reference.dequantise(q, scale, zero_point, y),
            "onnxruntime": node("DequantizeLinear", [q, step, zero], [y]),
        },
        "to_float16": {
            "ours": lambda: native.to_float16(x, g),
            "memcpy": copy(x, h),
            "NumPy": lambda: reference.to_float16(x, g),
            "onnxruntime": node("Cast", [x], [g], to=onnx.TensorProto.FLOAT16),
        },
        "to_float32": {
            "ours": lambda: native.to_float32(h, y),
            "memcpy": copy(x, h),
            "NumPy": lambda: reference.to_float32(h, y),
            "onnxruntime": node("Cast", [h], [y], to=onnx.TensorProto.FLOAT),
        },
    }
    for channels in (1, 3, 4):
        made[f"normalise, C = {channels}"] = normalise(q, channels)
    return made


def normalise(q: np.ndarray, channels: int) -> dict[str, Call]:
    """Return the calls for an image of so many channels; it has no ONNX node."""
    pixels = q.reshape(4, -1, channels)
    planes = np.empty((channels, *pixels.shape[:2]), np.float32)
    factor = np.full(channels, 0.017, np.float32)
    offset = np.full(channels, -2.0, np.float32)
    return {
        "ours": lambda: native.normalise(pixels, factor, offset, planes),
        "memcpy": copy(pixels, planes),
        "NumPy": lambda: reference.normalise(pixels, factor, offset, planes),
    }


def interleaved(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Return the microseconds of each call, one sample per round."""
    for call in calls.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["ours"]) < 40:
        for name, call in calls.items():
            call()  # whoever came before has emptied the caches
            start = time.perf_counter_ns()
            call()
            samples[name].append((time.perf_counter_ns() - start) / 1e3)
    return samples


def processor() -> str:
    """Return the name of the CPU, as well as the system knows it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} CPUs"


def measure(size: str, seconds: float) -> list[dict[str, object]]:
    """Return one row for each kernel."""
    rows: list[dict[str, object]] = []
    for kernel, calls in cases(SIZES[size]).items():
        samples = interleaved(calls, seconds)
        fastest = {name: min(values) for name, values in samples.items()}
        median = {name: float(np.median(values)) for name, values in samples.items()}
        budget = (QUANTISE_RATIO_MAX if kernel == "quantise" else RATIO_MAX)[size]
        ratios = [us["ours"] / us["memcpy"] for us in (fastest, median)]
        against_node = median["ours"] / median.get("onnxruntime", float("inf"))
        rows.append(
            {
                "kernel": kernel,
                "size": size,
                "rounds": len(samples["ours"]),
                "us_min": fastest,
                "us_median": median,
                "ratio_memcpy_min": ratios[0],
                "ratio_memcpy_median": ratios[1],
                "ratio_memcpy_max": budget,
                "ratio_onnxruntime": against_node,
                "within": max(ratios) <= budget and against_node <= 1.0,
            }
        )
    return rows


def show(row: dict[str, object]) -> str:
    """Return a row for people."""
    fastest, median = row["us_min"], row["us_median"]
    others = "".join(
        f"{median[name] / median['memcpy']:11.2f}" if name in median else f"{'-':>11}"
        for name in ("NumPy", "onnxruntime")
    )
    return (
        f"{row['size']:7} {row['kernel']:17} "
        f"{fastest['ours']:8.2f} /{median['ours']:8.2f} "
        f"{row['ratio_memcpy_min']:6.2f} /{row['ratio_memcpy_median']:5.2f} "
        f"{row['ratio_memcpy_max']:7.1f} {others}  {'' if row['within'] else 'MISSED'}"
    )


def main() -> None:
    """Print the table; write it as JSON too if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows there too")
    parser.add_argument("--seconds", type=float, default=1.0, help="per kernel, size")
    arguments = parser.parse_args()
    machine = {
        "cpu": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "kernels": native.IMPLEMENTATION,
        "seed": SEED,
    }
    for name, value in machine.items():
        print(f"{name:12} {value}")
    print(
        f"\n{'size':7} {'kernel':17} {'us min / median':>18} {'x memcpy':>13} "
        f"{'budget':>7} {'x: NumPy':>11}{'onnxrt':>11}"
    )
    rows = [row for size in SIZES for row in measure(size, arguments.seconds)]
    for row in rows:
        print(show(row))
    if arguments.json:
        text = json.dumps({"machine": machine, "rows": rows}, indent=2)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
