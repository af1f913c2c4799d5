"""The report of an exploration: a page that stands alone, and its plots as files."""

import json
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path

from dataflow.errors import UnderstudyError
from understudy import explore_plots as plots
from understudy import page, rate_plots
from understudy.exploration import Exploration, Panel, Row
from understudy.explore_words import link_text
from understudy.summary import NONE, Column, milliseconds, three_digits
from understudy.svg import Plot, document

Drawn = Mapping[str, Mapping[int, str]]
"""Name of a plot -> width -> its SVG text."""

PAGE, DATA, TABLE = "explore.html", "explore.json", "explore.csv"


def write_folder(exploration: Exploration, folder: Path) -> Path:
    """Write page, JSON, CSV and every plot as SVG and PDF; return the page's path.

    Raises:
        UnderstudyError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DATA).write_text(json.dumps(exploration.to_json(), indent=1))
        (folder / TABLE).write_text(exploration.to_csv())
        drawn: dict[str, dict[int, str]] = {}
        for name, draw in _drawings(exploration):
            plot = draw(page.WIDE)
            wide, narrow = plot.text(name), draw(page.NARROW).text(name)
            (folder / f"{name}.svg").write_text(document(wide))
            (folder / f"{name}.pdf").write_bytes(plot.pdf())
            drawn[name] = {page.WIDE: wide, page.NARROW: narrow}
    except OSError as error:
        raise UnderstudyError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
    path = folder / PAGE
    name = Path(exploration.model).name
    page.write_page(path, f"{name}: explored", _parts(exploration, name, drawn))
    return path


def _drawings(exploration: Exploration) -> Iterator[tuple[str, Callable[[int], Plot]]]:
    """Yield every plot of the page with the name of its file."""
    for index, panel in enumerate(exploration.panels):
        for name, draw in _of_panel(panel).items():
            yield f"{name}-{index}", draw
    for name, draw in _of_model(exploration).items():
        yield name, draw


def _of_panel(panel: Panel) -> dict[str, Callable[[int], Plot]]:
    """Return the plots of a panel: those that its rows allow."""
    found: dict[str, Callable[[int], Plot]] = {"bars": lambda w: plots.bars(panel, w)}
    if len(panel.thresholds) > 1:
        found["rate"] = lambda w: rate_plots.by_rate(panel, w)
    if panel.best is not None:
        found["pareto"] = lambda w: plots.pareto(panel, w)
        found["throughput"] = lambda w: plots.throughput(panel, w)
        if panel.links:
            found["regret"] = lambda w: rate_plots.regret(panel, w)
    return found


def _of_model(exploration: Exploration) -> dict[str, Callable[[int], Plot]]:
    panels = exploration.panels
    found: dict[str, Callable[[int], Plot]] = {}
    if any(row.kind == "single" for row in panels[0].rows):
        found["bytes"] = lambda w: plots.sizes(panels[0], w)
        found["memory"] = lambda w: plots.memory(panels[0], w)
    if any(row.measured for panel in panels for row in panel.rows):
        found["predicted"] = lambda w: plots.predicted(panels, w)
    return found


_CAPTIONS = {
    "bars": (
        "What a frame takes at each partition point, part by part, in the order of the "
        "model. ▲ is recommended, △ is as good as far as these profiles can tell, ✕ is "
        "excluded (the table says why). Up to the network a bar is the endpoint's time "
        "and communication. Figures over bars that are cut off are their totals."
    ),
    "rate": (
        "The quickest partition at each rate of the links, both ways (number above, "
        "rate of the switch below); the dotted line is the link explored. Where no "
        "line is drawn, another codec than the table's is the quickest."
    ),
    "pareto": (
        "Latency against bytes sent. Filled: no other is better in latency, bytes and "
        "endpoint time together. The larger, the longer the endpoint works. What sends "
        "nothing stands at the lower rim."
    ),
    "throughput": ("Frames a second with as many under way as it takes."),
    "regret": (
        "By how much the recommended partition is slower than the best one, were links "
        "and servers other than explored. The ring is what was explored."
    ),
    "bytes": (
        "What crosses, by depth: as computed, and as sent with the codec of the first "
        "link's table (crosses: several tensors). To beat is the line of the frame as "
        "a camera has it."
    ),
    "memory": "Weights and activations on each side, cuts of one tensor.",
    "predicted": (
        "Predicted against measured in real processes; the band is ±10 %, bars are "
        "the prediction's error and what was measured, from least to 90th percentile."
    ),
}


def _parts(exploration: Exploration, name: str, drawn: Drawn) -> Iterator[str]:
    devices = " → ".join(device.name for device in exploration.devices)
    links = [panel.name for panel in exploration.panels if panel.links]
    words = [devices, " · ".join(links), _wanted(exploration)]
    yield page.header("understudy explore", name, words)
    for index, panel in enumerate(exploration.panels):
        yield from _panel(panel, index, drawn)
    yield from _model(exploration, drawn)
    yield from _setting(exploration)


def _wanted(exploration: Exploration) -> str:
    weights = exploration.weights
    if len(weights) == 1:
        return f"least {next(iter(weights))}"
    return "least " + " + ".join(f"{w:g} {name}" for name, w in weights.items())


def _panel(panel: Panel, index: int, drawn: Drawn) -> Iterator[str]:
    yield f"<section><h2>{escape(_over(panel))}</h2>"
    kind = "kept" if panel.best is not None else "broken"
    yield f'<section class="verdict {kind}"><p>{escape(panel.why)}</p></section>'
    if panel.best is not None:
        yield page.tiles(_tiles(panel, panel.best))
    for name in _of_panel(panel):
        yield _both(f"{name}-{index}", drawn)
        yield f'<p class="caption">{escape(_CAPTIONS[name])}</p>'
        if name == "bars":
            yield page.table(*_table(panel), caption="Partition points")
    yield "</section>"


def _both(name: str, drawn: Drawn) -> str:
    return page.both(lambda width: drawn[name][width])


def _over(panel: Panel) -> str:
    return (
        f"Over {'; '.join(map(link_text, panel.links))}" if panel.links else "No link"
    )


def _tiles(panel: Panel, best: Row) -> Iterator[tuple[str, str, str]]:
    cost = best.cost
    yield "recommended", f"point {best.number}", best.label
    yield "a frame", f"{_number(cost.total_ms)} ms", f"± {_number(cost.error_ms)} ms"
    local = next((r for r in panel.rows if r.kind == "local"), None)
    if local is not None and local is not best:
        gain = local.cost.total_ms / cost.total_ms
        note = f"{three_digits(gain)} times as long"
        yield "all local", f"{_number(local.cost.total_ms)} ms", note
        note = ""
        if cost.busy_ms:
            note = (
                f"{three_digits(local.cost.busy_ms / cost.busy_ms)} times if all local"
            )
        yield "endpoint works", f"{_number(cost.busy_ms)} ms", note
    stage = best.slowest
    yield "frames/s", _number(cost.fps), f"slowest: {stage}"
    yield "sent a frame", f"{_number(cost.wire_bytes / 1e3)} kB", best.codec


def _table(panel: Panel) -> tuple[list[Column], list[list[str]]]:
    power = any(row.cost.endpoint_mj is not None for row in panel.rows)
    measured = any(row.measured for row in panel.rows)
    columns = [Column("#"), Column("partition", number=False)]
    columns += [Column("depth %"), Column("codec", number=False)]
    columns += [Column("kB")]
    columns += [Column(f"{name} ms") for name in plots.PARTS]
    columns += [Column("total ms"), Column("frames/s")]
    columns += [Column("slowest", number=False), Column("MB"), Column("server MB")]
    columns += [Column("mJ")] * power + [Column("measured ms")] * measured
    columns += [Column("", number=False)]
    return columns, [_cells(row, power, measured) for row in panel.ranked()]


def _cells(row: Row, power: bool, measured: bool) -> list[str]:
    cost = row.cost
    codecs = " ".join(codec for _, codec in row.crossings)
    cells = [str(row.number), row.label, f"{100 * row.depth:.0f}", codecs]
    cells.append(_number(cost.wire_bytes / 1e3))
    cells += [_ms(part(cost)) for _, part in plots.PARTS.values()]
    cells += [
        f"{_ms(cost.total_ms)}\u00a0±\u00a0{_ms(cost.error_ms)}",
        _number(cost.fps),
    ]
    cells += [row.slowest, _number(cost.endpoint_mb), _number(cost.server_mb)]
    if power:
        cells.append(_number(cost.endpoint_mj))
    if measured:
        cells.append(_ms(row.measured.p50_ms if row.measured else None))
    return [*cells, "; ".join(_remarks(row))]


def _ms(value: float | None) -> str:
    return "0" if value == 0 else milliseconds(value)


def _remarks(row: Row) -> Iterator[str]:
    if row.best:
        yield "recommended"
    elif row.tie:
        yield "as good"
    yield from row.excluded
    if row.source != "measured":
        yield row.source
    if row.raw_input and not row.excluded:
        yield "raw input leaves the endpoint"
    yield from row.notes


def _model(exploration: Exploration, drawn: Drawn) -> Iterator[str]:
    found = _of_model(exploration)
    if not found:
        return
    yield "<section><h2>The model</h2>"
    for name in found:
        yield _both(name, drawn)
        yield f'<p class="caption">{escape(_CAPTIONS[name])}</p>'
    yield "</section>"


def _setting(exploration: Exploration) -> Iterator[str]:
    yield "<section><h2>Setting</h2>"
    for device in exploration.devices:
        profile = device.profile
        noise = profile.noise
        yield page.facts(
            [
                ("profile", f"{device.file} ({profile.device})"),
                ("times", device.scaled or "as profiled"),
                ("whole model", _whole(device.factor, profile.whole.min_ms)),
                ("rounds", str(profile.rounds)),
                ("threads", str(profile.session.threads)),
                ("providers", ", ".join(profile.session.providers)),
                ("optimisation", profile.session.optimisation),
                ("noise", f"{noise.p90_over_min:.2f} (p90 over least of a fixed "
                          f"product){', too busy' if noise.flagged else ''}"),
                *profile.machine.items(),
            ],
            f"Device {device.name}",
        )  # fmt: skip
    facts = [("codecs looked at", ", ".join(exploration.codecs))]
    facts += [("constraints", text) for text in _constraints(exploration)]
    if exploration.exit is not None:
        early = exploration.exit
        facts.append(
            ("early exit", f"{early.tensor}: {early.share:.0%} of the frames, "
                           f"{early.ms:g} ms")
        )  # fmt: skip
    if exploration.run:
        facts.append(("scaled by the run", exploration.run))
    facts.append(("files", f"{DATA}, {TABLE} and each plot as SVG and PDF lie beside"))
    yield page.facts(facts, "Exploration")
    yield (
        '<p class="caption">Sources of times: measured, head and tail ran as sessions '
        "of their own; interpolated, between two that did; profile, from the times of "
        "single nodes; modelled, of a device that was not there. “send raw” is "
        "the camera's frame, one byte a value: what a split has to beat.</p></section>"
    )


def _whole(factor: float, min_ms: float) -> str:
    if factor == 1.0:
        return f"{_number(min_ms)} ms"
    return f"{_number(min_ms * factor)} ms ({_number(min_ms)} ms times {factor:g})"


def _constraints(exploration: Exploration) -> Iterator[str]:
    found = exploration.to_json()["constraints"]
    for name, value in found.items():
        if value:
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"{name.replace('_', ' ')}: {shown}"


def _number(value: float | None) -> str:
    return NONE if value is None else three_digits(value)
