"""The report of a run: one HTML page that stands alone, in a browser and on paper.

Nothing is loaded from elsewhere and no script runs. The same run gives the same page,
byte for byte. All text that comes out of the run folder is escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from dataflow.errors import UnderstudyError
from dataflow.graph import DROP_ROW, Graph
from understudy import plots
from understudy.drawing import draw
from understudy.failure_plot import failure_steps, steps
from understudy.figures import FaultFigures, Figures
from understudy.machine import machine_facts
from understudy.promise import PROMISE, Verdict
from understudy.run_folder import DEPLOYMENT_FILE, DeviceRecord, Run
from understudy.summary import (
    NONE,
    Column,
    full_text,
    milliseconds,
    outcome_table,
    promise_text,
    served_table,
    share_text,
    stream_table,
)

_WIDE, _NARROW = 860, 360
_MOST_VIOLATIONS = 50
_MOST_ROWS = 200


def write_report(
    run: Run,
    figures: Figures,
    verdict: Verdict,
    path: Path,
    graph: Graph | None = None,
) -> None:
    """Write the report of `run` to `path`.

    Args:
        run: What the run folder holds.
        figures: Its figures.
        verdict: Whether it kept the promise.
        path: File to write; it is whole or it is not there.
        graph: What to draw; by default the graph of the run's plan, if it has one.

    Raises:
        UnderstudyError: The file cannot be written.
    """
    graph = graph or (run.plan.graph if run.plan else None)
    page = "\n".join(_page(run, figures, verdict, graph))
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UnderstudyError(
            f"{path}: cannot be written ({error.strerror}); free the place or name "
            "another"
        ) from None


def _page(
    run: Run, figures: Figures, verdict: Verdict, graph: Graph | None
) -> Iterator[str]:
    name = figures.deployment or run.folder.name
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: understudy run</title>"
        f"<style>{_STYLE}</style></head><body><main>"
    )
    yield from _head(run, figures, name)
    yield from _verdict(verdict)
    yield from _tiles(figures)
    if figures.frames:
        yield from _outcomes(run, figures)
    yield from _failures(run, figures)
    if figures.frames:
        yield from _latency(run, figures)
    yield from _streams(figures, verdict)
    if graph is not None:
        yield from _graph(graph)
    yield from _setting(run)
    yield "</main></body></html>\n"


def _head(run: Run, figures: Figures, name: str) -> Iterator[str]:
    words = [f"graph {figures.graph}" if figures.graph else ""]
    if figures.started_epoch_s is not None:
        started = datetime.fromtimestamp(figures.started_epoch_s, UTC)
        words.append(f"{started:%Y-%m-%d %H:%M:%S} UTC")
    words.append(f"{figures.seconds:.1f} s")
    if figures.codecs:
        words.append(f"codec {', '.join(figures.codecs)}")
    plans = dict.fromkeys(life.plan[:12] for life in run.devices if life.plan)
    words += [f"plan {digest}" for digest in plans]
    yield (
        f'<header><p class="kicker">understudy run</p><h1>{escape(name)}</h1>'
        f"<p class=sub>{escape(' · '.join(filter(None, words)))}</p></header>"
    )


def _verdict(verdict: Verdict) -> Iterator[str]:
    kind, word = ("kept", "✓ Kept") if verdict.kept else ("broken", "✗ Broken")
    yield f'<section class="verdict {kind}"><p><b>{word}</b> — {_said(verdict)}</p>'
    if verdict.violations:
        shown = verdict.violations[:_MOST_VIOLATIONS]
        yield "<ul>" + "".join(f"<li>{escape(v)}</li>" for v in shown) + "</ul>"
        more = len(verdict.violations) - len(shown)
        yield f"<p>and {more:,} more</p>" if more > 0 else ""
    yield "</section>"


def _said(verdict: Verdict) -> str:
    if not verdict.kept:
        return escape(promise_text(verdict))
    frames, streams = verdict.frames, len(verdict.streams)
    many = "each stream has" if streams != 1 else "the stream has"
    return (
        f"the promise “{PROMISE}” was kept. From frame 0 to the last, {many} "
        f"exactly one outcome for every frame: {frames:,} frames of {streams:,} "
        f"{'stream' if streams == 1 else 'streams'}, checked in the results files."
    )


def _tiles(figures: Figures) -> Iterator[str]:
    full = next(o for o in figures.outcomes if o.status == "full")
    tiles = [("frames", f"{figures.frames:,}", _per_second(figures))]
    accuracy = f"{full.accuracy.share:.1%} correct" if full.accuracy else ""
    tiles.append(("full", share_text(figures.count("full"), figures.frames), accuracy))
    for status in ("degraded", "dropped"):
        count = figures.count(status)
        tiles.append((status, share_text(count, figures.frames), f"{count:,} frames"))
    if figures.faults:
        worst = figures.gap_ms_max
        gap = NONE if worst is None else f"{milliseconds(worst)} ms"
        count = len(figures.faults)
        note = "one failure" if count == 1 else f"worst of {count} failures"
        tiles.append(("gap", gap, note))
    yield '<section class="tiles">'
    for title, number, note in tiles:
        yield (
            f'<div><span class="title">{title}</span>'
            f'<span class="number">{escape(number)}</span>'
            f'<span class="note">{escape(note)}</span></div>'
        )
    yield "</section>"
    if figures.full_error is not None:
        words = full_text(figures.full_error).capitalize()
        yield f"<p>{words} (greatest difference over greatest magnitude).</p>"


def _per_second(figures: Figures) -> str:
    return f"{figures.fps:.1f} answers/s" if figures.fps is not None else ""


def _outcomes(run: Run, figures: Figures) -> Iterator[str]:
    colours = plots.palette(run)
    yield "<section><h2>Who answered, and when</h2>"
    yield _legend(figures, colours)
    yield _both(plots.timeline(run, figures, colours, w) for w in (_WIDE, _NARROW))
    marks = " ▼ marks a failure, ▲ when all had the lost device back." * bool(
        figures.faults
    )
    yield (
        '<p class="caption">One strip a stream. Full height: full; lower: degraded; a '
        f"mark across the strip: dropped.{marks}</p>"
    )
    yield _table(*outcome_table(figures), caption="Outcomes")
    yield _table(*served_table(figures), caption="Who answered")
    yield "</section>"


def _legend(figures: Figures, colours: plots.Palette) -> str:
    dropped = figures.count("dropped") > 0
    items = (
        f'<span><i style="background:{colour}"></i>{escape(colours.label(row))}</span>'
        for row, colour in colours.rows.items()
        if row != DROP_ROW or dropped
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _failures(run: Run, figures: Figures) -> Iterator[str]:
    yield "<section><h2>Failures</h2>"
    if not figures.faults:
        yield "<p>None: no device was lost in this run.</p></section>"
        return
    yield _table(*_fault_table(figures.faults))
    yield (
        '<p class="caption"><b>Gap</b>: of the frames outstanding at the failure or '
        "fired in the 2 s after it, the longest time from the source's firing to the "
        "outcome, minus the median of the stream's 200 frames before; over the streams "
        "that the lost device was serving (*: it served none, so over all); the frame "
        "is named. Degraded and dropped count the same frames. Detect, decide, switch "
        "and refill are those of the slowest device that had frames there. "
        "<b>Refill</b>: until no more frames were without an outcome than a frame "
        "usually finds. <b>Back</b>: since the failure, until the last device had it "
        "again.</p>"
    )
    if any(steps(d) for fault in figures.faults for d in fault.acting):
        yield _both(failure_steps(figures, w) for w in (_WIDE, _NARROW))
        yield (
            '<p class="caption">What followed each failure, on the clock of the device '
            "that had frames there: linear up to 1 ms, logarithmic beyond. A whisker "
            "is what the clocks of two hosts may be apart.</p>"
        )
    if any(fault.gap_ms is not None for fault in figures.faults):
        colours = plots.palette(run)
        yield _both(plots.failures(run, figures, colours, w) for w in (_WIDE, _NARROW))
        yield (
            '<p class="caption">The frames of those streams close up, by when they '
            "fired; the ring is the frame that makes the gap.</p>"
        )
    rows = [
        [
            fault.name,
            d.device,
            d.evidence + (f": {d.text}" if d.text else ""),
            milliseconds(d.detected_ms),
            NONE if d.decided_us is None else f"{d.decided_us:.0f}",
            milliseconds(d.switched_ms),
            milliseconds(d.refilled_ms),
            f"{d.frames:,}",
        ]
        for fault in figures.faults
        for d in fault.detections
    ]
    columns = [Column(t, number=False) for t in ("failure", "noticed by", "evidence")]
    titles = ("detect ms", "decide µs", "switch ms", "refill ms", "frames moved")
    columns += [Column(title) for title in titles]
    yield _table(columns, rows, caption="Who noticed, and how")
    yield "</section>"


def _fault_table(
    faults: Sequence[FaultFigures],
) -> tuple[list[Column], list[list[str]]]:
    columns = [Column("failure", number=False), Column("at s")]
    columns += [Column(t) for t in ("detect ms", "decide µs", "switch ms")]
    columns += [Column("refill ms"), Column("gap ms"), Column("frame", number=False)]
    columns += [Column("degraded"), Column("dropped")]
    columns += [Column("back s")]
    rows = []
    for fault in faults:
        worst = f"{fault.worst_stream} #{fault.worst_frame}"
        gap = milliseconds(fault.gap_ms)
        rows.append(
            [
                fault.name,
                f"{fault.t_s:.2f}",
                milliseconds(fault.detected_ms),
                NONE if fault.decided_us is None else f"{fault.decided_us:.0f}",
                milliseconds(fault.switched_ms),
                milliseconds(fault.refilled_ms),
                gap if fault.serving or gap == NONE else f"{gap}*",
                worst if fault.worst_frame >= 0 else NONE,
                f"{fault.degraded:,}",
                f"{fault.dropped:,}",
                NONE if fault.back_s is None else f"{fault.back_s:.2f}",
            ]
        )
    return columns, rows


def _latency(run: Run, figures: Figures) -> Iterator[str]:
    colours = plots.palette(run)
    widths = (_WIDE, _NARROW)
    yield "<section><h2>Latency</h2>"
    yield _legend(figures, colours)
    yield _both(plots.latency_over_time(run, figures, colours, w) for w in widths)
    yield (
        "<p class=caption>From the source's firing to the outcome; logarithmic. "
        "Crosses are drops, dashed lines failures. Of a long run, each moment shows "
        "its fastest and its slowest frame.</p>"
    )
    yield _both(plots.distribution(run, colours, w) for w in widths)
    yield (
        "<p class=caption>Share of each row's answers that took at most so long.</p>"
        "</section>"
    )


def _streams(figures: Figures, verdict: Verdict) -> Iterator[str]:
    columns, rows = stream_table(figures)
    columns = [*columns, Column("last frame"), Column("end", number=False)]
    ends = {(s.stream, s.incarnation): s for s in verdict.streams}
    table = []
    for stream, cells in zip(figures.streams, rows, strict=True):
        end = ends.get((stream.stream, stream.incarnation))
        known = [f"{end.last:,}", end.end or "unexplained"] if end else [NONE, NONE]
        table.append(cells + known)
    yield "<section><h2>Streams</h2>"
    yield _table(columns, table)
    yield (
        '<p class="caption">Retried: frames that took more than one attempt. Latencies '
        "are of answered frames.</p></section>"
    )


def _graph(graph: Graph) -> Iterator[str]:
    yield f"<section><h2>The graph, deployed</h2><div class=scroll>{draw(graph)}</div>"
    yield (
        '<p class="caption">Devices are boxes, actors stand in them. '
        '<span class="key cut"></span> cut FIFO (a TX/RX pair, with what one frame '
        'sends), <span class="key local"></span> local FIFO, '
        '<span class="key control"></span> control tokens.</p></section>'
    )


def _setting(run: Run) -> Iterator[str]:
    yield "<section><h2>Setting</h2>"
    recorded = [d for d in (run.launcher, *run.devices) if d and d.machine]
    if recorded:
        for facts in dict.fromkeys(tuple(d.machine.items()) for d in recorded):
            names = [d.device for d in recorded if tuple(d.machine.items()) == facts]
            yield _facts(facts, f"Machine of {', '.join(dict.fromkeys(names))}")
    else:
        # The run did not say. On one host it is this one; the title does not claim it.
        yield _facts(machine_facts().items(), "Machine that wrote this report")
    lives = [
        [
            *(d.device, d.incarnation[:8], str(d.pid), d.version, _load_ms(d)),
            *(_clock(run, d), _end_of(d)),
        ]
        for d in run.devices
    ]
    columns = [Column("device", number=False), Column("incarnation", number=False)]
    columns += [Column("pid"), Column("version", number=False), Column("load ms")]
    columns += [Column("clock ± ms"), Column("end", number=False)]
    yield _table(columns, lives, caption="Lives of the devices")
    deployment = run.folder / DEPLOYMENT_FILE
    if deployment.is_file():
        text = deployment.read_text(encoding="utf-8", errors="replace")
        yield f"<h3>Deployment</h3><pre>{escape(text)}</pre>"
    yield "</section>"


def _clock(run: Run, life: DeviceRecord) -> str:
    """Return how well the device's clock is known on that of the others."""
    error_s = run.clock_errors_s.get(life.device, 0.0)
    return milliseconds(error_s * 1e3) if error_s else NONE


def _load_ms(life: DeviceRecord) -> str:
    ready = next(life.named("device.ready"), None)
    return milliseconds(ready.number("load_ms") if ready else None)


def _end_of(life: DeviceRecord) -> str:
    failed = next(life.named("device.failed"), None)
    if failed:
        return f"failed: {failed.text('error')}"
    return "stopped" if any(life.named("device.stopped")) else "without a word"


def _facts(facts: Iterable[tuple[str, str]], title: str) -> str:
    cells = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts
    )
    return f"<h3>{escape(title)}</h3><dl>{cells}</dl>"


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], caption: str = ""
) -> str:
    if not rows:
        return ""
    kinds = [' class="n"' if column.number else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(column.title)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{escape(cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    more = len(rows) - _MOST_ROWS
    return (
        f"<div class=scroll><table>{title}<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
        + (f'<p class="caption">and {more:,} more</p>' if more > 0 else "")
    )


def _both(drawings: Iterable[str]) -> str:
    """Return the same plot for a desk and for a phone; the style shows one of them."""
    wide, narrow = drawings
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--quiet:#59636e;--faint:#9aa4ae;
--paper:#fff;--panel:#f5f7f9;--rule:#d9dfe5;--good:#0b6b3a;--bad:#a8321a;
--goodpaper:#e9f6ee;--badpaper:#fdeee9;--cut:#b4490a;--onnx:#e3eefa}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaee;--quiet:#a3adb8;--faint:#75808b;
--paper:#14181c;--panel:#1d2329;--rule:#343c45;--good:#7ddba3;--bad:#ff9c84;
--goodpaper:#16301f;--badpaper:#3a1d16;--cut:#f0a06a;--onnx:#1d3349}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:908px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:27px;line-height:1.2;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:18px;margin:44px 0 10px;padding-top:12px;border-top:1px solid var(--rule)}
h3{font-size:14px;margin:22px 0 6px}
p{margin:8px 0}
.kicker{margin:0 0 2px;color:var(--quiet);font-size:13px;letter-spacing:.04em}
.sub{color:var(--quiet);margin:6px 0 0}
.verdict{margin:20px 0;padding:12px 16px;border-left:5px solid;border-radius:4px}
.verdict p{margin:0}
.verdict ul{margin:8px 0 0;padding-left:20px;font-size:13px;overflow-wrap:anywhere}
.kept{border-color:var(--good);background:var(--goodpaper)}.kept b{color:var(--good)}
.broken{border-color:var(--bad);background:var(--badpaper)}.broken b{color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(126px,1fr));gap:10px;
margin:20px 0}
.tiles div{background:var(--panel);border-radius:6px;padding:10px 14px}
.tiles span{display:block}
.title,.note{color:var(--quiet);font-size:13px}.note{min-height:1.5em}
.number{font-size:23px;line-height:1.3;font-variant-numeric:tabular-nums}
.caption{color:var(--quiet);font-size:13px;margin:6px 0 16px;max-width:74ch}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;margin:8px 0}
.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;
margin-right:6px;vertical-align:-1px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.scroll{overflow-x:auto;margin:14px 0}
th:last-child,td:last-child{padding-right:0}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:0 0 4px}
th,td{text-align:left;padding:4px 15px 4px 0;white-space:nowrap;vertical-align:top;
border-bottom:1px solid var(--rule)}
th{color:var(--quiet);font-weight:500;border-bottom-color:var(--faint)}
@media(min-width:621px){td:not(.n,:first-child){white-space:normal}}
.n{text-align:right}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;font-size:13.5px;
margin:0}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--panel);border-radius:6px;padding:12px 14px;font-size:12.5px;
line-height:1.45;overflow-x:auto}
svg{display:block;max-width:100%;height:auto}
svg text{font-family:inherit!important}
.narrow{display:none}
svg.graph{max-width:none;margin:0 auto;font-size:12px}
.graph text{fill:var(--ink)}
.graph rect.device{fill:var(--panel);stroke:var(--rule)}
.graph rect.server{stroke:var(--faint);stroke-dasharray:5 3}
.graph text.device{font-weight:600}
.graph .actor{fill:var(--paper);stroke:var(--faint)}
.graph .onnx{fill:var(--onnx)}.graph .switch{stroke:var(--ink)}
.graph .fifo{fill:none;stroke:var(--quiet);stroke-width:1.2}
.graph .cut{stroke:var(--cut);stroke-width:2}
.graph .control{stroke-dasharray:2 3}
.graph text.cut{fill:var(--cut);stroke:none;font-size:11px}
.key{display:inline-block;width:24px;border-top:1.5px solid var(--quiet);
vertical-align:middle}
.key.cut{border-top:2.5px solid var(--cut)}.key.control{border-top-style:dashed}
@media(max-width:620px){main{padding:18px 14px 40px}.wide{display:none}
.narrow{display:block}h1{font-size:22px}.tiles{grid-template-columns:1fr 1fr}
th,td{padding-right:14px}}
@media print{:root{color-scheme:light;--ink:#000;--quiet:#444;--faint:#888;--paper:#fff;
--panel:#f5f7f9;--rule:#ccc;--good:#0b6b3a;--bad:#a8321a;--goodpaper:#fff;
--badpaper:#fff;--cut:#b4490a;--onnx:#e3eefa}
main{max-width:none;padding:0}body{font-size:11pt}.wide{display:block}
.narrow{display:none}.scroll{overflow:visible}svg.graph{max-width:100%}
table{font-size:9pt}th,td{padding-right:9px;white-space:normal}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
h2,h3,caption,.legend{break-after:avoid}svg,tr,table,.verdict,.tiles{break-inside:avoid}
.tiles div{border:1px solid var(--rule)}}
"""
