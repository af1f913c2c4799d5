import pytest

from understudy.prediction import (
    Measured,
    Place,
    Predictor,
    bounds,
    left_out,
    smaller_than_before,
    spread,
)

WHOLE_MS = 10.0


def _measured(share: float, size: int, extra_ms: float = 0.0) -> Measured:
    """Return a cut that costs `extra_ms`, half of it on either side."""
    head_ms = share * WHOLE_MS + extra_ms / 2
    return Measured(Place(share, size), head_ms, WHOLE_MS - head_ms + extra_ms)


def test_without_measured_cuts_a_head_takes_its_share():
    assert Predictor(WHOLE_MS)(Place(0.25, 1000)) == pytest.approx((2.5, 7.5))


def test_measured_cut_is_predicted_as_it_was_measured():
    known = [_measured(0.2, 100, 0.5), _measured(0.5, 10, 0.1), _measured(0.9, 1)]
    for each in known:
        predicted = Predictor(WHOLE_MS, known)(each.place)
        assert predicted == pytest.approx((each.head_ms, each.tail_ms))


def _written(share: float, size: int, noise_ms: float = 0.0) -> Measured:
    """Return a cut whose head pays for its bytes."""
    head_ms = share * WHOLE_MS + size * 1e-7
    return Measured(Place(share, size), head_ms, (1 - share) * WHOLE_MS + noise_ms)


SIZES = {0.1: 9_000_000, 0.3: 3_000_000, 0.5: 1_000_000, 0.9: 100_000}


def test_cost_of_what_crosses_is_learned_from_the_measured_heads():
    known = [_written(share, size) for share, size in SIZES.items()]
    truth = _written(0.2, 20_000_000)
    predicted = Predictor(WHOLE_MS, known)(truth.place)
    assert predicted == pytest.approx((truth.head_ms, truth.tail_ms), rel=0.01)


def test_noise_of_a_long_tail_is_not_taken_for_the_cost_of_a_short_head():
    known = [_written(share, size) for share, size in SIZES.items()]
    known[0] = _written(0.1, SIZES[0.1], noise_ms=3.0)
    truth = _written(0.2, 20_000_000)
    assert Predictor(WHOLE_MS, known)(truth.place)[0] == pytest.approx(
        truth.head_ms, rel=0.01
    )


def test_whole_that_was_disturbed_is_no_cost_of_bytes():
    """Early cuts are the large ones: too long a whole looks like large cheap bytes."""
    known = [_measured(share, size) for share, size in SIZES.items()]
    of_few, of_many = (
        Predictor(1.5 * WHOLE_MS, known)(Place(0.4, size)) for size in (1, 10**8)
    )
    assert of_many == pytest.approx(of_few)


def test_what_hardly_follows_from_the_bytes_is_not_laid_on_them():
    extra_ms = {0.1: 1.0, 0.2: -1.0, 0.4: 1.5, 0.6: -0.5, 0.9: 0.0}
    sizes = (5_000_000, 4_000_000, 3_000_000, 2_000_000, 1_000_000)
    known = [
        Measured(Place(s, b), s * WHOLE_MS + e, (1 - s) * WHOLE_MS)
        for (s, e), b in zip(extra_ms.items(), sizes, strict=True)
    ]
    of_few, of_many = (Predictor(WHOLE_MS, known)(Place(0.5, b)) for b in (1, 10**8))
    assert of_few == of_many


def test_sizes_that_are_alike_do_not_explain_what_cuts_cost():
    known = [_measured(0.1, 9_000, 1.0), _measured(0.5, 8_000), _measured(0.9, 7_000)]
    head_ms, _ = Predictor(WHOLE_MS, known)(Place(0.5, 8_000_000))
    assert head_ms == pytest.approx(5.0, abs=0.2)


def test_smaller_cuts_that_cost_more_are_no_reward_for_bytes():
    known = [_measured(0.1, 900, 0.0), _measured(0.5, 100, 0.5), _measured(0.9, 10, 1)]
    head_ms, _ = Predictor(WHOLE_MS, known)(Place(0.5, 10**9))
    assert head_ms == pytest.approx(5.25)


def test_error_of_the_profile_is_interpolated_between_measured_cuts():
    known = [Measured(Place(0.4, 1), 5.0, 6.0), Measured(Place(0.6, 1), 7.0, 4.0)]
    assert Predictor(WHOLE_MS, known)(Place(0.5, 1)) == pytest.approx((6.0, 5.0))


def test_no_time_is_below_the_shortest_that_was_measured():
    known = [_measured(0.5, 1), Measured(Place(1.0, 1), 9.0, 0.25)]
    assert Predictor(WHOLE_MS, known)(Place(1.0, 1))[1] == 0.25
    assert Predictor(WHOLE_MS, known)(Place(0.0, 1))[0] == 0.25


def test_anchors_are_spread_over_the_time_and_not_over_the_nodes():
    shares = [0.01, 0.02, 0.03, 0.04, 0.05, 0.5, 0.97]
    assert spread(shares, 3) == [1, 5, 6]


def test_more_anchors_than_cuts_are_all_cuts():
    assert spread([0.1, 0.2], 5) == [0, 1]
    assert spread([0.1, 0.2], 0) == []


def test_cut_that_sends_less_than_all_before_may_be_best():
    places = [Place(0.1, 50), Place(0.2, 80), Place(0.3, 20), Place(0.25, 30)]
    assert smaller_than_before(places) == [0, 2, 3]


def test_error_is_what_the_others_would_have_been_wrong_by():
    known = [_measured(0.1, 1), _measured(0.9, 1), Measured(Place(0.5, 1), 6.0, 5.0)]
    errors = left_out(WHOLE_MS, known)
    assert [e.of.place.share for e in errors] == [0.1, 0.5, 0.9]
    assert (errors[1].head_ms, errors[1].tail_ms) == pytest.approx((1.0, 0.0), abs=1e-9)


def test_two_measured_cuts_say_nothing_of_errors():
    assert left_out(WHOLE_MS, [_measured(0.1, 1), _measured(0.9, 1)]) == []


def test_bound_is_of_the_neighbours_and_never_more_than_their_time():
    known = [_measured(0.1, 1), Measured(Place(0.5, 1), 6.0, 5.0), _measured(0.9, 1)]
    errors = left_out(WHOLE_MS, known)
    worst_ms = max(e.head_ms for e in errors)
    head, _ = bounds(Place(0.7, 1), (8.0, 3.0), errors, 0.0)
    assert 0 < head <= worst_ms / 8.0
    assert bounds(Place(0.7, 1), (8.0, 3.0), errors, 0.1)[0] == head + 0.1
