"""A picture of a graph as DOT and as Mermaid: plain text, devices as subgraphs."""

from collections.abc import Iterator

from dataflow.graph import Actor, Fifo
from understudy.pictures import WIRE, Picture

_OFF, _CUT, _FAILED = "#b5b5b5", "#d55e00", "#c0392b"


def dot(picture: Picture) -> str:
    """Return `picture` as the text of a DOT file, for graphviz."""
    graph = picture.graph
    ids = {name: f"a{i}" for i, name in enumerate(graph.actors)}
    lines = [
        f"digraph {_dot_text(graph.name)} {{",
        '  rankdir=LR; fontname="Helvetica"; fontsize=11; labeljust=l; labelloc=b;',
        f"  label={_dot_text(*picture.notes())};",
        '  node [shape=box, style=rounded, fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9];',
    ]
    for i, device in enumerate(picture.devices):
        indent = "  "
        if device:
            failed = device in picture.failed
            title = f"{device} (failed)" if failed else device
            colour = _FAILED if failed else "#8a93a0"
            lines.append(f"  subgraph cluster_{i} {{")
            lines.append(
                f'    label={_dot_text(title)}; color="{colour}"; bgcolor="#f5f6f8"; '
                f"style={'dashed' if failed else 'rounded'};"
            )
            indent = "    "
        for actor in _on(picture, device):
            style = ""
            if actor.name in picture.off_actors:
                style = f', style="rounded,dashed", color="{_OFF}", fontcolor="{_OFF}"'
            text = _dot_text(_actor_text(picture, actor))
            about = _dot_text(f"{actor.name}: {actor.type}")
            lines.append(
                f"{indent}{ids[actor.name]} [label={text}, tooltip={about}{style}];"
            )
        if device:
            lines.append("  }")
    for fifo in graph.fifos:
        ends = f"{ids[fifo.source.actor]} -> {ids[fifo.target.actor]}"
        lines.append(f"  {ends} [{', '.join(_dot_fifo(picture, fifo))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_fifo(picture: Picture, fifo: Fifo) -> Iterator[str]:
    yield f"tooltip={_dot_text(picture.fifo_text(fifo))}"
    rates = [picture.rate_text(end) for end in (fifo.source, fifo.target)]
    if rates[0] != rates[1]:
        yield f"taillabel={_dot_text(rates[0])}, headlabel={_dot_text(rates[1])}"
    if text := _fifo_words(picture, fifo, both=rates[0] != rates[1]):
        yield f"label={_dot_text(text)}"
    off, cut = fifo in picture.off_fifos, picture.is_cut(fifo)
    if picture.is_control(fifo):
        yield "style=dashed"
    if off:
        yield f'color="{_OFF}", fontcolor="{_OFF}"'
    elif cut:
        yield f'color="{_CUT}", penwidth=2'


def mermaid(picture: Picture) -> str:
    """Return `picture` as a Mermaid flowchart."""
    graph = picture.graph
    ids = {name: f"a{i}" for i, name in enumerate(graph.actors)}
    lines = ["flowchart LR"]
    for i, device in enumerate(picture.devices):
        if device:
            title = f"{device} (failed)" if device in picture.failed else device
            lines.append(f"  subgraph d{i}[{_mermaid_text(title)}]")
        for actor in _on(picture, device):
            name = _mermaid_text(_actor_text(picture, actor))
            off = ":::off" if actor.name in picture.off_actors else ""
            lines.append(f"    {ids[actor.name]}[{name}]{off}")
        if device:
            lines.append("  end")
    for fifo in graph.fifos:
        rates = [picture.rate_text(end) for end in (fifo.source, fifo.target)]
        text = _fifo_words(picture, fifo, both=rates[0] != rates[1])
        if rates[0] != rates[1]:
            text = f"{rates[0]} to {rates[1]}{', ' if text else ''}{text}"
        arrow = "-.->" if picture.is_control(fifo) else "-->"
        label = f"|{_mermaid_text(text)}|" if text else ""
        ends = (ids[fifo.source.actor], ids[fifo.target.actor])
        lines.append(f"  {ends[0]} {arrow}{label} {ends[1]}")
    lines.append(f"  notes[{_mermaid_text(*picture.notes())}]:::notes")
    for i, fifo in enumerate(graph.fifos):
        if fifo in picture.off_fifos:
            lines.append(f"  linkStyle {i} stroke:{_OFF},color:{_OFF}")
        elif picture.is_cut(fifo):
            lines.append(f"  linkStyle {i} stroke:{_CUT},stroke-width:3px")
    lines.append(f"  classDef off stroke:{_OFF},color:{_OFF},stroke-dasharray:3 2")
    lines.append("  classDef notes fill:none,stroke:none,text-align:left")
    return "\n".join(lines) + "\n"


def _on(picture: Picture, device: str) -> list[Actor]:
    return [a for a in picture.graph.actors.values() if (a.device or "") == device]


def _actor_text(picture: Picture, actor: Actor) -> str:
    return actor.type if actor.type in WIRE else picture.short_name(actor)


def _fifo_words(picture: Picture, fifo: Fifo, *, both: bool) -> str:
    """Return what is written at the middle of a FIFO: `both`: not its rate."""
    words = []
    rate = picture.rate_text(fifo.source)
    if not both and rate != "1" and not picture.is_control(fifo):
        words.append(rate)
    if fifo.capacity is not None and fifo.capacity != picture.usual_capacity:
        words.append(f"⟨{fifo.capacity}⟩")
    if fifo.delay:
        words.append(f"{fifo.delay} initial")
    if picture.is_cut(fifo) and (size := picture.size_text(fifo)):
        words.append(size)
    return ", ".join(words)


def _dot_text(*lines: str) -> str:
    r"""Return lines as a quoted string of DOT, none of its escapes left in them.

    >>> print(_dot_text('say "hi"', "\\N"))
    "say \"hi\"\l\\N\l"
    """
    quoted = [_plain(t).replace("\\", "\\\\").replace('"', '\\"') for t in lines]
    text = quoted[0] if len(quoted) == 1 else "".join(f"{t}\\l" for t in quoted)
    return f'"{text}"'


def _mermaid_text(*lines: str) -> str:
    """Return lines as a quoted label of Mermaid, its special letters as entities.

    >>> _mermaid_text('a "b" <c>')
    '"a #quot;b#quot; #lt;c#gt;"'
    """
    quoted = [
        _plain(t)
        .replace("&", "#amp;")
        .replace("#", "#35;")
        .replace("#35;amp;", "#amp;")
        .replace('"', "#quot;")
        .replace("<", "#lt;")
        .replace(">", "#gt;")
        .replace("`", "#96;")
        for t in lines
    ]
    return f'"{"<br/>".join(quoted)}"'


def _plain(text: str) -> str:
    """Return `text` without line ends and other control characters."""
    return "".join(c if c.isprintable() else " " for c in text)
