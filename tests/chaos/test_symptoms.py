"""Symptoms that chaos campaigns found on real processes; each was seen once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow.plan import Plan
from dataflow.wire.timers import SUSPECT_S
from tests.support.run import LIMIT_S, Played, outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.chaos_faults import breakable_links, write_stranger
from understudy.launch import free_ports
from understudy.proxy import WHOLE, Condition, ProxiedLink

Links = dict[tuple[str, str], ProxiedLink]


@contextmanager
def proxied(plan: Plan, folder: Path, **options: Any) -> Iterator[tuple[Played, Links]]:
    """Start all devices of `plan`, every link through a proxy."""
    with (
        breakable_links(plan, folder) as (links, folders),
        played(plan, folder, start=[], **options) as run,
    ):
        run.launcher.folders.update(folders)
        for name in plan.devices:
            run.launcher.start(name)
        for endpoint, server in links:
            run.wait_event(endpoint, "link.up", peer=server)
        yield run, links


def test_half_open_link_is_noticed_though_the_server_is_still_heard(
    tmp_path: Path,
) -> None:
    """The server's beats kept the link alive: libzmq took them for answers to pings."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), deadline_ms=3000, window=16,
        source={"rate_hz": 40},
    )  # fmt: skip
    with proxied(plan, tmp_path) as (run, links):
        run.wait_rows("cam.0", "edge.0", 50)
        links["cam.0", "edge.0"].become(Condition(forth=False))
        suspect = run.wait_event("cam.0", "link.suspect", peer="edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        links["cam.0", "edge.0"].become(WHOLE)
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert suspect["evidence"] == "heartbeat"
    assert max(r.latency_ms for r in results(found, "cam.0")) < 2000


def test_dead_server_behind_a_port_forwarder_is_no_configuration_error(
    tmp_path: Path,
) -> None:
    """Forwarders accept for the dead; that was told as a wrong key, with its waits."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with proxied(plan, tmp_path) as (run, _):
        run.wait_rows("cam.0", "edge.0", 10)
        run.kill("edge.0")
        for _ in range(4):  # dials that find nobody
            run.wait_rows("cam.0", "here", 100)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 10)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert not [d for d in found.devices if any(d.named("link.refused"))]


def test_slow_link_drops_no_frame_while_another_server_is_idle(tmp_path: Path) -> None:
    """Most frames were dropped: the window was full of those that waited there."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), size=25_000, window=16,
        source={"rate_hz": 50},
    )  # fmt: skip
    with proxied(plan, tmp_path) as (run, links):
        run.wait_rows("cam.0", "edge.0", 50)
        links["cam.0", "edge.0"].become(Condition(bytes_per_s=500e3))
        run.wait_rows("cam.0", "edge.1", 100)
        links["cam.0", "edge.0"].become(WHOLE)
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    dropped = [r for r in results(found, "cam.0") if r.status == "dropped"]
    assert len(dropped) < 10


def test_endpoint_that_slept_for_seconds_uses_its_server_at_once(
    tmp_path: Path,
) -> None:
    """The server had ended the session, and did not say so: 1 to 2.6 s without it."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("cam.0", signal.SIGSTOP)
        run.wait_event("edge.0", "session.ended")
        run.kill("cam.0", signal.SIGCONT)
        back = run.wait_event("cam.0", "link.back", peer="edge.0")
    assert outcome(tmp_path)[1].kept
    assert back["away_ms"] < 1e3 * SUSPECT_S  # it was told, and did not wait that long


def test_device_whose_words_cannot_be_written_goes_on(tmp_path: Path) -> None:
    """A full disk, or a reader that left: the message of a failure raised another."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    command = [sys.executable, "-m", "understudy", "device", str(plan.folder), "cam.0"]
    with (
        played(plan, tmp_path, start=["edge.0"]) as run,
        subprocess.Popen(
            [*command, "--run", str(tmp_path)],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as device,
    ):
        run.wait_rows("cam.0", "edge.0", 10)
        assert device.stderr is not None
        device.stderr.close()
        run.kill("edge.0")
        run.launcher.folders["edge.0"] = write_stranger(plan, tmp_path)
        run.launcher.start("edge.0")
        run.wait_event("cam.0", "link.refused")
        run.wait_rows("cam.0", "here", 10)
        device.terminate()
        assert device.wait(LIMIT_S) == 1  # it was refused
    assert outcome(tmp_path)[1].kept
