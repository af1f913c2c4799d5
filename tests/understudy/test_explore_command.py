"""`understudy explore`: what it prints, writes and refuses, from profiles in files."""

import csv
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graphs.onnx_model import Model
from tests.support.profiles import profile_of
from understudy.cli import main
from understudy.profile_file import LinkProfile, Paced, read_profile, write_profile

MODEL = "digits.onnx"
TWO = ("--endpoint", "pi.json", "--server", "lab.json")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ("explore", MODEL, *arguments))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with its profiles on two devices, in the working directory."""
    shutil.copy(str(files("graphs") / "digits" / MODEL), tmp_path)
    monkeypatch.chdir(tmp_path)
    model = Model.read(Path(MODEL))
    for name, ms in (("pi", 20.0), ("lab", 1.0)):
        write_profile(profile_of(model, ms, name), Path(f"{name}.json"))
    return tmp_path


def test_table_names_the_best_and_what_it_gains():
    result = run(*TWO, "--link", "100mbit,1ms", "--link", "slow=0.1mbit,50ms")
    assert result.exit_code == 0, result.output
    assert "x quicker than all local" in result.output
    assert "do not split" in result.output
    assert "the quickest by rate" in result.output


def test_json_and_csv_hold_every_row_of_every_link():
    result = run(*TWO, "--link", "100mbit,1ms", "--link", "1mbit,9ms",
                 "--json", "out.json", "--csv", "out.csv")  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads(Path("out.json").read_text())
    rows = [row for panel in data["panels"] for row in panel["rows"]]
    with Path("out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [line["label"] for line in lines]
    assert {line["links"] for line in lines} == {"100mbit,1ms", "1mbit,9ms"}


def test_constraints_that_exclude_all_are_a_no():
    result = run(*TWO, "--link", "1mbit,9ms", "--require", "no-raw-input",
                 "--max-endpoint-ms", "0.001")  # fmt: skip
    assert result.exit_code == 1
    assert "the nearest is" in result.output


def test_chain_takes_a_link_between_each_two_devices():
    chain = [f"--device={name}={name}.json" for name in ("pi", "lab")]
    chain.append("--device=cloud=lab.json")
    result = run(*chain, "--link", "wifi=16mbit,5ms")
    assert result.exit_code == 2
    assert "3 devices in a row have 2" in result.output
    result = run(*chain, "--link", "wifi=16mbit,5ms", "--link", "wan=50mbit,30ms")
    assert result.exit_code == 0, result.output
    assert "over wifi: 16 Mbit/s, round trip 5 ms; wan: 50 Mbit" in result.output


def test_link_may_be_a_measured_profile():
    link = LinkProfile("home", 15.5, 94.0, 2.5, 0.5, (), {})
    write_profile(link, Path("home.json"))
    result = run(*TWO, "--link", "home.json")
    assert result.exit_code == 0, result.output
    assert "home: 15.5 Mbit/s there, 94 Mbit/s back, round trip 2.5 ms" in result.output


def test_round_trip_that_nobody_gave_is_said_to_be_assumed():
    result = run(*TWO, "--link", "16mbit")
    assert "over 16mbit: 16 Mbit/s, round trip 0 ms assumed" in result.output


def test_time_of_the_whole_is_said_at_best_and_as_frames_come():
    profile = read_profile(Path("pi.json"))
    write_profile(replace(profile, paced=Paced(1.5, 0.0, 0.0)), Path("pi.json"))
    result = run(*TWO, "--link", "16mbit,5ms")
    assert "endpoint: 20 ms whole at best, 30 as frames come (" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--link", "16mbit"), "a profile of each side is needed"),
        ((*TWO, "--link", "fast"), "write a rate and a round trip"),
        ((*TWO, "--link", "0mbit,1ms"), "a rate of 0 carries nothing"),
        (TWO, "give --link"),
        ((*TWO, "--link", "1mbit", "--objective", "speed"), "not known"),
        ((*TWO, "--link", "1mbit", "--objective", "bytes=0"), "all weights are 0"),
        ((*TWO, "--link", "1mbit", "--power", "cam=1W"), "known are endpoint, idle"),
        ((*TWO, "--link", "1mbit", "--codec", "mp3"), "use lossless, any"),
        ((*TWO, "--link", "1mbit", "--pin", "conv"), "write NODE=endpoint"),
        ((*TWO, "--link", "1mbit", "--input", "x.npz"), "without --write or"),
        ((*TWO, "--link", "1mbit", "--max-memory", "lots"), "write 64MB"),
        ((*TWO, "--device", "a=pi.json"), "stands in place of --endpoint"),
        (("--device", "pi.json"), "write NAME=PROFILE"),
        (("--endpoint", "no.json", "--server", "lab.json"), "measure one with"),
    ],
)
def test_misuse_is_told_what_to_write(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
