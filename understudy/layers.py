"""A layered layout of items in boxes: from left to right, each box in a frame.

Sugiyama's method: cycles are opened, every item gets a column right of all that leads
to it, long lines get a place in each column that they pass, and sweeps over the columns
settle who stands above whom and where. Boxes that share columns stand one above the
other, others side by side; so a box is never inside another.

The layout libraries of PyPI were tried for this: grandalf has no boxes and no ports,
networkx has no layered layout with either, pygraphviz needs the graphviz binaries.

Source:
    Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System
    Structures", IEEE Trans. SMC 11(2), 1981.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

_SWEEPS, _STRAIGHTENINGS = 14, 12
_BETWEEN_ITEMS, _BETWEEN_LINES = 16.0, 11.0
_PORT_H, _ITEM_H_MIN, _LOOP_H = 13.0, 28.0, 14.0
_PAD, _TITLE_H = 18.0, 26.0
_BETWEEN_BOXES, _ACROSS = 30.0, 84.0
_COLUMN_GAP, _COLUMN_GAP_CUT = 50.0, 66.0
_FAR = 10_000.0
"""Distance of two boxes while it is not known: more than any of them is high."""


@dataclass(frozen=True, slots=True)
class Item:
    """What has a place: a name, the box that it stands in, a width."""

    name: str
    box: str
    width: float
    small: bool = False
    """As high as wide, whatever the number of its lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """What leads from one item to another."""

    source: str
    target: str
    back: bool = False
    """Opened first where there is a cycle."""
    bundle: Hashable = None
    """Lines of one source with the same bundle run together as far as they can."""


@dataclass(frozen=True, slots=True)
class Rect:
    """Where something is drawn, in CSS pixels."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands."""

    items: Mapping[str, Rect]
    boxes: Mapping[str, Rect]
    lines: Sequence[Sequence[tuple[float, float]]]
    """Per line the points that it passes, horizontally: begin, two per column that it
    crosses, end. Empty for a line from an item to itself."""
    width: float
    height: float


@dataclass(slots=True, eq=False)
class _Spot:
    """A place in a column: of an item, or of lines that pass."""

    column: int
    box: str
    item: Item | None
    h: float
    above: float = 0.0
    """Room for a line from the item to itself."""
    y: float = 0.0
    left: list["_Spot"] = field(default_factory=list)
    right: list["_Spot"] = field(default_factory=list)


def layout(
    items: Sequence[Item], lines: Sequence[Line], middle: Iterable[str] = ()
) -> Layout:
    """Return where `items` and `lines` stand.

    Args:
        items: In the order that they keep where nothing else decides.
        lines: Between items, by name.
        middle: Boxes that stand between the others of their columns.
    """
    return _Layout(items, lines, frozenset(middle)).made()


class _Layout:
    def __init__(
        self, items: Sequence[Item], lines: Sequence[Line], middle: frozenset[str]
    ) -> None:
        self._items = {item.name: item for item in items}
        self._lines = lines
        self._middle = middle
        self._columns = _columns(list(self._items), lines)
        self._spots: dict[str, _Spot] = {}
        self._passed: dict[Hashable, _Spot] = {}

    def made(self) -> Layout:
        self._add_items()
        routes = [self._route(i, line) for i, line in enumerate(self._lines)]
        self._settle()
        xs, widths = self._place_columns()
        boxes = self._place_boxes(xs, widths)
        rects = {
            name: self._rect(spot, xs, widths) for name, spot in self._spots.items()
        }
        ends = self._ends(routes, rects)
        paths = [
            self._path(i, route, xs, widths, ends) for i, route in enumerate(routes)
        ]
        framed = [*boxes.values(), *rects.values()]
        return Layout(
            rects,
            boxes,
            paths,
            max((r.x + r.w for r in framed), default=0.0) + _PAD,
            max(
                [r.y + r.h for r in framed] + [y for path in paths for _, y in path],
                default=0.0,
            )
            + 8,
        )

    # Columns and spots

    @cached_property
    def _boxes(self) -> list[str]:
        """The boxes from the top down: those of `middle` between the others."""
        every = list(dict.fromkeys(item.box for item in self._items.values()))
        outer = [box for box in every if box not in self._middle]
        inner = [box for box in every if box in self._middle]
        half = (len(outer) + 1) // 2
        return [*outer[:half], *inner, *outer[half:]]

    @cached_property
    def _span(self) -> Mapping[str, tuple[int, int]]:
        """The first and last column of each box."""
        columns: dict[str, list[int]] = defaultdict(list)
        for item in self._items.values():
            columns[item.box].append(self._columns[item.name])
        return {box: (min(found), max(found)) for box, found in columns.items()}

    def _add_items(self) -> None:
        ends: dict[str, tuple[set[Hashable], set[Hashable]]] = {
            name: (set(), set()) for name in self._items
        }
        for i, line in enumerate(self._lines):
            out = i if line.bundle is None else line.bundle
            ends[line.source][1].add(out)
            ends[line.target][0].add(out)
        looped = {line.source for line in self._lines if line.source == line.target}
        for name, item in self._items.items():
            h = max(_ITEM_H_MIN, _PORT_H * max(map(len, ends[name])) + 4)
            h = item.width if item.small else h
            above = _LOOP_H if name in looped else 0.0
            self._spots[name] = _Spot(self._columns[name], item.box, item, h, above)

    def _route(self, index: int, line: Line) -> list[_Spot]:
        """Return the spots of a line from left to right, whatever its direction."""
        first, last = self._spots[line.source], self._spots[line.target]
        if first is last:
            return []
        if first.column > last.column:
            first, last = last, first
        route = [first]
        for column in range(first.column + 1, last.column):
            begin, end = self._span[first.box]
            box = first.box if begin <= column <= end else last.box
            key = index if line.bundle is None else (line.source, line.bundle)
            spot = self._passed.get((key, column, box))
            if spot is None:
                spot = self._passed[key, column, box] = _Spot(column, box, None, 0.0)
            route.append(spot)
        route.append(last)
        for a, b in pairwise(route):
            if b not in a.right:
                a.right.append(b)
                b.left.append(a)
        return route

    @cached_property
    def _by_column(self) -> list[dict[str, list[_Spot]]]:
        count = max(self._columns.values(), default=-1) + 1
        columns: list[dict[str, list[_Spot]]] = [
            defaultdict(list) for _ in range(count)
        ]
        for spot in (*self._spots.values(), *self._passed.values()):
            columns[spot.column][spot.box].append(spot)
        return columns

    # Who stands above whom

    def _settle(self) -> None:
        rank = {box: _FAR * i for i, box in enumerate(self._boxes)}
        for column in self._by_column:
            for spots in column.values():
                _stack(spots, [spot.y for spot in spots])
        for sweep in range(_SWEEPS):
            rightwards = sweep % 2 == 0
            columns = self._by_column if rightwards else self._by_column[::-1]
            sort = sweep < _SWEEPS - 4
            for column in columns:
                for spots in column.values():
                    _sweep(spots, rank, rightwards=rightwards, sort=sort)
        for _ in range(_STRAIGHTENINGS):
            for column in self._by_column:
                for spots in column.values():
                    wanted = [_mean_y([*s.left, *s.right, s], s) for s in spots]
                    _stack(spots, wanted)

    # Where

    def _place_columns(self) -> tuple[list[float], list[float]]:
        widths = [
            max((s.item.width for v in c.values() for s in v if s.item), default=0.0)
            for c in self._by_column
        ]
        groups = self._groups()
        starts = {min(self._span[b][0] for b in group) for group in groups}
        cut = Counter(
            a.column
            for a in (*self._spots.values(), *self._passed.values())
            for b in a.right
            if a.box != b.box
        )
        xs, x = [], 2 * _PAD
        for column, width in enumerate(widths):
            if column:
                gap = _COLUMN_GAP_CUT if column - 1 in cut else _COLUMN_GAP
                gap += min(_COLUMN_GAP, 4.0 * cut[column - 1])
                x += gap + (_ACROSS if column in starts and column - 1 in cut else 0.0)
            xs.append(x)
            x += width
        return xs, widths

    def _groups(self) -> list[list[str]]:
        """Return boxes that share columns together, from left to right."""
        groups: list[list[str]] = []
        end = -1
        for box in sorted(self._boxes, key=lambda b: self._span[b]):
            begin, last = self._span[box]
            if begin > end or not groups:
                groups.append([])
            groups[-1].append(box)
            end = max(end, last)
        return groups

    def _place_boxes(
        self, xs: Sequence[float], widths: Sequence[float]
    ) -> dict[str, Rect]:
        """Return the frames, and move what is in them to where they stand."""
        within: dict[str, list[_Spot]] = defaultdict(list)
        for spot in (*self._spots.values(), *self._passed.values()):
            within[spot.box].append(spot)
        frames: dict[str, Rect] = {}
        heights = []
        groups = self._groups()
        for group in groups:
            y = _PAD
            for box in (b for b in self._boxes if b in group):
                top = min(s.y - s.h / 2 - s.above for s in within[box])
                bottom = max(s.y + s.h / 2 for s in within[box])
                title = _TITLE_H if box else 0.0
                for spot in within[box]:
                    spot.y += y + title + _PAD / 2 - top
                begin, end = self._span[box]
                x = xs[begin] - _PAD
                w = xs[end] + widths[end] + _PAD - x
                frames[box] = Rect(x, y, w, bottom - top + title + 1.2 * _PAD)
                y += frames[box].h + _BETWEEN_BOXES
            heights.append(y)
        for group, height in zip(groups, heights, strict=True):
            down = (max(heights) - height) / 2
            for box in group:
                r = frames[box]
                frames[box] = Rect(r.x, r.y + down, r.w, r.h)
                for spot in within[box]:
                    spot.y += down
        return {box: frames[box] for box in self._boxes if box}

    def _rect(self, spot: _Spot, xs: Sequence[float], widths: Sequence[float]) -> Rect:
        assert spot.item is not None
        x = xs[spot.column] + (widths[spot.column] - spot.item.width) / 2
        return Rect(x, spot.y - spot.h / 2, spot.item.width, spot.h)

    def _ends(
        self, routes: Sequence[Sequence[_Spot]], rects: Mapping[str, Rect]
    ) -> Mapping[tuple[int, bool], tuple[float, float]]:
        """Return the point where each line leaves and enters, spread over the rim."""
        sides: dict[tuple[str, bool], dict[Hashable, list[tuple[int, float]]]] = (
            defaultdict(lambda: defaultdict(list))
        )
        for i, route in enumerate(routes):
            if not route:
                continue
            bundle = self._lines[i].bundle
            key: Hashable = i if bundle is None else bundle
            for at_right, spot, other in (
                (True, route[0], route[1]),
                (False, route[-1], route[-2]),
            ):
                assert spot.item is not None
                sides[spot.item.name, at_right][key].append((i, other.y))
        ends = {}
        for (name, at_right), ports in sides.items():
            r = rects[name]
            ordered = sorted(
                ports.values(), key=lambda p: sum(y for _, y in p) / len(p)
            )
            for k, port in enumerate(ordered):
                y = r.y + r.h * (k + 0.5) / len(ordered)
                y = r.y + r.h / 2 if self._items[name].small else y
                for i, _ in port:
                    ends[i, at_right] = (r.x + r.w if at_right else r.x, y)
        return ends

    def _path(
        self,
        index: int,
        route: Sequence[_Spot],
        xs: Sequence[float],
        widths: Sequence[float],
        ends: Mapping[tuple[int, bool], tuple[float, float]],
    ) -> list[tuple[float, float]]:
        if not route:
            return []
        points = [ends[index, True]]
        for spot in route[1:-1]:
            x = xs[spot.column]
            points += [(x, spot.y), (x + widths[spot.column], spot.y)]
        points.append(ends[index, False])
        line = self._lines[index]
        backwards = self._columns[line.source] > self._columns[line.target]
        return points[::-1] if backwards else points


def _columns(names: Sequence[str], lines: Sequence[Line]) -> dict[str, int]:
    """Return the column of each item: right of all that leads to it, if not back."""
    order = _order(names, lines)
    at = {name: i for i, name in enumerate(order)}
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.source != line.target:
            a, b = sorted((line.source, line.target), key=at.__getitem__)
            before[b].append(a)
            after[a].append(b)
    columns: dict[str, int] = {}
    for name in order:
        columns[name] = max((columns[a] + 1 for a in before[name]), default=0)
    for name in order:  # what has room stands in the middle of it
        if after[name]:
            most = min(columns[b] for b in after[name]) - 1
            least = max((columns[a] + 1 for a in before[name]), default=most)
            columns[name] = (least + most) // 2
    used = {column: i for i, column in enumerate(sorted(set(columns.values())))}
    return {name: used[columns[name]] for name in names}


def _order(names: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """Return the items so that lines lead forward, but for those that close a cycle."""
    after: dict[str, list[str]] = defaultdict(list)
    entered: set[str] = set()
    for line in lines:
        if not line.back and line.source != line.target:
            after[line.source].append(line.target)
            entered.add(line.target)
    done: dict[str, None] = {}
    seen: set[str] = set()
    # Depth first, so that what closes a cycle is the line back to where it began.
    for start in sorted(names, key=lambda n: n in entered):
        if start in seen:
            continue
        seen.add(start)
        path = [(start, iter(after[start]))]
        while path:
            name, rest = path[-1]
            following = next((n for n in rest if n not in seen), None)
            if following is None:
                done[name] = None
                path.pop()
            else:
                seen.add(following)
                path.append((following, iter(after[following])))
    return list(done)[::-1]


def _sweep(
    spots: list[_Spot], rank: Mapping[str, float], *, rightwards: bool, sort: bool
) -> None:
    """Move the spots of a box in a column towards those that they are joined to."""
    towards = {id(s): s.left if rightwards else s.right for s in spots}
    if sort:

        def key(spot: _Spot) -> float:
            ends = towards[id(spot)]
            if not ends:
                return spot.y
            ys = [rank[e.box] - rank[spot.box] + e.y for e in ends]
            return sum(ys) / len(ys)

        spots.sort(key=key)
    _stack(spots, [_mean_y(towards[id(spot)], spot) for spot in spots])


def _mean_y(ends: Iterable[_Spot], spot: _Spot) -> float:
    """Return where `spot` is drawn to; lines that pass are drawn to be straight."""
    total = weights = 0.0
    for end in ends:
        if end.box == spot.box:
            weight = 8.0 if end.item is spot.item is None else 1.0
            total += weight * end.y
            weights += weight
    return total / weights if weights else spot.y


def _stack(spots: Sequence[_Spot], wanted: Sequence[float]) -> None:
    """Place spots in their order as near as can be to where they are wanted.

    Least squares under least distances: without the distances it is an isotonic
    regression, which pooling adjacent violators solves exactly.
    """
    offset, offsets = 0.0, []
    for i, spot in enumerate(spots):
        if i:
            above = spots[i - 1]
            gap = _BETWEEN_ITEMS if above.item or spot.item else _BETWEEN_LINES
            offset += above.h / 2 + gap + spot.above + spot.h / 2
        offsets.append(offset)
    pools: list[tuple[float, int]] = []
    for y, o in zip(wanted, offsets, strict=True):
        mean, count = y - o, 1
        while pools and pools[-1][0] > mean:
            other, n = pools.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        pools.append((mean, count))
    settled = [mean for mean, count in pools for _ in range(count)]
    for spot, mean, o in zip(spots, settled, offsets, strict=True):
        spot.y = mean + o
