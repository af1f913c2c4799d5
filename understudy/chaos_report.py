"""What a chaos campaign found: a line for each kind of fault, and whether all held."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from understudy.chaos_schedule import KINDS, Strike
from understudy.chaos_vitals import Life, windows_mb
from understudy.figures import FaultFigures
from understudy.json_lines import VERSION
from understudy.records import Event, Run
from understudy.run_folder import read_run
from understudy.runs import Judged
from understudy.summary import (
    NONE,
    Column,
    counted,
    format_table,
    milliseconds,
    promise_text,
)

AFTER_S = 1.0
"""A peer that is suspected this shortly after something was mended, is so for that."""
LAUNCHER = "launcher"


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was done, and what the processes showed while it was."""

    seed: int
    seconds: float
    kinds: tuple[str, ...]
    interrupted: bool
    strikes: tuple[Strike, ...]
    """Those that were set, in order."""
    missing_links: tuple[str, ...]
    """Links that did not come back after the last fault."""
    left_over: tuple[int, ...]
    """Processes of the run that outlived it."""
    lives: tuple[Life, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """Nearest-rank quantiles of what was measured."""

    count: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class KindFigures:
    """One kind of fault, and what it cost.

    Times are those of faults that struck alone, and what served some stream just then;
    frames are all those outstanding at a fault or fired in the 2 s after it.
    """

    kind: str
    count: int
    alone: int
    """Faults behind the times: alone, and of something that served."""
    in_flight: int
    """Of these, faults that found a frame under way at what they struck."""
    gap_ms: Spread | None
    detect_ms: Spread | None
    decide_us: Spread | None
    switch_ms: Spread | None
    full: int
    degraded: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What a device held in the beginning and in the end, over all its lives."""

    device: str
    lives: int
    start_mb: float
    """Resident memory of its longest life when it had settled."""
    early_mb: float
    """Most in the first half of that life, and in the second."""
    late_mb: float
    end_mb: float
    over_s: float
    memory: str
    """"flat", "windows" (it filled them later) or "grew"."""
    descriptors: int
    """More than in the beginning, of its last life, all links being back."""
    threads: int


@dataclass(frozen=True, slots=True)
class Damage:
    """What a campaign found."""

    campaign: Campaign
    kinds: tuple[KindFigures, ...]
    holdings: tuple[Holding, ...]
    unprovoked: tuple[str, ...]
    """Peers that were suspected while nothing was wrong with them or their link."""
    unaccounted: int
    doubled: int
    disordered: int
    unwritten: int
    """Outcomes that reached the sink and, as it says, could not be written."""
    problems: tuple[str, ...]
    """Why the campaign is not good, beside a broken promise."""

    def to_json(self) -> dict[str, Any]:
        return {"understudy": VERSION, **asdict(self)}


def summarise(campaign: Campaign, judged: Judged) -> Damage:
    """Return what `campaign` found, from its run folder."""
    run = read_run(judged.folder)
    windows = windows_mb(run.plan) if run.plan else {}
    holdings = tuple(_holdings(campaign.lives, windows))
    verdicts = judged.verdict.streams
    return Damage(
        campaign=campaign,
        kinds=tuple(_kinds(campaign.strikes, judged.figures.faults)),
        holdings=holdings,
        unprovoked=tuple(_unprovoked(run)),
        unaccounted=sum(v.unaccounted for v in verdicts),
        doubled=sum(v.doubled for v in verdicts),
        disordered=sum(v.disordered for v in verdicts),
        unwritten=sum(v.unwritten for v in verdicts),
        problems=tuple(_problems(campaign, holdings)),
    )


def _problems(campaign: Campaign, holdings: Sequence[Holding]) -> Iterator[str]:
    if campaign.missing_links:
        links = ", ".join(campaign.missing_links)
        yield f"links {links}: not back after all was mended; see events-*.jsonl"
    if campaign.left_over:
        pids = ", ".join(map(str, campaign.left_over))
        yield f"processes {pids}: outlived the run; end them"
    for holding in holdings:
        leaks = holding.descriptors > 0 and not campaign.missing_links
        if leaks and not campaign.interrupted:
            yield (
                f"device '{holding.device}': holds {holding.descriptors} descriptors "
                "more than in the beginning"
            )


def _kinds(
    strikes: Sequence[Strike], faults: Sequence[FaultFigures]
) -> Iterator[KindFigures]:
    costs = list(_matched(strikes, faults))
    for name in KINDS:
        of_kind = [(s, f) for s, f in costs if s.kind == name]
        if not of_kind:
            continue
        fair = [f for s, f in of_kind if s.alone and f.serving]
        yield KindFigures(
            kind=name,
            count=len(of_kind),
            alone=len(fair),
            in_flight=sum(any(d.frames for d in f.detections) for f in fair),
            gap_ms=_spread([f.gap_ms for f in fair]),
            detect_ms=_spread([f.detected_ms for f in fair]),
            decide_us=_spread([f.decided_us for f in fair]),
            switch_ms=_spread([f.switched_ms for f in fair]),
            full=sum(f.full for _, f in of_kind),
            degraded=sum(f.degraded for _, f in of_kind),
            dropped=sum(f.dropped for _, f in of_kind),
        )


def _matched(
    strikes: Sequence[Strike], faults: Sequence[FaultFigures]
) -> Iterator[tuple[Strike, FaultFigures]]:
    """Yield each fault that was set with its cost: both are in order of time."""
    left = [f for f in faults if f.kind]
    for strike in strikes:
        wanted = strike.kind, strike.target, strike.dialler
        for fault in left:
            if (fault.kind, fault.target, fault.observer) == wanted:
                left.remove(fault)
                yield strike, fault
                break


def _spread(values: Sequence[float | None]) -> Spread | None:
    ordered = sorted(v for v in values if v is not None)
    if not ordered:
        return None
    p99 = ordered[max(0, -(-99 * len(ordered) // 100) - 1)]
    return Spread(len(ordered), statistics.median_low(ordered), p99, ordered[-1])


def _holdings(lives: Sequence[Life], windows: Mapping[str, float]) -> Iterator[Holding]:
    for device in dict.fromkeys(life.device for life in lives):
        own = [life for life in lives if life.device == device]
        first, last = own[0], own[-1]
        longest = max(own, key=lambda life: life.seconds)
        yield Holding(
            device=device,
            lives=len(own),
            start_mb=longest.start.resident_mb,
            early_mb=longest.early_mb,
            late_mb=longest.late_mb,
            end_mb=longest.end.resident_mb,
            over_s=longest.seconds,
            memory=longest.growth(windows.get(device, 0.0)),
            descriptors=last.end.descriptors - first.start.descriptors,
            threads=last.end.threads - first.start.threads,
        )


def _unprovoked(run: Run) -> Iterator[str]:
    """Yield the suspicions that no fault of this campaign explains."""
    times = [(f, _mended_s(run, f)) for f in run.launched("fault")]
    for life in run.devices:
        for event in life.named("link.suspect"):
            peer = event.text("peer")
            explained = any(
                fault.t_s <= event.t_s <= mended_s + AFTER_S
                and _touches(fault, life.device, peer)
                for fault, mended_s in times
            )
            if not explained and not _leaving(run, life.device, peer, event.t_s):
                yield (
                    f"{life.path.name}:{event.line}: {life.device} suspected {peer} "
                    f"({event.text('evidence')}: {event.text('text')})"
                )


def _mended_s(run: Run, fault: Event) -> float:
    who = fault.text("target"), fault.text("observer")
    return min(
        (
            e.t_s
            for e in run.launched("mended")
            if e.t_s >= fault.t_s and (e.text("target"), e.text("observer")) == who
        ),
        default=float("inf"),
    )


def _touches(fault: Event, device: str, peer: str) -> bool:
    if fault.text("observer"):
        return (fault.text("observer"), fault.text("target")) == (device, peer)
    return fault.text("target") in (device, peer)


def _leaving(run: Run, device: str, peer: str, t_s: float) -> bool:
    """Tell whether the run was being ended: the launcher tells devices to stop."""
    return any(
        e.t_s - AFTER_S <= t_s
        for life in run.devices
        if life.device in (device, peer)
        for e in life.named("device.stopping")
        if e.t_s <= t_s + AFTER_S
    )


def format_damage(damage: Damage, judged: Judged, width: int) -> str:
    """Return the campaign's tables and its verdict as plain text."""
    parts = [
        format_table(*_kind_table(damage), width, False),
        "times: of faults that struck alone what served (hit: with a frame there); gap "
        "p50, p99,\nmax, detect and switch in ms, decide in µs; frames: under way at a "
        "fault, or fired in 2 s",
        format_table(*_holding_table(damage), width, False),
        "\n".join(_notes(damage)),
        promise_text(judged.verdict),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _kind_table(damage: Damage) -> tuple[list[Column], list[list[str]]]:
    titles = ["set", "alone", "hit", "p50", "p99", "max", "detect", "decide", "switch"]
    titles += ["full", "degr.", "drop."]
    columns = [Column("fault", number=False), *map(Column, titles)]
    return columns, [_kind_row(kind) for kind in damage.kinds]


def _kind_row(kind: KindFigures) -> list[str]:
    gap, decide = kind.gap_ms, kind.decide_us
    return [
        kind.kind,
        *(str(n) for n in (kind.count, kind.alone, kind.in_flight)),
        milliseconds(gap.p50 if gap else None),
        milliseconds(gap.p99 if gap else None),
        milliseconds(gap.max if gap else None),
        milliseconds(kind.detect_ms.p50 if kind.detect_ms else None),
        NONE if decide is None else f"{decide.p50:.0f}",
        milliseconds(kind.switch_ms.p50 if kind.switch_ms else None),
        *(f"{n:,}" for n in (kind.full, kind.degraded, kind.dropped)),
    ]


def _holding_table(damage: Damage) -> tuple[list[Column], list[list[str]]]:
    titles = ["lives", "start MB", "1st half", "2nd half", "end MB", "over s", "memory"]
    titles += ["fds", "threads"]
    columns = [Column("process", number=False), *map(Column, titles)]
    rows = [
        [
            held.device,
            str(held.lives),
            f"{held.start_mb:.1f}",
            f"{held.early_mb:.1f}",
            f"{held.late_mb:.1f}",
            f"{held.end_mb:.1f}",
            f"{held.over_s:.0f}",
            held.memory,
            f"{held.descriptors:+d}",
            f"{held.threads:+d}",
        ]
        for held in damage.holdings
    ]
    return columns, rows


def _notes(damage: Damage) -> Iterator[str]:
    yield (
        f"unaccounted {damage.unaccounted}, doubled {damage.doubled}, "
        f"disordered {damage.disordered}; processes left over "
        f"{len(damage.campaign.left_over)}"
    )
    if damage.unwritten:
        yield (
            f"{counted(damage.unwritten, 'outcome')} reached the sink and could not be "
            "written, as the results say"
        )
    if damage.unprovoked:
        yield f"suspected without a fault: {len(damage.unprovoked)}"
        yield from (f"  {text}" for text in damage.unprovoked[:10])
