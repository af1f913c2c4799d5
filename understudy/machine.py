"""Facts about the machine that every figure must be read with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("understudy", "numpy", "onnxruntime", "pyzmq", "msgpack")


def machine_facts() -> dict[str, str]:
    """Return processor, memory, system and versions, as a report shows them."""
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} logical",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: fact for name, fact in facts.items() if fact}


def _processor() -> str:
    """Return the processor's name; Linux names it per architecture, or not at all."""
    fields = _proc_fields("/proc/cpuinfo")
    for key in ("model name", "Model", "Hardware", "cpu model"):
        if key in fields:
            return fields[key]
    return platform.processor() or platform.machine()


def _memory() -> str:
    total = _proc_fields("/proc/meminfo").get("MemTotal", "")
    kilobytes = total.split(" ")[0]
    return f"{int(kilobytes) / 2**20:.1f} GiB" if kilobytes.isdecimal() else ""


def _proc_fields(path: str) -> dict[str, str]:
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}
