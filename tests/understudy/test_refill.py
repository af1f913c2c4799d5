"""When a window is back to its usual fill after a failure."""

import pytest

from understudy.refill import LIMIT_S, Fill

PERIOD_S, TAKES_S = 0.02, 0.005


def _stream(
    frames: int, *, takes_s: float = TAKES_S, late: dict[int, float] | None = None
) -> Fill:
    """Return the fill of a stream at 50 frames/s; `late` ones settle at that time."""
    fired_s = [k * PERIOD_S for k in range(frames)]
    settled_s = [(late or {}).get(k, t + takes_s) for k, t in enumerate(fired_s)]
    return Fill(tuple(fired_s), tuple(sorted(settled_s)))


def test_fill_counts_frames_without_an_outcome() -> None:
    fill = _stream(3)
    assert [fill.at(t) for t in (0.0, 0.001, 0.005, 0.021, 0.05)] == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(("takes_s", "usual"), [(0.005, 0), (0.025, 1), (0.105, 5)])
def test_usual_fill_is_what_a_new_frame_finds(takes_s: float, usual: int) -> None:
    assert _stream(400, takes_s=takes_s).usual(8.0) == usual


def test_window_is_back_when_the_last_delayed_frame_is_answered() -> None:
    # Frames 50 to 53 wait for a failure at 0.999 s to be noticed at 1.070 s.
    late = {50: 1.072, 51: 1.074, 52: 1.076, 53: 1.078}
    fill = _stream(100, late=late)
    assert fill.at(1.070) == 4
    assert fill.back_s(0.999, 1.070) == 1.078


def test_window_of_a_pipeline_is_back_before_it_is_empty() -> None:
    """Two frames are usual, so two that still wait are no trace of the failure."""
    late = {k: 1.150 + 0.002 * (k - 50) for k in range(50, 57)}
    fill = _stream(100, takes_s=0.045, late=late)
    assert fill.usual(1.0) == 2
    back_s = fill.back_s(1.0, 1.140)
    assert back_s is not None
    assert fill.at(back_s) == 2
    assert back_s < max(late.values())


def test_failure_that_delays_nothing_needs_no_refill() -> None:
    assert _stream(100).back_s(0.999, 1.007) == 1.007


def test_window_that_stays_full_is_never_back() -> None:
    late = {k: 1.0 + 2 * LIMIT_S + k for k in range(50, 400)}
    assert _stream(400, late=late).back_s(1.0, 1.05) is None


def test_nothing_is_usual_before_the_first_frame() -> None:
    assert _stream(10).back_s(0.0, 0.1) is None
