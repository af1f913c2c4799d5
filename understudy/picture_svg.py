"""A picture of a graph as SVG, for papers and pages: no scripts, no outside fonts."""

import html
from collections.abc import Iterator, Mapping, Sequence

from dataflow.graph import Actor, Fifo
from understudy.layers import Item, Layout, Line, Rect, layout
from understudy.pictures import WIRE, Picture

Point = tuple[float, float]

_LETTER = 6.3
"""Width of a letter of 11 pixels, on average."""
_NOTE_H = 15.0
_COLOURS = ("#0072b2", "#009e73", "#9c4f96", "#b8860b", "#56a0c8", "#7a6a58")
"""Of DPGs, told apart by the colour-blind (after Okabe and Ito); vermilion is kept for
cut FIFOs."""
_TIPS = {"tip": "#333", "tip-cut": "#d55e00", "tip-off": "#cfcfcf"}
_STYLE = """
text{font:11px Helvetica,Arial,sans-serif;fill:#1a1a1a}
.small{font-size:8.5px;fill:#555}
.number{font-size:9px;fill:#333;paint-order:stroke;stroke:#fff;stroke-width:2.5px}
.device>rect{fill:#f5f6f8;stroke:#8a93a0}
.device>text{font-weight:bold;fill:#444c58}
.failed>rect{fill:#fdf3f1;stroke:#c0392b;stroke-dasharray:5 3}
.failed>text{fill:#c0392b}
.actor>rect{fill:#fff;stroke:#333;stroke-width:1.1}
.fifo>path{fill:none;stroke:#333;stroke-width:1.1}
.control>path{stroke-dasharray:3 2.5;stroke-width:1}
.cut>path{stroke:#d55e00;stroke-width:2}
.cut>text{fill:#a84700}
.off>.dot{fill:#b5b5b5}
.actor.off>rect{fill:#f7f7f7;stroke:#c4c4c4;stroke-dasharray:3 2}
.actor.off>text,.numbers.off>text{fill:#b5b5b5}
.fifo.off>path{stroke:#cfcfcf;stroke-width:1}
.dot{fill:#1a1a1a}
"""


def svg(picture: Picture) -> str:
    """Return `picture` as the text of an SVG file."""
    graph = picture.graph
    fifos = graph.fifos
    placed = layout(
        [_item(picture, actor) for actor in graph.actors.values()],
        [_line(picture, fifo) for fifo in fifos],
        _hosts(picture),
    )
    notes = picture.notes()
    longest = max(len(note) for note in notes)
    width = max(placed.width, 5.0 * longest + 36)
    height = placed.height + _NOTE_H * len(notes) + 10
    colours = {
        dpg.name: _COLOURS[i % len(_COLOURS)] for i, dpg in enumerate(graph.dpgs)
    }
    parts = [_device(picture, name, rect) for name, rect in placed.boxes.items()]
    lines = list(zip(fifos, placed.lines, strict=True))
    # What is off below what is on, and cut FIFOs above all others.
    lines.sort(key=lambda pair: (pair[0] not in picture.off_fifos, _cut(picture, pair)))
    parts += [_fifo(picture, f, points, placed, colours) for f, points in lines]
    parts += [
        _actor(picture, graph.actors[name], rect, colours)
        for name, rect in placed.items.items()
    ]
    parts += [_numbers(picture, f, points, placed) for f, points in lines]
    parts += _sizes(picture, lines, placed)
    for i, note in enumerate(notes):
        y = placed.height + _NOTE_H * (i + 0.6)
        colour = colours[graph.dpgs[i].name] if i < len(graph.dpgs) else "#fff"
        parts.append(
            f'<rect x="18" y="{y - 8:.1f}" width="9" height="9" fill="{colour}"/>'
            f'<text class="note" x="{32 if i < len(graph.dpgs) else 18}" '
            f'y="{y:.1f}">{escape(note)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f"<title>{escape(graph.name)}</title><style>{_STYLE}</style>\n"
        f"<defs>{''.join(_tip(*tip) for tip in _TIPS.items())}</defs>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def escape(text: str) -> str:
    """Return `text` for XML, which knows no control characters."""
    return html.escape("".join(c if c.isprintable() else " " for c in text))


def _cut(picture: Picture, pair: tuple[Fifo, object]) -> bool:
    return picture.is_cut(pair[0])


def _item(picture: Picture, actor: Actor) -> Item:
    if actor.type in WIRE:
        return Item(actor.name, actor.device or "", 17.0, small=True)
    name = picture.short_name(actor)
    return Item(actor.name, actor.device or "", max(40.0, _LETTER * len(name) + 16))


def _line(picture: Picture, fifo: Fifo) -> Line:
    control = picture.is_control(fifo)
    bundle = ("control", fifo.source.actor) if control else None
    return Line(fifo.source.actor, fifo.target.actor, fifo.delay > 0, bundle)


def _hosts(picture: Picture) -> set[str]:
    """Return the devices that no stream begins on: they stand between the others."""
    graph = picture.graph
    begins = {
        a.device
        for a in graph.actors.values()
        if not any(graph.inputs(a.name)) and not all(p.control for p in a.outputs)
    }
    return {device for device in picture.devices if device and device not in begins}


def _device(picture: Picture, name: str, r: Rect) -> str:
    failed = name in picture.failed
    return (
        f'<g class="device{" failed" if failed else ""}" data-device="{escape(name)}">'
        f'<rect x="{r.x:.1f}" y="{r.y:.1f}" width="{r.w:.1f}" height="{r.h:.1f}" '
        f'rx="7"/><text x="{r.x + 10:.1f}" y="{r.y + 17:.1f}">{escape(name)}'
        f"{' (failed)' if failed else ''}</text></g>"
    )


def _actor(picture: Picture, actor: Actor, r: Rect, colours: Mapping[str, str]) -> str:
    off = actor.name in picture.off_actors
    dpg = picture.dpg_of.get(actor.name)
    style = ""
    if dpg is not None and not off:
        colour = colours[dpg.name]
        style = f' style="stroke:{colour};fill:{colour}1c;stroke-width:1.6"'
    small = actor.type in WIRE
    text = actor.type if small else picture.short_name(actor)
    about = f"{actor.name}: {actor.type}"
    if actor.time is not None:
        about += f", {actor.time} time units"
    if dpg is not None:
        about += f", in DPG {dpg.name}"
    frame = (
        f'<rect x="{r.x:.1f}" y="{r.y:.1f}" width="{r.w:.1f}" height="{r.h:.1f}" '
        f'rx="{2 if small else 4}"'
    )
    tint = f"{frame}{style}/>" if style else ""
    kind = ' class="small"' if small else ""
    # White below the tint, so that no line shines through.
    return (
        f'<g class="actor{" off" if off else ""}" data-actor="{escape(actor.name)}">'
        f"<title>{escape(about)}</title>{frame}/>{tint}<text{kind} "
        f'x="{r.x + r.w / 2:.1f}" y="{r.y + r.h / 2 + (3 if small else 4):.1f}" '
        f'text-anchor="middle">{escape(text)}</text></g>'
    )


def _fifo(
    picture: Picture,
    fifo: Fifo,
    points: Sequence[Point],
    placed: Layout,
    colours: Mapping[str, str],
) -> str:
    style = ""
    dpg = picture.dpg_of.get(fifo.source.actor)
    if picture.is_control(fifo) and dpg and fifo not in picture.off_fifos:
        style = f' style="stroke:{colours[dpg.name]}"'
    path = _curve(points) if points else _loop(placed.items[fifo.source.actor])
    kinds = _kinds(picture, fifo).split()
    tip = next((f"tip-{k}" for k in ("off", "cut") if k in kinds), "tip")
    return (
        f'<g class="fifo{_kinds(picture, fifo)}" data-fifo="{escape(str(fifo))}">'
        f"<title>{escape(picture.fifo_text(fifo))}</title>"
        f'<path d="{path}"{style} marker-end="url(#{tip})"/></g>'
    )


def _tip(name: str, colour: str) -> str:
    """Return an arrow head. Viewers do not agree on heads of their line's colour."""
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0.8 L8 4 L0 7.2 z" fill="{colour}"/></marker>'
    )


def _kinds(picture: Picture, fifo: Fifo) -> str:
    """Return the classes of a FIFO, a space before each."""
    holds = {
        "control": picture.is_control(fifo),
        "cut": picture.is_cut(fifo),
        "off": fifo in picture.off_fifos,
    }
    return "".join(f" {kind}" for kind, is_so in holds.items() if is_so)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    path = [f"M{x:.1f} {y:.1f}"]
    for i, (x2, y2) in enumerate(rest):
        if i % 2:  # across a column, as straight as it was placed
            path.append(f"L{x2:.1f} {y2:.1f}")
        else:
            half = (x2 - x) / 2
            path.append(
                f"C{x + half:.1f} {y:.1f} {x2 - half:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
            )
        x, y = x2, y2
    return " ".join(path)


def _loop(r: Rect) -> str:
    """Return the way from an actor to itself, over its top."""
    x1, x2, y = r.x + r.w * 0.7, r.x + r.w * 0.3, r.y
    path = f"M{x1:.1f} {y:.1f} C{x1 + 12:.1f} {y - 18:.1f} {x2 - 12:.1f} "
    return path + f"{y - 18:.1f} {x2:.1f} {y:.1f}"


def _numbers(
    picture: Picture, fifo: Fifo, points: Sequence[Point], placed: Layout
) -> str:
    """Return rates at the ends, capacity and initial tokens between them."""
    if not points:
        r = placed.items[fifo.source.actor]
        y = r.y - 13.5
        points = [(r.x + r.w * 0.8, y), (r.x + r.w * 0.2, y)]
    (x1, y1), (x2, y2) = points[0], points[1]
    rates = [picture.rate_text(end) for end in (fifo.source, fifo.target)]
    middle, parts = [], []
    if rates[0] != rates[1]:
        xn, yn = points[-1]
        away, back = _sign(x2 - x1), _sign(xn - points[-2][0])
        parts = [
            _number(x1 + 6 * away, y1 - 3, rates[0], "start" if away > 0 else "end"),
            _number(xn - 9 * back, yn - 3, rates[1], "end" if back > 0 else "start"),
        ]
    elif rates[0] != "1" and not _between_wires(picture, fifo):
        middle = [rates[0]]
    if fifo.capacity is not None and fifo.capacity != picture.usual_capacity:
        middle.append(f"⟨{fifo.capacity}⟩")
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if middle:
        parts.append(_number(x, y - 4, " ".join(middle), "middle"))
    if fifo.delay:
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
        if fifo.delay > 1:
            parts.append(_number(x + 4, y + 11, str(fifo.delay), "start"))
    if not parts:
        return ""
    return f'<g class="numbers{_kinds(picture, fifo)}">{"".join(parts)}</g>'


def _between_wires(picture: Picture, fifo: Fifo) -> bool:
    """Return whether a FIFO goes from a TX to an RX, whose rates stand before it."""
    ends = (picture.graph.actors[end.actor] for end in (fifo.source, fifo.target))
    return all(actor.type in WIRE for actor in ends)


def _sizes(
    picture: Picture,
    lines: Sequence[tuple[Fifo, Sequence[Point]]],
    placed: Layout,
) -> Iterator[str]:
    """Yield the bytes that cross, once for all FIFOs of an actor that are alike."""
    alike: dict[tuple[str, str], list[tuple[Fifo, Sequence[Point]]]] = {}
    for fifo, points in lines:
        if picture.is_cut(fifo) and (size := picture.size_text(fifo)):
            alike.setdefault((fifo.source.actor, size), []).append((fifo, points))
    for (name, size), cut in alike.items():
        ways = sorted(list(points) for _, points in cut)
        (x, top), (_, last) = ways[0][0], ways[-1][0]
        r = placed.items[name]
        if picture.graph.actors[name].type in WIRE:
            text = _number(r.x + r.w / 2, r.y + r.h + 9.5, size, "middle")
        elif ways[0][1][1] >= top - 6:
            text = _number(x + 5, top - 6, size, "start")
        elif ways[-1][1][1] <= last + 6:
            text = _number(x + 5, last + 12, size, "start")
        else:
            text = _number(x + 26, (top + last) / 2 + 3, size, "start")
        off = all(fifo in picture.off_fifos for fifo, _ in cut)
        yield f'<g class="numbers cut{" off" if off else ""}">{text}</g>'


def _sign(number: float) -> int:
    return 1 if number > 0 else -1


def _number(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text class="number" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
