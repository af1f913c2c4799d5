"""A static schedule of one iteration (R10)."""

from collections.abc import Mapping
from dataclasses import dataclass

from dataflow.balance import Modes, mode_graph, repetitions
from dataflow.deadlock import deadlock
from dataflow.execution import Execution
from dataflow.graph import Fifo, Graph


@dataclass(frozen=True, slots=True)
class Schedule:
    """One iteration as a sequence of firings."""

    firings: tuple[tuple[str, int], ...]
    """Actor and how many times in a row."""
    repetitions: Mapping[str, int]
    peaks: Mapping[Fifo, int]
    """Most tokens that each active FIFO holds, initial tokens included."""


def schedule(
    graph: Graph,
    modes: Modes | None = None,
    capacities: Mapping[Fifo, int] | None = None,
) -> Schedule:
    """Return a static schedule of one iteration.

    Args:
        graph: Any graph that rules R1 to R3 accept.
        modes: Mode of each DPG; may be left out if there is none.
        capacities: Places of every FIFO, at least its initial tokens; None: unbounded.

    Raises:
        RateError: There is no repetition vector.
        DeadlockError: Some actors cannot reach their count.
    """
    mode = mode_graph(graph, modes)
    counts = repetitions(mode)
    execution = Execution(mode, list(counts.values()), capacities)
    if not execution.run():
        raise deadlock(execution, graph)
    return Schedule(
        tuple((mode.actors[actor], count) for actor, count in execution.firings),
        counts,
        dict(zip(mode.fifos, execution.peaks, strict=True)),
    )
