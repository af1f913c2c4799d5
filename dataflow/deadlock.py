"""Why an iteration cannot complete, and the least initial tokens that cure it (R10).

The least is the fewest FIFOs, then the fewest tokens on them. In general this is a
minimum feedback arc set; it is found exactly where few FIFOs are involved, and where
the search is given up the error says so.
"""

from collections.abc import Callable, Mapping

from dataflow.balance import AnalysisError
from dataflow.execution import Execution, Starved
from dataflow.graph import Fifo

SEARCH_MAX = 2000
"""Executions that the search for the fewest FIFOs to delay may spend."""
SETS_MAX = 64
"""Smallest sets of FIFOs among which the fewest tokens are looked for."""


class DeadlockError(AnalysisError):
    """An iteration cannot be completed (R10, or R11 where space is lacking).

    Attributes:
        blocked: Blocked actors, with every port at which each is starved.
        cycle: A cycle of waiting: each element's `awaits` is the actor of the next.
        extra: FIFO -> initial tokens to add to make it live; empty if space lacks, or
            if only control FIFOs close the cycle.
        exact: Whether `extra` is proven the least: fewest FIFOs, then fewest tokens.
            If not, none of it can be left out.
    """

    def __init__(
        self,
        blocked: Mapping[str, tuple[Starved, ...]],
        cycle: tuple[Starved, ...],
        extra: Mapping[Fifo, int],
        exact: bool,
    ) -> None:
        waiting = "; ".join(map(str, cycle[:4])) + ("; …" if len(cycle) > 4 else "")
        super().__init__(
            _shown(cycle),
            f"deadlock: {len(blocked)} actors never reach their firings ({waiting})",
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


def deadlock(stuck: Execution) -> DeadlockError:
    """Return what to say about an execution that is stuck, with the least fix."""
    unbounded = stuck.unbounded()
    if unbounded.run():
        # Which FIFO to enlarge, and to what, is the question of `capacities`.
        return DeadlockError(_blocked(stuck), stuck.cycle(), {}, False)
    extra, exact = _least_delays(unbounded)
    return DeadlockError(_blocked(unbounded), unbounded.cycle(), extra, exact)


def _blocked(stuck: Execution) -> dict[str, tuple[Starved, ...]]:
    return {
        name: tuple(stuck.starved(i))
        for i, name in enumerate(stuck.mode.actors)
        if stuck.left[i]
    }


def _least_delays(stuck: Execution) -> tuple[dict[Fifo, int], bool]:
    """Return initial tokens that make a stuck execution live, and whether the fewest.

    Adding a token in the stuck state equals adding an initial one (the greedy
    execution is confluent), so nothing is executed twice.

    To break a cycle of waiting, one of its FIFOs must get tokens. Branching over them,
    with unlimited tokens where chosen, finds every smallest set of FIFOs. Each set is
    then given the fewest tokens, one FIFO after the other; the result is proven least
    if it meets the sum of what each FIFO needs while the others are unlimited.
    """
    sets, proven = _smallest_sets(stuck)
    best: dict[int, int] = {}
    bound = None
    if not sets:
        return {}, False
    for chosen in sets[:SETS_MAX]:
        least = {
            fifo: _fewest(stuck, fifo, {f: None for f in chosen if f != fifo})
            for fifo in chosen
        }
        extra: dict[int, int] = {}
        for fifo in chosen:
            given: dict[int, int | None] = {f: None for f in chosen if f != fifo}
            given.update(extra)
            extra[fifo] = _fewest(stuck, fifo, given)
        if not best or sum(extra.values()) < sum(best.values()):
            best = extra
        floor = sum(least.values())
        bound = floor if bound is None else min(bound, floor)
        if sum(best.values()) == len(best):
            return {stuck.mode.fifos[i]: 1 for i in best}, proven
    exact = proven and len(sets) <= SETS_MAX and sum(best.values()) == bound
    return {stuck.mode.fifos[i]: tokens for i, tokens in best.items()}, exact


def _unlimited(stuck: Execution, fifo: int) -> int:
    """As many tokens as its target could still take: as good as dropping the FIFO."""
    mode = stuck.mode
    return max(stuck.left[mode.target[fifo]], 1) * mode.consumed[fifo]


def _with(stuck: Execution, given: Mapping[int, int | None]) -> Execution:
    """Return the execution continued with `given` tokens more; None: unlimited."""
    execution = stuck.fork()
    for fifo, tokens in given.items():
        more = _unlimited(stuck, fifo) if tokens is None else tokens
        execution.add_tokens(fifo, more)
    execution.run()
    return execution


def _fewest(stuck: Execution, fifo: int, given: Mapping[int, int | None]) -> int:
    """Return the fewest tokens on `fifo` that make it live, given the others."""

    def live(tokens: int) -> bool:
        return not any(_with(stuck, {**given, fifo: tokens}).left)

    return least(live, 0, _unlimited(stuck, fifo))


def least(enough: Callable[[int], bool], low: int, high: int) -> int:
    """Return the least n in [low, high] with `enough(n)`, which `high` satisfies.

    >>> least(lambda n: n * n >= 10, 0, 100)
    4
    """
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _smallest_sets(stuck: Execution) -> tuple[list[tuple[int, ...]], bool]:
    """Return the smallest sets of FIFOs that suffice, and whether they are proven so.

    Control FIFOs are left out: where only they close a cycle there is no set. Breadth
    first by size; past `SEARCH_MAX` executions one irredundant set is made.
    """
    index = {fifo: i for i, fifo in enumerate(stuck.mode.fifos)}
    level: dict[frozenset[int], Execution] = {frozenset(): stuck}
    spent = 0
    while True:
        following: dict[frozenset[int], Execution] = {}
        for chosen, execution in level.items():
            for fifo in _curable(execution, index):
                if (larger := chosen | {fifo}) in following:
                    continue
                spent += 1
                if spent > SEARCH_MAX:
                    chosen_once = _irredundant(stuck, index)
                    return ([chosen_once] if chosen_once else []), False
                following[larger] = _with(execution, {fifo: None})
        found = [c for c, execution in following.items() if not any(execution.left)]
        if found or not following:
            return [tuple(sorted(c)) for c in found], True
        level = following


def _curable(execution: Execution, index: Mapping[Fifo, int]) -> list[int]:
    """Return the FIFOs of a cycle of waiting that may get initial tokens."""
    control = execution.mode.control
    return [index[s.fifo] for s in execution.cycle() if s.fifo not in control]


def _irredundant(stuck: Execution, index: Mapping[Fifo, int]) -> tuple[int, ...]:
    """Return a set of FIFOs that suffices and of which none can be left out."""
    chosen: dict[int, int | None] = {}
    execution = stuck
    while any(execution.left):
        curable = _curable(execution, index)
        if not curable:
            return ()
        fifo = curable[0]
        chosen[fifo] = None
        execution = _with(execution, {fifo: None})
    for fifo in list(chosen):
        fewer = {f: None for f in chosen if f != fifo}
        if not any(_with(stuck, fewer).left):
            del chosen[fifo]
    return tuple(sorted(chosen))
