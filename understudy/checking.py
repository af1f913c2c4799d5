"""`understudy check`: is a deployment sound, and what will it do?"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataflow.cores import cores_text
from dataflow.errors import MisuseError, UnderstudyError
from dataflow.failures import FailureTable, Required, failure_table
from dataflow.graph import Graph, Region
from dataflow.parts import StreamPart, stream_parts
from dataflow.plan import Device, Plan
from dataflow.redundancy import Mode
from understudy.failure_text import Demand, table_json, table_text
from understudy.graph_checking import CheckedGraph, check_graph, size_of
from understudy.plans import compile_deployment, is_graph_file
from understudy.row_timing import RowTime, row_times

_MODES: Mapping[Mode, str] = {
    "standby": "the first that is ready, and the next when it is lost",
    "spread": "the server with the least work, and the next when it is lost",
    "replicate": "that many servers at once, and the first answer counts",
    "hedge": "the first, and a second when it takes longer than its percentile",
}


@dataclass(frozen=True)  # no slots: cached_property needs an instance dictionary
class Checked:
    """A deployment that every rule accepts, compiled, and what failures do to it."""

    plan: Plan
    failures: FailureTable
    required: Required | None = None
    """What every stream that goes on must still get after each of the failures."""

    @cached_property
    def times(self) -> dict[str, dict[str, RowTime]]:
        """Times of each stream's rows, where all of its actors have some."""
        return row_times(self.plan.graph)

    def expanded(self) -> str:
        """Return the plain graph as a graph file."""
        from graphs.graph_writer import write_graph

        return write_graph(self.plan.graph)

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "understudy": 1,
            "sound": True,
            "deployment": plan.name,
            "plan": plan.digest,
            "devices": {
                d.name: {"role": d.role, "address": d.connect or d.listen}
                for d in plan.devices.values()
            },
            "actors": len(plan.graph.actors),
            "fifos": len(plan.graph.fifos),
            "streams": [
                _stream_json(plan.graph, part, self.times.get(part.region.stream, {}))
                for part in _parts(plan)
            ],
            "failures": table_json(self.failures) | self._demanded(),
        }

    def enforce(self) -> None:
        """Complain if what is required does not hold after every failure.

        Raises:
            UnderstudyError: Names the failures that break it and the least fix.
        """
        if self.required is not None:
            demand = Demand(self.required, self.failures)
            if demand.broken:
                raise UnderstudyError(f"{self.plan.name}: {demand.text()}")

    def _demanded(self) -> dict[str, Any]:
        if self.required is None:
            return {}
        return Demand(self.required, self.failures).to_json()

    def text(self) -> str:
        """Return what a person wants to know, in lines."""
        plan = self.plan
        kinds = {
            role: [d for d in plan.devices.values() if d.role == role]
            for role in ("endpoint", "server")
        }
        lines = [
            f"{plan.name}: sound",
            f"  endpoints  {', '.join(d.name for d in kinds['endpoint'])}",
            f"  servers    {', '.join(map(_at, kinds['server'])) or 'none'}",
            f"  graph      {size_of(plan.graph)}",
            f"  keys       {plan.keys or 'none: loopback only'}",
        ]
        for part in _parts(plan):
            times = self.times.get(part.region.stream, {})
            lines += _stream_text(plan.graph, part, times)
        actors, regions = plan.graph.actors, plan.graph.regions
        homes = {r.stream: actors[r.source].device or "" for r in regions}
        lines += table_text(self.failures, homes)
        return "\n".join(lines) + "\n"


def check(
    path: Path,
    plan_folder: Path | None,
    size: bool = False,
    *,
    failures: int | None = None,
    required: Required | None = None,
    layers: bool = False,
) -> Checked | CheckedGraph:
    """Check the deployment, plan folder, graph file or SDF3 file at `path`.

    Args:
        path: What to check.
        plan_folder: Where the compiled plan of a deployment is to be written.
        size: Look for the room that a graph needs, as for full throughput.
        failures: How many devices and links of a deployment may fail at once;
            None: one.
        required: What every failure must leave; see `Checked.enforce`.
        layers: Take each model of a graph as one actor for each layer group.

    Raises:
        MisuseError: No such file, or an option that is not for it.
        FileErrors: Something is wrong in the files, or a rule is broken.
    """
    if path.suffix == ".xml" or (path.is_file() and is_graph_file(path)):
        if plan_folder is not None:
            raise MisuseError(
                f"{path}: is a graph file, and a plan says where actors run, too; "
                "give a deployment file with --plan"
            )
        if failures is not None or required is not None:
            raise MisuseError(
                f"{path}: is a graph file, and what fails are devices and links; give "
                "a deployment file with --failures or --require"
            )
        return check_graph(path, size=size, layers=layers)
    if layers:
        raise MisuseError(
            f"{path}: is a deployment, which runs adjacent layers as one segment; give "
            "its graph file with --layers"
        )
    if size:
        raise MisuseError(
            f"{path}: is a deployment, whose windows and links set the room; give a "
            "graph file with --size"
        )
    if plan_folder is not None:
        plan = compile_deployment(path, plan_folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            plan = compile_deployment(path, Path(folder))
    table = failure_table(plan.graph, 1 if failures is None else failures)
    return Checked(plan, table, required)


_MESSAGE = re.compile(
    r"(?:(?P<place>.+?:\d+:\d+): )?(?P<subject>.*?): (?P<problem>.*?)"
    r"(?:; (?P<fix>[^;]*?))?(?: \((?P<rule>R\d+)\))?",
    re.DOTALL,
)
"""``where: what is wrong, with the values; what to do (rule)``."""


def refusal_json(error: UnderstudyError) -> dict[str, Any]:
    """Return why something was refused: what the rules or the files' readers found."""
    from graphs.located_yaml import FileErrors

    if isinstance(error, FileErrors) and error.findings:
        found = [{**asdict(f), "place": place} for place, f in error.findings]
    else:
        messages = getattr(error, "messages", (str(error),))
        found = [_finding_json(message) for message in messages]
    return {"understudy": 1, "sound": False, "findings": found}


def _finding_json(message: str) -> dict[str, str | None]:
    keys = ("rule", "subject", "problem", "fix", "place")
    parts = _MESSAGE.fullmatch(message)
    if parts is None:
        return {**dict.fromkeys(keys), "problem": message}
    return {key: parts[key] for key in keys}


def _parts(plan: Plan) -> list[StreamPart]:
    return [p for d in plan.devices for p in stream_parts(plan.graph, d)]


def _at(device: Device) -> str:
    at = f"{device.name} at {device.connect or device.listen}"
    if device.cores:
        at += f" on cores {cores_text(device.cores)}"
    if device.batch_max == 1:
        return at
    waits = f" within {device.batch_wait_ms:g} ms" if device.batch_wait_ms else ""
    return f"{at} (batches of up to {device.batch_max}{waits})"


def _retained_bytes(graph: Graph, part: StreamPart) -> int:
    """Bytes that one iteration keeps at the fork until it is settled."""
    tokens = (graph.port(ref).token for ref in part.fork_reads)
    return sum(token.nbytes for token in tokens if token is not None)


def _rate_hz(graph: Graph, region: Region) -> float:
    rate = graph.actors[region.source].params.get("rate_hz", 0.0)
    return float(rate) if isinstance(rate, int | float) else 0.0


def _stream_json(
    graph: Graph, part: StreamPart, times: Mapping[str, RowTime]
) -> dict[str, Any]:
    region = part.region
    return {
        "stream": region.stream,
        "rate_hz": _rate_hz(graph, region),
        "deadline_ms": region.deadline_ms,
        "window": region.window,
        "frames_per_answer": part.frames,
        "gate": _gate(part),
        "redundancy": str(region.redundancy),
        "retained_bytes": region.window * _retained_bytes(graph, part),
        "rows": [
            {
                "row": found.branch.row,
                "device": found.branch.device,
                "quality": found.branch.quality,
                "bytes_there": sum(token.nbytes for token in found.sent),
                "bytes_back": sum(token.nbytes for token in found.received),
            }
            | (asdict(times[found.branch.row]) if times else {})
            for found in part.branches
        ],
    }


def _gate(part: StreamPart) -> str | None:
    """Return the actor that decides whether the region plays, if there is one."""
    return None if part.around is None else part.around.port.actor


def _stream_text(
    graph: Graph, part: StreamPart, times: Mapping[str, RowTime]
) -> list[str]:
    stream, redundancy = _stream_json(graph, part, times), part.region.redundancy
    lines = [
        "",
        f"  stream {stream['stream']}: {stream['rate_hz']:g} frames/s, deadline "
        f"{stream['deadline_ms']:g} ms, window {stream['window']} "
        f"({_bytes(stream['retained_bytes'])} kept for another try)",
    ]
    if part.frames > 1:
        lines.append(f"    one answer for {part.frames} frames")
    if part.around is not None:
        early = " or ".join(part.around.modes[mode] for mode in part.around.answers)
        lines.append(
            f"    first, {stream['gate']} decides: {early} (full, nothing sent) or"
        )
    width = max(len(row["row"]) for row in stream["rows"])
    for place, row in enumerate(stream["rows"], 1):
        there = (
            f"{_bytes(row['bytes_there'])} there, {_bytes(row['bytes_back'])} back"
            if row["bytes_there"]
            else f"on {row['device']}, nothing sent"
        )
        if times:
            there += f", {row['latency_ms']:.4g} ms"
            if row["frames_per_s_max"] is not None:
                there += f", at most {row['frames_per_s_max']:.4g} frames/s"
        lines.append(f"    {place}. {row['row']:{width}}  {row['quality']:8}  {there}")
    lines.append(f"    {len(stream['rows']) + 1}. drop, and say why")
    lines.append(f"    {redundancy}: {_MODES[redundancy.mode]}")
    return lines


def _bytes(number: int) -> str:
    if number < 10_000:
        return f"{number} B"
    return f"{number / 1e3:.1f} KB" if number < 1e6 else f"{number / 1e6:.1f} MB"
