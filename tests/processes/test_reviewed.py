"""Symptoms that a hostile reading of the runtime foretold; each was seen once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from dataflow.wire.control import (
    Beat,
    Hello,
    Refuse,
    StatusReply,
    StatusRequest,
    StreamOffer,
    Welcome,
    pack_control,
    unpack_control,
)
from dataflow.wire.keys import load_keys, new_keys
from tests.support.run import outcome, played, results
from tests.support.toy_plan import LOCAL_ADDS, SERVER_ADDS, toy_plan
from understudy.launch import free_ports

Socket = zmq.Socket[bytes]


@pytest.fixture
def dealer() -> Iterator[Socket]:
    context: zmq.Context[Socket] = zmq.Context()
    opened = context.socket(zmq.DEALER)
    opened.setsockopt(zmq.ROUTING_ID, os.urandom(16) + b"C")
    yield opened
    opened.close(linger=0)
    context.term()


def ask(dealer: Socket, message: object) -> object:
    """Send a control message; return the first answer that is no beat."""
    dealer.send(pack_control(message))  # type: ignore[arg-type]
    while True:
        assert dealer.poll(5000), "no answer"
        answer = unpack_control(dealer.recv())
        if not isinstance(answer, Beat):
            return answer


def wrong(folder: Path, stream: str, adds: Callable[[str], float]) -> list[int]:
    """Frames whose answer is another frame's."""
    answered = results(outcome(folder)[0], stream)
    return [
        r.frame
        for r in answered
        if r.value is not None and r.value[0] != r.frame + adds(r.row)
    ]


def test_source_with_a_ring_keeps_frames_that_wait_behind_a_full_window(
    tmp_path: Path,
) -> None:
    """It fires on while the window is full, and overwrote what was to be restarted."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), window=4, source_type="RingCounter",
        source={"rate_hz": 200, "frames": 300},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0", signal.SIGSTOP)
        run.wait_event("cam.0", "stream.ended")
    assert outcome(tmp_path)[1].kept
    # Of a window that stays full, some frames are answered at home.
    adds = {"here": LOCAL_ADDS}
    assert wrong(tmp_path, "cam.0", lambda row: adds.get(row, SERVER_ADDS)) == []


def test_local_actor_that_fails_at_failover_leaves_no_frame_unaccounted(
    tmp_path: Path,
) -> None:
    """The failing start was repeated while the stream was being ended."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, tail={"take_s": 0.05},
        window=256, here={"raise_from": 1}, source={"rate_hz": 100},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        # The window is never near full: before it is, some frames stay here.
        run.wait_rows("cam.0", "edge.0", 5)
        run.kill("edge.0")
        assert run.wait_exit("cam.0") == 1
        log = run.log("cam.0")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.reason for r in results(found, "cam.0")} >= {"error"}
    assert log.count("told to") == 1


def test_head_slower_than_its_source_still_answers_some_frames(tmp_path: Path) -> None:
    """Only frames that were too late were ever computed."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, window=16, deadline_ms=100,
        head={"take_s": 0.02}, source={"rate_hz": 100, "frames": 300},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_event("cam.0", "stream.ended")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    late = [r for r in results(found, "cam.0") if r.frame >= 150]
    assert len([r for r in late if r.status == "full"]) > 30


def test_deeply_nested_words_of_a_peer_do_not_end_a_server(
    tmp_path: Path, dealer: Socket
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path, start=["edge.0"]):
        dealer.connect(plan.devices["edge.0"].connect or "")
        offer = StreamOffer(stream=1, name="s", segment=77, window=4)
        assert isinstance(ask(dealer, Hello("mallory", 1, 1, (offer,))), Welcome)
        dealer.send(pack_control(Beat(1, True, 0, 0, about="[" * 60000)))
        nested = ask(dealer, StatusRequest())
        dealer.send(pack_control(Beat(1, True, 0, 0, about='[1, {"stream": 2}]')))
        untyped = ask(dealer, StatusRequest())
        escape = {"stream": "\x1b[2J", "frames": 1, "row": "r"}
        counts = {"full": 1, "degraded": 0, "dropped": 0}
        told = json.dumps([escape | counts])
        dealer.send(pack_control(Beat(1, True, 0, 0, about=told)))
        terminal = ask(dealer, StatusRequest())
    for answer in (nested, untyped, terminal):
        assert isinstance(answer, StatusReply)
        assert json.loads(answer.text)["sessions"][0]["about"] == []


def test_key_of_one_device_does_not_open_sessions_of_another(
    tmp_path: Path, dealer: Socket
) -> None:
    """Whoever had any valid key could end another device's session by its name."""
    keys = tmp_path / "keys"
    for name in ("cam.0", "cam.1", "edge.0"):
        new_keys(keys, name)
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, endpoints=2, keys=keys
    )
    ours = load_keys(keys, "cam.1")
    dealer.curve_serverkey = ours.peers["edge.0"][0]
    dealer.curve_publickey, dealer.curve_secretkey = ours.public, ours.secret
    with played(plan, tmp_path, start=["edge.0", "cam.0"]) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        dealer.connect(plan.devices["edge.0"].connect or "")
        answer = ask(dealer, Hello("cam.0", 1, 99, ()))
        run.wait_rows("cam.0", "edge.0", 20)
        assert not [r for _, r in run.records if r.get("event") == "link.suspect"]
    assert isinstance(answer, Refuse)
    assert answer.why == (
        "device 'cam.0': greets 'edge.0' with the key of 'cam.1'; give each device the "
        "secret key of its own name"
    )


def test_device_without_standard_input_runs_to_its_end(tmp_path: Path) -> None:
    """Its wake-up descriptor was number 0, and was taken for standard input."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, head={"take_s": 0.003},
        source={"rate_hz": 100, "frames": 30},
    )  # fmt: skip
    command = [sys.executable, "-m", "understudy", "device", str(plan.folder)]
    command += ["cam.0", "--run", str(tmp_path)]
    with played(plan, tmp_path, start=["edge.0"]):
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command],
            timeout=20,
            check=False,
        )
    found, verdict = outcome(tmp_path)
    assert done.returncode == 0
    assert verdict.kept, verdict.violations
    assert len(results(found, "cam.0")) == 30
