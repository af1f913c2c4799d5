"""A plan holds what devices run, and the reference that answers are compared with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors import behaviour
from dataflow.behaviour import Site
from dataflow.graph import Actor
from dataflow.plan import SEGMENTS, Plan, read_plan
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment

Write = Callable[..., Path]


def compiled(path: Path, folder: Path, codec: str = "none") -> Plan:
    return compile_plan(read_deployment(path, codec=codec), folder / "plan")


def fire(plan: Plan, actor: Actor, *tokens: np.ndarray) -> np.ndarray:
    """Return the last token of one firing, in memory of its own."""
    site = Site("cam.0", "cam.0", 1, plan.folder, None, 2)
    made = behaviour(actor.type)(actor.params, site)
    made.start()
    found = made.fire(*tokens)
    copy = np.array(found[-1] if isinstance(found, tuple) else found)
    made.stop()
    return copy


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 1, 8, 8), np.float32)


def test_plan_is_read_back_as_it_was_compiled(write: Write, folder: Path) -> None:
    plan = compiled(write(), folder, "int8")
    again = read_plan(folder / "plan")
    assert again == plan
    assert again.digest == plan.digest


def test_plan_holds_exactly_the_segments_that_it_names(
    write: Write, folder: Path
) -> None:
    segments = folder / "plan" / SEGMENTS
    for codec in ("int8", "none"):
        plan = compiled(write(), folder, codec)
        actors = (*plan.graph.actors.values(), *plan.reference.actors.values())
        named = {a.params["segment"] for a in actors if a.type == "onnx"}
        assert {path.stem for path in segments.iterdir()} == named


def test_compiling_twice_gives_the_same_plan(write: Write, folder: Path) -> None:
    first = compiled(write(), folder)
    again = compile_plan(read_deployment(write()), folder / "other")
    assert first.digest == again.digest


@pytest.mark.parametrize("codec", ["none", "float16", "int8"])
def test_reference_computes_what_head_codec_and_tail_compute(
    write: Write, folder: Path, codec: str
) -> None:
    plan = compiled(write(), folder, codec)
    actors = plan.graph.actors
    for seed in range(20):
        token = fire(plan, actors["net.head[cam.0]"], frame(seed))  # features2 is last
        for kind in ("encode", "decode") if codec != "none" else ():
            token = fire(plan, actors[f"net.{kind}[cam.0]@edge.1"], token)
        answer = fire(plan, actors["net.tail[cam.0]@edge.1"], token)
        expected = fire(plan, plan.reference.actors["net"], frame(seed))
        assert np.abs(answer - expected).max() <= 1e-4 * np.abs(expected).max()


def test_reference_is_one_undeployed_stream_up_to_its_answer(
    write: Write, folder: Path
) -> None:
    reference = compiled(write(), folder, "int8").reference
    assert list(reference.actors) == ["camera", "prep", "net"]
    assert [str(f) for f in reference.fifos] == [
        "camera.frame -> prep.pixels",
        "prep.image -> net.input",
    ]
    assert [p.name for p in reference.actors["net"].outputs] == ["logits"]
    assert all(a.device is None for a in reference.actors.values())


def test_paths_in_a_plan_are_absolute(write: Write, folder: Path) -> None:
    plan = compiled(write(), folder)
    expected = str(folder / "digits-test.npz")
    assert plan.graph.actors["camera[cam.0]"].params["path"] == expected
    assert plan.reference.actors["camera"].params["path"] == expected


def test_every_server_holds_the_same_computation(write: Write, folder: Path) -> None:
    plan = compiled(write(), folder)
    branches = [b for r in plan.graph.regions for b in r.branches]
    assert len({b.segment for b in branches if b.quality == "full"}) == 1
    assert {b.segment for b in branches if b.quality == "degraded"} == {0}


def test_shipped_deployment_compiles(digits: Path, tmp_path: Path) -> None:
    deployment = read_deployment(digits / "two-by-two.yaml")
    plan = compile_plan(deployment, tmp_path / "plan")
    assert list(plan.devices) == ["cam.0", "cam.1", "edge.0", "edge.1"]
    assert [b.row for b in plan.graph.regions[1].branches] == [
        "edge.1",
        "edge.0",
        "exit2",
        "exit1",
    ]
    assert plan.graph.regions[0].deadline_ms == 200
