import json
import re
from dataclasses import replace

import pytest

from dataflow.plan import Expected
from understudy.figures import figures
from understudy.promise import judge
from understudy.run_folder import read_run
from understudy.summary import expected_text, format_summary


@pytest.fixture
def crashed(maker):
    """A server is killed while a frame of cam.0 is at it, and comes back."""
    return maker.simulate(seconds=5, outages=(maker.Outage("edge.0", 2.0025, 4.0),))


def _figures(made):
    return figures(read_run(made.write()))


def _event(made, maker, device, name):
    events = made.events[maker.events_name(device)]
    return next(e for e in events if e.get("event") == name)


def test_outcomes_are_counted_by_status_row_and_reason(maker):
    outages = (maker.Outage("edge.0", 1.0, 2.0), maker.Outage("edge.1", 1.0, 2.0))
    made = maker.simulate(seconds=3, outages=outages)
    table = made.results[maker.results_name("cam.0")]
    maker.drop(table[1], "window")
    maker.drop(table[2], "deadline", 200)
    made.results[maker.results_name("cam.1")][1].update(row="edge.0")
    found = _figures(made)
    assert [(o.name, o.frames) for o in found.outcomes] == [
        ("full", 198),
        ("degraded: exit2", 100),
        ("dropped: deadline", 1),
        ("dropped: window", 1),
    ]
    assert sum(o.share for o in found.outcomes) == pytest.approx(1)
    assert found.frames == 300
    assert [(s.full, s.degraded, s.dropped) for s in found.streams] == [
        (98, 50, 2),
        (100, 50, 0),
    ]


def test_outcome_over_several_frames_counts_as_several(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    table = made.results[maker.results_name("cam.0")]
    maker.drop(table[5], "window")
    table[5]["last"] = 6
    del table[6:8]
    found = _figures(made)
    assert found.frames == 10
    assert found.count("dropped") == 3


def test_accuracy_counts_answers_that_name_the_label(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    table = made.results[maker.results_name("cam.0")]
    for row in table[1:-1]:
        row.update(answer=3, label=3)
    table[1]["answer"] = 4
    table[2]["label"] = None
    maker.drop(table[3], "rate")
    full, dropped = _figures(made).outcomes
    assert (full.accuracy.correct, full.accuracy.labelled) == (7, 8)
    assert dropped.accuracy is None


def test_percentiles_are_measured_frames(maker):
    made = maker.simulate(seconds=2, cameras=1)
    table = made.results[maker.results_name("cam.0")]
    for k, row in enumerate(table[1:-1], start=1):
        row["settled_s"] = row["fired_s"] + k / 1e3
    took = _figures(made).outcomes[0].latency
    assert (took.p50_ms, took.p99_ms, took.max_ms) == pytest.approx((50, 99, 100))


@pytest.mark.parametrize(
    ("p50_ms", "verdict"),
    [(47.5, "within that"), (40, "more than that"), (60, "less than that")],
)
def test_full_answers_are_held_against_what_was_expected(maker, p50_ms, verdict):
    made = maker.simulate(seconds=2, cameras=1)
    for k, row in enumerate(made.results[maker.results_name("cam.0")][1:-1], start=1):
        row["settled_s"] = row["fired_s"] + k / 1e3
    found = _figures(made)
    assert expected_text(found) == ""
    text = expected_text(replace(found, expected=Expected(p50_ms, 3, "1mbit")))
    assert text == (
        f"full answers took 50.0 ms (p50); expected were {p50_ms:.1f} ms over 1mbit, "
        f"within 3.00: {verdict}"
    )


def test_rate_of_answers_does_not_count_drops(maker):
    made = maker.simulate(seconds=4, cameras=1)
    for row in made.results[maker.results_name("cam.0")][2:-1:2]:
        maker.drop(row, "rate")
    assert _figures(made).fps == pytest.approx(25, rel=0.01)


def test_gap_is_the_longest_wait_minus_the_median_before(crashed, maker):
    fault = _figures(crashed).faults[0]
    table = crashed.results[maker.results_name("cam.0")]
    hit = next(r for r in table[1:-1] if r["attempts"] == 2)
    before = sorted(
        (r["settled_s"] - r["fired_s"]) * 1e3
        for r in table[1 : table.index(hit)][-200:]
    )
    median_ms = (before[len(before) // 2] + before[(len(before) - 1) // 2]) / 2
    waited_ms = (hit["settled_s"] - hit["fired_s"]) * 1e3
    assert (fault.worst_stream, fault.worst_frame) == ("cam.0", hit["frame"])
    assert fault.gap_ms == pytest.approx(waited_ms - median_ms)
    assert fault.baseline_ms == pytest.approx(median_ms)


def test_gap_is_of_the_streams_that_the_lost_server_was_serving(crashed, maker):
    slow = crashed.results[maker.results_name("cam.1")][110]
    slow["settled_s"] += 0.5
    fault = _figures(crashed).faults[0]
    assert fault.serving
    assert fault.streams == ("cam.0",)
    assert fault.gap_ms < 10


def test_gap_is_of_all_streams_if_the_lost_server_served_none(maker):
    made = maker.simulate(seconds=5, cameras=1)
    made.events["events-launcher.jsonl"] = [
        {"t_s": 1002.0, "event": "fault", "target": "edge.1", "signal": 9}
    ]
    fault = _figures(made).faults[0]
    assert not fault.serving
    assert fault.streams == ("cam.0",)


def test_rows_of_a_plan_say_which_device_they_are_served_by(crashed, maker):
    for row in crashed.results[maker.results_name("cam.0")][1:-1]:
        row["row"] = row["row"].replace("edge.0", "exit1")  # any name a plan may give
    assert not _figures(crashed).faults[0].serving
    maker.write_plan(crashed.folder / "plan")
    plan = crashed.folder / "plan" / "plan.json"
    data = json.loads(plan.read_text())
    for branch in data["graph"]["regions"][0]["branches"]:
        branch["device"] = {"exit1": "edge.0"}.get(branch["row"], branch["device"])
    plan.write_text(json.dumps(data))
    assert _figures(crashed).faults[0].serving


def test_answer_of_an_exit_is_the_endpoints_own_and_judged_apart(crashed, maker):
    table = crashed.results[maker.results_name("cam.0")]
    for row in table[1:11]:
        row.update(row="exit", attempts=0, answer=row["label"])
    table[1]["answer"] = None
    maker.write_plan(crashed.folder / "plan")
    served = {s.row: s for s in _figures(crashed).served}
    assert served["exit"].device == "endpoint"
    assert served["exit"].accuracy.share == 0.9
    assert served["exit"].frames == 10
    assert re.search(r"exit +endpoint +full +10 .* 90\.0% \(n=10\)", _summary(crashed))


@pytest.mark.parametrize(
    ("fired_s", "counts"),
    [(1001.9, True), (1002.003, True), (1003.99, True), (1004.1, False)],
)
def test_gap_window_is_what_was_outstanding_or_fired_in_two_seconds(
    crashed, maker, fired_s, counts
):
    table = crashed.results[maker.results_name("cam.0")]
    row = min(table[1:-1], key=lambda r: abs(r["fired_s"] - fired_s))
    row["settled_s"] = row["fired_s"] + 0.3
    assert (_figures(crashed).faults[0].gap_ms > 200) == counts


def test_frame_that_settled_before_the_fault_is_not_in_the_gap(crashed, maker):
    table = crashed.results[maker.results_name("cam.0")]
    row = table[80]
    row["settled_s"] = row["fired_s"] + 0.2  # 1.78 s
    assert _figures(crashed).faults[0].gap_ms < 10


def test_degraded_and_dropped_are_counted_beside_the_gap(maker):
    outages = (maker.Outage("edge.0", 2.0, 4.5), maker.Outage("edge.1", 1.0, 4.5))
    made = maker.simulate(seconds=5, cameras=1, outages=outages)
    table = made.results[maker.results_name("cam.0")]
    maker.drop(table[105], "window")
    fault = next(f for f in _figures(made).faults if f.target == "edge.0")
    assert (fault.degraded, fault.dropped) == (99, 1)


def test_detection_decision_and_switch_are_told_apart(crashed, maker):
    fault = _figures(crashed).faults[0]
    assert fault.detected_ms == pytest.approx(maker.detect_ms)
    assert fault.decided_us == pytest.approx(maker.decide_ms * 1e3)
    assert fault.switched_ms == pytest.approx(maker.switch_ms)
    assert [d.device for d in fault.detections] == ["cam.0", "cam.1"]
    assert fault.evidence == ("disconnected",)


def test_refill_lasts_until_the_delayed_frames_are_settled(crashed, maker):
    found = figures(read_run(crashed.write()))
    (fault,) = found.faults
    switched_s = (
        found.origin_s
        + fault.t_s
        + sum((maker.detect_ms, maker.decide_ms, maker.switch_ms)) / 1e3
    )
    (acting,) = {d.device for d in fault.acting}
    late = [
        row["settled_s"]
        for row in crashed.results[maker.results_name(acting)]
        if "frame" in row and row["fired_s"] < switched_s < row["settled_s"]
    ]
    expected_ms = (max(late) - switched_s) * 1e3 if late else 0.0
    assert fault.refilled_ms == pytest.approx(expected_ms, abs=1e-3)


def test_detection_is_the_slowest_of_devices_that_had_frames_there(crashed, maker):
    _event(crashed, maker, "cam.1", "link.suspect")["t_s"] += 0.05
    assert _figures(crashed).faults[0].detected_ms == pytest.approx(maker.detect_ms)
    _event(crashed, maker, "cam.1", "failover")["frames"] = {"cam.1": [100]}
    assert _figures(crashed).faults[0].detected_ms == pytest.approx(
        maker.detect_ms + 50
    )


def test_back_is_when_the_last_device_had_it_back(crashed, maker):
    _event(crashed, maker, "cam.1", "link.back")["t_s"] += 0.25
    fault = _figures(crashed).faults[0]
    assert fault.restarted_s == pytest.approx(4.0 - 0.4 - 2.0025)
    assert fault.back_s == pytest.approx(4.0 + 0.25 - 2.0025)


def test_each_fault_of_a_server_gets_its_own_events(maker):
    outages = (maker.Outage("edge.0", 1.0025, 2), maker.Outage("edge.0", 3.0025, 4))
    first, second = _figures(maker.simulate(seconds=5, outages=outages)).faults
    assert first.detected_ms == pytest.approx(second.detected_ms)
    assert first.back_s == pytest.approx(second.back_s)


def test_fault_that_nobody_noticed_has_no_detection(maker):
    made = maker.simulate(seconds=3)
    made.events["events-launcher.jsonl"] = [
        {"t_s": 1001.0, "event": "fault", "target": "edge.0", "signal": 9}
    ]
    fault = _figures(made).faults[0]
    assert (fault.detections, fault.detected_ms, fault.back_s) == ((), None, None)


def test_continued_process_is_a_return_and_no_fault(crashed):
    crashed.events["events-launcher.jsonl"] = [
        {"t_s": 1002.0025, "event": "fault", "target": "edge.0", "signal": "SIGSTOP"},
        {"t_s": 1003.5, "event": "fault", "target": "edge.0", "signal": "SIGCONT"},
    ]
    (fault,) = _figures(crashed).faults
    assert fault.name == "SIGSTOP edge.0"
    assert fault.restarted_s == pytest.approx(1.4975)


def test_broken_link_is_a_fault_of_the_one_that_dials(crashed):
    link = {"target": "edge.0", "observer": "cam.0"}
    crashed.events["events-launcher.jsonl"] = [
        {"t_s": 1002.0025, "event": "fault", "kind": "cut", **link},
        {"t_s": 1003.5, "event": "mended", **link},
    ]
    cut, lost = _figures(crashed).faults
    assert (cut.name, cut.signal) == ("cut cam.0-edge.0", "")
    assert [d.device for d in cut.detections] == ["cam.0"]
    assert cut.detected_ms is not None
    assert cut.restarted_s == pytest.approx(1.4975)
    assert (lost.name, lost.detections[0].device) == ("lost edge.0", "cam.1")


def test_fault_that_was_mended_is_not_noticed_later(crashed):
    crashed.events["events-launcher.jsonl"] = [
        {"t_s": 1000.5, "event": "fault", "kind": "throttle", "target": "edge.0"},
        {"t_s": 1000.9, "event": "mended", "target": "edge.0"},
    ]
    assert _figures(crashed).faults[0].detections == ()


def test_loss_that_nobody_ordered_is_listed(crashed):
    crashed.events["events-launcher.jsonl"] = []
    losses = _figures(crashed).faults
    assert [(f.name, f.detections[0].device) for f in losses] == [
        ("lost edge.0", "cam.0"),
        ("lost edge.0", "cam.1"),
    ]
    assert losses[0].detected_ms is None
    assert losses[0].gap_ms is not None


def test_farewell_of_a_device_that_stops_is_no_loss(crashed, maker):
    crashed.events["events-launcher.jsonl"] = []
    for device in ("cam.0", "cam.1"):
        _event(crashed, maker, device, "link.suspect")["evidence"] = "bye"
    assert _figures(crashed).faults == ()


def test_loss_of_a_device_that_was_stopping_is_no_loss(crashed, maker):
    crashed.events["events-launcher.jsonl"] = []
    crashed.events[maker.events_name("edge.0")][1:] = [
        {"t_s": 1002.0, "event": "device.stopping", "why": "SIGTERM"}
    ]
    assert _figures(crashed).faults == ()


def test_endpoint_that_restarts_is_not_compared_with_nothing(crashed, maker):
    """Its first frames are slow, but there is no median before the fault."""
    name = maker.results_name("cam.0", 1)
    late = [dict(r) for r in crashed.results[maker.results_name("cam.0")][110:130]]
    for k, row in enumerate(late):
        row.update(frame=k, last=k, settled_s=row["fired_s"] + 1)
    crashed.results[name] = [maker.results_head("cam.0", 1), *late]
    assert _figures(crashed).faults[0].gap_ms < 10


def test_figures_are_json(crashed):
    data = json.loads(json.dumps(_figures(crashed).to_json(), allow_nan=False))
    assert data["faults"][0]["detected_ms"] == pytest.approx(1.5)
    assert data["outcomes"][0]["name"] == "full"
    assert 0.9 < data["outcomes"][0]["accuracy"]["share"] <= 1


def test_run_without_results_has_figures(maker):
    made = maker.simulate(seconds=0.2)
    made.results.clear()
    found = _figures(made)
    assert (found.frames, found.fps, found.outcomes[0].frames) == (0, None, 0)
    json.dumps(found.to_json(), allow_nan=False)


def _summary(made, width=110, **options):
    run = read_run(made.write())
    return format_summary(figures(run, 1.2e-7), judge(run), width, **options)


def test_summary_says_all_that_was_asked(crashed):
    text = _summary(crashed)
    assert "full equals the unsplit model within 1.2e-07" in text
    assert "every frame answered once, in order: kept (500 frames of 2 streams)" in text
    assert "SIGKILL edge.0" in text
    assert "disconnected" in text
    assert "answered by  on" in text


def test_summary_aligns_its_columns(crashed):
    title, *rows = _summary(crashed).split("\n\n")[1].splitlines()
    end = title.index("frames") + len("frames")
    assert all(row[end - 1].isdigit() and row[end] == " " for row in rows)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_summary_keeps_to_the_width(crashed, width):
    lines = _summary(crashed, width=width, colour=False).splitlines()[1:]
    assert max(map(len, lines)) <= max(width, 75)


def test_summary_of_a_broken_run_says_where(crashed, maker):
    del crashed.results[maker.results_name("cam.0")][5]
    text = _summary(crashed)
    assert "BROKEN (1 violation; " in text
    assert ":6: frame 4 unaccounted for before frame 5" in text


def test_summary_has_no_colours_where_none_are_wanted(crashed, monkeypatch):
    assert "\x1b" not in _summary(crashed)  # standard output is no terminal here
    assert "\x1b[32m" in _summary(crashed, colour=True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _summary(crashed)
