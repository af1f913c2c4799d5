"""Compressed links between real processes: equal answers, fewer bytes."""

from dataclasses import replace
from pathlib import Path

import pytest

from dataflow.plan import write_plan
from tests.support.relay import Relay
from tests.support.run import outcome, played, results
from tests.support.toy_plan import SERVER_ADDS, toy_plan
from understudy.launch import free_ports

SIZE = 40_000


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_compressed_tokens_take_fewer_bytes_and_answers_are_equal(
    tmp_path: Path, name: str
) -> None:
    port, entry = free_ports(1), free_ports(1)
    plan = toy_plan(
        tmp_path / "plan",
        port=port,
        servers=1,
        size=SIZE,
        local=False,
        source={"frames": 60, "rate_hz": 50},
        compression=name,
    )
    edge = replace(plan.devices["edge.0"], connect=f"tcp://127.0.0.1:{entry}")
    plan = replace(plan, devices={**plan.devices, "edge.0": edge})
    write_plan(plan)
    with (
        Relay(port=entry, target=port) as relay,
        played(plan, tmp_path, start=["edge.0", "cam.0"]) as run,
    ):
        assert run.wait_exit("cam.0") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answers = results(found, "cam.0")
    full = [r for r in answers if r.status == "full"]
    assert len(full) > 50
    assert all(r.value is None or r.value[0] == r.frame + SERVER_ADDS for r in full)
    # As they are, tokens and answers are twice that.
    assert relay.passed_bytes < len(full) * SIZE * 4 * 0.2
