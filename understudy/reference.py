"""Promise 3: what is marked full equals the unsplit model's answer.

The plan holds a reference graph: the same actors unsplit and undeployed, with the
deployment's codecs written into the model. Here it runs over the frames of a finished
run, and its answers are compared with those that the run kept.
"""

import numpy as np
from numpy.typing import NDArray

from actors import behaviour
from dataflow.behaviour import Site
from dataflow.engine import Chain
from dataflow.graph import Graph, PortRef
from dataflow.plan import Plan
from graphs.exits import EXIT_MODE, EXIT_MODES, GO_MODE
from understudy.records import Run, StreamRecord

Answer = NDArray[np.float64]

FRAMES_MAX = 5000
"""Full frames beyond it are not compared, so that a long run ends soon enough."""


def full_error(plan: Plan, run: Run) -> float | None:
    """Return max|d| / max|ref| over the full answers of `run`; None: none to compare.

    The largest difference of any element of any answer, over the largest magnitude in
    the reference answers, so that a logit near zero does not inflate the figure.
    """
    if len(_answers(plan.reference)) != 1:
        return None  # several sources or sinks: which answer is whose is not known here
    worst, largest, seen = 0.0, 0.0, False
    for record in run.streams:
        for mode, got in _by_mode(plan.reference, record).items():
            wanted = _reference_answers(plan, record, mode, max(got) + 1)
            for iteration, want in enumerate(wanted):
                if iteration in got:
                    error = np.abs(got[iteration] - want.ravel()).max()
                    worst = max(worst, float(error))
                    largest = max(largest, float(np.abs(want).max()))
                    seen = True
    return worst / largest if seen and largest > 0 else None


def _by_mode(graph: Graph, record: StreamRecord) -> dict[str, dict[int, Answer]]:
    """Return the full answers of a stream, by iteration, by the mode that gave them.

    The mode is a fact of the run: near its threshold, a gate may decide otherwise about
    an answer that differs in the last bit.
    """
    found: dict[str, dict[int, Answer]] = {}
    exits = bool(_exits(graph))
    # The plan is the last one of the run, and its codecs are in the reference.
    first = record.switched[-1].frame if record.switched else 0
    for result in record.results:
        wanted = result.status == "full" and result.value is not None
        wanted = wanted and result.frame >= first
        if wanted and result.frame < FRAMES_MAX:
            early = exits and result.row == EXIT_MODE
            mode = "" if not exits else EXIT_MODE if early else GO_MODE
            iteration = result.frame // record.frames_per_result
            found.setdefault(mode, {})[iteration] = np.asarray(result.value)
    return found


def _exits(graph: Graph) -> list[str]:
    return [dpg.name for dpg in graph.dpgs if tuple(dpg.modes) == EXIT_MODES]


def _reference_answers(
    plan: Plan, record: StreamRecord, mode: str, iterations: int
) -> list[Answer]:
    graph = plan.reference
    site = Site(
        device=record.device,
        stream=record.stream,
        incarnation=0,
        plan_folder=plan.folder,
        run_folder=None,
        slots=2 * record.frames_per_result,
    )
    made = {
        name: behaviour(actor.type)(actor.params, site)
        for name, actor in graph.actors.items()
    }
    for each in made.values():
        each.start()
    try:
        modes = dict.fromkeys(_exits(graph), mode)
        chain = Chain(graph, list(graph.actors), made, (), _answers(graph), modes=modes)
        return [np.array(chain.run(())[0], np.float64) for _ in range(iterations)]
    finally:
        for each in made.values():
            each.stop()


def _answers(graph: Graph) -> tuple[PortRef, ...]:
    """Return the outputs that the reference leaves open: the unsplit model's answer."""
    return tuple(
        ref
        for actor in graph.actors.values()
        if actor.inputs
        for port in actor.outputs
        if (ref := PortRef(actor.name, port.name)) not in graph.fifo_from
    )
