"""Times of segments of a model, each run as a device runs it.

Noise only ever adds to a time, and comes in bursts: so the least of many counts, and
everything is measured in turn, so that a burst strikes all alike.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Site
from dataflow.clock import now_s
from graphs.split import Segment
from understudy.profile_file import SessionFacts

Array = NDArray[Any]

SLOTS = 3
"""Results that a device keeps unchanged behind a frame: a window of one."""
_PROBE_SIDE = 64
_CALLS = 7
PERIOD_S = 0.04
"""Between two runs of what is measured at a pace."""


class TimedSegment:
    """A segment that is ready to run; close it.

    Args:
        segment: Of a model.
        file: Of the segment.
        session: How it computes.
        given: Tensor of the model -> token; all that the segment takes.

    Raises:
        UnderstudyError: onnxruntime cannot load it, or not so.
    """

    def __init__(
        self,
        segment: Segment,
        file: Path,
        session: SessionFacts,
        given: Mapping[str, Array],
    ) -> None:
        params = {
            "file": str(file),
            "inputs": [tensor.json() for tensor in segment.inputs],
            "outputs": [tensor.json() for tensor in segment.outputs],
        }
        site = Site(
            device="profile",
            stream="profile",
            incarnation=0,
            plan_folder=file.parent,
            run_folder=None,
            slots=SLOTS,
            threads=session.threads,
            providers=session.providers,
        )
        self._segment = segment
        self._actor = OnnxSegment(params, site)
        self._actor.start()
        self._tokens = [given[tensor.name] for tensor in segment.inputs]

    def values(self) -> dict[str, Array]:
        """Run it, and return what it makes, by the names of the model."""
        made = self._segment.made
        answer = self._actor.fire(*self._tokens)
        answers = answer if len(made) > 1 else (answer,)
        return {name: np.array(a) for name, a in zip(made, answers, strict=True)}

    def __call__(self) -> None:
        self._actor.fire(*self._tokens)

    def close(self) -> None:
        self._actor.stop()


def probe() -> Callable[[], None]:
    """Return a fixed amount of work: a product of matrices of integers.

    Of floats it would be done by a library that spreads it over threads.
    """
    a = np.arange(_PROBE_SIDE**2, dtype=np.int64).reshape(_PROBE_SIDE, _PROBE_SIDE)

    def product() -> None:
        a @ a

    return product


@dataclass(frozen=True, slots=True)
class Took:
    """What one call took, seconds: on the wall, and of this thread's processor time."""

    wall_s: float
    processor_s: float


def in_turn(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    *,
    enough: int = 0,
    budget_s: float = math.inf,
) -> list[list[Took]]:
    """Return what each of `calls` took, round by round.

    Each is called twice a round, and only the second counts: the first gets back the
    caches that the others have emptied, as a device that runs nothing else has them.

    Args:
        calls: What to time.
        rounds: The most.
        enough: So many rounds end it when the budget is spent.
        budget_s: What all rounds may take together.
    """
    found: list[list[Took]] = [[] for _ in calls]
    end_s = now_s() + budget_s
    for done in range(rounds):
        if done >= enough and now_s() > end_s:
            break
        for call, mine in zip(calls, found, strict=True):
            call()
            start_s, processor_s = now_s(), thread_time()
            call()
            processor_s = thread_time() - processor_s
            mine.append(Took(now_s() - start_s, processor_s))
    return found


def least_s(call: Callable[[], object]) -> float:
    """Return the least processor time of a few calls, made in this thread."""
    best_s = math.inf
    for _ in range(_CALLS):
        start_s = thread_time()
        call()
        best_s = min(best_s, thread_time() - start_s)
    return best_s


def at_a_pace(call: Callable[[], object], count: int) -> list[float]:
    """Return the seconds that each of `count` calls takes, with a pause before it."""
    took_s = []
    for _ in range(count):
        time.sleep(PERIOD_S)
        start_s = now_s()
        call()
        took_s.append(now_s() - start_s)
    return took_s


def runs_alone(session: SessionFacts) -> bool:
    """Tell whether a session computes in the thread that calls it, and there only.

    Its processor time is then what it takes on a machine that rests, whatever else runs
    on this one: with three times as many busy threads as cores, the least wall times of
    two sets of 8 rounds were 26 % apart, the least processor times 2 %.
    """
    return session.threads == 1 and set(session.providers) <= {"CPUExecutionProvider"}
