"""`understudy status` says what a device refused and threw away, and why."""

from pathlib import Path

import zmq

from dataflow.wire.ask import ask_status
from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports
from understudy.status import format_status

ANSWER = {
    "state": "ready",
    "pid": 7,
    "answered": 1200,
    "queue": 0,
    "sessions": [],
    "rejected": {"session": 2, "kind": 1},
    "nacks": {"busy": 1},
}


def test_refused_tokens_and_rejected_messages_are_shown_with_their_reasons() -> None:
    assert format_status({"edge.0": ANSWER}).splitlines() == [
        "edge.0: ready, pid 7, answered 1200 tokens, 0 waiting",
        "  refused 1 token: busy 1",
        "  rejected 3 messages: kind 1, session 2",
    ]


def test_nothing_refused_is_not_worth_a_line() -> None:
    clean = {**ANSWER, "rejected": {}, "nacks": {}}
    assert len(format_status({"edge.0": clean}).splitlines()) == 1


def test_running_device_says_what_it_threw_away(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    address = plan.devices["edge.0"].connect or ""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with (
        played(plan, tmp_path, start=["edge.0"]) as run,
        context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.connect(address)
        dealer.send(b"GET / HTTP/1.1")
        garbage = run.wait_event("edge.0", "link.garbage", reason="size")
        status = ask_status("edge.0", address, keys=None, timeout_s=5)
        log = run.log("edge.0")
    assert status["rejected"] == {"size": 1}
    assert "header of 14 bytes" in garbage["error"]
    assert str(garbage["error"]) in log
