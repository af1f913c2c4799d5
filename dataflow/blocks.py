"""Biconnected parts of a graph: where paths diverge and meet again.

Only there can FIFOs that suffice for their two actors alone be too small for the whole.
A cycle of waiting, for tokens along FIFOs or for room against them, passes no actor
twice, so it lies within one part: each may be sized for itself.
"""

from collections.abc import Sequence

from dataflow.graph import Fifo


def blocks(fifos: Sequence[Fifo]) -> list[list[Fifo]]:
    """Return the biconnected parts of a graph, directions disregarded.

    A FIFO that alone connects what is on its two sides is one by itself; FIFOs from an
    actor to itself belong to none.

    Source:
        Hopcroft and Tarjan, "Efficient Algorithms for Graph Manipulation", CACM 16(6),
        1973; with a stack in place of recursion.

    >>> from dataflow.graph import PortRef
    >>> way = ["a.x b.x", "b.y c.x", "b.z c.y", "c.z d.x"]
    >>> made = [Fifo(*map(PortRef.parse, ends.split())) for ends in way]
    >>> [[str(fifo) for fifo in block] for block in blocks(made)]
    [['c.z -> d.x'], ['b.y -> c.x', 'b.z -> c.y'], ['a.x -> b.x']]
    """
    index: dict[str, int] = {}
    ends = []
    for fifo in fifos:
        source = index.setdefault(fifo.source.actor, len(index))
        target = index.setdefault(fifo.target.actor, len(index))
        ends.append((source, target))
    beside: list[list[int]] = [[] for _ in index]
    for i, (source, target) in enumerate(ends):
        if source != target:
            beside[source].append(i)
            beside[target].append(i)
    order = [0] * len(index)  # 0: not seen yet
    low = [0] * len(index)
    passed = [False] * len(fifos)
    open_fifos: list[int] = []
    found: list[list[Fifo]] = []
    seen = 0
    for root in range(len(index)):
        if order[root]:
            continue
        seen += 1
        order[root] = low[root] = seen
        trail = [(root, -1, iter(beside[root]))]  # an actor, the FIFO to it, the rest
        while trail:
            actor, via, ahead = trail[-1]
            for i in ahead:
                if passed[i]:
                    continue
                passed[i] = True
                open_fifos.append(i)
                other = ends[i][0] + ends[i][1] - actor
                if order[other]:
                    low[actor] = min(low[actor], order[other])
                    continue
                seen += 1
                order[other] = low[other] = seen
                trail.append((other, i, iter(beside[other])))
                break
            else:
                trail.pop()
                if not trail:
                    break
                above = trail[-1][0]
                low[above] = min(low[above], low[actor])
                if low[actor] >= order[above]:
                    block = [open_fifos.pop()]
                    while block[-1] != via:
                        block.append(open_fifos.pop())
                    found.append([fifos[i] for i in sorted(block)])
    return found
