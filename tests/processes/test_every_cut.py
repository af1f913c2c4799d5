"""Every tensor that separates a model alone: cut there, and run in two processes.

Light models of the onnx package have their weights drawn anew. Others are taken from
the folder ``models`` of the folder that UNDERSTUDY_DATA names, if there is one.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from actors.trial import Array, open_session, run
from graphs.cuts import cuts
from graphs.external import SharedWeights
from graphs.onnx_model import Model
from graphs.split import Segment, needed, split
from tests.support.deployed import pictures
from tests.support.light import HUGE, SMALL, real_models, with_weights
from tests.support.other_process import OtherProcess, other_process
from tests.support.run import outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.reference import full_error
from understudy.segment_folder import (
    ERROR_MAX,
    inputs_for,
    relative_error,
    same_bits,
)

QUICK = ("squeezenet", "shufflenet")
LIGHT = [
    *QUICK,
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (*SMALL, *HUGE)
        if name not in QUICK
    ),
]
REAL = real_models()
FRAMES = 3


def single(model: Model) -> list[tuple[str, ...]]:
    return [c.tensors for c in cuts(model, 1) if c.bytes is not None]


def parts_of(model: Model, folder: Path) -> list[tuple[Segment, ...]]:
    """Write both parts of every single cut; all refer to the same weights."""
    found = [split(model, names, model.outputs).segments for names in single(model)]
    with (folder / "weights.bin").open("wb") as file:
        weights = SharedWeights(file, "weights.bin", model.folder)
        for number, segments in enumerate(found):
            for half, segment in zip(("head", "tail"), segments, strict=True):
                path = folder / f"{number}-{half}.onnx"
                path.write_bytes(segment.referring(weights))
    return found


def apart(
    segments: tuple[Segment, ...],
    files: tuple[Path, Path],
    given: Mapping[str, Array],
    server: OtherProcess,
    *,
    optimised: bool,
) -> dict[str, Array]:
    """Return what the head makes here and the tail in another process."""
    head, tail = segments
    made = run(open_session(files[0], optimised=optimised), given)
    known = {name: made[head.output_name(name)] for name in head.made}
    crossing = {name: known[name] for name in tail.given}
    return known | dict(server.run(files[1], crossing, optimised=optimised))


def check_every_cut(path: Path, folder: Path) -> int:
    """Compare the whole model with both parts of every single cut; return how many."""
    model = Model.read(path)
    given = inputs_for(model, None)
    every = parts_of(model, folder)
    with other_process() as server:
        for optimised in (False, True):
            whole = run(open_session(path, optimised=optimised), given)
            for number, segments in enumerate(every):
                files = (folder / f"{number}-head.onnx", folder / f"{number}-tail.onnx")
                found = apart(segments, files, given, server, optimised=optimised)
                for name in model.outputs:
                    where = (segments[0].made, name, optimised)
                    assert np.isfinite(whole[name]).all(), where
                    if optimised:
                        error = relative_error(whole[name], found[name])
                        assert error <= ERROR_MAX, where
                    else:
                        assert same_bits(whole[name], found[name]), where
    (folder / "weights.bin").unlink()
    return len(every)


@pytest.mark.parametrize("name", LIGHT)
def test_every_single_cut_of_a_light_model_runs_in_two_processes(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "light.onnx"
    path.write_bytes(with_weights(name).SerializeToString())
    assert check_every_cut(path, tmp_path) > 20
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_every_single_cut_of_a_real_model_runs_in_two_processes(
    tmp_path: Path, path: Path
) -> None:
    assert check_every_cut(path, tmp_path) > 10


DEPLOYMENT = """\
understudy: 1
deployment: cut
graph: whole.yaml
devices:
  cam: {role: endpoint}
  edge: {role: server, listen: "tcp://127.0.0.1:7000"}
map:
  camera: cam
  prep: cam
  net: {cut: "TENSOR", head: cam, tail: edge}
  result: cam
failover:
  order: [{net: edge}]
  deadline_ms: 20000
"""


def deploy(path: Path, tensor: str, folder: Path) -> float | None:
    """Run a model, cut at `tensor`, on two devices; return how far off answers are."""
    model = Model.read(path)
    height, width = model.tensor(model.inputs[0]).token.shape[2:]
    pictures(path, (height, width, 3))
    rng = np.random.default_rng(5)
    np.savez("cam.npz", x=rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8))
    Path("cut.yaml").write_text(DEPLOYMENT.replace("TENSOR", tensor))
    plan = compile_deployment(
        Path("cut.yaml"),
        folder / "plan",
        listen_base=free_ports(1),
        params={"camera": {"frames": FRAMES}, "result": {"values": True}},
    )
    (folder / "run").mkdir()
    with played(plan, folder / "run") as devices:
        assert devices.wait_exit("cam", 60) == 0
    found, verdict = outcome(folder / "run")
    assert verdict.kept, verdict.violations
    assert [r.status for r in results(found, "cam")] == ["full"] * FRAMES
    error = full_error(plan, found)
    shutil.rmtree(folder / "plan")  # a copy of all weights
    return error


@pytest.mark.parametrize("name", LIGHT)
def test_model_cut_on_two_devices_answers_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At the first cut, in the middle and at the last."""
    path = tmp_path / "light.onnx"
    path.write_bytes(with_weights(name).SerializeToString())
    found = single(Model.read(path))
    for index in (0, len(found) // 2, -1):
        (tmp_path / str(index)).mkdir()
        monkeypatch.chdir(tmp_path / str(index))
        error = deploy(path, found[index][0], Path.cwd())
        assert error is not None
        assert error <= ERROR_MAX


def test_model_with_its_weights_in_another_file_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a device gets is one file: a plan does not name weights elsewhere."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "light.onnx"
    onnx.save_model(
        with_weights("squeezenet"),
        str(path),
        save_as_external_data=True,
        location="weights.data",
    )
    found = single(Model.read(path))
    error = deploy(path, found[len(found) // 2][0], tmp_path)
    assert error is not None
    assert error <= ERROR_MAX


@pytest.mark.slow
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_model_cut_on_two_devices_answers_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Of several outputs the first is used, so the cut lies in front of that."""
    model = Model.read(path)
    used = needed(model, model.outputs[:1], ())
    found = [name for (name,) in single(model) if model.producer[name] in used]
    for index, tensor in enumerate(found[5::15]):
        (tmp_path / str(index)).mkdir()
        monkeypatch.chdir(tmp_path / str(index))
        error = deploy(path, tensor, Path.cwd())
        assert error is not None
        assert error <= ERROR_MAX
