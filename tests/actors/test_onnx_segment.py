import gc
import hashlib
import os
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, save

from actors.onnx_segment import OnnxSegment
from actors.sessions import SESSIONS, Settings
from dataflow.errors import ActorError, UnderstudyError

X = ["x", "float32", [1, 3]]
TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"
DOUBLE = ["y/2x:0", "float32", [1, 3]]
SUM = ["sum", "float32", [1, 3]]


def params(path, inputs=(X,), outputs=(DOUBLE,)):
    return {"file": str(path), "inputs": [*inputs], "outputs": [*outputs]}


def token(*numbers):
    return np.array([numbers], np.float32)


@pytest.fixture
def start(site):
    """Return a function that starts a segment, stopped after the test."""
    segments = []

    def _start(given, where=site):
        segments.append(OnnxSegment(given, where))
        segments[-1].start()
        return segments[-1]

    yield _start
    for segment in segments:
        segment.stop()
    assert len(SESSIONS) == 0


def test_ports_are_named_after_tensors(affine):
    ports = OnnxSegment.ports(params(affine(), outputs=[DOUBLE, SUM]))
    assert [(p.name, p.direction, str(p.token)) for p in ports] == [
        ("x", "in", "float32[1,3]"),
        ("y_2x_0", "out", "float32[1,3]"),
        ("sum", "out", "float32[1,3]"),
    ]


def test_firing_computes_what_the_model_says(affine, start):
    one = start(params(affine(), outputs=[SUM]))
    np.testing.assert_array_equal(one.fire(token(1, 2, 3)), token(2, 3, 4))
    both = start(params(affine(), outputs=[SUM, DOUBLE]))
    total, double = both.fire(token(1, 2, 3))
    np.testing.assert_array_equal(total, token(2, 3, 4))
    np.testing.assert_array_equal(double, token(2, 4, 6))


def test_output_named_twice_has_two_ports_of_one_memory(affine, start):
    given = params(affine(), outputs=[SUM, DOUBLE, SUM])
    names = [p.name for p in OnnxSegment.ports(given) if p.direction == "out"]
    assert names == ["sum", "y_2x_0", "sum_2"]
    total, double, again = start(given).fire(token(1, 2, 3))
    assert again is total
    np.testing.assert_array_equal(total, token(2, 3, 4))
    np.testing.assert_array_equal(double, token(2, 4, 6))


def test_shipped_network_gives_what_session_run_gives(start):
    path = Path(__file__).parents[2] / "graphs/digits/digits.onnx"
    session = onnxruntime.InferenceSession(path)
    segment = start(
        params(
            path,
            [["input", "float32", [1, 1, 8, 8]]],
            [["logits", "float32", [1, 10]]],
        )
    )
    frames = np.random.default_rng(1).random((9, 1, 1, 8, 8), np.float32)
    for frame in frames:
        (expected,) = session.run(["logits"], {"input": frame})
        np.testing.assert_allclose(segment.fire(frame), expected, rtol=1e-5, atol=1e-5)


def test_latest_outputs_stay_unchanged_while_firing_on(affine, start, site):
    segment = start(params(affine()))
    latest = [segment.fire(token(n, n, n)) for n in range(site.slots)]
    for n, out in enumerate(latest):
        np.testing.assert_array_equal(out, token(2 * n, 2 * n, 2 * n))
    assert segment.fire(token(9, 9, 9)) is latest[0]


def test_input_memory_may_be_used_again_or_be_anywhere(affine, start):
    segment = start(params(affine()))
    same = token(0, 0, 0)
    for n in range(20):
        same[:] = n
        np.testing.assert_array_equal(segment.fire(same), same * 2)
        elsewhere = token(n, n, n + 1)
        np.testing.assert_array_equal(segment.fire(elsewhere), elsewhere * 2)


def test_received_input_may_be_read_only_strided_or_unaligned(affine, start):
    segment = start(params(affine()))
    strided = np.arange(12, dtype=np.float32).reshape(2, 6)[:1, ::2]
    unaligned = np.frombuffer(b"..." + token(5, 6, 7).tobytes(), np.uint8)[3:]
    unaligned = unaligned.view(np.float32).reshape(1, 3)
    for _ in range(10):
        for array in (strided, unaligned):
            np.testing.assert_array_equal(segment.fire(array), array * 2)


def test_inputs_are_kept_alive_for_one_round_of_the_ring_only(affine, start, site):
    segment = start(params(affine()))
    received = [token(n, n, n) for n in range(20)]
    alive = [weakref.ref(array) for array in received]
    while received:
        segment.fire(received.pop(0))
    gc.collect()
    assert sum(ref() is not None for ref in alive) == site.slots


def test_chain_binds_each_memory_once(affine, start, site):
    first, second = (start(params(affine())) for _ in range(2))
    source = token(1, 2, 3)
    for _ in range(site.slots):
        second.fire(first.fire(source))
    second._bind = None  # would fail if it were called
    for _ in range(3 * site.slots):
        np.testing.assert_array_equal(second.fire(first.fire(source)), source * 4)


@pytest.mark.parametrize(
    ("dtype", "onnx_type", "shape"),
    [
        ("float32", TensorProto.FLOAT, ()),
        ("float16", TensorProto.FLOAT16, (2,)),
        ("float64", TensorProto.DOUBLE, (2,)),
        ("uint8", TensorProto.UINT8, (1, 5)),
        ("int64", TensorProto.INT64, (1,)),
        ("int32", TensorProto.INT32, (3,)),
        ("bool", TensorProto.BOOL, (3,)),
    ],
)
def test_token_types_go_through_a_model(tmp_path, start, dtype, onnx_type, shape):
    a, b = (helper.make_tensor_value_info(n, onnx_type, shape) for n in "ab")
    node = helper.make_node("Identity", ["a"], ["b"])
    model = helper.make_model(
        helper.make_graph([node], "same", [a], [b]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    save(model, tmp_path / "same.onnx")
    segment = start(
        params(
            tmp_path / "same.onnx",
            [["a", dtype, list(shape)]],
            [["b", dtype, list(shape)]],
        )
    )
    value = np.ones(shape, dtype)
    out = segment.fire(value)
    assert (out.dtype, out.shape) == (value.dtype, shape)
    np.testing.assert_array_equal(out, value)


def test_actors_of_one_file_share_a_session(affine, start):
    path = affine()
    segments = [start(params(path)) for _ in range(3)]
    other = start(params(affine("other.onnx")))
    assert len({id(s._session) for s in segments}) == 1
    assert other._session is not segments[0]._session
    assert len(SESSIONS) == 2


def test_stop_frees_bindings_and_session(affine, site):
    segment = OnnxSegment(params(affine()), site)
    segment.start()
    segment.fire(token(1, 2, 3))
    places = [next(segment._ring) for _ in range(site.slots)]
    gone = [weakref.ref(place.binding) for place in places]
    gone.append(weakref.ref(segment._session))
    del places
    segment.stop()
    gc.collect()
    assert [ref() for ref in gone] == [None] * (site.slots + 1)
    segment.stop()
    assert len(SESSIONS) == 0


def test_segment_of_a_plan_is_found_by_its_hash(affine, start, tmp_path):
    model = affine()
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    (tmp_path / "segments").mkdir()
    shutil.move(model, tmp_path / "segments" / f"{sha256}.onnx")
    given = {"segment": sha256, "inputs": [X], "outputs": [DOUBLE]}
    np.testing.assert_array_equal(start(given).fire(token(1, 2, 3)), token(2, 4, 6))


def test_segment_that_is_missing_or_another_is_refused(affine, site, tmp_path):
    given = {"segment": "ab" * 32, "inputs": [X], "outputs": [DOUBLE]}
    with pytest.raises(UnderstudyError, match=r"onnx: cannot be read .* incomplete"):
        OnnxSegment(given, site).start()
    (tmp_path / "segments").mkdir()
    shutil.move(affine(), tmp_path / "segments" / f"{'ab' * 32}.onnx")
    with pytest.raises(UnderstudyError, match=r"content has SHA-256 .* damaged"):
        OnnxSegment(given, site).start()


def test_file_that_is_no_model_is_refused(tmp_path, site, capfd):
    with pytest.raises(UnderstudyError, match=r"none\.onnx: no such model file"):
        OnnxSegment(params(tmp_path / "none.onnx"), site).start()
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UnderstudyError, match=r"text\.onnx: onnxruntime .* cannot loa"):
        OnnxSegment(params(tmp_path / "text.onnx"), site).start()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([["xx", *X[1:]]], [SUM], r"no input 'xx' \(did you mean 'x'\?\); it has x"),
        ([X], [["smu", *X[1:]]], r"no output 'smu' \(did you mean 'sum'\?\)"),
        ([["x", "float16", [1, 3]]], [SUM], r"tensor\(float\) .* as float16\[1,3\]"),
        ([["x", "float32", [1, 4]]], [SUM], r"'x' is .*\['N', 3\].* float32\[1,4\]"),
        ([X], [["sum", "float32", [3]]], r"'sum' is .* float32\[3\]; make the"),
    ],
)
def test_declaration_that_differs_from_the_model_is_refused(
    affine, site, inputs, outputs, message
):
    segment = OnnxSegment(params(affine(), inputs, outputs), site)
    with pytest.raises(UnderstudyError, match=message):
        segment.start()
    segment.stop()
    assert len(SESSIONS) == 0


def test_input_that_the_declaration_forgot_is_told(tmp_path, start):
    a, b, c = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "abc"
    )
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "add", [], []
    )
    graph.input.extend([a, b])
    graph.output.append(c)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    save(model, tmp_path / "add.onnx")
    given = params(tmp_path / "add.onnx", [["a", *X[1:]]], [["c", *X[1:]]])
    with pytest.raises(UnderstudyError, match="takes input b too; declare it under"):
        start(given)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((1, 3)), r"'x' takes float32\[1,3\], got float64\[1, 3\]"),
        (np.ones((3, 1), np.float32), r"got float32\[3, 1\]; check what feeds"),
    ],
)
def test_token_of_another_type_is_refused(affine, start, array, message):
    with pytest.raises(ActorError, match=message):
        start(params(affine())).fire(array)


def test_output_of_another_shape_than_declared_is_an_actor_error(affine, start):
    segment = start(params(affine(), outputs=[["sum", "float32", [2, 3]]]))
    with pytest.raises(ActorError, match=r"affine\.onnx: .*shape"):
        segment.fire(token(1, 2, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": [X], "outputs": [SUM]}, "'segment' and 'file': give one of them"),
        (
            {"file": "a", "segment": "ab" * 32, "inputs": [X], "outputs": [SUM]},
            "give o",
        ),
        ({"segment": "xyz", "inputs": [X], "outputs": [SUM]}, "'xyz' is not a SHA-256"),
        ({"file": "a", "inputs": [], "outputs": [SUM]}, r"'inputs': \[\] is not a lis"),
        (
            {"file": "a", "inputs": [X], "outputs": [["sum"]]},
            r"\['sum'\] is not \[tens",
        ),
        ({"file": "a", "inputs": [["x", "f", [1]]], "outputs": [SUM]}, "type 'f"),
        (
            {"file": "a", "inputs": [["x", "int8", [0]]], "outputs": [SUM]},
            r"\[0\] is not",
        ),
        ({"file": "a", "inputs": [X]}, "'outputs': missing"),
    ],
)
def test_wrong_parameter_is_told(given, message):
    with pytest.raises(UnderstudyError, match=message):
        OnnxSegment.ports(given)


def test_ring_is_as_long_as_the_site_says(affine, start, site):
    segment = start(params(affine()), replace(site, slots=2))
    outs = [segment.fire(token(1, 1, 1)) for _ in range(4)]
    assert outs[0] is outs[2]
    assert outs[1] is outs[3]
    assert outs[0] is not outs[1]


def test_running_a_model_tells_nobody_and_leaves_nothing_in_the_home(tmp_path):
    """onnxruntime 1.29 and later send telemetry by default and keep a database."""
    model = Path(__file__).parents[2] / "graphs" / "digits" / "digits-exit1.onnx"
    program = (
        "from pathlib import Path; from actors.sessions import SESSIONS; "
        f"SESSIONS.acquire(Path({str(model)!r}))"
    )
    known = {k: v for k, v in os.environ.items() if k not in ("CI", TELEMETRY_SWITCH)}
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**known, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )
    assert list(tmp_path.iterdir()) == []


# --- batches -------------------------------------------------------------------


def mixing(path, shape):
    """Write a model that subtracts the mean over all rows: 0 for a lone token."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        "mixing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return params(path, outputs=[["y", "float32", [1, 3]]])


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_batch_is_its_tokens_one_by_one(affine, start, site, count):
    one = start(params(affine(), outputs=[DOUBLE, SUM]), replace(site, batch=8))
    tokens = [token(i, 10 * i, -i) for i in range(count)]
    for double, x in zip(one.fire_many([(x,) for x in tokens]), tokens, strict=True):
        assert double[0].tolist() == (2 * x).tolist()
        assert double[1].tolist() == (x + 1).tolist()


def test_output_named_twice_is_the_same_in_a_batch(affine, start, site):
    one = start(params(affine(), outputs=[SUM, DOUBLE, SUM]), replace(site, batch=2))
    for n, answer in enumerate(one.fire_many([(token(0, 0, 0),), (token(1, 1, 1),)])):
        for made, expected in zip(answer, (n + 1, 2 * n, n + 1), strict=True):
            np.testing.assert_array_equal(made, token(*[expected] * 3))


def test_answers_of_a_batch_outlive_the_next_one(affine, start, site):
    one = start(params(affine(), outputs=[SUM]), replace(site, batch=2))
    before = one.fire_many([(token(0, 0, 0),), (token(1, 1, 1),)])
    one.fire_many([(token(5, 5, 5),), (token(6, 6, 6),)])
    assert [b.tolist() for b in before] == [[[1, 1, 1]], [[2, 2, 2]]]


def test_wrong_token_in_a_batch_is_refused(affine, start, site):
    one = start(params(affine()), replace(site, batch=2))
    with pytest.raises(ActorError, match="input 'x' takes"):
        one.fire_many([(token(0, 0, 0),), (token(0, 0),)])


def test_network_that_mixes_rows_is_refused_as_a_batch_only(start, site, tmp_path):
    given = mixing(tmp_path / "mixing.onnx", ["N", 3])
    start(given)
    with pytest.raises(UnderstudyError, match="rows depend on each other"):
        start(given, replace(site, batch=4))


def test_network_of_one_row_is_refused_as_a_batch(start, site, tmp_path):
    given = mixing(tmp_path / "fixed.onnx", [1, 3])
    with pytest.raises(UnderstudyError, match="one token at a time"):
        start(given, replace(site, batch=4))


def test_sessions_of_one_file_differ_by_how_they_compute(affine) -> None:
    digits, one, three = affine(), Settings(), Settings(threads=3)
    sessions = [SESSIONS.acquire(digits, each) for each in (one, three, three)]
    try:
        assert sessions[0] is not sessions[1]
        assert sessions[1] is sessions[2]
        threads = [s.get_session_options().intra_op_num_threads for s in sessions]
        assert threads == [1, 3, 3]
    finally:
        for each in (one, three, three):
            SESSIONS.release(digits, each)
    assert len(SESSIONS) == 0
