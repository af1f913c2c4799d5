"""Failover under real kills: detect, decide, switch, and the gap at the sink.

    python tests/bench/failover.py [--signal KILL|STOP] [--kills 50] [--json FILE]

K_{1,2} of toy actors on loopback: a server that takes a few milliseconds a token, so
that a kill finds frames in flight. The serving one is struck, and used again before the
next stroke. Gap: max over the frames outstanding at the fault or fired in the 2 s after
it of (firing -> outcome), minus the median of the 200 before it. Strokes that found no
frame in flight are made again and not counted: there was nothing to lose. A thread that
sleeps 5 ms at a time notes when the machine itself stood still for 25 ms or more; the
strokes whose 2 s hold no such moment are also shown apart.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.run import Played, played
from tests.support.toy_plan import toy_plan
from understudy.figures import FaultFigures, figures
from understudy.launch import free_ports
from understudy.machine import machine_facts
from understudy.promise import judge
from understudy.run_folder import read_run

RATE_HZ, SERVICE_S, TOKEN_FLOATS = 100, 0.005, 256
"""Half the period: about every second stroke finds a frame in flight, and the server
that remains is not near saturation, where jitter alone makes queues."""
AFTER_S = 2.2
STALL_S = 0.025
STROKES_PER_LOOK = 10
BUDGETS_MS = {"KILL": (10.0, 50.0), "STOP": (None, 150.0)}
FINAL_MS = {"KILL": (3.0, 15.0), "STOP": (None, 100.0)}
"""First targets, and those of the architecture's budget table; p50, p99."""


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


def caught(fault: FaultFigures) -> bool:
    """Tell whether the stroke found a frame in flight."""
    return any(detection.frames for detection in fault.detections)


def in_flight(folder: Path, number: signal.Signals) -> int:
    """Return how many strokes so far found a frame in flight."""
    faults = figures(read_run(folder)).faults
    return sum(1 for f in faults if f.signal == number.name and caught(f))


def strike(run: Played, name: str, number: signal.Signals) -> None:
    """Strike server `name`, wait the window of the gap, and bring it back."""
    run.forget()
    run.kill(name, number)
    run.wait_event("cam.0", "link.suspect", peer=name)
    time.sleep(AFTER_S)  # the gap is taken over what was fired in this time
    if number is signal.SIGKILL:
        run.launcher.start(name)
    else:
        run.kill(name, signal.SIGCONT)
    run.wait_event("cam.0", "link.back", peer=name)
    run.wait_rows("cam.0", "edge.0", 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signal", choices=["KILL", "STOP"], default="KILL")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    number = signal.Signals[f"SIG{arguments.signal}"]
    watch = StallWatch()
    watch.start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        plan = toy_plan(
            path / "plan",
            port=free_ports(2),
            size=TOKEN_FLOATS,
            window=24,
            source={"rate_hz": RATE_HZ},
            tail={"take_s": SERVICE_S},
        )
        with played(plan, path) as run:
            run.wait_rows("cam.0", "edge.0", 250)
            struck = 0
            while in_flight(path, number) < arguments.kills:
                for _ in range(STROKES_PER_LOOK):
                    strike(run, "edge.0", number)
                struck += STROKES_PER_LOOK
        record = read_run(path)
        verdict, found = judge(record), figures(record)
    hit = [f for f in found.faults if f.signal == number.name and caught(f)]
    report(arguments.signal, hit, struck)
    calm = [f for f in hit if watch.spared(found.origin_s + f.t_s)]
    print(
        f"the machine stood still {len(watch.stalls_s)} times; {len(calm)} strokes "
        "without such a moment:"
    )
    table(arguments.signal, calm)
    print(f"promise {'kept' if verdict.kept else 'BROKEN'}: {verdict.frames} frames")
    for violation in verdict.violations:
        print(f"  {violation}")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(arguments.signal, hit), indent=1))
    sys.exit(0 if verdict.kept else 1)


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


def report(kind: str, faults: list[FaultFigures], struck: int) -> None:
    print(
        f"SIG{kind}: {struck} strokes, {len(faults)} with frames in flight; "
        f"{RATE_HZ} frames/s, {SERVICE_S * 1e3:g} ms a token, "
        f"{TOKEN_FLOATS * 4} B tokens, heartbeat 20/60, "
        "beat 50 ms, toy servers (about 30 MB resident)"
    )
    table(kind, faults)


def table(kind: str, faults: list[FaultFigures]) -> None:
    if not faults:
        return
    print(f"{'ms':8}{'p50':>9}{'p99':>9}{'max':>9}   target p50/p99, final budget")
    for name, values in rows(faults).items():
        p50, p99, most = quantiles(values)
        goal = (
            f"   {BUDGETS_MS[kind][0] or '-'} / {BUDGETS_MS[kind][1]}, "
            f"{FINAL_MS[kind][0] or '-'} / {FINAL_MS[kind][1]}"
            if name == "gap"
            else ""
        )
        print(f"{name:8}{p50:9.3f}{p99:9.3f}{most:9.3f}{goal}")


def as_json(kind: str, faults: list[FaultFigures]) -> dict[str, object]:
    return {"signal": kind, "machine": machine_facts(), "ms": rows(faults)}


if __name__ == "__main__":
    main()
