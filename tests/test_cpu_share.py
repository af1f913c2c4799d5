"""A process held to a share of a core gets no more of it."""

import multiprocessing
import time

import pytest

from examples.partition_points.cpu_share import share

pytestmark = pytest.mark.root


def spin(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


def used_s(process: "multiprocessing.process.BaseProcess") -> float:
    with open(f"/proc/{process.pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def test_process_gets_its_share_and_no_more() -> None:
    process = multiprocessing.get_context("spawn").Process(target=spin, args=(60.0,))
    process.start()
    try:
        with share(0.25) as quarter:
            assert process.pid is not None
            quarter.hold(process.pid)
            start_s, used = time.monotonic(), used_s(process)
            while time.monotonic() - start_s < 1.0:
                pass
            passed_s = time.monotonic() - start_s
            got = (used_s(process) - used) / passed_s
    finally:
        process.kill()
        process.join()
    assert 0 < got < 0.3
