"""A hostile process with a valid key floods a server: honest frames stay *full*."""

import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from dataflow.plan import Plan
from dataflow.wire.ask import ask_status
from dataflow.wire.keys import load_keys, new_keys
from tests.support.run import Played, outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

SEGMENT = 77
MORE_BYTES_MAX = 200 * 2**20
"""What a flood may add to a server's memory: what one device may reserve, and what its
unfinished messages may take."""
ENDLESS_BYTES_MAX = 4 * MORE_BYTES_MAX
"""How much comes between two looks at a connection depends on the machine; without them
it would be gigabytes in the two seconds of a test."""


def plan_with_keys(tmp_path: Path) -> Plan:
    folder = tmp_path / "keys"
    for name in ("cam.0", "cam.1", "edge.0"):
        new_keys(folder, name)
    return toy_plan(
        tmp_path / "plan",
        port=free_ports(1),
        servers=1,
        local=False,
        keys=folder,
        source={"rate_hz": 50},
        window=25,
        tail={"take_s": 0.001},
    )


@contextmanager
def flood(kind: str, plan: Plan, *keys: str) -> Iterator[None]:
    address = plan.devices["edge.0"].connect or ""
    command = [sys.executable, "-m", "tests.support.hostile", kind, address]
    with subprocess.Popen(
        [*command, str(SEGMENT), *keys], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            yield
        finally:
            process.kill()


def pid_of(run: Played, device: str) -> int:
    started = run.wait(
        lambda _, record: (
            (record.get("event"), record.get("target")) == ("start", device)
        )
    )
    return int(started["pid"])


def resident_bytes(pid: int, what: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def test_started_server_has_less_than_half_of_the_limit(tmp_path: Path) -> None:
    """Otherwise the limits below would say little."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path, start=["edge.0"]) as run:
        run.wait_event("edge.0", "device.ready")
        assert resident_bytes(pid_of(run, "edge.0"), "VmRSS") < MORE_BYTES_MAX / 2


@pytest.mark.parametrize("kind", ["hellos", "garbage", "statuses", "overdraw", "greed"])
def test_flood_of_a_valid_key_costs_no_frame_and_no_memory(
    tmp_path: Path, kind: str
) -> None:
    plan = plan_with_keys(tmp_path)
    folder = tmp_path / "keys"
    with played(plan, tmp_path) as run:
        pid = pid_of(run, "edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
        before = resident_bytes(pid, "VmRSS")
        with flood(kind, plan, str(folder), "cam.1", "edge.0"):
            if kind != "greed":  # which does nothing wrong, only much of it
                run.wait_event("edge.0", "link.flood", peer="cam.1")
            run.wait_rows("cam.0", "edge.0", 150)
        assert resident_bytes(pid, "VmHWM") - before < MORE_BYTES_MAX
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}


def test_connections_of_one_key_are_bounded(tmp_path: Path) -> None:
    """What a flood of handshakes costs is time: frames may wait for it."""
    plan = plan_with_keys(tmp_path)
    address = plan.devices["edge.0"].connect or ""
    keys = load_keys(tmp_path / "keys", "cam.0")
    with played(plan, tmp_path) as run:
        pid = pid_of(run, "edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
        before = resident_bytes(pid, "VmRSS")
        with flood("connections", plan, str(tmp_path / "keys"), "cam.1", "edge.0"):
            run.wait_rows("cam.0", "edge.0", 100)
            told = ask_status("edge.0", address, keys=keys, timeout_s=5.0)
        assert resident_bytes(pid, "VmHWM") - before < MORE_BYTES_MAX
        run.wait_rows("cam.0", "edge.0", 20)
    assert told["closed"]["too many connections"] > 0
    assert outcome(tmp_path)[1].kept


def test_message_without_an_end_is_cut_off_before_it_fills_the_memory(
    tmp_path: Path,
) -> None:
    plan = toy_plan(
        tmp_path / "plan",
        port=free_ports(1),
        servers=1,
        local=False,
        source={"rate_hz": 50},
        window=25,
    )
    with played(plan, tmp_path) as run:
        pid = pid_of(run, "edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
        before = resident_bytes(pid, "VmRSS")
        with flood("endless", plan):
            run.wait_rows("cam.0", "edge.0", 150)
        assert resident_bytes(pid, "VmHWM") - before < ENDLESS_BYTES_MAX
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}


def test_server_that_never_ends_a_message_does_not_fill_an_endpoint(
    tmp_path: Path,
) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, source={"rate_hz": 50}
    )
    with (
        flood("endless_server", plan),
        played(plan, tmp_path, start=["cam.0"]) as run,
    ):
        pid = pid_of(run, "cam.0")
        run.wait_rows("cam.0", "here", 100)
        assert resident_bytes(pid, "VmHWM") < ENDLESS_BYTES_MAX
    assert outcome(tmp_path)[1].kept


def test_connections_of_strangers_keep_nobody_out(tmp_path: Path) -> None:
    plan = plan_with_keys(tmp_path)
    address = plan.devices["edge.0"].connect or ""
    keys = load_keys(tmp_path / "keys", "cam.1")
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        with flood("strangers", plan):
            run.wait_rows("cam.0", "edge.0", 100)
            assert ask_status("edge.0", address, keys=keys, timeout_s=10.0)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}


def rejected_with(plan: Plan, message: list[bytes]) -> list[zmq.Event]:
    """Send one message on a plain link; return what its monitor tells, to the end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.RECONNECT_IVL, -1)
    monitor = dealer.get_monitor_socket(
        zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED
    )
    dealer.connect(plan.devices["edge.0"].connect or "")
    dealer.send_multipart(message)
    events = []
    while zmq.Event.DISCONNECTED not in events and monitor.poll(5000):
        told, _ = monitor.recv_multipart()
        events.append(zmq.Event(struct.unpack("=HI", told)[0]))
    dealer.disable_monitor()
    monitor.close()
    dealer.close(linger=0)
    context.term()
    return events


@pytest.mark.parametrize(
    "message",
    [[b"x" * 10_000_000], [b""] * 10_000],
    ids=["a frame longer than any", "more frames than any"],
)
def test_message_larger_than_any_closes_its_connection(
    tmp_path: Path, message: list[bytes]
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1, local=False)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        events = rejected_with(plan, message)
        run.wait_rows("cam.0", "edge.0", 20)
    assert events == [zmq.Event.HANDSHAKE_SUCCEEDED, zmq.Event.DISCONNECTED]
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}
