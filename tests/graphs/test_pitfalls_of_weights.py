"""Weights elsewhere, in other forms, too many: provoked, handled or refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dataflow.errors import UnderstudyError
from graphs.cuts import cuts
from graphs.onnx_model import Model
from graphs.split import split
from tests.support.small_models import (
    N,
    Written,
    cut_everywhere,
    file_of,
    model_of,
    node,
)
from understudy.segment_folder import inputs_for, write_parts

BLOCK = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
"""A weight that is large enough to lie outside of the model's file."""


# Weights in other files, and more than 2 GB of them


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


def put(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say that the data of a tensor lies elsewhere."""
    tensor.data_location = TensorProto.EXTERNAL
    places = {"location": location, "offset": offset, "length": length}
    for key, value in places.items():
        tensor.external_data.add(key=key, value=str(value))


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


def test_weights_of_branches_with_the_same_name_are_not_mixed_up(
    tmp_path: Path,
) -> None:
    def branch(name: str, weight: np.ndarray) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64])
        held = [numpy_helper.from_array(weight, "w")]
        product = node("MatMul", ["b", "w"], [name])
        return helper.make_graph([product], name, [], [out], held)

    chosen = node(
        "If",
        ["yes"],
        ["c"],
        then_branch=branch("then", BLOCK),
        else_branch=branch("else", BLOCK.T.copy()),
    )
    proto = model_of(
        [
            node("Relu", ["x"], ["a"]),
            node("Neg", ["a"], ["b"]),
            node("ReduceSum", ["b"], ["sum"], keepdims=0),
            node("Less", ["sum", "zero"], ["yes"]),
            chosen,
            node("Relu", ["c"], ["y"]),
        ],
        {"x": [1, 64]},
        weights={"zero": np.array(0, np.float32)},
    )
    path = apart(tmp_path / "net.onnx", proto)
    loaded = onnx.load(path, load_external_data=False)
    branches = loaded.graph.node[4].attribute
    for which, weight in enumerate(branch.g.initializer[0] for branch in branches):
        offset, data = which * BLOCK.nbytes, (BLOCK, BLOCK.T)[which].tobytes()
        with (tmp_path / "branches").open("r+b" if which else "wb") as file:
            file.seek(offset)
            file.write(data)
        weight.ClearField("raw_data")
        del weight.external_data[:]
        put(weight, "branches", offset, BLOCK.nbytes)
    path.write_bytes(loaded.SerializeToString())
    assert cut_everywhere(path) == ["a", "b", "c"]


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
        put(tensor, "zeros", index * size, size)
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
    (tmp_path / "parts" / "weights.bin").unlink()  # no hole any more


def test_file_that_no_protobuf_can_hold_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UnderstudyError, match="export it with its weights as external"):
        Model.read(path)


# Sparse weights, annotations, metadata


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


# Quantised models


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


# Half precision


def test_float16_that_crosses_is_rounded_and_not_said_to_be_wrong(
    written: Written,
) -> None:
    """A processor without float16 keeps float32 between the nodes of the whole."""
    weight = np.random.default_rng(6).standard_normal((N, N)).astype(np.float16)
    path = written(
        model_of(
            [
                node("MatMul", ["x", "w"], ["a"]),
                node("MatMul", ["a", "w"], ["b"]),
                node("Sqrt", ["s"], ["t"]),
                node("MatMul", ["b", "w"], ["c"]),
                node("Mul", ["c", "t"], ["y"]),
            ],
            {"x": [1, N]},
            weights={"w": weight, "s": np.array(3, np.float16)},
            elem_type=TensorProto.FLOAT16,
        )
    )
    assert cut_everywhere(path) == ["a", "b", "c"]
    model = Model.read(path)
    segments = split(model, ["b"], ["y"]).segments
    (verdict,) = write_parts(segments, path.parent / "parts", inputs_for(model, None))
    assert str(verdict).endswith("float16 crosses, which rounds")
