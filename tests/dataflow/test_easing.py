"""How much a stream sends to a server that cannot keep up."""

from dataflow.easing import Easing


def test_room_is_halved_once_for_all_that_waits() -> None:
    easing = Easing(32)
    easing.crowded(32, waited_s=0.2, now_s=1.0)
    easing.crowded(32, waited_s=0.2, now_s=1.1)
    assert easing.room == 16
    easing.crowded(16, waited_s=0.2, now_s=1.2)
    assert easing.room == 8


def test_room_is_halved_from_what_is_under_way() -> None:
    easing = Easing(32)
    easing.crowded(6, waited_s=0.2, now_s=1.0)
    assert easing.room == 3


def test_some_room_is_always_left_so_that_answers_come() -> None:
    easing = Easing(4)
    for second in range(9):
        easing.crowded(4, waited_s=0.2, now_s=float(second))
    assert easing.room == 1


def test_a_round_of_answers_makes_room_for_one_more_up_to_the_window() -> None:
    easing = Easing(8)
    easing.crowded(8, waited_s=0.2, now_s=1.0)
    for _ in range(4):
        easing.answered()
    assert 4.8 < easing.room <= 5
    for _ in range(99):
        easing.answered()
    assert easing.room == 8
