"""The simulator and the state machines under it, compiled by mypyc.

Compiled, they do exactly what they do interpreted, about three times as fast. The copy
that is compiled lies in the folder of temporary files, one for each state of the
sources, and is made at the first use. It takes a C compiler. Run

    python -m tests.compiled ARGUMENTS OF PYTHON
    python -m tests.compiled -m understudy simulate --seeds 1000000
"""

import getpass
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("dataflow", "actors", "graphs", "native", "understudy", "tests")
MACHINES = (
    "header timers link_states credit rate pulse iterations ledger rows link session "
    "sessions service_time sampling peer_clock relay"
)
SIMULATION = (
    "device branches stream network dialler endpoint bench onward server faults "
    "simulation"
)
MODULES = (
    *(f"dataflow/wire/{name}.py" for name in MACHINES.split()),
    *(f"understudy/simulation/{name}.py" for name in SIMULATION.split()),
    "understudy/promise.py",
)
BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup

modules, sys.argv[1:] = sys.argv[1:], ["-q", "build_ext", "--inplace"]
setup(name="compiled", packages=[], ext_modules=mypycify(modules, opt_level="3"))
"""
FLAGS = "-march=native -ffp-contract=off"
"""A multiplication that is fused with an addition gives other digits."""
DONE = "compiled.txt"


def compiled() -> Path:
    """Return the folder to import from; make it if the sources are new.

    Raises:
        subprocess.CalledProcessError: mypyc refuses them; it has said why.
    """
    sources = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
    state = hashlib.sha256(sys.version.encode())
    for path in sources:
        state.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    name = f"understudy-compiled-{getpass.getuser()}-{state.hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if not (folder / DONE).exists():
        _compile(folder)
    return folder


def _compile(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name) as name:
        copy = Path(name) / "copy"
        skipped = shutil.ignore_patterns("__pycache__")
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package, ignore=skipped)
        for module in MODULES:
            text = (copy / module).read_text()
            (copy / module).write_text(_prepared(text))
        (copy / "build.py").write_text(BUILD)
        command = [sys.executable, "build.py", *MODULES]
        flags = {"PYTHONPATH": str(copy), "CFLAGS": FLAGS}
        environment = {**os.environ, **flags}
        subprocess.run(command, cwd=copy, env=environment, check=True)
        (copy / DONE).touch()
        shutil.rmtree(folder, ignore_errors=True)
        copy.rename(folder)


def _prepared(text: str) -> str:
    """Return a module as mypyc wants it."""
    # It knows no other exceptions to inherit from than `Exception`.
    text = text.replace("(AssertionError)", "(Exception)")
    # What is not said to be final is looked up at each use.
    text = re.sub(r"^(_new|_?[A-Z][A-Z_]*) = ", r"\1: Final = ", text, flags=re.M)
    _, said, rest = text.split('"""', 2)
    return f'"""{said}"""\nfrom typing import Final\n{rest}'


def main(arguments: Sequence[str]) -> None:
    # The folder that a program lies in, or runs in, must not come first.
    safe = {"PYTHONPATH": str(compiled()), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **safe}
    os.execve(sys.executable, [sys.executable, *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
