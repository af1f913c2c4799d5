"""The cheapest gifts, of tokens or of space, that let stuck executions go on.

A stuck execution holds a cycle of waiting. Whatever else is given, no actor on it fires
once more until one of its FIFOs gets at least what it lacks there. So whatever cures
the execution gives that much to one of them, and it is enough to try these, one after
the other, on the cycle that is left after each: the cheapest first, and the first that
has no cycle left is the cheapest there is.

In general this is a minimum feedback arc set. So first a cure is made step by step, of
which none can be left out. Only where that took few gifts is a cheaper one looked for.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

from dataflow.execution import Execution, Lack
from dataflow.graph import Fifo

GIFTS_MAX = 32
"""FIFOs that the first cure may give to for a cheaper one to be looked for."""
TRIES_MAX = 3_000
"""Gifts that the search for the cheapest may try."""
WORK_MAX = 1_500_000
"""The same times the FIFOs among which it looks: a second or two."""

Cost = tuple[int, ...]
"""What counts most stands first."""
Price = Callable[[Fifo, int], Cost | None]
"""What it costs to give a FIFO so many; None: it may have none."""
Gifts = dict[Fifo, int]


@dataclass(frozen=True, slots=True)
class Cure:
    """Gifts that let executions finish."""

    gifts: Gifts
    exact: bool
    """Whether nothing is cheaper. If not, no gift can be made smaller by itself."""


def cure(stuck: Sequence[Execution], what: Lack, price: Price) -> Cure | None:
    """Return the gifts that let all of `stuck` finish; None: there are none.

    Giving in the stuck state equals having from the start (greedy execution is
    confluent), so nothing is executed twice.
    """
    search = _Search(stuck, what, price)
    gifts = search.step_by_step()
    if gifts is None:
        return None
    found = search.cheapest(gifts) if len(gifts) <= GIFTS_MAX else None
    return found or Cure(gifts, False)


class _Search:
    def __init__(self, stuck: Sequence[Execution], what: Lack, price: Price) -> None:
        self._stuck = tuple(execution for execution in stuck if not execution.run())
        self._what = what
        self._price = price

    def step_by_step(self) -> Gifts | None:
        """Give what is cheapest on the cycle that is left, then take back what can be.

        Of what is returned nothing can be made smaller.
        """
        gifts: Gifts = {}
        beside: dict[Fifo, Gifts] = {}
        left = tuple(execution.fork() for execution in self._stuck)
        while left:
            offers = self._offers(left[0], gifts)
            if not offers:
                return None
            fifo = min(offers, key=lambda f: self._cost({f: offers[f]}))
            left = self._given(left, {fifo: offers[fifo] - gifts.get(fifo, 0)})
            gifts[fifo] = offers.pop(fifo)
            beside[fifo] = offers
        for fifo, others in beside.items():
            # Its last cycle closes again without the gift, unless one of the others on
            # it was given since what it lacked.
            if any(gifts.get(other, 0) >= n for other, n in others.items()):
                gifts[fifo] = least(partial(self._enough, gifts, fifo), 0, gifts[fifo])
        return {fifo: amount for fifo, amount in gifts.items() if amount}

    def cheapest(self, known: Gifts) -> Cure | None:
        """Return the cheapest cure, `known` if none is cheaper; None: not found."""
        size = sum(len(execution.mode.fifos) for execution in self._stuck)
        most = self._cost(known)
        number = count()
        waiting: list[tuple[Cost, int, Gifts, Gifts, tuple[Execution, ...]]] = []
        heapq.heappush(waiting, ((), next(number), {}, {}, self._stuck))
        seen: set[frozenset[tuple[Fifo, int]]] = set()
        for _ in range(min(TRIES_MAX, WORK_MAX // max(size, 1))):
            if not waiting:
                return Cure(known, True)
            _, _, gifts, last, before = heapq.heappop(waiting)
            left = self._given([execution.fork() for execution in before], last)
            if not left:
                return Cure(gifts, True)
            for fifo, amount in self._offers(left[0], gifts).items():
                more = {**gifts, fifo: amount}
                key = frozenset(more.items())
                cost = self._cost(more)
                if cost < most and key not in seen:
                    seen.add(key)
                    gift = {fifo: amount - gifts.get(fifo, 0)}
                    heapq.heappush(waiting, (cost, next(number), more, gift, left))
        return None

    def _offers(self, stuck: Execution, gifts: Gifts) -> Gifts:
        """Return the FIFOs on a cycle of waiting, and how much in all breaks it."""
        return {
            starved.fifo: gifts.get(starved.fifo, 0) + starved.needs - starved.has
            for starved in stuck.cycle()
            if starved.lacks == self._what and self._price(starved.fifo, 1) is not None
        }

    def _given(
        self, executions: Sequence[Execution], gifts: Gifts
    ) -> tuple[Execution, ...]:
        """Give to the executions, and return those that are stuck still."""
        for execution in executions:
            for fifo, amount in gifts.items():
                execution.give(fifo, self._what, amount)
        return tuple(execution for execution in executions if not execution.run())

    def _enough(self, gifts: Gifts, fifo: Fifo, amount: int) -> bool:
        forks = [execution.fork() for execution in self._stuck]
        return not self._given(forks, {**gifts, fifo: amount})

    def _cost(self, gifts: Gifts) -> Cost:
        costs = [self._price(fifo, amount) or () for fifo, amount in gifts.items()]
        return tuple(map(sum, zip(*costs, strict=True)))


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
