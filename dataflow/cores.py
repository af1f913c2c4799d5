"""Which of a machine's logical cores a process computes on."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dataflow.errors import UnderstudyError

_TASKS = Path("/proc/self/task")
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def parse_cores(text: str) -> tuple[int, ...]:
    """Return the cores that `text` lists, as taskset(1) has it.

    Raises:
        UnderstudyError: It is no such list.

    >>> parse_cores("0-2,5")
    (0, 1, 2, 5)
    """
    cores: set[int] = set()
    for part in text.split(","):
        matched = _RANGE.fullmatch(part.strip())
        first, last = matched.groups() if matched else (None, None)
        if first is None or int(last or first) < int(first):
            raise UnderstudyError(
                f"cores '{text}': '{part.strip()}' is neither a number nor a range; "
                "write cores like 0-3 or 0,2"
            )
        cores.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cores))


def cores_text(cores: Iterable[int]) -> str:
    """Return cores as `parse_cores` reads them.

    >>> cores_text([5, 0, 1, 2])
    '0-2,5'
    """
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], core]
        else:
            parts.append([core])
    return ",".join("-".join(map(str, part)) for part in parts)


def hold_to(cores: Iterable[int]) -> None:
    """Let this process run on `cores` only: its threads, and those they will start.

    No cores: nothing changes. Libraries start threads of their own when they are
    imported, which would stay where they are.

    Raises:
        UnderstudyError: This machine, or what it was given of it, has not all of them.
    """
    wanted = set(cores)
    if not wanted:
        return
    present = os.sched_getaffinity(0)
    if missing := wanted - present:
        raise UnderstudyError(
            f"cores {cores_text(wanted)}: no core {cores_text(missing)} for this "
            f"process, it has {cores_text(present)}; choose among those"
        )
    for task in _TASKS.iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(task.name), wanted)
