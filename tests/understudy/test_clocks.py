"""Runs of several hosts are judged on one clock, as well as it is known."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.clocks import Shift, aligned, shifts
from understudy.figures import Detection, FaultFigures, figures
from understudy.launch import free_ports
from understudy.promise import judge
from understudy.report import write_report
from understudy.run_folder import read_run

AHEAD_S = {"cam.1": 500.0, "edge.0": -300.0, "edge.1": 8000.0}
"""Clocks of hosts of their own; cam.0 and the launcher share one."""
ERROR_S = 0.0004


def _put_on_own_hosts(made: Any, maker: Any, *, measured: bool) -> None:
    """Change what each device wrote as if its clock were another."""
    for name, table in [*made.results.items(), *made.events.items()]:
        device = next((d for d in AHEAD_S if f"-{d}-" in name), "")
        for line in table:
            for key in line:
                if key.endswith("_s") and device:
                    line[key] += AHEAD_S[device]
    for cam in ("cam.0", "cam.1") if measured else ():
        for edge in ("edge.0", "edge.1"):
            made.events[maker.events_name(cam)].append(
                {
                    "t_s": maker.t0_s + AHEAD_S.get(cam, 0.0) + 1,
                    "event": "link.clock",
                    "peer": edge,
                    "offset_s": AHEAD_S[edge] - AHEAD_S.get(cam, 0.0) + ERROR_S / 2,
                    "error_s": ERROR_S,
                }
            )


@pytest.fixture
def crashed(maker: Any) -> Any:
    return maker.simulate(seconds=5, outages=(maker.Outage("edge.0", 2.0025, 4.0),))


def _by_device(fault: FaultFigures) -> list[Detection]:
    return sorted(fault.detections, key=lambda d: d.device)


def test_figures_are_those_of_one_host_to_within_the_error(
    crashed: Any, maker: Any
) -> None:
    before = figures(read_run(crashed.write()))
    _put_on_own_hosts(crashed, maker, measured=True)
    run = aligned(read_run(crashed.write()))
    after = figures(run)
    assert after.seconds == pytest.approx(before.seconds, abs=3 * ERROR_S)
    (ours,), (theirs,) = after.faults, before.faults
    assert ours.gap_ms == pytest.approx(theirs.gap_ms, abs=1e-6)
    pairs = zip(_by_device(ours), _by_device(theirs), strict=True)
    for one, other in pairs:
        assert one.device == other.device
        assert one.error_ms == pytest.approx(
            0 if one.device == "cam.0" else 2e3 * ERROR_S
        )
        assert one.detected_ms == pytest.approx(
            other.detected_ms, abs=one.error_ms + 1e-6
        )
        assert one.decided_us == pytest.approx(other.decided_us, abs=1e-3)
    assert judge(run).kept


def test_unmeasured_clocks_are_left_as_they_are(crashed: Any, maker: Any) -> None:
    _put_on_own_hosts(crashed, maker, measured=False)
    run = read_run(crashed.write())
    assert aligned(run) is run


def test_one_host_is_not_touched(crashed: Any, maker: Any) -> None:
    """What was measured there is noise: within its own error."""
    crashed.events[maker.events_name("cam.0")].append(
        {
            "t_s": maker.t0_s + 1, "event": "link.clock", "peer": "edge.0",
            "offset_s": 0.0001, "error_s": 0.0002,
        }
    )  # fmt: skip
    run = read_run(crashed.write())
    assert aligned(run) is run
    assert shifts(run)["edge.0"] == Shift()


def test_error_is_drawn_in_the_report(crashed: Any, maker: Any) -> None:
    _put_on_own_hosts(crashed, maker, measured=True)
    folder = crashed.write()
    run = aligned(read_run(folder))
    write_report(run, figures(run), judge(run), folder / "report.html")
    page = (folder / "report.html").read_text()
    assert "clock ± ms" in page
    assert ">0.80<" in page


def test_drift_between_two_measurements_is_followed() -> None:
    shift = Shift(((100.0, 5.0), (160.0, 5.006)))
    assert shift.at(130.0) == pytest.approx(5.003)
    assert (shift.at(0.0), shift.at(1000.0)) == (5.0, 5.006)


@pytest.mark.root
def test_server_with_another_clock_is_aligned(tmp_path: Path) -> None:
    """A time namespace gives a process what another host would: another clock."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    command = [
        *("unshare", "--time", "--monotonic", "1000", "--fork", "--kill-child"),
        *(sys.executable, "-m", "understudy", "device", str(plan.folder), "edge.0"),
        *("--run", str(tmp_path), "--with-stdin"),
    ]
    path = os.pathsep.join(sys.path)
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        with played(plan, tmp_path, start=["cam.0"]) as run:
            run.wait_event("cam.0", "link.clock", peer="edge.0")
            run.wait_rows("cam.0", "edge.0", 5)
            run.kill("cam.0", signal.SIGTERM)
            assert run.wait_exit("cam.0") == 0
    finally:
        server.communicate(timeout=10)
    found = read_run(tmp_path)
    (cam,) = (d for d in found.devices if d.device == "cam.0")
    (edge,) = (d for d in found.devices if d.device == "edge.0")
    up, served = next(cam.named("link.up")), next(edge.named("session.opened"))
    assert served.t_s - up.t_s > 900
    shift = shifts(found)["edge.0"]
    assert shift.at(served.t_s) == pytest.approx(-1000, abs=shift.error_s)
    (edge,) = (d for d in aligned(found).devices if d.device == "edge.0")
    served = next(edge.named("session.opened"))
    assert -0.5 < served.t_s - up.t_s < shift.error_s
