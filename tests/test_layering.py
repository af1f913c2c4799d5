"""Imports point one way only, and third parties stay behind their fences."""

import ast
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("understudy", "graphs", "actors", "dataflow", "native")
"""Each may import itself and what stands to its right."""

FENCES = {
    "zmq": "dataflow/wire",
    "msgpack": "dataflow/wire",
    "zstandard": "dataflow/wire",
    "lz4": "dataflow/wire",
    "onnxruntime": "actors",
    "onnx": "graphs",
    "click": "understudy",
    "matplotlib": "understudy",
    "prometheus_client": "understudy",
    "rich": "understudy",
    "cffi": "native",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


SOURCES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_right_only(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = ORDER[ORDER.index(package) :]
    wrong = [
        name
        for name in _imports(path)
        if name.split(".")[0] in ORDER and name.split(".")[0] not in allowed
    ]
    assert wrong == [], f"{path} imports {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_third_parties_stay_behind_their_fences(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    wrong = [
        name
        for name in _imports(path)
        if not place.startswith(FENCES.get(name.split(".")[0], ""))
    ]
    assert wrong == [], f"{path} imports {wrong}"


STATE_MACHINES = (
    "ledger",
    "link",
    "sessions",
    "rows",
    "service_time",
    "header",
    "peer_clock",
)


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_state_machines_have_no_clock_socket_thread_or_random_number(name: str) -> None:
    forbidden = {"time", "socket", "threading", "random", "os", "zmq", "asyncio"}
    used = {m.split(".")[0] for m in _imports(ROOT / f"dataflow/wire/{name}.py")}
    assert used & forbidden == set()


TOP = {
    ".ci", ".gitignore", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "README.md", "actors", "dataflow", "docs", "examples", "graphs",
    "native", "pyproject.toml", "setup.py", "tests", "understudy",
}  # fmt: skip


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no checkout"
)
def test_top_of_the_repository_holds_only_what_is_known():
    """Pieces of a model that a command wrote were committed once."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {path.partition("/")[0] for path in listed.stdout.splitlines()} == TOP
