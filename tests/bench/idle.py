"""What a device costs when it does nothing: a link's CPU, the start, the memory.

    python -m tests.bench.idle [--seconds 10] [--starts 15] [--json FILE]

Idle links: toy endpoints whose only frame is long answered, with one server and with
five; CPU time of a process over the seconds. `each further link` is the slope.

Start: from starting the process to the `device.ready` in its log, after a first start
has written the bytecode. A toy device loads no model; the digits endpoint does, and
what a script takes to make the same sessions is subtracted.

Memory: resident set of the idle digits endpoint, against a script that imports NumPy
and onnxruntime and makes the same sessions. The window's bytes come on top.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dataflow.plan import SEGMENTS, Plan
from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    cpu_s,
    show,
    write,
)
from tests.bench.models import make_plan
from tests.bench.topologies import started
from tests.support.run import played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

LINK_BUDGET, START_BUDGET, MEMORY_BUDGET = 1.0, 250.0, 15.0
SERVERS = 5
SLOW_HZ = 0.01
SETTLE_S = 1.0
SCRIPT = """
import sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 4
start_s = time.monotonic()
sessions = [onnxruntime.InferenceSession(path, options) for path in sys.argv[1:]]
for session in sessions:
    shapes = {node.name: [n if isinstance(n, int) else 1 for n in node.shape]
              for node in session.get_inputs()}
    session.run(None, {name: numpy.zeros(shape, numpy.float32)
                       for name, shape in shapes.items()})
print(time.monotonic() - start_s, flush=True)
sys.stdin.read()
"""


def idle_percent(servers: int, seconds: float) -> tuple[float, float]:
    """Return the CPU of the endpoint and of a server, in percent of a core."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = toy_plan(
            folder / "plan",
            port=free_ports(servers),
            servers=servers,
            source={"rate_hz": SLOW_HZ},
        )
        with played(plan, folder) as run:
            run.wait_event("cam.0", "stream.started")
            time.sleep(SETTLE_S)
            pids = started(folder)
            start_s = time.monotonic()
            before = {device: cpu_s(pid) for device, pid in pids.items()}
            time.sleep(seconds)
            elapsed_s = time.monotonic() - start_s
            used = {d: cpu_s(pid) - before[d] for d, pid in pids.items()}
    of_servers = [used[f"edge.{i}"] for i in range(servers)]
    return 100 * used["cam.0"] / elapsed_s, 100 * max(of_servers) / elapsed_s


def start_ms(plan: Plan, name: str, starts: int) -> float:
    """Return the median time to ready of device `name`, started alone."""
    times = []
    for _ in range(starts + 1):
        with tempfile.TemporaryDirectory() as folder:
            begin_s = time.monotonic()
            with played(plan, Path(folder), start=[name]) as run:
                ready = run.wait_event(name, "device.ready")
            times.append(1e3 * (float(ready["t_s"]) - begin_s))
    return statistics.median(times[1:])


def segments(plan: Plan, device: str) -> list[str]:
    """Return the model files that `device` loads."""
    found = {
        str(actor.params["segment"])
        for actor in plan.graph.actors.values()
        if actor.type == "onnx" and actor.device == device
    }
    return [str(plan.folder / SEGMENTS / f"{sha256}.onnx") for sha256 in sorted(found)]


def script(paths: list[str]) -> tuple[float, float]:
    """Return the ms that making sessions of `paths` takes, and the MB in use then."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    took_ms = 1e3 * float(process.stdout.readline())
    resident = resident_mb(process.pid)
    process.communicate("")
    return took_ms, resident


def device_mb(plan: Plan, name: str) -> float:
    """Return the memory of device `name` of a running deployment that does nothing."""
    with tempfile.TemporaryDirectory() as folder, played(plan, Path(folder)) as run:
        run.wait_event(name, "stream.started")
        time.sleep(SETTLE_S)
        return resident_mb(started(Path(folder))[name])


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid}: has no resident set; it ended")


def links(seconds: float) -> list[Figure]:
    one, server = idle_percent(1, seconds)
    many, _ = idle_percent(SERVERS, seconds)
    slope = (many - one) / (SERVERS - 1)
    return [
        Figure("endpoint with one link", one, "%", LINK_BUDGET),
        Figure("server with one link", server, "%", LINK_BUDGET),
        Figure(f"endpoint with {SERVERS} links", many, "%"),
        Figure("each further link", slope, "%", LINK_BUDGET),
    ]


def starts(plan: Plan, count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        toy = toy_plan(Path(folder) / "plan", port=free_ports(2))
        endpoint, server = (start_ms(toy, name, count) for name in ("cam.0", "edge.0"))
    paths = segments(plan, "cam.0")
    load_ms = statistics.median(script(paths)[0] for _ in range(5))
    digits = start_ms(plan, "cam.0", count)
    return [
        Figure("toy endpoint", endpoint, "ms", START_BUDGET),
        Figure("toy server", server, "ms", START_BUDGET),
        Figure("digits endpoint, all of it", digits, "ms"),
        Figure("its models in a script", load_ms, "ms"),
        Figure("digits endpoint, without its models", digits - load_ms, "ms",
               START_BUDGET),
    ]  # fmt: skip


def memory(plan: Plan) -> list[Figure]:
    paths = segments(plan, "cam.0")
    alone = statistics.median(script(paths)[1] for _ in range(3))
    ours = statistics.median(device_mb(plan, "cam.0") for _ in range(3))
    return [
        Figure("script with the models", alone, "MB"),
        Figure("idle digits endpoint", ours, "MB"),
        Figure("more than the script", ours - alone, "MB", MEMORY_BUDGET),
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--starts", type=int, default=15)
    chosen = parser.parse_args()
    print(conditions("endpoint", "server"))
    with tempfile.TemporaryDirectory() as name:
        plan = make_plan("digits", Path(name), camera={"rate_hz": SLOW_HZ})
        tables = {
            f"idle links, {chosen.seconds:g} s": links(chosen.seconds),
            f"start to ready, median of {chosen.starts}": starts(plan, chosen.starts),
            "memory": memory(plan),
        }
    for title, table in tables.items():
        show(title, table)
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
