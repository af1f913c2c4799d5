"""A run that goes on under another plan: real processes, no frame lost or doubled."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow.plan import Plan, write_plan
from tests.support.run import Played, outcome, played, results
from tests.support.toy_plan import LOCAL_ADDS, toy_plan
from understudy.launch import free_ports
from understudy.records import Result

RATE_HZ = 200
Make = Callable[..., Plan]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a plan into the folder that the devices read: another cut, if told so.

    A server of segment 70 + n adds n, so an answer says under which plan it was made.
    """
    port = free_ports(3)

    def write(adds: int, **options: Any) -> Plan:
        options.setdefault("endpoints", 1)
        tail = {"add": float(adds), **options.pop("tail", {})}
        return toy_plan(
            tmp_path / "plan", port=port, segment=70 + adds, tail=tail, **options
        )

    return write


def tell(run: Played, plan: Plan) -> None:
    """Tell all devices that another plan is there, servers first."""
    run.forget()
    run.launcher.follow(plan)


def settled(run: Played, plan: Plan, *endpoints: str) -> list[int]:
    """Wait until `plan` alone is played; return the first frame of each stream."""
    firsts = []
    for name in endpoints:
        switched = run.wait_event(name, "plan.switched", plan=plan.digest)
        firsts.append(switched["frame"])
        run.wait_event(name, "plan.settled")
    return firsts


def added(answered: list[Result]) -> list[float]:
    return [r.value[0] - r.frame for r in answered if r.value is not None]


def test_stream_goes_on_under_another_cut_and_back(tmp_path: Path, make: Make) -> None:
    with played(make(1), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        tell(run, after := make(5))
        (there,) = settled(run, after, "cam.0")
        run.wait_rows("cam.0", "edge.0", 20)
        tell(run, before := make(1))
        (back,) = settled(run, before, "cam.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = results(found, "cam.0")
    assert {r.status for r in answered} == {"full"}
    by = added(answered)
    assert set(by[:there]) == {1}
    assert set(by[there:back]) == {5}
    assert set(by[back:]) == {1}
    (record,) = found.streams
    assert [s.frame for s in record.switched] == [there, back]


def test_frames_under_way_are_answered_under_the_plan_that_they_were_fired_under(
    tmp_path: Path, make: Make
) -> None:
    with played(make(1, tail={"take_s": 0.02}, local=False), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        tell(run, after := make(5, local=False))
        switched = run.wait_event("cam.0", "plan.switched")
        settled(run, after, "cam.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert switched["under_way"] > 0
    answered = [r for r in results(found, "cam.0") if r.status != "dropped"]
    assert {r.reason for r in results(found, "cam.0")} <= {"", "window", "rate"}
    for result in answered:
        assert result.value is not None
        wanted = 1 if result.frame < switched["frame"] else 5
        assert result.value[0] - result.frame == wanted


def test_plan_that_is_dropped_before_it_is_settled_loses_frames(
    tmp_path: Path, make: Make
) -> None:
    """The planted fault of `hasty`: the test before would fail with it."""
    options: dict[str, Any] = {"source_type": "Counter", "local": False}
    slow = make(1, tail={"take_s": 0.02}, **options)
    with played(hasty(slow), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        tell(run, after := hasty(make(5, **options)))
        run.wait_event("cam.0", "plan.switched", plan=after.digest)
        run.wait_event("cam.0", "plan.settled")
        run.wait_rows("cam.0", "edge.0", 20)
    _, verdict = outcome(tmp_path)
    assert not verdict.kept


def hasty(plan: Plan) -> Plan:
    """Plant the fault: an endpoint that drops the older plan at the switch."""
    actors = {
        name: replace(actor, type=actor.type.replace("toy_actors", "hasty"))
        if name.startswith("camera")
        else actor
        for name, actor in plan.graph.actors.items()
    }
    planted = replace(plan, graph=replace(plan.graph, actors=actors))
    write_plan(planted)
    return planted


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_server_that_is_lost_during_the_switch_costs_no_frame(
    tmp_path: Path, make: Make, number: signal.Signals
) -> None:
    cams = {"endpoints": 2, "window": 32}  # what comes until a silent one is missed
    with played(make(1, **cams), tmp_path) as run:
        for cam in ("cam.0", "cam.1"):
            run.wait_rows(cam, "edge.0" if cam == "cam.0" else "edge.1", 20)
        tell(run, after := make(5, **cams))
        run.wait_event("cam.0", "plan.loading")
        run.kill("edge.0", number)
        firsts = settled(run, after, "cam.0", "cam.1")
        run.wait_rows("cam.0", "edge.1", 20)
        if number is signal.SIGSTOP:
            run.kill("edge.0", signal.SIGCONT)
        else:
            run.launcher.start("edge.0")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    for cam, first in zip(("cam.0", "cam.1"), firsts, strict=True):
        answered = results(found, cam)
        assert not [r for r in answered if r.status == "dropped"]
        full = [r for r in answered if r.status == "full"]
        assert set(added([r for r in full if r.frame < first])) == {1}
        assert set(added([r for r in full if r.frame >= first])) == {5}


def test_switch_after_switch_under_load_keeps_the_promise(
    tmp_path: Path, make: Make
) -> None:
    """K_{2,2}, with codecs, failover orders and a third server that come and go."""
    plans: list[dict[str, Any]] = [
        {"compression": "zstd"},
        {"servers": 3},
        {"redundancy": "spread"},
        {"local": False},
    ]
    tail = {"take_s": 0.004}
    with played(make(1, endpoints=2, tail=tail), tmp_path) as run:
        run.wait_rows("cam.1", "edge.1", 20)
        for number in range(8):
            options = plans[number % len(plans)]
            tell(run, plan := make(2 + number, endpoints=2, tail=tail, **options))
            settled(run, plan, "cam.0", "cam.1")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    for cam in ("cam.0", "cam.1"):
        answered = results(found, cam)
        by = added([r for r in answered if r.status == "full"])
        assert by == sorted(by), "an answer of an older plan after one of a newer"
        assert set(by) == set(range(1, 10))


def test_plan_that_its_servers_do_not_have_is_refused_and_the_older_plays_on(
    tmp_path: Path, make: Make
) -> None:
    with played(make(1), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        after = make(5)
        run.launcher.kill("cam.0", signal.SIGHUP)  # the servers are not told
        refused = run.wait_event("cam.0", "plan.refused")
        run.wait_rows("cam.0", "edge.0", 20)
        tell(run, after)
        settled(run, after, "cam.0")
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert "does not have segment" in refused["error"]
    assert "give the plan to its servers first" in refused["error"]
    assert {r.status for r in results(found, "cam.0")} == {"full"}


def _others(plan: Plan) -> Plan:
    changed = replace(plan.graph.actors["result[cam.0]"], params={"values": False})
    actors = {**plan.graph.actors, "result[cam.0]": changed}
    return replace(plan, graph=replace(plan.graph, actors=actors))


REFUSED: dict[str, tuple[dict[str, Any], Callable[[Plan], Plan], str]] = {
    "another source": ({"source": {"frames": 9}}, lambda p: p, "is another actor"),
    "a larger window": ({"window": 64}, lambda p: p, "no larger window"),
    "a longer deadline": ({"deadline_ms": 9e3}, lambda p: p, "no longer deadline"),
    "another sink": ({}, _others, "has other parameters"),
    "another device": ({}, lambda p: replace(p, devices={}), "not in deployment"),
    "a broken actor": ({"here": {"resident_mb": -1}}, lambda p: p, "negative"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_plan_that_cannot_follow_is_refused_with_one_error(
    tmp_path: Path, make: Make, what: str
) -> None:
    options, change, why = REFUSED[what]
    with played(make(1), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 20)
        write_plan(change(make(1, **options)))
        run.launcher.kill("cam.0", signal.SIGHUP)
        refused = run.wait_event("cam.0", "plan.refused")
        run.wait_rows("cam.0", "edge.0", 20)
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert why in refused["error"]
    assert {r.status for r in results(found, "cam.0")} == {"full"}
    assert LOCAL_ADDS not in added(results(found, "cam.0"))


def test_device_that_has_the_plan_already_says_so(tmp_path: Path, make: Make) -> None:
    with played(plan := make(1), tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 5)
        tell(run, plan)
        for name in plan.devices:
            run.wait_event(name, "plan.unchanged", plan=plan.digest)
    _, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
