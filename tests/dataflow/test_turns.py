"""Whose turn it is: batches, waits, and fairness between sessions."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.turns import ALONE, Batching, Turns

FOUR = Batching(4)
PATIENT = Batching(4, wait_s=1.0)


class Job(NamedTuple):
    session: str
    number: int


def add(
    turns: Turns[Job],
    *jobs: tuple[str, int],
    at_s: float = 0.0,
    chain: str = "tail",
    batching: Batching = FOUR,
    latest_s: float = float("inf"),
) -> None:
    for session, number in jobs:
        turns.add(
            Job(session, number),
            chain=chain,
            session=session,
            batching=batching,
            queued_s=at_s,
            latest_s=latest_s,
        )


def test_what_waits_runs_as_one_batch_and_no_more_than_most() -> None:
    turns = Turns[Job]()
    add(turns, *(("a", n) for n in range(6)))
    assert [len(turns.take(0.0)) for _ in range(3)] == [4, 2, 0]
    assert (len(turns), turns.due_s()) == (0, float("inf"))


def test_without_batching_each_job_runs_alone_in_order() -> None:
    turns = Turns[Job]()
    add(turns, ("a", 0), ("a", 1), batching=ALONE)
    assert [turns.take(0.0), turns.take(0.0)] == [[("a", 0)], [("a", 1)]]


@pytest.mark.parametrize("batching", [ALONE, FOUR])
def test_sessions_take_turns_whoever_has_more(batching: Batching) -> None:
    turns = Turns[Job]()
    add(turns, *(("full", n) for n in range(8)), batching=batching)
    add(turns, ("single", 0), batching=batching)
    first_two = (turns.take(0.0) + turns.take(0.0))[:2]
    assert first_two == [("full", 0), ("single", 0)]


def test_a_session_served_last_is_last_in_the_next_batch() -> None:
    turns = Turns[Job]()
    names = "abcdef"
    add(turns, *((name, n) for n in range(2) for name in names))
    taken = [job.session for _ in range(3) for job in turns.take(0.0)]
    assert "".join(taken) == names + names


def test_a_lone_job_waits_for_others_as_long_as_it_may_and_no_longer() -> None:
    turns = Turns[Job]()
    add(turns, ("a", 0), at_s=5.0, batching=PATIENT)
    assert turns.due_s() == 6.0
    assert turns.take(5.999) == []
    assert turns.take(6.0) == [("a", 0)]


def test_a_full_batch_does_not_wait() -> None:
    turns = Turns[Job]()
    add(turns, *(("a", n) for n in range(4)), at_s=5.0, batching=PATIENT)
    assert turns.due_s() == 5.0
    assert len(turns.take(5.0)) == 4


def test_who_came_later_leaves_with_who_waited() -> None:
    turns = Turns[Job]()
    add(turns, ("a", 0), at_s=5.0, batching=PATIENT)
    add(turns, ("b", 0), at_s=5.9, batching=PATIENT)
    assert turns.take(6.0) == [("a", 0), ("b", 0)]


def test_a_job_in_a_hurry_ends_the_wait_of_all() -> None:
    turns = Turns[Job]()
    add(turns, ("a", 0), at_s=5.0, batching=PATIENT)
    add(turns, ("b", 0), at_s=5.1, batching=PATIENT, latest_s=5.3)
    assert turns.due_s() == 5.3
    assert turns.take(5.3) == [("a", 0), ("b", 0)]


def test_jobs_of_two_chains_are_never_one_batch() -> None:
    turns = Turns[Job]()
    add(turns, ("a", 0), at_s=1.0, chain="one")
    add(turns, ("a", 1), at_s=0.0, chain="other")
    assert [turns.take(1.0), turns.take(1.0)] == [[("a", 1)], [("a", 0)]]


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two"]), st.booleans()),
    max_size=60,
)


@given(EVENTS, st.integers(1, 5), st.sampled_from([0.0, 2.5]))
@settings(max_examples=200)
def test_each_job_leaves_once_in_its_sessions_order_and_in_time(
    events: list[tuple[str, str, bool]], most: int, wait_s: float
) -> None:
    turns, batching = Turns[tuple[str, str, int]](), Batching(most, wait_s)
    left: list[tuple[tuple[str, str, int], float]] = []

    def take(now_s: float) -> None:
        batch = turns.take(now_s)
        assert len(batch) <= most
        assert len({chain for _, chain, _ in batch}) <= 1
        left.extend((job, now_s) for job in batch)

    for now, (session, chain, takes) in enumerate(events):
        turns.add(
            (session, chain, now),
            chain=chain,
            session=session,
            batching=batching,
            queued_s=now,
        )
        if takes:
            take(now)
    now_s = float(len(events))
    while len(turns):
        now_s = max(now_s, turns.due_s())
        take(now_s)
    assert sorted(n for (_, _, n), _ in left) == list(range(len(events)))
    for key in {job[:2] for job, _ in left}:
        numbers = [job[2] for job, _ in left if job[:2] == key]
        assert numbers == sorted(numbers)
