"""How much memory this process holds, as Linux counts it."""

import resource
from contextlib import suppress
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_PEAK_ONLY = "5"


def resident_mb() -> float:
    """Return what is resident now, in megabytes of 10^6 bytes; 0 if nobody says."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Return the most that was resident since `reset_peak`, or since the start."""
    return (
        _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )


def reset_peak() -> None:
    """Forget what was resident before, where the system allows it."""
    with suppress(OSError):
        _CLEAR.write_text(_PEAK_ONLY)


def available_mb() -> float:
    """Return what the machine could still give, in megabytes; unlimited if unknown."""
    return _field_mb(Path("/proc/meminfo"), "MemAvailable") or float("inf")


def _status_mb(name: str) -> float:
    return _field_mb(Path("/proc/self/status"), name)


def _field_mb(file: Path, name: str) -> float:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024 / 1e6
    return 0.0
