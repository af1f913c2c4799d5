"""One server process that plays in several deployments."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dataflow.plan import Plan, write_plan
from dataflow.wire.ask import ask_status
from tests.support.run import LIMIT_S, outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.launch import Tail, free_ports
from understudy.plans import compile_deployment
from understudy.reference import full_error
from understudy.status import format_status

DIGITS = Path("graphs/digits")
FULL_ERROR_MAX = 1e-4

Serve = Callable[[str], subprocess.Popen[bytes]]


def other_model(folder: Path) -> Path:
    """Write the digits deployment with another network: its weights negated."""
    shutil.copytree(DIGITS, folder)
    model = onnx.load(folder / "digits.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.negative(array), tensor.name))
    onnx.save(model, folder / "digits.onnx")
    path = folder / "two-by-two.yaml"
    path.write_text(path.read_text().replace("two-by-two", "negated", 1))
    text = path.read_text()
    path.write_text(text.replace("deployment: two-by-two", "deployment: negated"))
    return path


@pytest.fixture
def plans(tmp_path: Path) -> tuple[Plan, Plan]:
    """Two deployments, each with a cam.0 of its own, on the same two servers."""
    port = free_ports(2)
    files = DIGITS / "two-by-two.yaml", other_model(tmp_path / "files")
    one, two = (
        compile_deployment(path, tmp_path / f"plan{i}", listen_base=port)
        for i, path in enumerate(files)
    )
    return one, two


@pytest.fixture
def serve(tmp_path: Path, plans: tuple[Plan, Plan]) -> Iterator[Serve]:
    """Starts a server of both deployments, and ends it in the end."""
    started: list[subprocess.Popen[bytes]] = []
    folder = tmp_path / "servers"

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "understudy", "device"]
        command += [*(str(plan.folder) for plan in plans), name]
        command += ["--run", str(folder), "--with-stdin"]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        tail = Tail(folder)
        for _ in range(int(LIMIT_S / 0.02)):
            if any(
                record.get("event") == "device.ready"
                for file, record in tail.news()
                if file.startswith(f"events-{name}-")
            ):
                return started[-1]
            with pytest.raises(subprocess.TimeoutExpired):
                started[-1].wait(0.02)
        raise AssertionError(f"{name} is not ready")

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def test_server_of_two_deployments_dies_and_both_keep_their_promise(
    tmp_path: Path, plans: tuple[Plan, Plan], serve: Serve
) -> None:
    first, _second = serve("edge.0"), serve("edge.1")
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    with (
        played(plans[0], folders[0], start=["cam.0"]) as one,
        played(plans[1], folders[1], start=["cam.0"]) as two,
    ):
        for run in (one, two):
            run.wait_rows("cam.0", "edge.0", 20)
        status = ask_status(
            "edge.0", plans[0].devices["edge.0"].address or "", keys=None, timeout_s=5
        )
        first.send_signal(signal.SIGKILL)
        for run in (one, two):
            run.wait_rows("cam.0", "edge.1", 20)
    for plan, folder in zip(plans, folders, strict=True):
        found, verdict = outcome(folder)
        assert verdict.kept, verdict.violations
        assert {r.status for r in results(found, "cam.0")} == {"full"}
        error = full_error(plan, found)
        assert error is not None
        assert error < FULL_ERROR_MAX
    assert status["plans"] == {plan.name: plan.digest for plan in plans}
    assert {s["deployment"] for s in status["sessions"]} == set(status["plans"])
    text = format_status({"edge.0": status})
    assert f"plan negated ({plans[1].digest[:12]})" in text
    assert "serves cam.0 of two-by-two (session 1)" in text


def _device(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "understudy", "device", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=LIMIT_S
    )


def _toys(tmp_path: Path, **other: object) -> tuple[Path, Path]:
    port = free_ports(2)
    one = toy_plan(tmp_path / "one", port=port)
    two = replace(toy_plan(tmp_path / "two", port=port), name="toy-2")
    write_plan(replace(two, **other))  # type: ignore[arg-type]
    return one.folder, two.folder


def test_endpoint_plays_in_one_deployment_only(tmp_path: Path) -> None:
    said = _device(*_toys(tmp_path), "cam.0", "--run", tmp_path / "run")
    assert said.returncode == 2
    assert "only servers hold several plans" in said.stderr
    assert not (tmp_path / "run").exists()


def test_same_deployment_twice_is_refused(tmp_path: Path) -> None:
    one, _ = _toys(tmp_path)
    said = _device(one, one, "edge.0", "--run", tmp_path / "run")
    assert said.returncode == 2
    assert "deployment 'toy': given twice" in said.stderr


def test_plans_with_different_keys_are_refused(tmp_path: Path) -> None:
    folders = _toys(tmp_path, keys=tmp_path / "keys")
    said = _device(*folders, "edge.0", "--run", tmp_path / "run")
    assert said.returncode == 2
    assert "name one folder in both" in said.stderr


def test_plans_with_different_addresses_are_refused(tmp_path: Path) -> None:
    one = toy_plan(tmp_path / "one", port=17000)
    two = toy_plan(tmp_path / "two", port=17100)
    write_plan(replace(two, name="toy-2"))
    said = _device(one.folder, two.folder, "edge.0", "--run", tmp_path / "run")
    assert said.returncode == 2
    assert "give it one address in both" in said.stderr
