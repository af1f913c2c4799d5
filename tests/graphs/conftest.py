"""The shipped digits graph where it can be changed, and nets built on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DIGITS = Path(__file__).resolve().parents[2] / "graphs" / "digits"

GRAPH = """\
understudy: 1
graph: digits
actors:
  camera: {type: images, path: digits-test.npz, rate_hz: 50}
  prep: {type: normalise, scale: 0.0625}
  net: {type: onnx, model: digits.onnx}
  exit1: {type: onnx, model: digits-exit1.onnx}
  exit2: {type: onnx, model: digits-exit2.onnx}
  result: {type: results}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.input
  - net@features1 -> exit1.features
  - net@features2 -> exit2.features
  - net.logits -> result.answer
  - camera.label -> result.label
understudies:
  net.logits: [exit2.logits, exit1.logits]
"""

DEPLOYMENT = """\
understudy: 1
deployment: demo
graph: digits.yaml
devices:
  cam: {role: endpoint, count: 2}
  edge: {role: server, count: 2, listen: "tcp://127.0.0.1:7000"}
map:
  camera: cam
  prep: cam
  net: {cut: features2, head: cam, tail: edge}
  exit1: cam
  exit2: cam
  result: cam
failover:
  order: [{net: edge}, exit2, exit1]
  deadline_ms: 200
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with the digits models, so that messages name bare files."""
    for path in DIGITS.iterdir():
        if path.suffix in (".onnx", ".npz"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Write both files; `graph` and `deployment` are (old, new) texts to replace."""

    def write(
        *,
        graph: tuple[str, str] = ("", ""),
        deployment: tuple[str, str] = ("", ""),
    ) -> Path:
        for name, text, (old, new) in (
            ("digits.yaml", GRAPH, graph),
            ("demo.yaml", DEPLOYMENT, deployment),
        ):
            assert old in text
            Path(name).write_text(text.replace(old, new, 1) if old else text)
        return Path("demo.yaml")

    return write


SIZE = 6


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    weights: dict[str, np.ndarray],
    opset: int = 17,
) -> Path:
    """Write a float32 model."""
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(n, float32, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, float32, s) for n, s in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("foreign", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write nodes as a float32 model ``NAME.onnx``."""

    def save(name: str, nodes: list[onnx.NodeProto], **given: Any) -> Path:
        return _save(tmp_path / f"{name}.onnx", nodes, **given)

    return save


@pytest.fixture
def digits() -> Path:
    """Return the shipped folder."""
    return DIGITS


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """Write x -> a -> b -> (+ a) -> c -> d -> y, with an unused weight."""
    rng = np.random.default_rng(3)
    weights = {
        f"w{i}": rng.standard_normal((SIZE, SIZE)).astype(np.float32) for i in range(5)
    }
    return _save(
        tmp_path / "residual.onnx",
        [
            helper.make_node("MatMul", ["x", "w0"], ["m0"]),
            helper.make_node("Relu", ["m0"], ["a"]),
            helper.make_node("MatMul", ["a", "w1"], ["m1"]),
            helper.make_node("Relu", ["m1"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Relu", ["w3"], ["positive"]),
            helper.make_node("MatMul", ["c", "positive"], ["d"]),
            helper.make_node("MatMul", ["d", "w2"], ["y"]),
        ],
        inputs={"x": ["N", SIZE]},
        outputs={"y": ["N", SIZE]},
        weights=weights,
    )


@pytest.fixture
def written(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    """Write a model to a file."""

    def written(proto: onnx.ModelProto) -> Path:
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return written
