"""The units of one stream between its source and its sink, ordered by who needs whom.

What an answer needs stands either upstream, where it runs for every frame, or in a
branch: from the first unit on a server to the answer.
"""

from collections.abc import Iterable
from functools import cached_property

from graphs.units import End, Unit, Units


class Between:
    """The units between source and sink, and who needs whom.

    Args:
        units: Of the deployment.
        source: An actor.
        sink: The actor that its stream ends in.
        actors: All that are connected to them.
        always: Units that run for every frame, whatever the answer needs.
    """

    def __init__(
        self,
        units: Units,
        source: str,
        sink: str,
        actors: Iterable[str],
        always: Iterable[Unit],
    ) -> None:
        self._units = units
        self._always = tuple(always)
        self.source = source
        mine = set(actors) - {sink}
        self.edges = tuple(
            e
            for e in units.edges
            if e.source.unit.actor in mine and e.target.unit.actor in mine
        )
        # A FIFO with initial tokens does not say who fires first.
        self._feeds: dict[Unit, list[Unit]] = {}
        for edge in self.edges:
            if not edge.delay:
                self._feeds.setdefault(edge.target.unit, []).append(edge.source.unit)
        self._ancestors: dict[Unit, frozenset[Unit]] = {}

    def ancestors(self, unit: Unit) -> frozenset[Unit]:
        """Return the units that `unit` needs, itself among them."""
        if unit not in self._ancestors:
            found, todo = {unit}, [unit]
            while todo:
                fresh = set(self._feeds.get(todo.pop(), ())) - found
                found |= fresh
                todo.extend(fresh)
            self._ancestors[unit] = frozenset(found)
        return self._ancestors[unit]

    @cached_property
    def _rank(self) -> dict[Unit, int]:
        """Place of each unit in dataflow order; the file's order where that is free."""
        rank: dict[Unit, int] = {}
        waiting = list(self._units.kinds)
        while waiting:
            ready = next(
                (u for u in waiting if all(f in rank for f in self._feeds.get(u, ()))),
                waiting[0],  # a cycle without initial tokens: rule R10 will say it
            )
            rank[ready] = len(rank)
            waiting.remove(ready)
        return rank

    def _ordered(self, units: Iterable[Unit]) -> tuple[Unit, ...]:
        return tuple(sorted(units, key=self._rank.__getitem__))

    def main(self, answer: End) -> tuple[Unit, ...]:
        """Return the units of the main way: from the first on a server to the answer.

        Where none is on a server, it is the answering unit, a model with its parts.
        """
        needed = self.ancestors(answer.unit)
        remote = {unit for unit in needed if self._units.is_remote(unit)}
        if not remote:
            return self._ordered(self._units.with_its_parts(answer.unit))
        return self._ordered(u for u in needed if self.ancestors(u) & remote)

    def upstream(self, answer: End) -> tuple[Unit, ...]:
        """Return the units that run for every frame, the source first."""
        rest = self.ancestors(answer.unit) - set(self.main(answer))
        for unit in self._always:
            rest |= self.ancestors(unit)
        return self._ordered(rest | {Unit(self.source)})

    def private(self, end: End, answer: End) -> tuple[Unit, ...]:
        """Return the units of an understudy that do not run for every frame."""
        rest = self.ancestors(end.unit) - set(self.upstream(answer))
        return self._ordered(rest)
