"""`understudy switch` and `up`, as a person uses them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.run import outcome, results
from understudy.launch import Tail, free_ports

LIMIT_S = 60.0
Said = subprocess.CompletedProcess[str]


def understudy(*arguments: object) -> Said:
    return subprocess.run(
        [sys.executable, "-m", "understudy", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped deployment, and others of its streams, in the working directory."""
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    first = (tmp_path / "two-by-two.yaml").read_text()
    first = first.replace(":7000", f":{free_ports(3)}")
    coded = "{cut: features2, codec: float16, "
    more = first.replace("count: 2, listen", "count: 3, listen")
    others = {
        "two-by-two": first,
        "more": more.replace("{cut: features2, ", coded),
        "fewer": first.replace("endpoint, count: 2", "endpoint, count: 1"),
        "unsound": first.replace("cut: features2", "cut: features9"),
        "slower": first.replace("deadline_ms: 200", "deadline_ms: 2000"),
    }
    for name, text in others.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def up(here: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the deployment, and end it in good order."""
    with subprocess.Popen(
        [sys.executable, "-m", "understudy", "up", "two-by-two.yaml", "--run", "run"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            _await_answers(here / "run")
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)


def _await_answers(run_folder: Path) -> None:
    tail, end_s, streams = Tail(run_folder), time.monotonic() + LIMIT_S, set()
    while len(streams) < 2:
        assert time.monotonic() < end_s
        streams |= {file for file, record in tail.news() if "status" in record}
        time.sleep(0.01)


def test_run_goes_to_other_servers_and_another_codec_and_back(here: Path) -> None:
    with up(here):
        there = understudy("switch", "run", "more.yaml")
        again = understudy("switch", "run", "more.yaml")
        back = understudy("switch", "run", "two-by-two.yaml")
    assert (there.returncode, there.stderr) == (0, "")
    assert "cam.1: stream cam.1 plays it from frame " in there.stdout
    assert again.returncode == 1
    assert "plays this plan already" in again.stderr
    assert back.returncode == 0
    found, verdict = outcome(here / "run")
    assert verdict.kept, verdict.violations
    assert [s.codec for s in found.streams[0].switched] == ["float16", "none"]
    for cam in ("cam.0", "cam.1"):
        assert {r.status for r in results(found, cam)} == {"full"}
    assert "edge.2" in {device.device for device in found.devices}


REFUSED = {
    "fewer": "has the endpoints cam.0, the run has cam.0, cam.1",
    "unsound": "features9",
    "slower": "or restart the device; the plan before is put back",
}


def test_plan_that_cannot_follow_is_refused_and_the_run_plays_on(here: Path) -> None:
    with up(here):
        before = (here / "run/plan/plan.json").read_text()
        said = {name: understudy("switch", "run", f"{name}.yaml") for name in REFUSED}
        after = (here / "run/plan/plan.json").read_text()
        there = understudy("switch", "run", "more.yaml")
    for name, why in REFUSED.items():
        assert said[name].returncode == 1, said[name]
        assert why in said[name].stderr
        assert "Traceback" not in said[name].stderr
    assert before == after
    assert there.returncode == 0, there.stderr
    found, verdict = outcome(here / "run")
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}


def test_folder_that_nobody_runs_is_no_run(here: Path) -> None:
    ended = understudy("up", "two-by-two.yaml", "--run", "run", "--seconds", "0.2")
    assert ended.returncode == 0
    said = understudy("switch", "run", "more.yaml")
    assert said.returncode == 1
    assert "nobody runs it" in said.stderr
    assert understudy("switch", "nowhere", "more.yaml").returncode == 2
