"""Keys of running devices: replaced without losing a frame, revoked, wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataflow.errors import UnderstudyError
from dataflow.plan import Plan, write_plan
from dataflow.wire.ask import ask_status
from dataflow.wire.keys import (
    load_keys,
    new_keys,
    retire_key,
    rotate_key,
    switch_key,
)
from tests.support.relay import Relay
from tests.support.run import Played, outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

ALL = ("cam.0", "edge.0", "edge.1")


def plan_with_keys(tmp_path: Path, *, local: bool = False, servers: int = 2) -> Plan:
    for name in ALL[: servers + 1]:
        new_keys(tmp_path / "keys", name)
    return toy_plan(
        tmp_path / "plan",
        port=free_ports(servers),
        servers=servers,
        local=local,
        keys=tmp_path / "keys",
    )


def wait_read(run: Played, *devices: str) -> None:
    """Wait until `devices` have read the keys once more than before."""
    for device in devices:
        run.wait_event(device, "keys.read")
    run.forget()


def doubts(run: Played) -> list[object]:
    return [r for _, r in run.records if r.get("event") == "link.suspect"]


@pytest.mark.parametrize("rotated", ["cam.0", "edge.0"])
def test_key_of_a_running_device_is_replaced_without_losing_a_frame(
    tmp_path: Path, rotated: str
) -> None:
    """There is no branch at home: whatever no server answers would be dropped."""
    plan = plan_with_keys(tmp_path)
    folder = tmp_path / "keys"
    before = load_keys(folder, rotated)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        rotate_key(folder, rotated)
        wait_read(run, *ALL)
        switch_key(folder, rotated)
        for server in ("edge.0", "edge.1") if rotated == "cam.0" else ("edge.0",):
            run.wait_event("cam.0", "link.back", peer=server)
        run.wait_rows("cam.0", "edge.0", 20)
        run.forget()
        retire_key(folder, rotated)
        wait_read(run, *ALL)
        run.wait_rows("cam.0", "edge.0", 50)
        assert doubts(run) == []
        if rotated == "cam.0":
            address = plan.devices["edge.0"].connect or ""
            peers = load_keys(folder, "edge.1").peers
            old = replace(before, peers=peers)
            with pytest.raises(UnderstudyError, match="refuses the handshake of 'cam"):
                ask_status("edge.0", address, keys=old, timeout_s=5.0)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam.0")} == {"full"}
    assert load_keys(folder, rotated).secret != before.secret


@pytest.mark.parametrize("with_keys", [True, False])
def test_nothing_readable_crosses_a_link_with_keys(
    tmp_path: Path, with_keys: bool
) -> None:
    plan = plan_with_keys(tmp_path, servers=1)
    if not with_keys:
        plan = replace(plan, keys=None)
    edge = plan.devices["edge.0"]
    entry = free_ports(1)
    reached = replace(edge, connect=f"tcp://127.0.0.1:{entry}")
    plan = replace(plan, devices={**plan.devices, "edge.0": reached})
    write_plan(plan)
    target = int((edge.listen or "").rpartition(":")[2])
    with Relay(port=entry, target=target) as relay, played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 50)
        crossed = bytes(relay.passed)
    tokens = (np.full(4, frame, np.float32).tobytes() for frame in range(1, 50))
    assert any(token in crossed for token in tokens) is not with_keys
    assert (b"cam.0" in crossed) is not with_keys


def test_key_that_is_taken_away_ends_its_connections(tmp_path: Path) -> None:
    plan = plan_with_keys(tmp_path, local=True, servers=1)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        (tmp_path / "keys" / "cam.0.key").unlink()
        refused = run.wait_event("cam.0", "link.refused")
        run.wait_rows("cam.0", "here", 20)
    assert "device 'edge.0'" in refused["error"]
    assert "does not hold the public key that 'cam.0' uses" in refused["error"]
    assert outcome(tmp_path)[1].kept


def test_keys_that_cannot_be_read_change_nothing(tmp_path: Path) -> None:
    plan = plan_with_keys(tmp_path, servers=1)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        key = tmp_path / "keys" / "cam.0.key"
        whole = key.read_bytes()
        key.write_bytes(whole[: len(whole) - 10])  # half of it is copied so far
        told = run.wait_event("edge.0", "keys.unreadable")
        run.wait_rows("cam.0", "edge.0", 50)
        assert doubts(run) == []
        key.write_bytes(whole)
        run.wait_rows("cam.0", "edge.0", 50)
        assert doubts(run) == []
    assert "cam.0.key: is not a ZeroMQ certificate" in told["error"]
    assert outcome(tmp_path)[1].kept


def test_other_public_key_of_a_server_is_told_with_both_names(tmp_path: Path) -> None:
    """What the endpoint holds as the server's key is another's."""
    plan = plan_with_keys(tmp_path, local=True, servers=1)
    ours = tmp_path / "ours"
    ours.mkdir()
    for path in (tmp_path / "keys").iterdir():
        (ours / path.name).write_bytes(path.read_bytes())
    (ours / "edge.0.key").write_bytes((ours / "cam.0.key").read_bytes())
    endpoint = replace(plan, keys=ours, folder=tmp_path / "plan-endpoint")
    write_plan(endpoint)
    (tmp_path / "run-server").mkdir()
    with (
        played(plan, tmp_path / "run-server", start=["edge.0"]),
        played(endpoint, tmp_path, start=["cam.0"], seconds=2) as run,
    ):
        refused = run.wait_event("cam.0", "link.refused")
        assert run.wait_exit("cam.0") == 1
    assert "device 'edge.0'" in refused["error"]
    assert "'edge.0.key' in the keys folder of 'cam.0'" in refused["error"]
    assert outcome(tmp_path)[1].kept
