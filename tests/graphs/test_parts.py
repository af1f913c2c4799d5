"""Parts of a model with something between them: what stays apart, and why."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from actors import behaviour
from dataflow.behaviour import Site
from dataflow.engine import Chain
from dataflow.graph import PortRef
from dataflow.plan import SEGMENTS
from graphs.deployment_file import read_deployment
from graphs.expand import expand
from graphs.located_yaml import FileErrors, Problems
from graphs.units import End, Unit, Units
from tests.support.deployed import computed, deployed, plan_of, segments_of

Save = Callable[..., Path]

PARTS = """\
understudy: 1
graph: parts
actors:
  camera: {type: images, path: cam.npz, rate_hz: 10}
  prep: {type: normalise, scale: 0.004}
  first: {type: onnx, model: long.onnx, to: [a]}
  middle: {type: onnx, model: long.onnx, from: [a], to: [b]}
  blur: {type: "own_blur:Blur"}
  last: {type: onnx, model: long.onnx, from: [a, b], to: [y]}
  result: {type: results}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> first.x
  - first@a -> middle.a
  - first@a -> last.a
  - middle.b -> blur.image
  - blur.image_2 -> last.b
  - last.y -> result.answer
"""
HERE = "  first: cam\n  middle: cam\n  blur: cam\n  last: cam\n"


@pytest.fixture
def own(folder: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a model x -> a -> b -> c -> (+ a) -> y -> (+ b) -> z and an own actor."""
    save(
        "long",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["c"]),
            helper.make_node("Add", ["a", "c"], ["y"]),
            helper.make_node("Add", ["y", "b"], ["z"]),
        ],
        inputs={"x": ["N", 1, 6, 6]},
        outputs={"z": ["N", 1, 6, 6]},
        weights={"w": np.full((6, 6), 0.25, np.float32)},
    )
    Path("own_blur.py").write_text(
        "from dataflow.behaviour import Behaviour\n"
        "from dataflow.graph import Port, TokenType\n"
        "IMAGE = TokenType('float32', (1, 1, 6, 6))\n"
        "class Blur(Behaviour):\n"
        "    @classmethod\n"
        "    def ports(cls, params):\n"
        "        return Port('image', 'in', IMAGE), Port('image_2', 'out', IMAGE)\n"
        "    def fire(self, image):\n"
        "        return image / 2\n"
        "class Mix(Blur):\n"
        "    @classmethod\n"
        "    def ports(cls, params):\n"
        "        image, made = Blur.ports(params)\n"
        "        return image, Port('other', 'in', IMAGE), made\n"
        "    def fire(self, image, other):\n"
        "        return image + other\n"
    )
    monkeypatch.syspath_prepend(folder)
    np.savez("cam.npz", x=np.ones((2, 6, 6, 1), np.uint8))


def between(*edits: tuple[str, str], mapping: str = HERE) -> Path:
    """Write a graph of parts with an own actor between them, edited, on a device."""
    text = PARTS
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    Path("parts.yaml").write_text(text)
    return deployed("parts.yaml", mapping)


NO_BLUR = (
    ("  - middle.b -> blur.image\n", ""),
    ("blur.image_2 -> last.b", "middle.b -> last.b"),
    ('  blur: {type: "own_blur:Blur"}\n', ""),
)
LATER = ("- first@a -> middle.a", "- {from: first@a, to: middle.a, delay: 1}")
NOT_BLURRED = HERE.replace("  blur: cam\n", "")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("edits", "mapping", "expected"),
    [
        pytest.param(NO_BLUR, NOT_BLURRED, ["first..last[cam]"], id="nothing between"),
        pytest.param((), HERE, ["first..middle[cam]", "last[cam]"], id="another actor"),
        pytest.param(
            (
                ("  - first@a -> middle.a\n", ""),
                ("middle.b -> blur", "first@a -> blur"),
                ("  middle: {type: onnx, model: long.onnx, from: [a], to: [b]}\n", ""),
            ),
            HERE.replace("  middle: cam\n", "").replace("cam", "edge"),
            ["first[cam]@edge", "last[cam]@edge"],
            id="another actor in place of a layer",
        ),
        pytest.param(
            (
                *NO_BLUR,
                ("middle: {type: onnx, model: long.onnx, from: [a], to: [b]}",
                 "over: {type: onnx, model: long.onnx, from: [a], to: [y]}"),
                ("to: [a]}", "to: [b]}"),
                ("from: [a, b], to: [y]", "from: [b, y]"),
                ("first@a -> middle.a", "first.b -> last.b"),
                ("first@a -> last.a", "over.y -> last.y"),
                ("middle.b -> last.b", "first@a -> over.a"),
                ("last.y -> result", "last.z -> result"),
            ),
            NOT_BLURRED.replace("middle", "over"),
            ["first..last[cam]"],
            id="nothing, with overlapping parts",
        ),
        pytest.param(
            (
                ("middle.b -> blur", "first@x -> blur"),
                ("last.y -> result.answer", "middle.b -> end.b\n"
                 "  - last.y -> end.y\n  - end.z -> result.answer"),
                ("  result:", "  end: {type: onnx, model: long.onnx, from: [b, y]}\n"
                 "  result:"),
            ),
            HERE + "  end: cam\n",
            ["first[cam]", "last[cam]", "middle..end[cam]"],
            id="a tensor that is another to one of them",
        ),
        pytest.param(
            (*NO_BLUR, LATER),
            NOT_BLURRED,
            ["first[cam]", "middle[cam]", "last[cam]"],
            id="initial tokens",
        ),
        pytest.param(
            (*NO_BLUR, ("from: [a], to: [b]", "from: [a], to: [b], stateful: true")),
            NOT_BLURRED,
            ["first[cam]", "middle[cam]", "last[cam]"],
            id="a state",
        ),
    ],
)  # fmt: skip
def test_parts_are_one_unless_something_stands_between(
    edits: Sequence[tuple[str, str]], mapping: str, expected: list[str]
) -> None:
    assert segments_of(between(*edits, mapping=mapping)) == expected


@pytest.mark.usefixtures("own")
def test_part_that_stands_in_for_the_answer_runs_for_every_frame() -> None:
    stands_in = "last.y -> result.answer\nunderstudies:\n  last.y: [middle.b]"
    path = between(
        *NO_BLUR,
        ("last.y -> result.answer", stands_in),
        mapping=NOT_BLURRED + "failover: {order: [last, middle]}\n",
    )
    assert segments_of(path) == ["first..middle[cam]", "last[cam]"]
    rows = expand(read_deployment(path)).regions[0].branches
    assert [(row.row, row.quality) for row in rows] == [
        ("last", "full"),
        ("middle", "degraded"),
    ]


HEADS = """\
understudy: 1
graph: heads
actors:
  camera: {type: images, path: cam.npz, rate_hz: 10}
  prep: {type: normalise, scale: 0.004}
  trunk: {type: onnx, model: heads.onnx, to: [a]}
  left: {type: onnx, model: heads.onnx, from: [a], to: [p]}
  right: {type: onnx, model: heads.onnx, from: [a], to: [q]}
  mix: {type: "own_blur:Mix"}
  result: {type: results}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> trunk.x
  - trunk@a -> left.a
  - trunk@a -> right.a
  - left.p -> mix.image
  - right.q -> mix.other
  - mix.image_2 -> result.answer
"""


@pytest.mark.usefixtures("own")
def test_parts_that_read_the_same_are_one_without_feeding_each_other(
    save: Save,
) -> None:
    """A network with two heads, as a cut would have it."""
    save(
        "heads",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["a", "w"], ["p"]),
            helper.make_node("Relu", ["a"], ["q"]),
        ],
        inputs={"x": ["N", 1, 6, 6]},
        outputs={"p": ["N", 1, 6, 6], "q": ["N", 1, 6, 6]},
        weights={"w": np.eye(6, dtype=np.float32)},
    )
    Path("heads.yaml").write_text(HEADS)
    there = "  left: edge\n  right: edge\n  mix: edge\n"
    apart = deployed("heads.yaml", "  trunk: cam\n" + there)
    parts_of = "\n".join(HEADS.splitlines()[5:8])
    text = HEADS.replace(parts_of, "  net: {type: onnx, model: heads.onnx}")
    text = text.replace("  - trunk@a -> left.a\n  - trunk@a -> right.a\n", "")
    for name in ("trunk", "left", "right"):
        text = text.replace(f"{name}.", "net.")
    Path("whole.yaml").write_text(text)
    cut = deployed("whole.yaml", "  net: {cut: a, head: cam, tail: edge}\n  mix: edge")
    assert segments_of(apart) == ["trunk[cam]", "left..right[cam]@edge"]
    assert computed(apart) == computed(cut)


@pytest.mark.usefixtures("own")
def test_tap_on_an_input_has_the_initial_tokens_in_front_of_it() -> None:
    path = between(
        ("- prep.image -> first.x", "- {from: prep.image, to: first.x, delay: 1}"),
        ("middle.b -> blur.image", "first@x -> blur.image"),
        ("- blur.image_2 -> last.b", "- middle.b -> last.b"),
    )
    units = Units(read_deployment(path), Problems())
    assert {
        str(edge.target.unit): edge.delay
        for edge in units.edges
        if edge.source == End(Unit("prep"), "image")
    } == {"first": 1, "blur": 1}


@pytest.mark.usefixtures("own")
def test_parts_that_stay_apart_compute_what_the_graph_says() -> None:
    plan = plan_of(between())
    graph = plan.reference
    site = Site("cam", "cam", 1, plan.folder, None, 2)
    made = {n: behaviour(a.type)(a.params, site) for n, a in graph.actors.items()}
    for each in made.values():
        each.start()
    (answer,) = (p.name for p in graph.actors["last"].outputs)
    chain = Chain(graph, list(graph.actors), made, (), [PortRef("last", answer)])
    (found,) = chain.run(())
    for each in made.values():
        each.stop()
    a = 6 * 0.25 * 0.004
    assert found == pytest.approx(np.full((1, 1, 6, 6), a + a * 1.5 / 2 * 1.5))


@pytest.mark.usefixtures("own")
def test_codec_is_in_the_reference_also_between_parts_that_stay_apart() -> None:
    plan = plan_of(
        between(mapping=HERE.replace("last: cam", "last: {group: edge, codec: int8}"))
    )
    assert list(plan.reference.actors)[2:] == ["first..middle", "blur", "last"]
    name = plan.reference.actors["last"].params["segment"]
    rounded = onnx.load(plan.folder / SEGMENTS / f"{name}.onnx")
    operators = [node.op_type for node in rounded.graph.node]
    assert operators.count("DynamicQuantizeLinear") == 1


@pytest.mark.usefixtures("own")
def test_actor_that_leads_nowhere_is_no_part_of_a_stream() -> None:
    """What it reads of a segment is made all the same, and discarded."""
    path = between(
        ("  result:", '  spare: {type: "own_blur:Blur"}\n  result:'),
        ("  - last.y", "  - first@a -> spare.image\n  - last.y"),
        mapping=HERE + "  spare: cam\n",
    )
    assert segments_of(path) == ["first..middle[cam]", "last[cam]"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            ("  - middle.b -> blur.image\n", ""),
            "parts.yaml:7:3: actor 'middle': nothing reads what it computes; connect "
            "it to what does, or remove it",
        ),
        (
            ("  - first@a -> last.a\n", ""),
            "parts.yaml:9:3: port last[cam].a: is not connected",
        ),
    ],
)
def test_part_that_is_not_connected_is_located(
    edit: tuple[str, str], said: str
) -> None:
    with pytest.raises(FileErrors) as caught:
        plan_of(between(edit))
    assert caught.value.messages[0].startswith(said)
