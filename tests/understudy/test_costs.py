"""What a partition costs, against sums made by hand."""

import math
from dataclasses import replace

import pytest

from dataflow.wire.header import HEADER_BYTES
from understudy.costs import (
    FRAME_BYTES,
    Crossing,
    Exit,
    Link,
    Part,
    Partition,
    Power,
    cost,
    score,
)

LINK = Link("wifi", 8.0, 80.0, 5.0)
"""1000 bytes take 1 ms there, and 0.1 ms back."""
EXTRA = (HEADER_BYTES + 2 * FRAME_BYTES) / 1000
FRAME_MS, MESSAGE_MS = 0.25, 0.5
"""What the first device adds to a frame, and both together to a message."""
HEAD = Part("pi", 10.0, 0.3, 4.0, FRAME_MS, 0.375)
TAIL = Part("lab", 2.0, 0.4, 6.0, 0.0, 0.125)
CROSSING = Crossing(("t",), 40_000, 10_000, 2_000, "int8", 0.5, 0.25)
CUT = Partition((HEAD, TAIL), (CROSSING,), (LINK,))


def test_latency_is_the_sum_of_its_parts():
    paid = cost(CUT)
    assert paid.endpoint_ms == 10.0 + FRAME_MS
    assert paid.codec_ms == 0.75
    assert paid.network_ms == pytest.approx(2.5 + 10.0 + EXTRA + MESSAGE_MS)
    assert paid.server_ms == 2.0
    assert paid.return_ms == pytest.approx(2.5 + 0.2 + EXTRA / 10 + MESSAGE_MS)
    parts = (paid.endpoint_ms, paid.codec_ms, paid.network_ms, paid.server_ms)
    assert paid.total_ms == pytest.approx(sum(parts) + paid.return_ms)


def test_slowest_stage_bounds_the_throughput():
    paid = cost(CUT)
    busy = {stage.name: stage.ms for stage in paid.stages}
    assert busy["pi"] == 10.5 + FRAME_MS
    assert busy["lab"] == 2.25
    assert busy["lab to pi"] == pytest.approx(0.2 + EXTRA / 10)
    assert paid.fps == pytest.approx(1000 / (10.5 + FRAME_MS))
    slow = replace(CROSSING, wire_bytes=20_000)
    paid = cost(Partition((HEAD, TAIL), (slow,), (LINK,)))
    assert paid.bottleneck.name == "pi to lab"


def test_endpoint_draws_power_while_it_computes_waits_and_sends():
    power = Power(endpoint_w=3.0, idle_w=1.0, radio_w=0.5, server_w=40.0)
    paid = cost(CUT, power)
    air = 10.0 + 0.2 + 1.1 * EXTRA
    busy = 10.5 + FRAME_MS
    waits = paid.total_ms - busy
    assert paid.endpoint_mj == pytest.approx(3 * busy + waits + 0.5 * air)
    assert paid.server_mj == 80.0


def test_without_power_figures_there_is_no_energy():
    assert cost(CUT).endpoint_mj is None
    assert cost(CUT, Power(server_w=1.0)).endpoint_mj is None


def test_early_exit_plays_the_rest_for_its_share_only():
    gated = cost(replace(CUT, exit=Exit("t", 0.75, 1.0)))
    all_of_it = cost(CUT)
    assert gated.endpoint_ms == 11.0 + FRAME_MS
    assert gated.server_ms == 0.5
    assert gated.wire_bytes == 2_500
    rest = all_of_it.total_ms - 10.0 - FRAME_MS
    assert gated.total_ms == pytest.approx(11.0 + FRAME_MS + rest / 4)
    assert gated.stages[1].ms == pytest.approx(all_of_it.stages[1].ms / 4)


def test_answer_comes_back_over_every_link_of_a_chain():
    chain = Partition(
        (HEAD, TAIL, Part("cloud", 1.0, 0.0, 3.0, 0.5)),
        (CROSSING, replace(CROSSING, answer_bytes=0)),
        (LINK, replace(LINK, back_mbit_s=8.0)),
    )
    paid = cost(chain)
    assert paid.server_ms == 3.5
    assert paid.return_ms == pytest.approx(
        5.0 + 0.2 + EXTRA / 10 + EXTRA + MESSAGE_MS + 0.125
    )
    assert paid.server_mb == 9.0
    assert paid.wire_bytes == 20_000


def test_errors_of_parts_and_links_add_in_squares():
    shaky = replace(CUT, links=(replace(LINK, jitter_ms=1.2),))
    assert cost(shaky).error_ms == pytest.approx(math.hypot(0.3, 0.4, 1.2))


def test_weights_count_milliseconds_and_kilobytes():
    paid = cost(CUT)
    weighted = score({"latency": 2.0, "bytes": 0.5}, paid)
    assert weighted == pytest.approx(2 * paid.total_ms + 0.5 * 10)
