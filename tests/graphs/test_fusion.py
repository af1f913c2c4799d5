"""A model named layer by layer and mapped runs as the segments of a cut."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from dataflow.rules import check
from graphs.deployment_file import read_deployment
from graphs.expand import expand
from graphs.graph_file import read_graph
from graphs.groups import groups
from graphs.layered import layered
from graphs.located_yaml import FileErrors
from graphs.onnx_model import Model
from tests.support.deployed import (
    DEPLOYMENT,
    alive,
    computed,
    deployed,
    divided,
    files,
    parts,
    pictures,
    plan_of,
    segments_of,
    written,
)
from tests.support.light import HUGE, SMALL, light_model, real_models
from tests.support.run import outcome, played, results
from understudy.launch import free_ports
from understudy.reference import full_error

Write = Callable[..., Path]
Save = Callable[..., Path]
MODELS = [*map(light_model, (*SMALL, *HUGE)), *real_models()]


@pytest.mark.parametrize("count", range(1, 17))
def test_layers_of_digits_on_two_devices_are_the_segments_of_the_cut(
    folder: Path, digits: Path, count: int
) -> None:
    """At every place, also inside a residual block, where two tensors cross."""
    file = pictures(digits / "digits.onnx", (8, 8, 1))
    layers = layered(file)
    names = parts(layers)
    assert len(names) == 17
    tensors = alive(Model.read(digits / "digits.onnx"), count)
    cut = deployed("whole.yaml", f"  net: {{cut: {tensors}, head: cam, tail: edge}}")
    apart = deployed(written(layers), divided(names, count))
    assert computed(apart) == computed(cut)
    assert len(computed(apart)[0]) == 2


@pytest.mark.parametrize(
    ("name", "counts"), [("squeezenet", (2, 7, 20, 37)), ("resnet50", (1, 5, 40, 71))]
)
def test_layers_of_large_models_are_the_segments_of_the_cut(
    folder: Path, name: str, counts: Sequence[int]
) -> None:
    layers = layered(pictures(light_model(name), (224, 224, 3)))
    for count in counts:
        tensors = alive(Model.read(light_model(name)), count)
        cut = deployed(
            "whole.yaml", f"  net: {{cut: {tensors}, head: cam, tail: edge}}"
        )
        apart = deployed(written(layers), divided(parts(layers), count))
        assert computed(apart) == computed(cut), count


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_layers_of_every_model_are_the_segments_of_a_cut_in_the_middle(
    folder: Path, path: Path
) -> None:
    """Of several outputs the graph uses the first: other layers are not there."""
    model = Model.read(path)
    layers = layered(
        pictures(path, (*model.tensor(model.inputs[0]).token.shape[2:], 3))
    )
    names = parts(layers)
    count = len(names) // 2
    used = [g for g in groups(model) if f"net.{g.name}" in names]
    made = {name for group in used[:count] for name in group.part.outputs}
    read = {name for group in used[count:] for name in group.part.inputs}
    cut = deployed(
        "whole.yaml", f"  net: {{cut: {sorted(made & read)}, head: cam, tail: edge}}"
    )
    apart = deployed(written(layers), divided(names, count))
    assert computed(apart) == computed(cut)
    assert len(computed(apart)[0]) == 2


@pytest.mark.parametrize("device", ["cam", "edge"])
def test_layers_on_one_device_are_the_whole_model(
    folder: Path, digits: Path, device: str
) -> None:
    file = pictures(digits / "digits.onnx", (8, 8, 1))
    apart = deployed(written(layered(file)), f"  net.*: {device}")
    assert computed(apart) == computed(deployed("whole.yaml", f"  net: {device}"))


def test_exits_and_taps_are_outputs_of_the_fused_segment(write: Write) -> None:
    cut = write()
    layers = layered(read_graph(Path("digits.yaml")))
    head = parts(layers)[: parts(layers).index("net.features2") + 1]
    here = "".join(f"\n  {name}: cam" for name in (*head, '"exit?.*"'))
    text = cut.read_text()
    for old, new in (
        ("graph: digits.yaml", f"graph: {written(layers)}"),
        ("  net: {cut: features2, head: cam, tail: edge}", f"  net.*: edge{here}"),
        ("  exit1: cam\n  exit2: cam\n", ""),
        (
            "[{net: edge}, exit2, exit1]",
            "[{net.logits: edge}, exit2.logits, exit1.logits]",
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    Path("apart.yaml").write_text(text)
    assert computed(Path("apart.yaml")) == computed(cut)
    assert len(computed(cut)[0]) == 4
    graph = expand(read_deployment(Path("apart.yaml")))
    name = "net.stem_relu_out..features2[cam.0]"
    assert [p.name for p in graph.actors[name].outputs] == ["features1", "features2"]


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_codec_crosses_and_is_in_the_reference_as_with_a_cut(
    folder: Path, digits: Path, codec: str
) -> None:
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    names = parts(layers)
    here = divided(names[: names.index("net.features2") + 1], len(names))
    written(layers)
    cut = "  net: {cut: features2, head: cam, tail: edge}"
    expected = plan_of(deployed("whole.yaml", cut), codec)
    given = f"  net.*: {{group: edge, codec: {codec}}}\n{here}"
    for plan in (
        plan_of(deployed("layers.yaml", given)),
        plan_of(deployed("layers.yaml", f"  net.*: edge\n{here}"), codec),
    ):
        assert files(plan) == files(expected)
        kinds = [a.type for a in plan.graph.actors.values()]
        assert kinds == [a.type for a in expected.graph.actors.values()]
        assert list(plan.reference.actors) == [
            "camera",
            "prep",
            "net.stem_relu_out..logits",
        ]


def test_cut_at_home_as_well_stays_a_cut(folder: Path, digits: Path) -> None:
    """What the servers compute is computed here from the same tensor, if they die."""
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    again = "\nfailover: {order: [{ACTOR: edge}, {ACTOR: cam}]}\n"
    cut = "  net: {cut: features2, head: cam, tail: edge}"
    mapping = divided(parts(layers), 8)
    assert computed(
        deployed(written(layers), mapping + again.replace("ACTOR", "net.logits"))
    ) == computed(deployed("whole.yaml", cut + again.replace("ACTOR", "net")))


def test_layers_that_an_order_moves_move_as_the_whole_model_would(
    folder: Path, digits: Path
) -> None:
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    path = deployed(
        written(layers),
        "  net.*: cam\nfailover: {order: [{net.logits: edge}, net.logits]}\n",
    )
    graph = expand(read_deployment(path))
    first, second = graph.regions[0].branches
    assert (first.row, second.row) == ("edge", "net.logits")
    name = "net.stem_relu_out..logits[cam]"
    assert second.actors == (name,)
    assert f"{name}@edge" in first.actors
    assert next(graph.inputs(graph.regions[0].fork)).source.actor == "prep[cam]"


def test_layers_behind_a_gate_are_the_segments_of_the_cut(
    folder: Path, digits: Path
) -> None:
    for name in ("gated.yaml", "gated-two-by-two.yaml"):
        Path(name).write_text((digits / name).read_text())
    file = read_graph(Path("gated.yaml"))
    layers = layered(file)
    names = parts(layers)
    written(layers)
    assert read_graph(Path("layers.yaml")).exits == layers.exits
    assert check(layers.undivided) == []
    text = Path("gated-two-by-two.yaml").read_text()
    here = divided(names[: names.index("net.features2") + 1], len(names))
    for old, new in (
        ("graph: gated.yaml", "graph: layers.yaml"),
        ("  net: {cut: features2, head: cam, tail: edge}\n", f"  net.*: edge\n{here}"),
        ("  early: cam", "  early.*: cam"),
        ("[{net: edge}, early]", "[{net.logits: edge}, early.logits]"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    Path("apart.yaml").write_text(text)
    assert computed(Path("apart.yaml")) == computed(Path("gated-two-by-two.yaml"))
    assert files(plan_of(Path("apart.yaml"))) == files(
        plan_of(Path("gated-two-by-two.yaml"))
    )


def test_layers_along_several_servers_are_the_segments_of_the_cuts(
    folder: Path, digits: Path
) -> None:
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    names = parts(layers)
    first, second = (names.index(f"net.features{i}") + 1 for i in (1, 2))
    there = divided(names[first:], second - first).replace(": cam", ": fog")
    along = "  net: {cuts: [features1, features2], path: [cam, fog, edge]}"
    cut = deployed("whole.yaml", along)
    apart = deployed(written(layers), divided(names[:first], first) + there)
    fog = 'devices:\n  fog: {role: server, listen: "tcp://127.0.0.1:7300"}\n'
    for path in (cut, apart):
        path.write_text(path.read_text().replace("devices:\n", fog))
    assert computed(apart) == computed(cut)
    assert files(plan_of(apart, "int8")) == files(plan_of(cut, "int8"))


def test_fused_segment_runs_as_batches_as_that_of_a_cut(
    folder: Path, digits: Path
) -> None:
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    cut = deployed("whole.yaml", "  net: {cut: features2, head: cam, tail: edge}")
    apart = deployed(written(layers), divided(parts(layers), 8))
    for path in (cut, apart):
        text = path.read_text()
        path.write_text(text.replace("role: server", "role: server, batch_max: 4"))
    assert computed(apart) == computed(cut)


def exits(write: Write, mapping: str, order: str) -> Path:
    """Deploy layers of digits, cut at features2, with an order of their exits."""
    write()
    layers = layered(read_graph(Path("digits.yaml")))
    names = parts(layers)
    here = divided(names[: names.index("net.features2") + 1], len(names))
    return deployed(
        written(layers),
        f"{here}  net.*: edge\n{mapping}\nfailover: {{order: [{order}]}}",
    )


def test_understudy_that_is_moved_is_moved_with_its_layers(write: Write) -> None:
    path = exits(write, "  exit*: cam", "{net.logits: edge}, {exit2.logits: lab}")
    lab = '  lab: {role: server, listen: "tcp://127.0.0.1:7100"}\nmap:\n'
    path.write_text(path.read_text().replace("map:\n", lab))
    assert segments_of(path)[2:] == ["exit2.head_flatten_out..logits[cam]@lab"]


def test_layers_mapped_apart_stay_apart_where_both_play_at_home(write: Write) -> None:
    """As a cut does: there may be a codec between them."""
    path = exits(
        write,
        "  exit?.head*: cam\n  exit?.logits: edge",
        "{net.logits: edge}, {exit2.logits: cam}",
    )
    assert segments_of(path)[2:] == ["exit2.head_flatten_out[cam]", "exit2.logits[cam]"]


@pytest.fixture
def skip(save: Save) -> Path:
    """Write x -> a -> b -> (+ x) -> y, of pictures."""
    return save(
        "skip",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["b"]),
            helper.make_node("Add", ["b", "x"], ["y"]),
        ],
        inputs={"x": ["N", 1, 6, 6]},
        outputs={"y": ["N", 1, 6, 6]},
        weights={"w": np.eye(6, dtype=np.float32)},
    )


@pytest.mark.parametrize(("count", "tensors"), [(1, ["x", "a"]), (2, ["x", "b"])])
def test_input_that_crosses_as_well_is_handed_on_by_the_head(
    folder: Path, skip: Path, count: int, tensors: list[str]
) -> None:
    layers = layered(pictures(skip, (6, 6, 1)))
    cut = deployed("whole.yaml", f"  net: {{cut: {tensors}, head: cam, tail: edge}}")
    apart = deployed(written(layers), divided(parts(layers), count))
    assert computed(apart) == computed(cut)


def test_two_codecs_in_one_model_are_refused(folder: Path, digits: Path) -> None:
    layers = layered(pictures(digits / "digits.onnx", (8, 8, 1)))
    names = parts(layers)
    mapping = divided(names, 8)
    for name, codec in ((names[8], "int8"), (names[9], "float16")):
        mapping = mapping.replace(
            f"{name}: edge", f"{name}: {{group: edge, codec: {codec}}}"
        )
    with pytest.raises(FileErrors) as caught:
        plan_of(deployed(written(layers), mapping))
    assert caught.value.messages == (
        f"demo-of-layers.yaml:20:3: map: {names[9]}: codec float16, but '{names[8]}' "
        "of the same model has int8; give both the same",
    )


def test_layers_are_played_on_real_devices_that_die(write: Write, folder: Path) -> None:
    port = free_ports(2)
    write()
    layers = layered(read_graph(Path("digits.yaml")))
    names = parts(layers)
    here = divided(names[: names.index("net.features2") + 1], len(names))
    text = DEPLOYMENT.format(
        graph=written(layers),
        mapping=f"{here}  net.*: edge\n  exit*: cam\n"
        "failover: {order: [{net.logits: edge}, exit2.logits, exit1.logits]}\n",
    )
    text = text.replace("role: server", "role: server, count: 2")
    Path("demo.yaml").write_text(text.replace("7000", str(port)))
    plan = plan_of(Path("demo.yaml"))
    (folder / "run").mkdir()
    with played(plan, folder / "run") as run:
        run.wait_rows("cam", "edge.0", 10)
        run.kill("edge.0")
        run.wait_rows("cam", "edge.1", 10)
        run.kill("edge.1")
        run.wait_rows("cam", "exit2.logits", 10)
        run.launcher.start("edge.1")
        run.wait_rows("cam", "edge.1", 10)
    found, verdict = outcome(folder / "run")
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam")} == {"full", "degraded"}
    error = full_error(plan, found)
    assert error is not None
    assert error <= 1e-4
