import pytest

from dataflow.wire.service_time import KEPT, STALE_S, ServiceTime


def _learned(*samples_s: float) -> ServiceTime:
    service = ServiceTime()
    for sample_s in samples_s:
        service.add(sample_s, now_s=0.0)
    return service


@pytest.mark.parametrize(
    ("count", "fraction", "percentile"),
    [(1, 0.9, 1), (2, 0.5, 1), (10, 0.9, 9), (10, 0.99, 10), (64, 0.9, 58), (3, 0, 1)],
)
def test_percentile_is_the_smallest_sample_that_the_fraction_does_not_exceed(
    count: int, fraction: float, percentile: int
) -> None:
    service = _learned(*reversed(range(1, count + 1)))
    assert service.percentile_s(fraction, now_s=0.0) == percentile


def test_nothing_is_known_before_the_first_answer() -> None:
    assert ServiceTime().percentile_s(0.9, now_s=0.0) == 0.0


def test_what_is_older_than_a_second_is_unknown() -> None:
    service = _learned(0.3)
    assert service.percentile_s(0.9, now_s=STALE_S) == 0.3
    assert service.percentile_s(0.9, now_s=STALE_S + 0.01) == 0.0


def test_what_is_forgotten_is_unknown() -> None:
    service = _learned(0.3)
    service.forget()
    assert service.percentile_s(0.9, now_s=0.0) == 0.0


def test_only_the_latest_answers_count() -> None:
    service = _learned(9.0, *[0.1] * KEPT)
    assert service.percentile_s(1.0, now_s=0.0) == 0.1


def test_what_is_learned_is_kept_though_it_is_old() -> None:
    service = _learned(*range(1, 65))
    assert service.percentile_s(0.95, now_s=STALE_S + 1) == 0.0
    assert service.learned_s(0.95) == 61


@pytest.mark.parametrize(
    ("fraction", "least"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, KEPT)]
)
def test_a_percentile_is_learned_when_a_sample_can_lie_above_it(
    fraction: float, least: int
) -> None:
    assert _learned(*[0.1] * (least - 1)).learned_s(fraction) == 0.0
    assert _learned(*[0.1] * least).learned_s(fraction) == 0.1
