"""`understudy chaos` as a user starts it: real processes, real faults.

The long campaigns are slow: `pytest -m slow tests/chaos`, 18 of them, 50 s each.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.run import results
from tests.support.toy_plan import LOCAL_ADDS, SERVER_ADDS, toy_plan
from understudy.chaos_vitals import processes_of
from understudy.launch import free_ports
from understudy.run_folder import read_run

LIMIT_S = 100.0


@contextmanager
def chaos(plan: Path, run: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `understudy chaos` on the plan in a folder; end all that it started."""
    command = [sys.executable, "-m", "understudy", "chaos", str(plan)]
    with subprocess.Popen(
        [*command, "--run", str(run), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            for pid in processes_of(run):
                os.kill(pid, signal.SIGKILL)


def damage_in(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "chaos.json").read_text())
    return found


def assert_all_is_well(run: Path) -> None:
    """Compare what the campaign reports, and every answer, with what must be."""
    damage = damage_in(run)
    faults = ("unaccounted", "doubled", "disordered")
    assert [damage[fault] for fault in faults] == [0, 0, 0]
    assert damage["campaign"]["left_over"] == []
    assert damage["problems"] == []
    for held in damage["holdings"]:
        assert held["descriptors"] <= 0, held
    found = read_run(run)
    adds = {"here": LOCAL_ADDS}
    for record in found.streams:
        for result in record.results:
            if result.value is not None:
                expected = result.frame + adds.get(result.row, SERVER_ADDS)
                assert result.value[0] == expected


def test_short_campaign_reports_what_it_did_and_leaves_nothing(tmp_path: Path) -> None:
    toy_plan(tmp_path / "plan", port=free_ports(2))
    run, figures = tmp_path / "run", tmp_path / "figures.json"
    arguments = ["--minutes", "0.12", "--faults", "disk-full", "--seed", "1"]
    with chaos(tmp_path / "plan", run, *arguments, "--json", str(figures)) as process:
        said, complaints = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, complaints) == (0, ""), said
        assert processes_of(run) == []
    assert_all_is_well(run)
    assert json.loads(figures.read_text()) == damage_in(run)
    (strike,) = damage_in(run)["campaign"]["strikes"]
    (kind,) = damage_in(run)["kinds"]
    assert (strike["kind"], kind["kind"]) == ("disk-full", "disk-full")
    assert kind["count"] == 1
    assert "every frame answered once, in order: kept" in said
    assert not list(run.glob("orders-*"))
    # What could not be written is named, and what came after it is there.
    assert damage_in(run)["unwritten"] > 50
    assert results(read_run(run), "cam.0")[-1].status == "full"
    # Whoever did not fill the disk wants to know.
    again = subprocess.run(
        [sys.executable, "-m", "understudy", "report", str(run)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert again.returncode == 1
    assert "outcomes reached the sink but could not be written" in again.stderr


def test_ctrl_c_wakes_what_was_stopped_and_writes_the_report(tmp_path: Path) -> None:
    toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    run = tmp_path / "run"
    with chaos(
        tmp_path / "plan", run, "--minutes", "5", "--faults", "zombie"
    ) as process:
        wait_for_fault(run)
        os.killpg(process.pid, signal.SIGINT)
        said, complaints = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, complaints) == (0, ""), said
        assert processes_of(run) == []
    campaign = damage_in(run)["campaign"]
    assert campaign["interrupted"] is True
    assert [strike["kind"] for strike in campaign["strikes"]] == ["zombie"]
    assert (run / "report.html").is_file()
    assert "overstayed" not in (run / "events-launcher.jsonl").read_text()


def wait_for_fault(run: Path) -> None:
    log = run / "events-launcher.jsonl"
    end_s = time.monotonic() + LIMIT_S
    while not (log.exists() and '"event": "fault"' in log.read_text()):
        assert time.monotonic() < end_s, "no fault was set"
        time.sleep(0.01)


def test_unknown_fault_is_misuse(tmp_path: Path) -> None:
    toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with chaos(tmp_path / "plan", tmp_path / "run", "--faults", "kil") as process:
        _, complaints = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert "fault 'kil': unknown (did you mean 'kill'?)" in complaints


TOKENS = {"4 KB": 1_000, "150 KB": 37_500, "1.2 MB": 300_000}
"""float32 each."""


@pytest.mark.slow
@pytest.mark.parametrize("saturated", [False, True], ids=["idle", "saturated"])
@pytest.mark.parametrize("size", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize(
    ("servers", "endpoints"), [(1, 2), (2, 1), (2, 4)], ids=["K12", "K21", "K24"]
)
def test_campaign_of_everything_costs_no_frame(
    tmp_path: Path, servers: int, endpoints: int, size: int, saturated: bool
) -> None:
    toy_plan(
        tmp_path / "plan", port=free_ports(servers), servers=servers,
        endpoints=endpoints, size=size, window=8 if saturated else 24,
        source={"rate_hz": 400 if saturated else 20},
        tail={"take_s": 0.005 if saturated else 0.0},
    )  # fmt: skip
    seed = servers * 100 + endpoints * 10 + saturated
    run = tmp_path / "run"
    with chaos(
        tmp_path / "plan", run, "--minutes", "0.7", "--seed", str(seed)
    ) as played:
        said, complaints = played.communicate(timeout=LIMIT_S)
        assert (played.returncode, complaints) == (0, ""), said
    assert_all_is_well(run)
