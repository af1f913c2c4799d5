"""Early exits in files: what is read, what it becomes, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors import behaviour
from dataflow.analysis import repetition_vector
from dataflow.behaviour import Behaviour, Site
from dataflow.engine import run_graph
from dataflow.failures import failure_table
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from dataflow.outcome import Outcome
from dataflow.rules import check
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from graphs.exits import EXIT_MODES, Exit
from graphs.expand import expand
from graphs.graph_file import read_graph, write_graph
from graphs.located_yaml import FileErrors

DIGITS = Path(__file__).resolve().parents[2] / "graphs" / "digits"
LOGITS = PortRef("net", "logits")

Edited = Callable[..., Path]


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edited:
    """Write the shipped gated files with texts replaced; return the deployment."""

    def write(*edits: tuple[str, str]) -> Path:
        for path in DIGITS.iterdir():
            if path.suffix in (".onnx", ".npz"):
                (tmp_path / path.name).symlink_to(path)
        texts = {n: (DIGITS / n).read_text() for n in NAMES}
        for old, new in edits:
            name = next(n for n in NAMES if old in texts[n])
            texts[name] = texts[name].replace(old, new, 1)
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        monkeypatch.chdir(tmp_path)
        return Path("gated-two-by-two.yaml")

    return write


NAMES = ("gated.yaml", "gated-two-by-two.yaml")
EXITS = "net.logits: {answer: early.logits, gate: sure}"


def test_exit_is_read(edited: Edited) -> None:
    edited()
    file = read_graph(Path("gated.yaml"))
    assert file.exits == {LOGITS: Exit(PortRef("early", "logits"), "sure")}
    assert check(file.graph) == []


def test_graph_by_itself_is_a_dpg_that_every_rule_accepts(edited: Edited) -> None:
    edited()
    graph = read_graph(Path("gated.yaml")).undivided
    (dpg,) = graph.dpgs
    assert (dpg.controller, tuple(dpg.modes)) == ("sure", EXIT_MODES)
    assert check(graph) == []
    path = Path("written.yaml")
    path.write_text(write_graph(graph))
    assert read_graph(path).graph == graph


@pytest.mark.parametrize(("cameras", "servers"), [(1, 1), (2, 2), (5, 3), (8, 64)])
def test_region_stands_within_the_dpg_of_its_exit(
    edited: Edited, cameras: int, servers: int
) -> None:
    counts = {"cam": cameras, "edge": servers}
    graph = expand(read_deployment(edited(), counts=counts))
    assert check(graph) == []
    assert len(graph.regions) == cameras
    assert len(graph.dpgs) == 2 * cameras
    names = {dpg.name: dpg for dpg in graph.dpgs}
    for region in graph.regions:
        outer, inner = names[f"exit[{region.stream}]"], names[region.name]
        assert {region.fork, region.join} <= outer.members & inner.members
        assert not outer.carried


@pytest.mark.parametrize("gate", EXIT_MODES)
@pytest.mark.parametrize("row", ["edge.0", "edge.1", "early", "drop"])
def test_every_actor_fires_once_in_every_pair_of_modes(
    edited: Edited, gate: str, row: str
) -> None:
    graph = expand(read_deployment(edited(), counts={"cam": 1}))
    modes = {"exit[cam.0]": gate, "region[cam.0]": row}
    counts = repetition_vector(graph, modes)
    carried = graph.dpgs[0].carried | graph.dpgs[1].carried
    assert {n for name, n in counts.items() if name not in carried} == {1}


def test_plain_graph_of_an_exit_is_a_file_of_its_own(edited: Edited) -> None:
    graph = expand(read_deployment(edited()))
    path = Path("plain.yaml")
    path.write_text(write_graph(graph))
    assert read_graph(path).graph == graph


def test_answer_that_is_there_is_a_branch_without_actors(edited: Edited) -> None:
    graph = expand(read_deployment(edited(), counts={"cam": 1}))
    early = graph.regions[0].branches[-1]
    assert (early.row, early.actors, early.device) == ("early", (), "cam.0")
    assert [str(f) for f in graph.inputs("join[cam.0]") if "fork" in str(f.source)] == [
        "fork[cam.0].b2_logits -> join[cam.0].r2"
    ]


def test_both_servers_dead_leave_the_early_answer(edited: Edited) -> None:
    graph = expand(read_deployment(edited(), counts={"cam": 1}))
    rows = {str(row.failure): row for row in failure_table(graph, 2).rows}
    (answer,) = rows["edge.0 dies and edge.1 dies"].answers
    assert (answer.status, answer.row) == ("degraded", "early")
    assert all(row.live for row in rows.values())


class Kept(Behaviour):
    """A sink that keeps what it gets."""

    sink = True

    def fire(self, outcome: Outcome, *_: object) -> None:
        assert outcome.value is not None
        self.params["kept"].append(outcome.value.copy())  # type: ignore[attr-defined]


def test_graph_by_itself_answers_early_where_it_is_sure(
    edited: Edited, tmp_path: Path
) -> None:
    """The reference runs the same gate: it agrees with head and tail done by hand."""
    plan = compile_plan(read_deployment(edited(), counts={"cam": 1}), tmp_path / "p")
    site = Site("", "", 0, plan.folder, None, 4)
    kept: list[np.ndarray] = []

    def run(graph: Graph) -> list[np.ndarray]:
        made = {
            name: behaviour(actor.type)(actor.params, site)
            for name, actor in graph.actors.items()
            if name != "result"
        }
        kept.clear()
        made["result"] = Kept({"kept": kept}, site)
        run_graph(graph, made, 40)
        return list(kept)

    file = read_graph(Path("gated.yaml"))
    answers = {}
    for threshold in (0.0, 0.9, 2.0):
        gate = {"sure": {"threshold": threshold}}
        answers[threshold] = run(_runnable(plan.reference, gate))
    assert file.exits
    early, gated, late = (answers[t] for t in (0.0, 0.9, 2.0))
    for a, g, b in zip(early, gated, late, strict=True):
        scores = np.exp(a - a.max())
        sure = (scores / scores.sum()).max() >= 0.9
        assert np.array_equal(g, a if sure else b)
    assert any(np.array_equal(g, a) for g, a in zip(gated, early, strict=True))
    assert any(np.array_equal(g, b) for g, b in zip(gated, late, strict=True))


def _runnable(graph: Graph, gate: dict[str, dict[str, float]]) -> Graph:
    """Return the reference with a sink at its open answer and another threshold."""
    answer = next(
        PortRef(a.name, p.name)
        for a in graph.actors.values()
        if a.type == "select"
        for p in a.outputs
    )
    token = graph.port(answer).token
    actors = {
        name: replace(a, params={**a.params, **gate.get(name, {})})
        for name, a in graph.actors.items()
    }
    actors["result"] = Actor("result", "results", (Port("answer", "in", token),))
    fifo = Fifo(answer, PortRef("result", "answer"))
    return replace(graph, actors=actors, fifos=(*graph.fifos, fifo))


WRONG = {
    "unknown port": (
        (EXITS, "net.logit: {answer: early.logits, gate: sure}"),
        "gated.yaml:30:3: exits: net.logit: actor 'net' has no port 'logit' "
        "(did you mean 'logits'?)",
    ),
    "an input": (
        (EXITS, "net.logits: {answer: early.features, gate: sure}"),
        "gated.yaml:30:24: exits: net.logits: early.features is an input; "
        "name an output",
    ),
    "another shape": (
        (EXITS, "net.logits: {answer: prep.image, gate: sure}"),
        "gated.yaml:30:24: exits: net.logits: prep.image is float32[1,1,8,8], not "
        "float32[1,10]; who answers for another does so with the same dtype and shape",
    ),
    "itself": (
        (EXITS, "net.logits: {answer: net.logits, gate: sure}"),
        "gated.yaml:30:24: exits: net.logits: net.logits cannot stand in for itself",
    ),
    "no controller": (
        (EXITS, "net.logits: {answer: early.logits, gate: prep}"),
        "gated.yaml:30:44: exits: net.logits: gate 'prep' is of type 'normalise', "
        "which names no mode; use `confidence`, or a type of your own with "
        "`controller = True`",
    ),
    "unknown gate": (
        (EXITS, "net.logits: {answer: early.logits, gate: shure}"),
        "gated.yaml:30:44: exits: net.logits: actor 'shure' is not in the graph "
        "(did you mean 'sure'?)",
    ),
    "no gate": (
        (EXITS, "net.logits: {answer: early.logits}"),
        "gated.yaml:30:15: exits: net.logits: key 'gate' is missing; give it",
    ),
    "unknown key": (
        (EXITS, "net.logits: {answer: early.logits, gate: sure, when: 1}"),
        "exits: net.logits: key 'when' is not known",
    ),
    "threshold": (
        ("threshold: 0.9", "threshold: 90"),
        "gated.yaml:15:28: actor 'sure': parameter 'threshold': 90 is no confidence",
    ),
}


@pytest.mark.parametrize(("edit", "said"), WRONG.values(), ids=WRONG)
def test_wrong_exit_is_located(
    edited: Edited, edit: tuple[str, str], said: str
) -> None:
    edited(edit)
    with pytest.raises(FileErrors) as wrong:
        read_graph(Path("gated.yaml"))
    assert any(said in message for message in wrong.value.messages), wrong.value


DEPLOYED_WRONG = {
    "reads the tail": (
        [("cut: features2", "cut: features1")],
        "map: early: reads what 'net.tail' computes in the branches",
    ),
    "no answer of a sink": (
        [("  - net.logits -> result.answer\n", "  - early.logits -> result.answer\n"),
         ("  - early.logits -> sure.scores\n", "  - net.logits -> sure.scores\n"),
         (EXITS, "net.logits: {answer: early.logits, gate: sure}")],
        "exits of net.logits: it does not lead to the answer of a sink",
    ),
    "gate on a server": (
        [("  sure: cam", "  sure: edge")],
        "map: sure: on 'edge', but it runs for every frame",
    ),
    "row called exit": (
        [("early: {type: onnx", "exit: {type: onnx"),
         ("early.features\n", "exit.features\n"), ("early.logits ->", "exit.logits ->"),
         ("{answer: early", "{answer: exit"), ("[early.logits]", "[exit.logits]"),
         ("  early: cam", "  exit: cam"), ("}, early]", "}, exit]")],
        "failover: two rows would be called 'exit'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("edits", "said"), DEPLOYED_WRONG.values(), ids=DEPLOYED_WRONG)
def test_exit_that_cannot_be_deployed_is_refused(
    edited: Edited, edits: list[tuple[str, str]], said: str
) -> None:
    path = edited(*edits)
    with pytest.raises(FileErrors) as wrong:
        expand(read_deployment(path))
    assert any(said in message for message in wrong.value.messages), wrong.value
