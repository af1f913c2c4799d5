import json

import pytest

from dataflow.errors import MisuseError, UnderstudyError
from understudy.run_folder import read_run


def _append(folder, name, text):
    with (folder / name).open("a") as file:
        file.write(text)


def test_folder_that_is_not_there_is_misuse(tmp_path):
    with pytest.raises(MisuseError, match="no such folder"):
        read_run(tmp_path / "nowhere")


def test_folder_without_a_run_is_misuse(tmp_path):
    with pytest.raises(MisuseError, match="holds no results"):
        read_run(tmp_path)


def test_results_come_back_as_they_were_written(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    name = maker.results_name("cam.0")
    made.results[name][3]["value"] = [0.5, -1.0]
    run = read_run(made.write())
    record = run.streams[0]
    assert (record.stream, record.device, record.rows) == ("cam.0", "cam.0", maker.rows)
    assert [r.frame for r in record.results] == list(range(10))
    assert record.results[2].value == (0.5, -1.0)
    assert record.results[0].line == 2
    assert [e.last for e in record.ended] == [9]
    assert not record.torn


def test_torn_last_line_is_skipped_and_noted(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    name = maker.results_name("cam.0")
    made.results[name].pop()
    folder = made.write()
    _append(folder, name, '{"frame":10,"la')
    record = read_run(folder).streams[0]
    assert record.torn
    assert len(record.results) == 10


@pytest.mark.parametrize("tail", ["\0\0\0", "\xff", "[", '"text"', "[1]"])
def test_garbage_after_the_last_newline_is_a_torn_line(maker, tail):
    folder = maker.simulate(seconds=0.2, cameras=1).write()
    _append(folder, maker.events_name("cam.0"), tail)
    assert next(d for d in read_run(folder).devices if d.device == "cam.0").torn


def test_last_line_without_its_newline_counts_if_it_is_whole(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    name = maker.results_name("cam.0")
    folder = made.write()
    path = folder / name
    path.write_text(path.read_text().rstrip("\n"))
    record = read_run(folder).streams[0]
    assert not record.torn
    assert record.ended


@pytest.mark.parametrize("text", ["", '{"understudy":1,"res'])
def test_file_of_a_process_killed_at_its_start_is_known_by_its_name(maker, text):
    folder = maker.simulate(seconds=0.2, cameras=1).write()
    (folder / f"results-cam.7+usb-{7:016x}.jsonl").write_text(text)
    record = read_run(folder).streams[-1]
    assert (record.stream, record.device) == ("cam.7/usb", "cam.7")
    assert record.results == ()


def test_torn_line_in_the_middle_is_an_error_with_file_and_line(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    folder = made.write()
    path = folder / maker.results_name("cam.0")
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = lines[4][:20] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(UnderstudyError, match=r"\.jsonl:5: not a JSON object"):
        read_run(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frame", -1),
        ("frame", True),
        ("frame", "1"),
        ("last", 0),
        ("status", "late"),
        ("row", None),
        ("fired_s", "now"),
        ("fired_s", float("nan")),
        ("settled_s", float("inf")),
        ("attempts", 1.5),
        ("label", "seven"),
        ("value", [1, "x"]),
    ],
)
def test_field_of_the_wrong_kind_is_an_error_that_names_it(maker, field, value):
    made = maker.simulate(seconds=0.2, cameras=1)
    made.results[maker.results_name("cam.0")][3][field] = value
    with pytest.raises(UnderstudyError, match=rf"\.jsonl:4: field '{field}' is"):
        read_run(made.write())


@pytest.mark.parametrize("field", ["frame", "status", "settled_s"])
def test_missing_field_is_an_error_that_names_it(maker, field):
    made = maker.simulate(seconds=0.2, cameras=1)
    del made.results[maker.results_name("cam.0")][3][field]
    with pytest.raises(UnderstudyError, match=f":4: no field '{field}'"):
        read_run(made.write())


def test_another_version_is_refused(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    made.results[maker.results_name("cam.0")][0]["understudy"] = 2
    with pytest.raises(UnderstudyError, match=":1: first line must be"):
        read_run(made.write())


def test_file_under_the_name_of_another_stream_is_refused(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    made.results[maker.results_name("cam.9")] = made.results[
        maker.results_name("cam.0")
    ]
    with pytest.raises(UnderstudyError, match="its name says otherwise"):
        read_run(made.write())


def test_launcher_may_have_a_first_line_or_none(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    made.events["events-launcher.jsonl"] = [
        {"t_s": 1.0, "event": "start", "target": "x"}
    ]
    assert len(read_run(made.write()).launcher.events) == 1
    head = maker.events_head("launcher", 1)
    head["events"]["machine"] = {"processor": "8086"}
    made.events["events-launcher.jsonl"].insert(0, head)
    launcher = read_run(made.write()).launcher
    assert [e.name for e in launcher.events] == ["start"]
    assert launcher.machine == {"processor": "8086"}


def test_signal_is_a_name_whether_written_as_name_or_number(maker):
    made = maker.simulate(seconds=0.2, cameras=1)
    made.events["events-launcher.jsonl"] = [
        {"t_s": 1.0, "event": "fault", "target": "x", "signal": s}
        for s in (9, "9", "KILL", "SIGKILL")
    ]
    run = read_run(made.write())
    assert {e.signal for e in run.launched("fault")} == {"SIGKILL"}


def test_plan_is_read_from_the_folder_or_through_the_pointer(maker, tmp_path):
    folder = maker.simulate(seconds=0.2).write()
    assert read_run(folder).plan is None
    maker.write_plan(tmp_path / "elsewhere")
    (folder / "plan.txt").write_text(f"{tmp_path / 'elsewhere'}\n")
    run = read_run(folder)
    assert run.row_device("cam.0", "exit2") == "cam.0"
    assert run.row_device("cam.0", "edge.1") == "edge.1"


def test_plan_that_cannot_be_read_does_not_hide_the_run(maker):
    folder = maker.simulate(seconds=0.2).write()
    (folder / "plan").mkdir()
    (folder / "plan" / "plan.json").write_text(json.dumps({"understudy": 1}))
    assert read_run(folder).plan is None
