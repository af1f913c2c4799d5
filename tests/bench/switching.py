"""What a switch to another plan costs the frames around it.

    python -m tests.bench.switching [--count 20] [--rate 100]

The digits deployment, K_{2,2} on loopback, goes from features that cross as float32 to
float16 and back: another head on the endpoints, other tails on the servers. Latencies
are those of the frames fired in three spans, less the median of the 200 frames before:
while the plan is prepared, from the switch until a second after it, and, to compare,
in a second before anything was told. The machine's own noise is in all three.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataflow.plan import Plan, read_plan
from tests.bench.failover import quantiles
from tests.support.run import Played, played
from understudy.launch import free_ports
from understudy.machine import machine_facts
from understudy.plans import compile_deployment
from understudy.promise import judge
from understudy.records import Result, Run
from understudy.run_folder import read_run
from understudy.switch import put

DEPLOYMENT = Path("graphs/digits/two-by-two.yaml")
CAMS = ("cam.0", "cam.1")
CALM_FRAMES, MEDIAN_FRAMES = 300, 200
SPANS = ("calm", "prepared", "switched")


def switch_often(folder: Path, count: int, rate_hz: float) -> None:
    """Switch to and fro."""
    port = free_ports(2)
    plans = [
        compile_deployment(
            DEPLOYMENT,
            folder / name,
            listen_base=port,
            codec=codec,
            params={"camera": {"rate_hz": rate_hz}},
        )
        for name, codec in (("plan", "none"), ("other", "float16"))
    ]
    again = [plans[1], kept(plans[0], folder / "first")]
    with played(plans[0], folder) as run:
        for index in range(count):
            for cam, edge in zip(CAMS, ("edge.0", "edge.1"), strict=True):
                run.wait_rows(cam, edge, CALM_FRAMES)
            follow(run, again[index % 2], folder / "plan")
        run.wait_rows("cam.0", "edge.0", CALM_FRAMES)


def kept(plan: Plan, folder: Path) -> Plan:
    """Keep a plan elsewhere: its own folder will hold the one that is played."""
    put(plan, folder)
    return read_plan(folder)


def follow(run: Played, plan: Plan, folder: Path) -> None:
    put(plan, folder)
    run.forget()
    run.launcher.follow(plan)
    for cam in CAMS:
        run.wait_event(cam, "plan.settled")


def spans(run: Run, cam: str) -> Iterable[dict[str, list[float]]]:
    """Yield latencies beyond the median in ms, by span, for each switch of a stream."""
    (device,) = (d for d in run.devices if d.device == cam)
    (record,) = (s for s in run.streams if s.stream == cam)
    told = [e.t_s for e in device.named("plan.loading")]
    switched = [e.t_s for e in device.named("plan.switched")]
    for told_s, switched_s in zip(told, switched, strict=True):
        before = [r for r in record.results if r.fired_s < told_s]
        usual_ms = statistics.median(r.latency_ms for r in before[-MEDIAN_FRAMES:])
        found = {
            "calm": _fired(record.results, told_s - 1.1, told_s - 0.1),
            "prepared": _fired(record.results, told_s, switched_s),
            "switched": _fired(record.results, switched_s - 0.02, switched_s + 1.0),
        }
        yield {
            span: [r.latency_ms - usual_ms for r in results]
            for span, results in found.items()
        }


def _fired(results: Sequence[Result], from_s: float, to_s: float) -> list[Result]:
    return [r for r in results if from_s <= r.fired_s < to_s]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        switch_often(Path(name), chosen.count, chosen.rate)
        run = read_run(Path(name))
    verdict = judge(run)
    gaps: dict[str, list[float]] = {span: [] for span in SPANS}
    for cam in CAMS:
        for each in spans(run, cam):
            for span, latencies in each.items():
                if latencies:
                    gaps[span].append(max(latencies))
    load_ms = [
        e.number("load_ms") or 0.0
        for device in run.devices
        if device.device in CAMS
        for e in device.named("plan.ready")
    ]
    print(
        f"{chosen.count} switches of {len(CAMS)} streams at {chosen.rate:g} frames/s; "
        f"prepared in {statistics.median(load_ms):.0f} ms (median)"
    )
    print(f"{'gap, ms':10}{'p50':>9}{'p99':>9}{'max':>9}")
    for span, values in gaps.items():
        p50, p99, most = quantiles(values)
        print(f"{span:10}{p50:9.3f}{p99:9.3f}{most:9.3f}")
    results = [r for record in run.streams for r in record.results]
    counts = {s: sum(r.status == s for r in results) for s in ("degraded", "dropped")}
    print(f"{len(results)} frames, {counts['degraded']} degraded, "
          f"{counts['dropped']} dropped; "
          f"promise {'kept' if verdict.kept else 'BROKEN'}")  # fmt: skip
    if chosen.json:
        data = {"machine": machine_facts(), "gap_ms": gaps, "load_ms": load_ms}
        chosen.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(0 if verdict.kept else 1)


if __name__ == "__main__":
    main()
