"""Symbolic execution of a mode graph: counting tokens, moving none.

Firing an enabled actor of an SDF graph never disables another, so one greedy execution
decides: either every actor reaches its repetition count, in whatever order, or every
execution stops in the same state. In that state each blocked actor waits at a FIFO for
an actor that is blocked too, so the waiting closes a cycle: the witness.

A bounded FIFO is two edges: tokens forward, free space backward. A firing reads before
it writes, so a FIFO from an actor to itself needs no room beyond its initial tokens.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Literal

from dataflow.balance import ModeGraph
from dataflow.graph import Fifo, PortRef

Lack = Literal["tokens", "space"]


@dataclass(frozen=True, slots=True)
class Starved:
    """What one blocked actor waits for at one of its ports."""

    port: PortRef
    fifo: Fifo
    lacks: Lack
    has: int
    needs: int

    @property
    def awaits(self) -> str:
        """The actor that would have to fire for this port to get what it needs."""
        end = self.fifo.source if self.lacks == "tokens" else self.fifo.target
        return end.actor

    def __str__(self) -> str:
        return f"{self.port} has {self.has} of {self.needs} {self.lacks}"


def alone(
    mode: ModeGraph,
    counts: Sequence[int],
    entries: Sequence[int],
    capacities: Mapping[Fifo, int] | None = None,
) -> "Execution":
    """Return an execution of some FIFOs of a mode graph and the actors at their ends.

    What these actors take from others and give to others is left out, and they go
    through the smallest iteration that they have by themselves.
    """
    part = mode.narrowed(entries)
    inside = [counts[mode.index[name]] for name in part.actors]
    divisor = math.gcd(*inside) or 1
    return Execution(part, [count // divisor for count in inside], capacities)


class Execution:
    """The state of a greedy execution towards given firing counts.

    It starts with the initial tokens, or where `fired` firings from there have led.

    Attributes:
        counts: Firings of each actor in all, by its index.
        left: Firings that each actor has yet to do, by its index.
        tokens: Tokens in each FIFO, by its index.
        space: Free places in each FIFO, or None where FIFOs are unbounded.
        firings: What was fired: pairs of actor index and count.
        peaks: Most tokens seen in each FIFO.
    """

    __slots__ = (
        "_waiting",
        "counts",
        "firings",
        "left",
        "mode",
        "peaks",
        "space",
        "tokens",
    )

    def __init__(
        self,
        mode: ModeGraph,
        counts: Sequence[int],
        capacities: Mapping[Fifo, int] | None = None,
        fired: Sequence[int] | None = None,
    ) -> None:
        self.mode = mode
        self.left = list(counts)
        self.counts = self.left.copy()
        self.tokens = [fifo.delay for fifo in mode.fifos]
        if fired is not None:
            self.counts = list(map(add, counts, fired))
            for i in range(len(mode.fifos)):
                self.tokens[i] += fired[mode.source[i]] * mode.produced[i]
                self.tokens[i] -= fired[mode.target[i]] * mode.consumed[i]
        self.peaks = list(self.tokens)
        self.space: list[int] | None = None
        if capacities is not None:
            self.space = [
                capacities[fifo] - tokens
                for fifo, tokens in zip(mode.fifos, self.tokens, strict=True)
            ]
        self.firings: list[tuple[int, int]] = []
        self._waiting = deque(range(len(mode.actors)))

    def fork(self) -> "Execution":
        """Return an independent copy of the state, without the history."""
        copy: Execution = object.__new__(Execution)
        copy.mode = self.mode
        copy.counts = self.counts
        copy.left = self.left.copy()
        copy.tokens = self.tokens.copy()
        copy.peaks = self.peaks.copy()
        copy.space = None if self.space is None else self.space.copy()
        copy.firings = []
        copy._waiting = self._waiting.copy()
        return copy

    def unbounded(self) -> "Execution":
        """Return a copy of the state in which no FIFO has a capacity."""
        copy = self.fork()
        copy.space = None
        copy._waiting.extend(range(len(self.mode.actors)))
        return copy

    def run(self) -> bool:
        """Fire whatever is enabled until nothing is; return whether all is done."""
        waiting, left = self._waiting, self.left
        while waiting:
            actor = waiting.popleft()
            if left[actor] and (count := self._enabled(actor)):
                self._fire(actor, count)
        return not any(left)

    def add_tokens(self, fifo: int, count: int) -> None:
        self.tokens[fifo] += count
        self._waiting.append(self.mode.target[fifo])

    def give(self, fifo: Fifo, what: Lack, count: int) -> None:
        """Give a FIFO more tokens or room, if it is there in this mode."""
        mode = self.mode
        for i in mode.entries.get(fifo, ()):
            if what == "tokens":
                self.add_tokens(i, count)
            else:
                assert self.space is not None
                self.space[i] += count
                self._waiting.append(mode.source[i])

    def _enabled(self, actor: int) -> int:
        """How often `actor` can fire in a row now."""
        mode, tokens, space = self.mode, self.tokens, self.space
        count = self.left[actor]
        for i in mode.inputs[actor]:
            if mode.source[i] == actor:  # gets back what it takes
                if tokens[i] < mode.consumed[i]:
                    return 0
            elif tokens[i] < count * mode.consumed[i]:
                count = tokens[i] // mode.consumed[i]
                if not count:
                    return 0
        if space is not None:
            for i in mode.outputs[actor]:
                if space[i] < count * mode.produced[i] and mode.target[i] != actor:
                    count = space[i] // mode.produced[i]
                    if count <= 0:
                        return 0
        return count

    def _fire(self, actor: int, count: int) -> None:
        mode, tokens, space, waiting = self.mode, self.tokens, self.space, self._waiting
        self.left[actor] -= count
        self.firings.append((actor, count))
        for i in mode.inputs[actor]:
            tokens[i] -= count * mode.consumed[i]
            if space is not None:
                space[i] += count * mode.consumed[i]
                waiting.append(mode.source[i])
        for i in mode.outputs[actor]:
            tokens[i] += count * mode.produced[i]
            if tokens[i] > self.peaks[i] and mode.source[i] != mode.target[i]:
                self.peaks[i] = tokens[i]
            if space is not None:
                space[i] -= count * mode.produced[i]
            waiting.append(mode.target[i])

    def starved(self, actor: int) -> tuple[Starved, ...]:
        """Return what a blocked actor waits for."""
        return tuple(self._lacking(actor))

    def _lacking(self, actor: int) -> Iterator[Starved]:
        mode = self.mode
        for i in mode.inputs[actor]:
            if self.tokens[i] < mode.consumed[i]:
                has, needs, fifo = self.tokens[i], mode.consumed[i], mode.fifos[i]
                yield Starved(fifo.target, fifo, "tokens", has, needs)
        for i in mode.outputs[actor] if self.space is not None else ():
            assert self.space is not None
            if self.space[i] < mode.produced[i] and mode.target[i] != actor:
                has, needs, fifo = self.space[i], mode.produced[i], mode.fifos[i]
                yield Starved(fifo.source, fifo, "space", has, needs)

    def cycle(self) -> tuple[Starved, ...]:
        """Return a cycle of waiting in the stuck state."""
        index = self.mode.index
        actor = next(i for i, left in enumerate(self.left) if left)
        place: dict[int, int] = {}
        walk: list[Starved] = []
        while actor not in place:
            place[actor] = len(walk)
            walk.append(next(self._lacking(actor)))
            actor = index[walk[-1].awaits]
        return tuple(walk[place[actor] :])
