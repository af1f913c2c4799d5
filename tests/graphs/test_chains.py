"""Models cut more than once: along a path of servers, and as a plain graph."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from dataflow.failures import failure_table
from dataflow.graph import Graph
from dataflow.rules import check
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from graphs.expand import expand
from graphs.graph_file import read_graph, write_graph
from graphs.located_yaml import FileErrors
from graphs.onnx_model import Model
from graphs.rounded import with_codec
from graphs.split import Segment, split_often, whole

Write = Callable[..., Path]

CHAIN = """\
understudy: 1
deployment: chain
graph: digits.yaml
devices:
  cam:  {role: endpoint}
  fog:  {role: server, count: 2, listen: "tcp://127.0.0.1:7000"}
  edge: {role: server, count: 2, listen: "tcp://127.0.0.1:7100"}
map:
  camera: cam
  prep: cam
  net: {cuts: [features1, features2], path: [cam, fog, edge]}
  exit1: cam
  result: cam
failover:
  order: [net, exit1]
  deadline_ms: 300
"""


@pytest.fixture
def chain(write: Write) -> Callable[..., Path]:
    """Write the deployment; each argument is an (old, new) text to replace."""

    def chain(*edits: tuple[str, str]) -> Path:
        write()
        text = CHAIN
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        Path("chain.yaml").write_text(text)
        return Path("chain.yaml")

    return chain


def expanded(path: Path, **given: object) -> Graph:
    return expand(read_deployment(path, **given))  # type: ignore[arg-type]


def run(segment: Segment, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(segment.data, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    found = session.run(None, {name: given[name] for name in names})
    return dict(zip(segment.made, found, strict=True))


@pytest.mark.parametrize(
    "cuts",
    [
        [["features1"], ["features2"]],
        [["features1"], ["features1", "features2"]][:1],
        [["prep_copy"], ["features1"], ["features2"]][1:],
    ],
    ids=len,
)
def test_parts_in_a_row_compute_what_the_whole_does(
    folder: Path, cuts: list[list[str]]
) -> None:
    model = Model.read(folder / "digits.onnx")
    image = {"input": np.random.default_rng(3).random((1, 1, 8, 8), np.float32)}
    tokens = image
    for segment in split_often(model, cuts, ["logits"]).segments:
        tokens = run(segment, tokens)
    np.testing.assert_allclose(
        tokens["logits"], run(whole(model, ["logits"]), image)["logits"], rtol=1e-5
    )


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_reference_rounds_at_every_cut(folder: Path, codec: str) -> None:
    model = Model.read(folder / "digits.onnx")
    image = {"input": np.random.default_rng(3).random((1, 1, 8, 8), np.float32)}
    cuts = [["features1"], ["features2"]]
    answers = {
        len(some): run(with_codec(model, some, ["logits"], codec), image)["logits"]
        for some in ([], cuts[:1], cuts)
    }
    assert not np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[1], answers[2])
    np.testing.assert_allclose(answers[0], answers[2], atol=0.2)


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_chain_is_a_sound_plain_graph_that_reads_back(
    chain: Callable[..., Path], codec: str, tmp_path: Path
) -> None:
    graph = expanded(chain(), codec=codec)
    assert check(graph) == []
    (tmp_path / "again.yaml").write_text(write_graph(graph))
    assert read_graph(tmp_path / "again.yaml").graph == graph


def test_rows_are_the_paths_those_that_share_least_first(
    chain: Callable[..., Path],
) -> None:
    graph = expanded(chain(("role: endpoint", "role: endpoint, count: 2")))
    first, second = (
        [branch.row for branch in region.branches] for region in graph.regions
    )
    assert first == ["fog.0+edge.0", "fog.1+edge.1", "fog.0+edge.1", "fog.1+edge.0",
                     "exit1"]  # fmt: skip
    assert second[:2] == ["fog.1+edge.1", "fog.0+edge.0"]
    assert set(first) == set(second)


def test_frame_goes_from_server_to_server_and_its_answer_the_way_back(
    chain: Callable[..., Path],
) -> None:
    one = "count: 2, listen", "listen"
    graph = expanded(chain(one, one))
    branch = graph.regions[0].branches[0]
    assert [(graph.actors[a].type, graph.actors[a].device) for a in branch.actors] == [
        ("tx", "cam"), ("rx", "fog"), ("onnx", "fog"),
        ("tx", "fog"), ("rx", "edge"), ("onnx", "edge"),
        ("tx", "edge"), ("rx", "fog"), ("tx", "fog"), ("rx", "cam"),
    ]  # fmt: skip
    assert branch.device == "fog"
    assert [asked.device for asked in branch.onward] == ["edge"]
    assert branch.segment not in (0, branch.onward[0].segment)


def test_server_is_asked_for_another_thing_where_it_passes_on_to_another(
    chain: Callable[..., Path],
) -> None:
    branches = expanded(chain()).regions[0].branches[:4]
    assert len({branch.segment for branch in branches}) == 2
    assert len({branch.onward[0].segment for branch in branches}) == 1


def test_failure_table_knows_every_server_of_a_path(
    chain: Callable[..., Path],
) -> None:
    table = failure_table(expanded(chain()))
    rows = {str(row.failure): row.answers[0].row for row in table.rows}
    assert rows["nothing fails"] == "fog.0+edge.0"
    assert rows["fog.0 dies"] == "fog.1+edge.1"
    assert rows["edge.0 dies"] == "fog.1+edge.1"
    assert rows["fog.0 - edge.0 is cut"] == "fog.1+edge.1"
    assert not table.single_points
    both = failure_table(expanded(chain()), 2)
    pairs = {str(row.failure): row.answers[0].row for row in both.rows}
    assert pairs["edge.0 dies and fog.1 dies"] == "fog.0+edge.1"
    assert pairs["edge.0 dies and edge.1 dies"] == "exit1"


def test_order_may_name_one_server_for_all_parts_or_another_path(
    chain: Callable[..., Path],
) -> None:
    spare = '  spare: {role: server, listen: "tcp://127.0.0.1:7200"}\nmap:'
    order = "[net, {net: [fog, spare]}, {net: edge}, exit1]"
    graph = expanded(chain(("map:", spare), ("[net, exit1]", order)))
    assert check(graph) == []
    assert [branch.row for branch in graph.regions[0].branches[4:]] == [
        "fog.0+spare", "fog.1+spare", "edge.0", "edge.1", "exit1"
    ]  # fmt: skip


def test_whole_actors_on_groups_in_a_row_are_a_chain_too(
    chain: Callable[..., Path],
) -> None:
    cut = "{cuts: [features1, features2], path: [cam, fog, edge]}"
    mapped = ("prep: cam", "prep: fog"), (cut, "edge"), ("  exit1: cam\n", "")
    graph = expanded(chain(*mapped, ("[net, exit1]", "[net]")))
    assert check(graph) == []
    assert graph.regions[0].branches[0].row == "fog.0+edge.0"


def test_servers_alone_may_share_a_network(chain: Callable[..., Path]) -> None:
    """The endpoint sends its frame, to the server that prepares it and has the head."""
    cut = "{cuts: [features1, features2], path: [cam, fog, edge]}"
    mapped = (cut, "{cuts: [features2], path: [fog, edge]}"), ("prep: cam", "prep: fog")
    graph = expanded(chain(*mapped, ("  exit1: cam\n", ""), ("[net, exit1]", "[net]")))
    assert check(graph) == []
    models = [actor for actor in graph.actors.values() if actor.type == "onnx"]
    placed = {(a.name.partition("[")[0], str(a.device)[:-2]) for a in models}
    assert placed == {("net.head", "fog"), ("net.tail", "edge")}


WRONG = {
    "the 3 parts that 2 cuts make": ("path: [cam, fog, edge]", "path: [cam, fog]"),
    "'fog' stands there before": ("path: [cam, fog, edge]", "path: [cam, fog, fog]"),
    "'cam' is of role endpoint": ("path: [cam, fog, edge]", "path: [fog, cam, edge]"),
    "does not lie behind the cut 'features2'": (
        "[features1, features2]", "[features2, features1]"
    ),
    "name one group for each of them": ("[net, exit1]", "[{net: [fog, edge, cam]}]"),
    "passes none twice": ("[net, exit1]", "[{net: [edge, edge]}]"),
}  # fmt: skip


@pytest.mark.parametrize("why", WRONG)
def test_path_that_cannot_be_is_told(chain: Callable[..., Path], why: str) -> None:
    with pytest.raises(FileErrors, match=re.escape(why)):
        expanded(chain(WRONG[why]))


def test_plan_of_a_chain_holds_its_segments(
    chain: Callable[..., Path], tmp_path: Path
) -> None:
    plan = compile_plan(read_deployment(chain()), tmp_path / "plan")
    assert len(plan.segments_of("fog.0")) == len(plan.segments_of("edge.1")) == 1
    assert plan.segments_of("fog.0") != plan.segments_of("edge.1")
