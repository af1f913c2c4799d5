"""What a link carries, from messages timed as a link of a known rate does."""

import pytest

from dataflow.wire.rate import (
    FAST_BYTES_S,
    GROUP,
    PROBE_BYTES,
    SLOW_PROBES,
    STALE_S,
    TRY_MAX_S,
    TRY_S,
    WAIT_MARGIN,
    LinkRate,
    RateMeter,
)
from dataflow.wire.timers import FLIGHT_BYTES_MIN, HEARTBEAT

TOKEN_BYTES = 1_200_000
RTT_S = 0.004


class Wire:
    """A link of `bytes_s` and a server that keeps each token for `there_s`."""

    def __init__(self, bytes_s: float, there_s: float = 0.0) -> None:
        self.meter = RateMeter()
        self.bytes_s, self.there_s = bytes_s, there_s
        self.free_s = 0.0
        for size in (0, *(1 + SLOW_PROBES) * [PROBE_BYTES]):
            self.meter.probed(size, RTT_S + size / bytes_s)

    def carry(self, *sent_s: float, late_s: float = 0.0) -> None:
        """Send tokens at these times, and have each answered when it can be."""
        for key, at_s in enumerate(sent_s):
            self.meter.sent(key, TOKEN_BYTES, at_s)
        for key, at_s in enumerate(sent_s):
            self.free_s = max(self.free_s, at_s) + TOKEN_BYTES / self.bytes_s
            now_s = self.free_s + RTT_S + self.there_s + late_s * (key % 2)
            self.meter.answered(key, 0, there_s=self.there_s, now_s=now_s)


@pytest.mark.parametrize("bytes_s", [0.25e6, 2e6, 12.5e6, 100e6])
@pytest.mark.parametrize("there_s", [0.0, 0.5])
@pytest.mark.parametrize("apart_s", [0.0, 0.01, 10.0])
def test_rate_is_found_whether_the_link_is_full_or_not(
    bytes_s: float, there_s: float, apart_s: float
) -> None:
    wire = Wire(bytes_s, there_s)
    wire.carry(*(apart_s * n for n in range(8)))
    assert wire.meter.bytes_s == pytest.approx(bytes_s, rel=0.02)


def test_late_arrivals_do_not_make_a_link_look_fast() -> None:
    wire = Wire(12.5e6)
    wire.carry(*(0.01 * n for n in range(16)), late_s=0.05)
    assert wire.meter.bytes_s < 1.3 * 12.5e6


def test_one_slow_group_does_not_make_a_link_look_slow() -> None:
    wire = Wire(12.5e6)
    wire.carry(*(float(n) for n in range(4)))
    wire.bytes_s /= 10
    wire.carry(*(4.0 + n for n in range(4)))
    assert wire.meter.bytes_s == pytest.approx(12.5e6, rel=0.02)


def test_a_link_that_became_slow_is_known_to_be_in_time() -> None:
    wire = Wire(12.5e6)
    wire.carry(*(float(n) for n in range(4)))
    wire.bytes_s /= 10
    for begin in range(8):
        wire.carry(*(10.0 * (begin + 1) + n for n in range(4)))
    assert wire.meter.bytes_s == pytest.approx(1.25e6, rel=0.02)


FAST, STALL_S = 2e9, 0.2


def probe(meter: RateMeter, *late_s: float, rtt_s: float = 1e-4) -> None:
    """Probe a fast link: without size, what drains a shaper, and then each so late."""
    meter.probed(0, rtt_s)
    for each_s in (0.0, *late_s):
        meter.probed(PROBE_BYTES, rtt_s + PROBE_BYTES / FAST + each_s)


@pytest.mark.parametrize("late_s", [(STALL_S, 0.0), (STALL_S, STALL_S, 0.0)])
def test_late_probes_do_not_make_a_fast_link_slow(late_s: tuple[float, ...]) -> None:
    """It was held at 0.4 MB/s from one probe that came 80 ms late."""
    meter = RateMeter()
    probe(meter, *late_s)
    assert meter.rate is None
    assert not meter.unsure


def test_probes_that_are_all_late_are_asked_again_and_believed_when_quick() -> None:
    meter = RateMeter()
    probe(meter, *SLOW_PROBES * [STALL_S])
    assert meter.bytes_s < 1e6
    assert not meter.tries(0.0)
    assert not meter.tries(TRY_S - 0.01)
    assert meter.tries(TRY_S)
    probe(meter, 0.0)
    assert meter.bytes_s >= FAST_BYTES_S
    assert not meter.tries(TRY_MAX_S)


def test_tokens_let_go_a_fast_link_whose_probes_were_all_late() -> None:
    meter = RateMeter()
    probe(meter, *SLOW_PROBES * [STALL_S])
    for key in range(GROUP):
        meter.sent(key, 150_000, key / 10)
        meter.answered(key, 1000, there_s=0.0, now_s=key / 10 + 0.0004)
    assert meter.bytes_s >= FAST_BYTES_S


def test_what_was_late_before_a_quick_probe_does_not_count_after_it() -> None:
    wire = Wire(2e6)
    wire.carry(*(float(n) for n in range(GROUP)))
    probe(wire.meter, 0.0)
    wire.carry(*(5.0 + n for n in range(GROUP)))
    assert wire.meter.bytes_s >= FAST_BYTES_S


def test_a_slow_link_is_probed_ever_more_rarely() -> None:
    meter = Wire(2e6).meter
    tried = [now_s for now_s in range(600) if meter.tries(float(now_s))]
    assert tried[:5] == [1, 2, 4, 8, 16]
    assert tried[-1] - tried[-2] == TRY_MAX_S
    probe(meter, PROBE_BYTES / 2e6)
    assert meter.bytes_s == pytest.approx(2e6, rel=0.02)


def test_tokens_tell_instead_of_probes() -> None:
    meter = Wire(2e6).meter
    assert not meter.tries(0.0)
    meter.sent("a", TOKEN_BYTES, 5.0)
    assert not meter.tries(5.5)
    meter.answered("a", 0, there_s=0.0, now_s=5.6)
    assert not meter.tries(6.5)
    assert meter.tries(5.6 + TRY_S)


def test_first_token_that_is_stalled_does_not_make_a_fast_link_slow() -> None:
    wire = Wire(FAST)
    wire.carry(*(float(n) for n in range(GROUP)), late_s=STALL_S)
    assert wire.meter.rate is None
    wire.carry(*(10.0 + n for n in range(GROUP)))
    assert wire.meter.bytes_s >= FAST_BYTES_S


@pytest.mark.parametrize("rtt_s", [1e-4, 0.05, 0.5])
def test_a_rate_that_was_found_too_low_is_exceeded_within_what_it_allows(
    rtt_s: float,
) -> None:
    """Else each measurement finds what the one before it allowed to be in flight."""
    rate = LinkRate(1e6, rtt_s)
    assert rate.flight_bytes is not None
    assert LinkRate(rate.flight_bytes / rtt_s, rtt_s).differs(rate)


def test_how_fast_a_fast_link_is_is_not_told_again() -> None:
    slow, fast, faster = (LinkRate(bytes_s, RTT_S) for bytes_s in (1e6, 1e9, 1e12))
    assert fast.differs(None)
    assert fast.differs(slow)
    assert slow.differs(fast)
    assert not faster.differs(fast)


def test_a_rate_is_measured_anew_by_a_group_of_answers() -> None:
    meter = RateMeter()
    found = []
    for key in range(2 * GROUP):
        meter.sent(key, TOKEN_BYTES, float(key))
        found.append(meter.answered(key, 0, there_s=0.0, now_s=key + 0.5))
    assert found == 2 * [*(GROUP - 1) * [False], True]


def test_small_messages_say_nothing() -> None:
    meter = RateMeter()
    for key in range(8):
        meter.sent(key, 1000, float(key))
        meter.answered(key, 0, there_s=0.0, now_s=key + 0.5)
    assert meter.rate is None


def test_a_token_waits_for_those_before_it() -> None:
    wire = Wire(2e6)
    meter, alone_s = wire.meter, WAIT_MARGIN * TOKEN_BYTES / 2e6 + RTT_S

    def longer_s(now_s: float) -> float:
        return (meter.wait_s(TOKEN_BYTES, 0, now_s) - alone_s) / WAIT_MARGIN

    meter.sent("a", TOKEN_BYTES, 0.0)
    assert longer_s(0.0) == pytest.approx(0.6)
    assert longer_s(0.5) == pytest.approx(0.1)
    meter.answered("a", 0, there_s=0.0, now_s=0.55)
    assert longer_s(0.55) == pytest.approx(0.0)


def test_a_link_that_was_too_slow_is_tried_again_with_one_token() -> None:
    """It may be fast by now, and nothing else would tell."""
    meter = Wire(2e6).meter
    meter.sent("a", TOKEN_BYTES, 0.0)
    meter.answered("a", 0, there_s=0.0, now_s=0.6)
    assert meter.wait_s(TOKEN_BYTES, 0, 0.6 + STALE_S) > 0.0
    assert meter.wait_s(TOKEN_BYTES, 0, 0.7 + STALE_S) == 0.0
    meter.sent("b", TOKEN_BYTES, 0.7 + STALE_S)
    assert meter.wait_s(TOKEN_BYTES, 0, 0.7 + STALE_S) > 0.0


@pytest.mark.parametrize(
    ("mbit_s", "rtt_s", "flight", "timeout_ms"),
    [
        (16, 0.001, 44_000, 84),
        (100, 0.001, 275_000, 60),
        (100, 0.050, 1_500_000, 300),
        (1, 0.010, FLIGHT_BYTES_MIN, 1000),
        (2000, 0.0001, None, 60),
    ],
)
def test_flight_and_heartbeat_suit_the_link(
    mbit_s: float, rtt_s: float, flight: int | None, timeout_ms: int
) -> None:
    rate = LinkRate(mbit_s / 8 * 1e6, rtt_s)
    assert rate.flight_bytes == flight
    assert rate.heartbeat.timeout_ms == pytest.approx(timeout_ms, abs=1)
    assert (rate.heartbeat == HEARTBEAT) is (timeout_ms == 60)
