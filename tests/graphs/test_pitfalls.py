"""What goes wrong when ONNX models are cut, each provoked: handled, or refused.

Named by the symptom that it has where nothing is done against it. More of them are in
`test_pitfalls_of_sizes`, `test_pitfalls_of_weights` and `test_pitfalls_of_nodes`.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
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
from understudy.segment_folder import inputs_for, write_parts

# Weights that are listed as inputs


def test_weights_that_are_listed_as_inputs_are_no_inputs_of_a_part(
    written: Written,
) -> None:
    proto = model_of(
        [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])],
        {"x": [1, N]},
        weights={"w": EYE, "v": EYE},
    )
    proto.ir_version = 3
    for name in ("w", "v"):
        proto.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [N, N])
        )
    path = written(proto)
    assert cut_everywhere(path) == ["a"]
    for number, taken in ((1, "x"), (2, "a")):
        part = file_of(path, number)
        onnx.checker.check_model(part, full_check=True)
        assert [i.name for i in part.graph.input] == [taken]
        assert part.ir_version >= 4


# No declared shapes


def test_model_without_declared_shapes_has_sizes_at_every_cut(written: Written) -> None:
    proto = model_of(
        [node("Relu", ["x"], ["a"]), node("Flatten", ["a"], ["b"]),
         node("Relu", ["b"], ["y"])],
        {"x": [1, 2, 3]},
    )  # fmt: skip
    del proto.graph.value_info[:]
    path = written(proto)
    assert [cut.bytes for cut in cuts(Model.read(path))] == [24, 24]
    assert cut_everywhere(path) == ["a", "b"]


# Operators that onnx does not know


def test_shape_behind_an_operator_that_onnx_does_not_know_is_seen_in_a_run(
    written: Written,
) -> None:
    path = written(
        model_of(
            [
                node("BiasGelu", ["x", "bias"], ["a"], domain="com.microsoft"),
                node("MatMul", ["a", "w"], ["b"]),
                node("Relu", ["b"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"bias": EYE[0], "w": EYE},
        )
    )
    assert str(Model.read(path).tensor("b").token) == "float32[1,4]"
    assert cut_everywhere(path) == ["a", "b"]


def test_operator_that_nobody_knows_is_named(written: Written) -> None:
    path = written(
        model_of(
            [
                node("Relu", ["x"], ["a"]),
                node("Magic", ["a"], ["b"], domain="local"),
                node("Relu", ["b"], ["y"]),
            ],
            {"x": [1, N]},
        )
    )
    model = Model.read(path)
    assert {c.tensors: c.bytes for c in cuts(model)} == {("a",): 16, ("b",): None}
    with pytest.raises(UnderstudyError, match="operator Magic of 'local' says none"):
        split(model, ["b"], ["y"])


# Nodes on weights


def test_nodes_on_weights_are_no_cuts_and_do_not_widen_them(written: Written) -> None:
    path = written(
        model_of(
            [
                node("Transpose", ["w"], ["t"]),
                node("MatMul", ["x", "t"], ["a"]),
                node("Relu", ["a"], ["b"]),
                node("MatMul", ["b", "t"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE},
        )
    )
    assert [(c.tensors, c.nodes) for c in cuts(Model.read(path))] == [
        (("a",), 1),
        (("b",), 2),
    ]
    cut_everywhere(path)
    assert "Transpose" in [n.op_type for n in file_of(path, 1).graph.node]
    assert "Transpose" in [n.op_type for n in file_of(path, 2).graph.node]


# A tail that lacks an input


def test_tail_that_lacks_the_input_is_refused_and_not_returned(
    written: Written,
) -> None:
    path = written(
        model_of(
            [
                node("MatMul", ["x", "w"], ["a"]),
                node("Add", ["a", "x"], ["b"]),
                node("Relu", ["b"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE},
        )
    )
    assert cut_everywhere(path) == ["b"]
    with pytest.raises(UnderstudyError, match="'x' bypasses it"):
        split(Model.read(path), ["a"], ["y"])


# Outputs in front of the cut


def test_outputs_in_front_of_a_cut_are_the_heads(written: Written) -> None:
    path = written(
        model_of(
            [
                node("Relu", ["x"], ["a"]),
                node("MatMul", ["a", "w"], ["early"]),
                node("Sigmoid", ["a"], ["b"]),
                node("MatMul", ["b", "w"], ["y"]),
            ],
            {"x": [1, N]},
            ["early", "y"],
            {"w": EYE},
        )
    )
    assert cut_everywhere(path) == ["a", "b"]
    assert [o.name for o in file_of(path, 1).graph.output] == ["early", "b"]
    assert [o.name for o in file_of(path, 2).graph.output] == ["y"]


def test_output_that_is_also_read_inside_is_exported_and_crosses(
    written: Written,
) -> None:
    path = written(
        model_of(
            [node("Relu", ["x"], ["a"]), node("MatMul", ["a", "w"], ["y"])],
            {"x": [1, N]},
            ["a", "y"],
            {"w": EYE},
        )
    )
    assert cut_everywhere(path) == ["a"]
    assert [o.name for o in file_of(path, 1).graph.output] == ["a"]


# Inputs left out, outputs unused, names of nodes


def test_inputs_left_out_and_outputs_unused_are_no_tensors(written: Written) -> None:
    path = written(
        model_of(
            [
                node("Clip", ["x", "", "most"], ["a"]),
                node("Dropout", ["a"], ["b", "mask"]),
                node("TopK", ["b", "k"], ["values", "places"]),
                node("Cast", ["places"], ["y"], to=TensorProto.FLOAT),
            ],
            {"x": [1, N]},
            weights={"most": np.array(0.5, np.float32), "k": np.array([2])},
        )
    )
    assert cut_everywhere(path) == ["a", "b", "places"]


def test_nodes_without_names_and_with_the_same_name_are_told_apart(
    written: Written,
) -> None:
    names = ["", "", "same", "same"]
    made = ["x", "a", "b", "c", "y"]
    nodes = [
        node("Neg", [a], [b], name=name)
        for name, a, b in zip(names, made, made[1:], strict=False)
    ]
    path = written(model_of(nodes, {"x": [1, N]}))
    model = Model.read(path)
    assert [cut.tensors for cut in cuts(model)] == [("a",), ("b",), ("c",)]
    segments = split(model, ["b"], ["y"]).segments
    # The runtime does not load such a model, so there is nothing to compare with.
    with pytest.raises(UnderstudyError, match="two nodes with same node name"):
        write_parts(segments, path.parent / "parts", inputs_for(model, None))
    write_parts(segments, path.parent / "parts", None)
    for number in (1, 2):
        onnxruntime.InferenceSession(str(path.parent / f"parts/segment-{number}.onnx"))


# Names of tensors, and models that a runtime has renamed


@pytest.mark.parametrize("name", ["/a/b", "a:0", "Ω größe", "two words", "..", "a,b"])
def test_name_of_a_tensor_becomes_no_name_of_a_file(
    written: Written, name: str
) -> None:
    path = written(
        model_of(
            [node("Relu", ["x"], [name]), node("Relu", [name], ["y"])], {"x": [1, N]}
        )
    )
    assert cut_everywhere(path) == [name]
    assert {p.name for p in (path.parent / "parts").iterdir()} == {
        *("segment-1.onnx", "segment-2.onnx", "split.json")
    }
    assert groups(Model.read(path))[0].name.isidentifier()


def test_model_that_a_runtime_has_optimised_is_bound_to_a_processor_and_refused(
    tmp_path: Path, digits: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(digits / "digits.onnx"), options)
    assert "nchwc" in (tmp_path / "optimised.onnx").read_bytes().decode("latin1")
    with pytest.raises(UnderstudyError, match="give the model as it was exported"):
        Model.read(tmp_path / "optimised.onnx")


# Order


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (["b", "a", "y"], "tensor 'a' is read before it is made"),
        (["a", "a", "y"], "tensor 'a' is made twice"),
    ],
)
def test_nodes_in_an_order_that_is_none_are_refused(
    written: Written, made: list[str], said: str
) -> None:
    read = {"a": "x", "b": "a", "y": "a"}
    proto = model_of([node("Relu", ["x"], ["y"])], {"x": [1, N]})
    del proto.graph.node[:]
    proto.graph.node.extend(node("Neg", [read[name]], [name]) for name in made)
    with pytest.raises(UnderstudyError, match=said):
        Model.read(written(proto))
