"""Orders and paths in an acyclic relation: who must come before whom.

A relation is given as `feeds`: item -> the items that must come before it.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import TypeVar

from dataflow.strong import components

T = TypeVar("T", bound=Hashable)


def in_feeding_order(items: Sequence[T], feeds: Mapping[T, Collection[T]]) -> list[T]:
    """Return `items` so that each comes behind what feeds it; as given where free.

    Items on a cycle come last.

    >>> in_feeding_order(["c", "b", "a"], {"c": ["a"]})
    ['b', 'a', 'c']
    """
    rank = {item: index for index, item in enumerate(items)}
    reads = {item: {f for f in feeds.get(item, ()) if f in rank} for item in items}
    readers = _reversed(reads)
    missing = {item: len(fed) for item, fed in reads.items()}
    ready = [rank[item] for item in items if not missing[item]]
    ordered: dict[T, None] = {}
    while ready:
        item = items[heappop(ready)]
        ordered[item] = None
        for reader in readers.get(item, ()):
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, rank[reader])
    return [*ordered, *(item for item in items if item not in ordered)]


def enclosed(members: Iterable[T], feeds: Mapping[T, Collection[T]]) -> set[T]:
    """Return `members` and all that stands on a path from one of them to another.

    Making one item of the result leaves the relation acyclic; making one of `members`
    alone does so only if there is nothing else in the result.

    >>> sorted(enclosed("ad", {"b": "a", "c": "b", "d": "ac", "e": "d"}))
    ['a', 'b', 'c', 'd']
    """
    chosen = set(members)
    before = reached(chosen, feeds)
    readers = _reversed({item: set(feeds.get(item, ())) & before for item in before})
    behind = reached(chosen, readers)
    return chosen | (before & behind)


def cycles(feeds: Mapping[T, Collection[T]]) -> list[set[T]]:
    """Return sets of items that all come before each other, of two or more items.

    Making one item of each leaves the relation acyclic.

    Args:
        feeds: Every item is among its keys.

    >>> [sorted(c) for c in cycles({"a": "c", "b": "a", "c": "b", "d": "a"})]
    [['a', 'b', 'c']]
    """
    items = list(feeds)
    rank = {item: index for index, item in enumerate(items)}
    following = [[rank[feed] for feed in feeds[item]] for item in items]
    found = ({items[index] for index in part} for part in components(following))
    return [cycle for cycle in found if len(cycle) > 1]


def reached(start: Iterable[T], leads: Mapping[T, Collection[T]]) -> set[T]:
    """Return `start` and all that it leads to by `leads`, in any number of steps."""
    found = set(start)
    todo = list(found)
    while todo:
        fresh = set(leads.get(todo.pop(), ())) - found
        found |= fresh
        todo.extend(fresh)
    return found


def _reversed(feeds: Mapping[T, Collection[T]]) -> dict[T, set[T]]:
    readers: dict[T, set[T]] = {}
    for item, fed in feeds.items():
        for feed in fed:
            readers.setdefault(feed, set()).add(item)
    return readers
