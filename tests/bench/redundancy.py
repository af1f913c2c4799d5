"""Modes of redundancy side by side: the gap at a fault, and what each costs.

    python -m tests.bench.redundancy [--rounds 3] [--strokes 4] [--json FILE]

K_{1,2} of toy actors on loopback, every device a process of its own; the servers take
5 ms a token. The modes take turns, round by round. First nothing fails: CPU time of the
endpoint and of both servers per frame, attempts per frame, and latency. Then the first
server is struck: killed (and started again), stopped (and continued once it is
suspected), and paused for 50 ms, which is too short to be noticed by anything but a
hedge or a replica.

Gap: max over the frames outstanding at the stroke or fired in the 2 s after it of
(firing -> outcome), minus the median of the 200 before. It is taken of the sink alone,
so all modes are measured alike; strokes that found no frame at the struck server count
as well, in every mode.

`decide` is what naming the row of a frame takes among eight servers, with real links
and service times behind them: median and 99th percentile.
"""

import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataflow.redundancy import Redundancy
from dataflow.wire.control import StreamOffer
from dataflow.wire.link import Link
from dataflow.wire.link_states import State
from dataflow.wire.rows import choose
from dataflow.wire.service_time import ServiceTime
from tests.bench.common import Figure, arguments, conditions, show, write
from tests.bench.topologies import started, used_s
from tests.support.run import Played, played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports
from understudy.promise import judge
from understudy.records import Result
from understudy.run_folder import read_run

MODES = ("standby", "spread", "replicate 2", "hedge p95")
RATE_HZ, SERVICE_S, TOKEN_FLOATS, WINDOW = 100, 0.005, 256, 24
AFTER_S, BEFORE, PAUSE_S, CALM_S = 2.0, 200, 0.050, 3.0
FAULTS = ("KILL", "STOP", "PAUSE")
SERVERS, DECISIONS, DECIDE_US = 8, 20_000, 50.0


@dataclass
class Samples:
    """What was measured of one mode, over all rounds."""

    endpoint_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    gaps_ms: dict[str, list[float]] = field(
        default_factory=lambda: {fault: [] for fault in FAULTS}
    )
    dropped: int = 0
    violations: int = 0


def strike(run: Played, fault: str) -> float:
    """Strike the first server, wait the window of the gap, and bring it back.

    Returns:
        When it was struck.
    """
    run.forget()
    if fault == "PAUSE":
        struck_s = run.launcher.kill("edge.0", signal.SIGSTOP)
        time.sleep(PAUSE_S)
        run.kill("edge.0", signal.SIGCONT)
        time.sleep(AFTER_S)
        return struck_s
    struck_s = run.launcher.kill("edge.0", signal.Signals[f"SIG{fault}"])
    run.wait_event("cam.0", "link.suspect", peer="edge.0")
    time.sleep(AFTER_S)
    if fault == "KILL":
        run.launcher.start("edge.0")
    else:
        run.kill("edge.0", signal.SIGCONT)
    run.wait_event("cam.0", "link.back", peer="edge.0")
    time.sleep(BEFORE / RATE_HZ)  # so many frames are compared with
    return struck_s


def gap_ms(results: Sequence[Result], struck_s: float) -> float:
    before = [r.latency_ms for r in results if r.settled_s < struck_s][-BEFORE:]
    hit = [
        r.latency_ms
        for r in results
        if r.settled_s >= struck_s and r.fired_s < struck_s + AFTER_S
    ]
    return max(hit) - statistics.median(before)


def add_round(samples: Samples, mode: str, strokes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = toy_plan(
            folder / "plan",
            port=free_ports(2),
            size=TOKEN_FLOATS,
            window=WINDOW,
            local=False,
            source={"rate_hz": RATE_HZ},
            tail={"take_s": SERVICE_S},
            redundancy=mode,
        )
        with played(plan, folder) as run:
            run.wait_event("cam.0", "stream.started")
            time.sleep(BEFORE / RATE_HZ)
            pids = started(folder)
            start_s, before = time.monotonic(), used_s(pids)
            time.sleep(CALM_S)
            end_s, after = time.monotonic(), used_s(pids)
            struck = [(f, strike(run, f)) for _ in range(strokes) for f in FAULTS]
            run.kill("cam.0", signal.SIGTERM)
            run.wait_exit("cam.0")
        record = read_run(folder)
    (stream,) = record.streams
    calm = [r for r in stream.results if start_s <= r.fired_s < end_s]
    used = {device: after[device] - before[device] for device in pids}
    servers_s = used["edge.0"] + used["edge.1"]
    samples.endpoint_ms.append(1e3 * used["cam.0"] / len(calm))
    samples.server_ms.append(1e3 * servers_s / len(calm))
    samples.attempts.append(sum(r.attempts for r in calm) / len(calm))
    samples.latency_ms += [r.latency_ms for r in calm]
    for fault, struck_s in struck:
        samples.gaps_ms[fault].append(gap_ms(stream.results, struck_s))
    samples.dropped += sum(r.status == "dropped" for r in stream.results)
    samples.violations += len(judge(record).violations)


class Server:
    """A branch as `dataflow.branches.RemoteBranch` shows it, without its part."""

    local, grade, carried = False, 0, True

    def __init__(self, link: Link) -> None:
        self.link = link
        self.service = ServiceTime()
        for i in range(64):
            self.service.add(SERVICE_S * (1 + i / 64), 0.0)

    @property
    def ready(self) -> bool:
        return self.link.ready and self.link.credit(1) > 0

    @property
    def outstanding(self) -> int:
        return self.link.outstanding

    def p90_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.9, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)

    def learned_s(self, fraction: float) -> float:
        return self.service.learned_s(fraction)


def deciding(mode: str) -> list[Figure]:
    offer = StreamOffer(1, "cam.0", 77, WINDOW)
    servers = []
    for i in range(SERVERS):
        link = Link(
            f"edge.{i}", device="cam.0", incarnation=1, offers=(offer,), now_s=0.0
        )
        link.state = State.READY
        link.raise_limit(1, WINDOW - i % 3)
        servers.append(Server(link))
    redundancy = Redundancy.parse(mode)
    took_us = []
    for turn in range(DECISIONS):
        start_s = time.perf_counter()
        choose(servers, redundancy, turn=turn, remaining_s=1.0, now_s=0.0)
        took_us.append(1e6 * (time.perf_counter() - start_s))
    return [
        Figure("decide p50", statistics.median(took_us), "us", DECIDE_US),
        Figure("decide p99", quantile(took_us, 0.99), "us", DECIDE_US),
    ]


def quantile(values: Sequence[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def figures(samples: Samples, standby: Samples) -> list[Figure]:
    endpoint, server = (
        statistics.median(getattr(samples, name))
        for name in ("endpoint_ms", "server_ms")
    )
    found = [
        Figure("endpoint CPU a frame", endpoint, "ms"),
        Figure(
            "  against standby", endpoint / statistics.median(standby.endpoint_ms), "x"
        ),
        Figure("servers' CPU a frame", server, "ms"),
        Figure("  against standby", server / statistics.median(standby.server_ms), "x"),
        Figure("attempts a frame", statistics.median(samples.attempts)),
        Figure("latency p50", statistics.median(samples.latency_ms), "ms"),
        Figure("latency p99", quantile(samples.latency_ms, 0.99), "ms"),
    ]
    for fault, gaps in samples.gaps_ms.items():
        found.append(Figure(f"gap at {fault} p50", statistics.median(gaps), "ms"))
        found.append(Figure(f"gap at {fault} max", max(gaps), "ms"))
    found.append(Figure("frames dropped", samples.dropped))
    found.append(Figure("promises broken", samples.violations, "", 0))
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strokes", type=int, default=4, help="of each fault a round")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    chosen = parser.parse_args()
    print(conditions("cam.0", "edge.0", "edge.1"))
    print(
        f"{RATE_HZ} frames/s, {SERVICE_S * 1e3:g} ms a token, {TOKEN_FLOATS * 4} B "
        f"tokens, window {WINDOW}, "
        f"{chosen.rounds * chosen.strokes} strokes of each kind"
    )
    every = {mode: Samples() for mode in chosen.modes}
    for _ in range(chosen.rounds):
        for mode, samples in every.items():
            add_round(samples, mode, chosen.strokes)
    standby = next(iter(every.values()))
    tables = {
        mode: deciding(mode) + figures(samples, standby)
        for mode, samples in every.items()
    }
    for mode, table in tables.items():
        show(mode, table)
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
