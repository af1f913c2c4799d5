"""Admission when a link cannot carry the rate: even, adaptive, quick to recover."""

import itertools
from collections import deque
from dataclasses import dataclass, field

import pytest

from dataflow.wire.sampling import PERIOD_S, Sampling

RATE_HZ = 50
WINDOW = 7


@dataclass
class Link:
    """A camera in front of a window and a link that carries so many frames a second."""

    sampling: Sampling = field(default_factory=Sampling)
    now_s: float = 0.0
    free_s: float = 0.0
    number: int = 0
    open: deque[tuple[float, float]] = field(default_factory=deque)
    admitted: list[int] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def run(self, seconds: float, carries_hz: float) -> None:
        self.admitted.clear()
        self.latencies_s.clear()
        for _ in range(round(seconds * RATE_HZ)):
            self._step(carries_hz)

    def _step(self, carries_hz: float) -> None:
        while self.open and self.open[0][1] <= self.now_s:
            fired_s, done_s = self.open.popleft()
            self.latencies_s.append(done_s - fired_s)
            self.sampling.answered()
        if self.sampling.admits(self.now_s):
            self.sampling.met(len(self.open), WINDOW)
            if len(self.open) < WINDOW:
                self.free_s = max(self.free_s, self.now_s) + 1 / carries_hz
                self.open.append((self.now_s, self.free_s))
                self.admitted.append(self.number)
        self.number += 1
        self.now_s += 1 / RATE_HZ


def test_link_that_keeps_up_gets_every_frame() -> None:
    link = Link()
    link.run(20, carries_hz=200)
    assert link.admitted == list(range(20 * RATE_HZ))


@pytest.mark.parametrize("carries_hz", [5, 12, 33])
def test_slow_link_gets_what_it_carries_without_waiting(carries_hz: float) -> None:
    link = Link()
    link.run(10, carries_hz)
    link.run(20, carries_hz)
    assert 0.7 * carries_hz <= len(link.admitted) / 20 <= 1.1 * carries_hz
    usual = sorted(link.latencies_s)[len(link.latencies_s) // 2]
    assert usual <= 4.5 / carries_hz  # a full window would make it 7


def test_frames_are_dropped_evenly() -> None:
    sampling = Sampling()
    sampling.share = 0.375
    taken = [i for i in range(40) if sampling.admits(0.0)]
    gaps = [b - a for a, b in itertools.pairwise(taken)]
    assert len(taken) == 15
    assert set(gaps) == {2, 3}


def test_link_that_recovers_gets_every_frame_again() -> None:
    link = Link()
    link.run(10, carries_hz=10)
    assert link.sampling.share < 0.3
    link.run(60, carries_hz=200)
    assert link.sampling.share == 1.0


def test_gap_of_a_failure_costs_no_rate() -> None:
    """The window outlasts detection; even a second of nothing is no slow link."""
    link = Link()
    link.run(10, carries_hz=200)
    link.free_s = link.now_s + 0.1
    link.run(5, carries_hz=200)
    assert link.sampling.share == 1.0
    assert len(link.admitted) == 5 * RATE_HZ


def test_nothing_answered_is_no_measure_of_what_a_link_carries() -> None:
    sampling = Sampling()
    for i in range(500):
        assert sampling.admits(i / RATE_HZ)
        sampling.met(WINDOW, WINDOW)
    assert sampling.share == 1.0


def test_tries_become_rarer_while_they_fail() -> None:
    link = Link()
    shares = []
    for _ in range(300):
        link.run(PERIOD_S, carries_hz=10)
        shares.append(link.sampling.share)
    tries = [i for i in range(1, 300) if shares[i] > shares[i - 1]]
    early = sum(i < 100 for i in tries)
    late = sum(i >= 200 for i in tries)
    assert late < early


def test_gap_of_a_lost_branch_is_no_measure_of_what_a_link_carries() -> None:
    """A hang of 0.2 s at 200 frames/s and a window of 8 drops 32 frames, then none."""
    sampling = Sampling()
    for i in range(1000):
        hangs = 500 <= i < 540
        assert sampling.admits(i / 200)
        sampling.met(WINDOW if hangs else 0, WINDOW)
        if not hangs:
            sampling.answered()
        if i == 539:
            sampling.interrupted()
    assert sampling.share == 1.0
