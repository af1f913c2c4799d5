"""The early-exit example: played with real devices, few frames, and its own gate."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actors import behaviour
from dataflow.behaviour import Site
from dataflow.wire.rate import PROBE_BYTES, SLOW_PROBES
from examples.early_exit.play import Played, Scene, play, right_share
from examples.early_exit.tradeoff import behind
from tests.support.run import outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment, keep_plan
from understudy.run_folder import read_run

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "early_exit"
RECORD = json.loads((ROOT / "graphs" / "digits" / "digits.json").read_text())
IMAGES = 500
ALWAYS, NEVER = 0.0, 1.01


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("always")
    return play(Scene("alone", ALWAYS, IMAGES, 200), folder)


@pytest.fixture(scope="module")
def never(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("never")
    return play(Scene("link", NEVER, IMAGES, 125, bits_per_s=100e6), folder)


def test_threshold_of_zero_exits_every_frame_and_sends_nothing(always: Played) -> None:
    assert len(always.frames) == IMAGES
    assert {(frame.who, frame.asked) for frame in always.frames} == {("exit", 0)}


def test_threshold_above_one_sends_every_frame(never: Played) -> None:
    assert len(never.frames) == IMAGES
    assert {(frame.who, frame.asked) for frame in never.frames} == {("server", 1)}
    assert (never.there_bytes, never.back_bytes) == (76 + 1024, 76 + 40)
    # The rest of what a link carries are probes, hellos, heartbeats and framing.
    assert never.link_bytes is not None
    probes_bytes = (1 + SLOW_PROBES) * PROBE_BYTES
    frames_bytes = IMAGES * never.there_bytes
    assert 1 < never.link_bytes / frames_bytes < 1.2 + probes_bytes / frames_bytes


def test_ends_of_the_trade_off_are_as_right_as_the_models(
    always: Played, never: Played
) -> None:
    recorded = RECORD["accuracy"]
    assert right_share(always.frames) == recorded["exit2"]["accuracy"] == 0.966
    assert right_share(never.frames) == recorded["full"]["accuracy"] == 0.994


def test_computed_link_adds_its_time_to_what_is_sent_and_to_nothing_else(
    always: Played, never: Played
) -> None:
    assert behind(always, 16e6) == list(always.frames)
    added_ms = (1100 + 116) * 8 / 16e6 * 1e3
    for slow, fast in zip(behind(never, 16e6), never.frames, strict=True):
        assert slow.latency_ms == pytest.approx(fast.latency_ms + added_ms)


def test_no_frame_is_lost_when_the_server_is_killed_halfway(tmp_path: Path) -> None:
    frames = 120
    found = play(Scene("killed", 0.9, frames, 100), tmp_path)
    assert len(found.frames) == frames
    assert "drop" not in {frame.who for frame in found.frames}
    run = read_run(tmp_path)
    assert [r.frame for r in results(run, "cam.0")] == list(range(frames))
    (fault,) = run.launched("fault")
    assert (fault.text("target"), fault.signal) == ("edge.0", "SIGKILL")
    served = [r for r in results(run, "cam.0") if r.status == "full"]
    assert {r.row for r in served} == {"exit", "edge.0", "edge.1"}
    assert "edge.0" not in {r.row for r in served if r.fired_s > fault.t_s}


def test_command_measures_each_scene_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "examples.early_exit", "--out", str(out)]
    options = ["--thresholds", "0,1.01", "--frames", "20", "--rounds", "1"]
    _run([*command, *options], status=0)
    points = json.loads((out / "tradeoff.json").read_text())["points"]
    assert [(p["scene"], p["threshold"]) for p in points] == [
        (scene, threshold)
        for scene in ("alone", "killed")
        for threshold in (ALWAYS, NEVER)
    ]
    assert all(p["exited"] == (p["threshold"] == ALWAYS) for p in points)
    assert [p["sent_bytes"] for p in points[:2]] == [0, 1100]
    with (out / "tradeoff.csv").open() as file:
        assert [float(row["cpu_ms"]) for row in csv.DictReader(file)] == [
            p["cpu_ms"] for p in points
        ]
    assert (out / "tradeoff.svg").read_text().startswith("<svg ")
    assert "holds runs already" in _run([*command, *options], status=2)


def _run(command: list[str], *, status: int) -> str:
    """Return what `command` says on standard error."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stderr


def test_gate_of_ones_own_names_the_exit_where_it_is_certain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    site = Site("cam", "cam", 1, plan_folder=tmp_path, run_folder=None, slots=4)
    gate = behaviour("own_gate:Entropy")({"bits": 1.0}, site)
    certain, torn = np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32)
    certain[0, 3] = 9.0
    assert gate.fire(certain) == 0
    assert gate.fire(torn) == 1


def test_gate_of_ones_own_decides_in_a_deployment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    plan = compile_deployment(
        EXAMPLE / "deployment.yaml",
        tmp_path / "plan",
        params={"camera": {"frames": 20}},
        counts={"edge": 1},
        listen_base=free_ports(1),
    )
    keep_plan(plan, tmp_path)
    with played(plan, tmp_path) as run:
        run.wait_exit("cam")
    found, verdict = outcome(tmp_path)
    assert verdict.kept
    assert {r.row for r in results(found, "cam")} == {"exit", "edge.0"}


def test_readme_shows_the_gate_as_it_is() -> None:
    assert (EXAMPLE / "own_gate.py").read_text() in (EXAMPLE / "README.md").read_text()
