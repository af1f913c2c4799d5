"""Head and tail compute what the whole model computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dataflow.errors import MisuseError, UnderstudyError
from graphs.onnx_model import Model
from graphs.rounded import with_codec
from graphs.split import Segment, split, whole
from graphs.submodel import submodel

DISABLED = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ENABLED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
LEVELS = (DISABLED, ENABLED)
SIZE = 6

Arrays = dict[str, np.ndarray]
Save = Callable[..., Path]


def run(
    data: bytes, inputs: Arrays, level: onnxruntime.GraphOptimizationLevel = DISABLED
) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    taken = {i.name: inputs[i.name] for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


def both(model: Model, cut: list[str], x: Arrays, level: object = DISABLED) -> Arrays:
    """Return the outputs of the tail, fed by the head."""
    found = split(model, cut, model.outputs)
    made = run(found.head.data, x, level)
    crossing = dict(zip(found.head.made, made.values(), strict=True))
    return run(found.tail.data, crossing, level)


def cuttable(model: Model) -> list[str]:
    """Return the tensors that separate alone."""
    found = []
    for node in model.nodes:
        try:
            split(model, [node.output[0]], model.outputs)
        except UnderstudyError:
            continue
        found.append(node.output[0])
    return found


def frames(count: int) -> Arrays:
    return {"input": np.random.default_rng(5).random((count, 1, 8, 8), np.float32)}


def rows(count: int) -> Arrays:
    values = np.random.default_rng(6).standard_normal((count, SIZE))
    return {"x": values.astype(np.float32)}


@pytest.mark.parametrize("level", LEVELS)
def test_every_single_cut_of_digits_gives_the_answers_of_the_whole(
    digits: Path, level: onnxruntime.GraphOptimizationLevel
) -> None:
    model = Model.read(digits / "digits.onnx")
    x = frames(3)
    cuts = cuttable(model)
    assert {"features1", "features2", "features3"} <= set(cuts)
    expected = run(model.proto.SerializeToString(), x, level)["logits"]
    for cut in cuts:
        found = both(model, [cut], x, level)["logits"]
        if level == DISABLED:
            assert np.array_equal(found, expected), cut
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), cut


def test_whole_segment_computes_the_file_it_came_from(digits: Path) -> None:
    model = Model.read(digits / "digits.onnx")
    x = frames(2)
    expected = run(model.proto.SerializeToString(), x)["logits"]
    assert np.array_equal(run(whole(model).data, x)["logits"], expected)


def test_same_cut_gives_same_bytes_and_another_cut_another_identity(
    digits: Path,
) -> None:
    def cut_at(name: str) -> Segment:
        model = Model.read(digits / "digits.onnx")
        return split(model, [name], model.outputs).tail

    assert cut_at("features2").data == cut_at("features2").data
    assert cut_at("features2").identity == cut_at("features2").identity
    assert cut_at("features1").identity != cut_at("features2").identity


def test_taps_in_front_of_the_cut_are_exported_by_the_head(digits: Path) -> None:
    model = Model.read(digits / "digits.onnx")
    found = split(model, ["features2"], ["logits", "features1"])
    assert found.head.made == ("features1", "features2")
    assert found.tail.made == ("logits",)
    assert [t.name for t in found.cut] == ["features2"]


def test_batch_stays_open_in_segments_and_is_one_in_tokens(digits: Path) -> None:
    model = Model.read(digits / "digits.onnx")
    tail = split(model, ["features2"], ["logits"]).tail
    declared = onnx.load_model_from_string(tail.data).graph.input[0]
    assert declared.type.tensor_type.shape.dim[0].dim_param == "N"
    sizes = [dim.dim_value for dim in declared.type.tensor_type.shape.dim[1:]]
    assert tail.inputs[0].token.shape == (1, *sizes)


def test_residual_net_is_cut_behind_the_sum_and_at_both_sides_of_it(
    residual: Path,
) -> None:
    model = Model.read(residual)
    x = rows(4)
    expected = run(model.proto.SerializeToString(), x)["y"]
    assert cuttable(model) == ["m0", "a", "c", "d"]
    for cut in (["a"], ["c"], ["d"], ["a", "b"], ["a", "m1"]):
        assert np.array_equal(both(model, cut, x)["y"], expected), cut


def test_cut_inside_a_residual_block_names_what_bypasses_it(residual: Path) -> None:
    with pytest.raises(UnderstudyError) as caught:
        split(Model.read(residual), ["b"], ["y"])
    assert str(caught.value) == (
        f"cut 'b': does not separate {residual}; 'a' bypasses it; cut at a tensor "
        "behind the place where they meet, or at all of [a, b]"
    )


def test_weight_side_nodes_are_copied_to_the_side_that_needs_them(
    residual: Path,
) -> None:
    found = split(Model.read(residual), ["c"], ["y"])
    tail = onnx.load_model_from_string(found.tail.data).graph
    assert [i.name for i in tail.input] == ["c"]
    assert {t.name for t in tail.initializer} == {"w2", "w3"}


def test_input_of_the_model_may_cross_beside_a_tensor(save: Save) -> None:
    path = save(
        "skip",
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Add", ["b", "x"], ["y"]),
        ],
        inputs={"x": ["N", SIZE]},
        outputs={"y": ["N", SIZE]},
        weights={},
    )
    model = Model.read(path)
    x = rows(2)
    found = split(model, ["x", "a"], ["y"])
    assert found.head.made == ("x", "a")
    assert [t.name for t in found.head.outputs] == ["x_copy", "a"]
    assert np.array_equal(
        both(model, ["x", "a"], x)["y"], run(path.read_bytes(), x)["y"]
    )


def test_captures_of_control_flow_count_as_read(save: Save) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["a"], [f"{name}_out"])
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [out])

    path = save(
        "choice",
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("ReduceSum", ["a"], ["s"], keepdims=0),
            helper.make_node("Cast", ["s"], ["big"], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                ["big"],
                ["y"],
                then_branch=branch("then", "Neg"),
                else_branch=branch("else", "Abs"),
            ),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights={},
    )
    model = Model.read(path)
    with pytest.raises(UnderstudyError, match="'a' bypasses it"):
        split(model, ["s"], ["y"])
    x = rows(1)
    expected = run(path.read_bytes(), x)["y"]
    assert np.array_equal(both(model, ["a", "s"], x)["y"], expected)


def test_weights_among_the_inputs_of_an_old_model_are_not_inputs(
    residual: Path,
) -> None:
    proto = onnx.load_model_from_string(residual.read_bytes())
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model = Model(proto, "old.onnx", "0" * 64)
    found = split(model, ["c"], ["y"])
    assert model.inputs == ("x",)
    assert [t.name for t in found.head.inputs] == ["x"]
    assert onnx.load_model_from_string(found.tail.data).ir_version == 4


@pytest.mark.parametrize(
    ("codec", "error_max"), [("float16", 2**-11), ("int8", 0.5 / 255)]
)
def test_codec_is_written_into_the_whole_model_behind_the_cut(
    residual: Path, codec: str, error_max: float
) -> None:
    model = Model.read(residual)
    x = rows(1)
    found = split(model, ["c"], ["y"])
    c = run(found.head.data, x)["c"]
    rounded = np.asarray(c, np.float16).astype(np.float32)
    if codec == "int8":
        step = (
            max(c.max(), 0) / 255
        )  # c is a sum of rectified values, so its least is 0
        rounded = np.float32(np.rint(c / step) * step)
    expected = run(found.tail.data, {"c": rounded})["y"]
    answer = run(with_codec(model, [["c"]], ["y"], codec).data, x)["y"]
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(rounded - c).max() <= error_max * 1.01 * np.abs(c).max()


def test_only_what_lies_behind_the_cut_reads_the_rounded_tensor(digits: Path) -> None:
    model = Model.read(digits / "digits.onnx")
    x = frames(1)
    exact = run(whole(model, ["logits", "features2"]).data, x)
    found = run(
        with_codec(model, [["features1"]], ["logits", "features1"], "int8").data, x
    )
    plain = run(whole(model, ["features1"]).data, x)
    assert np.array_equal(found["features1"], plain["features1"])
    assert not np.array_equal(found["logits"], exact["logits"])


def test_int8_reference_of_an_old_operator_set_is_refused(save: Save) -> None:
    path = save(
        "old",
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Neg", ["a"], ["y"]),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights={},
        opset=9,
    )
    with pytest.raises(UnderstudyError, match="operator set 9 has no DynamicQuant"):
        with_codec(Model.read(path), [["a"]], ["y"], "int8")


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        (
            "feature2",
            "tensor 'feature2': not in {0} (did you mean 'features2'?); list what can "
            "be cut with `understudy split {0}`",
        ),
        (
            "input",
            "cut 'input': an input of {0}, so the head would be empty; map the whole "
            "model to the server instead",
        ),
        (
            "logits",
            "cut 'logits': nothing that is used of {0} lies behind it; cut earlier, or "
            "map the whole model to the endpoint",
        ),
    ],
)
def test_cut_that_cannot_be_is_refused_with_its_reason(
    digits: Path, cut: str, says: str
) -> None:
    path = digits / "digits.onnx"
    with pytest.raises(UnderstudyError) as caught:
        split(Model.read(path), [cut], ["logits"])
    assert str(caught.value) == says.format(path)


def test_weight_as_a_cut_is_refused(residual: Path) -> None:
    with pytest.raises(UnderstudyError, match="tensor 'positive': a weight or const"):
        split(Model.read(residual), ["positive"], ["y"])


def test_open_dimension_other_than_the_batch_is_refused(save: Save) -> None:
    path = save(
        "wide",
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs={"x": ["N", "width"]},
        outputs={"y": ["N", "width"]},
        weights={},
    )
    with pytest.raises(UnderstudyError) as caught:
        Model.read(path).interface()
    assert str(caught.value) == (
        f"tensor 'x': dimension 1 is 'width', not a number; give what is open in "
        f"{path} a size: --dim 'width=SIZE', or as `dims` of its actor"
    )


def test_operator_without_shape_inference_is_named(save: Save) -> None:
    path = save(
        "custom",
        [
            helper.make_node("Magic", ["x"], ["a"], domain="foreign"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights={},
    )
    with pytest.raises(UnderstudyError) as caught:
        split(Model.read(path), ["b"], ["y"])
    assert str(caught.value) == (
        "tensor 'b': its shape cannot be inferred (operator Magic of 'foreign' says "
        f"none); add it to value_info of {path}, or choose another tensor"
    )


def test_both_sides_never_draw_the_same_random_numbers(save: Save) -> None:
    path = save(
        "noise",
        [
            helper.make_node("RandomNormal", [], ["r"], shape=[1, SIZE]),
            helper.make_node("Add", ["x", "r"], ["a"]),
            helper.make_node("Add", ["a", "r"], ["y"]),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights={},
    )
    model = Model.read(path)
    with pytest.raises(UnderstudyError, match="both sides would draw the random"):
        split(model, ["a"], ["y"])
    with pytest.raises(UnderstudyError, match="would both draw the random numbers of"):
        submodel(model, ["a"])


def test_file_that_is_not_onnx_and_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(UnderstudyError, match="not an ONNX file"):
        Model.read(tmp_path / "text.onnx")
    with pytest.raises(MisuseError, match="cannot be read"):
        Model.read(tmp_path / "none.onnx")


def test_external_data_is_read_and_is_part_of_the_identity(residual: Path) -> None:
    proto = onnx.load_model_from_string(residual.read_bytes())
    beside = residual.with_name("external.onnx")
    onnx.save_model(
        proto,
        str(beside),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    model = Model.read(beside)
    x = rows(2)
    assert np.array_equal(
        run(whole(model).data, x)["y"], run(residual.read_bytes(), x)["y"]
    )
    before = model.sha256
    weights = beside.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[::-1])
    assert Model.read(beside).sha256 != before


def test_external_data_that_changed_after_the_model_was_read_is_refused(
    residual: Path,
) -> None:
    beside = residual.with_name("external.onnx")
    proto = onnx.load_model_from_string(residual.read_bytes())
    onnx.save_model(
        proto, str(beside), save_as_external_data=True, location="w", size_threshold=0
    )
    model = Model.read(beside)
    weights = beside.with_name("w")
    weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(UnderstudyError, match="was changed since the model was read"):
        _ = model.sha256
