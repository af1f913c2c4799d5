"""The events of real devices hold what the vocabulary says of them."""

import signal
from pathlib import Path

from dataflow.vocabulary import EVENTS, HEADER, Record, Type
from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.launch import Tail, free_ports


def _is(value: object, of: Type) -> bool:
    match of:
        case "text":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "count":
            return isinstance(value, int) and not isinstance(value, bool)
        case "flag":
            return isinstance(value, bool)
        case "texts":
            return isinstance(value, list) and all(_is(v, "text") for v in value)
        case "counts" | "numbers":
            return isinstance(value, dict) and all(
                _is(v, "count" if of == "counts" else "number") for v in value.values()
            )
        case "frames":
            return isinstance(value, dict) and all(
                _is(v, "count") for frames in value.values() for v in frames
            )


def _check(record: Record) -> str:
    if "events" in record:
        about = record["events"]
        assert set(about) - {"machine"} == set(HEADER)
        assert all(_is(about[name], of) for name, (of, _) in HEADER.items()), about
        return ""
    event = str(record["event"])
    fields = EVENTS[event].fields
    assert set(record) == {"t_s", "event", *fields}, record
    assert all(_is(record[name], of) for name, (of, _) in fields.items()), record
    assert EVENTS[event].says(record)
    return event


def test_events_of_a_run_with_a_failure_are_as_the_table_says(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 20)
        run.launcher.start("edge.0")
        run.wait_event("cam.0", "link.back", peer="edge.0")
        run.kill("cam.0", signal.SIGTERM)
        assert run.wait_exit("cam.0") == 0
    told = [_check(r) for file, r in Tail(tmp_path).news() if file.startswith("events")]
    assert {
        "device.listening", "device.loading", "device.ready", "device.stopping",
        "device.measured", "device.stopped", "link.up", "link.suspect", "failover",
        "link.back",
        "session.opened", "session.ended", "stream.started", "stream.ended", "row",
        "start", "fault", "exit",
    } <= set(told)  # fmt: skip
