import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.results import Results
from dataflow.errors import UnderstudyError
from dataflow.outcome import Outcome

PLAN = {
    "deployment": "two-cameras",
    "graph": "digits",
    "rows": ["edge.0", "edge.1", "early"],
    "codec": "int8",
}


def outcome(frame, value=None, status="full", row="edge.0", reason=""):
    return Outcome(
        stream="cam.0",
        incarnation=0xBEEF,
        first=frame,
        last=frame,
        status=status,
        row=row,
        reason=reason,
        value=value,
        fired_s=100.0 + frame,
        settled_s=100.004 + frame,
        attempts=1,
    )


def logits(best, size=10):
    return np.eye(size, dtype=np.float32)[best : best + 1] * np.float32(0.5)


def started(site, **params):
    sink = Results({**PLAN, **params}, site)
    sink.start()
    return sink


def lines(site):
    (path,) = site.run_folder.glob("results-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_says_whose_it_is_and_what_each_frame_got(site):
    sink = started(site)
    sink.fire(outcome(0, logits(7)), np.array(7))
    sink.fire(outcome(1, None, "dropped", "drop", "deadline"), np.array(3))
    sink.end(1)
    sink.stop()
    assert [p.name for p in site.run_folder.iterdir()] == [
        "results-cam.0-000000000000beef.jsonl"
    ]
    head, answered, dropped, ended = lines(site)
    epoch_s = head["results"].pop("epoch_s")
    assert epoch_s > 1e9
    assert head == {
        "understudy": 1,
        "results": {
            "stream": "cam.0",
            "incarnation": "000000000000beef",
            "device": "cam.0",
            "labels": True,
            **PLAN,
        },
    }
    assert answered == {
        "frame": 0,
        "last": 0,
        "status": "full",
        "row": "edge.0",
        "reason": "",
        "fired_s": 100.0,
        "settled_s": 100.004,
        "attempts": 1,
        "answer": 7,
        "label": 7,
        "value": [0.0] * 7 + [0.5, 0.0, 0.0],
    }
    assert (dropped["reason"], dropped["answer"], dropped["value"]) == (
        "deadline",
        None,
        None,
    )
    assert ended == {"ended": 1}


def test_stream_with_a_slash_has_a_file_of_its_own_without_labels(site):
    sink = started(replace(site, stream="cam.0/left"))
    sink.fire(outcome(0, logits(1)))
    assert (site.run_folder / "results-cam.0+left-000000000000beef.jsonl").exists()
    head, line = lines(site)
    assert (head["results"]["labels"], line["label"]) == (False, None)
    sink.stop()


def test_each_outcome_is_in_the_file_when_fire_returns(site):
    """What a SIGKILL right after leaves: the process ends without any clean-up."""
    program = f"""if True:
        import os, signal, numpy as np
        from pathlib import Path
        from actors.results import Results
        from dataflow.behaviour import Site
        from dataflow.outcome import Outcome
        folder = Path({str(site.run_folder)!r})
        sink = Results({{}}, Site("cam.0", "cam.0", 1, folder, folder, 4))
        sink.start()
        for k in range(3):
            value = np.eye(3, dtype=np.float32)[k]
            sink.fire(Outcome("cam.0", 1, k, k, "full", "a", "", value, 0.0, 1.0, 1))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[2]
    child = subprocess.run([sys.executable, "-c", program], check=False, cwd=root)
    assert child.returncode == -signal.SIGKILL
    assert [line.get("answer") for line in lines(site)] == [None, 0, 1, 2]


def test_stream_without_frames_has_a_first_and_a_last_line(site):
    sink = started(site)
    sink.end(-1)
    sink.stop()
    head, ended = lines(site)
    assert (head["results"]["labels"], ended) == (False, {"ended": -1})


@pytest.mark.parametrize(
    ("params", "size", "written"),
    [
        ({}, 64, True),
        ({}, 65, False),
        ({"values": True}, 65, True),
        ({"values": False}, 3, False),
    ],
)
def test_values_are_written_when_few_or_wanted(site, params, size, written):
    sink = started(site, **params)
    sink.fire(outcome(0, logits(2, size)))
    line = lines(site)[1]
    assert line["answer"] == 2
    assert (line["value"] is not None) == written
    sink.stop()


@pytest.mark.parametrize(
    ("value", "answer", "written"),
    [
        (np.array([0, 3, 1], np.float16), 1, [0.0, 3.0, 1.0]),
        (np.array(2.5, np.float64), 0, [2.5]),
        (np.array([4, 5], np.int64), None, [4, 5]),
        (np.array([True, False]), None, [1, 0]),
        (np.zeros((1, 1, 2), np.float32), None, [0.0, 0.0]),
        (np.zeros((0,), np.float32), None, []),
    ],
)
def test_only_few_dimensional_floats_name_a_class(site, value, answer, written):
    sink = started(site)
    sink.fire(outcome(0, value))
    line = lines(site)[1]
    assert (line["answer"], line["value"]) == (answer, written)
    sink.stop()


def test_answer_that_is_not_a_number_names_no_class(site):
    sink = started(site)
    sink.fire(outcome(0, np.array([0.5, np.nan, 1.0], np.float32)))
    assert lines(site)[1]["answer"] is None
    sink.stop()


def test_full_disk_is_counted_and_told_once_and_frames_go_on(site, caplog):
    """A file size limit is a full disk that a test can make, half written line too."""
    sink = started(site)
    sink.fire(outcome(0, logits(0)))
    size = sum(p.stat().st_size for p in site.run_folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        for frame in range(1, 4):
            sink.fire(outcome(frame, logits(frame)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sink.unwritten == 3
    sink.fire(outcome(4, logits(4)))
    sink.end(4)
    sink.stop()
    first, gap, after, end = lines(site)[1:]
    assert (first["frame"], after["frame"]) == (0, 4)
    assert gap == {"unwritten": {"first": 1, "last": 3, "full": 3}}
    assert end == {"ended": 4, "unwritten": 3}
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("ERROR", "actors.results")
    assert "cannot be written" in record.getMessage()


def test_device_full_error_is_counted(site, caplog):
    sink = started(site)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._file)
    os.close(full)
    sink.fire(outcome(0, logits(0)))
    sink.end(0)
    sink.stop()
    assert sink.unwritten == 1
    told, ended = (record.getMessage() for record in caplog.records)
    assert "cannot be written (No space left on device)" in told
    assert "ends without its last line" in ended


def test_file_keeps_below_its_bound(site, caplog):
    sink = started(site, limit_mb=0.002)
    for frame in range(50):
        sink.fire(outcome(frame, logits(frame % 10)))
    sink.end(49)
    sink.stop()
    (path,) = site.run_folder.iterdir()
    assert path.stat().st_size <= 0.002 * 1024 * 1024
    written = len(lines(site)) - 3  # the first line, what is not there, the end
    assert 2 < written < 50
    assert lines(site)[-1] == {"ended": 49, "unwritten": 50 - written}
    assert "has reached its bound of 2097 bytes" in caplog.text


def test_incarnation_writes_its_file_once(site):
    started(site).stop()
    with pytest.raises(UnderstudyError, match=r"jsonl: cannot be created \(File exist"):
        started(site)


def test_dry_run_writes_nothing(site):
    sink = started(replace(site, run_folder=None))
    sink.fire(outcome(0, logits(0)))
    sink.end(0)
    sink.stop()
    assert list(site.run_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"values": "yes"}, "'values': 'yes' is not true or false"),
        ({"limit_mb": 0}, "'limit_mb': 0 is not a number above 0"),
        ({"limit": 5}, r"'limit': unknown \(did you mean 'limit_mb'\?\)"),
    ],
)
def test_wrong_parameter_is_told(params, message):
    with pytest.raises(UnderstudyError, match=message):
        Results.ports(params)
