"""Drawing a plain graph: devices as boxes, actors in them, FIFOs between them.

A plain layered layout: an actor stands right of everything it reads from, endpoints
above and below, servers between. A TX/RX pair is drawn as what it stands for, a cut
FIFO. Two endpoints are drawn at most: with more, lines would cross boxes, and the rest
look the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dataflow.graph import Actor, Fifo, Graph, PortRef, TokenType

_WIRE = frozenset({"tx", "rx"})
_MOST_ENDPOINTS = 2
_NODE_H, _LANE_GAP, _LAYER_GAP = 26.0, 12.0, 30.0
_PAD, _TITLE_H, _BETWEEN = 14.0, 24.0, 62.0
_ARC_H = 18.0
_LETTER = 6.4
"""Width of a letter of the drawing's font, on average."""


@dataclass(frozen=True, slots=True)
class Link:
    """All FIFOs from one actor to another, TX/RX pairs seen through."""

    source: str
    target: str
    tokens: tuple[TokenType | None, ...]
    cut: bool
    control: bool


@dataclass(slots=True)
class _Box:
    """A device: its actors by layer, and where it stands."""

    device: str
    server: bool
    columns: dict[int, list[str]] = field(default_factory=dict)
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0


@dataclass(frozen=True, slots=True)
class _Node:
    x: float
    y: float
    w: float
    layer: int

    @property
    def middle(self) -> float:
        return self.x + self.w / 2


def links(graph: Graph) -> list[Link]:
    """Return what `graph` connects, one link for each pair of actors."""
    found: dict[tuple[str, str, bool], list[TokenType | None]] = {}
    for fifo in graph.fifos:
        if graph.actors[fifo.source.actor].type in _WIRE:
            continue
        end = _far_end(graph, fifo)
        if graph.actors[end.target.actor].type in _WIRE:
            continue  # a TX's own control token: it governs what is drawn as a line
        control = graph.port(end.target).control
        key = (fifo.source.actor, end.target.actor, control)
        found.setdefault(key, []).append(graph.token(fifo))
    return [
        Link(
            source,
            target,
            tuple(tokens),
            graph.actors[source].device != graph.actors[target].device,
            control,
        )
        for (source, target, control), tokens in found.items()
    ]


def _far_end(graph: Graph, fifo: Fifo) -> Fifo:
    """Return the FIFO that a token of `fifo` comes out of, behind all TX and RX.

    Data ports of a TX or RX correspond in order.
    """
    for _ in graph.actors:  # each actor is passed once at most
        actor = graph.actors[fifo.target.actor]
        if actor.type not in _WIRE:
            break
        data = [p.name for p in actor.inputs if not p.control]
        outs = [p.name for p in actor.outputs if not p.control]
        if fifo.target.port not in data or len(data) != len(outs):
            break
        out = PortRef(actor.name, outs[data.index(fifo.target.port)])
        if out not in graph.fifo_from:
            break
        fifo = graph.fifo_from[out]
    return fifo


def draw(graph: Graph) -> str:
    """Return an SVG drawing of `graph`."""
    every = links(graph)
    layers = _layers(graph, every)
    endpoints, servers, hidden = _devices(graph)
    shown = {*endpoints, *servers}
    layers = {
        name: layer
        for name, layer in layers.items()
        if (graph.actors[name].device or "") in shown and not _belongs_to(name, hidden)
    }
    boxes = {d: _Box(d, d in servers) for d in (*endpoints, *servers)}
    for name in _in_lanes(graph, layers, endpoints):
        device = graph.actors[name].device or ""
        boxes[device].columns.setdefault(layers[name], []).append(name)
    nodes, width, height = _place(graph, boxes, endpoints, servers, layers)
    drawn = [k for k in every if k.source in nodes and k.target in nodes]
    parts = [_box_svg(box) for box in boxes.values()]
    # Local lines first, so that a cut is never hidden under one.
    for link in sorted(drawn, key=lambda k: (k.cut, not k.control)):
        parts.append(_link_svg(link, nodes, boxes, graph))
    parts += [_node_svg(graph.actors[name], node) for name, node in nodes.items()]
    parts += _cut_words(graph, drawn, nodes, boxes, servers)
    if hidden:
        words = f"not drawn: {', '.join(hidden)}"
        parts.append(f'<text x="{_PAD}" y="{height + 12:.0f}">{escape(words)}</text>')
        height += 22
    return (
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'width="{width:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>graph {escape(graph.name)}</title>"
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="6" markerHeight="6" orient="auto-start-reverse">'
        '<path d="M0 0.8 L7.5 4 L0 7.2 z" fill="context-stroke"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _layers(graph: Graph, every: Sequence[Link]) -> dict[str, int]:
    """Return how far right each actor stands: one more than all that it reads from.

    FIFOs with initial tokens close cycles; going round as often as there are actors
    ends even where a cycle has none.
    """
    names = [a.name for a in graph.actors.values() if a.type not in _WIRE]
    layers = dict.fromkeys(names, 0)
    delayed = {(f.source.actor, f.target.actor) for f in graph.fifos if f.delay}
    data = [k for k in every if not k.control and (k.source, k.target) not in delayed]
    for _ in names:
        before = dict(layers)
        for link in data:
            layers[link.target] = min(
                max(layers[link.target], layers[link.source] + 1), len(names)
            )
        if layers == before:
            break
    for name in names:  # a controller stands left of what it governs
        governed = [layers[k.target] for k in every if k.source == name and k.control]
        if governed and not any(k.target == name for k in data):
            layers[name] = max(0, min(governed) - 1)
    used = {layer: i for i, layer in enumerate(sorted(set(layers.values())))}
    return {name: used[layer] for name, layer in layers.items()}


def _devices(graph: Graph) -> tuple[list[str], list[str], list[str]]:
    """Return endpoints to draw, servers, and endpoints that are left out."""
    fed = {f.target.actor for f in graph.fifos}
    starts = {
        a.device or ""
        for a in graph.actors.values()
        if a.name not in fed and not all(p.control for p in a.outputs)
    }
    devices = list(dict.fromkeys(a.device or "" for a in graph.actors.values()))
    endpoints = [d for d in devices if d in starts] or devices[:1]
    servers = [d for d in devices if d not in endpoints]
    # Endpoints that differ come before another of the same kind.
    kinds: dict[frozenset[tuple[str, str]], str] = {}
    for device in endpoints:
        actors = [a for a in graph.actors.values() if (a.device or "") == device]
        kind = frozenset((a.type, _short(a)) for a in actors if a.type not in _WIRE)
        kinds.setdefault(kind, device)
    order = [*kinds.values(), *(d for d in endpoints if d not in kinds.values())]
    kept = [d for d in endpoints if d in order[:_MOST_ENDPOINTS]]
    return kept, servers, [d for d in endpoints if d not in kept]


def _belongs_to(name: str, devices: Iterable[str]) -> bool:
    return any(f"[{d}]" in name or f"[{d}/" in name for d in devices)


def _in_lanes(
    graph: Graph, layers: Mapping[str, int], endpoints: Sequence[str]
) -> list[str]:
    """Return the actors so that those of a column come from the top down."""

    def order(name: str) -> tuple[bool, int]:
        controls = all(p.control for p in graph.actors[name].outputs)
        whose = [i for i, d in enumerate(endpoints) if _belongs_to(name, [d])]
        return controls and bool(graph.actors[name].outputs), min(whose, default=0)

    return sorted(layers, key=order)


def _short(actor: Actor) -> str:
    """Return the actor's name without its stream and place: its box says those."""
    return actor.name.split("[")[0]


def _label(actor: Actor, layers_endpoint: bool) -> str:
    stream = actor.name.partition("[")[2].partition("]")[0]
    if layers_endpoint or not stream:
        return _short(actor)
    return f"{_short(actor)} · {stream}"


def _place(
    graph: Graph,
    boxes: Mapping[str, _Box],
    endpoints: Sequence[str],
    servers: Sequence[str],
    layers: Mapping[str, int],
) -> tuple[dict[str, _Node], float, float]:
    """Return where every actor stands, and the size of it all; moves the boxes."""
    widths: dict[int, float] = {}
    for device in endpoints:
        for layer, names in boxes[device].columns.items():
            w = max(_width(graph.actors[n], True) for n in names)
            widths[layer] = max(widths.get(layer, 0.0), w)
    xs, x = {}, 2 * _PAD
    for layer in sorted({*widths, *layers.values()}):
        xs[layer] = x
        x += widths.get(layer, 0.0) + (_LAYER_GAP if layer in widths else 0.0)
    inner = x - _LAYER_GAP + _PAD
    for server in servers:
        columns = boxes[server].columns
        boxes[server].w = (
            2 * _PAD
            + sum(
                max(_width(graph.actors[n], False) for n in names) + _LAYER_GAP
                for names in columns.values()
            )
            - (_LAYER_GAP if columns else 0)
        )
        boxes[server].w = max(boxes[server].w, _LETTER * len(server) + 2 * _PAD)
    among = sum(boxes[s].w + 2 * _PAD for s in servers) - 2 * _PAD
    width = max(inner, among + 2 * _PAD) + _PAD
    for device in (*endpoints, *servers):
        lanes = max((len(c) for c in boxes[device].columns.values()), default=1)
        boxes[device].h = lanes * (_NODE_H + _LANE_GAP) - _LANE_GAP
        boxes[device].h += _TITLE_H + _PAD + (2 * _ARC_H if device in endpoints else 4)
    for device in endpoints:
        boxes[device].x, boxes[device].w = _PAD, inner - _PAD
    y = 2.0
    top, below = list(endpoints[::2]), list(endpoints[1::2])
    middle = max((boxes[s].h for s in servers), default=0.0)
    x = _first_server_x(boxes, servers, xs, among, width)
    for device in top:
        boxes[device].y = y
        y += boxes[device].h + _BETWEEN
    for server in servers:
        boxes[server].x, boxes[server].y = x, y
        x += boxes[server].w + 2 * _PAD
    y += middle + _BETWEEN if servers else 0.0
    for device in below:
        boxes[device].y = y
        y += boxes[device].h + _BETWEEN
    nodes: dict[str, _Node] = {}
    for device in endpoints:
        nodes |= _endpoint_nodes(graph, boxes[device], xs, widths)
    for server in servers:
        nodes |= _server_nodes(graph, boxes[server])
    return nodes, width, y - _BETWEEN + 4


def _first_server_x(
    boxes: Mapping[str, _Box],
    servers: Sequence[str],
    xs: Mapping[int, float],
    among: float,
    width: float,
) -> float:
    """Return where the servers begin, so that they stand about where they take part."""
    columns = [xs[c] for s in servers for c in boxes[s].columns]
    centre = sum(columns) / len(columns) + 30 if columns else width / 2
    return min(max(_PAD, centre - among / 2), max(_PAD, width - _PAD - among))


def _width(actor: Actor, endpoint: bool) -> float:
    return max(46.0, _LETTER * len(_label(actor, endpoint)) + 18)


def _endpoint_nodes(
    graph: Graph, box: _Box, xs: Mapping[int, float], widths: Mapping[int, float]
) -> Iterator[tuple[str, _Node]]:
    for layer, names in box.columns.items():
        for lane, name in enumerate(names):
            y = box.y + _TITLE_H + _ARC_H + lane * (_NODE_H + _LANE_GAP)
            yield name, _Node(xs[layer], y, widths[layer], layer)


def _server_nodes(graph: Graph, box: _Box) -> Iterator[tuple[str, _Node]]:
    x = box.x + _PAD
    for layer in sorted(box.columns):
        names = box.columns[layer]
        w = max(_width(graph.actors[n], False) for n in names)
        w = max(w, box.w - 2 * _PAD) if len(box.columns) == 1 else w
        for lane, name in enumerate(names):
            y = box.y + _TITLE_H + lane * (_NODE_H + _LANE_GAP)
            yield name, _Node(x, y, w, layer)
        x += w + _LAYER_GAP


def _box_svg(box: _Box) -> str:
    kind = "server" if box.server else "endpoint"
    return (
        f'<rect class="device {kind}" x="{box.x:.1f}" y="{box.y:.1f}" '
        f'width="{box.w:.1f}" height="{box.h:.1f}" rx="8"/>'
        f'<text class="device" x="{box.x + 10:.1f}" y="{box.y + 16:.1f}">'
        f"{escape(box.device)}</text>"
    )


_KINDS = {"fork": "switch", "join": "switch", "row": "switch", "onnx": "onnx"}


def _node_svg(actor: Actor, node: _Node) -> str:
    kind = _KINDS.get(actor.type, "plain")
    endpoint = "@" not in actor.name
    return (
        f"<g><title>{escape(actor.name)}: {escape(actor.type)}</title>"
        f'<rect class="actor {kind}" x="{node.x:.1f}" y="{node.y:.1f}" '
        f'width="{node.w:.1f}" height="{_NODE_H}" rx="4"/>'
        f'<text x="{node.middle:.1f}" y="{node.y + 17:.1f}" text-anchor="middle">'
        f"{escape(_label(actor, endpoint))}</text></g>"
    )


def _link_svg(
    link: Link, nodes: Mapping[str, _Node], boxes: Mapping[str, _Box], graph: Graph
) -> str:
    a, b = nodes[link.source], nodes[link.target]
    kind = "cut" if link.cut else "control" if link.control else "local"
    title = f"{link.source} -> {link.target}: " + ", ".join(
        str(token) if token else "control" for token in link.tokens
    )
    ends = [boxes[graph.actors[n].device or ""] for n in (link.source, link.target)]
    if link.cut and not all(box.server for box in ends):
        path = _cross(a, b, boxes[graph.actors[link.source].device or ""].server)
    elif link.cut or b.layer - a.layer == 1:
        y1, y2 = a.y + _NODE_H / 2, b.y + _NODE_H / 2
        x1, x2 = a.x + a.w, b.x
        half = (x2 - x1) / 2
        path = f"M{x1:.1f} {y1:.1f} C{x1 + half:.1f} {y1:.1f} {x2 - half:.1f} {y2:.1f} "
        path += f"{x2:.1f} {y2:.1f}"
    else:
        path = _arc(a, b, boxes[graph.actors[link.source].device or ""])
    return (
        f'<g><title>{escape(title)}</title><path class="fifo {kind}" d="{path}" '
        'marker-end="url(#arrow)"/></g>'
    )


def _cross(a: _Node, b: _Node, returns: bool) -> str:
    """Return a line from the rim of one device's actor to that of another's."""
    down = b.y > a.y
    x1 = a.x + a.w * (0.84 if returns else 0.5)
    x2 = b.x + b.w * (0.5 if returns else 0.56)
    y1, y2 = (a.y + _NODE_H, b.y) if down else (a.y, b.y + _NODE_H)
    bend = (y2 - y1) * 0.5
    return (
        f"M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} "
        f"{x2:.1f} {y2:.1f}"
    )


def _arc(a: _Node, b: _Node, box: _Box) -> str:
    """Return a line around the actors between: over the first lane or under all."""
    first = a.y <= box.y + _TITLE_H + _ARC_H and b.y <= a.y
    y1, y2 = (a.y, b.y) if first else (a.y + _NODE_H, b.y + _NODE_H)
    y = a.y - _ARC_H + 3 if first else box.y + box.h - 8
    # Off the middle of the target, where a cut FIFO may arrive.
    x1, x2 = a.middle, b.middle - (0 if first else b.w * 0.3)
    r = 12.0 if x2 > x1 else -12.0
    return (
        f"M{x1:.1f} {y1:.1f} C{x1:.1f} {y:.1f} {x1:.1f} {y:.1f} {x1 + r:.1f} {y:.1f} "
        f"L{x2 - r:.1f} {y:.1f} C{x2:.1f} {y:.1f} {x2:.1f} {y:.1f} {x2:.1f} {y2:.1f}"
    )


def _cut_words(
    graph: Graph,
    drawn: Sequence[Link],
    nodes: Mapping[str, _Node],
    boxes: Mapping[str, _Box],
    servers: Sequence[str],
) -> Iterator[str]:
    """Yield what crosses, written once where it leaves and once where it comes back."""
    written: dict[tuple[str, bool], tuple[_Node, list[str]]] = {}
    for link in drawn:
        leaves = graph.actors[link.target].device in servers
        end = link.source if leaves else link.target
        if link.cut and graph.actors[end].device not in servers:
            words = written.setdefault((end, leaves), (nodes[end], []))[1]
            words += [w for t in link.tokens if (w := _token(t)) not in words]
    for (name, leaves), (node, words) in written.items():
        box = boxes[graph.actors[name].device or ""]
        above = all(boxes[s].y > box.y for s in servers)
        x = node.middle - 20 if leaves else box.x + box.w
        for i, word in enumerate(words[:3]):
            y = box.y + box.h + 16 + 14 * i if above else box.y - 10 - 14 * i
            yield (
                f'<text class="cut" x="{x:.1f}" y="{y:.1f}" text-anchor="end">'
                f"{escape(word)}</text>"
            )


def _token(token: TokenType | None) -> str:
    if token is None:
        return "any token"
    size = token.nbytes
    amount = f"{size} B" if size < 1024 else f"{size / 1024:.4g} KiB"
    return f"{token}, {amount}"
