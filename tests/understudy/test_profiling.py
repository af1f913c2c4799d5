"""Profiling the shipped network, for real but with few rounds."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from dataflow.errors import MisuseError, UnderstudyError
from graphs.cuts import cuts
from graphs.onnx_model import Model
from tests.support.profiles import RUNTIME
from understudy.cli import main
from understudy.measuring import Times
from understudy.profile_file import SessionFacts, read_profile
from understudy.profiling import Wanted, paced, profile

DIGITS = Path(str(files("graphs") / "digits" / "digits.onnx"))
QUICK = Wanted(device="here", anchors=2, rounds=3, runtime=RUNTIME)


def _profiled(wanted=QUICK, path=DIGITS):
    return profile(path, wanted, lambda _: None)


@pytest.fixture(scope="module")
def digits():
    return _profiled()


@pytest.fixture
def frame(tmp_path):
    """Write the arrays as ``frame.npz``."""

    def write(**arrays):
        np.savez(tmp_path / "frame.npz", **arrays)
        return tmp_path / "frame.npz"

    return write


def test_every_cut_has_a_row_in_the_order_of_the_model(digits):
    model = Model.read(DIGITS)
    assert [c.tensors for c in digits.cuts] == [c.tensors for c in cuts(model)]
    assert digits.model.sha256 == model.sha256


def test_rows_say_where_their_times_come_from(digits):
    assert {c.source for c in digits.cuts} == {"measured", "interpolated"}
    assert all(c.head_ms > 0 and c.tail_ms > 0 for c in digits.cuts)


def test_all_anchors_are_all_useful_cuts():
    made = _profiled(replace(QUICK, anchors=None))
    measured = {c.tensors for c in made.cuts if c.source == "measured"}
    useful = {c.tensors for c in cuts(Model.read(DIGITS)) if c.useful}
    assert measured == useful


def test_without_anchors_rows_are_of_the_profile_alone():
    made = _profiled(replace(QUICK, anchors=0, front=False))
    assert {c.source for c in made.cuts} == {"profile"}
    assert all(c.head_error is None for c in made.cuts)
    whole_ms = made.whole.min_ms
    assert all(
        c.head_ms + c.tail_ms == pytest.approx(whole_ms, 0.01) for c in made.cuts
    )


def test_times_of_the_nodes_are_those_of_the_whole(digits):
    assert sum(n.ms for n in digits.nodes) == pytest.approx(digits.whole.min_ms, 0.01)
    assert "Conv" in {n.op for n in digits.nodes}


@pytest.mark.parametrize(
    ("parts_s", "slower", "start_ms"),
    [
        (0.0126 + 2 * 0.001, 1.2, 1.0),  # each of the parts starts anew
        (0.0110, 1.3, 0.0),  # they are quicker than the whole: nobody starts
        (0.0200, 1.0, 3.0),  # no part is quicker than at best
        (None, 1.3, 0.0),
    ],
)
def test_start_is_told_from_a_slower_run_by_paying_it_twice(parts_s, slower, start_ms):
    (cut,) = (cut for cut in cuts(Model.read(DIGITS)) if cut.tensors == ("features2",))
    times = Times(whole_s=[0.010], cuts_s={cut: ([0.004], [0.0065])})
    found = paced(times, [0.013], None if parts_s is None else cut, parts_s)
    assert (found.slower, found.start_ms) == pytest.approx((slower, start_ms), abs=0.01)
    assert found.ms(10.0) == pytest.approx(13.0, abs=0.01)  # the whole as it was seen


def test_heads_need_more_memory_the_later_the_cut(digits):
    heads = [c.head_mb for c in digits.cuts]
    assert heads == sorted(heads)
    weights_mb = DIGITS.stat().st_size / 1e6
    assert 0 < heads[0] < weights_mb < heads[-1] + digits.cuts[-1].tail_mb


def test_codecs_are_measured_and_make_tensors_as_small_as_they_are(digits):
    assert {"float16", "int8", "zstd", "lz4", "int8+zstd"} <= digits.codecs.keys()
    model = Model.read(DIGITS)
    for cut in digits.cuts:
        token_bytes = sum(model.tensor(t).token.nbytes for t in cut.tensors)
        assert cut.wire["float16"] == token_bytes / 2
        assert cut.wire["zstd"] <= token_bytes


def test_given_frame_is_what_is_measured(frame):
    shape = Model.read(DIGITS).tensor("input").token.shape
    black = frame(anything=np.zeros((5, *shape[1:]), np.float32))
    made = _profiled(replace(QUICK, input=black))
    # Features of nothing compress better than those of an image.
    assert made.cuts[0].wire["zstd"] < _profiled().cuts[0].wire["zstd"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input": np.zeros(3, np.float32)}, "the model takes float32"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "has no array 'input'; it has a, b"),
    ],
)
def test_frame_of_another_kind_is_refused(frame, arrays, said):
    with pytest.raises(UnderstudyError, match=said):
        _profiled(replace(QUICK, input=frame(**arrays)))


def test_frame_that_is_not_there_is_misuse(tmp_path):
    with pytest.raises(MisuseError, match=r"name a \.npz file"):
        _profiled(replace(QUICK, input=tmp_path / "none.npz"))


def test_provider_that_is_not_there_is_named_with_those_that_are():
    session = SessionFacts(providers=("NoSuchExecutionProvider",))
    with pytest.raises(UnderstudyError, match=r"it has .*CPUExecutionProvider"):
        _profiled(replace(QUICK, session=session))


def test_sessions_compute_with_the_threads_that_are_asked_for():
    made = _profiled(replace(QUICK, session=SessionFacts(threads=2)))
    assert made.session.threads == 2


def test_command_writes_what_explore_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["profile", str(DIGITS), "--name", "pi", "--anchors", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "digits.onnx on pi: " in result.output
    assert "whole" in result.output
    assert "\x1b" not in result.output
    made = read_profile(Path("digits-pi.json"))
    assert made.device == "pi"
    runtime = made.runtime
    assert all(ms > 0 for ms in (runtime.frame_ms, runtime.message_ms))
    assert "runtime  adds" in result.output
    assert os.listdir() == ["digits-pi.json"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["none.onnx"], 2, "name a file that is there"),
        ([str(DIGITS), "--anchors", "some"], 2, "neither a number nor 'all'"),
        ([str(DIGITS), "--cores", "3-1"], 2, "write cores like 0-3"),
        ([str(DIGITS), "--cores", "4095"], 1, "no core 4095 for this process"),
        ([str(DIGITS), "-o", "no/such.json"], 2, "cannot be written"),
        ([__file__], 1, "not an ONNX file"),
    ],
)
def test_wrong_use_is_told_and_leaves_no_file(
    tmp_path, monkeypatch, arguments, status, said
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["profile", *arguments])
    assert (result.exit_code, said in result.output) == (status, True), result.output
    assert os.listdir() == []


DATA = os.environ.get("UNDERSTUDY_DATA")


@pytest.mark.skipif(not DATA, reason="UNDERSTUDY_DATA is not set")
@pytest.mark.parametrize(
    "name", ["yolox_nano", "nanodet_m_320", "ultraface-slim-320", "resnet20_cifar10"]
)
def test_models_as_found_in_the_wild_profile(name):
    path = Path(DATA or "") / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    made = _profiled(path=path)
    assert made.cuts
    assert sum(n.ms for n in made.nodes) == pytest.approx(made.whole.min_ms, 0.01)


def test_interrupted_profile_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "understudy", "profile", str(DIGITS)]
    process = subprocess.Popen(
        [*command, "--anchors", "all", "-o", str(tmp_path / "here.json")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    end_s = time.monotonic() + 20
    while not list(tmp_path.glob("understudy-profile-*/*")):
        assert process.poll() is None, "it was over before it was interrupted"
        assert time.monotonic() < end_s
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said.strip()) == (130, "understudy: stopped")
    assert list(tmp_path.iterdir()) == []


def test_open_dimensions_are_fixed_as_split_fixes_them(tmp_path):
    model = onnx.load(DIGITS)
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[2 if info in model.graph.input else 1].Clear()
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(UnderstudyError, match="dimension 2"):
        _profiled(path=tmp_path / "open.onnx")
    made = _profiled(replace(QUICK, sizes={"input:2": 8}), tmp_path / "open.onnx")
    assert made.model.inputs[0].shape == (1, 1, 8, 8)
