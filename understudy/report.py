"""The report of a run. The same run gives the same page, byte for byte."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from dataflow.graph import DROP_ROW, Graph
from understudy import page, plots
from understudy.drawing import draw
from understudy.failure_plot import failure_steps, steps
from understudy.figures import FaultFigures, Figures
from understudy.machine import machine_facts
from understudy.promise import PROMISE, Verdict
from understudy.records import DeviceRecord, Run
from understudy.run_folder import DEPLOYMENT_FILE
from understudy.summary import (
    NONE,
    Column,
    expected_text,
    full_text,
    milliseconds,
    outcome_table,
    promise_text,
    served_table,
    share_text,
    stream_table,
)

_MOST_VIOLATIONS = 50


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
    name = figures.deployment or run.folder.name
    parts = _parts(run, figures, verdict, graph, name)
    page.write_page(path, f"{name}: understudy run", parts)


def _parts(
    run: Run, figures: Figures, verdict: Verdict, graph: Graph | None, name: str
) -> Iterator[str]:
    yield _header(run, figures, name)
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


def _header(run: Run, figures: Figures, name: str) -> str:
    words = [f"graph {figures.graph}" if figures.graph else ""]
    if figures.started_epoch_s is not None:
        started = datetime.fromtimestamp(figures.started_epoch_s, UTC)
        words.append(f"{started:%Y-%m-%d %H:%M:%S} UTC")
    words.append(f"{figures.seconds:.1f} s")
    if figures.codecs:
        words.append(f"codec {', '.join(figures.codecs)}")
    plans = dict.fromkeys(life.plan[:12] for life in run.devices if life.plan)
    words += [f"plan {digest}" for digest in plans]
    return page.header("understudy run", name, words)


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
    yield page.tiles(tiles)
    if words := expected_text(figures):
        yield f"<p>{words.capitalize()}.</p>"
    if figures.full_error is not None:
        words = full_text(figures.full_error).capitalize()
        yield f"<p>{words} (greatest difference over greatest magnitude).</p>"


def _per_second(figures: Figures) -> str:
    return f"{figures.fps:.1f} answers/s" if figures.fps is not None else ""


def _outcomes(run: Run, figures: Figures) -> Iterator[str]:
    colours = plots.palette(run)
    yield "<section><h2>Who answered, and when</h2>"
    yield _legend(figures, colours)
    yield page.both(lambda w: plots.timeline(run, figures, colours, w))
    marks = " ▼ marks a failure, ▲ when all had the lost device back." * bool(
        figures.faults
    )
    yield (
        '<p class="caption">One strip a stream. Full height: full; lower: degraded; a '
        f"mark across the strip: dropped.{marks}</p>"
    )
    yield page.table(*outcome_table(figures), caption="Outcomes")
    yield page.table(*served_table(figures), caption="Who answered")
    yield "</section>"


def _legend(figures: Figures, colours: plots.Palette) -> str:
    dropped = figures.count("dropped") > 0
    return page.legend(
        (colour, colours.label(row))
        for row, colour in colours.rows.items()
        if row != DROP_ROW or dropped
    )


def _failures(run: Run, figures: Figures) -> Iterator[str]:
    yield "<section><h2>Failures</h2>"
    if not figures.faults:
        yield "<p>None: no device was lost in this run.</p></section>"
        return
    yield page.table(*_fault_table(figures.faults))
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
        yield page.both(lambda w: failure_steps(figures, w))
        yield (
            '<p class="caption">What followed each failure, on the clock of the device '
            "that had frames there: linear up to 1 ms, logarithmic beyond. A whisker "
            "is what the clocks of two hosts may be apart.</p>"
        )
    if any(fault.gap_ms is not None for fault in figures.faults):
        colours = plots.palette(run)
        yield page.both(lambda w: plots.failures(run, figures, colours, w))
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
    yield page.table(columns, rows, caption="Who noticed, and how")
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
    yield "<section><h2>Latency</h2>"
    yield _legend(figures, colours)
    yield page.both(lambda w: plots.latency_over_time(run, figures, colours, w))
    yield (
        "<p class=caption>From the source's firing to the outcome; logarithmic. "
        "Crosses are drops, dashed lines failures. Of a long run, each moment shows "
        "its fastest and its slowest frame.</p>"
    )
    yield page.both(lambda w: plots.distribution(run, colours, w))
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
    yield page.table(columns, table)
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
            yield page.facts(facts, f"Machine of {', '.join(dict.fromkeys(names))}")
    else:
        # The run did not say. On one host it is this one; the title does not claim it.
        yield page.facts(machine_facts().items(), "Machine that wrote this report")
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
    yield page.table(columns, lives, caption="Lives of the devices")
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
