"""Kernels of an optimised graph and the nodes that they stand for."""

import numpy as np
import onnx
import pytest
from onnx import helper

from graphs.external import SharedWeights
from graphs.kernels import marked, owners
from graphs.onnx_model import Model
from graphs.split import whole

SIDE = 8


@pytest.fixture
def block(save) -> Model:
    """Conv, batch normalisation, ReLU; a second Conv, added to the first, ReLU."""
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    ones = np.ones(16, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c1"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w"], ["c2"], pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["s2"]),
        helper.make_node("Relu", ["s2"], ["y"]),
    ]
    shape: list[int | str] = [1, 16, SIDE, SIDE]
    path = save(
        "block",
        nodes,
        inputs={"x": shape},
        outputs={"y": shape},
        weights={"w": kernel, "g": ones, "b": ones, "m": ones, "v": ones},
    )
    return Model.read(path)


def _marked(model, folder):
    with (folder / "weights.bin").open("wb") as weights:
        return marked(whole(model), SharedWeights(weights, "weights.bin", folder))


def test_marks_are_the_places_of_the_nodes_in_the_model(block, tmp_path):
    proto = onnx.load_model_from_string(_marked(block, tmp_path))
    assert [node.name for node in proto.graph.node] == [f"us:{i}:" for i in range(6)]


def test_fused_kernel_stands_for_its_convolution(block):
    kernels = [("r1_nchwc", "Conv"), ("y_nchwc", "Conv")]
    assert owners(block, kernels) == [0, 3]


def test_mark_is_found_in_the_name_of_a_fusion(block):
    assert owners(block, [("fused us:3:", "FusedConv")]) == [3]
    assert owners(block, [("us:4:/QuickGeluFusion/", "QuickGelu")]) == [4]


def test_change_of_layout_belongs_to_the_kernel_that_it_serves(block):
    kernels = [
        ("ReorderInput", "ReorderInput"),
        ("us:0:", "Conv"),
        ("ReorderOutput_token_1", "ReorderOutput"),
        ("us:4:", "Add"),
    ]
    assert owners(block, kernels) == [0, 0, 0, 4]


def test_kernels_of_a_real_session_are_all_found(block, tmp_path):
    from actors.kernel_times import kernel_times
    from actors.sessions import Settings

    file = tmp_path / "marked.onnx"
    file.write_bytes(_marked(block, tmp_path))
    feed = {"x": np.ones((1, 16, SIDE, SIDE), np.float32)}
    kernels = kernel_times(file, Settings(), feed, runs=3)
    named = [(k.name, k.operator) for k in kernels]
    convolutions = [o for o, n in zip(owners(block, named), named, strict=True)
                    if "Conv" in n[1]]  # fmt: skip
    assert convolutions == [0, 3]
