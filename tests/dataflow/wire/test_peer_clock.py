"""What is said of a peer's clock is right to within the error that is said."""

from hypothesis import given
from hypothesis import strategies as st

from dataflow.wire.control import Beat
from dataflow.wire.peer_clock import KEPT, PeerClock

MICRO = st.integers(1, 200_000).map(lambda us: us / 1e6)
"""Seconds: how long a beat travels, or lies before somebody looks."""


class Pair:
    """Two ends whose clocks differ, and the beats between them."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s
        self.now_s = 1000.0
        self.ours, self.theirs = PeerClock(), PeerClock()

    def exchange(self, out_s: float, held_s: float, back_s: float) -> None:
        """We beat, they hear it, they beat a while later, we hear that."""
        beat = _beat(self.ours, self.now_s)
        self.now_s += out_s
        self.theirs.heard(beat, self.now_s + self.offset_s)
        self.now_s += held_s
        beat = _beat(self.theirs, self.now_s + self.offset_s)
        self.now_s += back_s
        self.ours.heard(beat, self.now_s)


def _beat(clock: PeerClock, now_s: float) -> Beat:
    clock_us, echo_us, held_us = clock.stamps(now_s)
    return Beat(
        1, True, 0, 0, clock_us=clock_us, echo_us=echo_us, held_us=held_us
    )  # fmt: skip


@given(
    st.integers(-900, 10**6),
    st.lists(st.tuples(MICRO, MICRO, MICRO), min_size=1, max_size=20),
)
def test_offset_is_right_to_within_its_error(
    offset_s: int, exchanges: list[tuple[float, float, float]]
) -> None:
    pair = Pair(offset_s)
    for exchange in exchanges:
        pair.exchange(*exchange)
    found = pair.ours.offset
    assert found is not None
    assert abs(found.offset_s - offset_s) <= found.error_s
    assert found.round_trip_s <= min(out + back for out, _, back in exchanges) + 4e-6


def test_time_that_the_peer_takes_is_not_the_link_s() -> None:
    pair = Pair(5.0)
    pair.exchange(0.0001, 0.040, 0.0001)
    found = pair.ours.offset
    assert found is not None
    assert abs(found.round_trip_s - 0.0002) < 4e-6


def test_nothing_is_known_before_an_echo() -> None:
    clock = PeerClock()
    clock.heard(Beat(1, True, 0, 0, clock_us=7), 1.0)
    assert clock.offset is None


def test_what_was_quick_long_ago_is_forgotten() -> None:
    pair = Pair(5.0)
    pair.exchange(0.0001, 0.01, 0.0001)
    for _ in range(KEPT):
        pair.exchange(0.001, 0.01, 0.001)
    found = pair.ours.offset
    assert found is not None
    assert found.round_trip_s > 0.0019
