"""Measure what playing on a device adds: to a frame, to a message, to a hand-off.

A deployment of two devices runs on this machine for a moment. Its actors do next to
nothing, so what its frames take is what the runtime adds. One stream stays on its
device, the other crosses the loopback and comes back. Frames come at a pace, and far
apart: what is never cold is quicker than anything that a camera feeds.
"""

import select
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.clock import now_s
from dataflow.errors import UnderstudyError
from dataflow.executor import HAND_OFF_S, Executor
from understudy.launch import Launcher, free_ports, wait_ready
from understudy.plans import compile_deployment, keep_plan
from understudy.profile_file import Runtime
from understudy.run_folder import PLAN_FOLDER, read_run
from understudy.timing import at_a_pace

SECONDS = 2.5
WARM = 4
"""First frames that do not count: memory is touched for the first time."""
_HAND_OFFS = 20
_ENOUGH = 8
_LOOK_S = 0.02
_GRAPH = """
understudy: 1
graph: runtime
actors:
  camera_here: {type: arrays, path: frames.npz, rate_hz: 13}
  here: {type: pack, tokens: ["float32[64]"]}
  result_here: {type: results, values: false}
  camera_there: {type: arrays, path: frames.npz, rate_hz: 17}
  there: {type: pack, tokens: ["float32[64]"]}
  result_there: {type: results, values: false}
fifos:
  - camera_here.frame -> here.t0
  - here.packed -> result_here.answer
  - camera_there.frame -> there.t0
  - there.packed -> result_there.answer
"""
_DEPLOYMENT = """
understudy: 1
deployment: runtime
graph: graph.yaml
devices:
  endpoint: {role: endpoint}
  server: {role: server, listen: "tcp://127.0.0.1:7000"}
map:
  camera_here: endpoint
  here: endpoint
  result_here: endpoint
  camera_there: endpoint
  there: server
  result_there: endpoint
failover:
  order: [here, there]
  deadline_ms: 5000
  window: 4
"""


def runtime(seconds: float = SECONDS) -> Runtime:
    """Return what the runtime adds on this machine, as busy as it is.

    Raises:
        UnderstudyError: Devices do not start here, or answer next to nothing.
    """
    with tempfile.TemporaryDirectory(prefix="understudy-runtime-") as folder:
        took_ms = _latencies_ms(Path(folder), seconds)
    here_ms, there_ms = (took_ms[name] for name in ("here", "there"))
    if min(len(here_ms), len(there_ms)) < _ENOUGH:
        raise UnderstudyError(
            f"runtime: {len(here_ms)} and {len(there_ms)} frames answered in "
            f"{seconds:g} s, which is too few; measure again when the machine rests"
        )
    frame_ms = statistics.median(here_ms)
    # There and back, and each time two ends.
    message_ms = max(0.0, statistics.median(there_ms) - frame_ms) / 4
    return Runtime(
        frame_ms=round(frame_ms, 4),
        message_ms=round(message_ms, 4),
        hand_off_ms=round(_hand_off_ms(), 4),
        error_ms=round(thirds_apart(there_ms), 4),
    )


def thirds_apart(values: Sequence[float]) -> float:
    """Return how far apart the medians are of the first, second and last third.

    >>> thirds_apart([1.0, 2.0, 1.0, 1.5, 1.5, 3.0, 4.0, 3.0, 3.0])
    2.0
    """
    third = len(values) // 3
    medians = [
        statistics.median(values[start : start + third])
        for start in (0, third, len(values) - third)
    ]
    return max(medians) - min(medians)


def _latencies_ms(folder: Path, seconds: float) -> Mapping[str, list[float]]:
    """Run the deployment; return the latencies of the streams, in order."""
    (folder / "graph.yaml").write_text(_GRAPH)
    (folder / "deployment.yaml").write_text(_DEPLOYMENT)
    np.savez(folder / "frames.npz", frame=np.zeros((2, 64), np.float32))
    run = folder / "run"
    plan = compile_deployment(
        folder / "deployment.yaml", run / PLAN_FOLDER, listen_base=free_ports(1)
    )
    keep_plan(plan, run)
    with Launcher(plan, run, seconds=seconds) as launcher:
        for name in ("server", "endpoint"):
            launcher.start(name)
            wait_ready(launcher, [name])
        end_s = now_s() + seconds + launcher.grace_s
        while launcher.running("endpoint") and now_s() < end_s:
            time.sleep(_LOOK_S)
    return {
        name: [
            result.latency_ms
            for stream in read_run(run).streams
            if stream.stream.endswith(name)
            for result in stream.results[WARM:]
            if result.status == "full"
        ]
        for name in ("here", "there")
    }


class _Nothing:
    """Takes the place of a chain, and no time."""

    def run(self, tokens: Sequence[Any]) -> list[Any]:
        return list(tokens)

    def run_many(self, tokens: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [list(each) for each in tokens]


def _hand_off_ms() -> float:
    """Return what it takes to have something computed on the compute thread."""
    executor, nothing = Executor(), _Nothing()
    executor.place(nothing, 2 * HAND_OFF_S)

    def handed_off() -> None:
        executor.submit(nothing, (), lambda *_: None)
        executor.hand_over()
        while executor.queue:
            select.select([executor.wake_fd], [], [])
            executor.collect()

    try:
        return statistics.median(at_a_pace(handed_off, _HAND_OFFS)[1:]) * 1e3
    finally:
        executor.close()
