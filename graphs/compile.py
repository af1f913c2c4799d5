"""From a deployment to a plan: the folder that holds all a device needs to run."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dataflow import rules
from dataflow.plan import SEGMENTS, Plan, write_plan
from dataflow.rules import Finding
from graphs.deployment import Deployment
from graphs.expand import Expansion, expansion
from graphs.located_yaml import FileErrors
from graphs.reference import reference
from graphs.split import Segment

_SEGMENT_FILE = re.compile(r"[0-9a-f]{64}\.onnx(\.partial.*)?")


def compile_plan(deployment: Deployment, folder: Path) -> Plan:
    """Write the plan of a deployment into `folder` and return it.

    The folder may hold an earlier plan: it is replaced, and segments that the new plan
    does not name are removed.

    Raises:
        FileErrors: The deployment cannot be expanded, or its plain graph breaks a rule;
            nothing was written.
    """
    expanded = expansion(deployment)
    if found := located(rules.check(expanded.graph), expanded, deployment):
        raise FileErrors.broken(found)
    undeployed, segments = reference(deployment, expanded)
    made = {**expanded.segments, **segments}
    plan = Plan(
        name=deployment.name,
        graph=expanded.graph,
        devices=deployment.devices,
        reference=undeployed,
        folder=folder,
        keys=deployment.keys,
        segments={sha256: len(segment.data) for sha256, segment in made.items()},
        expected=deployment.expected,
    )
    write_segments(made, folder / SEGMENTS)
    write_plan(plan)
    return plan


def located(
    findings: Iterable[Finding], expanded: Expansion, deployment: Deployment
) -> list[tuple[str, Finding]]:
    """Return findings with their places in the user's files.

    A finding of the same rule in the same place, for another device or stream, adds
    nothing: only the first is kept.
    """
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        place = _place(finding, expanded.location) or f"{deployment.path}:1:1"
        found.setdefault((place, finding.rule), finding)
    return [(place, finding) for (place, _), finding in found.items()]


def _place(finding: Finding, location: Mapping[str, str]) -> str | None:
    """Return where the actor, FIFO or port comes from that a finding is about."""
    kind, _, rest = finding.subject.partition(" ")
    name = rest.strip("'")
    # A region is judged as a whole, but what is wrong is mostly with one member.
    if kind not in ("region", "dpg"):
        for candidate in (name, name.rpartition(".")[0]):
            if candidate in location:
                return location[candidate]
    text = f"{finding.subject} {finding.problem}"
    known = [name for name in location if name in finding.problem] or [
        name for name in location if name in text
    ]
    return location[max(known, key=len)] if known else None


def write_segments(segments: Mapping[str, Segment], folder: Path) -> None:
    """Write segments as ``<sha256>.onnx``; remove others of that form."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _SEGMENT_FILE.fullmatch(path.name) and path.stem not in segments:
            path.unlink()
    for sha256, segment in segments.items():
        path = folder / f"{sha256}.onnx"
        if not path.exists():
            partial = folder / f"{sha256}.onnx.partial"
            partial.write_bytes(segment.data)
            partial.replace(path)
