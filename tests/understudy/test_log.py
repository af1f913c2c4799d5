"""How devices and `up` speak: sentences with a time, or JSON of the one vocabulary."""

import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from dataflow.clock import epoch_s
from dataflow.errors import PeerError
from dataflow.events import GARBAGE_TOLD, LOG, EventLog
from dataflow.vocabulary import EVENTS
from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy import log
from understudy.launch import free_ports


@pytest.fixture
def restored() -> Iterator[None]:
    """Leaves the log of this process as it was."""
    before = LOG.handlers, LOG.level, LOG.propagate, logging.raiseExceptions
    yield
    LOG.handlers, level, LOG.propagate, logging.raiseExceptions = before
    LOG.setLevel(level)


@pytest.fixture
def events() -> EventLog:
    return EventLog(None, "cam.0", {})


def _spoken(style: log.Style) -> StringIO:
    stream = StringIO()
    log.speak(style, "cam.0", stream)
    return stream


def test_line_has_the_time_the_device_and_a_sentence(
    restored: None, events: EventLog
) -> None:
    stream = _spoken("text")
    events.write("link.up", peer="edge.0", session=1)
    line = stream.getvalue()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} cam\.0: uses edge\.0 \(session 1\)\n", line
    )


def test_json_line_has_the_fields_of_the_event_and_its_own_time(
    restored: None, events: EventLog
) -> None:
    stream = _spoken("json")
    fields = {"evidence": "beat", "text": "silent for 210 ms"}
    events.write("link.suspect", t_s=-epoch_s(), peer="edge.0", session=3, **fields)
    line = json.loads(stream.getvalue())
    assert line.pop("t_s") == pytest.approx(-epoch_s())
    assert line.pop("time") in ("1970-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z")
    assert line == {
        "level": "warning",
        "device": "cam.0",
        "message": "suspects edge.0 (beat): silent for 210 ms",
        "event": "link.suspect",
        "peer": "edge.0",
        "session": 3,
        **fields,
    }


def test_seconds_and_milliseconds_of_a_line_are_of_the_same_moment(
    restored: None, events: EventLog
) -> None:
    """Just before a second began, it read as the second before, 999 ms early."""
    stream = _spoken("json")
    events.write("link.up", t_s=-epoch_s() - 1e-4, peer="edge.0", session=3)
    line = json.loads(stream.getvalue())
    assert line["time"] == "1969-12-31T23:59:59.999Z"


def test_what_comes_with_every_frame_is_not_said(
    restored: None, events: EventLog
) -> None:
    stream = _spoken("text")
    events.write("row", stream="cam.0", frame=3, row="edge.0")
    assert stream.getvalue() == ""


def test_a_flood_of_garbage_does_not_become_a_flood_of_lines(
    restored: None, events: EventLog
) -> None:
    stream = _spoken("text")
    for _ in range(10 * GARBAGE_TOLD):
        events.reject(PeerError("data message: kind 9 is unknown; dropped", "kind"))
    assert stream.getvalue().count("\n") == GARBAGE_TOLD
    assert events.rejected == {"kind": 10 * GARBAGE_TOLD}


def test_log_that_cannot_be_written_stops_nobody(
    restored: None, events: EventLog, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = _spoken("text")
    stream.close()
    events.write("link.up", peer="edge.0", session=1)
    assert capsys.readouterr() == ("", "")


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_devices_speak_json_from_the_first_line_to_the_last_error(
    tmp_path: Path,
) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, head={"raise_at": 10}
    )
    with played(plan, tmp_path, log_format="json") as run:
        assert run.wait_exit("cam.0") == 1
        run.kill("edge.0", signal.SIGTERM)
        assert run.wait_exit("edge.0") == 0
        assert run.launcher.said("cam.0").startswith("actor 'head[cam.0]': ")
    for name in ("cam.0", "edge.0"):
        lines = _lines(run.log(name))
        assert {line["device"] for line in lines} == {name}
        for line in lines:
            if "event" in line:
                assert set(EVENTS[line["event"]].fields) <= set(line)
        assert lines[-1]["level"] == ("error" if name == "cam.0" else "info")


def test_up_tells_the_events_of_all_devices_as_json_and_a_summary(
    tmp_path: Path,
) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "understudy", "up", str(plan.folder)),
            *("--run", str(tmp_path / "run"), "--seconds", "0.5"),
            *("--log-format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = _lines(done.stderr)
    told = {(line["device"], line.get("event")) for line in lines}
    assert {
        ("launcher", "start"),
        ("edge.0", "device.ready"),
        ("cam.0", "stream.ended"),
        ("launcher", "exit"),
    } <= told
    assert "every frame answered once, in order: kept" in lines[-1]["message"]
    assert done.stdout == ""
