"""A site in a temporary folder, and small real ONNX models."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from dataflow.behaviour import Site

SLOTS = 4


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(
        device="cam.0",
        stream="cam.0",
        incarnation=0xBEEF,
        plan_folder=tmp_path,
        run_folder=tmp_path,
        slots=SLOTS,
    )


@pytest.fixture
def affine(tmp_path: Path) -> Callable[..., Path]:
    """Write a model with outputs `2x` = 2 x and `sum` = x + 1 over float32 [N, 3]."""

    def write(name: str = "affine.onnx") -> Path:
        def tensor(name: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3])

        graph = helper.make_graph(
            [
                helper.make_node("Add", ["x", "x"], ["y/2x:0"]),
                helper.make_node("Add", ["x", "one"], ["sum"]),
            ],
            "affine",
            [tensor("x")],
            [tensor("y/2x:0"), tensor("sum")],
            [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
        )
        opsets = [helper.make_opsetid("", 17)]
        path = tmp_path / name
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path

    return write
