"""What `explore --write` writes is what `check` and `up` take."""

import json
import shutil
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from dataflow.errors import MisuseError, UnderstudyError
from graphs.deployment_file import read_deployment
from tests.support.deployed import on_free_ports
from tests.support.profiles import profile_of
from understudy.candidates import Device
from understudy.checking import check
from understudy.cli import main
from understudy.costs import Exit, Link
from understudy.exploration import Exploration
from understudy.explore_subject import Subject, read_subject, showing
from understudy.explored_deployment import write_deployment
from understudy.exploring import Wish, explore
from understudy.profile_file import SessionFacts, write_profile

LINK = Link("wifi", 8.0, 8.0, 1.0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped files in the working directory, as a user's own."""
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explored(
    subject: Subject, names=("pi", "lab"), link=LINK, **changes
) -> Exploration:
    times = (8.0, 2.0, 1.0)
    devices = [
        Device(name, f"{name}.json", profile_of(subject.model, ms, name))
        for name, ms in zip(names, times, strict=False)
    ]
    links = [[link] * (len(devices) - 1)]
    return explore(subject.model, Wish(devices, links, **changes))


def two_inputs() -> Path:
    """Write a model of two inputs that are no pictures, and two outputs."""
    nodes = [
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("Relu", ["b"], ["rb"]),
        helper.make_node("Add", ["ra", "rb"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["y"]),
        helper.make_node("Neg", ["sum"], ["z"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 6]) for n in "abyz"]
    graph = helper.make_graph(nodes, "sums", ends[:2], ends[2:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "sums.onnx")
    return Path("sums.onnx")


@pytest.mark.parametrize("codecs", [("none",), ("zstd",), ("int8",)])
def test_every_row_of_a_model_is_a_sound_deployment(codecs: tuple[str, ...]) -> None:
    subject = read_subject(Path("digits.onnx"))
    for row in explored(subject, codecs=codecs).panels[0].rows:
        file = write_deployment(Path("out"), subject, row)
        check(file, None, False)
        placed = read_deployment(file).mapping["net"]
        assert str(placed.codec) == (row.codec if placed.cuts else "none")


def test_model_without_pictures_gets_a_source_of_tensors() -> None:
    subject = read_subject(two_inputs())
    for row in explored(subject).panels[0].rows:
        check(write_deployment(Path("out"), subject, row), None, False)
    with np.load(Path("out") / "frames.npz") as frames:
        assert {name: array.shape[1:] for name, array in frames.items()} == {
            "a": (1, 6),
            "b": (1, 6),
        }


def test_given_frame_of_tensors_is_what_the_source_shows() -> None:
    given = {
        name: np.full((1, 6), value, "float32")
        for name, value in zip("ab", (3, 7), strict=True)
    }
    np.savez("given.npz", **given)
    subject = showing(read_subject(two_inputs()), Path("given.npz"))
    row = explored(subject).panels[0].rows[0]
    check(write_deployment(Path("out"), subject, row), None, False)
    with np.load(Path("out") / "frames.npz") as frames:
        assert {name: frames[name].tolist() for name in frames} == {
            name: [array.tolist()] for name, array in given.items()
        }


def test_given_picture_gets_to_the_network_within_a_grey_level() -> None:
    size = 1000.0
    given = size * np.random.default_rng(1).random((1, 1, 8, 8), np.float32)
    np.savez("given.npz", given)
    subject = showing(read_subject(Path("digits.onnx")), Path("given.npz"))
    file = write_deployment(Path("out"), subject, explored(subject).panels[0].rows[0])
    prepared = read_deployment(file).graph.graph.actors["prep"].params
    with np.load(Path("out") / "frames.npz") as frames:
        (pixels,) = frames["x"]
    seen = pixels.transpose(2, 0, 1) * prepared["scale"] + prepared["offset"]
    assert np.abs(seen - given[0]).max() < size / 255


def test_graph_shows_frames_of_its_own() -> None:
    with pytest.raises(MisuseError, match="are those of its source"):
        showing(read_subject(Path("digits.yaml")), Path("given.npz"))


def test_devices_run_as_they_were_profiled() -> None:
    subject = read_subject(Path("digits.onnx"))
    row = next(r for r in explored(subject).panels[0].rows if r.kind == "single")
    facts = SessionFacts(2, (0, 1, 3)), SessionFacts(providers=("XExecutionProvider",))
    file = write_deployment(Path("out"), subject, row, sessions=facts)
    groups = read_deployment(file).groups
    assert (groups["endpoint"].threads, groups["endpoint"].cores) == (2, (0, 1, 3))
    assert groups["server"].providers == ("XExecutionProvider",)


def test_graph_is_used_as_it_stands() -> None:
    subject = read_subject(Path("digits.yaml"))
    for row in explored(subject).panels[0].rows:
        file = write_deployment(Path("out"), subject, row)
        check(file, None, False)
        assert read_deployment(file).graph.path.samefile("digits.yaml")


def test_cut_in_front_of_what_the_exit_reads_is_refused() -> None:
    subject = read_subject(Path("gated.yaml"))
    assert subject.exit_tensor == "features2"
    early = Exit(subject.exit_tensor, 0.5, 0.1)
    sound = 0
    for row in explored(subject, exit=early).panels[0].rows:
        if row.pieces.exit is None:
            with pytest.raises(UnderstudyError, match="the early exit reads"):
                write_deployment(Path("out"), subject, row)
        else:
            check(write_deployment(Path("out"), subject, row), None, False)
            sound += 1
    assert sound


def test_chain_is_cut_along_its_devices() -> None:
    subject = read_subject(Path("digits.onnx"))
    names = ("pi", "fog", "cloud")
    sound = 0
    bus = Link("bus", 1e4, 1e4, 0.0)
    shared = {"throughput": 1.0}
    for row in explored(subject, names, bus, weights=shared).panels[0].rows:
        file = write_deployment(Path("out"), subject, row, servers=names[1:])
        check(file, None, False)
        path = read_deployment(file).mapping["net"].path
        assert len(path) <= len(row.crossings) + 1
        sound += len(path) == 3
    assert sound


def test_best_is_written_and_answers_frames() -> None:
    """From profiles to processes: explore, up, and every frame has its answer."""
    subject = read_subject(Path("digits.onnx"))
    for name, ms in (("pi", 20.0), ("lab", 1.0)):
        write_profile(profile_of(subject.model, ms, name), Path(f"{name}.json"))
    run = CliRunner().invoke
    result = run(main, ["explore", "digits.onnx", "--endpoint", "pi.json", "--server",
                        "lab.json", "--link", "1mbit,9ms", "--require", "no-raw-input",
                        "--max-endpoint-ms", "19", "--write", "out"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "understudy up out/deployment.yaml" in result.output
    on_free_ports(Path("out/deployment.yaml"), 1)
    result = run(main, ["up", "out/deployment.yaml", "--run", "run", "--seconds", "1",
                        "--json", "run.json"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "over 1mbit,9ms, within" in result.output
    figures = json.loads(Path("run.json").read_text())
    explored = read_deployment(Path("out/deployment.yaml")).expected
    assert explored is not None
    assert figures["expected"] == asdict(explored)
    assert 9 < explored.p50_ms < 60
    outcomes = figures["outcomes"]
    assert [outcome["status"] for outcome in outcomes] == ["full"]
    assert outcomes[0]["frames"] > 5
