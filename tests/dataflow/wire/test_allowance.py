"""Allowances: as long as it lasts, and each peer its own."""

from dataflow.wire.allowance import BURST, PEERS_MAX, RATE_HZ, STATUS_COST, Allowances


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


def test_status_counts_for_many() -> None:
    assert used_up(Allowances(), "a", 0.0, STATUS_COST) == BURST // STATUS_COST


def test_beats_and_greetings_of_an_honest_device_fit_for_ever() -> None:
    allowances = Allowances()
    assert all(allowances.take("a", count / 30) for count in range(10_000))


def test_peers_that_come_and_go_fill_no_memory() -> None:
    allowances = Allowances()
    for peer in range(3 * PEERS_MAX):
        allowances.take(peer, 0.0)
    assert len(allowances) == PEERS_MAX
