"""Each test changes a good run in one way, and the proof must find just that."""

import pytest

from understudy.promise import judge
from understudy.run_folder import read_run


@pytest.fixture
def made(maker):
    return maker.simulate(seconds=0.4)


@pytest.fixture
def table(made, maker):
    """The results of cam.0: head, frames 0 to 19 on lines 2 to 21, end on line 22."""
    return made.results[maker.results_name("cam.0")]


@pytest.fixture
def life(made, maker):
    """The events of cam.0."""
    return made.events[maker.events_name("cam.0")]


def _violations(made):
    verdict = judge(read_run(made.write()))
    assert verdict.kept == (not verdict.violations)
    return [violation.rpartition(".jsonl")[2] for violation in verdict.violations]


def _killed(table, life, frames=20):
    """Leave what SIGKILL leaves after `frames` frames."""
    del table[1 + frames :]
    life[:] = [e for e in life if e.get("event") != "device.stopped"]


def test_promise_is_kept_by_a_good_run(made, maker):
    verdict = judge(read_run(made.write()))
    assert verdict.kept
    assert verdict.violations == ()
    assert verdict.frames == 40
    assert [(s.stream, s.frames, s.last, s.end) for s in verdict.streams] == [
        ("cam.0", 20, 19, "ended"),
        ("cam.1", 20, 19, "ended"),
    ]


def test_promise_is_kept_by_a_run_with_failures_and_drops(maker):
    outages = (maker.Outage("edge.0", 1.0, 2.0), maker.Outage("edge.1", 1.5, 2.5))
    made = maker.simulate(seconds=3, outages=outages)
    maker.drop(made.results[maker.results_name("cam.1")][77], "deadline", 200)
    assert _violations(made) == []


def test_results_alone_are_proof_of_streams_that_ended(made):
    made.events.clear()
    assert _violations(made) == []


def test_outcome_that_covers_several_frames_counts_for_each(made, table, maker):
    maker.drop(table[5], "window")
    table[5]["last"] = 6
    del table[6:8]
    assert _violations(made) == []
    assert judge(read_run(made.folder)).streams[0].frames == 20


def test_stream_without_frames_is_kept(made, table):
    del table[1:21]
    table[1] = {"ended": -1}
    assert _violations(made) == []


def test_missing_first_frame_is_found(made, table):
    del table[1]
    assert _violations(made) == [":2: frame 0 unaccounted for before frame 1"]


def test_missing_frames_in_the_middle_are_found(made, table):
    del table[6:9]
    assert _violations(made) == [":7: frames 5 to 7 unaccounted for before frame 8"]


def test_missing_frames_at_the_end_are_found(made, table):
    del table[19:21]
    assert _violations(made) == [":20: frames 18 to 19 unaccounted for at the end"]


def test_doubled_frame_is_found(made, table):
    table.insert(6, dict(table[5]))
    assert _violations(made) == [":7: frame 4 answered twice"]


def test_frames_doubled_by_overlapping_outcomes_are_found(made, table):
    table[5]["last"] = 6
    assert _violations(made) == [
        ":7: frame 5 answered twice",
        ":8: frame 6 answered twice",
    ]


def test_disordered_frame_is_found(made, table):
    table[5], table[6] = table[6], table[5]
    assert _violations(made) == [":7: frame 4 out of order, after frame 5"]


def test_disordered_and_doubled_frame_is_found_as_both(made, table):
    table.insert(9, dict(table[5]))
    assert _violations(made) == [
        ":10: frame 4 out of order, after frame 7",
        ":10: frame 4 answered twice",
    ]


def test_frame_after_the_end_is_found(made, table):
    end = table.pop()
    table.insert(20, end)
    found = _violations(made)
    assert found == [":22: frame 19 answered after the stream ended on line 21"]


def test_end_before_the_last_frame_is_found(made, table):
    table[-1]["ended"] = 18
    assert _violations(made) == [":22: ended with frame 18, but frame 19 was answered"]


def test_second_end_is_found(made, table):
    table.append({"ended": 19})
    assert _violations(made) == [":23: ended twice, first on line 22"]


def test_outcomes_that_could_not_be_written_are_found(made, table):
    table[-1]["unwritten"] = 3
    assert "3 outcomes reached the sink but could not" in _violations(made)[0]


def test_missing_end_of_a_device_that_stopped_is_found(made, table):
    table.pop()
    assert (
        "no `ended` line, and nothing says that device 'cam.0'"
        in (_violations(made)[0])
    )


def test_missing_end_of_a_device_that_had_begun_to_stop_is_found(made, table, life):
    _killed(table, life)
    life.append({"t_s": 1000.4, "event": "device.stopping", "why": "SIGTERM"})
    assert len(_violations(made)) == 1


def test_missing_end_of_a_device_that_failed_is_found(made, table, life):
    _killed(table, life)
    life.append({"t_s": 1000.4, "event": "device.failed", "error": "no"})
    assert len(_violations(made)) == 1


def test_missing_end_of_a_device_that_left_no_events_is_found(made, table, maker):
    table.pop()
    del made.events[maker.events_name("cam.0")]
    assert len(_violations(made)) == 1


@pytest.mark.parametrize("status", [0, 1, 2, None])
def test_missing_end_of_a_device_that_exited_is_found(made, table, life, status):
    _killed(table, life)
    made.events["events-launcher.jsonl"] += [
        {
            "t_s": 1000.4,
            "event": "exit",
            "target": "cam.0",
            "pid": 100,
            "status": status,
        }
    ]
    assert len(_violations(made)) == 1


def test_missing_end_is_no_violation_if_the_launcher_killed_the_device(
    made, table, life
):
    _killed(table, life, frames=10)
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.21, "event": "fault", "target": "cam.0", "pid": 100, "signal": 9}
    ]
    assert _violations(made) == []
    stream = judge(read_run(made.folder)).streams[0]
    assert (stream.last, stream.end) == (9, "cam.0 got SIGKILL")


def test_missing_end_is_no_violation_if_the_device_left_no_farewell(made, table, life):
    _killed(table, life, frames=10)
    assert _violations(made) == []
    assert judge(read_run(made.folder)).streams[0].end == "cam.0 left without a word"


def test_missing_end_is_no_violation_if_the_process_died_of_a_signal(made, table, life):
    _killed(table, life, frames=10)
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.21, "event": "exit", "target": "cam.0", "pid": 100, "status": -11}
    ]
    assert _violations(made) == []


def test_kill_does_not_excuse_a_frame_that_is_missing_before_it(made, table, life):
    _killed(table, life, frames=10)
    del table[4]
    assert _violations(made) == [":5: frame 3 unaccounted for before frame 4"]


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT", "SIGSTOP"])
def test_signal_that_does_not_kill_excuses_no_missing_end(
    made, table, life, maker, signal
):
    table.pop()
    del made.events[maker.events_name("cam.0")]
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.5, "event": "fault", "target": "cam.0", "signal": signal}
    ]
    assert len(_violations(made)) == 1


def test_kill_of_an_earlier_life_excuses_no_missing_end_of_a_later_one(
    made, table, maker
):
    table.pop()
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.41, "event": "fault", "target": "cam.0", "pid": 99, "signal": 9}
    ]
    assert len(_violations(made)) == 1
    del made.events[maker.events_name("cam.0")]  # no pid: only the time tells
    (made.folder / maker.events_name("cam.0")).unlink()
    made.events["events-launcher.jsonl"][-1]["t_s"] = 990.0
    assert len(_violations(made)) == 1


def test_exit_of_an_earlier_life_does_not_blame_a_later_one(made, table, life):
    _killed(table, life, frames=10)
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.3, "event": "exit", "target": "cam.0", "pid": 99, "status": 0}
    ]
    assert _violations(made) == []


def test_kill_of_another_device_excuses_no_missing_end(made, table, maker):
    table.pop()
    del made.events[maker.events_name("cam.0")]
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.5, "event": "fault", "target": "cam.1", "signal": 9}
    ]
    assert len(_violations(made)) == 1


def _kill_later(made, table, life, t_s):
    _killed(table, life)
    made.events["events-launcher.jsonl"] += [
        {"t_s": t_s, "event": "fault", "target": "cam.0", "pid": 100, "signal": 9}
    ]


def test_hang_that_a_kill_ended_is_found(made, table, life):
    _kill_later(made, table, life, t_s=1009.0)
    assert "stalled: nothing was settled in the 8.6 s before" in _violations(made)[0]


def test_hang_from_the_first_frame_on_is_found(made, table, life):
    _kill_later(made, table, life, t_s=1009.0)
    del table[1:]
    assert "stalled: nothing was settled in the 9.0 s before" in _violations(made)[0]


def test_slow_stream_that_is_killed_did_not_hang(made, table, life):
    _kill_later(made, table, life, t_s=1009.0)
    next(e for e in life if e.get("event") == "stream.started")["rate_hz"] = 0.2
    assert _violations(made) == []


def test_deadline_of_the_plan_says_how_long_is_a_hang(made, table, life, maker):
    _kill_later(made, table, life, t_s=1002.0)
    assert _violations(made) == []
    maker.write_plan(made.folder / "plan")
    assert "stalled" in _violations(made)[0]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"status": "dropped", "row": "drop"}, "dropped for reason ''"),
        (
            {"status": "dropped", "row": "drop", "reason": "tired"},
            "dropped for reason 'tired'",
        ),
        ({"status": "dropped", "reason": "rate"}, "dropped, yet answered by row"),
        ({"row": "edge.7"}, "answered by row 'edge.7'"),
        ({"row": "drop"}, "answered by row 'drop'"),
        ({"reason": "deadline"}, "with reason 'deadline' for a drop"),
        ({"settled_s": 999.0}, "before it fired"),
    ],
)
def test_outcome_that_the_promise_does_not_know_is_found(made, table, change, found):
    table[5].update(change)
    violations = _violations(made)
    assert len(violations) == 1
    assert violations[0].startswith(":6: frame 4 ")
    assert found in violations[0]


def test_count_of_the_device_that_differs_is_found(made, life):
    ended = {"t_s": 1000.5, "event": "stream.ended", "stream": "cam.0", "last": 19}
    counts = {"full": 20, "degraded": 0, "dropped": 0}
    life.append({**ended, "counts": counts})
    assert _violations(made) == []
    counts["full"] = 21
    assert "counted 21 outcomes full, its results hold 20" in _violations(made)[0]


def test_count_of_another_stream_of_the_device_is_not_compared(made, life):
    ended = {"t_s": 1000.5, "event": "stream.ended", "stream": "cam.0/usb", "last": 3}
    life.append({**ended, "counts": {"full": 4}})
    assert _violations(made) == []


def test_last_frame_of_the_device_that_differs_is_found(made, life):
    life.append({"t_s": 1000.5, "event": "stream.ended", "stream": "cam.0", "last": 20})
    assert "ended with frame 20, its results with 19" in _violations(made)[0]


def test_stream_that_left_no_results_file_is_found(made, maker):
    del made.results[maker.results_name("cam.1")]
    assert "stream 'cam.1'" in _violations(made)[0]
    assert "has no results file" in _violations(made)[0]


def test_run_without_any_results_is_not_kept(made, maker):
    made.results.clear()
    for name in list(made.events):
        made.events[name][:] = made.events[name][:1]
    assert len(_violations(made)) == 1


def test_two_lives_of_a_device_are_two_streams(made, table, life, maker):
    again = [maker.results_head("cam.0", 1), *(dict(row) for row in table[1:])]
    made.results[maker.results_name("cam.0", 1)] = again
    for row in again[1:-1]:
        row["fired_s"] += 1
        row["settled_s"] += 1
    made.events[maker.events_name("cam.0", 1)] = [
        maker.events_head("cam.0", 200, 1),
        {"t_s": 1002.0, "event": "device.stopped"},
    ]
    _killed(table, life, frames=10)
    verdict = judge(read_run(made.write()))
    assert verdict.kept
    assert [(s.stream, s.last) for s in verdict.streams] == [
        ("cam.0", 9),
        ("cam.0", 19),
        ("cam.1", 19),
    ]


# --- outcomes that a sink says it could not write ------------------------------


def _unwritten(table, first, last):
    """Put a line that names the frames `first` to `last` in place of theirs."""
    told = {"first": first, "last": last, "full": last - first + 1}
    table[1 + first : 2 + last] = [{"unwritten": told}]


def test_outcomes_that_the_sink_names_as_unwritten_are_accounted_for(made, table):
    _unwritten(table, 5, 9)
    table[-1]["unwritten"] = 5
    assert _violations(made) == []
    stream = judge(read_run(made.folder)).streams[0]
    assert (stream.frames, stream.unwritten, stream.unaccounted) == (20, 5, 0)


def test_fewer_outcomes_named_than_counted_are_found(made, table):
    _unwritten(table, 5, 9)
    table[-1]["unwritten"] = 6
    assert "1 outcomes reached the sink but could not" in _violations(made)[0]


def test_frame_beside_the_unwritten_ones_is_still_missed(made, table):
    _unwritten(table, 5, 9)
    table[-1]["unwritten"] = 5
    del table[7]
    found = _violations(made)
    assert ":8: frame 10 unaccounted for before frame 11" in found
    assert judge(read_run(made.folder)).streams[0].unaccounted == 1


def test_unwritten_frame_that_was_written_too_is_answered_twice(made, table):
    _unwritten(table, 5, 9)
    table[-1]["unwritten"] = 5
    table[6]["unwritten"]["last"] = 10
    assert ":8: frame 10 answered twice" in _violations(made)
    assert judge(read_run(made.folder)).streams[0].doubled == 1


def test_broken_link_excuses_no_missing_end(made, table, life):
    """A fault that sends no signal leaves a device the time to end its streams."""
    _killed(table, life, frames=10)
    life.append({"t_s": 1000.3, "event": "device.stopping", "why": "SIGTERM"})
    made.events["events-launcher.jsonl"] += [
        {"t_s": 1000.21, "event": "fault", "target": "cam.0", "kind": "disk-full"}
    ]
    assert len(_violations(made)) == 1
