"""The partition-point figures: made by one command, and true to what was profiled."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from examples.partition_points.detections import is_raw, write_best_detections
from examples.partition_points.gains import gain
from examples.partition_points.points import Point, Points
from graphs.onnx_model import Model

DIGITS = Path(str(files("graphs"))) / "digits" / "digits.onnx"
ROOT = Path(__file__).parents[1]
ANCHORS, CLASSES = 120, 7


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A model that answers as an SSD does: boxes and scores of every anchor."""
    nodes = [
        helper.make_node("Identity", ["boxes_in"], ["boxes"]),
        helper.make_node("Sigmoid", ["scores_in"], ["scores"]),
    ]
    shapes = {"boxes": [1, ANCHORS, 4], "scores": [1, ANCHORS, CLASSES]}
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info(f"{n}_in", TensorProto.FLOAT, s)
         for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
         for n, s in shapes.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "detector.onnx")
    return tmp_path / "detector.onnx"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "examples.partition_points", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_command_profiles_explores_and_draws(tmp_path: Path) -> None:
    done = run(str(DIGITS), "--out", str(tmp_path), "--slow", "100")
    assert done.returncode == 0, done.stderr
    for name in ("points.svg", "gains.svg"):
        assert (tmp_path / name).read_text().startswith("<svg")
    data = json.loads((tmp_path / "points.json").read_text())
    assert [found["link"] for found in data["links"]] == ["100mbit,1ms", "16mbit,5ms"]
    for found in data["links"]:
        first, *_, last = found["points"]
        assert first["endpoint_ms"] < last["endpoint_ms"]
        assert last["communication_ms"] == last["rest_ms"] == 0
        assert first["communication_ms"] > 0
    assert "all local" in done.stdout


def test_model_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    done = run("no.onnx", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("partition_points: model no.onnx: ")
    assert "Traceback" not in done.stderr


def test_best_detections_are_those_of_the_raw_answer(
    detector: Path, tmp_path: Path
) -> None:
    assert is_raw(Model.read(detector))
    write_best_detections(detector, tmp_path / "best.onnx", 20)
    rng = np.random.default_rng(1)
    boxes = rng.standard_normal((1, ANCHORS, 4), np.float32)
    scores = rng.standard_normal((1, ANCHORS, CLASSES), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "best.onnx")
    found, best, kinds, anchors = session.run(
        ["detection_boxes", "detection_scores", "detection_classes",
         "detection_anchors"],
        {"boxes_in": boxes, "scores_in": scores},
    )  # fmt: skip
    highest = scores[0].max(axis=1)
    wanted = np.argsort(-highest, kind="stable")[:20]
    assert (anchors[0] == wanted).all()
    assert (found[0] == boxes[0][wanted]).all()
    assert (kinds[0] == scores[0].argmax(axis=1)[wanted]).all()
    np.testing.assert_allclose(best[0], 1 / (1 + np.exp(-highest[wanted])), rtol=1e-5)


def test_classifier_is_left_as_it_is() -> None:
    assert not is_raw(Model.read(DIGITS))


def test_gains_are_of_the_best_cut_for_each_metric() -> None:
    points = Points("lan", 100.0, (
        Point(0, "raw", 10.0, 0.0, 1.0, 1.0, 500.0),
        Point(1, "early", 90.0, 10.0, 30.0, 9.0, 33.0),
        Point(2, "late", 20.0, 30.0, 12.0, 2.0, 31.0),
        Point(3, "all local", 0.0, 80.0, 0.0, 0.0, 12.5),
    ))  # fmt: skip
    found = gain(4.0, points)
    assert (found.waited, found.waited_at) == (2.0, 1)
    assert (found.total, found.total_at) == (80 / 44, 2)
    assert (found.fps, found.fps_at) == (33 / 12.5, 1)
