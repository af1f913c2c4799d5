"""The commands that the docs pages show, run: their output is what the pages quote.

A line ``…`` in a page stands for any number of lines.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataflow.graph import CONTROL_TOKEN, Actor, Dpg, Fifo, Graph, Port, PortRef
from dataflow.rules import RULES, check
from understudy.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "model-of-computation.md"
_BLOCK = re.compile(r"^```console\n\$ understudy (.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    for block in _BLOCK.finditer(PAGE.read_text()):
        yield block[1], block[2]


def quoted(kind: str) -> list[tuple[str, str]]:
    return [(line, output) for line, output in commands() if line.startswith(kind)]


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("line", "output"), quoted("check "))
def test_check_says_what_the_page_quotes(line: str, output: str) -> None:
    result = CliRunner().invoke(main, line.split())
    wanted = "".join(
        "(?:.*\n)*" if part.strip() == "…" else re.escape(part) + "\n"
        for part in output.splitlines()
    )
    assert re.fullmatch(wanted, result.output), result.output


@pytest.mark.parametrize(("line", "output"), quoted("draw "))
def test_pictures_of_the_page_are_what_draw_makes(line: str, output: str) -> None:
    *command, _, file = line.split()
    assert output == f"{file}\n"
    result = CliRunner().invoke(main, [*command, "-o", "-"])
    assert result.stdout == (ROOT / file).read_text()
    assert f"({Path(file).relative_to('docs')})" in PAGE.read_text()


def test_page_has_each_rule_with_a_graph_that_breaks_it() -> None:
    ids = [f"R{number}" for number in range(1, 15)]
    assert {rule.id for rule in RULES} <= set(ids)
    for rule in ids:
        assert f"\n**{rule} " in PAGE.read_text()
        if rule == "R9":
            continue
        ((_, output),) = quoted(f"check docs/rules/{rule}.yaml")
        assert f"({rule})" in output or rule == "R13"


def test_page_holds_every_command_that_it_shows() -> None:
    assert len(list(commands())) == PAGE.read_text().count("```console")
    assert PAGE.read_text().count("$ understudy") == len(list(commands()))


def test_page_quotes_what_is_said_of_modes_that_do_not_agree() -> None:
    ports = {
        "camera": (Port("frame", "out"),),
        "choose": (Port("to_net", "out", CONTROL_TOKEN, control=True),),
        "net": (
            Port("frames", "in", rates=(1, 2)),
            Port("mode", "in", CONTROL_TOKEN, control=True),
        ),
    }
    lines = (("camera.frame", "net.frames"), ("choose.to_net", "net.mode"))
    reads = PortRef("net", "frames")
    graph = Graph(
        "pairs",
        {name: Actor(name, "", listed) for name, listed in ports.items()},
        tuple(Fifo(PortRef.parse(a), PortRef.parse(b)) for a, b in lines),
        (Dpg("batch", "choose", {"single": {reads: 1}, "pair": {reads: 2}}),),
    )
    (finding,) = check(graph)
    assert f"```text\n{finding}\n```" in PAGE.read_text()
