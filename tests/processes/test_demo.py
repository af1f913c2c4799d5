"""The demo as a user starts it: real processes, real kills, nothing left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from understudy.run_folder import read_run

LIMIT_S = 40.0


@dataclass
class Demo:
    """A demo under way."""

    process: subprocess.Popen[str]
    folder: Path

    def wait_outcome(self) -> None:
        """Wait until a frame is answered."""
        self._wait(lambda: any(p.stat().st_size for p in self._results()), "an outcome")

    def wait_event(self, name: str) -> None:
        """Wait until a device, or the launcher, wrote the event."""
        wanted = f'"event": "{name}"'
        self._wait(
            lambda: any(
                wanted in path.read_text() for path in self.folder.glob("events-*")
            ),
            name,
        )

    def end(self) -> tuple[str, str]:
        return self.process.communicate(timeout=LIMIT_S)

    def wait_gone(self) -> None:
        """Wait until no process of the run is left."""
        self._wait(lambda: not processes_of(self.folder), "the end of all processes")

    def _results(self) -> list[Path]:
        return list(self.folder.glob("results-*.jsonl"))

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < end_s, f"waited {LIMIT_S:g} s for {what}"
            time.sleep(0.01)


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Start `understudy demo` as the leader of a process group; end all of it."""
    with subprocess.Popen(
        [sys.executable, "-m", "understudy", "demo", "--run", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as process:
        try:
            yield Demo(process, folder)
        finally:
            process.kill()
            for pid in processes_of(folder):
                os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """Return the processes that were started for the run in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"device" in words and str(folder).encode() in words:
            found.append(int(entry.name))
    return found


def assert_nothing_is_left(folder: Path) -> None:
    assert processes_of(folder) == []
    plan = json.loads((folder / "plan" / "plan.json").read_text())
    for device in plan["devices"]:
        if device["listen"] is not None:
            port = int(device["listen"].rpartition(":")[2])
            with socket.socket() as prober:
                assert prober.connect_ex(("127.0.0.1", port)) != 0


def figures_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_demo_keeps_its_promise_and_leaves_its_files(tmp_path: Path) -> None:
    folder, figures_file = tmp_path / "run", tmp_path / "figures.json"
    with demo(folder, "--seconds", "4", "--json", str(figures_file)) as played:
        said, complaints = played.end()
        assert played.process.returncode == 0, said + complaints
        assert_nothing_is_left(folder)
    assert complaints == ""
    assert "every frame answered once, in order: kept" in said
    assert said.count("killed with SIGKILL") == 2
    assert "\x1b" not in said, "colour in a pipe"
    assert (folder / "report.html").stat().st_size > 10_000
    figures = json.loads(figures_file.read_text())
    assert figures == figures_in(folder)
    assert_consistent(figures, folder)


def assert_consistent(figures: dict[str, Any], folder: Path) -> None:
    """Compare the figures with the result files, counted without our reader."""
    lines = [
        json.loads(line)
        for path in folder.glob("results-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    outcomes = [line for line in lines if "status" in line]
    assert figures["promise"]["kept"] is True
    assert figures["frames"] == figures["promise"]["frames"] == len(outcomes)
    assert sum(o["frames"] for o in figures["outcomes"]) == len(outcomes)
    assert sum(s["frames"] for s in figures["served"]) == len(
        [o for o in outcomes if o["status"] != "dropped"]
    )
    for stream in figures["streams"]:
        parts = stream["full"] + stream["degraded"] + stream["dropped"]
        assert stream["frames"] == parts
    assert {f["target"] for f in figures["faults"] if f["signal"] == "SIGKILL"} == {
        "edge.0",
        "edge.1",
    }


@pytest.mark.parametrize("codec", ["none", "float16+lz4", "int8+zstd"])
def test_full_equals_the_unsplit_model(tmp_path: Path, codec: str) -> None:
    folder = tmp_path / "run"
    with demo(folder, "--seconds", "3", "--servers", "1", "--codec", codec) as played:
        said, complaints = played.end()
        assert played.process.returncode == 0, said + complaints
    figures = figures_in(folder)
    full = [o["frames"] for o in figures["outcomes"] if o["status"] == "full"]
    assert sum(full) > 50
    assert figures["full_error"] <= 1e-4
    assert {record.codec for record in read_run(folder).streams} == {codec}


def test_ctrl_c_ends_the_run_orderly_with_its_report(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group: devices are not in ours."""
    folder = tmp_path / "run"
    with demo(folder, "--seconds", "60") as played:
        played.wait_outcome()
        os.killpg(played.process.pid, signal.SIGINT)
        said, complaints = played.end()
        assert_nothing_is_left(folder)
    assert (played.process.returncode, complaints) == (0, ""), said
    assert "stopping: what is under way is still answered" in said
    assert "every frame answered once, in order: kept" in said
    assert (folder / "report.html").is_file()


def test_sigterm_ends_the_run_as_ctrl_c_does(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with demo(folder, "--seconds", "60") as played:
        played.wait_outcome()
        played.process.terminate()
        said, complaints = played.end()
        assert_nothing_is_left(folder)
    assert (played.process.returncode, complaints) == (0, ""), said
    assert (folder / "report.html").is_file()


def test_ctrl_c_while_devices_load_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with demo(folder, "--seconds", "60") as played:
        played.wait_event("device.loading")
        os.killpg(played.process.pid, signal.SIGINT)
        said, complaints = played.end()
        assert_nothing_is_left(folder)
    if list(folder.glob("results-*.jsonl")):  # the first frames were under way
        assert (played.process.returncode, complaints) == (0, ""), said
        assert (folder / "report.html").is_file()
    else:
        assert played.process.returncode == 130, said
        assert complaints.strip() == "understudy: stopped"


def test_killed_launcher_leaves_no_process_and_a_run_to_report(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with demo(folder, "--seconds", "60") as played:
        played.wait_outcome()
        played.process.kill()
        played.process.wait(LIMIT_S)
        played.wait_gone()
        assert_nothing_is_left(folder)
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "report", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.slow
def test_twenty_demos_in_a_row_account_for_every_frame(tmp_path: Path) -> None:
    for turn in range(20):
        folder = tmp_path / f"run-{turn}"
        with demo(folder) as played:
            said, complaints = played.end()
            assert (played.process.returncode, complaints) == (0, ""), said
            assert_nothing_is_left(folder)
        assert figures_in(folder)["full_error"] <= 1e-4
