"""A share of one core for a process: a slower machine, made of a fast one.

The kernel's own bandwidth control (CFS quota) lets all threads of a group run for so
long in each period, and then none. Needs the right to make control groups: root.

That is a slower machine for what takes many periods only: after a pause the first
quota is there at once, so work takes its time over the share less up to one period, and
what is shorter than the quota is not slowed at all. And all that the process does
counts, what it does while it waits for frames too: work gets the share less that.

Source:
    Turner, Rao, Rao, "CPU bandwidth control for CFS", Linux Symposium 2010.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dataflow.errors import UnderstudyError

_PERIOD_US = 10_000
"""Short, so that a firing of some milliseconds is slowed, not now and then stopped."""
_QUOTA_US_MIN = 1_000
"""The kernel's least: a fifteenth of a core has no period below 15 ms."""


class Share:
    """A control group that may use `cores` of processor time a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, pid: int) -> None:
        """Hold a process, with all of its threads, to the share."""
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def share(cores: float) -> Iterator[Share]:
    """Yield a share of processor time; processes still held are let go in the end.

    Args:
        cores: Seconds of one core in each second.

    Raises:
        UnderstudyError: No control groups of processor time, or no right to make one.
    """
    period_us = max(_PERIOD_US, round(_QUOTA_US_MIN / cores))
    quota_us = round(cores * period_us)
    parent, version = _parent()
    folder = parent / f"understudy-{os.getpid()}"
    try:
        folder.mkdir()
        if version == 2:
            (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(period_us))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        raise UnderstudyError(
            f"{folder}: cannot be made ({error.strerror}); a share of a processor "
            "needs root and the kernel's cpu controller"
        ) from None
    try:
        yield Share(folder)
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(OSError):  # it ended meanwhile
                (parent / "cgroup.procs").write_text(pid)
        folder.rmdir()


def _parent() -> tuple[Path, int]:
    """Return where a group can be made, and the version of control groups there."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        folder = Path(mount)
        if kind == "cgroup" and "cpu" in options.split(","):
            return folder, 1
        controllers = folder / "cgroup.subtree_control"
        if kind == "cgroup2" and "cpu" in controllers.read_text().split():
            return folder, 2
    raise UnderstudyError(
        "/proc/mounts: no control groups of processor time; run without a share"
    )
