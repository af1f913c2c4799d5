"""What goes wrong when ONNX models are cut, each provoked: handled, or refused.

Named by the symptom that it has where nothing is done against it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from actors.trial import some
from dataflow.errors import MisuseError, UnderstudyError
from graphs.cuts import cuts
from graphs.groups import groups
from graphs.onnx_model import Model
from graphs.split import split
from understudy.segment_folder import inputs_for, write_parts

Save = Callable[..., Path]
Shape = list[int | str]
N = 4
EYE = np.eye(N, dtype=np.float32) + np.float32(0.25)
BLOCK = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
"""A weight that is large enough to lie outside of the model's file."""


def node(op: str, read: Sequence[str], made: Sequence[str], **given: Any) -> Any:
    return helper.make_node(op, read, made, **given)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: Sequence[str] = ("y",),
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    elem_type: int = TensorProto.FLOAT,
    **given: Any,
) -> onnx.ModelProto:
    """Return a model; its outputs are declared without a shape."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, elem_type, s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    imports = [
        helper.make_opsetid(d, v)
        for d, v in (("", opset), ("com.microsoft", 1), ("local", 1))
    ]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8, **given)
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output
    for declared, found in zip(proto.graph.output, inferred, strict=True):
        declared.CopyFrom(found)
        if not declared.type.HasField("tensor_type"):
            declared.type.tensor_type.elem_type = TensorProto.FLOAT
    return proto


@pytest.fixture
def written(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def written(proto: onnx.ModelProto) -> Path:
        path = tmp_path / "net.onnx"
        path.write_bytes(proto.SerializeToString())
        return path

    return written


Written = Callable[[onnx.ModelProto], Path]


def cut_everywhere(path: Path, sizes: dict[str, int] | None = None) -> list[str]:
    """Cut at every place where one tensor separates, write, run and compare.

    Returns:
        The tensors.
    """
    model = Model.read(path, sizes)
    given = inputs_for(model, None)
    alone = [c.tensors for c in cuts(model) if len(c.tensors) == 1 and c.bytes]
    for names in alone:
        segments = split(model, names, model.outputs).segments
        write_parts(segments, path.parent / "parts", given)
    return [name for (name,) in alone]


def file_of(path: Path, number: int) -> onnx.ModelProto:
    return onnx.load(path.parent / "parts" / f"segment-{number}.onnx")


# 1


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


# 2


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


# 3


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


# 4


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


# 5


def branch(name: str, nodes: Sequence[onnx.NodeProto], made: str) -> onnx.GraphProto:
    info = helper.make_tensor_value_info(made, TensorProto.FLOAT, [1, N])
    return helper.make_graph(list(nodes), name, [], [info])


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
                conditional("a", "c", deep=deep),
                node("Relu", ["c"], ["d"]),
                node("MatMul", ["d", "w"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE, "yes": np.array(True)},
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
                conditional("a", "c"),
                node("Add", ["s", "c"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": EYE, "yes": np.array(True)},
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
    return node("Loop", ["three", "yes", state], [made], body=body)


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
            weights={"w": EYE, "three": np.array(3), "yes": np.array(True)},
        )
    )
    assert "a" in cut_everywhere(path)
    with pytest.raises(UnderstudyError, match="'a' bypasses it"):
        split(Model.read(path), ["b"], ["y"])


# 6


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


# 7


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


# 8


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


# 9, and more than 2 GB


def apart(path: Path, proto: onnx.ModelProto, location: str = "weights.data") -> Path:
    """Save a model with its weights in another file."""
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        location=location,
        size_threshold=1,
    )
    return path


def wide() -> onnx.ModelProto:
    return model_of(
        [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]),
         node("MatMul", ["b", "w"], ["y"])],
        {"x": [1, 64]},
        weights={"w": BLOCK},
    )  # fmt: skip


def test_parts_that_are_written_elsewhere_have_their_weights_with_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "models").mkdir()
    path = apart(tmp_path / "models" / "net.onnx", wide())
    model = Model.read(path)
    parts = tmp_path / "elsewhere"
    segments = split(model, ["b"], ["y"]).segments
    write_parts(segments, parts, inputs_for(model, None))
    assert (parts / "weights.bin").stat().st_size == BLOCK.nbytes
    moved = parts.rename(tmp_path / "moved")
    session = onnxruntime.InferenceSession(str(moved / "segment-2.onnx"))
    assert [i.name for i in session.get_inputs()] == ["b"]


def test_weights_are_not_loaded_to_cut(tmp_path: Path) -> None:
    model = Model.read(apart(tmp_path / "net.onnx", wide()))
    assert cuts(model)
    assert not any(t.raw_data for t in model.proto.graph.initializer)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../../etc/passwd"}, "outside of the model's folder"),
        ({"location": "/etc/passwd"}, "outside of the model's folder"),
        ({"location": ""}, "outside of the model's folder"),
        ({"location": "link"}, "outside of the model's folder"),
        ({"location": "missing.data"}, "put the weights beside the model"),
        ({"location": "."}, "put the weights beside the model"),
        ({"offset": "8"}, "ends at byte 16392 of"),
        ({"offset": "-8"}, "from -8 on"),
        ({"offset": "x"}, "from x on"),
        ({"length": "99999"}, "is said to be 99999 bytes"),
        ({"length": "64"}, "is said to be 64 bytes"),
    ],
)
def test_place_of_weights_that_leads_astray_is_refused(
    tmp_path: Path, entries: dict[str, str], said: str
) -> None:
    path = apart(tmp_path / "net.onnx", wide())
    (tmp_path / "link").symlink_to("/etc/passwd")
    proto = onnx.load(path, load_external_data=False)
    (tensor,) = proto.graph.initializer
    known = {entry.key: entry.value for entry in tensor.external_data}
    del tensor.external_data[:]
    for key, value in {**known, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnderstudyError) as caught:
        Model.read(path)
    assert str(caught.value).startswith(f"model {path}: weight 'w'")
    assert said in str(caught.value)


@pytest.mark.slow
def test_model_of_more_than_2_gb_is_cut_and_its_parts_run(tmp_path: Path) -> None:
    """Its weights are a hole in a file: zeros that take no room on the disk."""
    names, wide_by = [f"w{i}" for i in range(9)], 8192
    size = 4 * wide_by**2
    proto = model_of(
        [node("MatMul", [f"a{i}" if i else "x", name], [f"a{i + 1}"])
         for i, name in enumerate(names)],
        {"x": [1, wide_by]},
        ["a9"],
    )  # fmt: skip
    for index, name in enumerate(names):
        tensor = proto.graph.initializer.add(name=name, data_type=TensorProto.FLOAT)
        tensor.dims.extend([wide_by, wide_by])
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": "zeros", "offset": index * size, "length": size}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(len(names) * size)
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    model = Model.read(path)
    assert [c.tensors for c in cuts(model)] == [(f"a{i}",) for i in range(1, 9)]
    segments = split(model, ["a4"], ["a9"]).segments
    verdicts = write_parts(segments, tmp_path / "parts", inputs_for(model, None))
    assert verdicts[0].holds
    assert (tmp_path / "parts" / "weights.bin").stat().st_size == len(names) * size


def test_file_that_no_protobuf_can_hold_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UnderstudyError, match="export it with its weights as external"):
        Model.read(path)


# 10


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


# 11


def test_sparse_weights_annotations_and_metadata_are_not_lost(
    written: Written,
) -> None:
    proto = model_of(
        [node("MatMul", ["x", "s"], ["a"]), node("Relu", ["a"], ["b"]),
         node("MatMul", ["b", "s"], ["y"])],
        {"x": [1, N]},
        weights={"scale": np.array(0.5, np.float32), "zero": np.array(0, np.uint8)},
    )  # fmt: skip
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(np.array([1.5, 2.5], np.float32), "s"),
            numpy_helper.from_array(np.array([0, 9])),
            [N, N],
        )
    )
    note = proto.graph.quantization_annotation.add(tensor_name="a")
    for key, value in (("SCALE_TENSOR", "scale"), ("ZERO_POINT_TENSOR", "zero")):
        note.quant_parameter_tensor_names.add(key=key, value=value)
    proto.doc_string = "what it is for"
    proto.metadata_props.add(key="author", value="somebody")
    path = written(proto)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    assert cut_everywhere(path) == ["a", "b"]
    head, tail = file_of(path, 1), file_of(path, 2)
    for part in (head, tail):
        assert part.doc_string == "what it is for"
        assert [(p.key, p.value) for p in part.metadata_props] == [
            ("author", "somebody")
        ]
        assert [s.values.name for s in part.graph.sparse_initializer] == ["s"]
    (kept,) = head.graph.quantization_annotation
    assert kept.tensor_name == "a"
    assert {"scale", "zero"} <= {t.name for t in head.graph.initializer}


# 12


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


# 13


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


# 14


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


# 15


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
    assert [cut.tensors for cut in cuts(Model.read(path))] == [("x", "a")]
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


# 16


def quantised(path: Path, model: Path, shape: tuple[int, ...]) -> Path:
    """Write a model quantised to QDQ, calibrated on random frames."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(3)
            self._frames = iter(rng.random((8, *shape)).astype(np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            frame = next(self._frames, None)
            return None if frame is None else {"input": frame}

    quantize_static(
        str(model),
        str(path),
        Frames(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


@pytest.fixture
def qdq(tmp_path: Path, digits: Path) -> Path:
    return quantised(tmp_path / "qdq.onnx", digits / "digits.onnx", (1, 1, 8, 8))


def test_quantised_model_is_cut_at_the_quantised_tensor_with_a_quarter_of_the_bytes(
    qdq: Path, digits: Path
) -> None:
    plain = {c.tensors[0]: c for c in cuts(Model.read(digits / "digits.onnx"))}
    found = {c.tensors[0]: c for c in cuts(Model.read(qdq)) if len(c.tensors) == 1}
    small = found["features2_QuantizeLinear_Output"]
    assert small.bytes is not None
    assert small.bytes * 4 == plain["features2"].bytes
    assert small.useful
    assert not found["features2_DequantizeLinear_Output"].useful


def test_quantised_model_computes_the_same_in_parts(qdq: Path) -> None:
    assert "features2_QuantizeLinear_Output" in cut_everywhere(qdq)


# 17


def test_no_code_asks_for_tools_that_do_not_exist_or_drop_inputs() -> None:
    root = Path(__file__).parents[2]
    for package in ("graphs", "actors", "understudy"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text()
            assert "onnxruntime.tools" not in text, path
            assert "from onnx.utils" not in text, path


# Dynamic dimensions


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
    with pytest.raises(UnderstudyError, match="dimension 2 is open, not a number"):
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
