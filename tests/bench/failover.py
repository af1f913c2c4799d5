"""Failover under real faults: detect, decide, switch, and the gap at the sink.

    python -m tests.bench.failover [--fault kill] [--count 50] [--resident-mb 1024]

K_{2,1} of toy actors on loopback: a server that takes a few milliseconds a token, so
that a fault finds frames in flight. The serving one is struck, and used again before
the next stroke. Gap: max over the frames outstanding at the fault or fired in the 2 s
after it of (firing -> outcome), minus the median of the 200 before it. Strokes that
found no frame in flight are made again and not counted: there was nothing to lose. A
thread that sleeps 5 ms at a time notes when the machine itself stood still for 25 ms or
more; the strokes whose 2 s hold no such moment are also shown apart.

Faults are those of `understudy chaos`: kill, stop (SIGSTOP), hang (an actor holds the
interpreter), abort, drain; and of the link, which then leads through a proxy: cut,
down, silence, silence-forth, silence-back. `--resident-mb` makes the server hold so
much memory, which a kernel frees before it closes the sockets of a killed process.

far-kill is another scene: cam -> a -> b, two servers in each tier, 2 ms a token each,
and the second one of the way is killed. The first one notices, refuses what it passed
on (NACK hop), and the endpoint starts the way over the other two.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dataflow.plan import Plan
from tests.support.chain_plan import chain_plan
from tests.support.run import Played, played
from tests.support.toy_plan import toy_plan
from understudy.chaos_faults import Stage, breakable_links, write_stranger
from understudy.chaos_schedule import KINDS, Strike
from understudy.device_process import CHAOS
from understudy.figures import FaultFigures, figures
from understudy.launch import free_ports
from understudy.machine import machine_facts
from understudy.promise import judge
from understudy.records import Run
from understudy.run_folder import read_run
from understudy.sabotage import Orders

RATE_HZ, SERVICE_S, TOKEN_FLOATS = 100, 0.005, 256
"""Half the period: about every second stroke finds a frame in flight, and the server
that remains is not near saturation, where jitter alone makes queues."""
AFTER_S = 2.2
STALL_S = 0.025
STROKES_PER_LOOK = 10
FAULTS = (
    "kill", "stop", "hang", "abort", "drain",
    "cut", "down", "silence", "silence-forth", "silence-back", "far-kill",
)  # fmt: skip
BUDGETS_MS: dict[str, tuple[float | None, float]] = {
    "kill": (3.0, 15.0),
    "stop": (None, 100.0),
    "hang": (None, 300.0),
    "cut": (None, 100.0),
    "down": (None, 100.0),
    "silence": (None, 100.0),
    "silence-forth": (None, 100.0),
    "silence-back": (None, 100.0),
}
"""Of the gap: p50, p99."""
LARGE_MS = (None, 100.0)
"""Where a killed server held a lot of memory."""


class Scene(NamedTuple):
    """Who is struck, who notices, and whose answers are watched."""

    kind: str
    """Of `understudy chaos`."""
    target: str = "edge.0"
    observer: str = "cam.0"
    stream: str = "cam.0"
    row: str = "edge.0"
    far: bool = False
    """The endpoint has no link to the one that is struck."""


FAR = Scene("kill", "b.0", "a.0", "cam", "a.0+b.0", far=True)
FAR_SERVICE_S = 0.002


def scene_of(fault: str) -> Scene:
    return FAR if fault == "far-kill" else Scene(fault)


class StallWatch(threading.Thread):
    """Notes when this machine did not run us for a while."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stalls_s: list[float] = []

    def run(self) -> None:
        while True:
            before_s = time.monotonic()
            time.sleep(0.005)
            if time.monotonic() - before_s > STALL_S:
                self.stalls_s.append(before_s)

    def spared(self, t_s: float) -> bool:
        """Tell whether the machine ran from the stroke at `t_s` to the window's end."""
        return not any(t_s - 0.2 < stall < t_s + AFTER_S for stall in self.stalls_s)


def hit(run: Run, scene: Scene) -> list[FaultFigures]:
    """Return the strokes that found a frame in flight."""
    found = figures(run)
    return [
        fault
        for fault in found.faults
        if (fault.kind, fault.target) == (scene.kind, scene.target)
        and _caught(run, fault, found.origin_s if scene.far else None)
    ]


def _caught(run: Run, fault: FaultFigures, origin_s: float | None) -> bool:
    if origin_s is None:
        return any(detection.frames for detection in fault.detections)
    # Who noticed has no frames of its own: look who was asked again.
    t_s = origin_s + fault.t_s
    return any(
        r.fired_s <= t_s < r.settled_s and r.attempts > 1
        for record in run.streams
        for r in record.results
    )


def strike(run: Played, stage: Stage, scene: Scene) -> None:
    """Strike the serving server, wait the window of the gap, and bring it back."""
    run.forget()
    kind, target, observer = scene.kind, scene.target, scene.observer
    dialler = observer if KINDS[kind].strikes == "link" else ""
    stroke = Strike(0.0, kind, target, dialler, AFTER_S, None, alone=True)
    stage.strike(stroke)
    run.wait_event(observer, "link.suspect", peer=target)
    time.sleep(AFTER_S)  # the gap is taken over what was fired in this time
    if kind == "abort":
        run.wait_exit(target)
    stage.mend(stroke)
    run.wait_event(observer, "link.back", peer=target)
    run.wait_rows(scene.stream, scene.row, 20)


def plan_of(folder: Path, scene: Scene, resident_mb: int) -> Plan:
    if scene.far:
        return chain_plan(folder, tiers="ab", rate_hz=RATE_HZ, take_s=FAR_SERVICE_S)
    return toy_plan(
        folder / "plan",
        port=free_ports(2),
        size=TOKEN_FLOATS,
        window=32,
        source={"rate_hz": RATE_HZ},
        tail={"take_s": SERVICE_S, "resident_mb": resident_mb},
    )


def strike_often(folder: Path, scene: Scene, count: int, resident_mb: int) -> int:
    """Strike until `count` strokes found a frame in flight; return how many it took."""
    plan = plan_of(folder, scene, resident_mb)
    struck = 0
    with ExitStack() as stack:
        links, folders = stack.enter_context(breakable_links(plan, folder))
        orders = {scene.target: Orders(folder, scene.target, make=True)}
        options = {"environment": {CHAOS: str(folder)}, "start": []}
        run = stack.enter_context(played(plan, folder, **options))
        if (
            KINDS[scene.kind].strikes == "link"
        ):  # else the figures are those without a proxy
            run.launcher.folders.update(folders)
        for name in plan.devices:
            run.launcher.start(name)
        stage = Stage(run.launcher, links, orders, write_stranger(plan, folder))
        run.wait_rows(scene.stream, scene.row, 250)
        while len(hit(read_run(folder), scene)) < count:
            for _ in range(STROKES_PER_LOOK):
                strike(run, stage, scene)
            struck += STROKES_PER_LOOK
    return struck


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", choices=FAULTS, default="kill")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--resident-mb", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    budget = BUDGETS_MS.get(chosen.fault)
    if chosen.resident_mb and chosen.fault == "kill":
        budget = LARGE_MS
    scene = scene_of(chosen.fault)
    watch = StallWatch()
    watch.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        struck = strike_often(folder, scene, chosen.count, chosen.resident_mb)
        record = read_run(folder)
        verdict, found = judge(record), figures(record)
    strokes = hit(record, scene)
    print(
        f"{chosen.fault}: {struck} strokes, {len(strokes)} with frames in flight; "
        f"{RATE_HZ} frames/s, {_served_ms(scene):g} ms a token, "
        f"{16 if scene.far else TOKEN_FLOATS * 4} B tokens, heartbeat 20/60, beat "
        f"50 ms, servers of 30 MB + {chosen.resident_mb} MB resident"
    )
    table(strokes, budget)
    calm = [f for f in strokes if watch.spared(found.origin_s + f.t_s)]
    print(
        f"the machine stood still {len(watch.stalls_s)} times; {len(calm)} strokes "
        "without such a moment:"
    )
    table(calm, budget)
    dropped, degraded = (sum(getattr(f, n) for f in strokes) for n in _COUNTED)
    print(f"dropped {dropped}, degraded {degraded}, in the 2 s after the strokes")
    print(f"promise {'kept' if verdict.kept else 'BROKEN'}: {verdict.frames} frames")
    for violation in verdict.violations:
        print(f"  {violation}")
    if chosen.json:
        data = {"fault": chosen.fault, "resident_mb": chosen.resident_mb}
        data |= {"machine": machine_facts(), "ms": rows(strokes), "calm": rows(calm)}
        chosen.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(0 if verdict.kept else 1)


def _served_ms(scene: Scene) -> float:
    return 2 * FAR_SERVICE_S * 1e3 if scene.far else SERVICE_S * 1e3


_COUNTED = ("dropped", "degraded")


def quantiles(values: list[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    p99 = ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
    return statistics.median(ordered), p99, ordered[-1]


def rows(faults: list[FaultFigures]) -> dict[str, list[float]]:
    return {
        "gap": [f.gap_ms for f in faults if f.gap_ms is not None],
        "detect": [f.detected_ms for f in faults if f.detected_ms is not None],
        "decide": [f.decided_us / 1e3 for f in faults if f.decided_us is not None],
        "switch": [f.switched_ms for f in faults if f.switched_ms is not None],
    }


def table(
    faults: list[FaultFigures], budget: tuple[float | None, float] | None
) -> None:
    if not faults:
        return
    print(f"{'ms':8}{'p50':>9}{'p99':>9}{'max':>9}   budget p50 / p99")
    for name, values in rows(faults).items():
        p50, p99, most = quantiles(values)
        goal = ""
        if name == "gap" and budget:
            missed = p99 > budget[1] or p50 > (budget[0] or budget[1])
            goal = f"   {budget[0] or '-'} / {budget[1]}{'  MISSED' * missed}"
        print(f"{name:8}{p50:9.3f}{p99:9.3f}{most:9.3f}{goal}")


if __name__ == "__main__":
    main()
