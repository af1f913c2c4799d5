"""`understudy split`: what it lists, what it writes, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from understudy import segment_folder
from understudy.cli import main

DIGITS = Path(__file__).parents[2] / "graphs" / "digits" / "digits.onnx"


def split(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["split", *map(str, arguments)])


def run(path: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a written part as anyone would."""
    session = onnxruntime.InferenceSession(str(path))
    taken = {i.name: given[i.name] for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


def test_useful_cuts_are_listed_with_their_bytes_in_relation_to_the_input() -> None:
    text = split(DIGITS).output
    row = next(line for line in text.splitlines() if "features1" in line)
    assert re.fullmatch(r" 26 %  Relu .* 2,048 .* 800 % +3200 % +features1", row)
    assert "stage1/block0/add/out" not in text
    assert (
        "3 more that no search would choose: --all" not in split(DIGITS, "--all").output
    )


def test_all_says_why_a_cut_is_useless() -> None:
    text = split(DIGITS, "--all").output
    row = next(line for line in text.splitlines() if "stem/conv/out" in line)
    assert row.endswith("(inside a layer group: a runtime fuses what would be apart)")


def test_json_lists_every_cut_with_its_figures() -> None:
    found = json.loads(split(DIGITS, "--json").output)
    assert found["model"]["inputs"] == ["input float32[1,1,8,8]"]
    cuts = {tuple(cut["tensors"]): cut for cut in found["cuts"]}
    assert cuts[("features2",)]["bytes"] == 1024
    assert cuts[("features2",)]["of_uint8"] == 16
    assert {cut["useful"] for cut in cuts.values()} == {True, False}


def test_parts_of_cuts_in_any_order_compute_what_the_model_computes(
    tmp_path: Path,
) -> None:
    output = tmp_path / "parts"
    done = split(DIGITS, "--at", "features2", "--at", "features1", "--output", output)
    assert done.exit_code == 0, done.output
    assert "logits: the same bits without optimisations" in done.output
    contents = json.loads((output / "split.json").read_text())
    x = np.random.default_rng(1).random((1, 1, 8, 8), np.float32)
    known = {"input": x}
    for segment in contents["segments"]:
        known |= run(output / segment["file"], known)
    expected = run(DIGITS, {"input": x})["logits"]
    assert np.abs(known["logits"] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_parts_share_one_file_of_weights_that_holds_each_once(tmp_path: Path) -> None:
    output = tmp_path / "parts"
    assert split(DIGITS, "--per", "group", "--output", output).exit_code == 0
    large = [
        t.external_data
        for path in output.glob("*.onnx")
        for t in onnx.load(path, load_external_data=False).graph.initializer
        if t.external_data
    ]
    assert {e.value for data in large for e in data if e.key == "location"} == {
        "weights.bin"
    }
    ends = [
        int(entries["offset"]) + int(entries["length"])
        for entries in ({e.key: e.value for e in data} for data in large)
    ]
    assert max(ends) == (output / "weights.bin").stat().st_size
    assert len(set(ends)) == len(ends)


def test_into_balances_multiplications(tmp_path: Path) -> None:
    output = tmp_path / "parts"
    done = split(DIGITS, "--into", 3, "--output", output)
    assert done.exit_code == 0
    assert "3 parts" in done.output
    assert "of about as many multiplications each" in done.output
    assert len(list(output.glob("segment-*.onnx"))) == 3


def test_inputs_can_be_given(tmp_path: Path) -> None:
    given = tmp_path / "given.npz"
    np.savez(given, input=np.ones((1, 1, 8, 8), np.float32))
    at = ("--at", "features1", "--output", tmp_path / "parts", "--input", given)
    assert f"on {given}" in split(DIGITS, *at).output
    np.savez(given, picture=np.ones((1, 1, 8, 8), np.float32))
    assert "has no array 'input'" in split(DIGITS, *at).output
    np.savez(given, input=np.ones((1, 1, 8, 9), np.float32))
    assert "takes float32[1,1,8,8]" in split(DIGITS, *at).output


def test_parts_that_compute_something_else_are_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = segment_folder._write

    def spoilt(segments: object, folder: Path) -> None:
        real(segments, folder)
        weights = folder / "weights.bin"
        weights.write_bytes(weights.read_bytes()[::-1])

    monkeypatch.setattr(segment_folder, "_write", spoilt)
    done = split(DIGITS, "--at", "features1", "--output", tmp_path / "parts")
    assert done.exit_code == 1
    assert "do not compute what it computes (logits: OTHER BITS" in done.output
    assert list(tmp_path.iterdir()) == []


def test_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = split(DIGITS, "--at", "features1", "--output", tmp_path)
    assert done.exit_code == 2
    assert "holds other files" in done.output
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_folder_of_earlier_parts_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "parts"
    split(DIGITS, "--per", "group", "--output", output)
    assert split(DIGITS, "--at", "features1", "--output", output).exit_code == 0
    assert len(list(output.glob("segment-*.onnx"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--at", "feature1"], 1, "did you mean 'features1'?"),
        (["--at", "Nosuch"], 1, "list what can be cut with `understudy split "),
        (["--at", "features1", "--input", str(DIGITS)], 2, "with numpy.savez\n"),
        (["--at", "stage1/block0/conv0/out"], 1, "bypasses it"),
        (["--at", "features1,"], 1, "an empty name"),
        (["--at", "input"], 1, "the head would be empty"),
        (["--at", "features1", "--into", "2"], 2, "give one of them"),
        (["--into", "50"], 1, "one tensor separates at 12 places, 50 parts need 49"),
        (["--at", "features1", "--dim", "N"], 2, "write a name and a size"),
        (["--at", "features1", "--dim", "M=1"], 2, "open are: N"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    done = split(DIGITS, *arguments, "--output", tmp_path / "parts")
    assert (done.exit_code, said in done.output) == (status, True), done.output
    assert not (tmp_path / "parts").exists()


def test_output_is_asked_for() -> None:
    assert "name a folder for the parts" in split(DIGITS, "--at", "features1").output
    assert "say where to cut" in split(DIGITS, "--output", "parts").output


def test_open_sizes_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    model = onnx.load(DIGITS)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    done = split(path)
    assert "open sizes of inputs: side; fix them with --dim" in done.output
    assert "features1" not in done.output
    assert "features1" in split(path, "--dim", "side=8").output
