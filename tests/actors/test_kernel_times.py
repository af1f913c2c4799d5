from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from actors.kernel_times import KernelTime, _least, kernel_times
from actors.sessions import Settings
from dataflow.errors import UnderstudyError

DIGITS = Path(str(files("graphs") / "digits" / "digits.onnx"))


def _event(name, start_us, us, operator="Conv", index="1", category="Node"):
    args = {"op_name": operator, "node_index": index}
    return {"cat": category, "name": name, "ts": start_us, "dur": us, "args": args}


def test_the_least_time_of_a_kernel_counts_once_its_memory_is_warm():
    events = [_event("a_kernel_time", 100 * i, us)
              for i, us in enumerate((1, 2, 3, 9, 7, 8))]  # fmt: skip
    assert _least(events) == (KernelTime("a", "Conv", 7),)


def test_what_runs_inside_of_another_kernel_is_part_of_it():
    events = [
        _event("inner_kernel_time", 12, 3, index="1"),
        _event("outer_kernel_time", 10, 20, "If", index="2"),
        _event("next_kernel_time", 30, 5, index="3"),
        _event("session", 0, 99, category="Session"),
        _event("outer_fence_before", 9, 1),
    ]
    assert [kernel.name for kernel in _least(events)] == ["outer", "next"]


def test_kernels_of_a_model_are_timed_and_no_trace_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    feed = {"input": np.zeros((1, 1, 8, 8), np.float32)}
    kernels = kernel_times(DIGITS, Settings(), feed, runs=2)
    assert "Conv" in {kernel.operator for kernel in kernels}
    assert list(tmp_path.iterdir()) == []


def test_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UnderstudyError, match="no such model file"):
        kernel_times(tmp_path / "none.onnx", Settings(), {}, runs=1)
