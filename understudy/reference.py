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
from understudy.run_folder import Run, StreamRecord

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
        got = {
            result.frame: np.asarray(result.value)
            for result in record.results
            if result.status == "full"
            and result.value is not None
            and result.frame < FRAMES_MAX
        }
        if not got:
            continue
        seen = True
        for frame, want in _reference_answers(plan, record, max(got) + 1):
            if frame in got:
                worst = max(worst, float(np.abs(got[frame] - want.ravel()).max()))
                largest = max(largest, float(np.abs(want).max()))
    return worst / largest if seen and largest > 0 else None


def _reference_answers(
    plan: Plan, record: StreamRecord, frames: int
) -> list[tuple[int, NDArray[np.float64]]]:
    graph = plan.reference
    site = Site(
        device=record.device,
        stream=record.stream,
        incarnation=0,
        plan_folder=plan.folder,
        run_folder=None,
        slots=2,
    )
    made = {
        name: behaviour(actor.type)(actor.params, site)
        for name, actor in graph.actors.items()
    }
    for each in made.values():
        each.start()
    try:
        chain = Chain(graph, list(graph.actors), made, (), _answers(graph))
        return [
            (frame, np.array(chain.run(())[0], np.float64)) for frame in range(frames)
        ]
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
