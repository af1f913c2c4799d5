import os
import threading
from contextlib import suppress

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
        hold_to((max(os.sched_getaffinity(0)), 4095))


def test_threads_that_are_there_and_those_that_come_are_held():
    before = os.sched_getaffinity(0)
    core, begin, seen = max(before), threading.Event(), []

    def look():
        begin.wait(10)
        seen.append(os.sched_getaffinity(0))

    earlier = threading.Thread(target=look)
    earlier.start()
    try:
        hold_to((core,))
        later = threading.Thread(target=look)
        later.start()
        begin.set()
        earlier.join()
        later.join()
    finally:
        _let_go(before)
    assert seen == [{core}, {core}]


def _let_go(cores):
    for task in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(task), cores)


def test_no_cores_change_nothing():
    before = os.sched_getaffinity(0)
    hold_to(())
    assert os.sched_getaffinity(0) == before
