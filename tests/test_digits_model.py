import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.utils import Extractor

FOLDER = Path(__file__).resolve().parents[1] / "graphs" / "digits"
RECORD = json.loads((FOLDER / "digits.json").read_text())
MODELS = ["digits.onnx", "digits-exit1.onnx", "digits-exit2.onnx"]

Array = npt.NDArray[np.float32]


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {model.graph.input[0].name: x})
    return np.asarray(output)


def load(name: str) -> onnx.ModelProto:
    return onnx.load(FOLDER / name)


def between(source: str, target: str) -> onnx.ModelProto:
    return Extractor(load("digits.onnx")).extract_model([source], [target])


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def bypassed(tensor: str) -> bool:
    """Return whether logits depend on the input by a path around the tensor."""
    reached = {"input"}
    for node in load("digits.onnx").graph.node:  # ONNX demands topological order
        if reached.intersection(node.input):
            reached.update(set(node.output) - {tensor})
    return "logits" in reached


def images_and_digits() -> tuple[Array, npt.NDArray[np.uint8]]:
    test = np.load(FOLDER / "digits-test.npz")
    scale = np.float32(RECORD["input"]["scale"])
    return test["x"].transpose(0, 3, 1, 2) * scale, test["y"]


def correct(logits: Array) -> int:
    return int((logits.argmax(1) == images_and_digits()[1]).sum())


def through_uint8(features: Array) -> Array:
    """Quantise image by image with onnxruntime's own operators, as an independent way.

    The training script computes the same in numpy.
    """
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["level", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["level", "scale", "zero"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, features.shape[1:])
        for name in "xy"
    )
    model = helper.make_model(
        helper.make_graph(nodes, "coding", [x], [y]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.stack([session.run(None, {"x": image})[0] for image in features])


def test_recorded_hashes_are_those_of_the_shipped_files() -> None:
    for name, entry in RECORD["files"].items():
        content = (FOLDER / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert entry["bytes"] == len(content), name
    assert RECORD["files"].keys() == {*MODELS, "digits-test.npz"}


def test_shipped_files_stay_below_two_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("digits*")) < 2_000_000


def test_images_are_bytes_of_seventeen_grey_levels() -> None:
    test = np.load(FOLDER / "digits-test.npz")
    assert test["x"].dtype == test["y"].dtype == np.uint8
    assert test["x"].shape == (RECORD["split"]["test"], 8, 8, 1)
    assert (test["x"].max(), test["y"].max()) == (16, 9)


def test_full_network_reproduces_its_recorded_accuracy() -> None:
    images, digits = images_and_digits()
    right = correct(run(load("digits.onnx"), images))
    assert right == RECORD["accuracy"]["full"]["correct"]
    assert right / len(digits) >= 0.98


@pytest.mark.parametrize("i", [1, 2])
def test_exit_reproduces_its_recorded_accuracy(i: int) -> None:
    features = run(between("input", f"features{i}"), images_and_digits()[0])
    logits = run(load(f"digits-exit{i}.onnx"), features)
    assert correct(logits) == RECORD["accuracy"][f"exit{i}"]["correct"]


def test_each_later_answer_is_clearly_better() -> None:
    exit1, exit2, full = (
        RECORD["accuracy"][name]["correct"] for name in ("exit1", "exit2", "full")
    )
    assert exit1 + 10 <= exit2
    assert exit2 + 10 <= full


@pytest.mark.parametrize("i", [1, 2])
def test_cut_with_coded_features_reproduces_its_recorded_accuracy(i: int) -> None:
    features = run(between("input", f"features{i}"), images_and_digits()[0])
    tail = between(f"features{i}", "logits")
    coded = {
        "uint8": through_uint8(features),
        "float16": features.astype(np.float16).astype(np.float32),
    }
    for name, x in coded.items():
        recorded = RECORD["accuracy"][f"full_features{i}_{name}"]["correct"]
        assert correct(run(tail, x)) == recorded, name


@pytest.mark.parametrize("i", [1, 2])
def test_every_path_from_input_to_logits_passes_the_cut(i: int) -> None:
    assert not bypassed(f"features{i}")


def test_tensor_inside_a_residual_block_is_no_cut() -> None:
    assert bypassed("stage2/block0/relu0/out")


def test_device_sends_little_and_leaves_most_of_the_work_to_the_servers() -> None:
    assert RECORD["tensors"]["features1"] == ["N", 8, 8, 8]
    assert RECORD["tensors"]["features2"] == ["N", 16, 4, 4]
    # By hand, filters x pixels: stem and stage 1; stage 2 with shortcut; stage 3, head.
    assert RECORD["macs"] == {
        "input_features1": 64 * 8 * 9 * (1 + 8 + 8),
        "features1_features2": 16 * 16 * (9 * 8 + 9 * 16 + 8),
        "features2_logits": 16 * 64 * (9 * 16 + 9 * 64 + 16 + 2 * 9 * 64) + 64 * 10,
        "exit1": 8 * 10,
        "exit2": 16 * 10,
    }
    whole = ["input_features1", "features1_features2", "features2_logits"]
    total = sum(RECORD["macs"][part] for part in whole)
    assert RECORD["macs"]["features2_logits"] > 0.9 * total


@pytest.mark.parametrize("i", [1, 2])
def test_exit_takes_the_shape_and_gives_the_answer_of_the_network(i: int) -> None:
    graph = load(f"digits-exit{i}.onnx").graph
    assert shape_of(graph.input[0]) == RECORD["tensors"][f"features{i}"]
    assert graph.output[0] == load("digits.onnx").graph.output[0]


def test_answer_does_not_depend_on_the_batch() -> None:
    images = images_and_digits()[0][:7]
    model = load("digits.onnx")
    batch = run(model, images)
    assert batch.shape == (7, 10)
    for i in range(7):
        np.testing.assert_allclose(
            run(model, images[i : i + 1])[0], batch[i], atol=1e-4
        )


@pytest.mark.parametrize("name", MODELS)
def test_model_is_readable_by_old_and_new_runtimes(name: str) -> None:
    model = load(name)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version >= 17) for o in model.opset_import] == [("", True)]
    assert model.ir_version <= 10


@pytest.mark.parametrize("name", MODELS)
def test_model_names_everything_and_carries_no_notes(name: str) -> None:
    model = load(name)
    weights = {weight.name for weight in model.graph.initializer}
    nodes = [node.name for node in model.graph.node]
    assert all(nodes)
    assert len(set(nodes)) == len(nodes)
    assert all(tensor for node in model.graph.node for tensor in node.input)
    assert not weights.intersection(value.name for value in model.graph.input)
    assert not model.doc_string + model.graph.doc_string
    assert not model.metadata_props
