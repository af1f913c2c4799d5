"""Batches with real processes: tokens of several endpoints in one call."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataflow.plan import write_plan
from tests.support.run import outcome, played, results
from tests.support.toy_plan import SERVER_ADDS, toy_plan
from understudy.launch import free_ports
from understudy.records import Result

CALL_S, FRAMES = 0.010, 100


def _run(folder: Path, *, endpoints: int, **given: object) -> list[list[Result]]:
    """Return the results of each stream; the promise was kept."""
    plan = toy_plan(
        folder / "plan", port=free_ports(1), servers=1, endpoints=endpoints,
        local=False, tail_type="AddTogether", **given,  # type: ignore[arg-type]
    )  # fmt: skip
    cams = [f"cam.{i}" for i in range(endpoints)]
    with played(plan, folder) as run:
        for cam in cams:
            run.wait_event(cam, "device.stopped")
    found, verdict = outcome(folder)
    assert verdict.kept, verdict.violations
    return [results(found, cam) for cam in cams]


def _sizes(streams: list[list[Result]]) -> set[int]:
    """Return the sizes of the batches that answered."""
    return {int(r.value[1]) for s in streams for r in s if r.value is not None}


def test_tokens_of_several_endpoints_share_calls_and_get_their_own_answers(
    tmp_path: Path,
) -> None:
    """Four endpoints want 200 calls of 10 ms a second: twice what a server can do."""
    streams = _run(
        tmp_path, endpoints=4, tail={"take_s": CALL_S}, batch_max=8,
        source={"rate_hz": 50, "frames": FRAMES},
    )  # fmt: skip
    for answered in streams:
        assert len(answered) == FRAMES
        full = [r for r in answered if r.value is not None]
        assert len(full) > 0.9 * FRAMES
        assert all(r.value and r.value[0] == r.frame + SERVER_ADDS for r in full)
    assert max(_sizes(streams)) > 1
    assert max(_sizes(streams)) <= 8


def test_without_batches_each_token_is_a_call_of_its_own(tmp_path: Path) -> None:
    streams = _run(
        tmp_path, endpoints=2, tail={"take_s": 0.001},
        source={"rate_hz": 100, "frames": FRAMES},
    )  # fmt: skip
    assert _sizes(streams) == {1}


@pytest.mark.parametrize("call_s", [0.0, CALL_S], ids=["inline", "thread"])
def test_lone_token_is_answered_when_nobody_joins_it(
    tmp_path: Path, call_s: float
) -> None:
    (answered,) = _run(
        tmp_path, endpoints=1, tail={"take_s": call_s}, batch_max=8, batch_wait_ms=5,
        source={"rate_hz": 30, "frames": 30},
    )  # fmt: skip
    assert {r.status for r in answered} == {"full"}
    assert 1 in _sizes([answered])


def test_wait_longer_than_the_deadline_costs_no_frame(tmp_path: Path) -> None:
    """A token whose budget would be spent in the wait is computed before that."""
    (answered,) = _run(
        tmp_path, endpoints=1, tail={"take_s": 10 * CALL_S}, batch_max=64,
        batch_wait_ms=60_000, deadline_ms=800, source={"rate_hz": 20, "frames": 40},
        window=32,
    )  # fmt: skip
    assert [r for r in answered if r.status == "dropped"] == []


def test_endpoint_with_a_full_window_does_not_starve_one_with_single_frames(
    tmp_path: Path,
) -> None:
    """Behind 32 tokens of 10 ms a frame would miss its deadline of 200 ms."""
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(1), servers=1, endpoints=2, local=False,
        tail={"take_s": CALL_S}, window=32, deadline_ms=200, source={"rate_hz": 400},
    )  # fmt: skip
    camera = plan.graph.actors["camera[cam.1]"]
    params = {**camera.params, "rate_hz": 20, "frames": 40}
    actors = {**plan.graph.actors, camera.name: replace(camera, params=params)}
    plan = replace(plan, graph=replace(plan.graph, actors=actors))
    write_plan(plan)
    with played(plan, tmp_path) as run:
        run.wait_event("cam.1", "device.stopped")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    single, full = results(found, "cam.1"), results(found, "cam.0")
    assert {r.status for r in full} == {"full", "dropped"}
    assert sum(r.status == "full" for r in single) > 0.9 * len(single)


def test_server_killed_in_the_middle_of_batches_costs_no_frame(tmp_path: Path) -> None:
    plan = toy_plan(
        tmp_path / "plan", port=free_ports(2), endpoints=3, local=False,
        tail={"take_s": CALL_S}, tail_type="AddTogether", batch_max=8, window=32,
        source={"rate_hz": 60},
    )  # fmt: skip
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 30)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 30)
        run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 30)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    for stream in found.streams:
        assert [r for r in stream.results if r.status == "dropped"] == []
        for r in stream.results:
            assert r.value is not None
            assert r.value[0] == r.frame + SERVER_ADDS
