import json
from dataclasses import replace

import pytest

from dataflow.errors import MisuseError, UnderstudyError
from understudy.profile_file import (
    CodecTime,
    CutTime,
    Ends,
    LinkPoint,
    LinkProfile,
    Memory,
    ModelFacts,
    NodeTime,
    Noise,
    Paced,
    Profile,
    Runtime,
    SessionFacts,
    Spread,
    TensorFacts,
    read_link_profile,
    read_profile,
    write_profile,
)

PROFILE = Profile(
    device="pi",
    model=ModelFacts(
        file="net.onnx",
        sha256="ab" * 32,
        inputs=(TensorFacts("image", "float32", (1, 3, 8, 8)),),
        outputs=(TensorFacts("logits", "float32", (1, 10)),),
    ),
    machine={"processor": "Cortex-A72, 4 logical"},
    session=SessionFacts(threads=2, cores=(0, 2)),
    noise=Noise(1.25, flagged=False),
    rounds=40,
    seconds=3.5,
    whole=Spread(10.0, 10.5, 12.0),
    paced=Paced(1.25, 0.5, 0.05),
    runtime=Runtime(0.5, 0.25, 0.0625, 0.125),
    ends=Ends(0.5, 0.0, {"zstd": 900}),
    boundary_ms=-0.125,
    memory=Memory(40.0, 90.0),
    cuts=(
        CutTime(("a",), 1.0, 9.25, "measured", 0.01, 0.01, 1.0, 9.0, {"int8": 264}),
        CutTime(("b", "c"), 5.0, 5.5, "interpolated", 0.05, 0.04, 4.0, 6.0, {}),
        CutTime(("d",), 9.0, 1.5, "profile", None, None, 8.0, 2.0, {"zstd": 7}),
    ),
    codecs={"int8": CodecTime(168.0, 63.0)},
    nodes=(NodeTime("a", "Conv", 1.0), NodeTime("logits", "Gemm", 9.0)),
)
LINK = LinkProfile(
    link="home",
    there_mbit_s=15.5,
    back_mbit_s=94.0,
    rtt_ms=2.5,
    jitter_ms=0.5,
    points=(LinkPoint("there", 65536, 33.0),),
    machine={"system": "Linux"},
)


def _changed(path, change):
    """Write the profile with `change` made to its parsed JSON."""
    write_profile(PROFILE, path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_profile_comes_back_as_it_was_written(tmp_path):
    write_profile(PROFILE, tmp_path / "pi.json")
    assert read_profile(tmp_path / "pi.json") == PROFILE


def test_link_profile_comes_back_as_it_was_written(tmp_path):
    write_profile(LINK, tmp_path / "home.json")
    assert read_link_profile(tmp_path / "home.json") == LINK


def test_cut_is_found_by_all_its_tensors():
    assert PROFILE.cut(("b", "c")) == PROFILE.cuts[1]
    assert PROFILE.cut(("b",)) is None


def test_writing_over_a_profile_leaves_nothing_else_behind(tmp_path):
    write_profile(PROFILE, tmp_path / "pi.json")
    write_profile(replace(PROFILE, rounds=41), tmp_path / "pi.json")
    assert [path.name for path in tmp_path.iterdir()] == ["pi.json"]
    assert read_profile(tmp_path / "pi.json").rounds == 41


def test_file_that_is_not_there_is_misuse(tmp_path):
    with pytest.raises(
        MisuseError, match="measure one with `understudy profile MODEL`"
    ):
        read_profile(tmp_path / "none.json")


def test_folder_that_is_not_there_is_misuse(tmp_path):
    with pytest.raises(MisuseError, match="cannot be written"):
        write_profile(PROFILE, tmp_path / "none" / "pi.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800"])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "pi.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UnderstudyError, match="not JSON"):
        read_profile(tmp_path / "pi.json")


@pytest.mark.parametrize("text", ["[]", "3", '{"understudy": 1}'])
def test_what_is_no_profile_is_refused(tmp_path, text):
    (tmp_path / "pi.json").write_text(text)
    with pytest.raises(UnderstudyError, match="not the profile of a model"):
        read_profile(tmp_path / "pi.json")


def test_the_profile_of_a_link_is_not_one_of_a_model(tmp_path):
    write_profile(LINK, tmp_path / "home.json")
    with pytest.raises(UnderstudyError, match="the profile of a link, not of a model"):
        read_profile(tmp_path / "home.json")


def _before_frames_were_paced(data):
    data.update(understudy=1)
    for later in ("paced", "runtime", "ends"):
        data.pop(later)


@pytest.mark.parametrize(
    "change", [_before_frames_were_paced, lambda data: data.update(understudy=9)]
)
def test_profile_of_another_version_is_to_be_measured_again(tmp_path, change):
    path = _changed(tmp_path / "pi.json", change)
    said = r"by another version .*; profile again with `understudy profile MODEL`"
    with pytest.raises(UnderstudyError, match=said):
        read_profile(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("whole"), "has no 'whole'"),
        (lambda d: d["whole"].pop("p50_ms"), "has no 'whole.p50_ms'"),
        (lambda d: d.update(whole=3), "'whole' is 3, not an object"),
        (
            lambda d: d["cuts"][1].update(head_ms="5"),
            r"'cuts\[1\].head_ms' is '5', not",
        ),
        (lambda d: d["cuts"][1].update(tail_ms=-1), r"'cuts\[1\].tail_ms' is -1, not"),
        (lambda d: d["cuts"][0].update(tensors=[1]), "not a list of texts"),
        (lambda d: d["cuts"][2].update(source="guess"), "not one of measured, interp"),
        (lambda d: d["cuts"][2].update(tail_error=True), "not null or a number"),
        (lambda d: d["cuts"][0]["wire"].update(int8=1.5), "'cuts.0..wire.int8' is 1.5"),
        (lambda d: d["nodes"].append(["x", "Conv"]), r"not \[tensor, operator, ms\]"),
        (lambda d: d["noise"].update(flagged=0), "not true or false"),
        (lambda d: d.update(seconds=float("nan")), "'seconds' is nan, not a number"),
        (lambda d: d["model"]["inputs"][0].__setitem__(2, [1, -1]), "whole numbers"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path, change, said):
    path = _changed(tmp_path / "pi.json", change)
    with pytest.raises(UnderstudyError, match=f"{said}.*; measure it again with"):
        read_profile(path)
