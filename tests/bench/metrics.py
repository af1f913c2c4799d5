"""What metrics cost the endpoint that serves them.

    python -m tests.bench.metrics [--pairs 12] [--seconds 2] [--json FILE]

A toy endpoint at 500 frames/s, with a server, both serving metrics. Stretches in which
nobody asks alternate with stretches in which the endpoint is asked ten times a second;
each is compared with the quiet ones beside it. CPU is the endpoint's, a frame; latency
is from its results file. From the difference follows what one scrape costs, and what
share of a core that is for a Prometheus that asks every 15 s. `again` is a quiet
stretch against the quiet one before it: outside 0.95 to 1.05 the machine was too busy.

`counting` is what the I/O loop pays for a frame whether or not anybody asks: the calls
that count, alone, in a loop.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from dataflow.meters import StreamMeter
from dataflow.outcome import Outcome
from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    cpu_s,
    median_ratio,
    show,
    warn_if_void,
    write,
)
from tests.bench.topologies import started
from tests.support.run import Played, played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports
from understudy.metrics import Address

RATE_HZ, ASK_HZ = 500, 10
USUAL_S = 15.0
"""How often Prometheus asks where nobody says otherwise."""
COUNTED = 100_000
SHARE_BUDGET, COUNT_BUDGET_US = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one stretch of time cost."""

    cpu_us: float
    p50_ms: float
    p99_ms: float


def stretch(run: Played, pid: int, seconds: float, ask: Callable[[], None]) -> Stretch:
    """Let the run go on for `seconds`, asking now and then; return what it cost."""
    (file,) = run.folder.glob("results-cam.0-*.jsonl")
    with file.open() as lines:
        lines.seek(0, 2)
        used_s, end_s = cpu_s(pid), time.monotonic() + seconds
        while time.monotonic() < end_s:
            ask()
            time.sleep(1 / ASK_HZ)
        used_s = cpu_s(pid) - used_s
        text = lines.read()
    rows = [json.loads(line) for line in text.splitlines(keepends=True)[1:-1]]
    took_ms = sorted(1e3 * (row["settled_s"] - row["fired_s"]) for row in rows)
    cuts = statistics.quantiles(took_ms, n=100)
    return Stretch(1e6 * used_s / len(rows), cuts[49], cuts[98])


def scraped(pairs: int, seconds: float) -> list[Figure]:
    """Compare stretches with and without somebody who asks."""
    quiet: list[Stretch] = []
    asked: list[Stretch] = []
    times_ms: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = toy_plan(
            folder / "plan",
            port=free_ports(1),
            servers=1,
            source={"rate_hz": RATE_HZ},
        )
        metrics = Address("127.0.0.1", 0)
        with played(plan, folder, metrics=metrics) as run:
            url = run.wait_event("cam.0", "device.metrics")["url"]
            run.wait_rows("cam.0", "edge.0", RATE_HZ)
            pid = started(folder)["cam.0"]

            def ask() -> None:
                begin_s = time.monotonic()
                with urlopen(url) as answer:
                    answer.read()
                times_ms.append(1e3 * (time.monotonic() - begin_s))

            for _ in range(pairs):
                quiet.append(stretch(run, pid, seconds, lambda: None))
                asked.append(stretch(run, pid, seconds, ask))
            quiet.append(stretch(run, pid, seconds, lambda: None))
    found = []
    for key in ("cpu_us", "p50_ms", "p99_ms"):
        alone, ours = ([getattr(s, key) for s in which] for which in (quiet, asked))
        ratio = median_ratio(ours, alone[:-1], alone[1:])
        found.append(Figure(f"{key}, asked / quiet", ratio, "x"))
        if key == "cpu_us":
            again = median_ratio(alone[1:], alone[:-1])
            found.append(Figure("cpu_us, again", again, "x"))
            warn_if_void(again)
            frame_us = statistics.median(alone)
            scrape_ms = (ratio - 1) * frame_us * RATE_HZ / ASK_HZ / 1e3
    found += [
        Figure("CPU of a frame, quiet", frame_us, "µs"),
        Figure("latency p50, quiet", statistics.median(s.p50_ms for s in quiet), "ms"),
        Figure("CPU of a scrape", scrape_ms, "ms"),
        Figure("a scrape in 15 s", scrape_ms / USUAL_S / 10, "%", SHARE_BUDGET),
        Figure("answer to a scrape", statistics.median(times_ms), "ms"),
    ]
    return found


def counting() -> list[Figure]:
    """Time the calls that count a frame with one remote attempt."""
    meter = StreamMeter()
    outcome = Outcome(
        "cam.0", 1, 0, 0, "full", "edge.0", "", None, fired_s=1.0, settled_s=1.003,
        attempts=1,
    )  # fmt: skip
    best_s = float("inf")
    for _ in range(5):
        begin_s = time.perf_counter()
        for _ in range(COUNTED):
            meter.attempts["edge.0"] += 1
            meter.source_busy_s += 0.001
            meter.settled(outcome)
        best_s = min(best_s, time.perf_counter() - begin_s)
    return [Figure("a frame", 1e6 * best_s / COUNTED, "µs", COUNT_BUDGET_US)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    print(conditions("endpoint", "server", "who asks"))
    tables = {
        "counting": counting(),
        f"asked {ASK_HZ} times a second": scraped(chosen.pairs, chosen.seconds),
    }
    for title, table in tables.items():
        show(title, table)
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
