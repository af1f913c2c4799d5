"""`understudy status` says what a device refused and threw away, and why."""

import json
from pathlib import Path

import zmq

from dataflow.status import streams_of
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


def test_rows_and_codecs_of_a_stream_are_counted() -> None:
    about = {
        "stream": "cam", "frames": 100, "row": "int8@edge.0", "full": 60,
        "degraded": 35, "dropped": 5,
        "rows": {"edge.0": 60, "int8@edge.0": 30, "exit": 5, "dropped (rate)": 5},
        "codecs": {"none": 61, "int8+zstd": 32},
    }  # fmt: skip
    session = {"device": "cam", "deployment": "demo", "session": 1, "about": [about]}
    lines = format_status({"edge.0": {**ANSWER, "sessions": [session]}}).splitlines()
    assert lines[-3:] == [
        "    cam: 100 frames, 60 full, 35 degraded, 5 dropped; int8@edge.0 plays",
        "      answered by edge.0 60, int8@edge.0 30, exit 5, dropped (rate) 5",
        "      tokens sent as none 61, int8+zstd 32",
    ]


def test_what_a_peer_says_of_its_streams_is_shown_only_as_counts_by_name() -> None:
    said = {
        "stream": "cam", "frames": 1, "row": "a", "full": 1, "degraded": 0,
        "dropped": 0, "rows": {"a": 1}, "codecs": {},
    }  # fmt: skip
    assert streams_of(json.dumps([said])) == [said]
    for wrong in ({"a": "1"}, {"a": [1]}, {"\x1b[31m": 1}, ["a"]):
        assert streams_of(json.dumps([{**said, "rows": wrong}])) == []
