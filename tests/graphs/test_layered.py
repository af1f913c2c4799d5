"""A graph with its models taken apart is a graph file, and the same computation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from dataflow.graph import PortRef
from dataflow.rules import check
from graphs.graph_file import GraphFile, read_graph, write_graph
from graphs.layered import layered
from graphs.located_yaml import FileErrors
from tests.graphs.conftest import GRAPH
from understudy.cli import main

Save = Callable[..., Path]
Write = Callable[..., Path]

ALONE = "understudy: 1\ngraph: g\nactors: {{net: {{type: onnx, model: {}}}}}\n"


def read(text: str) -> GraphFile:
    Path("graph.yaml").write_text(text)
    return read_graph(Path("graph.yaml"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_printed_layers_are_a_graph_file_that_says_the_same(
    write: Write, folder: Path
) -> None:
    write()
    printed = run("digits.yaml", "--expand", "--layers")
    assert (printed.exit_code, printed.stderr) == (0, "")
    again, expected = read(printed.stdout), layered(read_graph(Path("digits.yaml")))
    assert again.graph == expected.graph
    assert again.understudies == expected.understudies
    assert check(again.graph) == []
    assert run("graph.yaml", "--expand", "--layers").stdout == printed.stdout
    assert (
        "digits: sound\n  graph       24 actors"
        in run("digits.yaml", "--layers").stdout
    )


def test_printed_layers_keep_their_exits(folder: Path, digits: Path) -> None:
    Path("gated.yaml").write_text((digits / "gated.yaml").read_text())
    printed = run("gated.yaml", "--expand", "--layers")
    assert (printed.exit_code, printed.stderr) == (0, "")
    expected = layered(read_graph(Path("gated.yaml")))
    assert read(printed.stdout).exits == expected.exits != {}
    assert "net.logits.exit" in run("gated.yaml", "--expand").stdout


def test_fifos_taps_and_understudies_lead_where_they_led(folder: Path) -> None:
    file = layered(read(GRAPH))
    into = {str(fifo.target): str(fifo.source) for fifo in file.graph.fifos}
    assert into["net.stem_relu_out.input"] == "prep.image"
    assert into["net.features1.stem_relu_out"] == "net.stem_relu_out.stem_relu_out_2"
    assert into["exit1.head_flatten_out.features"] == "net.features1.features1_3"
    assert into["result.answer"] == "net.logits.logits"
    assert file.understudies == {
        PortRef("net.logits", "logits"): (
            PortRef("exit2.logits", "logits"),
            PortRef("exit1.logits", "logits"),
        )
    }
    taps = file.graph.actors["net.features1"].params["taps"]
    assert taps == {"features1_2": "features1", "features1_3": "features1"}


def test_every_actor_and_fifo_knows_its_place(folder: Path) -> None:
    file = layered(read(GRAPH))
    named = {*file.graph.actors, *map(str, file.graph.fifos)}
    assert named <= file.places.keys()
    assert str(file.places["net.features2"]) == "graph.yaml:6:3"
    assert "understudies net.logits.logits" in file.places


def test_tensor_that_is_tapped_inside_a_group_is_tapped_there(folder: Path) -> None:
    text = GRAPH.replace("net@features1 -> exit1", "net@stage1/block0/add/out -> exit1")
    file = layered(read(text))
    fifo = file.graph.fifo_into[PortRef("exit1.head_flatten_out", "features")]
    assert fifo.source == PortRef("net.features1", "stage1_block0_add_out")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model: digits-exit1.onnx", "model: digits-exit1.onnx, stateful: true"),
        (
            "model: digits-exit1.onnx",
            "model: digits-exit1.onnx, from: [head/pool/out]",
        ),
    ],
)
def test_part_and_model_with_a_state_stay_as_they_are(
    folder: Path, old: str, new: str
) -> None:
    text = GRAPH.replace(old, new).replace("  - net@features1 -> exit1.features\n", "")
    file = layered(read(text))
    assert "exit1" in file.graph.actors
    assert "exit2" not in file.graph.actors


def test_name_that_is_taken_gets_a_number(folder: Path) -> None:
    text = GRAPH.replace("exit2", "net.features2")
    text = text.replace("digits-net.features2.onnx", "digits-exit2.onnx")
    actors = layered(read(text)).graph.actors
    assert "net.features2_2" in actors
    assert actors["net.features2_2"].params["to"] == ["features2"]


def test_tensors_called_by_numbers_make_ports_that_can_be_read(
    folder: Path, save: Save
) -> None:
    save(
        "numbers",
        [
            helper.make_node("Relu", ["0"], ["1"]),
            helper.make_node("MatMul", ["1", "w"], ["2"]),
        ],
        inputs={"0": ["N", 6]},
        outputs={"2": ["N", 6]},
        weights={"w": np.eye(6, dtype=np.float32)},
    )
    file = layered(
        read(
            "understudy: 1\ngraph: g\nactors: {net: {type: onnx, model: numbers.onnx}}"
        )
    )
    assert [str(f) for f in file.graph.fifos] == ["net.1.1 -> net.2.1"]
    assert read(write_graph(file.graph)).graph == file.graph


def test_input_that_no_node_reads_is_told(folder: Path, save: Save) -> None:
    save(
        "deaf",
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["y"]),
        ],
        inputs={"x": [1, 6], "unheard": [1, 6]},
        outputs={"y": [1, 6]},
        weights={"w": np.eye(6, dtype=np.float32)},
    )
    file = read(
        "understudy: 1\ngraph: g\nactors: {net: {type: onnx, model: deaf.onnx}}"
    )
    with pytest.raises(FileErrors) as caught:
        layered(file)
    assert caught.value.messages == (
        "graph.yaml:3:10: actor 'net': no node of its model reads the input 'unheard'; "
        "remove it from the model",
    )


def test_layers_of_a_deployment_are_misuse(write: Write) -> None:
    result = run(str(write()), "--layers")
    assert result.exit_code == 2
    assert result.stderr == (
        "understudy: demo.yaml: is a deployment, which runs adjacent layers as one "
        "segment; give its graph file with --layers\n"
    )
