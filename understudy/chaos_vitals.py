"""What the processes of a run hold: memory, descriptors, threads; and who is left over.

Linux tells it in /proc. The launcher's own process, which carries the proxy, counts as
a device called `launcher`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dataflow.plan import Plan

FLAT_MB, FLAT_SHARE = 4.0, 0.03
"""Growth of a process up to which its memory counts as flat: allocators round up, and
libzmq's buffers hold more or less."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What one process held at one time."""

    resident_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a device: what it held when it had settled, and at last."""

    device: str
    pid: int
    seconds: float
    """Between the two."""
    start: Vitals
    end: Vitals
    early_mb: float
    """Most resident memory in the first half of this time."""
    late_mb: float
    """Most in the second half."""

    def growth(self, windows_mb: float) -> str:
        """Return whether its memory is flat, holds full windows by now, or grew.

        Args:
            windows_mb: What the windows of its streams hold when faults fill them.
        """
        grown_mb = self.late_mb - self.early_mb
        if grown_mb <= max(FLAT_MB, FLAT_SHARE * self.early_mb):
            return "flat"
        return "windows" if grown_mb <= windows_mb else "grew"


class Watch:
    """Looks at the processes of a run from time to time, and remembers each life.

    Args:
        settle_s: Age at which a process has made what it needs: its first vitals.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._born_s: dict[tuple[str, int], float] = {}
        self._seen: dict[tuple[str, int], list[tuple[float, Vitals]]] = {}

    def look(self, pids: Mapping[str, int], now_s: float) -> None:
        """Take the vitals of the processes that are there now, by device."""
        for life in pids.items():
            vitals = vitals_of(life[1])
            born_s = self._born_s.setdefault(life, now_s)
            if vitals is not None and now_s >= born_s + self._settle_s:
                self._seen.setdefault(life, []).append((now_s, vitals))

    def lives(self) -> Iterator[Life]:
        """Yield the lives that settled, by device, then by time."""
        for (device, pid), seen in sorted(
            self._seen.items(), key=lambda item: (item[0][0], item[1][0][0])
        ):
            (first_s, start), (last_s, end) = seen[0], seen[-1]
            half = (len(seen) + 1) // 2
            memory_mb = [vitals.resident_mb for _, vitals in seen]
            yield Life(
                device,
                pid,
                last_s - first_s,
                start,
                end,
                early_mb=max(memory_mb[:half]),
                late_mb=max(memory_mb[half:], default=memory_mb[-1]),
            )


def windows_mb(plan: Plan) -> dict[str, float]:
    """Return what full windows hold on each device: as many of its largest tokens."""
    held = dict.fromkeys(plan.devices, 0.0)
    for region in plan.graph.regions:
        fork = plan.graph.actors[region.fork]
        inputs = (port for port in fork.inputs if not port.control)
        sizes = (port.token.nbytes for port in inputs if port.token is not None)
        window = region.window * sum(sizes) / 2**20
        for device in {fork.device, *(branch.device for branch in region.branches)}:
            held[device or ""] = held.get(device or "", 0.0) + window
    return held


def vitals_of(pid: int) -> Vitals | None:
    """Return what process `pid` holds; None if it is gone."""
    folder = Path("/proc") / str(pid)
    try:
        status = (folder / "status").read_text()
        descriptors = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    fields = dict(line.partition(":")[::2] for line in status.splitlines())
    if "VmRSS" not in fields:
        return None  # ended, and not yet waited for
    return Vitals(
        resident_mb=int(fields["VmRSS"].split()[0]) / 1024,
        descriptors=descriptors,
        threads=int(fields["Threads"]),
    )


def processes_of(run_folder: Path) -> list[int]:
    """Return the processes of this host that are devices of the run in `run_folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"device" in words and str(run_folder).encode() in words:
                found.append(int(entry.name))
    return found
