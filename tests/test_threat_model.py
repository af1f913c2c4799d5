"""Every claim of the threat model names a test, and the test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "threat-model.md"
_ROW = re.compile(r"^\| (?P<claim>.+) \| `(?P<file>tests/\S+\.py)::(?P<test>\w+)` \|$")
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
"""Modules that make code of bytes."""


def claims() -> list[tuple[str, str, str]]:
    found = (_ROW.match(line) for line in PAGE.read_text().splitlines())
    return [(row["claim"], row["file"], row["test"]) for row in found if row]


@pytest.mark.parametrize(("claim", "file", "test"), claims())
def test_claim_is_held_by_a_test_that_is_there(
    claim: str, file: str, test: str
) -> None:
    tree = ast.parse((ROOT / file).read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert test in names, claim


def test_every_row_of_what_is_defended_is_a_claim() -> None:
    defended = PAGE.read_text().partition("## What is defended")[2]
    defended = defended.partition("## What is not defended")[0]
    rows = [line for line in defended.splitlines() if line.startswith("| ")]
    assert len(claims()) == len([row for row in rows if row != "| claim | held by |"])
    assert len(claims()) > 20


@pytest.mark.parametrize("folder", ["dataflow", "actors"])
def test_nothing_that_comes_over_a_link_is_executed(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    used = {name.name.split(".")[0] for name in names}
                case ast.ImportFrom(module=module):
                    used = {(module or "").split(".")[0]}
                case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                    used = {name}
                case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                    used = {"pickle"}
                case _:
                    continue
            assert used.isdisjoint(FORBIDDEN | {"eval", "exec", "compile"}), path
