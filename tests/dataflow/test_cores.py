import os
import threading

import pytest

from dataflow.cores import cores_text, hold_to, parse_cores
from dataflow.errors import UnderstudyError


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", (0,)), ("0-3", (0, 1, 2, 3)), ("3,1", (1, 3)), ("0-1, 1-2", (0, 1, 2))],
)
def test_lists_are_read_as_taskset_reads_them(text, cores):
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "0-", "1,,2", "99999"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(UnderstudyError, match="write cores like 0-3 or 0,2"):
        parse_cores(text)


def test_text_of_cores_is_read_back():
    assert parse_cores(cores_text([7, 2, 3, 4])) == (2, 3, 4, 7)


def test_core_that_is_not_there_is_named():
    with pytest.raises(UnderstudyError, match="no core 4095 for this process, it has"):
        hold_to((0, 4095))


def test_thread_that_is_held_and_those_it_starts_run_there_only():
    core = max(os.sched_getaffinity(0))
    before, seen = os.sched_getaffinity(0), []

    def held():
        hold_to((core,))
        inner = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        inner.start()
        inner.join()
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=held)
    thread.start()
    thread.join()
    assert seen == [{core}, {core}]
    assert os.sched_getaffinity(0) == before
