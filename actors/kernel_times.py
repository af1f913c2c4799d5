"""What each kernel of a session takes, as onnxruntime's own profile says it.

The names are those of the optimised graph, which is another than the model's:
`graphs.kernels` finds what they stand for.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from actors.sessions import Settings, open_session

_UNUSUAL_RUNS = 3
"""The first: they touch their memory for the first time."""
_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel of an optimised graph.

    Attributes:
        name: Of its node there.
        operator: What it computes there, such as FusedConv.
        us: Least time over the runs, microseconds; onnxruntime counts whole ones.
    """

    name: str
    operator: str
    us: int


def kernel_times(
    file: Path, settings: Settings, feed: Mapping[str, NDArray[Any]], runs: int
) -> tuple[KernelTime, ...]:
    """Return the kernels of the model in `file`, in the order in which they run.

    Args:
        file: A model.
        settings: How its session computes.
        feed: Input -> token.
        runs: That are looked at; a few more are made.

    Raises:
        UnderstudyError: onnxruntime cannot run the model so.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(file, settings, Path(folder) / "kernels")
        for _ in range(runs + _UNUSUAL_RUNS):
            session.run(None, dict(feed))
        return _least(json.loads(Path(session.end_profiling()).read_text()))


def _least(events: list[dict[str, Any]]) -> tuple[KernelTime, ...]:
    """Return the kernels in a trace; what runs inside of another is part of it."""
    least: dict[tuple[str, str], KernelTime] = {}
    times: dict[tuple[str, str], list[int]] = {}
    outer_end = 0
    kernels = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    for event in sorted(kernels, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] + event["dur"] <= outer_end:
            continue
        outer_end = event["ts"] + event["dur"]
        name, operator = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
        key = (name, event["args"]["node_index"])
        times.setdefault(key, []).append(event["dur"])
        us = min(times[key][_UNUSUAL_RUNS:] or times[key])
        least[key] = KernelTime(name, operator, us)
    return tuple(least.values())
