"""Allowances: as long as it lasts, and each peer its own."""

import pytest

from dataflow.wire.allowance import (
    BURST,
    GREETING_COST,
    PEERS_MAX,
    PIECE_COST,
    RATE_HZ,
    STATUS_COST,
    Allowances,
)
from dataflow.wire.control import PIECE_BYTES_MAX


def used_up(allowances: Allowances, peer: str, now_s: float, cost: float = 1.0) -> int:
    """Return how many times `peer` may take `cost` at once."""
    taken = 0
    while allowances.take(peer, now_s, cost):
        taken += 1
    return taken


def test_burst_is_allowed_and_then_what_time_gives_back() -> None:
    allowances = Allowances()
    assert used_up(allowances, "a", 0.0) == BURST
    assert used_up(allowances, "a", 1.0) == RATE_HZ
    assert used_up(allowances, "a", 1000.0) == BURST


def test_each_peer_has_its_own() -> None:
    allowances = Allowances()
    used_up(allowances, "a", 0.0)
    assert allowances.take("b", 0.0)


@pytest.mark.parametrize("cost", [STATUS_COST, GREETING_COST])
def test_what_takes_long_counts_for_many(cost: float) -> None:
    assert used_up(Allowances(), "a", 0.0, cost) == BURST // cost


def test_beats_and_greetings_of_an_honest_device_fit_for_ever() -> None:
    allowances = Allowances()
    for tenth in range(10_000):  # two beats and a greeting
        assert allowances.take("a", tenth / 10, 2.0 + GREETING_COST)


def test_model_of_a_hundred_megabytes_is_no_flood() -> None:
    allowances = Allowances()
    pieces = 100 * 2**20 // PIECE_BYTES_MAX
    assert all(allowances.take("a", 0.0, PIECE_COST) for _ in range(pieces))


def test_peers_that_come_and_go_fill_no_memory() -> None:
    allowances = Allowances()
    for peer in range(3 * PEERS_MAX):
        allowances.take(peer, 0.0)
    assert len(allowances) == PEERS_MAX
