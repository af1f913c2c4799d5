"""Segments for batches: opened where they are fixed, tried, refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Site
from dataflow.errors import UnderstudyError
from dataflow.plan import Plan
from graphs.batching import batched
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from graphs.located_yaml import FileErrors
from graphs.onnx_model import Model
from graphs.split import Segment, whole

Write = Callable[..., Path]
WEIGHTS = {
    "w": np.random.default_rng(5).standard_normal((12, 4)).astype(np.float32),
    "flat": np.array([1, 12], np.int64),
}
NODES = [
    helper.make_node("Relu", ["x"], ["positive"]),
    helper.make_node("Reshape", ["positive", "flat"], ["row"]),
    helper.make_node("MatMul", ["row", "w"], ["y"]),
]
SERVER = 'listen: "tcp://127.0.0.1:7000"'


@pytest.fixture
def fixed(save: Callable[..., Path]) -> Segment:
    """Return a network for one image: fixed sizes, and a Reshape to a constant."""
    weights = {"w": WEIGHTS["w"]}
    constant = helper.make_node(
        "Constant", [], ["flat"], value=onnx.numpy_helper.from_array(WEIGHTS["flat"])
    )
    return whole(
        Model.read(
            save(
                "fixed",
                [constant, *NODES],
                inputs={"x": [1, 3, 2, 2]},
                outputs={"y": [1, 4]},
                weights=weights,
            )
        )
    )


def run(segment: Segment, folder: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    file = folder / "segment.onnx"
    file.write_bytes(segment.data)
    params = {
        "file": str(file),
        "inputs": [t.json() for t in segment.inputs],
        "outputs": [t.json() for t in segment.outputs],
    }
    site = Site("here", "here", 0, folder, None, 9, len(images))
    made = OnnxSegment(params, site)
    made.start()
    answers = [np.copy(a) for a in made.fire_many([(image,) for image in images])]
    made.stop()
    return answers


def test_network_of_fixed_sizes_is_opened_and_answers_the_same(
    fixed: Segment, tmp_path: Path
) -> None:
    opened = batched(fixed, 8)
    assert opened.identity == fixed.identity
    assert opened.sha256 != fixed.sha256
    random = np.random.default_rng(7)
    images = [random.standard_normal((1, 3, 2, 2)).astype(np.float32) for _ in range(8)]
    together = run(opened, tmp_path, images)
    for image, answer in zip(images, together, strict=True):
        (alone,) = run(fixed, tmp_path, [image])
        expected = np.maximum(image, 0).reshape(1, 12) @ WEIGHTS["w"]
        assert np.allclose(alone, expected, atol=1e-5)
        assert np.allclose(answer, expected, atol=1e-5)


def test_network_that_is_open_already_is_left_as_it_is(digits: Path) -> None:
    segment = whole(Model.read(digits / "digits.onnx"))
    assert batched(segment, 4) is segment


def test_rows_that_depend_on_each_other_are_refused(save: Callable[..., Path]) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    segment = whole(
        Model.read(
            save("soft", nodes, inputs={"x": ["N", 4]}, outputs={"y": ["N", 4]},
                 weights={})
        )
    )  # fmt: skip
    with pytest.raises(UnderstudyError, match="rows depend on each other"):
        batched(segment, 4)


def test_tokens_without_a_first_axis_of_one_are_refused(
    save: Callable[..., Path],
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    segment = whole(
        Model.read(
            save("four", nodes, inputs={"x": [4, 3]}, outputs={"y": [4, 3]}, weights={})
        )
    )
    with pytest.raises(UnderstudyError, match=r"tensor 'x' is float32\[4,3\], and tok"):
        batched(segment, 2)


def compiled(path: Path, folder: Path) -> Plan:
    return compile_plan(read_deployment(path), folder / "plan")


def test_batching_changes_servers_and_no_actor_port_fifo_or_rate(
    write: Write, folder: Path
) -> None:
    alone = compiled(write(), folder)
    text = f"{SERVER}, batch_max: 8, batch_wait_ms: 2.5"
    together = compiled(write(deployment=(SERVER, text)), folder)
    assert together.graph == alone.graph
    servers = [d for d in together.devices.values() if d.role == "server"]
    assert {(d.batching.most, d.batching.wait_s) for d in servers} == {(8, 0.0025)}
    assert compiled(Path("demo.yaml"), folder).devices == together.devices


def test_network_that_cannot_be_batched_is_located_in_the_mapping(
    write: Write, folder: Path, save: Callable[..., Path]
) -> None:
    mixes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["features2"]),
        helper.make_node("Softmax", ["features2"], ["logits"], axis=0),
    ]
    save(
        "mixes",
        mixes,
        inputs={"input": ["N", 1, 8, 8]},
        outputs={"logits": ["N", 10]},
        weights={"w": np.ones((64, 10), np.float32)},
    )
    graph = """\
understudy: 1
graph: digits
actors:
  camera: {type: images, path: digits-test.npz, rate_hz: 50}
  prep: {type: normalise, scale: 0.0625}
  net: {type: onnx, model: mixes.onnx}
  result: {type: results}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.input
  - net.logits -> result.answer
"""
    path = write(deployment=(SERVER, f"{SERVER}, batch_max: 4"))
    Path("digits.yaml").write_text(graph)
    text = path.read_text().replace(", exit2, exit1", "")
    path.write_text(text.replace("  exit1: cam\n  exit2: cam\n", ""))
    with pytest.raises(FileErrors) as caught:
        compiled(path, folder)
    (said,) = caught.value.messages
    assert said.startswith(
        "demo.yaml:10:3: map: net: cannot run as batches of 4 on 'edge': answers "
        "otherwise in a batch of 4 than alone"
    )
    assert said.endswith("its rows depend on each other; remove batch_max there")
