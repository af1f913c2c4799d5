"""Playing partitions on the devices of a run that is up, one after the other.

Each partition becomes a plan of the same streams: the run's own deployment with the
network elsewhere. The run is given that plan under way, as `understudy switch` does,
plays some frames, and at the end gets back the plan that it had. No frame is lost, so
the run may be one that somebody needs. Frames come at the source's own rate, over the
links that there are.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.plan import Plan, read_plan
from graphs.located_yaml import load
from understudy.exploration import Exploration, Measured, Panel, Row
from understudy.explore_measure import FRAMES, WARM
from understudy.explore_run import EVENT, stage_ms
from understudy.explore_subject import Subject
from understudy.explored_deployment import answering, placed
from understudy.launch import Tail
from understudy.plans import compile_deployment
from understudy.run_folder import DEPLOYMENT_FILE, plan_folder, read_run
from understudy.switch import switch_to

MOST = 6
"""Partitions that are played at most, all that tie with the best first."""
LEAST = 3
FRAMES_S = 60.0
"""How long to wait for the frames of one partition."""
STAGES_S = 4.0
"""How long to wait for what the servers measured."""
LOOK_S = 0.05

Tell = Callable[[str], None]


def to_play(panel: Panel) -> list[Row]:
    """Return the rows worth playing: those that tie, the next best, and the ends."""
    ranked = [row for row in panel.ranked() if not row.excluded]
    ranked.sort(key=lambda row: not row.tie)
    count = max(LEAST, min(MOST, sum(row.tie for row in ranked)))
    return ranked[:count] + [r for r in ranked[count:] if r.kind in ("local", "raw")]


def played(
    exploration: Exploration,
    panel: Panel,
    subject: Subject,
    rows: Iterable[Row],
    run_folder: Path,
    *,
    frames: int = FRAMES,
    tell: Tell = lambda _: None,
) -> Exploration:
    """Return the exploration with what `rows` took on the devices of a run.

    Args:
        exploration: What was predicted.
        panel: Of it.
        subject: What was explored: the graph that the run plays.
        rows: Of the panel; those that the run cannot follow to are left out.
        run_folder: Of `understudy up`, which is running.
        frames: Behind each latency, at most; there are fewer where they come slowly.
        tell: Is told what is tried.

    Raises:
        MisuseError: No run there, or what was explored is not its graph.
        UnderstudyError: Nobody runs it, or its plan could not be put back.
    """
    run = _Run.read(run_folder, subject, [d.name for d in exploration.devices[1:]])
    latencies: dict[int, list[float]] = {}
    digests: dict[int, str] = {}
    try:
        for row in rows:
            with TemporaryDirectory(prefix="explore-") as scratch:
                try:
                    plan = run.plan_for(row, Path(scratch))
                    run.go_on_under(plan)
                    latencies[row.number] = _latencies_ms(run_folder, frames, plan)
                except UnderstudyError as error:
                    if isinstance(error, MisuseError):
                        raise
                    tell(f"{row.label}: not played: {error}")
                    continue
            digests[row.number] = plan.digest
            tell(f"{row.label}: {len(latencies[row.number])} frames")
    finally:
        run.go_on_under(run.before)
    found = read_run(run_folder)
    measured = {}
    for row in rows:
        if row.number in digests:
            ends = stage_ms(found, subject.actor, digests[row.number])
            took = Measured.of(
                latencies[row.number], endpoint_ms=ends[0], server_ms=ends[1]
            )
            measured[row.number] = replace(row, measured=took)
    return exploration.with_rows(panel, measured)


def _latencies_ms(run_folder: Path, frames: int, plan: Plan) -> list[float]:
    """Return the latencies of the next frames that are answered in full.

    A server leaves what it has measured some time after it was told of `plan`: that is
    waited for, if it does not take long.

    Raises:
        UnderstudyError: None is.
    """
    news = Tail(run_folder)
    list(news.news())  # those under the plan before
    servers = {d.name for d in plan.devices.values() if d.role == "server"}
    found: list[float] = []
    start_s = time.monotonic()
    took_s = 0.0
    while (len(found) < frames + WARM and took_s < FRAMES_S) or (
        servers and took_s < STAGES_S
    ):
        time.sleep(LOOK_S)
        took_s = time.monotonic() - start_s
        for file, record in news.news():
            if file.startswith("results-") and record.get("status") == "full":
                found.append((record["settled_s"] - record["fired_s"]) * 1e3)
            if record.get("event") == EVENT and plan.digest in record["plan"]:
                servers -= {n for n in servers if file.startswith(f"events-{n}-")}
    if len(found) <= WARM:
        raise UnderstudyError(
            f"{len(found)} frames were answered in full in {FRAMES_S:g} s"
        )
    return found[WARM : WARM + frames]


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is up.

    Attributes:
        before: The plan that it had.
        deployment: The file that it was started from, as JSON has it.
        endpoint: Name of the device, or group of devices, with the source.
        servers: Names of the others along which the network may be divided.
    """

    folder: Path
    subject: Subject
    before: Plan
    deployment: Mapping[str, Any]
    endpoint: str
    servers: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, subject: Subject, servers: list[str]) -> "_Run":
        """Return the run in `folder`, whose network `servers` are to share.

        Raises:
            MisuseError: It has no deployment file, or that has no such servers.
        """
        before = read_plan(plan_folder(folder))
        file = folder / DEPLOYMENT_FILE
        if subject.graph is None or not file.is_file():
            raise MisuseError(
                f"{folder}: explore the graph file that it runs, not a model, and a "
                "run that `up` started from a deployment file"
            )
        deployment: Any = load(file).plain()
        devices, mapping = deployment["devices"], deployment["map"]
        listening = [n for n, about in devices.items() if about["role"] == "server"]
        if not set(servers) <= set(listening):
            servers = _path(mapping.get(subject.actor)) or listening[: len(servers)]
        source = next(n for n, a in subject.graph.graph.actors.items() if not a.inputs)
        if source not in mapping:
            raise MisuseError(
                f"{folder}: runs another graph than {subject.graph.path}, one without "
                f"'{source}'; explore the graph file that it runs"
            )
        return cls(folder, subject, before, deployment, mapping[source], tuple(servers))

    def plan_for(self, row: Row, scratch: Path) -> Plan:
        """Return the plan that has the network as a row has it.

        Who else may answer stays so, unless they read what the endpoint makes no more.

        Raises:
            UnderstudyError: There is none.
        """
        answers = answering(self.subject)
        order = self.deployment.get("failover", {}).get("order", ())
        others = [choice for choice in order if _named(choice) != answers]
        try:
            return self._compiled(row, scratch, [answers, *others])
        except UnderstudyError:
            if not others:
                raise
            return self._compiled(row, scratch, [answers])

    def _compiled(self, row: Row, scratch: Path, order: list[Any]) -> Plan:
        hops = max(len(row.crossings), int(row.kind != "local"))
        if hops > len(self.servers):
            raise UnderstudyError(
                f"the run divides the network along {len(self.servers) + 1} devices"
            )
        assert self.subject.graph is not None
        moved = placed(self.subject, row, self.endpoint, self.servers[:hops])
        kept = {k: v for k, v in self.deployment["map"].items() if k not in moved}
        given = {
            **self.deployment,
            "graph": str(self.subject.graph.path.resolve()),
            "failover": {**self.deployment.get("failover", {}), "order": order},
        }
        if "keys" in given:
            given["keys"] = self.before.keys
        del given["map"]
        lines = [f"{key}: {json.dumps(value)}" for key, value in given.items()]
        lines.append("map:")
        lines += [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in kept.items()]
        lines += [f"  {json.dumps(name)}: {text}" for name, text in moved.items()]
        file = scratch / DEPLOYMENT_FILE
        file.write_text("\n".join(lines) + "\n")
        return compile_deployment(file, scratch / "compiled")

    def go_on_under(self, plan: Plan) -> None:
        """Let the run play `plan`, if it does not already."""
        if read_plan(plan_folder(self.folder)).digest != plan.digest:
            switch_to(self.folder, plan, lambda _: None)


def _path(where: Any) -> list[str]:
    """Return the servers of a network's place in a mapping."""
    if isinstance(where, dict):
        return [where["tail"]] if "tail" in where else list(where["path"][1:])
    return []


def _named(choice: Any) -> str:
    """Return the actor that an entry of the failover's order names."""
    return next(iter(choice)) if isinstance(choice, dict) else str(choice)
