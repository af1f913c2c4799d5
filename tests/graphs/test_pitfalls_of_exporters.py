"""What exporters write of their own accord, and what goes wrong with it.

As in `test_pitfalls`, named by the symptom where nothing is done against it.
"""

from itertools import pairwise
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
    file_of,
    model_of,
    node,
)
from understudy.profiling import Wanted, profile
from understudy.segment_folder import inputs_for, write_parts
from understudy.splitting import listing

# Outputs that are no arrays


def with_output(proto: onnx.ModelProto, info: onnx.ValueInfoProto) -> onnx.ModelProto:
    proto.graph.output.append(info)
    return proto


def test_maps_that_a_classifier_answers_with_are_no_reason_not_to_cut_it(
    written: Written,
) -> None:
    classes = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    proto = with_output(
        model_of(
            [node("MatMul", ["x", "w"], ["a"]), node("Softmax", ["a"], ["y"])],
            {"x": [1, N]},
            weights={"w": EYE},
        ),
        helper.make_value_info("z", helper.make_sequence_type_proto(classes)),
    )
    labels = {"classlabels_int64s": [0, 1, 2, 3]}
    proto.graph.node.append(node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", **labels))
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    path = written(proto)
    assert cut_everywhere(path) == ["a", "y"]
    (made,) = [o for o in file_of(path, 2).graph.output if o.name == "z"]
    assert made.type.HasField("sequence_type")
    with pytest.raises(UnderstudyError, match=r"output of .*: is a sequence"):
        Model.read(path).interface()


def test_constant_among_the_outputs_is_in_no_part(written: Written) -> None:
    proto = with_output(
        model_of(
            [node("Relu", ["x"], ["a"]), node("Identity", ["w"], ["k"]),
             node("MatMul", ["a", "w"], ["y"])],
            {"x": [1, N]},
            weights={"w": EYE},
        ),
        helper.make_tensor_value_info("k", TensorProto.FLOAT, [N, N]),
    )  # fmt: skip
    path = written(proto)
    assert cut_everywhere(path) == ["a"]
    model = Model.read(path)
    segments = [group.part.segment(group.part.outputs) for group in groups(model)]
    write_parts(segments, path.parent / "parts", inputs_for(model, None))
    assert "left out: k" in listing(path, {}).text(every=False)


# Inputs of types that no frame has here


@pytest.mark.parametrize("elem_type", [TensorProto.STRING, TensorProto.BFLOAT16])
def test_model_that_takes_what_no_token_holds_is_listed_all_the_same(
    written: Written, elem_type: int
) -> None:
    op = {TensorProto.STRING: "StringNormalizer", TensorProto.BFLOAT16: "Neg"}
    proto = model_of(
        [node(op[elem_type], ["x"], ["a"]),
         node("BiasGelu", ["a", "b"], ["c"], domain="com.microsoft"),
         node("Identity", ["c"], ["y"])],
        {"x": [1, N]},
        weights={"b": EYE[0]},
        elem_type=elem_type,
    )  # fmt: skip
    path = written(proto)
    assert [cut.bytes for cut in cuts(Model.read(path))] == [None, None]
    with pytest.raises(UnderstudyError, match=r"elements of type \w+ cannot be a tok"):
        inputs_for(Model.read(path), None)


# A branch that is taken for every frame


def squeezed(read: str, made: str) -> list[onnx.NodeProto]:
    """Return what exporters make of `x.squeeze(1)`: an If of two ranks."""
    then = helper.make_graph(
        [node("Constant", [], ["axes"], value_ints=[1]),
         node("Squeeze", [read, "axes"], ["out"])],
        "then", [], [onnx.ValueInfoProto(name="out")],
    )  # fmt: skip
    other = helper.make_graph(
        [node("Identity", [read], ["out"])],
        "else",
        [],
        [onnx.ValueInfoProto(name="out")],
    )
    for graph in (then, other):
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return [
        node("Shape", [read], [f"{made}_shape"]),
        node("Gather", [f"{made}_shape", "one"], [f"{made}_size"]),
        node("Equal", [f"{made}_size", "one"], [f"{made}_is_1"]),
        node("If", [f"{made}_is_1"], [made], then_branch=then, else_branch=other),
    ]


def test_branches_that_fixed_sizes_decide_leave_shapes_known(written: Written) -> None:
    path = written(
        model_of(
            [node("Relu", ["x"], ["a"]), *squeezed("a", "b"),
             node("MatMul", ["b", "w"], ["c"]), *squeezed("c", "d"),
             node("Neg", ["d"], ["y"])],
            {"x": [2, 1, 1, N]},
            weights={"w": EYE, "one": np.array([1])},
        )
    )  # fmt: skip
    assert cut_everywhere(path) == ["a", "b", "c", "d"]
    assert [cut.bytes for cut in cuts(Model.read(path))] == [32] * 4


# First dimensions that are no batch


def audio() -> onnx.ModelProto:
    return model_of(
        [node("Unsqueeze", ["x", "axes"], ["u"]),
         node("Conv", ["u", "k"], ["c"], strides=[2]),
         node("Relu", ["c"], ["y"])],
        {"x": ["samples"]},
        weights={"axes": np.array([0, 1]), "k": np.ones((1, 1, 8), np.float32)},
    )  # fmt: skip


def test_frames_that_are_too_short_are_said_to_be(written: Written) -> None:
    path = written(audio())
    with pytest.raises(
        UnderstudyError, match=r"would be .* larger inputs, or .* --dim 'samples=SIZE'"
    ):
        split(Model.read(path), ["c"], ["y"])
    model = Model.read(path)
    segments = split(model, ["u"], ["y"]).segments
    with pytest.raises(UnderstudyError, match=r"does not run .* --dim 'samples=SIZE'"):
        write_parts(segments, path.parent / "parts", inputs_for(model, None))
    assert cut_everywhere(path, {"samples": 64}) == ["u", "c"]


# Thousands of nodes


def test_long_chain_of_cheap_nodes_takes_no_longer_than_it_is(tmp_path: Path) -> None:
    names = ["x", *(f"t{i}" for i in range(5_000)), "y"]
    nodes = [node("Relu", [a], [b]) for a, b in pairwise(names)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "long.onnx"
    onnx.save(helper.make_model(graph, ir_version=8), path)
    assert len(groups(Model.read(path))) == 1


# Frames that are no pictures


def test_state_and_rate_of_a_model_of_speech_are_made_up_and_measured(
    written: Written,
) -> None:
    proto = model_of(
        [node("Relu", ["x"], ["a"]), node("Cast", ["rate"], ["r"], to=1),
         node("Mul", ["a", "r"], ["b"]), node("Add", ["b", "state"], ["y"])],
        {"x": [1, N], "state": [1, N]},
    )  # fmt: skip
    proto.graph.input.append(
        helper.make_tensor_value_info("rate", TensorProto.INT64, [])
    )
    found = profile(written(proto), Wanted(anchors=1, rounds=2), lambda _: None)
    assert [fact.shape for fact in found.model.inputs] == [(1, N), (1, N), ()]


def test_inputs_that_are_handed_on_as_outputs_are_measured(written: Written) -> None:
    proto = model_of(
        [node("Relu", ["x"], ["a"]), node("Add", ["a", "z"], ["y"])],
        {"x": [1, N], "z": [1, N]},
    )
    for name in ("x", "z"):
        with_output(
            proto, helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, N])
        )
    found = profile(written(proto), Wanted(anchors=1, rounds=2), lambda _: None)
    assert [fact.name for fact in found.model.outputs] == ["y", "x", "z"]


def test_model_that_does_not_run_on_what_is_made_up_says_what_to_give(
    written: Written,
) -> None:
    with pytest.raises(UnderstudyError, match=r"--input, or .* --dim 'samples=SIZE'"):
        profile(
            written(
                model_of(
                    [node("Reshape", ["x", "to"], ["a"]), node("Relu", ["a"], ["y"])],
                    {"x": ["samples"]},
                    weights={"to": np.array([2, 3])},
                )
            ),
            Wanted(),
            lambda _: None,
        )
