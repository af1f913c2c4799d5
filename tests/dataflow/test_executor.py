import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dataflow.behaviour import Behaviour
from dataflow.engine import Chain
from dataflow.errors import ActorError
from dataflow.executor import HAND_OFF_S, Executor, time_chain
from dataflow.graph import Actor, Graph, Port, PortRef
from dataflow.turns import Batching

LIMIT_S = 5.0


class Calls(Behaviour):
    def __init__(self, what: Callable[[Any], Any]) -> None:
        self._what = what

    def fire(self, token: Any) -> Any:
        return self._what(token)


def chain(what: Callable[[Any], Any]) -> Chain:
    actor = Actor("a", "x", (Port("in", "in"), Port("out", "out")))
    ends = (PortRef("a", "in"),), (PortRef("a", "out"),)
    return Chain(Graph("g", {"a": actor}, ()), ["a"], {"a": Calls(what)}, *ends)


@pytest.fixture
def executor() -> Iterator[Executor]:
    made = Executor()
    yield made
    made.close()


def collected(executor: Executor, done: list[Any]) -> None:
    """Collect until something is done, as the I/O loop does."""
    end_s = time.monotonic() + LIMIT_S
    executor.hand_over()
    while not done and time.monotonic() < end_s:
        select.select([executor.wake_fd], [], [], LIMIT_S)
        executor.collect()


def test_short_chain_is_done_when_submit_returns(executor: Executor) -> None:
    done: list[Any] = []
    executor.submit(chain(lambda t: t + 1), [1], lambda r, *_: done.append(r))
    assert done == [[2]]


def test_long_chain_is_done_on_the_thread_and_told_in_the_loop(
    executor: Executor,
) -> None:
    done: list[Any] = []
    long = chain(lambda t: t + 1)
    executor.place(long, 2 * HAND_OFF_S)
    executor.submit(long, [1], lambda r, *_: done.append(r))
    assert done == []
    collected(executor, done)
    assert done == [[2]]


def test_deferred_chain_waits_for_its_step(executor: Executor) -> None:
    done: list[Any] = []
    executor.defer(chain(lambda t: t), [1], lambda r, *_: done.append(r))
    assert (done, executor.queue) == ([], 1)
    executor.step()
    assert (done, executor.queue) == ([[1]], 0)


def test_token_whose_budget_is_spent_is_not_computed(executor: Executor) -> None:
    fired: list[Any] = []
    done: list[Any] = []
    executor.defer(
        chain(fired.append), [1], lambda r, *_: done.append(r), expires_s=0.0
    )
    executor.step()
    assert (fired, done) == ([], [None])


def test_error_on_the_thread_is_raised_in_the_loop(executor: Executor) -> None:
    def fail(_: Any) -> Any:
        raise ValueError("told to")

    failing = chain(fail)
    executor.place(failing, 2 * HAND_OFF_S)
    executor.submit(failing, [1], lambda *_: None)
    executor.hand_over()
    select.select([executor.wake_fd], [], [], LIMIT_S)
    with pytest.raises(ActorError, match="actor 'a': ValueError: told to"):
        executor.collect()


def test_results_from_the_thread_outlive_the_memory_of_their_actor(
    executor: Executor,
) -> None:
    """A server answered with what its actor had computed since, and called it full."""
    kept = np.zeros(1)

    def reuse(token: Any) -> Any:
        kept[:] = token
        return kept

    done: list[Any] = []
    fired: list[Any] = []
    actor = Actor("a", "x", (Port("in", "in"), Port("out", "out")))
    ends = (PortRef("a", "in"),), (PortRef("a", "out"),)
    long = Chain(Graph("g", {"a": actor}, ()), ["a"], {"a": Calls(reuse)}, *ends)
    last = chain(fired.append)
    for each in (long, last):
        executor.place(each, 2 * HAND_OFF_S)
    for number in range(5):
        executor.defer(long, [number], lambda r, *_: done.append(float(r[0][0])))
    executor.submit(last, [None], lambda *_: None)
    executor.hand_over()
    end_s = time.monotonic() + LIMIT_S
    while not fired and time.monotonic() < end_s:
        pass  # the loop is late: the thread has done all of it
    collected(executor, done)
    assert done == [0, 1, 2, 3, 4]


def test_age_of_a_firing_on_the_thread_outlives_inline_firings(
    executor: Executor,
) -> None:
    """An inline firing hid the age of one that hung on the compute thread."""
    hold: list[Any] = []
    done: list[Any] = []

    def wait(token: Any) -> Any:
        end_s = time.monotonic() + LIMIT_S
        while not hold and time.monotonic() < end_s:
            time.sleep(0.001)
        return token

    hung = chain(wait)
    executor.place(hung, 0.5)
    executor.submit(hung, [1], lambda r, *_: done.append(r))
    executor.hand_over()
    end_s = time.monotonic() + LIMIT_S
    while executor.firing(time.monotonic()) == (0.0, 0.0) and time.monotonic() < end_s:
        pass
    executor.submit(chain(lambda t: t), [1], lambda *_: None)
    age_s, usual_s = executor.firing(time.monotonic())
    hold.append(True)
    collected(executor, done)
    assert age_s > 0
    assert usual_s == 0.5
    assert executor.firing(time.monotonic()) == (0.0, 0.0)


def test_actor_that_rejects_its_trial_has_no_time_and_is_no_failure() -> None:
    """A decoder refused the zeros that it was tried on, and ended the device."""

    def refuse(_: Any) -> Any:
        raise ValueError("zeros")

    assert time_chain(chain(refuse), [0]) == 0.0


# --- batches -------------------------------------------------------------------


class Together(Behaviour):
    """Answers ten times the token, plus the number of firings that were one call."""

    def __init__(self) -> None:
        pass

    def fire(self, token: Any) -> Any:
        return 10 * token + 1

    def fire_many(self, firings: Any) -> Any:
        return [10 * token + len(firings) for (token,) in firings]


def together(executor: Executor, best_s: float, batching: Batching) -> Chain:
    actor = Actor("a", "x", (Port("in", "in"), Port("out", "out")))
    ends = (PortRef("a", "in"),), (PortRef("a", "out"),)
    made = Chain(Graph("g", {"a": actor}, ()), ["a"], {"a": Together()}, *ends)
    executor.place(made, best_s, batching)
    return made


def defer(executor: Executor, made: Chain, done: list[Any], *tokens: int) -> None:
    for token in tokens:
        executor.defer(made, [token], lambda r, *_: done.append(r))


INLINE_S, THREAD_S = 0.0, 2 * HAND_OFF_S


def test_deferred_jobs_that_wait_inline_run_as_one_batch(executor: Executor) -> None:
    done: list[Any] = []
    defer(executor, together(executor, INLINE_S, Batching(3)), done, 1, 2, 3, 4)
    executor.step()
    assert done == [[13], [23], [33]]
    executor.step()
    assert done[3:] == [[41]]


def test_lone_job_inline_is_not_due_before_its_wait_is_over(
    executor: Executor,
) -> None:
    done: list[Any] = []
    before_s = time.monotonic()
    defer(executor, together(executor, INLINE_S, Batching(3, wait_s=60.0)), done, 1)
    executor.step()
    assert done == []
    assert before_s + 60 <= executor.due_s <= time.monotonic() + 60


def test_jobs_that_come_while_the_thread_waits_join_its_batch(
    executor: Executor,
) -> None:
    """A wait longer than the test's limit: only a full batch ends it."""
    done: list[Any] = []
    made = together(executor, THREAD_S, Batching(3, wait_s=10 * LIMIT_S))
    defer(executor, made, done, 1, 2, 3)
    collected(executor, done)
    assert done == [[13], [23], [33]]


def test_lone_job_on_the_thread_runs_when_its_wait_is_over(executor: Executor) -> None:
    done: list[Any] = []
    defer(executor, together(executor, THREAD_S, Batching(3, wait_s=0.02)), done, 1)
    collected(executor, done)
    assert done == [[11]]


def test_a_budget_shorter_than_the_wait_ends_it(executor: Executor) -> None:
    done: list[Any] = []
    made = together(executor, THREAD_S, Batching(3, wait_s=10 * LIMIT_S))
    executor.defer(
        made,
        [1],
        lambda r, *_: done.append(r),
        expires_s=time.monotonic() + LIMIT_S / 2,
    )
    collected(executor, done)
    assert done == [[11]]


def test_spent_tokens_are_left_out_of_their_batch(executor: Executor) -> None:
    done: list[Any] = []
    made = together(executor, INLINE_S, Batching(3))
    defer(executor, made, done, 1)
    executor.defer(made, [2], lambda r, *_: done.append(r), expires_s=0.0)
    defer(executor, made, done, 3)
    executor.step()
    assert done == [[12], None, [32]]


def test_sessions_take_turns_on_the_thread(executor: Executor) -> None:
    done: list[Any] = []
    hold: list[Any] = []

    def wait(token: Any) -> Any:
        end_s = time.monotonic() + LIMIT_S
        while token == 0 and not hold and time.monotonic() < end_s:
            time.sleep(0.001)
        return token

    made = chain(wait)
    executor.place(made, THREAD_S)
    for session, token in [("x", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 4)]:
        executor.defer(
            made, [token], lambda r, *_: done.append(int(r[0])), session=session
        )
    executor.hand_over()
    hold.append(True)
    end_s = time.monotonic() + LIMIT_S
    while len(done) < 5 and time.monotonic() < end_s:
        select.select([executor.wake_fd], [], [], LIMIT_S)
        executor.collect()
    assert done == [0, 1, 4, 2, 3]


def test_error_in_a_batch_is_raised_in_the_loop(executor: Executor) -> None:
    def fail(_: Any) -> Any:
        raise ValueError("told to")

    failing = chain(fail)
    executor.place(failing, INLINE_S, Batching(2))
    defer(executor, failing, [], 1, 2)
    with pytest.raises(ActorError, match="actor 'a': ValueError: told to"):
        executor.step()
