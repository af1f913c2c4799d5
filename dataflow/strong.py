"""Strongly connected parts of a mode graph: where cycles, and so waiting, can be."""

from collections.abc import Sequence

from dataflow.balance import ModeGraph


def strong_parts(mode: ModeGraph) -> list[frozenset[int]]:
    """Return the sets of actors, by index, that lie on cycles with one another.

    An actor by itself is one if a FIFO leads from it to itself. Parts come in dataflow
    order, those that feed others first.
    """
    following: list[list[int]] = [[] for _ in mode.actors]
    looped = set()
    for source, target in zip(mode.source, mode.target, strict=True):
        following[source].append(target)
        if source == target:
            looped.add(source)
    return [
        frozenset(component)
        for component in reversed(components(following))
        if len(component) > 1 or component[0] in looped
    ]


def components(following: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return strongly connected components of a graph, those that feed others last.

    Args:
        following: For each vertex those that its edges lead to.

    Source:
        Tarjan, "Depth-First Search and Linear Graph Algorithms", SIAM J. Comput. 1(2),
        1972; with a stack in place of recursion.

    >>> components([[1], [2], [1], [0]])
    [[2, 1], [0], [3]]
    """
    order = [0] * len(following)  # 0: not seen yet
    low = [0] * len(following)
    on_stack = [False] * len(following)
    stack: list[int] = []
    found: list[list[int]] = []
    seen = 0
    for root in range(len(following)):
        if order[root]:
            continue
        trail = [(root, iter(following[root]))]
        seen += 1
        order[root] = low[root] = seen
        stack.append(root)
        on_stack[root] = True
        while trail:
            vertex, ahead = trail[-1]
            for other in ahead:
                if not order[other]:
                    seen += 1
                    order[other] = low[other] = seen
                    stack.append(other)
                    on_stack[other] = True
                    trail.append((other, iter(following[other])))
                    break
                if on_stack[other]:
                    low[vertex] = min(low[vertex], order[other])
            else:
                trail.pop()
                if trail:
                    above = trail[-1][0]
                    low[above] = min(low[above], low[vertex])
                if low[vertex] == order[vertex]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack[member] = False
                        component.append(member)
                        if member == vertex:
                            break
                    found.append(component)
    return found
