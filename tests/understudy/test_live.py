"""What a person sees while devices run: on a terminal, in a pipe, in plain lines."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from itertools import islice
from pathlib import Path

from rich.console import Console

from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.launch import Launcher, free_ports
from understudy.live import HEADER, Live, Notes
from understudy.screen import Screen


def _up(plan: Path, *options: str, seconds: float = 1.5) -> list[str]:
    run = str(plan.parent / "run")
    return [
        *(sys.executable, "-m", "understudy", "up", str(plan), "--run", run),
        *("--seconds", str(seconds), *options),
    ]


def test_pipe_gets_what_happens_and_the_summary(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    done = subprocess.run(
        _up(plan.folder), capture_output=True, text=True, timeout=60, check=True
    )
    said = done.stdout.splitlines()
    assert said[0] == "toy: started edge.0, cam.0; Ctrl-C ends the run"
    assert said[1] == "", "nothing happened; the summary follows"
    assert "every frame answered once, in order: kept" in done.stdout


def test_plain_prints_a_line_a_second(tmp_path: Path) -> None:
    """Three of them, however late: then the run is ended."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, local=False, deadline_ms=3e4
    )
    line = re.compile(r" +(\d+) s +\d+ .* edge\.0 \d+(, .*)?\n")
    with subprocess.Popen(
        _up(plan.folder, "--plain", seconds=45), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert HEADER in (text.rstrip("\n") for text in process.stdout)
        found = filter(None, map(line.fullmatch, process.stdout))
        first, _, third = (int(match[1]) for match in islice(found, 3))
        process.terminate()
        process.stdout.read()
        assert process.wait(60) == 0
    assert third > first > 0


def test_terminal_shows_devices_links_and_streams(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    with subprocess.Popen(
        _up(plan.folder), stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # how a terminal whose last user is gone ends
            while data := os.read(ours, 65536):
                said += data
        assert process.wait(60) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r", "")
    assert re.search(r"^edge\.0 +server +ready +\d+ +cam\.0 *$", text, re.MULTILINE)
    assert re.search(r"^cam\.0 +endpoint +ready +\d+ +edge\.0 *$", text, re.MULTILINE)
    assert re.search(r"^cam\.0 +\d+ .* edge\.0 \d+ *$", text, re.MULTILINE)
    assert said.rfind(b"\x1b[?25h") > said.rfind(b"\x1b[?25l"), "the cursor is back"


def test_picture_shows_what_a_failure_changed(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    paper = Console(file=StringIO(), width=120)
    with played(plan, tmp_path) as run:
        screen = Screen(run.launcher, paper)
        run.wait_rows("cam.0", "edge.0", 10)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 10)
        screen.turn()
        paper.print(screen.picture())
    text = paper.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"cam\.0 lost edge\.0 \(\w+\), decided in \d+ µs", text)
    assert re.search(r"^edge\.0 +server +killed *$", text, re.MULTILINE)
    assert re.search(r"edge\.0 (suspect|lost) +edge\.1 *$", text, re.MULTILINE)


def _says(launcher: Launcher, kind: Callable[..., Live]) -> list[str]:
    said: list[str] = []
    live = kind(launcher, said.append)
    live.begin()
    live.end()
    return said


def test_notes_have_no_header_and_no_line_a_second(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path, start=[], ready=False) as run:
        assert _says(run.launcher, Live) == [HEADER]
        assert _says(run.launcher, Notes) == []


def test_device_imports_neither_rich_nor_the_metrics_library(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1, endpoints=1)
    code = (
        "import sys; from understudy.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally:\n"
        "    found = {name.split('.')[0] for name in sys.modules}\n"
        "    print(found & {'rich', 'prometheus_client', 'matplotlib', 'onnx'})\n"
    )
    arguments = ["device", str(plan.folder), "cam.0", "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--seconds", "0.1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "set()\n", done.stderr
