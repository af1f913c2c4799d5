"""A plan: a deployment compiled into all that a device needs to run.

A plan is a folder: ``plan.json`` (the plain graph, the devices, the reference graph)
and ``segments/<sha256>.onnx``. Compiling one needs the `onnx` library and the user's
YAML; running one needs only the folder.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dataflow.errors import MisuseError
from dataflow.graph import (
    Actor,
    Asked,
    Branch,
    Dpg,
    Fifo,
    Graph,
    Port,
    PortRef,
    Region,
    TokenType,
)
from dataflow.redundancy import Redundancy
from dataflow.turns import Batching

PLAN_FILE = "plan.json"
SEGMENTS = "segments"
PLAN_VERSION = 1


@dataclass(frozen=True, slots=True)
class Device:
    """One running process that hosts actors."""

    name: str
    role: Literal["endpoint", "server"]
    listen: str | None = None
    """ZeroMQ address that it binds, ``tcp://host:port``; servers must have one."""
    connect: str | None = None
    """Address where others reach it; differs from `listen` when that is a wildcard."""
    batch_max: int = 1
    """Tokens of one segment that it may compute as one batch."""
    batch_wait_ms: float = 0.0
    """How long a lone token waits for others."""

    @property
    def address(self) -> str | None:
        """Where others reach it."""
        return self.connect or self.listen

    @property
    def batching(self) -> Batching:
        return Batching(self.batch_max, self.batch_wait_ms / 1e3)

    metrics: str | None = None
    """Address where its metrics are served, ``tcp://host:port``; None: nowhere."""
    threads: int = 1
    """Threads that each of its models computes with."""
    cores: tuple[int, ...] = ()
    """Logical cores that the process runs on; none: all that it is given."""
    providers: tuple[str, ...] = ()
    """What computes its models, by preference; none: the processor."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What was predicted of a deployment before it ran.

    Attributes:
        p50_ms: Median latency of its full answers.
        within_ms: Known to within so much, on either side.
        over: Names of the links that it was predicted for; empty: of none.
    """

    p50_ms: float
    within_ms: float
    over: str = ""


# No slots: cached_property needs an instance dictionary.
@dataclass(frozen=True)
class Plan:
    """A compiled deployment.

    Attributes:
        reference: The same graph unsplit and undeployed, with the deployment's codecs
            written into it: what "full" is compared with (promise 3).
        keys: Folder of CURVE certificates, or None for plain links.
        segments: SHA-256 of each file that its actors run -> length in bytes. A device
            that lacks one asks its peers, see `dataflow.segments`.
        expected: None: nobody predicted anything.
    """

    name: str
    graph: Graph
    devices: Mapping[str, Device]
    reference: Graph
    folder: Path
    keys: Path | None = None
    segments: Mapping[str, int] = field(default_factory=dict)
    expected: Expected | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's content: names it in messages, folders and reports.

        A running device names its plan now and then, and has no time to write it down
        each time: 2 ms with 38 actors.
        """
        return hashlib.sha256(_text(self).encode()).hexdigest()

    def device(self, name: str) -> Device:
        """Return the device called `name`.

        Raises:
            MisuseError: No such device.
        """
        if name not in self.devices:
            raise MisuseError(
                f"device '{name}': not in deployment '{self.name}'; "
                f"its devices are {', '.join(self.devices)}"
            )
        return self.devices[name]

    def segments_of(self, device: str) -> set[str]:
        """Return the segments that the actors of `device` run."""
        named = {
            actor.params.get("segment")
            for actor in self.graph.actors.values()
            if actor.device == device
        }
        return {sha256 for sha256 in self.segments if sha256 in named}


def write_plan(plan: Plan) -> None:
    """Write ``plan.json`` into the plan's folder; segments are there already."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    partial = plan.folder / f"{PLAN_FILE}.partial"
    partial.write_text(_text(plan))
    partial.replace(plan.folder / PLAN_FILE)


def read_plan(folder: Path) -> Plan:
    """Return the plan that `folder` holds.

    Raises:
        MisuseError: No plan there, or one of another version.
    """
    path = folder / PLAN_FILE
    try:
        data = json.loads(path.read_text())
        version = data["understudy"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisuseError(
            f"{path}: cannot be read as a plan ({error}); compile it with "
            "`understudy check DEPLOYMENT --plan FOLDER`"
        ) from None
    if version != PLAN_VERSION:
        raise MisuseError(
            f"{path}: plan of version {version}, this is version {PLAN_VERSION}; "
            "compile it again"
        )
    return Plan(
        name=data["deployment"],
        graph=graph_from_json(data["graph"]),
        devices={d["name"]: _device(d) for d in data["devices"]},
        reference=graph_from_json(data["reference"]),
        folder=folder,
        keys=Path(data["keys"]) if data["keys"] else None,
        segments=data["segments"],
        expected=Expected(**data["expected"]) if data["expected"] else None,
    )


def _device(data: Mapping[str, Any]) -> Device:
    lists = {key: tuple(data[key]) for key in ("cores", "providers")}
    return Device(**{**data, **lists})


def _text(plan: Plan) -> str:
    return json.dumps(
        {
            "understudy": PLAN_VERSION,
            "deployment": plan.name,
            "devices": [
                {
                    "name": d.name,
                    "role": d.role,
                    "listen": d.listen,
                    "connect": d.connect,
                    "batch_max": d.batch_max,
                    "batch_wait_ms": d.batch_wait_ms,
                    "metrics": d.metrics,
                    "threads": d.threads,
                    "cores": list(d.cores),
                    "providers": list(d.providers),
                }
                for d in plan.devices.values()
            ],
            "keys": str(plan.keys) if plan.keys else None,
            "segments": dict(plan.segments),
            "expected": asdict(plan.expected) if plan.expected else None,
            "graph": graph_to_json(plan.graph),
            "reference": graph_to_json(plan.reference),
        },
        indent=1,
    )


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Return `graph` as JSON values; `graph_from_json` is the inverse."""
    return {
        "name": graph.name,
        "actors": [
            {
                "name": a.name,
                "type": a.type,
                "device": a.device,
                "stateful": a.stateful,
                "time": None if a.time is None else str(a.time),
                "params": dict(a.params),
                "ports": [
                    {
                        "name": p.name,
                        "direction": p.direction,
                        "token": str(p.token) if p.token else None,
                        "rates": list(p.rates),
                        "control": p.control,
                        "optional": p.optional,
                    }
                    for p in a.ports
                ],
            }
            for a in graph.actors.values()
        ],
        "fifos": [
            {
                "from": str(f.source),
                "to": str(f.target),
                "capacity": f.capacity,
                "delay": f.delay,
            }
            for f in graph.fifos
        ],
        "dpgs": [
            {
                "name": d.name,
                "controller": d.controller,
                "carried": sorted(d.carried),
                "modes": {
                    mode: {str(ref): rate for ref, rate in row.items()}
                    for mode, row in d.modes.items()
                },
            }
            for d in graph.dpgs
        ],
        "regions": [
            {
                "name": r.name,
                "stream": r.stream,
                "source": r.source,
                "sink": r.sink,
                "control": r.control,
                "fork": r.fork,
                "join": r.join,
                "window": r.window,
                "deadline_ms": r.deadline_ms,
                "redundancy": str(r.redundancy),
                "branches": [
                    {
                        "row": b.row,
                        "actors": list(b.actors),
                        "device": b.device,
                        "quality": b.quality,
                        "segment": f"{b.segment:016x}",
                        "onward": [[a.device, f"{a.segment:016x}"] for a in b.onward],
                        "codec": b.codec,
                    }
                    for b in r.branches
                ],
            }
            for r in graph.regions
        ],
    }


def graph_from_json(data: Mapping[str, Any]) -> Graph:
    """Return the graph that `graph_to_json` wrote."""
    return Graph(
        name=data["name"],
        actors={
            a["name"]: Actor(
                name=a["name"],
                type=a["type"],
                device=a["device"],
                stateful=a["stateful"],
                time=None if a.get("time") is None else Fraction(a["time"]),
                params=a["params"],
                ports=tuple(
                    Port(
                        name=p["name"],
                        direction=p["direction"],
                        token=TokenType.parse(p["token"]) if p["token"] else None,
                        rates=tuple(p["rates"]),
                        control=p["control"],
                        optional=p["optional"],
                    )
                    for p in a["ports"]
                ),
            )
            for a in data["actors"]
        },
        fifos=tuple(
            Fifo(
                PortRef.parse(f["from"]),
                PortRef.parse(f["to"]),
                f["capacity"],
                f["delay"],
            )
            for f in data["fifos"]
        ),
        dpgs=tuple(
            Dpg(
                name=d["name"],
                controller=d["controller"],
                carried=frozenset(d["carried"]),
                modes={
                    mode: {PortRef.parse(ref): rate for ref, rate in row.items()}
                    for mode, row in d["modes"].items()
                },
            )
            for d in data["dpgs"]
        ),
        regions=tuple(
            Region(
                **{k: r[k] for k in r if k not in ("branches", "redundancy")},
                redundancy=Redundancy.parse(r["redundancy"]),
                branches=tuple(
                    Branch(
                        row=b["row"],
                        actors=tuple(b["actors"]),
                        device=b["device"],
                        quality=b["quality"],
                        segment=int(b["segment"], 16),
                        onward=tuple(Asked(d, int(s, 16)) for d, s in b["onward"]),
                        codec=b["codec"],
                    )
                    for b in r["branches"]
                ),
            )
            for r in data["regions"]
        ),
    )
