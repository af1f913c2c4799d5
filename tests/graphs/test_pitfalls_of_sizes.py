"""Sizes computed, open or decided by the data: provoked, handled or refused."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from actors.trial import some
from dataflow.errors import MisuseError, UnderstudyError
from graphs.cuts import cuts
from graphs.onnx_model import Model
from graphs.split import split
from tests.support.small_models import (
    EYE,
    N,
    Shape,
    Written,
    cut_everywhere,
    file_of,
    model_of,
    node,
)

# Shapes read far from where they are used


def reshaping(target: Sequence[onnx.NodeProto], sizes: Shape) -> onnx.ModelProto:
    """Return x -> conv -> relu -> reshape to what `target` computes -> y."""
    return model_of(
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), *target,
         node("Reshape", ["b", "target"], ["c"]), node("Relu", ["c"], ["y"])],
        {"x": sizes},
        weights={
            "w": np.ones((2, 3, 1, 1), np.float32),
            "zero": np.array(0),
            "two": np.array(2),
            "three": np.array(3),
            "rest": np.array([-1]),
            "axis": np.array([0]),
        },
    )  # fmt: skip


def size_of(read: str, which: str, made: str) -> list[onnx.NodeProto]:
    """Return what an exporter writes for ``made = read.size(which)``."""
    return [
        node("Shape", [read], [f"{made}_shape"]),
        node("Gather", [f"{made}_shape", which], [f"{made}_one"], axis=0),
        node("Unsqueeze", [f"{made}_one", "axis"], [made]),
    ]


FLAT = [*size_of("x", "zero", "n"), node("Concat", ["n", "rest"], ["target"], axis=0)]
"""As in ``b.view(x.size(0), -1)``."""
HEIGHT = [
    *(*size_of("x", "zero", "n"), *size_of("x", "two", "h")),
    node("Concat", ["n", "rest", "h"], ["target"], axis=0),
]


@pytest.mark.parametrize("sizes", [[1, 3, 4, 4], ["N", 3, 4, 4]], ids=["fixed", "open"])
@pytest.mark.parametrize("target", [FLAT, HEIGHT], ids=["batch", "batch and height"])
def test_input_crosses_every_cut_because_its_shape_is_read_at_the_end(
    written: Written, target: list[onnx.NodeProto], sizes: Shape
) -> None:
    path = written(reshaping(target, sizes))
    assert cut_everywhere(path) == ["a", "b", "c"]
    assert "Shape" not in [n.op_type for n in file_of(path, 2).graph.node]


WEIGHTS = {
    "w": np.ones((2, 3, 1, 1), np.float32),
    "two": np.array([2]),
    "four": np.array([4]),
    "half": np.array(0.5, np.float32),
    "rest": np.array([-1]),
    "minus": np.array([-1, -1, 4, 4]),
    "flat": np.array([0]),
}
CHAINS = {
    "slice and concat": [
        node("Shape", ["b"], ["s"]), node("Slice", ["s", "two", "four"], ["t"]),
        node("Concat", ["rest", "t"], ["target"], axis=0),
    ],
    "part of a shape": [
        node("Shape", ["b"], ["s"], start=2), node("Identity", ["s"], ["t"]),
        node("Concat", ["rest", "t"], ["target"], axis=0),
    ],
    "floats": [
        node("Shape", ["b"], ["s"], start=3), node("Cast", ["s"], ["f"], to=1),
        node("Mul", ["f", "half"], ["h"]), node("Floor", ["h"], ["g"]),
        node("Cast", ["g"], ["t"], to=7),
        node("Concat", ["rest", "t"], ["target"], axis=0),
    ],
    "product": [
        node("Size", ["b"], ["n"]), node("Unsqueeze", ["n", "flat"], ["u"]),
        node("Div", ["u", "four"], ["d"]),
        node("Concat", ["d", "four"], ["target"], axis=0),
    ],
    "a choice": [
        node("Shape", ["b"], ["s"]), node("Equal", ["minus", "rest"], ["is"]),
        node("Where", ["is", "s", "minus"], ["target"]),
    ],
    "ones": [
        node("Shape", ["b"], ["s"], start=2), node("ConstantOfShape", ["s"], ["z"]),
        node("ReduceSum", ["z"], ["u"], keepdims=0), node("Cast", ["u"], ["v"], to=7),
        node("Shape", ["b"], ["target"]),
    ],
}  # fmt: skip
"""How exporters compute a size, each ending with ``target``."""


@pytest.mark.parametrize("name", CHAINS)
def test_whatever_is_computed_with_fixed_sizes_is_what_a_runtime_computes(
    written: Written, name: str
) -> None:
    path = written(
        model_of(
            [
                node("Conv", ["x", "w"], ["a"]),
                node("Relu", ["a"], ["b"]),
                *CHAINS[name],
                node("Reshape", ["b", "target"], ["c"]),
                node("Relu", ["c"], ["y"]),
            ],
            {"x": [1, 3, 4, 4]},
            weights=WEIGHTS,
        )
    )
    assert cut_everywhere(path) == ["a", "b", "c"]
    operators = {n.op_type for n in Model.read(path).nodes}
    assert operators.isdisjoint({"Shape", "Size", "Slice", "Concat", "Where"})


def test_batch_stays_open_where_the_shape_is_read_at_the_end(written: Written) -> None:
    path = written(reshaping(FLAT, ["N", 3, 4, 4]))
    model = Model.read(path)
    head, tail = split(model, ["b"], ["y"]).segments
    x = some({"x": ("float32", (3, 3, 4, 4))})
    expected = onnxruntime.InferenceSession(str(path)).run(None, x)[0]
    between = onnxruntime.InferenceSession(head.data).run(None, x)[0]
    (found,) = onnxruntime.InferenceSession(tail.data).run(None, {"b": between})
    assert np.array_equal(found, expected)


def test_sizes_that_are_open_cross_beside_the_tensor_and_are_noted(
    written: Written,
) -> None:
    path = written(
        model_of(
            [
                node("Relu", ["x"], ["a"]),
                node("Shape", ["x"], ["s"]),
                node("MatMul", ["a", "w"], ["b"]),
                node("Expand", ["b", "s"], ["c"]),
                node("Relu", ["c"], ["y"]),
            ],
            {"x": ["N", N]},
            weights={"w": EYE},
        )
    )
    noted = {cut.tensors: cut for cut in cuts(Model.read(path))}
    assert noted["s", "b"].bytes == 16 + 16
    assert "includes sizes" in noted["s", "b"].notes
    assert "the raw input crosses too" not in noted["s", "b"].notes
    assert noted["s", "b"].useful


# Sizes that the data decides


def test_outputs_of_variable_size_do_not_keep_a_model_from_being_cut(
    written: Written,
) -> None:
    path = written(
        model_of(
            [
                node("MatMul", ["x", "w"], ["a"]),
                node("Relu", ["a"], ["b"]),
                node("NonZero", ["b"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE},
        )
    )
    model = Model.read(path)
    assert cut_everywhere(path) == ["a", "b"]
    assert [cut.useful for cut in cuts(model)] == [False, True]
    with pytest.raises(UnderstudyError, match="decided by the data"):
        _ = split(model, ["b"], ["y"]).tail.outputs


@pytest.mark.parametrize("op", ["NonZero", "NonMaxSuppression"])
def test_size_that_the_data_decides_is_said_to_be_variable(
    written: Written, op: str
) -> None:
    if op == "NonZero":
        nodes = [node("Relu", ["x"], ["a"]), node("NonZero", ["a"], ["b"])]
        inputs: dict[str, Shape] = {"x": [1, N]}
    else:
        nodes = [
            node("Relu", ["x"], ["a"]),
            node("NonMaxSuppression", ["a", "scores", "most"], ["b"]),
        ]
        inputs = {"x": [1, 6, 4], "scores": [1, 1, 6]}
    weights = {"most": np.array([3])}
    last = node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)
    model = Model.read(written(model_of([*nodes, last], inputs, weights=weights)))
    (cut,) = (cut for cut in cuts(model) if cut.tensors == ("b",))
    assert (cut.bytes, cut.useful, cut.notes[-1]) == (None, False, "variable size")
    with pytest.raises(UnderstudyError, match="decided by the data"):
        split(model, ["b"], ["y"])


# Open dimensions


def sized(sizes: Shape) -> onnx.ModelProto:
    return model_of(
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]),
         node("GlobalAveragePool", ["b"], ["y"])],
        {"x": sizes},
        weights={"w": np.ones((2, 3, 1, 1), np.float32)},
    )  # fmt: skip


def test_open_dimensions_are_named_and_can_be_fixed(written: Written) -> None:
    path = written(sized(["N", 3, "height", "width"]))
    assert [cut.bytes for cut in cuts(Model.read(path))] == [None, None]
    with pytest.raises(
        UnderstudyError,
        match=r"dimension 2 is open, .* --dim 'height=SIZE' --dim 'width=SIZE', or as",
    ):
        split(Model.read(path), ["a"], ["y"])
    assert cut_everywhere(path, {"height": 4, "width": 6}) == ["a", "b"]


def test_open_dimension_without_a_name_is_called_by_its_place(written: Written) -> None:
    proto = sized(["N", 3, 4, "width"])
    proto.graph.input[0].type.tensor_type.shape.dim[3].Clear()
    path = written(proto)
    assert cut_everywhere(path, {"x:3": 6}) == ["a", "b"]
    with pytest.raises(MisuseError, match="open are: N, x:3"):
        Model.read(path, {"width": 6})


def test_model_with_other_sizes_is_another_model(written: Written) -> None:
    path = written(sized(["N", 3, 4, "width"]))
    identities = {
        split(Model.read(path, {"width": width}), ["a"], ["y"]).tail.identity
        for width in (4, 6)
    }
    assert len(identities) == 2
