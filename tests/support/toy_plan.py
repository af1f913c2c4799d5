"""Plans made by hand: K_{m,n} of toy actors, without files, YAML or ONNX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow.graph import (
    ALL_ROW,
    CONTROL_TOKEN,
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
from dataflow.redundancy import Redundancy

TOYS = "tests.support.toy_actors"
SERVER_ADDS, LOCAL_ADDS = 1.0, 2.0


def toy_plan(
    folder: Path,
    *,
    port: int,
    endpoints: int = 1,
    servers: int = 2,
    size: int = 4,
    window: int = 8,
    deadline_ms: float = 1000.0,
    local: bool = True,
    source: Mapping[str, Any] | None = None,
    tail: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    here: Mapping[str, Any] | None = None,
    source_type: str = "Counter",
    tail_type: str = "Add",
    redundancy: str = "standby",
    batch_max: int = 1,
    batch_wait_ms: float = 0.0,
    keys: Path | None = None,
    compression: str = "",
    segment: int = 77,
    hosts: Mapping[str, str] | None = None,
) -> Plan:
    """Write the plan of `endpoints` x `servers`: count, add one there, or two here.

    A `head`, if given, stands between the source and the fork and adds nothing. `hosts`
    are addresses of servers that are not on loopback.
    """
    parts = [
        _stream(
            f"cam.{i}",
            [f"edge.{(i + j) % servers}" for j in range(servers)],
            token=TokenType("float32", (size,)),
            window=window,
            deadline_ms=deadline_ms,
            local=local,
            source={"rate_hz": 200, "size": size, **(source or {})},
            tail={"size": size, "add": SERVER_ADDS, **(tail or {})},
            head=None if head is None else {"size": size, "add": 0.0, **head},
            here={"size": size, "add": LOCAL_ADDS, **(here or {})},
            source_type=source_type,
            tail_type=tail_type,
            redundancy=Redundancy.parse(redundancy),
            compression=compression,
            segment=segment,
        )
        for i in range(endpoints)
    ]
    graph = Graph(
        "toy",
        {name: actor for part in parts for name, actor in part.actors.items()},
        tuple(fifo for part in parts for fifo in part.fifos),
        tuple(dpg for part in parts for dpg in part.dpgs),
        tuple(region for part in parts for region in part.regions),
    )
    devices = {f"cam.{i}": Device(f"cam.{i}", "endpoint") for i in range(endpoints)}
    for j in range(servers):
        host = (hosts or {}).get(f"edge.{j}", "127.0.0.1")
        address = f"tcp://{host}:{port + j}"
        devices[f"edge.{j}"] = Device(
            f"edge.{j}", "server", address, address, batch_max, batch_wait_ms
        )
    plan = Plan("toy", graph, devices, Graph("none", {}, ()), folder, keys)
    write_plan(plan)
    return plan


def _stream(
    cam: str,
    servers: list[str],
    *,
    token: TokenType,
    window: int,
    deadline_ms: float,
    local: bool,
    source: Mapping[str, Any],
    tail: Mapping[str, Any],
    head: Mapping[str, Any] | None,
    here: Mapping[str, Any],
    source_type: str,
    tail_type: str,
    redundancy: Redundancy,
    compression: str,
    segment: int,
) -> Graph:
    actors: dict[str, Actor] = {}
    fifos: list[Fifo] = []
    rows = [*servers, *(["here"] if local else [])]
    together = [ALL_ROW] if redundancy.together else []
    modes: dict[str, dict[PortRef, int]] = {
        row: {} for row in (*rows, *together, DROP_ROW)
    }
    controls: list[str] = []
    carried: set[str] = set()
    branches = []

    def actor(name: str, type_: str, device: str, *ports: Port, **extra: Any) -> None:
        actors[name] = Actor(
            name, type_, ports, extra.pop("params", {}), device, **extra
        )

    def fifo(source: str, target: str, delay: int = 0) -> None:
        fifos.append(Fifo(PortRef.parse(source), PortRef.parse(target), window, delay))

    def port(name: str, direction: str, *, dynamic: bool = False) -> Port:
        rates = (0, 1) if dynamic else (1,)
        return Port(name, direction, token, rates)  # type: ignore[arg-type]

    row_port = Port("row", "in", CONTROL_TOKEN, control=True)
    names = {
        n: f"{n}[{cam}]" for n in ("camera", "fork", "row", "join", "result", "local")
    }
    actor(
        names["camera"], f"{TOYS}:{source_type}", cam, port("out", "out"),
        params=source, stateful=True,
    )  # fmt: skip
    actor(
        names["fork"], "fork", cam, port("x", "in"), row_port,
        *(port(f"b{i}_x", "out", dynamic=True) for i in range(len(rows))),
    )  # fmt: skip
    actor(
        names["join"], "join", cam, row_port,
        *(port(f"r{i}", "in", dynamic=True) for i in range(len(rows))),
        port("outcome", "out"),
    )  # fmt: skip
    actor(
        names["result"], "results", cam, port("answer", "in"), stateful=True,
        params={"deployment": "toy", "graph": "toy", "rows": rows, "codec": "none"},
    )  # fmt: skip
    if head is None:
        fifo(f"{names['camera']}.out", f"{names['fork']}.x")
    else:
        name = f"head[{cam}]"
        ends = port("in", "in"), port("out", "out")
        actor(name, f"{TOYS}:Add", cam, *ends, params=head)
        fifo(f"{names['camera']}.out", f"{name}.in")
        fifo(f"{name}.out", f"{names['fork']}.x")
    fifo(f"{names['join']}.outcome", f"{names['result']}.answer")
    controls += [names["fork"], names["join"]]
    for i, row in enumerate(rows):
        if row == "here":
            members = [names["local"]]
            actor(
                names["local"], f"{TOYS}:Add", cam,
                port("in", "in", dynamic=True), port("out", "out", dynamic=True),
                row_port, params=here,
            )  # fmt: skip
            controls.append(names["local"])
            fifo(f"{names['fork']}.b{i}_x", f"{names['local']}.in")
            fifo(f"{names['local']}.out", f"{names['join']}.r{i}")
        else:
            base = f"tail[{cam}]@{row}"
            members = [
                f"{base}{s}" for s in (".tx", ".rx", "", ".return.tx", ".return.rx")
            ]
            places = [cam, row, row, row, cam]
            types = ["tx", "rx", f"{TOYS}:{tail_type}", "tx", "rx"]
            for member, place, kind in zip(members, places, types, strict=True):
                crosses = kind in ("tx", "rx")
                given = {"compression": compression} if crosses and compression else {}
                control = (row_port,) if member.endswith("]@" + row + ".tx") else ()
                actor(
                    member, kind, place,
                    port("in", "in", dynamic=True), port("out", "out", dynamic=True),
                    *control, params=tail if kind.endswith(tail_type) else given,
                )  # fmt: skip
            controls.append(members[0])
            carried.update(members[1:])
            stops = [f"{names['fork']}.b{i}_x"]
            for member in members:
                fifo(stops[-1], f"{member}.in")
                stops.append(f"{member}.out")
            fifo(stops[-1], f"{names['join']}.r{i}")
        for mode, table in modes.items():
            rate = int(mode in (row, ALL_ROW))
            table[PortRef(names["fork"], f"b{i}_x")] = rate
            table[PortRef(names["join"], f"r{i}")] = rate
            for member in members:
                table[PortRef(member, "in")] = table[PortRef(member, "out")] = rate
        branches.append(
            Branch(
                row, tuple(members), cam if row == "here" else row,
                "degraded" if row == "here" else "full",
                0 if row == "here" else segment,
            )
        )  # fmt: skip
    actor(
        names["row"], "row", cam,
        *(
            Port(f"c{i}", "out", CONTROL_TOKEN, control=True)
            for i in range(len(controls))
        ),
    )  # fmt: skip
    for i, governed in enumerate(controls):
        fifo(f"{names['row']}.c{i}", f"{governed}.row")
    region = f"region[{cam}]"
    return Graph(
        "toy",
        actors,
        tuple(fifos),
        (Dpg(region, names["row"], modes, frozenset(carried)),),
        (
            Region(
                region, cam, names["camera"], names["result"], names["row"],
                names["fork"], names["join"], tuple(branches), window, deadline_ms,
                redundancy,
            ),
        ),
    )  # fmt: skip
