"""The command line: what a wrong use is told, with which status, and what it prints."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from dataflow.wire.keys import new_keys
from graphs.deployment import CODECS
from understudy.cli import main
from understudy.commands.demo import demo
from understudy.commands.up import up
from understudy.launch import free_ports

LIMIT_S = 30
DEPLOYMENT = "two-by-two.yaml"
DEVICES = "its devices are cam.0, cam.1, edge.0, edge.1"

RATES = """\
understudy: 1
graph: rates
actors:
  camera: {ports: {out: {frame: "uint8[8,8,1]", size: {token: "int32[]", rate: 2}}}}
  detect: {ports: {in: {frame: "uint8[8,8,1]", size: "int32[]"}}}
fifos:
  - camera.frame -> detect.frame
  - camera.size -> detect.size
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped files in the working directory, as a user's own."""
    shutil.copytree(Path(str(files("graphs") / "digits")), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


FILE_MISTAKES = {
    "YAML syntax": (
        "digits.yaml",
        ("actors:", "actors: ["),
        "digits.yaml:11:3: not valid YAML: did not find expected ',' or ']'",
    ),
    "unknown actor type": (
        "digits.yaml",
        ("type: images", "type: image"),
        "digits.yaml:8:18: actor 'camera': actor type 'image': unknown (did you mean "
        "'images'?); known are images, arrays, normalise, onnx, confidence, batch, "
        "sample, "
        "copy, switch, select, encode, decode, pack, results; a class of your own is "
        "written package.module:Class",
    ),
    "own actor that is not importable": (
        "digits.yaml",
        ("type: images", "type: mine:Camera"),
        "digits.yaml:8:18: actor 'camera': actor type 'mine:Camera': no module 'mine' "
        "on the import path; install its package or add its folder to PYTHONPATH",
    ),
    "unknown actor": (
        "digits.yaml",
        ("camera.frame ->", "camra.frame ->"),
        "digits.yaml:24:5: fifo camra.frame -> prep.pixels: actor 'camra' is not in "
        "the graph (did you mean 'camera'?)",
    ),
    "unknown port": (
        "digits.yaml",
        ("prep.image ->", "prep.imgae ->"),
        "digits.yaml:25:5: fifo prep.imgae -> net.input: actor 'prep' has no port "
        "'imgae' (did you mean 'image'?); its ports are pixels, image",
    ),
    "unknown tensor to tap": (
        "digits.yaml",
        ("net@features1", "net@feature1"),
        "digits.yaml:26:5: fifo net@feature1 -> exit1.features: tensor 'feature1': not "
        "in HERE/digits.onnx (did you mean 'features1'?); list what can be cut with "
        "`understudy split HERE/digits.onnx`",
    ),
    "another shape": (
        "digits.yaml",
        ("net@features1", "net@features2"),
        "digits.yaml:26:5: fifo net@features2 -> exit1.features: carries "
        "float32[1,16,4,4], but exit1.features takes float32[1,8,8,8]; put an actor "
        "between that converts, or connect another port (R1)",
    ),
    "another dtype": (
        "digits.yaml",
        ("camera.label -> result.label", "net@features1 -> result.label"),
        "digits.yaml:29:5: fifo net@features1 -> result.label: carries "
        "float32[1,8,8,8], but result.label takes int64[]; put an actor between that "
        "converts, or connect another port (R1)",
    ),
    "unknown tensor to cut at": (
        DEPLOYMENT,
        ("cut: features2", "cut: feature2"),
        "two-by-two.yaml:22:14: map: net: cut: tensor 'feature2': not in "
        "HERE/digits.onnx (did you mean 'features2'?); list what can be cut with "
        "`understudy split HERE/digits.onnx`",
    ),
    "unmapped actor": (
        DEPLOYMENT,
        ("  exit1: cam\n", ""),
        "two-by-two.yaml:19:3: map: actor 'exit1' is not mapped; name its device "
        "group, one of cam, edge",
    ),
    "mapped actor that is not there": (
        DEPLOYMENT,
        ("  prep: cam\n", "  prepp: cam\n"),
        "two-by-two.yaml:20:3: map: actor 'prepp' is not in graph 'digits' (did you "
        "mean 'prep'?)",
    ),
    "unknown device group": (
        DEPLOYMENT,
        ("tail: edge", "tail: egde"),
        "two-by-two.yaml:22:42: map: net: tail: device group 'egde' is not under "
        "devices (did you mean 'edge'?)",
    ),
    "graph file that is not there": (
        DEPLOYMENT,
        ("graph: digits.yaml", "graph: digit.yaml"),
        "two-by-two.yaml:8:8: graph: file 'digit.yaml' is not there (did you mean "
        "'digits.yaml'?)",
    ),
}


@pytest.mark.parametrize(
    ("file", "change", "message"), FILE_MISTAKES.values(), ids=FILE_MISTAKES
)
def test_mistake_in_a_file_is_located_and_status_1(
    here: Path, file: str, change: tuple[str, str], message: str
) -> None:
    edit(here / file, *change)
    result = run("check", DEPLOYMENT)
    assert result.stderr == message.replace("HERE", str(here)) + "\n"
    assert result.exit_code == 1
    assert result.stdout == ""


def test_rates_that_contradict_are_located(here: Path) -> None:
    (here / "rates.yaml").write_text(RATES)
    result = run("check", "rates.yaml")
    assert result.stderr == (
        "rates.yaml:8:5: fifo camera.size -> detect.size: asks for 2 firings of detect "
        "per firing of camera, but the path camera -> detect gives 1; change a rate on "
        "that cycle (R8)\n"
    )
    assert result.exit_code == 1


WRONG_USES: dict[str, tuple[list[str], int, str]] = {
    "missing file": (
        ["check", "nix.yaml"],
        2,
        "nix.yaml: cannot be read (No such file or directory); name a file that is "
        "there",
    ),
    "graph file in place of a deployment": (
        ["up", "digits.yaml"],
        1,
        "digits.yaml: is a graph file, which says what is computed; give the "
        "deployment file that says where, with `devices` and `map`",
    ),
    **{
        f"model in place of a deployment, {command}": (
            [command, "digits.onnx"],
            2,
            "digits.onnx: a model, neither a graph nor a deployment; make a deployment "
            "of it with `understudy explore digits.onnx … --write FOLDER`",
        )
        for command in ("up", "check", "status", "draw")
    },
    "plan of a graph file": (
        ["check", "digits.yaml", "--plan", "plan"],
        2,
        "digits.yaml: is a graph file, and a plan says where actors run, too; give a "
        "deployment file with --plan",
    ),
    "folder that is no plan": (
        ["status", "."],
        2,
        ".: a folder without plan.json; give a deployment file, or a plan folder that "
        "`understudy check DEPLOYMENT --plan FOLDER` wrote",
    ),
    "plan where a file is": (
        ["check", DEPLOYMENT, "--plan", "digits.json"],
        2,
        "digits.json: cannot be written (Not a directory); name another folder, with "
        "room on its disk",
    ),
    "unknown device": (
        ["device", DEPLOYMENT, "edge.7"],
        2,
        f"device 'edge.7': not in deployment 'two-by-two' (did you mean 'edge.1'?); "
        f"{DEVICES}",
    ),
    "run folder that is a file": (
        ["device", DEPLOYMENT, "cam.0", "--run", "digits.json"],
        2,
        "HERE/digits.json/plan-cam.0: cannot be written (Not a directory); name "
        "another folder, with room on its disk",
    ),
    "run folder in a file": (
        ["demo", "--run", "digits.json/run"],
        2,
        "HERE/digits.json/run/plan: cannot be written (Not a directory); name another "
        "folder, with room on its disk",
    ),
    "figures to a folder": (
        ["demo", "--json", "."],
        2,
        ".: is a folder; name another file with --json",
    ),
    "figures to nowhere": (
        ["up", DEPLOYMENT, "--json", "/nix/figures.json"],
        2,
        "/nix/figures.json: no folder /nix; name another file with --json",
    ),
    "report of nothing": (
        ["report", "nix"],
        2,
        "nix: no such folder; give the folder that a run wrote, the one with "
        "results-*.jsonl",
    ),
    "report of a folder without a run": (
        ["report", "."],
        2,
        ".: holds no results-*.jsonl and no events-*.jsonl; give the folder that a run "
        "wrote",
    ),
    "metrics at no address": (
        ["device", DEPLOYMENT, "cam.0", "--metrics", "somewhere"],
        2,
        "metrics address 'somewhere': not an address; write HOST:PORT, as "
        "127.0.0.1:9100, or a port alone for this machine only",
    ),
    "metrics past the last port": (
        ["up", DEPLOYMENT, "--metrics", "65536"],
        2,
        "metrics address '65536': not an address; write HOST:PORT, as "
        "127.0.0.1:9100, or a port alone for this machine only",
    ),
    "keys for no device name": (
        ["keys", "new", "edge.0", "a/b"],
        2,
        "device 'a/b': not a name; write it as in the deployment, such as edge.0",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "status", "message"), WRONG_USES.values(), ids=WRONG_USES
)
def test_wrong_use_is_one_line_with_its_status_and_leaves_nothing(
    here: Path, arguments: list[str], status: int, message: str
) -> None:
    before = sorted(here.rglob("*"))
    result = run(*arguments)
    assert result.stderr == f"understudy: {message}\n".replace("HERE", str(here))
    assert result.exit_code == status
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demoo"], "'demoo'"),
        (["check"], "'DEPLOYMENT'"),
        (["demo", "--server", "3"], "--server"),
        (["demo", "--servers", "0"], "'--servers': 0 is not in the range 1<=x<=64."),
        (["demo", "--seconds", "nan"], "'--seconds': nan is not a finite number"),
        (["demo", "--codec", "jpeg"], "'--codec': 'jpeg' is not one of 'none', "),
    ],
)
def test_bad_option_is_misuse(arguments: list[str], words: str) -> None:
    """The rest of the sentence is click's, and differs between its releases."""
    result = run(*arguments)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last
    assert result.exit_code == 2


def test_run_folder_that_holds_a_run_is_misuse(here: Path) -> None:
    old = here / "old" / "results-cam.0-0000000000000001.jsonl"
    old.parent.mkdir()
    old.touch()
    for command in (["demo"], ["up", DEPLOYMENT]):
        result = run(*command, "--run", "old")
        assert result.stderr == (
            "understudy: old: holds a run already; name another with --run or delete "
            "it\n"
        )
        assert result.exit_code == 2
    assert list(old.parent.iterdir()) == [old]


def test_plan_of_another_version_is_misuse(here: Path) -> None:
    assert run("check", DEPLOYMENT, "--plan", "plan").exit_code == 0
    edit(here / "plan" / "plan.json", '"understudy": 1', '"understudy": 7')
    result = run("device", "plan", "cam.0")
    assert result.exit_code == 2
    assert "plan of version 7, this is version 1; compile it again" in result.stderr


def test_keys_are_never_overwritten(here: Path) -> None:
    assert run("keys", "new", "cam.0", "edge.0").exit_code == 0
    secret = (here / "keys" / "cam.0.key_secret").read_bytes()
    result = run("keys", "new", "cam.0")
    assert result.stderr == (
        "understudy: keys/cam.0.key: there already; replace it with `understudy "
        "keys rotate cam.0`, or delete both files of 'cam.0'\n"
    )
    assert result.exit_code == 2
    assert (here / "keys" / "cam.0.key_secret").read_bytes() == secret
    assert (here / "keys" / "cam.0.key_secret").stat().st_mode & 0o077 == 0


# --- what the commands print -------------------------------------------------------


def test_check_says_who_answers_in_whose_place(here: Path) -> None:
    result = run("check", DEPLOYMENT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "two-by-two: sound"
    start = lines.index(next(line for line in lines if "stream cam.1" in line))
    rows = [line.split()[1] for line in lines[start + 1 : start + 5]]
    assert rows == ["edge.1", "edge.0", "exit2", "exit1"]
    assert lines[start + 6].split()[0] == "standby:"


def test_check_prints_json(here: Path) -> None:
    checked = json.loads(run("check", DEPLOYMENT, "--json").stdout)
    assert checked["sound"] is True
    assert [stream["stream"] for stream in checked["streams"]] == ["cam.0", "cam.1"]


def test_expanded_graph_is_a_graph_file_that_check_accepts(here: Path) -> None:
    expanded = run("check", DEPLOYMENT, "--expand").stdout
    (here / "expanded.yaml").write_text(expanded)
    result = run("check", "expanded.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("digits: sound\n")
    again = run("check", "expanded.yaml", "--expand").stdout
    assert yaml.safe_load(again) == yaml.safe_load(expanded)


def test_plan_folder_stands_for_its_deployment(here: Path) -> None:
    assert run("check", DEPLOYMENT, "--plan", "plan").exit_code == 0
    (here / DEPLOYMENT).unlink()
    result = run("check", "plan")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("two-by-two: sound\n")


def test_help_names_every_command_in_the_order_of_use() -> None:
    text = run("--help").stdout.partition("Commands:\n")[2]
    names = [line.split()[0] for line in text.splitlines()]
    assert names == [
        "demo",
        "split",
        "profile",
        "explore",
        "check",
        "draw",
        "simulate",
        "device",
        "up",
        "switch",
        "chaos",
        "status",
        "report",
        "keys",
    ]
    assert "..." not in text


@pytest.mark.parametrize(
    "command", ["demo", "split", "check", "draw", "device", "up", "status"]
)
def test_help_of_a_command_holds_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: understudy {command}" in result.stdout


def test_our_own_failure_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("understudy.checking.check", fail)
    result = run("check", DEPLOYMENT)
    assert result.exit_code == 1
    assert result.stderr == (
        "understudy: internal error: ZeroDivisionError('surprise'); our fault, please "
        "report it with what UNDERSTUDY_DEBUG=1 prints\n"
    )


# --- report ------------------------------------------------------------------------


def test_report_of_a_kept_run_is_status_0(here: Path, maker: Any) -> None:
    folder = maker.simulate().write()
    result = run("report", str(folder), "--json", "figures.json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "every frame answered once, in order: kept" in result.stdout
    figures = json.loads((here / "figures.json").read_text())
    assert figures["promise"]["kept"] is True
    assert json.loads((folder / "summary.json").read_text()) == figures
    assert (folder / "report.html").is_file()


def test_report_of_a_torn_run_says_what_is_missing(maker: Any) -> None:
    folder = maker.simulate().write()
    torn = next(folder.glob("results-cam.0-*"))
    os.truncate(torn, torn.stat().st_size - 400)
    result = run("report", str(folder))
    assert result.exit_code == 1
    assert "BROKEN" in result.stdout
    assert f"{torn}:" in result.stdout
    assert "no `ended` line" in result.stdout


def test_report_of_an_empty_results_file_is_broken_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "results-cam.0-0000000000000001.jsonl").touch()
    result = run("report", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, "")
    assert "BROKEN" in result.stdout


def test_report_of_garbage_names_file_and_line(maker: Any) -> None:
    folder = maker.simulate().write()
    spoilt = next(folder.glob("results-cam.1-*"))
    lines = spoilt.read_text().splitlines(keepends=True)
    spoilt.write_text("".join([*lines[:9], "garbage\n", *lines[10:]]))
    result = run("report", str(folder))
    assert result.exit_code == 1
    assert result.stderr == (
        f"understudy: {spoilt}:10: not a JSON object: b'garbage'; only the last line "
        "may be incomplete, after a kill\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_costs_the_report_and_nothing_else(maker: Any) -> None:
    folder = maker.simulate().write()
    (folder / "summary.json").symlink_to("/dev/full")
    result = run("report", str(folder))
    assert result.exit_code == 1
    assert "every frame answered once, in order: kept" in result.stdout
    assert result.stderr == (
        f"understudy: {folder}: the report cannot be written (No space left on device);"
        f" make room, then `understudy report {folder}`\n"
    )


# --- status ------------------------------------------------------------------------


@pytest.fixture
def ports(here: Path) -> int:
    """A free port for edge.0, and the next for edge.1, in the deployment."""
    port = free_ports(2)
    edit(here / DEPLOYMENT, "127.0.0.1:7000", f"127.0.0.1:{port}")
    return port


def test_status_of_devices_that_are_not_running_is_status_1(ports: int) -> None:
    result = run("status", DEPLOYMENT)
    assert result.exit_code == 1
    assert result.stdout == "".join(
        f"device 'edge.{i}' at tcp://127.0.0.1:{ports + i}: not running (connection "
        f"refused); start it with `understudy device … edge.{i}`\n"
        for i in range(2)
    )


def test_status_without_a_key_of_ours_says_so(here: Path, ports: int) -> None:
    edit(here / DEPLOYMENT, "graph:", "keys: keys\ngraph:")
    result = run("status", DEPLOYMENT)
    assert result.exit_code == 1
    assert f"{here}/keys: no secret key here" in result.stderr


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, that is gone in the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "understudy", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_ready(process: subprocess.Popen[str]) -> None:
    """Wait until a device says that it is ready."""
    assert process.stderr is not None
    end_s, said = time.monotonic() + LIMIT_S, b""
    while b"ready after" not in said:
        left_s = end_s - time.monotonic()
        assert left_s > 0, f"not ready within {LIMIT_S} s: {said.decode()}"
        if select.select([process.stderr], [], [], left_s)[0]:
            news = os.read(process.stderr.fileno(), 4096)
            assert news, f"ended before it was ready: {said.decode()}"
            said += news


def test_running_device_is_asked_and_ends_on_sigterm(ports: int) -> None:
    with started("device", DEPLOYMENT, "edge.0", "--run", "run") as process:
        wait_ready(process)
        asked = json.loads(run("status", DEPLOYMENT, "--json").stdout)
        assert (asked["edge.0"]["state"], asked["edge.0"]["pid"]) == (
            "ready",
            process.pid,
        )
        assert "not running" in asked["edge.1"]["error"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_device_ends_with_its_standard_input(ports: int) -> None:
    with started("device", DEPLOYMENT, "edge.0", "--with-stdin") as process:
        wait_ready(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


def test_key_is_replaced_in_three_steps_that_say_what_comes_next(here: Path) -> None:
    assert run("keys", "new", "cam.0").exit_code == 0
    rotated = run("keys", "rotate", "cam.0")
    assert rotated.stdout == (
        "keys/cam.0.key_next (copy it to every device; then `understudy keys switch "
        "cam.0`, here first)\n"
    )
    assert "understudy keys retire cam.0" in run("keys", "switch", "cam.0").stdout
    assert run("keys", "retire", "cam.0").stdout == "keys: 'cam.0' has one key again\n"
    assert run("keys", "retire", "cam.0").exit_code == 2
    assert run("keys", "rotate", "../cam").exit_code == 2


def test_stranger_without_a_known_key_learns_nothing(here: Path, ports: int) -> None:
    edit(here / DEPLOYMENT, "graph:", "keys: keys\ngraph:")
    for name in ("edge.0", "cam.0"):
        new_keys(here / "keys", name)
    with started("device", DEPLOYMENT, "edge.0") as process:
        wait_ready(process)
        (here / "keys").rename(here / "theirs")
        new_keys(here / "keys", "stranger")
        shutil.copy(here / "theirs" / "edge.0.key", here / "keys")
        shutil.copy(here / "theirs" / "edge.0.key", here / "keys" / "edge.1.key")
        result = run("status", DEPLOYMENT, "--as", "stranger")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == (
        f"device 'edge.0' at tcp://127.0.0.1:{ports}: refuses the handshake of "
        "'stranger': its keys folder does not hold the public key that 'stranger' uses,"
        " or it shut 'stranger' out for a flood; copy the present 'stranger.key' to "
        "'edge.0'"
    )


def test_port_in_use_ends_up_with_one_message(here: Path, ports: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports))
        taken.listen()
        with started("up", DEPLOYMENT, "--run", "run") as process:
            _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert said == (
        f"understudy: tcp://127.0.0.1:{ports}: cannot listen there (address already in "
        "use); end what uses it, or give another address as `listen` in the "
        "deployment\n"
    )
    assert not list((here / "run").glob("log-cam.*")), "endpoints must not start"


def test_c_locale_warnings_as_errors_and_no_colour_print_plainly(here: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "NO_COLOR": "1",
    }
    for arguments in (["check", DEPLOYMENT], ["status", DEPLOYMENT], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "understudy", *arguments],
            env=environment,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.stderr == b""
        assert done.stdout.strip()
        assert b"\x1b" not in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_working_directory_that_cannot_be_written_is_misuse(here: Path) -> None:
    here.chmod(0o555)
    try:
        result = run("demo")
    finally:
        here.chmod(0o755)
    assert result.exit_code == 2
    assert "cannot be written (Permission denied)" in result.stderr


BREAKS = """\
from dataflow.behaviour import Behaviour
from dataflow.graph import Port, TokenType


class Breaks(Behaviour):
    stateful = True

    @classmethod
    def ports(cls, params):
        image = TokenType("float32", (1, 1, 8, 8))
        return (Port("image", "in", image), Port("out", "out", image))

    def fire(self, image):
        self.fired = getattr(self, "fired", 0) + 1
        if self.fired > 20:
            raise ValueError("the lens is dirty")
        return image
"""


def test_up_with_a_device_that_fails_is_status_1(
    here: Path, ports: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "breaks.py").write_text(BREAKS)
    edit(here / "digits.yaml", "  # A whole", '  lens: {type: "breaks:Breaks"}\n  # A')
    edit(
        here / "digits.yaml",
        "prep.image -> net.input",
        "prep.image -> lens.image\n  - lens.out -> net.input",
    )
    edit(here / DEPLOYMENT, "  prep: cam\n", "  prep: cam\n  lens: cam\n")
    monkeypatch.syspath_prepend(str(here))
    with started("up", DEPLOYMENT, "--run", "run", "--seconds", "60") as process:
        printed, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, printed + said
    assert "the lens is dirty" in said
    assert "understudy: device 'cam.0' ended with status 1: actor 'lens[cam.0]'" in said
    assert "Traceback" not in said
    assert (here / "run" / "report.html").is_file()


@pytest.mark.parametrize("command", [demo, up])
def test_every_codec_that_a_deployment_file_takes_can_be_given(
    command: click.Command,
) -> None:
    (option,) = (p for p in command.params if p.name == "codec")
    assert list(option.type.choices) == list(CODECS)  # type: ignore[attr-defined]
