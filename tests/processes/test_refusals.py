"""What a device refuses: keys, versions, plans, addresses, bytes; losing nothing."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from dataflow.plan import Device, Plan, write_plan
from dataflow.wire.control import CONTROL_MAGIC, Refuse, unpack_control
from dataflow.wire.keys import new_keys
from tests.support.run import outcome, played, results
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

Socket = zmq.Socket[bytes]


@pytest.fixture
def open_socket() -> Iterator[Callable[[int], Socket]]:
    """Opens ZeroMQ sockets of a type and closes them in the end."""
    context: zmq.Context[Socket] = zmq.Context()
    opened: list[Socket] = []

    def open_one(kind: int) -> Socket:
        opened.append(context.socket(kind))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close(linger=0)
    context.term()


def _with_server(plan: Plan, address: str, folder: Path) -> Plan:
    devices = dict(plan.devices)
    devices["edge.0"] = Device("edge.0", "server", address, address)
    changed = replace(plan, devices=devices, folder=folder)
    write_plan(changed)
    return changed


def test_port_in_use_is_said_and_ends_with_status_1(tmp_path: Path) -> None:
    port = free_ports(1)
    plan = toy_plan(tmp_path / "plan", port=port, servers=1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with played(plan, tmp_path, start=["edge.0"], ready=False) as run:
            assert run.wait_exit("edge.0") == 1
            log = run.log("edge.0")
    assert (
        f"tcp://127.0.0.1:{port}: cannot listen there (address already in use)" in log
    )
    assert "Traceback" not in log


def test_listening_beyond_loopback_without_keys_is_refused(tmp_path: Path) -> None:
    port = free_ports(1)
    plan = _with_server(
        toy_plan(tmp_path / "made", port=port, servers=1),
        f"tcp://0.0.0.0:{port}",
        tmp_path / "plan",
    )
    with played(plan, tmp_path, start=["edge.0"], ready=False) as run:
        assert run.wait_exit("edge.0") == 1
        assert "beyond loopback, without keys" in run.log("edge.0")
    with played(plan, tmp_path, start=["edge.0"], insecure=True) as run:
        run.wait_event("edge.0", "device.ready")


def _keys(folder: Path, *names: str) -> Path:
    for name in names:
        new_keys(folder, name)
    return folder


def test_devices_with_each_others_keys_talk(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", "cam.0", "edge.0")
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1, keys=keys)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
    assert outcome(tmp_path)[1].kept


def test_wrong_key_is_told_once_and_costs_no_frame(tmp_path: Path) -> None:
    """The server does not have the endpoint's key in its folder."""
    ours = _keys(tmp_path / "ours", "cam.0", "edge.0")
    theirs = _keys(tmp_path / "theirs", "cam.0", "edge.0")
    (theirs / "edge.0.key").write_bytes((ours / "edge.0.key").read_bytes())
    (theirs / "edge.0.key_secret").write_bytes(
        (ours / "edge.0.key_secret").read_bytes()
    )
    port = free_ports(1)
    server = toy_plan(tmp_path / "server", port=port, servers=1, keys=theirs)
    endpoint = toy_plan(tmp_path / "endpoint", port=port, servers=1, keys=ours)
    (tmp_path / "run-server").mkdir()
    with (
        played(server, tmp_path / "run-server", start=["edge.0"]),
        played(endpoint, tmp_path, start=["cam.0"], seconds=2) as run,
    ):
        refused = run.wait_event("cam.0", "link.refused")
        run.wait_rows("cam.0", "here", 20)
        assert run.wait_exit("cam.0") == 1
        log = run.log("cam.0")
    assert outcome(tmp_path)[1].kept
    assert "refuses the handshake" in refused["error"]
    assert "public key" in refused["error"]
    assert log.count("refuses the handshake") == 1


def test_missing_secret_key_is_said(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", "cam.0")
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1, keys=keys)
    with played(plan, tmp_path, start=["edge.0"], ready=False) as run:
        assert run.wait_exit("edge.0") == 1
        assert "no secret key for device 'edge.0'" in run.log("edge.0")


def test_another_plan_is_refused_and_costs_no_frame(tmp_path: Path) -> None:
    port = free_ports(1)
    server = toy_plan(tmp_path / "server", port=port, servers=1)
    region = server.graph.regions[0]
    other = replace(region.branches[0], segment=78)
    changed = replace(
        server,
        graph=replace(
            server.graph,
            regions=(replace(region, branches=(other, *region.branches[1:])),),
        ),
    )
    write_plan(changed)
    endpoint = toy_plan(tmp_path / "endpoint", port=port, servers=1)
    (tmp_path / "run-server").mkdir()
    with (
        played(changed, tmp_path / "run-server", start=["edge.0"]),
        played(endpoint, tmp_path, start=["cam.0"], seconds=1) as run,
    ):
        refused = run.wait_event("cam.0", "link.refused")
        assert run.wait_exit("cam.0") == 1
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.row for r in results(found, "cam.0")} == {"here"}
    assert "it runs another plan" in refused["error"]


def test_peer_of_another_version_is_told_ours(
    tmp_path: Path, open_socket: Callable[[int], Socket]
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path, start=["edge.0"]):
        dealer = open_socket(zmq.DEALER)
        dealer.connect(plan.devices["edge.0"].connect or "")
        dealer.send(CONTROL_MAGIC + bytes([9]) + b"whatever version 9 says")
        assert dealer.poll(5000)
        answer = unpack_control(dealer.recv())
    assert isinstance(answer, Refuse)
    assert "version 1, its peer version 9" in answer.why


def test_server_of_another_version_is_told_and_costs_no_frame(
    tmp_path: Path, open_socket: Callable[[int], Socket]
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    router = open_socket(zmq.ROUTER)
    router.bind(plan.devices["edge.0"].listen or "")
    with played(plan, tmp_path, start=["cam.0"], seconds=1) as run:
        assert router.poll(5000)
        route, _hello = router.recv_multipart()
        router.send_multipart([route, CONTROL_MAGIC + bytes([9]) + b"no"])
        refused = run.wait_event("cam.0", "link.refused")
        assert run.wait_exit("cam.0") == 1
    assert outcome(tmp_path)[1].kept
    assert "speaks protocol version 9, this device version 1" in refused["error"]


def test_garbage_on_the_port_disturbs_nobody(
    tmp_path: Path, open_socket: Callable[[int], Socket]
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    port = int((plan.devices["edge.0"].listen or "").rpartition(":")[2])
    with played(plan, tmp_path) as run:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(4096))
        dealer = open_socket(zmq.DEALER)
        dealer.connect(plan.devices["edge.0"].connect or "")
        for message in ([b"US" + bytes(90)], [b"UC\x01\xc1"], [b""], [b"x", b"y" * 99]):
            dealer.send_multipart(message)
        run.wait_event("edge.0", "link.garbage")
        run.wait_rows("cam.0", "edge.0", 50)
        assert not [r for _, r in run.records if r.get("event") == "link.suspect"]
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.row for r in results(found, "cam.0")} == {"edge.0"}


def test_server_that_is_not_there_is_waited_for_but_not_for_ever(
    tmp_path: Path,
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path, start=["cam.0"], seconds=1) as run:
        run.wait_rows("cam.0", "here", 5)
        assert "starts without edge.0" in run.log("cam.0")
    assert outcome(tmp_path)[1].kept
