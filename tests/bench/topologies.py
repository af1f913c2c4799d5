"""K_{1,n} against K_{2,n}: what a second server costs when nothing fails.

    python -m tests.bench.topologies [--endpoints 1 2 … 6] [--rounds 3] [--json FILE]

Every device is a process of its own on this host, as `understudy up` starts them; each
endpoint cuts the same network and sends its pictures to its first server, to which the
second is the standby (for every other endpoint it is the other way round). One server,
two, and one again take turns; figures are medians over the rounds, as in Table 1 of
Edge-PRUNE: per frame, the endpoint's time (CPU time of its process, and the latency
from picture to answer) and the servers' time (CPU time of all of them).

`A/A` is one server against one server again. The model is the shipped digits, or the
vehicle CNN if UNDERSTUDY_DATA names a folder that has it. CPU time per frame depends on
the rate: a link costs the same per second whether frames come or not.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    cpu_s,
    show,
    warn_if_void,
    write,
)
from tests.bench.models import make_plan, models
from tests.support.run import played
from understudy.run_folder import read_run

RATE_HZ = {"digits": 100, "vehicle": 50}
SETTLE_S = 1.0
BUDGET = 1.02


@dataclass
class Samples:
    """One entry per run, in milliseconds per frame."""

    endpoint_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    not_full: int = 0


def add_run(
    samples: Samples, model: str, *, servers: int, endpoints: int, seconds: float
) -> None:
    """Run K_{servers,endpoints} for `seconds` and add what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = make_plan(
            model,
            folder,
            endpoints=endpoints,
            servers=servers,
            camera={"rate_hz": RATE_HZ[model]},
        )
        run_folder = folder / "run"
        run_folder.mkdir()
        cams = [d.name for d in plan.devices.values() if d.role == "endpoint"]
        edges = [d.name for d in plan.devices.values() if d.role == "server"]
        with played(plan, run_folder) as run:
            for cam in cams:
                run.wait_event(cam, "stream.started")
            time.sleep(SETTLE_S)
            pids = started(run_folder)
            start_s, before = time.monotonic(), used_s(pids)
            time.sleep(seconds)
            end_s, after = time.monotonic(), used_s(pids)
        results = [
            result
            for stream in read_run(run_folder).streams
            for result in stream.results
            if start_s <= result.fired_s < end_s
        ]
    used = {device: after[device] - before[device] for device in pids}
    samples.endpoint_ms.append(1e3 * sum(used[cam] for cam in cams) / len(results))
    samples.server_ms.append(1e3 * sum(used[edge] for edge in edges) / len(results))
    samples.latency_ms.append(
        1e3 * statistics.median(r.settled_s - r.fired_s for r in results)
    )
    samples.not_full += sum(result.status != "full" for result in results)


def started(run_folder: Path) -> dict[str, int]:
    """Return the process number of each device, from the launcher's events."""
    (path,) = run_folder.glob("events-launcher*.jsonl")
    records = map(json.loads, path.read_text().splitlines())
    return {r["target"]: r["pid"] for r in records if r.get("event") == "start"}


def used_s(pids: dict[str, int]) -> dict[str, float]:
    return {device: cpu_s(pid) for device, pid in pids.items()}


def figures(one: Samples, two: Samples, again: Samples) -> list[Figure]:
    def ms(values: Sequence[float]) -> float:
        return statistics.median(values)

    both = one.endpoint_ms + again.endpoint_ms
    latency = one.latency_ms + again.latency_ms
    return [
        Figure("A/A endpoint CPU", ms(again.endpoint_ms) / ms(one.endpoint_ms), "x"),
        Figure("A/A latency", ms(again.latency_ms) / ms(one.latency_ms), "x"),
        Figure("endpoint CPU, one server", ms(both), "ms"),
        Figure("endpoint CPU, two servers", ms(two.endpoint_ms), "ms"),
        Figure("endpoint CPU, two / one", ms(two.endpoint_ms) / ms(both), "x", BUDGET),
        Figure("latency, one server", ms(latency), "ms"),
        Figure("latency, two servers", ms(two.latency_ms), "ms"),
        Figure("latency, two / one", ms(two.latency_ms) / ms(latency), "x", BUDGET),
        Figure("server CPU, one server", ms(one.server_ms + again.server_ms), "ms"),
        Figure("server CPU, two servers", ms(two.server_ms), "ms"),
        Figure("frames not full", one.not_full + two.not_full + again.not_full, ""),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--endpoints", type=int, nargs="+", default=range(1, 7))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--model", choices=models(), default=models()[-1])
    chosen = parser.parse_args()
    tables = {}
    for count in chosen.endpoints:
        print()
        print(conditions("edge.0", "edge.1", *(f"cam.{i}" for i in range(count))))
        one, two, again = Samples(), Samples(), Samples()
        for _ in range(chosen.rounds):
            for samples, servers in ((one, 1), (two, 2), (again, 1)):
                add_run(
                    samples,
                    chosen.model,
                    servers=servers,
                    endpoints=count,
                    seconds=chosen.seconds,
                )
        title = (
            f"{chosen.model}, K_1,{count} and K_2,{count}: {RATE_HZ[chosen.model]} "
            f"pictures/s each, {chosen.rounds} x {chosen.seconds:g} s"
        )
        tables[title] = figures(one, two, again)
        show(title, tables[title])
        warn_if_void(tables[title][0].value)
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
