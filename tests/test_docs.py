"""The commands that the docs pages show, run: their output is what the pages quote.

A line ``…`` in a page stands for any number of lines.
"""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataflow.rules import RULES
from understudy.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "model-of-computation.md"
TEXT = PAGE.read_text()
_BLOCK = re.compile(r"^```console\n\$ understudy (.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_PICTURE = re.compile(r"<!-- understudy (draw .* -o (.*)) -->\n!\[.*\]\((.*)\)\n")
_ROW = re.compile(r"^\| \[(R\d+)\]\((.*?)\) \|.*\| `(.*)` \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("line", "output"), _BLOCK.findall(TEXT))
def test_check_says_what_the_page_quotes(line: str, output: str) -> None:
    result = CliRunner().invoke(main, line.split())
    wanted = "".join(
        "(?:.*\n)*" if part.strip() == "…" else re.escape(part) + "\n"
        for part in output.splitlines()
    )
    assert re.fullmatch(wanted, result.output), result.output


@pytest.mark.parametrize(("line", "file", "shown"), _PICTURE.findall(TEXT))
def test_pictures_of_the_page_are_what_draw_makes(
    line: str, file: str, shown: str
) -> None:
    command = line.split()[:-1]
    result = CliRunner().invoke(main, [*command, "-"])
    assert result.stdout == (ROOT / file).read_text()
    assert PAGE.parent / shown == ROOT / file


@pytest.mark.parametrize(("rule", "file", "said"), _ROW.findall(TEXT))
def test_graph_of_each_rule_breaks_it_and_nothing_else(
    rule: str, file: str, said: str
) -> None:
    command = ["check", str(Path("docs") / file)]
    command += ["--require", "full"] if rule == "R13" else []
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert said in result.stderr
    if rule != "R13":
        assert set(re.findall(r"\((R\d+)\)$", result.stderr, re.MULTILINE)) == {rule}


def test_page_has_each_rule_and_runs_every_command_that_it_shows() -> None:
    rows = [rule for rule, _, _ in _ROW.findall(TEXT)]
    assert rows == [f"R{number}" for number in range(1, 15)]
    assert {rule.id for rule in RULES} <= set(rows)
    assert TEXT.count("```console") == len(_BLOCK.findall(TEXT))
    assert TEXT.count("$ understudy") == len(_BLOCK.findall(TEXT))
    assert TEXT.count("![") == len(_PICTURE.findall(TEXT)) == 6
