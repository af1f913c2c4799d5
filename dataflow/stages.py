"""From a chain of actors to lists of firings, one list per stretch of known modes.

An iteration of a chain without dynamic ports is one *stage*. Otherwise a stage ends
where a mode must be named before anything else may fire, and for each mode there is a
stage that continues. Stages are made when first needed: a chain of three DPGs does not
pay for combinations of modes that never come.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dataflow import analysis
from dataflow.balance import mode_graph, parts, repetition_vector
from dataflow.behaviour import Behaviour
from dataflow.deadlock import deadlock
from dataflow.errors import UnderstudyError
from dataflow.execution import Execution
from dataflow.firing import Meter, Output, Step
from dataflow.graph import Dpg, Fifo, Graph, Port, PortRef

_discard = deque[Any](maxlen=0).append


class Stage:
    """Firings up to the next choice of modes.

    Attributes:
        known: Modes that are known in it.
        fired: Firings of each actor since the iteration began, those of it included.
        steps: Its firings, in order.
        needs: Outside inputs, what they hold, and the tokens that they must hold.
        asks: DPGs whose modes must be known to go on; empty: the iteration is done.
        then: What follows, by the indices of the modes of `asks`.
    """

    __slots__ = ("asks", "fired", "known", "needs", "steps", "then")

    def __init__(self, known: Mapping[str, str], fired: Mapping[str, int]) -> None:
        self.known = known
        self.fired = fired
        self.steps: list[Step] = []
        self.needs: list[tuple[PortRef, deque[Any], int]] = []
        self.asks: tuple[Dpg, ...] = ()
        self.then: dict[tuple[int, ...], Stage] = {}


class Stages:
    """The stages of a chain, and the FIFOs that its steps are wired to.

    Attributes:
        fifos: Tokens of the FIFOs inside the chain.
        inputs: Tokens that entered and were not taken yet, by input port.
        outputs: Tokens to hand out, by output port.
        meters: Counters of each actor.
        fixed: Modes that never change.
    """

    def __init__(
        self,
        graph: Graph,
        actors: Sequence[str],
        behaviours: Mapping[str, Behaviour],
        inputs: Sequence[PortRef],
        outputs: Sequence[PortRef],
        *,
        modes: Mapping[str, str],
        capacities: Mapping[Fifo, int] | None,
    ) -> None:
        self._graph = _around(graph, actors)
        self._inside = _within(graph, actors)
        self._capacities = capacities or analysis.capacities(self._graph)
        self._behaviours = {name: behaviours[name] for name in actors}
        self._steps: dict[tuple[str, tuple[int, ...]], Step] = {}
        self.fixed = dict(modes)
        self.fifos = {fifo: _initial(graph, fifo) for fifo in self._inside.fifos}
        self.inputs = {ref: deque[Any]() for ref in inputs}
        self.outputs = {ref: deque[Any]() for ref in outputs}
        self.meters = {name: Meter() for name in actors}
        self._check_border()
        self._dpgs = self._choices()

    def _check_border(self) -> None:
        """Every FIFO that crosses the border is listed, and nothing else is."""
        chain, listed = self._behaviours, {*self.inputs, *self.outputs}
        for ref in listed:
            if ref.actor not in chain or ref in {
                *self._inside.fifo_into,
                *self._inside.fifo_from,
            }:
                raise UnderstudyError(
                    f"port {ref}: no FIFO crosses the border of the chain "
                    f"{', '.join(chain)} there; leave it out"
                )
        governed = {d.controller for d in self._graph.dpgs if d.name in self.fixed}
        for fifo in self._graph.fifos:
            if (fifo.source.actor in chain) == (fifo.target.actor in chain):
                continue
            mine = fifo.target if fifo.target.actor in chain else fifo.source
            if self._graph.port(mine).control and fifo.source.actor in governed:
                continue
            if mine not in listed:
                raise UnderstudyError(
                    f"port {mine}: fifo {fifo} crosses the border of the chain "
                    f"{', '.join(chain)}; list the port"
                )

    def _choices(self) -> tuple[Dpg, ...]:
        """DPGs that set rates in the chain and whose mode is not fixed."""
        chosen = tuple(
            dpg
            for dpg in self._graph.dpgs
            if dpg.members & self._behaviours.keys() and dpg.name not in self.fixed
        )
        for dpg in chosen:
            if dpg.controller not in self._behaviours and not list(self.control(dpg)):
                raise UnderstudyError(
                    f"dpg '{dpg.name}': its control tokens do not reach the chain "
                    f"{', '.join(self._behaviours)}; fix its mode with `modes`"
                )
        return chosen

    def control(self, dpg: Dpg) -> Iterator[PortRef]:
        """Return the outside inputs that carry the control tokens of `dpg`."""
        for fifo in self._graph.fifos:
            enters = fifo.target in self.inputs and fifo.source.actor == dpg.controller
            if enters and self._graph.port(fifo.target).control:
                yield fifo.target

    def first(self) -> Stage:
        """Return the stage that an iteration begins with."""
        outside = [d for d in self._dpgs if d.controller not in self._behaviours]
        if not outside:
            return self._stage(self.fixed, {})
        begin = Stage(self.fixed, {})
        begin.asks = tuple(outside)
        return begin

    def following(self, stage: Stage, named: tuple[int, ...]) -> Stage:
        """Return the stage after `stage` when the DPGs it asks for name these modes."""
        if named not in stage.then:
            chosen = {
                dpg.name: list(dpg.modes)[mode]
                for dpg, mode in zip(stage.asks, named, strict=True)
            }
            stage.then[named] = self._stage({**stage.known, **chosen}, stage.fired)
        return stage.then[named]

    def _stage(self, known: Mapping[str, str], fired: Mapping[str, int]) -> Stage:
        """Schedule what can fire when the modes of `known` are known.

        Modes that are not known are taken to be the first: the actors that they govern
        do not fire in this stage, and the counts of all others do not depend on them.
        """
        modes = {dpg.name: next(iter(dpg.modes)) for dpg in self._graph.dpgs}
        modes.update(known)
        counts = repetition_vector(self._graph, modes)
        unknown = [dpg for dpg in self._dpgs if dpg.name not in known]
        execution = self._executed(modes, counts, unknown, fired)
        stage = Stage(known, _added(fired, execution))
        stage.asks = tuple(d for d in unknown if stage.fired.get(d.controller))
        if unknown and not stage.asks:
            raise UnderstudyError(
                f"dpg '{unknown[0].name}': its controller cannot fire before its mode "
                "is known; derive the choice from tokens that do not depend on it (R6)"
            )
        for i, count in execution.firings:
            step = self._step(execution.mode.actors[i], modes)
            stage.steps.extend([step] * count)
        for ref, held in self.inputs.items():
            # Checked where the actor first fires, or at the end if it never does.
            first = stage.fired.get(ref.actor) and not fired.get(ref.actor)
            if first or not (stage.asks or counts[ref.actor]):
                need = counts[ref.actor] * self._graph.rate(ref, modes)
                stage.needs.append((ref, held, need))
        return stage

    def _executed(
        self,
        modes: Mapping[str, str],
        counts: Mapping[str, int],
        unknown: Sequence[Dpg],
        fired: Mapping[str, int],
    ) -> Execution:
        mode = mode_graph(self._inside, modes)
        waiting = _waiting(self._graph, unknown)
        left = []
        for actor in mode.actors:
            left.append(counts[actor] - fired.get(actor, 0))
            if left[-1] < 0:
                raise UnderstudyError(
                    f"actor '{actor}': its firings per iteration depend on the mode; "
                    f"give it a control token or rates that do not (R9)"
                )
            if actor in waiting:
                left[-1] = 0
        before = [fired.get(actor, 0) for actor in mode.actors]
        execution = Execution(mode, left, self._capacities, before)
        if not execution.run() and not unknown:
            raise deadlock(execution, self._graph)
        return execution

    def _step(self, actor: str, modes: Mapping[str, str]) -> Step:
        ports = self._graph.actors[actor].ports
        rates = tuple(self._graph.rate(PortRef(actor, p.name), modes) for p in ports)
        if (actor, rates) not in self._steps:
            self._steps[actor, rates] = self._new_step(actor, modes)
        return self._steps[actor, rates]

    def _new_step(self, actor: str, modes: Mapping[str, str]) -> Step:
        spec = self._graph.actors[actor]
        takes = [(p, self._take(actor, p)) for p in spec.inputs]
        reads = [(p, take) for p, take in takes if take and not p.control]
        governs = [dpg for dpg in self._graph.dpgs if dpg.controller == actor]
        dpg = governs[0] if governs else None
        tells = [self._give(actor, p) for p in spec.outputs if p.control]
        if tells and dpg is None:
            raise UnderstudyError(
                f"actor '{actor}': has control output ports and controls no DPG (R2)"
            )
        outputs = self._outputs(actor, modes)
        fire: Callable[..., Any] = self._behaviours[actor].fire
        if self._behaviours[actor].told_rates:
            fire = partial(fire, rates=tuple(output.rate for output in outputs))
        return Step(
            actor,
            fire,
            self._behaviours[actor].fire_many,
            self.meters[actor],
            gets=tuple(take for _, take in reads),
            rates=tuple(
                self._graph.rate(PortRef(actor, p.name), modes) for p, _ in reads
            ),
            outputs=outputs,
            controls=tuple(take for p, take in takes if take and p.control),
            dpg=dpg,
            tells=tuple(tells),
            outputs_in=tuple(
                self._outputs(actor, {**modes, dpg.name: mode}) for mode in dpg.modes
            )
            if dpg
            else (),
            dynamic=any(p.dynamic for p in spec.ports),
        )

    def _outputs(self, actor: str, modes: Mapping[str, str]) -> tuple[Output, ...]:
        return tuple(
            Output(p, self._give(actor, p), self._graph.rate(ref, modes))
            for p in self._graph.actors[actor].outputs
            if not p.control
            for ref in (PortRef(actor, p.name),)
        )

    def _take(self, actor: str, port: Port) -> Callable[[], Any] | None:
        ref = PortRef(actor, port.name)
        if ref in self.inputs:
            return self.inputs[ref].popleft
        fifo = self._inside.fifo_into.get(ref)
        return None if fifo is None else self.fifos[fifo].popleft

    def _give(self, actor: str, port: Port) -> Callable[[Any], None]:
        ref = PortRef(actor, port.name)
        if ref in self.outputs:
            return self.outputs[ref].append
        fifo = self._inside.fifo_from.get(ref)
        return _discard if fifo is None else self.fifos[fifo].append


def _around(graph: Graph, actors: Sequence[str]) -> Graph:
    """Return the connected parts of `graph` that `actors` are in, as one graph."""
    found = [p for p in parts(graph) if not p.actors.keys().isdisjoint(actors)]
    return Graph(
        graph.name,
        {name: actor for part in found for name, actor in part.actors.items()},
        tuple(fifo for part in found for fifo in part.fifos),
        tuple(dpg for part in found for dpg in part.dpgs),
    )


def _within(graph: Graph, actors: Sequence[str]) -> Graph:
    """Return `actors` and the FIFOs between them."""
    chosen = {name: graph.actors[name] for name in actors}
    inside = (
        f for f in graph.fifos if {f.source.actor, f.target.actor} <= chosen.keys()
    )
    # Nobody rests inside a chain for want of the header that carries its control token:
    # the chain is run when that header has come.
    dpgs = tuple(
        replace(d, carried=frozenset()) for d in graph.dpgs if d.members & chosen.keys()
    )
    return Graph(graph.name, chosen, tuple(inside), dpgs)


def _initial(graph: Graph, fifo: Fifo) -> deque[Any]:
    """Return the initial tokens: zeros of the FIFO's type, 0 where that is open."""
    token = graph.token(fifo) or graph.port(fifo.target).token
    return deque(
        np.zeros(token.shape, token.dtype) if token else 0 for _ in range(fifo.delay)
    )


def _waiting(graph: Graph, unknown: Sequence[Dpg]) -> set[str]:
    """Return actors that must not fire before the modes of `unknown` are known."""
    waiting: set[str] = set()
    for dpg in unknown:
        waiting |= dpg.members - {dpg.controller}
        # What a controller puts on its own dynamic ports depends on what it names.
        own = (ref for ref in dpg.dynamic_ports if ref.actor == dpg.controller)
        written = (graph.fifo_from.get(ref) for ref in own)
        waiting |= {fifo.target.actor for fifo in written if fifo is not None}
    return waiting


def _added(fired: Mapping[str, int], execution: Execution) -> dict[str, int]:
    total = dict(fired)
    for i, count in execution.firings:
        name = execution.mode.actors[i]
        total[name] = total.get(name, 0) + count
    return total
