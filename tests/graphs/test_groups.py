"""Layer groups: a partition of every model that computes what the model computes."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dataflow.errors import UnderstudyError
from graphs.groups import Group, groups
from graphs.onnx_model import Model
from graphs.split import whole
from graphs.submodel import submodel
from tests.support.light import HUGE, SMALL, light_model, with_weights

DISABLED = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ENABLED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
SIZE = 6

Arrays = dict[str, np.ndarray]
Save = Callable[..., Path]
Level = onnxruntime.GraphOptimizationLevel


def run(data: bytes, given: Arrays, level: Level) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    taken = {i.name: given[i.name] for i in session.get_inputs()}
    return list(session.run([o.name for o in session.get_outputs()], taken))


def some(model: Model) -> Arrays:
    rng = np.random.default_rng(2)
    shapes = {t.name: t.token.shape for t in model.interface()[0]}
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def group_by_group(model: Model, given: Arrays, level: Level) -> Arrays:
    """Return every tensor that crosses, each group run by itself."""
    known = dict(given)
    for group in groups(model):
        segment = group.part.segment(group.part.outputs)
        known |= dict(zip(segment.made, run(segment.data, known, level), strict=True))
    return known


def operators(model: Model, group: Group) -> str:
    dynamic = (model.nodes[i] for i in group.nodes)
    return " ".join(
        n.op_type for n in dynamic if not model.dynamic.isdisjoint(n.output)
    )


def listed(path: Path) -> list[str]:
    """Return the operators of each group of a model, constants left out."""
    model = Model.read(path)
    return [operators(model, group) for group in groups(model)]


@pytest.mark.parametrize("name", [*SMALL, *HUGE])
def test_every_node_is_in_one_group_and_each_group_behind_what_feeds_it(
    name: str,
) -> None:
    model = Model.read(light_model(name))
    found = groups(model)
    assert sorted(i for g in found for i in g.nodes) == [*range(len(model.nodes))]
    assert len({g.name for g in found}) == len(found)
    assert all(re.fullmatch(r"\w+", g.name) for g in found)
    known = set(model.inputs)
    for group in found:
        assert set(group.part.inputs) <= known
        assert len(group.part.outputs) == 1
        assert submodel(model, group.part.inputs, group.part.outputs) == group.part
        known.update(group.part.outputs)
    assert set(model.outputs) <= known


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in HUGE)]
)
def test_groups_compute_what_the_model_computes(name: str) -> None:
    """All that crosses, bit by bit; with optimisation, what the last group reads."""
    model = Model(with_weights(name), name, "0" * 64)
    x = some(model)
    found = groups(model)
    crossing = [tensor for group in found for tensor in group.part.outputs]
    expected = run(whole(model, crossing).data, x, DISABLED)
    known = group_by_group(model, x, DISABLED)
    for tensor, value in zip(whole(model, crossing).made, expected, strict=True):
        assert np.isfinite(value).all()
        assert np.array_equal(known[tensor], value), tensor
    ends = whole(model, (*model.outputs, *found[-1].part.inputs))
    known = group_by_group(model, x, ENABLED)
    for tensor, value in zip(ends.made, run(ends.data, x, ENABLED), strict=True):
        assert np.abs(known[tensor] - value).max() <= 1e-4 * np.abs(value).max()


def test_convolution_normalisation_and_activation_are_one_group() -> None:
    counts = Counter(listed(light_model("resnet50")))
    assert counts == {
        "Conv BatchNormalization Relu": 33,
        "Conv BatchNormalization": 20,
        "Sum Relu": 16,
        "MaxPool": 1,
        "AveragePool Reshape": 1,
        "Gemm Softmax": 1,
    }


def test_groups_are_named_after_what_they_make(digits: Path) -> None:
    found = groups(Model.read(digits / "digits.onnx"))
    assert [g.name for g in found][:4] == [
        "stem_relu_out",
        "stage1_block0_relu0_out",
        "stage1_block0_conv1_out",
        "features1",
    ]
    assert [str(t.token) for t in found[3].part.interface()[0]] == [
        "float32[1,8,8,8]"
    ] * 2


def node(text: str, **attributes: object) -> onnx.NodeProto:
    """Return the node that ``y = Op(a, b)`` writes."""
    made, _, rest = text.partition(" = ")
    op, _, read = rest.rstrip(")").partition("(")
    return helper.make_node(op, re.findall(r"\w+", read), [made], **attributes)


def linear(made: str, read: str) -> onnx.NodeProto:
    return node(f"{made} = MatMul({read}, w)")


WEIGHTS = {
    "w": np.eye(SIZE, dtype=np.float32),
    "half": np.full(SIZE, 0.5, np.float32),
}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param(
            [linear("a", "x"), node("s = Sigmoid(a)"), node("b = Mul(a, s)")],
            ["MatMul Sigmoid Mul", "MatMul"],
            id="a product with its own sigmoid",
        ),
        pytest.param(
            [linear("a", "x"), node("t = Add(a, half)"), node("b = Relu(t)")],
            ["MatMul Add Relu", "MatMul"],
            id="a bias",
        ),
        pytest.param(
            [linear("a", "x"), node("r = Relu(a)"), node("b = Add(r, a)")],
            ["MatMul Relu Add", "MatMul"],
            id="a skip inside",
        ),
        pytest.param(
            [linear("a", "x"), node("r = Relu(a)"), linear("m", "r"),
             node("b = Add(m, a)")],
            ["MatMul", "Relu", "MatMul", "Add", "MatMul"],
            id="a skip over another layer",
        ),
        pytest.param(
            [linear("a", "x"), node("s = Shape(a)"), node("f = Flatten(a)"),
             node("b = Reshape(f, s)")],
            ["MatMul Flatten Reshape", "MatMul"],
            id="a shape that is constant, save for a batch that stays as it is",
        ),
        pytest.param(
            [linear("a", "x"), node("s = Shape(a)"), linear("m", "a"),
             node("e = Expand(m, s)"), node("b = Relu(e)")],
            ["MatMul", "MatMul", "Shape Expand Relu", "MatMul"],
            id="a shape past another layer joins its one reader",
        ),
        pytest.param(
            [linear("a", "x"), node("s = Shape(a)"), node("m = Expand(a, s)"),
             linear("n", "m"), node("b = Expand(n, s)")],
            ["MatMul", "Shape Expand MatMul Expand", "MatMul"],
            id="two readers of a shape become one",
        ),
    ],
)  # fmt: skip
def test_group_ends_where_one_tensor_leaves(
    save: Save, nodes: list[onnx.NodeProto], expected: list[str]
) -> None:
    path = save(
        "net",
        [*nodes, linear("y", "b")],
        inputs={"x": ["N", SIZE]},
        outputs={"y": ["N", SIZE]},
        weights=WEIGHTS,
    )
    assert listed(path) == expected
    model = Model.read(path)
    expected_y = run(path.read_bytes(), some(model), DISABLED)
    assert np.array_equal(
        group_by_group(model, some(model), DISABLED)["y"], expected_y[0]
    )


def test_output_of_the_model_ends_its_group(save: Save) -> None:
    path = save(
        "net",
        [linear("a", "x"), node("y = Relu(a)")],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE], "a": [1, SIZE]},
        weights=WEIGHTS,
    )
    assert listed(path) == ["MatMul", "Relu"]


def test_tensor_without_a_fixed_size_stays_inside(save: Save) -> None:
    path = save(
        "net",
        [
            linear("a", "x"),
            node("where = NonZero(a)"),
            node("turned = Transpose(where)"),
            node("found = GatherND(a, turned)"),
            node("n = ReduceSum(found)", keepdims=0),
            node("y = Mul(x, n)"),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights=WEIGHTS,
    )
    assert listed(path) == ["MatMul", "NonZero Transpose GatherND ReduceSum", "Mul"]


def test_random_numbers_that_two_read_are_drawn_in_one_group(save: Save) -> None:
    path = save(
        "net",
        [
            node("r = RandomNormal()", shape=[1, SIZE]),
            linear("a", "x"),
            node("b = Add(a, r)"),
            linear("m", "b"),
            node("y = Add(m, r)"),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights=WEIGHTS,
    )
    assert listed(path) == ["MatMul Add MatMul Add"]


def test_padding_and_dequantising_belong_to_what_they_prepare(tmp_path: Path) -> None:
    """A cut then stands at the quantised tensor, a quarter of the bytes."""
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        [
            node("q = QuantizeLinear(x, scale, zero)"),
            node("d = DequantizeLinear(q, scale, zero)"),
            node("c = Conv(d, w)"),
            node("r = Relu(c)"),
            node("p = QuantizeLinear(r, scale, zero)"),
            node("e = DequantizeLinear(p, scale, zero)"),
            node("f = Pad(e, pads)"),
            node("y = Conv(f, w)"),
        ],
        "quantised",
        [helper.make_tensor_value_info("x", float32, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", float32, [1, 2, 6, 6])],
        [
            numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w"),
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(7), "zero"),
            numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "quantised.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    assert listed(path) == [
        "QuantizeLinear",
        "DequantizeLinear Conv Relu QuantizeLinear",
        "DequantizeLinear Pad Conv",
    ]
    crossing = [
        str(t.token) for g in groups(Model.read(path)) for t in g.part.interface()[1]
    ]
    assert crossing == ["uint8[1,2,4,4]", "uint8[1,2,4,4]", "float32[1,2,6,6]"]


def test_constants_belong_to_the_first_group_that_reads_them(save: Save) -> None:
    path = save(
        "net",
        [
            node("positive = Relu(w)"),
            node("a = MatMul(x, positive)"),
            node("y = MatMul(a, positive)"),
        ],
        inputs={"x": [1, SIZE]},
        outputs={"y": [1, SIZE]},
        weights=WEIGHTS,
    )
    assert [group.nodes for group in groups(Model.read(path))] == [(0, 1), (2,)]


def test_model_whose_output_has_no_fixed_size_has_no_groups(save: Save) -> None:
    path = save(
        "net",
        [node("y = Relu(x)")],
        inputs={"x": ["N", "width"]},
        outputs={"y": ["N", "width"]},
        weights={},
    )
    with pytest.raises(UnderstudyError, match="dimension 1 is 'width', not a number"):
        groups(Model.read(path))
