"""Nodes that are more than a function of their inputs: provoked, handled or refused."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dataflow.errors import UnderstudyError
from graphs.cuts import cuts
from graphs.groups import groups
from graphs.onnx_model import Model
from graphs.split import split
from tests.support.small_models import (
    EYE,
    N,
    Written,
    cut_everywhere,
    model_of,
    node,
)
from understudy.segment_folder import inputs_for, write_parts

# What control flow captures


def branch(name: str, nodes: Sequence[onnx.NodeProto], made: str) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(made, TensorProto.FLOAT, [1, N])
    return helper.make_graph(list(nodes), name, [], [info])


UNDECIDED = node("And", ["sure", "sure"], ["yes"])
"""Nobody works out its value, so that the branches of an If stay."""


def conditional(read: str, made: str, *, deep: bool = False) -> onnx.NodeProto:
    """Return an If that adds `read`, which it captures, in one branch."""
    then = [node("Add", [read, read], [f"{made}_then"])]
    if deep:
        inner = conditional(read, f"{made}_inner")
        then = [inner, node("Relu", [f"{made}_inner"], [f"{made}_then"])]
    other = [node("Neg", [read], [f"{made}_else"])]
    return node(
        "If",
        ["yes"],
        [made],
        then_branch=branch("then", then, f"{made}_then"),
        else_branch=branch("else", other, f"{made}_else"),
    )


@pytest.mark.parametrize("deep", [False, True], ids=["plain", "nested"])
def test_what_a_branch_of_an_if_captures_reaches_it(
    written: Written, deep: bool
) -> None:
    path = written(
        model_of(
            [
                node("MatMul", ["x", "w"], ["a"]),
                UNDECIDED,
                conditional("a", "c", deep=deep),
                node("Relu", ["c"], ["d"]),
                node("MatMul", ["d", "w"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE, "sure": np.array(True)},
        )
    )
    assert cut_everywhere(path) == ["a", "c", "d"]


def test_capture_that_bypasses_a_cut_is_no_cut(written: Written) -> None:
    path = written(
        model_of(
            [
                node("Relu", ["x"], ["a"]),
                node("MatMul", ["a", "w"], ["b"]),
                node("Sigmoid", ["b"], ["s"]),
                UNDECIDED,
                conditional("a", "c"),
                node("Add", ["s", "c"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE, "sure": np.array(True)},
        )
    )
    assert cut_everywhere(path) == ["a"]
    with pytest.raises(UnderstudyError, match="'a' bypasses it"):
        split(Model.read(path), ["b"], ["y"])


def loop(read: str, made: str, state: str) -> onnx.NodeProto:
    """Return a Loop of three rounds that adds `read`, which it captures."""
    float32, shape = TensorProto.FLOAT, [1, N]
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["held", read], ["next"])],
        "body",
        [helper.make_tensor_value_info("round", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("held", float32, shape)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", float32, shape)],
    )  # fmt: skip
    return node("Loop", ["three", "sure", state], [made], body=body)


def scan(read: str, made: str, state: str) -> onnx.NodeProto:
    """Return a Scan over rows that adds `read`, which it captures."""
    float32 = TensorProto.FLOAT
    body = helper.make_graph(
        [node("Add", ["held", read], ["kept"]), node("Add", ["row", "kept"], ["out"])],
        "body",
        [helper.make_tensor_value_info("held", float32, [1, N]),
         helper.make_tensor_value_info("row", float32, [N])],
        [helper.make_tensor_value_info("kept", float32, [1, N]),
         helper.make_tensor_value_info("out", float32, [1, N])],
    )  # fmt: skip
    return node("Scan", [state, state], ["last", made], body=body, num_scan_inputs=1)


@pytest.mark.parametrize("make", [loop, scan])
def test_what_a_loop_or_scan_captures_reaches_it(
    written: Written, make: Callable[..., onnx.NodeProto]
) -> None:
    path = written(
        model_of(
            [
                node("MatMul", ["x", "w"], ["a"]),
                node("Relu", ["a"], ["b"]),
                make("a", "c", "b"),
                node("Relu", ["c"], ["d"]),
                node("Flatten", ["d"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE, "three": np.array(3), "sure": np.array(True)},
        )
    )
    assert "a" in cut_everywhere(path)
    with pytest.raises(UnderstudyError, match="'a' bypasses it"):
        split(Model.read(path), ["b"], ["y"])


# Functions of the model


def test_functions_that_a_model_defines_go_with_both_parts(written: Written) -> None:
    double = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    path = written(
        model_of(
            [
                node("Twice", ["x"], ["a"], domain="local"),
                node("Relu", ["a"], ["b"]),
                node("Twice", ["b"], ["y"], domain="local"),
            ],
            {"x": [1, N]},
            functions=[double],
        )
    )
    assert cut_everywhere(path) == ["a", "b"]


# Random numbers


def noise(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
    drawn = node("RandomNormal", [], ["r"], shape=[1, N])
    return model_of([drawn, *nodes], {"x": [1, N]}, outputs)


def test_random_numbers_are_not_drawn_on_both_sides(written: Written) -> None:
    path = written(
        noise([node("Add", ["x", "r"], ["a"]), node("Relu", ["a"], ["b"]),
               node("Add", ["b", "r"], ["y"])], ["y"])
    )  # fmt: skip
    assert cuts(Model.read(path)) == ()
    with pytest.raises(UnderstudyError, match="both sides would draw the random"):
        split(Model.read(path), ["b"], ["y"])


def test_random_numbers_of_an_early_output_are_not_drawn_again(
    written: Written,
) -> None:
    path = written(
        noise([node("Relu", ["x"], ["a"]), node("Add", ["x", "r"], ["early"]),
               node("Add", ["a", "r"], ["y"])], ["early", "y"])
    )  # fmt: skip
    assert cuts(Model.read(path)) == ()
    with pytest.raises(UnderstudyError, match="both sides would draw the random"):
        split(Model.read(path), ["a"], ["early", "y"])


def test_parts_of_a_model_that_draws_are_not_said_to_be_wrong(
    written: Written,
) -> None:
    path = written(
        noise([node("Add", ["x", "r"], ["a"]), node("Relu", ["a"], ["y"])], ["y"])
    )
    model = Model.read(path)
    segments = split(model, ["a"], ["y"]).segments
    with pytest.raises(UnderstudyError, match="two runs cannot be compared"):
        write_parts(segments, path.parent / "parts", inputs_for(model, None))
    assert not (path.parent / "parts").exists()
    assert write_parts(segments, path.parent / "parts", None) == []


# Tools that do not exist


def test_no_code_asks_for_tools_that_do_not_exist_or_drop_inputs() -> None:
    root = Path(__file__).parents[2]
    for package in ("graphs", "actors", "understudy"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text()
            assert "onnxruntime.tools" not in text, path
            assert "from onnx.utils" not in text, path


def test_model_whose_outputs_depend_on_no_input_has_no_cuts(written: Written) -> None:
    path = written(
        model_of(
            [node("Relu", ["x"], ["a"]), node("Relu", ["w"], ["y"])],
            {"x": [1, N]},
            weights={"w": EYE},
        )
    )
    assert cuts(Model.read(path)) == ()
    with pytest.raises(UnderstudyError, match="no output depends on an input"):
        groups(Model.read(path))
