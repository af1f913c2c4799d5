"""Self-timed execution: every actor starts as soon as it can, until states recur.

The states of a strongly connected graph are finitely many, so some state comes again,
and from there on everything does. What is fired between the two, over the time between
them, is the throughput, exactly.

Source:
    Ghamarian et al., "Throughput Analysis of Synchronous Data Flow Graphs", ACSD 2006.
"""

import heapq
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from dataflow.balance import AnalysisError
from dataflow.graph import Fifo
from dataflow.timed import Timed

FIRINGS_MAX = 5_000_000
"""Firings after which the search for a recurring state is given up: half a minute."""


class EndlessError(AnalysisError):
    """No state came again for very long."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What a self-timed execution comes to."""

    throughput: Fraction
    """Iterations per time unit; 0 if it stops."""
    full: frozenset[Fifo]
    """Bounded FIFOs that some firing waited for room in, from then on for ever. More
    throughput needs more room in at least one of them."""


class SelfTimed:
    """The state of a self-timed execution of some actors of a graph.

    Edges to and from other actors are left out: they lack nothing.

    Args:
        graph: The graph.
        inside: Indices of the actors that fire.
        once: Stop each actor after one iteration.
    """

    def __init__(
        self, graph: Timed, inside: Collection[int], *, once: bool = False
    ) -> None:
        self._graph = graph
        self._inside = sorted(inside)
        self._tokens = list(graph.tokens)
        self._inputs: list[list[int]] = [[] for _ in graph.actors]
        self._outputs: list[list[int]] = [[] for _ in graph.actors]
        chosen = set(inside)
        for i, (source, target) in enumerate(
            zip(graph.source, graph.target, strict=True)
        ):
            if source in chosen and target in chosen:
                self._inputs[target].append(i)
                self._outputs[source].append(i)
        self._left = list(graph.counts) if once else None
        self._running = [0] * len(graph.actors)
        self._ended = [0] * len(graph.actors)
        self._active: list[tuple[int, int, int]] = []  # end, actor, how many
        self._now = 0
        self._fired = 0
        self._ready = set(self._inside)
        self._watching = False
        self._freed: dict[int, int] = {}  # free places before this instant
        self._started: dict[int, int] = {}  # firings begun in this instant
        self._full: set[Fifo] = set()

    def finish(self) -> int | None:
        """Return when one iteration of all actors has ended; None if it never does.

        Needs `once`.
        """
        assert self._left is not None
        self._start()
        while self._active:
            self._advance()
        return None if any(self._left[actor] for actor in self._inside) else self._now

    def steady(self, firings_max: int = FIRINGS_MAX) -> Steady:
        """Execute until the state recurs.

        The actors must be strongly connected and not all without execution time.

        Raises:
            EndlessError: It did not recur within `firings_max` firings.
        """
        graph = self._graph
        first = min(self._inside, key=graph.counts.__getitem__)
        count = graph.counts[first]
        seen: dict[tuple[object, ...], tuple[int, int]] = {}
        iterations = -1
        self._start()
        while self._active:
            done = self._ended[first] // count
            if done > iterations:
                iterations = done
                state = self._state()
                if state in seen:
                    return self._recurred(first, *seen[state])
                seen[state] = (self._now, self._ended[first])
            if self._fired > firings_max:
                raise EndlessError(
                    f"actor '{graph.actors[first]}'",
                    f"no state came again within {firings_max:,} firings",
                    "simplify the rates or the times to have its throughput",
                )
            self._advance()
        return Steady(Fraction(0), self.lacking())

    def lacking(self) -> frozenset[Fifo]:
        """Return the bounded FIFOs that lack room for a firing."""
        graph = self._graph
        return frozenset(
            fifo
            for actor in self._inside
            for i in self._inputs[actor]
            if (fifo := graph.space[i]) and self._tokens[i] < graph.consumed[i]
        )

    def _recurred(self, first: int, then: int, ended_then: int) -> Steady:
        """Go once round the period, watching where room lacks."""
        graph, period = self._graph, self._now - then
        iterations = Fraction(self._ended[first] - ended_then, graph.counts[first])
        self._watching = True
        until = self._now + period
        while self._now < until:
            self._advance()
        return Steady(iterations * graph.scale / period, frozenset(self._full))

    def _state(self) -> tuple[object, ...]:
        now = self._now
        active = sorted((end - now, actor, n) for end, actor, n in self._active)
        return (*self._tokens, *active)

    def _advance(self) -> None:
        """Go to the next instant at which firings end; end them and start others."""
        active = self._active
        self._now = now = active[0][0]
        self._freed.clear()
        self._started.clear()
        while active and active[0][0] == now:
            _, actor, count = heapq.heappop(active)
            self._end(actor, count)
        self._start()

    def _end(self, actor: int, count: int) -> None:
        graph, tokens = self._graph, self._tokens
        self._running[actor] -= count
        self._ended[actor] += count
        self._ready.add(actor)
        for i in self._outputs[actor]:
            if self._watching and graph.space[i] is not None:
                self._freed.setdefault(i, tokens[i])
            tokens[i] += count * graph.produced[i]
            self._ready.add(graph.target[i])

    def _start(self) -> None:
        graph, tokens, ready = self._graph, self._tokens, self._ready
        while ready:
            actor = ready.pop()
            count = self._startable(actor)
            if not count:
                continue
            for i in self._inputs[actor]:
                tokens[i] -= count * graph.consumed[i]
            self._running[actor] += count
            self._fired += count
            if self._left is not None:
                self._left[actor] -= count
            if self._watching:
                self._watch(actor, count)
            if graph.times[actor]:
                end = self._now + graph.times[actor]
                heapq.heappush(self._active, (end, actor, count))
            else:
                self._end(actor, count)

    def _startable(self, actor: int) -> int:
        graph, tokens = self._graph, self._tokens
        limit = graph.limits[actor]
        count = None if limit is None else limit - self._running[actor]
        if self._left is not None:
            left = self._left[actor]
            count = left if count is None else min(count, left)
        if count == 0:
            return 0
        for i in self._inputs[actor]:
            able = tokens[i] // graph.consumed[i]
            if not able:
                return 0
            if count is None or able < count:
                count = able
        assert count is not None  # strongly connected, or fired once
        return count

    def _watch(self, actor: int, count: int) -> None:
        """Note the FIFOs whose room for these firings came in this very instant."""
        graph = self._graph
        begun = self._started[actor] = self._started.get(actor, 0) + count
        for i in self._inputs[actor]:
            fifo = graph.space[i]
            needed = begun * graph.consumed[i]
            if fifo is not None and self._freed.get(i, needed) < needed:
                self._full.add(fifo)
