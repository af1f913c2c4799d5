import threading

import pytest

from understudy.memory import available_mb, peak_mb, reset_peak, resident_mb
from understudy.profile_file import SessionFacts
from understudy.timing import in_turn, probe, runs_alone

WAIT_S = 0.02


def test_calls_take_turns_and_the_second_of_a_round_counts():
    order = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    found = in_turn(calls, rounds=3)
    assert order == ["a", "a", "b", "b"] * 3
    assert [len(each) for each in found] == [3, 3]


def test_rounds_end_when_the_budget_is_spent_but_not_before_they_are_enough():
    never = threading.Event()
    calls = [lambda: never.wait(0.001)]
    assert len(in_turn(calls, rounds=50, enough=3, budget_s=0.0)[0]) == 3
    assert len(in_turn(calls, rounds=5, enough=3, budget_s=60.0)[0]) == 5


def test_waiting_is_time_on_the_wall_and_not_of_the_processor():
    never = threading.Event()
    (waited,) = in_turn([lambda: never.wait(WAIT_S)], rounds=1)
    assert waited[0].wall_s >= WAIT_S
    assert waited[0].processor_s < WAIT_S / 2


def test_computing_is_time_of_the_processor():
    product = probe()
    (computed,) = in_turn([lambda: [product() for _ in range(20)]], rounds=3)
    assert all(took.processor_s > 0 for took in computed)
    assert all(took.processor_s <= took.wall_s * 1.5 for took in computed)


@pytest.mark.parametrize(
    ("session", "alone"),
    [
        (SessionFacts(), True),
        (SessionFacts(providers=()), True),
        (SessionFacts(threads=2), False),
        (SessionFacts(providers=("CUDAExecutionProvider",)), False),
        (SessionFacts(providers=("CPUExecutionProvider", "X")), False),
    ],
)
def test_other_threads_and_other_processors_are_timed_on_the_wall(session, alone):
    assert runs_alone(session) is alone


def test_memory_that_was_held_is_seen_after_it_is_gone():
    reset_peak()
    before_mb = peak_mb()
    held = bytearray(64_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert resident_mb() > before_mb + 30
    del held
    assert peak_mb() > before_mb + 50
    assert available_mb() > 0
