"""Strongly connected parts of a mode graph: where cycles, and so waiting, can be."""

from collections.abc import Sequence

from dataflow.balance import ModeGraph


def strong_parts(mode: ModeGraph) -> list[list[int]]:
    """Return the FIFOs that lie on cycles, grouped by those that share cycles.

    Each group holds, by index, the FIFOs within one strongly connected part; FIFOs from
    an actor to itself are cycles. Parts come in dataflow order, those that feed others
    first.
    """
    following = [[mode.target[i] for i in outputs] for outputs in mode.outputs]
    part_of = [0] * len(mode.actors)
    for number, component in enumerate(components(following)):
        for actor in component:
            part_of[actor] = number
    groups: dict[int, list[int]] = {}
    for i, (source, target) in enumerate(zip(mode.source, mode.target, strict=True)):
        if part_of[source] == part_of[target]:
            groups.setdefault(part_of[source], []).append(i)
    return [groups[number] for number in sorted(groups, reverse=True)]


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
