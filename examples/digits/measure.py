"""What the written files show: accuracy, multiply-accumulates, sizes, hashes."""

import hashlib
import itertools
import json
import math
import platform
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import sklearn  # type: ignore[import-untyped]
import torch
from data import FOLDER, SCALE, SEED, TEST_IMAGES, Bytes, Floats, network_input

Measured = dict[str, int | float | list[float]]

Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


def run(model: onnx.ModelProto, x: Floats) -> Floats:
    """Return the only output of the model for its only input."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(output, np.float32)


def between(model: onnx.ModelProto, source: str, target: str) -> onnx.ModelProto:
    """Return the part of the model from one tensor to another."""
    return onnx.utils.Extractor(model).extract_model([source], [target])


def through_float16(x: Floats) -> Floats:
    return x.astype(np.float16).astype(np.float32)


def through_uint8(x: Floats) -> Floats:
    """Return the features after 8-bit quantisation of each image by its own range.

    The arithmetic is that of ONNX DynamicQuantizeLinear followed by DequantizeLinear.
    """
    flat = x.reshape(len(x), -1)
    low = np.minimum(flat.min(1, keepdims=True), 0)
    high = np.maximum(flat.max(1, keepdims=True), 0)
    scale = (high - low) / np.float32(255)
    scale[scale == 0] = 1  # an image of zeros only; every scale maps it to zeros
    zero = np.rint(np.clip(-low / scale, 0, 255))
    level = np.clip(np.rint(flat / scale) + zero, 0, 255)
    restored: Floats = (level - zero) * scale
    return restored.reshape(x.shape)


def wilson(correct: int, count: int) -> list[float]:
    """Return the 95 % interval of a proportion (Wilson, JASA 22(158), 1927)."""
    share, z2 = correct / count, Z_95**2
    middle = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return [round((middle + d) / (1 + z2 / count), 4) for d in (-half, half)]


def measured(logits: Floats, digits: Bytes) -> Measured:
    correct, count = int((logits.argmax(1) == digits).sum()), len(digits)
    return {
        "correct": correct,
        "images": count,
        "accuracy": correct / count,
        "wilson_95": wilson(correct, count),
    }


def figures() -> dict[str, Measured]:
    """Return the accuracy on the test images of every way to an answer."""
    test = np.load(FOLDER / "digits-test.npz")
    x, digits = network_input(test["x"]), test["y"]
    model = onnx.load(FOLDER / "digits.onnx")
    table = {"full": measured(run(model, x), digits)}
    codings: dict[str, Callable[[Floats], Floats]] = {
        "uint8": through_uint8,
        "float16": through_float16,
    }
    for i in (1, 2):
        features = run(between(model, "input", f"features{i}"), x)
        exit_head = onnx.load(FOLDER / f"digits-exit{i}.onnx")
        table[f"exit{i}"] = measured(run(exit_head, features), digits)
        tail = between(model, f"features{i}", "logits")
        for name, coding in codings.items():
            logits = run(tail, coding(features))
            table[f"full_features{i}_{name}"] = measured(logits, digits)
    return table


def files() -> dict[str, dict[str, int | str]]:
    """Return size, hash and, for models, parameters of each shipped file."""
    table: dict[str, dict[str, int | str]] = {}
    for path in sorted([*FOLDER.glob("*.onnx"), *FOLDER.glob("*.npz")]):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        table[path.name] = {"bytes": len(content), "sha256": digest}
        if path.suffix == ".onnx":
            weights = onnx.load_from_string(content).graph.initializer
            table[path.name]["parameters"] = sum(math.prod(w.dims) for w in weights)
    return table


def shapes(graph: onnx.GraphProto) -> dict[str, list[str | int]]:
    """Return the shape of every tensor that is no weight."""
    return {
        value.name: [
            d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim
        ]
        for value in [*graph.input, *graph.value_info, *graph.output]
    }


def macs(model: onnx.ModelProto) -> int:
    """Return the multiply-accumulates of convolutions and linear layers, one image."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    tensors = shapes(model.graph)
    total = 0
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            # Every weight is used once for each output pixel; Gemm has one "pixel".
            pixels = [int(d) for d in tensors[node.output[0]][2:]]
            total += math.prod(pixels) * math.prod(weights[node.input[1]].dims)
    return total


def work() -> dict[str, int]:
    """Return the multiply-accumulates between the cuts and those of each exit."""
    model = onnx.load(FOLDER / "digits.onnx")
    ends = ["input", "features1", "features2", "logits"]
    table = {
        f"{source}_{target}": macs(between(model, source, target))
        for source, target in itertools.pairwise(ends)
    }
    for i in (1, 2):
        table[f"exit{i}"] = macs(onnx.load(FOLDER / f"digits-exit{i}.onnx"))
    return table


def record(train_images: int) -> dict[str, object]:
    """Return the content of digits.json."""
    tensors = shapes(onnx.load(FOLDER / "digits.onnx").graph)
    return {
        "data": "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, "
        "UCI, 1998 (CC BY 4.0), as in sklearn.datasets.load_digits",
        "seed": SEED,
        "split": {"train": train_images, "test": TEST_IMAGES},
        "input": {"layout": "NCHW", "scale": SCALE, "offset": 0.0},
        # Only the inputs and outputs of whole stages have a name without a slash.
        "tensors": {name: shape for name, shape in tensors.items() if "/" not in name},
        "macs": work(),
        "accuracy": figures(),
        "files": files(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "scikit-learn": sklearn.__version__,
            "torch": str(torch.__version__),
        },
    }


def differences(train_images: int, images: Bytes, digits: Bytes) -> list[str]:
    """Return what digits.json states otherwise than its files and the split show."""
    written = json.loads((FOLDER / "digits.json").read_text())
    found = record(train_images)
    keys = sorted(found.keys() - {"versions"})
    faults = [
        f"digits.json: {key} is {written.get(key)}, the files show {found[key]}"
        for key in keys
        if written.get(key) != found[key]
    ]
    test = np.load(FOLDER / "digits-test.npz")
    if not (np.array_equal(test["x"], images) and np.array_equal(test["y"], digits)):
        faults.append(f"digits-test.npz: not the test part of the split, seed {SEED}")
    return faults
