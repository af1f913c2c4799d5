"""What the benchmarks share: conditions, CPU clocks, tables with budgets, JSON."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.machine import machine_facts

AGAIN_LIMITS = (0.95, 1.05)
"""A variant against itself; outside it the machine was too busy to say anything."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, with the most that it may be."""

    name: str
    value: float
    unit: str = ""
    budget: float | None = None

    @property
    def verdict(self) -> str:
        if self.budget is None:
            return ""
        return "" if self.value <= self.budget else "  MISSED"


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--json` and says the first line of `doc`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser


def conditions(*processes: str) -> str:
    """Return where the figures come from; say so when cores are fewer than processes.

    Args:
        processes: Those that work at the same time.
    """
    facts = machine_facts()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    text = f"{facts['processor']}, {cores} cores for us, load {load:.1f} before"
    if len(processes) > cores:
        text += (
            f"\n{len(processes)} processes share {cores} cores: they wait for each "
            "other, so latencies say more about this machine than about the program"
        )
    return text


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print a table of figures, each beside its budget."""
    print(f"\n{title}")
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        budget = "" if figure.budget is None else f"   budget {figure.budget:g}"
        print(
            f"  {figure.name:{width}}  {figure.value:10.3f} {figure.unit:3}"
            f"{budget}{figure.verdict}"
        )


def write(path: Path | None, tables: Mapping[str, Sequence[Figure]]) -> None:
    """Write the figures and the machine's facts as JSON, if somebody wants them."""
    if path is None:
        return
    data: dict[str, Any] = {"machine": machine_facts()}
    for title, figures in tables.items():
        data[title] = [asdict(figure) for figure in figures]
    path.write_text(json.dumps(data, indent=1) + "\n")


def warn_if_void(again: float) -> None:
    """Say so when the bare variant disagreed with itself."""
    if not AGAIN_LIMITS[0] <= again <= AGAIN_LIMITS[1]:
        print(f"  VOID: bare against itself is {again:.3f}; run it again, alone")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that process `pid` has used, to the nanosecond."""
    # Linux makes a clock's number of the process's: see clock_getcpuclockid(3).
    return time.clock_gettime(~pid << 3 | 2)


def median_ratio(ours: Sequence[float], *theirs: Sequence[float]) -> float:
    """Return the median over the rounds of ours / mean of theirs."""
    ratios: list[float] = [
        mine / statistics.fmean(others)
        for mine, *others in zip(ours, *theirs, strict=True)
    ]
    return statistics.median(ratios)
