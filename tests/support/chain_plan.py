"""Chains of toy actors over servers, from YAML: who answers is seen in the sum."""

from pathlib import Path

from dataflow.plan import Plan
from understudy.launch import free_ports
from understudy.plans import compile_deployment

TOYS = "tests.support.toy_actors"
HERE_ADDS = 2.0


def chain_adds(tiers: str) -> float:
    """Return what a chain adds to the frame's number: 1 + 10 + 100 of three tiers."""
    return float(sum(10**i for i in range(len(tiers))))


def chain_plan(
    folder: Path, *, tiers: str, rate_hz: float = 100, take_s: float = 0.0
) -> Plan:
    """Write the plan of cam -> tiers, two servers in each, or an understudy at home.

    Args:
        folder: Takes the files, and the plan in ``plan``.
        tiers: A letter for each.
        rate_hz: Of the source.
        take_s: What each server takes.
    """
    adds = [
        f'  on_{tier}: {{type: "{TOYS}:Add", add: {10**i}, take_s: {take_s}}}'
        for i, tier in enumerate(tiers)
    ]
    ends = ["twice.left", *(f"on_{tier}.out" for tier in tiers)]
    heads = [*(f"on_{tier}.in" for tier in tiers), "result.answer"]
    graph = [
        "understudy: 1",
        "graph: sums",
        "actors:",
        f'  camera: {{type: "{TOYS}:Counter", rate_hz: {rate_hz}}}',
        f'  twice: {{type: "{TOYS}:Twice"}}',
        *adds,
        f'  here: {{type: "{TOYS}:Add", add: {HERE_ADDS}}}',
        "  result: {type: results}",
        "fifos:",
        "  - camera.out -> twice.in",
        "  - twice.right -> here.in",
        *(f"  - {a} -> {b}" for a, b in zip(ends, heads, strict=True)),
        "understudies:",
        f"  on_{tiers[-1]}.out: [here.out]",
    ]
    deployment = [
        "understudy: 1",
        "deployment: in-a-row",
        "graph: sums.yaml",
        "devices:",
        "  cam: {role: endpoint}",
        *(
            f"  {tier}: {{role: server, count: 2, listen: tcp://127.0.0.1:7{i}00}}"
            for i, tier in enumerate(tiers)
        ),
        "map:",
        *(f"  {name}: cam" for name in ("camera", "twice", "here", "result")),
        *(f"  on_{tier}: {tier}" for tier in tiers),
        "failover:",
        f"  order: [on_{tiers[-1]}, here]",
        "  deadline_ms: 1000",
    ]
    for name, lines in (("sums", graph), ("chain", deployment)):
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    ports = free_ports(2 * len(tiers))
    return compile_deployment(folder / "chain.yaml", folder / "plan", listen_base=ports)
