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

FIRINGS_MAX = 2_000_000
"""Firings after which an execution is given up: some seconds."""


class EndlessError(AnalysisError):
    """An execution takes very long: no state comes again, or the iteration is huge."""


def _huge(firings_max: int) -> EndlessError:
    return EndlessError(
        "execution",
        f"has more than {firings_max:,} firings in one iteration",
        "choose rates with larger common divisors",
    )


@dataclass(frozen=True, slots=True)
class Steady:
    """What a self-timed execution comes to."""

    throughput: Fraction
    """Iterations per time unit; 0 if it stops."""
    full: frozenset[Fifo]
    """Bounded FIFOs whose room one of the slowest cycles waits for: more throughput
    needs more room in at least one of them."""


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
        self._starts: list[list[int]] | None = None  # of each actor, while watched

    def finish(self) -> int | None:
        """Return when one iteration of all actors has ended; None if it never does.

        Needs `once`.

        Raises:
            EndlessError: It has more than `FIRINGS_MAX` firings, not counting those
                that begin and end together.
        """
        assert self._left is not None
        self._refuse_huge(FIRINGS_MAX)
        self._start()
        steps = 0
        while self._active:
            steps += 1
            if steps > FIRINGS_MAX:
                raise _huge(FIRINGS_MAX)
            self._advance()
        return None if any(self._left[actor] for actor in self._inside) else self._now

    def steady(self, firings_max: int = FIRINGS_MAX) -> Steady:
        """Execute until the state recurs.

        The actors must be strongly connected and not all without execution time.

        Raises:
            EndlessError: It did not recur within `firings_max` firings.
        """
        graph = self._graph
        self._refuse_huge(firings_max)
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
                    "execution",
                    f"came to no state again within {firings_max:,} firings",
                    "simplify the rates or the times to have its throughput",
                )
            self._advance()
        return Steady(Fraction(0), frozenset())

    def _refuse_huge(self, firings_max: int) -> None:
        """Raise an error if firings that cannot overlap make an iteration too long."""
        graph = self._graph
        for actor in self._inside:
            limit = graph.limits[actor]
            if limit and graph.counts[actor] // limit > firings_max:
                raise _huge(firings_max)

    def _recurred(self, first: int, then: int, ended_then: int) -> Steady:
        """Go once round the period, watching who starts when."""
        graph, period = self._graph, self._now - then
        iterations = Fraction(self._ended[first] - ended_then, graph.counts[first])
        begun = [a + b for a, b in zip(self._ended, self._running, strict=True)]
        self._starts = [[] for _ in graph.actors]
        until = self._now + period
        while self._now < until:
            self._advance()
        full = self._slowest(_Starts(period, begun, self._starts))
        return Steady(iterations * graph.scale / period, full)

    def _slowest(self, starts: "_Starts") -> frozenset[Fifo]:
        """Return the FIFOs whose room makes one of the slowest cycles wait.

        Each firing starts when the last that it waits for ends. Going back from one to
        the other closes a cycle, round which there is never a pause.
        """
        actor = self._inside[0]
        firing = starts.begun[actor]
        place: dict[tuple[int, int], int] = {}
        freed: list[Fifo | None] = []
        while (here := (actor, starts.within(actor, firing))) not in place:
            place[here] = len(freed)
            actor, firing, fifo = self._awaited(starts, actor, firing)
            freed.append(fifo)
        return frozenset(fifo for fifo in freed[place[here] :] if fifo is not None)

    def _awaited(
        self, starts: "_Starts", actor: int, firing: int
    ) -> tuple[int, int, Fifo | None]:
        """Return the firing at whose end this one starts, and the FIFO that frees.

        Where there are several, one that frees nothing.
        """
        graph, now = self._graph, starts.time(actor, firing)
        found: tuple[int, int, Fifo | None] | None = None
        limit = graph.limits[actor]
        if limit is not None:
            before = firing - limit
            if starts.time(actor, before) + graph.times[actor] == now:
                return actor, before, None
        for i in self._inputs[actor]:
            source, awaited = graph.source[i], graph.awaited(i, firing)
            if starts.time(source, awaited) + graph.times[source] == now:
                if not graph.backward[i]:
                    return source, awaited, None
                found = source, awaited, graph.fifo[i]
        assert found is not None  # or it had started before
        return found

    def _state(self) -> tuple[object, ...]:
        now = self._now
        active: dict[tuple[int, int], int] = {}
        for end, actor, count in self._active:
            key = end - now, actor
            active[key] = active.get(key, 0) + count
        return (*self._tokens, *sorted(active.items()))

    def _advance(self) -> None:
        """Go to the next instant at which firings end; end them and start others."""
        active = self._active
        self._now = now = active[0][0]
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
            if self._starts is not None:
                self._starts[actor].extend([self._now] * count)
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


@dataclass(frozen=True, slots=True)
class _Starts:
    """When firings start, of which one period is known."""

    period: int
    begun: list[int]
    """Number of each actor's first firing in that period."""
    known: list[list[int]]

    def within(self, actor: int, firing: int) -> int:
        """Return which firing of the period a firing corresponds to."""
        return (firing - self.begun[actor]) % len(self.known[actor])

    def time(self, actor: int, firing: int) -> int:
        """Return when a firing of any period starts, before it, too."""
        known = self.known[actor]
        periods, place = divmod(firing - self.begun[actor], len(known))
        return known[place] + periods * self.period
