"""What a campaign reports, from vitals and events that a test can set."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.chaos_report import Campaign, summarise
from understudy.chaos_schedule import Strike
from understudy.chaos_vitals import Life, Vitals, Watch, vitals_of, windows_mb
from understudy.launch import free_ports
from understudy.runs import Judged, finish

CUT = Strike(0.0, "cut", "edge.0", "cam.0", 0.0, None, alone=True)


def life(pid: int = 1, *, descriptors: int = 10, late_mb: float = 40.0) -> Life:
    start = Vitals(40.0, 10, 4)
    end = Vitals(late_mb, descriptors, 4)
    return Life("cam.0", pid, 60.0, start, end, early_mb=40.0, late_mb=late_mb)


def campaign(*strikes: Strike, **changes: Any) -> Campaign:
    given: dict[str, Any] = {
        "seed": 1, "seconds": 60.0, "kinds": ("cut",), "interrupted": False,
        "strikes": strikes, "missing_links": (), "left_over": (), "lives": (life(),),
    }  # fmt: skip
    return Campaign(**{**given, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A run with one loss of the server by its own fault, noted as a cut."""
    folder = tmp_path_factory.mktemp("run")
    plan = toy_plan(folder / "plan", port=free_ports(2))
    with played(plan, folder) as run:
        run.wait_rows("cam.0", "edge.0", 30)
        fault_s = run.launcher.kill("edge.0")
        run.launcher.note_fault("edge.0", kind="cut", observer="cam.0", t_s=fault_s)
        run.wait_rows("cam.0", "edge.1", 30)
        run.launcher.note_mended("edge.0", "cam.0")
        run.launcher.start("edge.0")
        run.wait_event("cam.0", "link.back", peer="edge.0")
        run.wait_rows("cam.0", "edge.0", 10)
    return finish(folder)


def problems(run: Judged, **changes: Any) -> tuple[str, ...]:
    return summarise(campaign(CUT, **changes), run).problems


def test_good_campaign_has_its_figures_and_no_problems(run: Judged) -> None:
    damage = summarise(campaign(CUT), run)
    (cut,) = damage.kinds
    assert (cut.kind, cut.count, cut.alone) == ("cut", 1, 1)
    assert cut.gap_ms is not None
    assert cut.detect_ms is not None
    assert (damage.unaccounted, damage.doubled, damage.disordered) == (0, 0, 0)
    assert (damage.problems, damage.unprovoked) == ((), ())


def test_fault_that_met_another_has_no_times(run: Judged) -> None:
    crowded = Strike(0.0, "cut", "edge.0", "cam.0", 0.0, None, alone=False)
    (cut,) = summarise(campaign(crowded), run).kinds
    assert (cut.count, cut.alone, cut.gap_ms) == (1, 0, None)


def test_descriptors_that_were_not_given_back_are_a_problem(run: Judged) -> None:
    (problem,) = problems(run, lives=(life(1), life(2, descriptors=12)))
    assert problem.startswith("device 'cam.0': holds 2 descriptors more")
    assert problems(run, lives=(life(1, descriptors=9),)) == ()


def test_links_and_processes_that_are_left_are_problems(run: Judged) -> None:
    (link,) = problems(run, missing_links=("cam.0-edge.0",))
    assert "cam.0-edge.0: not back" in link
    (process,) = problems(run, left_over=(4711,))
    assert "processes 4711: outlived the run" in process


def test_suspicion_without_a_fault_is_told(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 30)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 300)  # it is not for the end of the run
    log = tmp_path / "events-launcher.jsonl"
    kept = [t for t in log.read_text().splitlines() if '"fault"' not in t]
    log.write_text("\n".join(kept) + "\n")
    (told,) = summarise(campaign(), finish(tmp_path)).unprovoked
    # A token may have found the lane gone before libzmq told that it is.
    assert re.search(r"cam\.0 suspected edge\.0 \((connection|send): ", told)


@pytest.mark.parametrize(
    ("late_mb", "windows", "told"),
    [(43.0, 0.0, "flat"), (60.0, 24.0, "windows"), (60.0, 10.0, "grew")],
)
def test_memory_is_flat_or_in_full_windows_or_grew(
    late_mb: float, windows: float, told: str
) -> None:
    assert life(late_mb=late_mb).growth(windows) == told


def test_windows_hold_a_token_of_each_frame_on_both_sides(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, port=7000, endpoints=2, size=1 << 18, window=8)
    held = {device: round(mb) for device, mb in windows_mb(plan).items()}
    assert held == {"cam.0": 8, "cam.1": 8, "edge.0": 16, "edge.1": 16}


def test_a_life_begins_when_a_process_has_settled() -> None:

    watch = Watch(settle_s=2.0)
    for now_s in (0.0, 1.0, 2.0, 3.0):
        watch.look({"us": os.getpid()}, now_s)
    (found,) = watch.lives()
    assert (found.device, found.pid, found.seconds) == ("us", os.getpid(), 1.0)
    assert found.start.resident_mb > 1
    assert vitals_of(0) is None
