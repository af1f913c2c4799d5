"""The ways to an answer: for each entry of the failover order, what runs where.

A way is the units between fork and join that give an answer and serve no other purpose.
They are on a server or, one after the other, on several, unless the way is local.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from dataflow.graph import PortRef
from graphs.between import Between
from graphs.deployment import Choice, Deployment
from graphs.located_yaml import Problems
from graphs.units import End, Unit, Units


@dataclass(frozen=True, slots=True)
class Way:
    """One way to an answer.

    Attributes:
        actor: Of the graph file; names the row of a local way.
        units: In dataflow order, those at home first. Empty where the answer is
            computed for every frame anyway.
        hops: The server groups that a frame passes, in order, and what runs on each;
            empty when all of it runs at home.
    """

    actor: str
    answer: End
    units: tuple[Unit, ...]
    hops: tuple["Hop", ...]
    quality: Literal["full", "degraded"]

    def hop_of(self, unit: Unit) -> int:
        """Return which one of `hops` a unit runs on; -1: it runs at home."""
        found = (i for i, hop in enumerate(self.hops) if unit in hop.units)
        return next(found, -1)


@dataclass(frozen=True, slots=True)
class Hop:
    """What a server of one group computes of a way."""

    group: str
    units: frozenset[Unit]


class Ways:
    """Finds the ways to the answers of a deployment's streams.

    Attributes:
        claimed: Indices of the entries of the failover order that were used.
    """

    def __init__(self, deployment: Deployment, units: Units, problems: Problems):
        self._deployment = deployment
        self._file = deployment.graph
        self._units = units
        self._problems = problems
        self.claimed: set[int] = set()

    def find(
        self, between: Between, ref: PortRef, answer: End
    ) -> tuple[Way, ...] | None:
        main = between.main(answer)
        hops = self._hops(between, main)
        if hops is None:
            return None
        stand_ins = {
            r.actor: r
            for r in self._file.understudies.get(ref, ())
            if r.actor in self._units.actors
        }
        order = self._deployment.order
        if not any(c.actor in {u.actor for u in main} for c in order) and not any(
            c.actor in stand_ins for c in order
        ):
            order = (Choice(ref.actor, (), self._units.place(ref.actor)),)
        ways = []
        for index, choice in enumerate(order):
            if choice.actor in {unit.actor for unit in main}:
                ways.append(self._main_way(between, choice, main, hops, answer))
            elif choice.actor in stand_ins:
                end = self._units.end(stand_ins[choice.actor], "out")
                if end is not None:
                    ways.append(self._stand_in(between, choice, end, answer))
            else:
                continue
            self.claimed.add(index)
        if not ways or None in ways:
            return None
        return tuple(way for way in ways if way is not None)

    def _hops(self, between: Between, main: Sequence[Unit]) -> tuple[Hop, ...] | None:
        """Return the servers that the main way passes, as they are mapped.

        Returns:
            None if a frame cannot go from one to the next so.
        """
        remote = [unit for unit in main if self._units.is_remote(unit)]
        groups = list(dict.fromkeys(map(self._units.group, remote)))
        place = {unit: groups.index(self._units.group(unit)) for unit in remote}
        for edge in between.edges:
            before, after = edge.source.unit, edge.target.unit
            if after not in place:
                continue
            step = place[after] - place.get(before, -1)
            if step not in (0, 1):
                here, there = self._units.group(before), self._units.group(after)
                self._problems.add(
                    self._units.place(after.actor),
                    f"map: {after}: on '{there}', but reads '{before}' on '{here}'; a "
                    f"frame goes from the source to {', '.join(groups)} in this order, "
                    "and each reads what the one before it sends",
                )
                return None
        if not self._returns_last(main, remote):
            return None
        return tuple(
            Hop(group, frozenset(unit for unit in remote if place[unit] == index))
            for index, group in enumerate(groups)
        )

    def _main_way(
        self,
        between: Between,
        choice: Choice,
        main: tuple[Unit, ...],
        hops: tuple[Hop, ...],
        answer: End,
    ) -> Way | None:
        actor = answer.unit.actor
        path = choice.path or tuple(hop.group for hop in hops)
        path = path or (self._units.group(main[0]),)
        roles = [self._deployment.groups[group].role for group in path]
        if roles == ["endpoint"]:
            if not self._home(between, choice, path[0]):
                return None
            return Way(actor, answer, main, (), "full")
        if "endpoint" in roles or len(set(path)) < len(path):
            self._problems.add(
                choice.place,
                f"failover: order: {', '.join(path)}: a frame goes from server to "
                "server and passes none twice; name different groups of role server",
            )
            return None
        if len(path) == len(hops):
            moved = tuple(
                Hop(group, hop.units) for group, hop in zip(path, hops, strict=True)
            )
        else:
            remote = [unit for hop in hops for unit in hop.units]
            moved = (Hop(path[0], frozenset(remote or main)),)
        return Way(actor, answer, main, moved, "full")

    def _returns_last(self, units: Sequence[Unit], remote: Collection[Unit]) -> bool:
        """Check that nothing at home stands behind what is on a server."""
        seen: Unit | None = None
        for unit in units:
            if unit in remote:
                seen = unit
            elif seen is not None:
                self._problems.add(
                    self._units.place(unit.actor),
                    f"map: {unit}: on '{self._units.group(unit)}', behind '{seen}' on "
                    f"'{self._units.group(seen)}'; a frame goes to a server once and "
                    f"its answer comes back, so map '{unit.actor}' there too",
                )
                return False
        return True

    def _home(self, between: Between, choice: Choice, group: str) -> bool:
        home = self._units.placement(between.source).group
        if group == home:
            return True
        self._problems.add(
            choice.place,
            f"failover: order: '{group}' is another endpoint than '{home}', where "
            f"'{between.source}' is; name '{home}' or a server",
        )
        return False

    def _stand_in(
        self, between: Between, choice: Choice, end: End, answer: End
    ) -> Way | None:
        units = between.private(end, answer)
        lost = [unit for unit in units if unit in between.main(answer)]
        if lost:
            self._problems.add(
                choice.place,
                f"failover: order: '{choice.actor}' reads what '{lost[-1]}' computes "
                f"on '{self._units.group(lost[-1])}'; an understudy reads what the "
                "endpoint computes for every frame, so tap in front of the cut",
            )
            return None
        if not units:  # it runs for every frame anyway
            if choice.path and not self._home(between, choice, choice.path[0]):
                return None
            return Way(choice.actor, end, (), (), "degraded")
        remote = {unit for unit in units if self._units.is_remote(unit)}
        if not choice.path and not self._returns_last(units, remote):
            return None
        group = choice.path[0] if choice.path else self._units.group(end.unit)
        if self._deployment.groups[group].role == "endpoint":
            if not self._home(between, choice, group):
                return None
            return Way(choice.actor, end, units, (), "degraded")
        # What stands at home in front of the first on a server stays there.
        first = remote or self._units.with_its_parts(end.unit)
        moved = frozenset(u for u in units if between.ancestors(u) & first)
        return Way(choice.actor, end, units, (Hop(group, moved),), "degraded")
