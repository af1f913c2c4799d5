"""Firing a source at its pace, and gathering frames into iterations."""

from pathlib import Path

import numpy as np
import pytest

from dataflow.behaviour import Site, Source
from dataflow.errors import ActorError
from dataflow.graph import Port
from dataflow.pacing import Pacer

SITE = Site("cam", "cam", 0, Path(), None, 2)
ONE = Port("frame", "out")
TWO = Port("pair", "out", None, (2,))


class Counts(Source):
    """Gives 0, 1, 2, … at its first port, and pairs of them at its second."""

    fired = -1

    def fire(self, *tokens: object) -> object:
        self.fired += 1
        number = np.array(self.fired)
        return (number, [number, number]) if self.params.get("two") else number


def pacer(frames: int, *, two: bool = False) -> Pacer:
    source = Counts({"rate_hz": 10, "two": two}, SITE)
    made = Pacer(source, "camera", (ONE, TWO) if two else (ONE,), frames)
    made.begin(1.0)
    return made


def test_frame_is_an_iteration_where_nothing_batches() -> None:
    paced = pacer(1)
    assert [paced.fire(1.0 + i / 10) for i in range(3)] == [[0], [1], [2]]


def test_iteration_is_complete_with_its_last_frame() -> None:
    paced = pacer(3)
    made = [paced.fire(1.0 + i / 10) for i in range(6)]
    assert made == [None, None, [[0, 1, 2]], None, None, [[3, 4, 5]]]
    assert paced.fired == 6


def test_tokens_of_a_port_of_rate_two_are_one_list() -> None:
    paced = pacer(2, two=True)
    assert paced.fire(1.0) is None
    assert paced.fire(1.1) == [[0, 1], [0, 0, 1, 1]]


def test_missed_beats_are_counted_and_have_no_frame() -> None:
    paced = pacer(1)
    paced.fire(1.0)
    assert paced.fire(1.45) == [1]
    assert (paced.missed, paced.fired) == (3, 2)
    assert paced.due_s == pytest.approx(1.5)


def test_rest_of_an_iteration_repeats_its_last_frame() -> None:
    paced = pacer(4)
    paced.fire(1.0)
    paced.fire(1.1)
    assert paced.rest() == [[0, 1, 1, 1]]
    assert paced.rest() is None
    assert paced.fired == 2


def test_source_that_returns_too_much_is_named() -> None:
    source = Counts({"rate_hz": 10, "two": True}, SITE)
    paced = Pacer(source, "camera", (ONE,), 1)
    paced.begin(0.0)
    with pytest.raises(ActorError, match="actor 'camera': returned 2 tokens for 1"):
        paced.fire(0.0)
