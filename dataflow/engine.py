"""The engine: chains of actors that fire together from static schedules.

A `Chain` is some actors of one device. `Chain.run` does one iteration of the graph on
them: it takes the tokens that enter, fires each actor as often as the repetition vector
of the *whole* graph says, and returns the tokens that leave.

How an iteration goes. Symbolic execution gives the order of firings, once; running is a
loop over that list. Where a mode is still to be named the list ends: the controller has
fired by then (or its token came from outside), and the list that continues from there
is looked up by the mode, made when it is first needed. A chain without dynamic ports is
one list. FIFOs need no check of fill: the schedule was made within their capacities.

What a behaviour sees is data. Control tokens are taken by the engine, before a firing;
an actor whose data ports all have rate 0 is *off*: its control token is taken and its
`fire` not called. A controller returns the index of the mode after its data outputs,
once: the engine puts it on every control output port, so no two can differ.

What is checked. Each firing: how many values come back, the length of lists, dtype and
shape of every token. Each iteration: the number and type of the tokens
that enter, and that the mode exists. An `Outcome` passes for any type.

After an error the FIFOs are as they were before the iteration, so the next one may run;
what a behaviour remembers is its own.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Never

import numpy as np

from dataflow.behaviour import Behaviour, Sink, StreamEnd
from dataflow.clock import now_s as clock_s
from dataflow.errors import ActorError, UnderstudyError
from dataflow.firing import BrokenPortError, Step, fits, mode_index, told, values
from dataflow.graph import Dpg, Fifo, Graph, PortRef, TokenType
from dataflow.outcome import Outcome
from dataflow.stages import Stage, Stages


@dataclass(frozen=True, slots=True)
class ActorStats:
    """Counters of one actor since its chain was made."""

    firings: int
    """Calls of `fire` that returned."""
    skips: int
    """Firings in which it was off."""
    busy_ns: int
    """Spent in `fire`."""


@dataclass(frozen=True, slots=True)
class ChainStats:
    """Counters of a chain since it was made."""

    iterations: int
    busy_ns: int
    """Spent in `run`, the engine's own cost included."""
    actors: Mapping[str, ActorStats]


class Chain:
    """Actors of one device that fire together.

    Args:
        graph: The graph, whole or at least all that is connected to `actors`.
        actors: Those of the chain.
        behaviours: Behaviour of each of them, started by the caller.
        inputs: Their input ports that FIFOs from outside enter, in the order of `run`.
            Where a DPG's controller is outside, control ports are among them.
        outputs: Their output ports whose FIFOs leave, in the order that `run` returns.
        modes: DPGs whose mode never changes here, such as the region of a branch: their
            control ports are not read and need not be connected, and what a controller
            of theirs names does not count.
        capacities: Of every FIFO, if known already; `analysis.capacities` otherwise.

    Raises:
        UnderstudyError: The ports given are not those where FIFOs cross the border, a
            mode cannot be known, or the graph breaks a rule that `check` knows.
    """

    def __init__(
        self,
        graph: Graph,
        actors: Sequence[str],
        behaviours: Mapping[str, Behaviour],
        inputs: Sequence[PortRef],
        outputs: Sequence[PortRef],
        *,
        modes: Mapping[str, str] | None = None,
        capacities: Mapping[Fifo, int] | None = None,
    ) -> None:
        self._stages = Stages(
            graph,
            actors,
            behaviours,
            inputs,
            outputs,
            modes=modes or {},
            capacities=capacities,
        )
        self._chain = frozenset(actors)
        self._inputs = self._stages.inputs
        self._outputs = self._stages.outputs
        self._leaving = tuple(self._outputs.values())
        self._delayed = [tokens for tokens in self._stages.fifos.values() if tokens]
        ports = [graph.port(ref) for ref in inputs]
        self._entries = [
            (ref, self._inputs[ref], *_checked(None if p.control else p.token))
            for ref, p in zip(inputs, ports, strict=True)
        ]
        self._told: dict[str, int] = {}
        self._iterations = 0
        self._busy_ns = 0
        self._first = self._stages.first()
        self._batches = (
            not self._first.asks
            and not self._delayed
            and all(step.plain for step in self._first.steps)
            and len({step.actor for step in self._first.steps})
            == len(self._first.steps)
        )
        """Each actor fires once per iteration, on one token of each input."""

    def run(self, tokens: Sequence[Any], *, iteration: int | None = None) -> list[Any]:
        """Do one iteration.

        Args:
            tokens: For each of `inputs`, the token of this iteration; a list where it
                takes another number than one. A control token is an integer.
            iteration: What messages call it; by default it is counted from 0.

        Returns:
            For each of `outputs` the same.

        Raises:
            StreamEnd: A source has no further frame.
            ActorError: An actor raised, or returned what its ports do not declare.
            UnderstudyError: `tokens` are not what the ports take.
        """
        began_ns = perf_counter_ns()
        before = [list(fifo) for fifo in self._delayed] if self._delayed else ()
        if self._told:
            self._told.clear()
        try:
            self._enter(tokens)
            stage = self._first
            self._play(stage, iteration)
            if stage.asks:
                self._follow(stage, iteration)
        except BaseException:
            self._restore(before)
            raise
        results = []
        for held in self._leaving:
            results.append(held.popleft() if len(held) == 1 else _drained(held))
        self._iterations += 1
        self._busy_ns += perf_counter_ns() - began_ns
        return results

    def run_many(self, iterations: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Do several iterations, as `run` would one after the other.

        For actors without state. Where each of them fires once per iteration, all its
        firings are done at once (`Behaviour.fire_many`), then those of the next actor:
        FIFOs keep the order, and the firings of one actor do not depend on each other.
        """
        if not self._batches or len(iterations) == 1:
            return [self.run(tokens) for tokens in iterations]
        began_ns = perf_counter_ns()
        count = len(iterations)
        try:
            for tokens in iterations:
                self._enter(tokens)
            for step in self._first.steps:
                self._fire_many(step, count)
        except BaseException:
            self._restore([])
            raise
        results = [
            [held.popleft() for held in self._outputs.values()] for _ in iterations
        ]
        self._iterations += count
        self._busy_ns += perf_counter_ns() - began_ns
        return results

    def stats(self) -> ChainStats:
        """Return the counters; may be called from another thread."""
        return ChainStats(
            self._iterations,
            self._busy_ns,
            {
                name: ActorStats(meter.firings, meter.skips, meter.busy_ns)
                for name, meter in self._stages.meters.items()
            },
        )

    def forget(self) -> None:
        """Count from now on: what was fired for a trial was no work."""
        self._iterations = self._busy_ns = 0
        for meter in self._stages.meters.values():
            meter.firings = meter.skips = meter.busy_ns = 0

    def fill(self) -> dict[Fifo, int]:
        """Return how many tokens each FIFO inside the chain holds."""
        return {fifo: len(tokens) for fifo, tokens in self._stages.fifos.items()}

    def _enter(self, tokens: Sequence[Any]) -> None:
        entering = zip(self._entries, tokens, strict=True)
        for (ref, held, token_type, dtype, shape), token in entering:
            # By identity, as in `_play`; for all else `fits` decides.
            if (
                type(token) is np.ndarray
                and token.dtype is dtype
                and token.shape == shape
            ):
                held.append(token)
                continue
            if type(token) is Outcome:
                held.append(token)
                continue
            several = token if isinstance(token, list) else (token,)
            for each in several:
                if not fits(each, token_type):
                    raise UnderstudyError(
                        f"port {ref}: gets {told(each)}; it takes {token_type}"
                    )
            held.extend(several)

    def _play(self, stage: Stage, iteration: int | None) -> None:
        """Fire the steps of a stage: the inner loop of everything."""
        for ref, held, count in stage.needs:
            if len(held) != count:
                raise UnderstudyError(
                    f"port {ref}: gets {len(held)} tokens; this iteration takes {count}"
                )
        clock, array = perf_counter_ns, np.ndarray
        step = None
        try:
            for step in stage.steps:
                if not step.plain:
                    self._fire(step)
                    continue
                meter = step.meter
                if step.get is not None:
                    token = step.get()
                    began_ns = clock()
                    made = step.fire(token)
                else:
                    arguments = [get() for get in step.gets]
                    began_ns = clock()
                    made = step.fire(*arguments)
                meter.busy_ns += clock() - began_ns
                meter.firings += 1
                if step.single:
                    put, dtype, shape = step.puts[0]
                    if (
                        type(made) is not array
                        or made.dtype is not dtype
                        or made.shape != shape
                    ):
                        step.check((made,))
                    put(made)
                    continue
                if type(made) is not tuple or len(made) != len(step.outputs):
                    made = values(made, len(step.outputs))
                # The lengths agree by now, and `strict` would cost 0.1 µs.
                for token, (put, dtype, shape) in zip(made, step.puts):  # noqa: B905
                    # A dtype by identity: to compare two costs 10 µs after an actor
                    # that emptied the caches. `check` compares.
                    if (
                        type(token) is not array
                        or token.dtype is not dtype
                        or token.shape != shape
                    ):
                        step.check(made)
                    put(token)
        except StreamEnd:
            raise
        except Exception as error:
            assert step is not None
            self._blame(step, error, iteration)

    def _follow(self, stage: Stage, iteration: int | None) -> None:
        """Play what comes after the modes that `stage` asks for, until none is open."""
        while stage.asks:
            modes = tuple(self._mode_of(dpg) for dpg in stage.asks)
            stage = self._stages.following(stage, modes)
            self._play(stage, iteration)

    def _fire_many(self, step: Step, count: int) -> None:
        """Do `count` firings of a plain step at once."""
        firings = [tuple(get() for get in step.gets) for _ in range(count)]
        began_ns = perf_counter_ns()
        try:
            made = step.fire_many(firings)
            step.meter.busy_ns += perf_counter_ns() - began_ns
            step.meter.firings += count
            if len(made) != count:
                raise BrokenPortError(
                    f"returned {len(made)} answers to {count} firings; return one each"
                )
            for value in made:
                tokens = values(value, len(step.outputs))
                step.check(tokens)
                for token, (put, _, _) in zip(tokens, step.puts, strict=True):
                    put(token)
        except Exception as error:
            self._blame(step, error, None)

    def _fire(self, step: Step) -> None:
        """Do one firing in full: other rates than 1, control, off."""
        for take in step.controls:
            take()
        if step.off:
            step.meter.skips += 1
            return
        arguments = [
            get() if rate == 1 else [get() for _ in range(rate)]
            for get, rate in zip(step.gets, step.rates, strict=True)
        ]
        began_ns = perf_counter_ns()
        made = step.fire(*arguments)
        step.meter.busy_ns += perf_counter_ns() - began_ns
        step.meter.firings += 1
        outputs = step.outputs
        made = values(made, len(outputs) + (step.dpg is not None))
        if step.dpg is not None:
            made, mode = made[:-1], made[-1]
            outputs = step.outputs_in[self._tell(step.dpg, mode)]
            for tell in step.tells:
                tell(mode)
        for output, value in zip(outputs, made, strict=True):
            output.put_all(value)

    def _tell(self, dpg: Dpg, mode: Any) -> int:
        """Note the mode that a controller named, once per iteration; return it."""
        named = mode_index(dpg, mode)
        if (fixed := self._stages.fixed.get(dpg.name)) is not None:
            return list(dpg.modes).index(fixed)
        if self._told.setdefault(dpg.name, named) != named:
            raise BrokenPortError(
                f"names mode {named} of '{dpg.name}', but "
                f"{self._told[dpg.name]} holds in this iteration"
            )
        return named

    def _mode_of(self, dpg: Dpg) -> int:
        """What its controller told, or the control tokens from outside, which agree."""
        if dpg.controller in self._chain:
            return self._told[dpg.name]
        ports = self._stages.control(dpg)
        try:
            modes = {mode_index(dpg, t) for port in ports for t in self._inputs[port]}
        except BrokenPortError as error:
            raise UnderstudyError(
                f"dpg '{dpg.name}': a control token {error}"
            ) from None
        if len(modes) != 1:
            raise UnderstudyError(
                f"dpg '{dpg.name}': control tokens of one iteration name the modes "
                f"{sorted(modes)}; they must name one"
            )
        return modes.pop()

    def _restore(self, before: Sequence[list[Any]]) -> None:
        for held in (*self._inputs.values(), *self._outputs.values()):
            held.clear()
        for fifo in self._stages.fifos.values():
            fifo.clear()
        for fifo, tokens in zip(self._delayed, before, strict=True):
            fifo.extend(tokens)

    def _blame(self, step: Step, error: Exception, iteration: int | None) -> Never:
        number = self._iterations if iteration is None else iteration
        where = f"actor '{step.actor}'"
        if isinstance(error, BrokenPortError):
            raise ActorError(f"{where}: {error} (iteration {number})") from None
        said = f"{type(error).__name__}: {error}"
        raise ActorError(f"{where}: {said} (iteration {number})") from error


def _checked(token: TokenType | None) -> tuple[TokenType | None, Any, Any]:
    """Return a type, and the dtype and shape that an array of it has."""
    return (token, np.dtype(token.dtype), token.shape) if token else (None, None, None)


def _drained(held: deque[Any]) -> list[Any]:
    tokens = list(held)
    held.clear()
    return tokens


def run_graph(
    graph: Graph,
    behaviours: Mapping[str, Behaviour],
    iterations: int | None = None,
    *,
    capacities: Mapping[Fifo, int] | None = None,
) -> ChainStats:
    """Run a whole graph on one device, from its sources to its sinks.

    Behaviours are started before and stopped after, whatever happens; sinks are told
    the last frame. What a sink reads first becomes an `Outcome` that is `full`, unless
    it is one already: nothing is dropped where nothing is split.

    Args:
        graph: Without regions; its devices do not matter.
        behaviours: One for each actor.
        iterations: Stop after so many; None: when a source raises `StreamEnd`.
        capacities: Of every FIFO, if known already.
    """
    answered = {
        name: _Answered(behaviour, graph, name) if behaviour.sink else behaviour
        for name, behaviour in behaviours.items()
    }
    chain = Chain(graph, list(graph.actors), answered, (), (), capacities=capacities)
    started: list[Behaviour] = []
    try:
        for behaviour in answered.values():
            started.append(behaviour)
            behaviour.start()
        done = 0
        with suppress(StreamEnd):
            while done != iterations:
                chain.run(())
                done += 1
        for behaviour in answered.values():
            if isinstance(behaviour, _Answered):
                behaviour.end()
    finally:
        for behaviour in reversed(started):
            behaviour.stop()
    return chain.stats()


class _Answered(Behaviour):
    """A sink whose first input is made an outcome; its frames are its firings."""

    sink = True

    def __init__(self, sink: Behaviour, graph: Graph, name: str) -> None:
        self._sink = sink
        self._stream = graph.actors[name].device or graph.name
        self._fired = 0
        self.start = sink.start  # type: ignore[method-assign]
        self.stop = sink.stop  # type: ignore[method-assign]

    def fire(self, answer: Any, *others: Any) -> Any:
        if not isinstance(answer, Outcome):
            now_s = clock_s()
            answer = Outcome(
                stream=self._stream,
                incarnation=0,
                first=self._fired,
                last=self._fired,
                status="full",
                row="",
                reason="",
                value=answer,
                fired_s=now_s,
                settled_s=now_s,
                attempts=1,
            )
        self._fired += 1
        return self._sink.fire(answer, *others)

    def end(self) -> None:
        """Tell the sink its last frame."""
        if isinstance(self._sink, Sink):
            self._sink.end(self._fired - 1)
