"""Exploring for real: partitions that run as processes, and runs that are explored."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.plan import read_plan
from tests.support.deployed import on_free_ports
from tests.support.light import real_models
from tests.support.profiles import profile_of
from tests.support.run import outcome, played
from tests.support.small_models import model_of, node
from understudy.candidates import Device, places
from understudy.cli import main
from understudy.costs import Link
from understudy.exploration import Row
from understudy.explore_measure import measured
from understudy.explore_run import Seen, scaled, seen
from understudy.explore_subject import Subject, read_subject
from understudy.explore_words import parse_link
from understudy.explored_deployment import Script, write_deployment
from understudy.exploring import Wish, explore
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.profile_file import write_profile
from understudy.reference import full_error
from understudy.segment_folder import ERROR_MAX

SEVERAL = 5
LIMITS = ("--require", "no-raw-input", "--max-endpoint-ms", "19.9")
"""What leaves cuts only."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with its profiles on two devices, in the working directory."""
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    for shipped in ("two-by-two.yaml", "gated-two-by-two.yaml"):
        on_free_ports(tmp_path / shipped)
    monkeypatch.chdir(tmp_path)
    for name, ms in (("pi", 20.0), ("lab", 1.0)):
        model = read_subject(Path("digits.onnx")).model
        write_profile(profile_of(model, ms, name), Path(f"{name}.json"))
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result


def explored(subject: Subject, link: Link, names=("pi", "lab"), **changes):
    devices = [
        Device(name, "", profile_of(subject.model, ms, name))
        for name, ms in zip(names, (20.0, 1.0, 0.5), strict=False)
    ]
    return explore(
        subject.model, Wish(devices, [[link] * (len(devices) - 1)], **changes)
    )


def test_partition_is_measured_over_a_link_of_that_rate() -> None:
    """A trip takes at least as long as its bytes and the delay do."""
    subject = read_subject(Path("digits.onnx"))
    exploration = explored(subject, parse_link("2mbit,10ms"))
    panel = exploration.panels[0]
    rows = [row for row in panel.rows if row.kind in ("raw", "single", "local")]
    tried = {row.kind: row for row in rows}
    result = measured(exploration, panel, subject, tried.values(), frames=SEVERAL)
    done = {r.kind: r for r in result.panels[0].rows if r.measured is not None}
    assert set(done) == {"raw", "single", "local"}
    for kind, row in done.items():
        assert row.measured is not None
        assert row.measured.frames >= SEVERAL - 1
        carried = row.cost.network_ms + row.cost.return_ms
        # The model itself is much quicker than its made-up profile says.
        assert row.measured.min_ms > 0.8 * carried or kind == "local"
    assert result.to_json()["panels"][0]["rows"][0]["measured"]["p50_ms"] > 10


def test_slower_device_cannot_be_measured_here() -> None:
    subject = read_subject(Path("digits.onnx"))
    model = subject.model
    devices = [
        Device("pi", "", profile_of(model, 20.0), 8.0, "modelled: the profile x 8"),
        Device("lab", "", profile_of(model, 1.0)),
    ]
    exploration = explore(model, Wish(devices, [[parse_link("2mbit,10ms")]]))
    panel = exploration.panels[0]
    with pytest.raises(MisuseError, match="measure without it"):
        measured(exploration, panel, subject, panel.rows)


def test_run_is_explored_with_what_it_has_seen() -> None:
    two = ("digits.onnx", "--endpoint", "pi.json", "--server", "lab.json")
    link = ("--link", "100mbit,1ms")
    run("explore", *two, *link, *LIMITS, "--write", "out")
    on_free_ports(Path("out/deployment.yaml"), 1)
    run("up", "out/deployment.yaml", "--run", "run", "--seconds", "1")
    subject = read_subject(Path("digits.onnx"))
    found = seen(Path("run"), subject)
    assert found.endpoint_ms is not None
    assert found.server_ms is not None
    assert len(found.tensors) >= 1
    run("explore", *two, *link, "--from", "run", "--json", "again.json")
    data = json.loads(Path("again.json").read_text())
    row = next(
        row
        for row in data["panels"][0]["rows"]
        if set(row["tensors"]) == set(found.tensors) and row["kind"] in _CUTS
    )
    assert data["run"] == "run"
    assert row["source"] == "modelled"
    assert row["server_ms"] == pytest.approx(found.server_ms)
    assert all("seen in run" in device["scaled"] for device in data["devices"])


_CUTS = ("single", "multi")


def two_heads() -> Path:
    """Write a model with an answer from its middle and one from its end."""
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("GlobalAveragePool", ["a"], ["y"]),
        node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", ["b"], ["c"]),
        node("GlobalMaxPool", ["c"], ["z"]),
    ]
    proto = model_of(nodes, {"x": [1, 3, 16, 24]}, outputs=("z", "y"))
    onnx.save(proto, "heads.onnx")
    return Path("heads.onnx")


def check_answers(subject: Subject, row: Row, folder: Path) -> None:
    """Run a partition as it is written; compare its answers with the whole model's."""
    script = Script(rate_hz=20, window=4)
    file = write_deployment(folder, subject, row, script=script)
    params = {"camera": {"frames": SEVERAL}, "result": {"values": True}}
    base = free_ports(1)
    plan = compile_deployment(file, folder / "plan", listen_base=base, params=params)
    (folder / "run").mkdir()
    with played(plan, folder / "run") as devices:
        assert devices.wait_exit("endpoint", 60) == 0
    found, verdict = outcome(folder / "run")
    assert verdict.kept, verdict.violations
    error = full_error(plan, found)
    assert error is not None, "no frame was answered in full"
    assert error <= ERROR_MAX, row.label
    shutil.rmtree(folder / "plan")


def test_answers_of_both_sides_of_a_cut_are_put_together(here: Path) -> None:
    subject = read_subject(two_heads())
    rows = explored(subject, parse_link("2mbit,10ms"), codecs=("zstd",)).panels[0].rows
    (row,) = (row for row in rows if row.label == "c")
    assert row.notes == ("with the answer's y",)
    assert row.cost.wire_bytes == 3 * 8 * 12 * 4 // 2 + 3 * 4  # halved, and as it is
    assert row.cost.bytes == 3 * 8 * 12 * 4 + 3 * 4
    check_answers(subject, row, here / "out")


@pytest.mark.slow
@pytest.mark.parametrize("path", real_models(), ids=lambda path: path.stem)
def test_every_cut_behind_an_answer_of_a_real_model_is_deployed(
    here: Path, path: Path
) -> None:
    subject = read_subject(path)
    behind = {p.label for p in places(subject.model) if p.carried}
    for row in explored(subject, parse_link("2mbit,10ms")).panels[0].rows:
        if row.label in behind:
            check_answers(subject, row, here / f"out-{row.number}")


def test_gated_run_tells_how_often_the_exit_answers() -> None:
    # Whatever its verdict is on a busy machine: what ended in order has measured.
    arguments = ("up", "gated-two-by-two.yaml", "--run", "run", "--seconds", "2")
    CliRunner().invoke(main, arguments)
    subject = read_subject(Path("gated.yaml"))
    found = seen(Path("run"), subject)
    assert found.tensors == ("features2",)
    assert found.exit_share is not None
    assert 0 < found.exit_share < 1
    assert found.exit_ms > 0


ONE_BY_ONE = """\
understudy: 1
deployment: one-by-one
graph: digits.yaml
devices:
  cam: {role: endpoint}
  edge: {role: server, listen: "tcp://127.0.0.1:PORT"}
map:
  camera: cam
  prep: cam
  net: {cut: features2, head: cam, tail: edge}
  exit1: cam
  exit2: cam
  result: cam
failover:
  order: [{net: edge}, exit2]
  deadline_ms: 2000
"""


@contextmanager
def up(deployment: str, folder: Path) -> Iterator[None]:
    """Run a deployment until it has measured itself and beyond; end it in order."""
    with subprocess.Popen(
        [sys.executable, "-m", "understudy", "up", deployment, "--run", folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=60)


def seen_now(folder: Path, subject: Subject) -> Seen:
    """Wait until a run that is up has measured both sides of its cut."""
    end_s = time.monotonic() + 60
    while True:
        with suppress(UnderstudyError):
            found = seen(folder, subject)
            if found.endpoint_ms and found.server_ms:
                return found
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_partitions_are_played_on_a_run_that_goes_on(here: Path) -> None:
    """Those that the constraints leave; before and after, the run tells what it saw."""
    port = str(free_ports(1))
    Path("one.yaml").write_text(ONE_BY_ONE.replace("PORT", port))
    subject = read_subject(Path("digits.yaml"))
    with up("one.yaml", here / "run"):
        assert seen_now(here / "run", subject).tensors == ("features2",)
        before = read_plan(here / "run" / "plan").digest
        run("explore", "digits.yaml", "--endpoint", "pi.json", "--server", "lab.json",
            "--link", "1mbit,9ms", *LIMITS, "--on", "run", "--json", "on.json",
            )  # fmt: skip
        assert read_plan(here / "run" / "plan").digest == before
        assert seen_now(here / "run", subject).tensors == ("features2",)
    rows = json.loads(Path("on.json").read_text())["panels"][0]["rows"]
    tried = [row for row in rows if row["measured"] is not None]
    # On a busy machine a server may not be ready in time: that one is left out.
    assert {row["label"] for row in tried} - {"features2"}
    for row in tried:
        assert row["measured"]["frames"] == 40
        assert row["measured"]["endpoint_ms"] > 0
        assert row["measured"]["server_ms"] > 0
    found, verdict = outcome(here / "run")
    assert verdict.kept, verdict.violations
    (stream,) = found.streams
    assert len(stream.switched) >= len(tried)


def test_run_of_another_network_is_refused() -> None:
    run("up", "two-by-two.yaml", "--run", "run", "--seconds", "1")
    subject = read_subject(Path("digits.onnx"))
    other = Subject(subject.model, subject.graph, "detector")
    with pytest.raises(UnderstudyError, match="no 'detector' ran there"):
        seen(Path("run"), other)
    found = seen(Path("run"), subject)
    devices = [Device(n, "", profile_of(subject.model, 1.0, n)) for n in ("a", "b")]
    assert scaled(devices, subject, found)[0].factor != 1.0
