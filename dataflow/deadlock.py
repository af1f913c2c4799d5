"""Why an iteration cannot complete, and the least initial tokens that cure it (R10).

The least is the fewest tokens in all, then the fewest FIFOs that they lie on; but none
that break a region open (R5), where others do. Waiting closes a cycle, and a cycle lies
within one strongly connected part of the graph; so each of these is cured for itself.
"""

from collections.abc import Mapping
from functools import cache

from dataflow.balance import AnalysisError
from dataflow.cure import Cost, cure
from dataflow.enclosure import broken_regions
from dataflow.execution import Execution, Starved, alone
from dataflow.graph import Fifo, Graph
from dataflow.strong import strong_parts


class DeadlockError(AnalysisError):
    """An iteration cannot be completed (R10, or R11 where space is lacking).

    Attributes:
        blocked: Blocked actors, with every port at which each is starved.
        cycle: A cycle of waiting: each element's `awaits` is the actor of the next.
        extra: FIFO -> initial tokens to add to make it live; empty if space lacks, or
            if only control FIFOs close the cycle.
        exact: Whether `extra` is proven the least: fewest tokens, then fewest FIFOs. If
            not, none of it can be left out.
    """

    def __init__(
        self,
        blocked: Mapping[str, tuple[Starved, ...]],
        cycle: tuple[Starved, ...],
        extra: Mapping[Fifo, int],
        exact: bool,
    ) -> None:
        waiting = "; ".join(map(str, cycle[:4])) + ("; …" if len(cycle) > 4 else "")
        stopped = "1 actor never reaches its firings"
        if len(blocked) > 1:
            stopped = f"{len(blocked)} actors never reach their firings"
        super().__init__(
            _shown(cycle),
            f"deadlock: {stopped} ({waiting})",
            _deadlock_fix(cycle, extra, exact),
        )
        self.blocked = blocked
        self.cycle = cycle
        self.extra = extra
        self.exact = exact


def _shown(cycle: tuple[Starved, ...]) -> str:
    """Who waits for whom, closed: the first actor comes twice."""
    names = [starved.port.actor for starved in cycle]
    if len(names) > 6:
        names[6:] = [f"… {len(names) - 6} more"]
    return " -> ".join([*names, cycle[0].port.actor])


def _deadlock_fix(
    cycle: tuple[Starved, ...], extra: Mapping[Fifo, int], exact: bool
) -> str:
    if not extra:
        full = next((s for s in cycle if s.lacks == "space"), None)
        if full is None:
            return "let no controller wait for control tokens that wait for its own"
        return f"raise the capacity of fifo {full.fifo}"
    adding = " and ".join(
        f"{tokens} initial token{'s' if tokens > 1 else ''} to fifo {fifo}"
        for fifo, tokens in extra.items()
    )
    if exact:
        return f"add {adding}, which is the least that makes it live"
    return f"add {adding}, of which none can be left out, though less may do elsewhere"


def deadlock(stuck: Execution, graph: Graph) -> DeadlockError:
    """Return what to say about an execution of `graph` that is stuck, and its cure."""
    unbounded = stuck.unbounded()
    if unbounded.run():
        # Which FIFO to enlarge, and to what, is the question of `capacities`.
        return DeadlockError(_blocked(stuck), stuck.cycle(), {}, False)
    extra, exact = _least_delays(unbounded, graph)
    return DeadlockError(_blocked(unbounded), unbounded.cycle(), extra, exact)


def _blocked(stuck: Execution) -> dict[str, tuple[Starved, ...]]:
    return {
        name: stuck.starved(i)
        for i, name in enumerate(stuck.mode.actors)
        if stuck.left[i]
    }


def _least_delays(stuck: Execution, graph: Graph) -> tuple[dict[Fifo, int], bool]:
    """Return initial tokens that make a stuck execution live, and whether the fewest.

    Control FIFOs may have none: where only they close a cycle there is no cure.
    """
    mode = stuck.mode

    @cache
    def spoilt(fifo: Fifo) -> int:
        return broken_regions(graph, fifo) if graph.dpgs else 0

    def price(fifo: Fifo, tokens: int) -> Cost | None:
        return None if fifo in mode.control else (spoilt(fifo), tokens, 1)

    extra: dict[Fifo, int] = {}
    exact = True
    for entries in strong_parts(mode):
        part = alone(mode, stuck.counts, entries)
        if not part.run():
            found = cure([part], "tokens", price)
            if found is None:
                return {}, False
            extra.update(found.gifts)
            exact = exact and found.exact
    return extra, exact
