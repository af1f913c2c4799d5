"""What is wrong inside a file is said with its place, and all of it at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow.errors import MisuseError
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from graphs.graph_file import read_graph
from graphs.located_yaml import FileErrors
from graphs.onnx_model import Model

Write = Callable[..., Path]
Edit = tuple[str, str]

TABLE = Path(__file__).with_name("wrong_files.txt")


def mistakes() -> list[tuple[Edit, list[str]]]:
    text = TABLE.read_text().partition("\n\n")[2]
    found = []
    for block in text.strip().split("\n\n"):
        old, new, *said = block.splitlines()
        edit = tuple(line[2:].replace("\\n", "\n") for line in (old, new))
        found.append(((edit[0], edit[1]), said))
    return found


def messages(deployment: Path, folder: Path) -> list[str]:
    """Return what compiling says; DIR stands for the folder of the files."""
    with pytest.raises(FileErrors) as caught:
        compile_plan(read_deployment(deployment), folder / "plan")
    assert not (folder / "plan").exists()
    return [text.replace(str(folder), "DIR") for text in caught.value.messages]


@pytest.mark.parametrize(("edit", "said"), mistakes(), ids=lambda v: str(v)[:70])
def test_mistake_is_said_with_its_place(
    write: Write, folder: Path, edit: Edit, said: list[str]
) -> None:
    kind = "graph" if said[0].startswith("digits.yaml") else "deployment"
    assert messages(write(**{kind: edit}), folder) == said


def test_cut_that_does_not_separate_is_located_in_the_mapping(
    write: Write, folder: Path, digits: Path
) -> None:
    model = Model.read(digits / "digits.onnx")
    tensors = [node.output[0] for node in model.nodes]
    inside = tensors[tensors.index("features1") + 1]
    path = write(deployment=("cut: features2", f"cut: {inside}"))
    (said,) = messages(path, folder)
    assert said.startswith(f"demo.yaml:10:3: map: net: cut '{inside}': does not sep")
    assert "'features1' bypasses it" in said


def test_mistakes_of_both_files_are_said_together(write: Write, folder: Path) -> None:
    path = write(
        graph=("scale: 0.0625", "scale: much"), deployment=("role: server", "role: x")
    )
    assert [text.partition(": ")[0] for text in messages(path, folder)] == [
        "demo.yaml:6:16",
        "digits.yaml:5:27",
    ]


def test_errors_are_status_one_and_a_missing_file_is_misuse(
    write: Write, folder: Path
) -> None:
    path = write(graph=("graph: digits\n", ""))
    with pytest.raises(FileErrors) as wrong:
        read_deployment(path)
    assert wrong.value.status == 1
    for read in (read_graph, read_deployment):
        with pytest.raises(MisuseError, match=r"none\.yaml: cannot be read") as missing:
            read(folder / "none.yaml")
        assert missing.value.status == 2


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "bad.yaml:1:1: the file is empty; write `understudy: 1` first"),
        (b"a: 1\nb: \xff", "bad.yaml:2:1: not UTF-8; save the file as UTF-8"),
        (b"a: 1\n\tb: 2", "bad.yaml:2:1: not valid YAML: found a tab character"),
        (b"a\x00b", "bad.yaml:1:1: not valid YAML: "),
        (b"[" * 500 + b"]" * 500, "bad.yaml:1:34: nested deeper than 32 levels"),
        (b"a: 1\n---\nb: 2\n", "bad.yaml:2:1: not valid YAML: but found another docum"),
    ],
    ids=["empty", "encoding", "tab", "null byte", "nesting", "two documents"],
)
def test_file_that_is_hardly_yaml_is_refused(
    folder: Path, raw: bytes, said: str
) -> None:
    Path("bad.yaml").write_bytes(raw)
    with pytest.raises(FileErrors) as caught:
        read_graph(Path("bad.yaml"))
    assert caught.value.messages[0].startswith(said)


def test_code_of_an_own_type_that_raises_is_named(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own_scale.py").write_text(
        "from dataflow.behaviour import Behaviour\n"
        "class Scale(Behaviour):\n"
        "    @classmethod\n"
        "    def ports(cls, params):\n"
        "        return params['factor']\n"
    )
    monkeypatch.syspath_prepend(folder)
    path = write(
        graph=("{type: normalise, scale: 0.0625}", '{type: "own_scale:Scale"}')
    )
    assert messages(path, folder) == [
        "digits.yaml:5:16: actor 'prep': type 'own_scale:Scale' raised KeyError: "
        "'factor' while naming its ports; correct its method `ports`"
    ]


def test_overrides_that_name_nothing_are_misuse(write: Write) -> None:
    path = write()
    for given, said in (
        (
            {"counts": {"cams": 3}},
            "device group 'cams': not in demo.yaml (did you mean",
        ),
        ({"counts": {"cam": 0}}, "device group 'cam': count 0; give 1 to 256"),
        ({"codec": "int4"}, "codec 'int4': not known; use none, zstd, lz4, float16,"),
        ({"params": {"camra": {}}}, "actor 'camra': not in digits.yaml (did you mean"),
    ):
        with pytest.raises(MisuseError) as caught:
            read_deployment(path, **given)  # type: ignore[arg-type]
        assert str(caught.value).startswith(said)


def test_stateful_actor_in_a_branch_is_located_in_the_graph_file(
    write: Write, folder: Path
) -> None:
    path = write(
        graph=("{type: onnx, model: digits-exit1.onnx}", "{type: onnx, model: "
        "digits-exit1.onnx, stateful: true}")
    )  # fmt: skip
    (said,) = messages(path, folder)
    assert said.startswith("digits.yaml:7:3: ")
    assert said.endswith("(R14)")
