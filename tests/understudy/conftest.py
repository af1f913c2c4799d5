"""Builds run folders: a small seeded simulation of who answers which frame, how late.

The tables are what devices would have written; a test changes a line and says what
the readers must then find.
"""

import json
import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dataflow.graph import (
    DROP_ROW,
    Actor,
    Branch,
    Dpg,
    Fifo,
    Graph,
    Port,
    PortRef,
    Region,
    TokenType,
)
from dataflow.plan import Device, Plan, write_plan

ROWS = ("edge.0", "edge.1", "exit2", "exit1")
LATENCY_MS = {"edge.0": 3.1, "edge.1": 3.3, "exit2": 1.6, "exit1": 0.9}
RIGHT = {"edge.0": 0.985, "edge.1": 0.985, "exit2": 0.955, "exit1": 0.9}
DETECT_MS, DECIDE_MS, SWITCH_MS = 1.5, 0.02, 0.3
T0_S = 1000.0

Table = list[dict[str, Any]]


@dataclass
class MadeRun:
    """The tables of a run; `write` makes a folder of them."""

    folder: Path
    results: dict[str, Table] = field(default_factory=dict)
    events: dict[str, Table] = field(default_factory=dict)

    def write(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        for name, table in {**self.results, **self.events}.items():
            text = "".join(json.dumps(row) + "\n" for row in table)
            (self.folder / name).write_text(text)
        return self.folder


@dataclass(frozen=True)
class Outage:
    """A server that is killed, and back some seconds later."""

    server: str
    at_s: float
    back_s: float
    signal: str = "SIGKILL"


def incarnation(name: str, life: int = 0) -> str:
    return f"{sum(name.encode()):08x}{life:08x}"


def results_name(stream: str, life: int = 0) -> str:
    return f"results-{stream}-{incarnation(stream, life)}.jsonl"


def events_name(device: str, life: int = 0) -> str:
    return f"events-{device}-{incarnation(device, life)}.jsonl"


def results_head(stream: str, life: int = 0) -> dict[str, Any]:
    return {
        "understudy": 1,
        "results": {
            "stream": stream,
            "incarnation": incarnation(stream, life),
            "device": stream,
            "deployment": "two-cameras-two-servers",
            "graph": "digits",
            "rows": list(ROWS),
            "codec": "none",
            "epoch_s": 1.7e9,
            "labels": True,
        },
    }


def events_head(device: str, pid: int, life: int = 0) -> dict[str, Any]:
    return {
        "understudy": 1,
        "events": {
            "device": device,
            "incarnation": incarnation(device, life),
            "deployment": "two-cameras-two-servers",
            "plan": "ab" * 32,
            "pid": pid,
            "epoch_s": 1.7e9,
            "version": "0.1.0",
        },
    }


def _serving(outages: tuple[Outage, ...], stream: str, t_s: float) -> str:
    """Return the row of a frame fired at `t_s`: cameras prefer different servers."""
    first = "edge.0" if stream.endswith("0") else "edge.1"
    other = "edge.1" if first == "edge.0" else "edge.0"
    for row in (first, other):
        if not any(o.server == row and o.at_s <= t_s < o.back_s for o in outages):
            return row
    return "exit2"


def _frame(
    rng: random.Random, outages: tuple[Outage, ...], stream: str, frame: int, t_s: float
) -> dict[str, Any]:
    row = _serving(outages, stream, t_s)
    took_ms = LATENCY_MS[row] * rng.lognormvariate(0, 0.08)
    attempts = 1
    for outage in outages:
        if row == outage.server and t_s < outage.at_s <= t_s + took_ms / 1e3:
            row, attempts = _serving(outages, stream, outage.at_s), 2
            lost_ms = (outage.at_s - t_s) * 1e3 + DETECT_MS + DECIDE_MS + SWITCH_MS
            took_ms = lost_ms + LATENCY_MS[row]
    label = rng.randrange(10)
    right = rng.random() < RIGHT[row]
    return {
        "frame": frame,
        "last": frame,
        "status": "full" if row.startswith("edge") else "degraded",
        "row": row,
        "reason": "",
        "fired_s": T0_S + t_s,
        "settled_s": T0_S + t_s + took_ms / 1e3,
        "attempts": attempts,
        "answer": label if right else (label + 1) % 10,
        "label": label,
        "value": None,
    }


def drop(row: dict[str, Any], reason: str, took_ms: float = 0.05) -> None:
    """Change a line of a results table into a drop."""
    row.update(status="dropped", row=DROP_ROW, reason=reason, answer=None, attempts=0)
    row["settled_s"] = row["fired_s"] + took_ms / 1e3


def simulate(
    folder: Path,
    *,
    seconds: float = 6.0,
    cameras: int = 2,
    rate_hz: float = 50.0,
    outages: tuple[Outage, ...] = (),
    seed: int = 1,
) -> MadeRun:
    """Return the tables of a run of K_{cameras,2}."""
    rng = random.Random(seed)
    made = MadeRun(folder)
    streams = [f"cam.{i}" for i in range(cameras)]
    for pid, device in enumerate([*streams, "edge.0", "edge.1"], start=100):
        made.events[events_name(device)] = [
            events_head(device, pid),
            {"t_s": T0_S - 0.3, "event": "device.ready", "load_ms": 41.0},
        ]
    for i, stream in enumerate(streams):
        phase_s = 0.001 + i / rate_hz / cameras
        frames = [
            _frame(rng, outages, stream, k, phase_s + k / rate_hz)
            for k in range(int(seconds * rate_hz))
        ]
        ended = {"ended": len(frames) - 1}
        made.results[results_name(stream)] = [results_head(stream), *frames, ended]
        events = made.events[events_name(stream)]
        events.append(
            {
                "t_s": T0_S,
                "event": "stream.started",
                "stream": stream,
                "incarnation": incarnation(stream),
                "source": f"camera[{stream}]",
                "rate_hz": rate_hz,
            }
        )
        for outage in outages:
            events += _loss_events(outage, frames)
    for name, events in made.events.items():
        last = {"t_s": T0_S + seconds + 0.2, "event": "device.stopped"}
        events[1:] = sorted([*events[1:], last], key=lambda e: float(e["t_s"]))
        assert name.startswith("events-")
    made.events["events-launcher.jsonl"] = _launcher_events(outages, cameras)
    return made


def _loss_events(outage: Outage, frames: Table) -> Table:
    fault_s = T0_S + outage.at_s
    moved = [f["frame"] for f in frames if f["fired_s"] < fault_s < f["settled_s"]]
    detected_s = fault_s + DETECT_MS / 1e3
    decided_s = detected_s + DECIDE_MS / 1e3
    about = {"peer": outage.server, "session": 1}
    return [
        {
            "t_s": detected_s,
            "event": "link.suspect",
            **about,
            "evidence": "disconnected",
            "text": "data lane closed",
        },
        {
            "t_s": decided_s,
            "event": "failover",
            "peer": outage.server,
            "evidence": "disconnected",
            "frames": moved,
            "rows": {},
            "detected_s": detected_s,
            "decided_s": decided_s,
            "switched_s": decided_s + SWITCH_MS / 1e3,
        },
        {
            "t_s": T0_S + outage.back_s,
            "event": "link.back",
            **about,
            "away_ms": (outage.back_s - outage.at_s) * 1e3,
        },
    ]


def _launcher_events(outages: tuple[Outage, ...], cameras: int) -> Table:
    pids = {"edge.0": 100 + cameras, "edge.1": 101 + cameras}
    events: Table = []
    for o in outages:
        about = {"target": o.server, "pid": pids[o.server]}
        events += [
            {"t_s": T0_S + o.at_s, "event": "fault", **about, "signal": o.signal},
            {"t_s": T0_S + o.at_s + 0.01, "event": "exit", **about, "status": -9},
            {"t_s": T0_S + o.back_s - 0.4, "event": "start", "target": o.server},
        ]
    return sorted(events, key=lambda e: float(e["t_s"]))


FRAME = TokenType("float32", (1, 1, 8, 8))
FEATURES = TokenType("float32", (1, 32, 8, 8))
LOGITS = TokenType("float32", (1, 10))


def plain_graph(cameras: int = 2, servers: int = 2) -> Graph:
    """Return the plain graph of a K_{cameras,servers} digits deployment."""
    actors: list[Actor] = []
    fifos: list[Fifo] = []
    dpgs, regions = [], []

    def add(name: str, kind: str, device: str, **ports: TokenType) -> None:
        made = tuple(
            Port(
                port.removeprefix("i_").removeprefix("o_"),
                "in" if port.startswith("i_") else "out",
                token,
            )
            for port, token in ports.items()
        )
        actors.append(Actor(name, kind, made, device=device))

    def join(source: str, target: str) -> None:
        fifos.append(Fifo(PortRef.parse(source), PortRef.parse(target), 4))

    for i in range(cameras):
        s = f"cam.{i}"
        rows = [f"edge.{j}" for j in range(servers)] + ["exit2", "exit1"]
        add(f"camera[{s}]", "images", s, o_frame=FRAME, o_label=LOGITS)
        add(f"prep[{s}]", "normalise", s, i_in=FRAME, o_out=FRAME)
        add(f"net.head[{s}]", "onnx", s, i_in=FRAME, o_out=FEATURES, o_tap=FEATURES)
        outs = {f"o_b{r}_f": FEATURES for r in range(len(rows))}
        add(f"fork[{s}]", "fork", s, i_f=FEATURES, i_t=FEATURES, **outs)
        ins = {f"i_r{r}": LOGITS for r in range(len(rows))}
        add(f"join[{s}]", "join", s, **ins, o_outcome=LOGITS)
        add(f"result[{s}]", "results", s, i_answer=LOGITS, i_label=LOGITS)
        actors.append(
            Actor(
                f"row[{s}]",
                "row",
                tuple(Port(f"c{c}", "out", None, control=True) for c in range(2)),
                device=s,
            )
        )
        for target in (f"fork[{s}]", f"join[{s}]"):
            port = Port("row", "in", None, control=True)
            k = next(k for k, a in enumerate(actors) if a.name == target)
            old = actors[k]
            actors[k] = Actor(old.name, old.type, (*old.ports, port), device=s)
        join(f"row[{s}].c0", f"fork[{s}].row")
        join(f"row[{s}].c1", f"join[{s}].row")
        join(f"camera[{s}].frame", f"prep[{s}].in")
        join(f"prep[{s}].out", f"net.head[{s}].in")
        join(f"net.head[{s}].out", f"fork[{s}].f")
        join(f"net.head[{s}].tap", f"fork[{s}].t")
        join(f"join[{s}].outcome", f"result[{s}].answer")
        join(f"camera[{s}].label", f"result[{s}].label")
        branches = []
        for r, row in enumerate(rows):
            if row.startswith("exit"):
                name = f"{row}[{s}]"
                add(name, "onnx", s, i_in=FEATURES, o_out=LOGITS)
                join(f"fork[{s}].b{r}_f", f"{name}.in")
                join(f"{name}.out", f"join[{s}].r{r}")
                branches.append(Branch(row, (name,), s, "degraded"))
                continue
            name = f"net.tail[{s}]@{row}"
            chain = [f"{name}.tx", f"{name}.rx", name, f"{name}.return.tx"]
            chain.append(f"{name}.return.rx")
            places = [s, row, row, row, s]
            kinds = ["tx", "rx", "onnx", "tx", "rx"]
            for k, (member, place, kind) in enumerate(
                zip(chain, places, kinds, strict=True)
            ):
                token_in = FEATURES if k < 3 else LOGITS
                token_out = FEATURES if k < 2 else LOGITS
                add(member, kind, place, i_in=token_in, o_out=token_out)
            join(f"fork[{s}].b{r}_f", f"{chain[0]}.in")
            for a, b in pairwise(chain):
                join(f"{a}.out", f"{b}.in")
            join(f"{chain[-1]}.out", f"join[{s}].r{r}")
            branches.append(Branch(row, tuple(chain), row, "full", 7))
        names = ("source", "sink", "control", "fork", "join")
        ends = ("camera", "result", "row", "fork", "join")
        places_of = {n: f"{e}[{s}]" for n, e in zip(names, ends, strict=True)}
        region = f"region[{s}]"
        regions.append(
            Region(
                name=region,
                stream=s,
                branches=tuple(branches),
                window=8,
                deadline_ms=200.0,
                **places_of,
            )
        )
        dpgs.append(Dpg(region, f"row[{s}]", {row: {} for row in (*rows, DROP_ROW)}))
    return Graph(
        "digits", {a.name: a for a in actors}, tuple(fifos), tuple(dpgs), tuple(regions)
    )


def write_digits_plan(folder: Path, cameras: int = 2, servers: int = 2) -> None:
    graph = plain_graph(cameras, servers)
    devices = {f"cam.{i}": Device(f"cam.{i}", "endpoint") for i in range(cameras)}
    for j in range(servers):
        listen = f"tcp://127.0.0.1:{7000 + j}"
        devices[f"edge.{j}"] = Device(f"edge.{j}", "server", listen)
    reference = Graph("digits", {}, ())
    write_plan(Plan("two-cameras-two-servers", graph, devices, reference, folder))


class Maker:
    """What the fixture `maker` gives: the names above, without an import."""

    Outage = Outage
    drop = staticmethod(drop)
    events_head = staticmethod(events_head)
    events_name = staticmethod(events_name)
    incarnation = staticmethod(incarnation)
    plain_graph = staticmethod(plain_graph)
    results_head = staticmethod(results_head)
    results_name = staticmethod(results_name)
    write_plan = staticmethod(write_digits_plan)
    rows = ROWS
    t0_s = T0_S
    detect_ms = DETECT_MS
    decide_ms = DECIDE_MS
    switch_ms = SWITCH_MS

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def simulate(self, **scene: Any) -> MadeRun:
        return simulate(self.folder, **scene)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "run")
