"""No failover without a fault, on a machine that is busy with other things.

    python -m tests.bench.false_failover [--minutes 10] [--busy 16] [--json FILE]

K_{2,2} of toy actors on loopback at 50 frames/s each, nobody breaks anything, and as
many processes as `--busy` says compute without end, at the same priority. Each peer
that becomes suspect is a failover that nothing called for.

Budget: none. Beside it, what the busy machine does to the frames: latency, and those
dropped, at their deadline or by a full window. `--busy 0` is the quiet machine, to
compare.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.common import Figure, arguments, conditions, show, write
from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.figures import latency
from understudy.launch import free_ports
from understudy.promise import judge
from understudy.records import Run
from understudy.run_folder import read_run

BUDGET = 0.0
RATE_HZ, TOKEN_FLOATS, WINDOW = 50, 1000, 24
BUSY = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes computing."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_for(folder: Path, seconds: float, count: int) -> float:
    """Run the deployment among `count` busy processes; return when they began."""
    plan = toy_plan(
        folder / "plan",
        port=free_ports(2),
        endpoints=2,
        size=TOKEN_FLOATS,
        window=WINDOW,
        source={"rate_hz": RATE_HZ},
    )
    with played(plan, folder) as run:
        for cam in ("cam.0", "cam.1"):
            run.wait_event(cam, "stream.started")
        with busy(count):
            start_s = time.monotonic()
            time.sleep(seconds)
            for cam in ("cam.0", "cam.1"):  # ends before the machine is quiet again
                run.launcher.kill(cam, signal.SIGTERM)
                run.wait_exit(cam)
    return start_s


def suspected(run: Run, since_s: float) -> Counter[str]:
    """Return how often a peer was suspected, by evidence."""
    return Counter(
        event.text("evidence")
        for life in run.devices
        for event in life.named("link.suspect")
        if event.t_s >= since_s
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--busy", type=int, default=16)
    chosen = parser.parse_args()
    print(conditions("cam.0", "cam.1", "edge.0", "edge.1"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_s = run_for(folder, chosen.minutes * 60, chosen.busy)
        run = read_run(folder)
    evidence, verdict = suspected(run, start_s), judge(run)
    results = [r for s in run.streams for r in s.results if r.fired_s >= start_s]
    took = latency(results)
    assert took is not None, "no frame was answered"
    table = [
        Figure("false failovers", evidence.total(), "", BUDGET),
        *(Figure(f"  by {kind}", count) for kind, count in evidence.items()),
        Figure("frames", len(results)),
        *(
            Figure(status, sum(r.status == status for r in results))
            for status in ("full", "degraded", "dropped")
        ),
        Figure("latency p50", took.p50_ms, "ms"),
        Figure("latency p99", took.p99_ms, "ms"),
        Figure("latency max", took.max_ms, "ms"),
        Figure("violations of the promise", len(verdict.violations), "", 0.0),
    ]
    title = f"{chosen.minutes:g} min, {chosen.busy} busy processes"
    show(title, table)
    write(chosen.json, {title: table})


if __name__ == "__main__":
    main()
