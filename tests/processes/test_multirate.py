"""Iterations of several frames on real processes: batches, samples, rates by mode."""

import shutil
import signal
from pathlib import Path
from typing import Any

import onnx
import pytest

from dataflow.plan import Plan
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from tests.support.run import outcome, played, results
from understudy.launch import free_ports
from understudy.records import Result, Run
from understudy.reference import full_error

DIGITS = Path(__file__).resolve().parents[2] / "graphs" / "digits"
SPAN = 4

HEAD = """\
understudy: 1
graph: several
actors:
  camera: {type: images, path: digits-test.npz, rate_hz: 200}
  result: {type: results, frames: 4}
"""
BATCH = """\
  prep: {type: normalise, scale: 0.0625}
  four: {type: batch, size: 4}
  net: {type: onnx, model: four.onnx}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> four.one
  - four.batch -> net.input
"""
SAMPLE = """\
  pick: {type: sample, of: 4, keep: 1}
  prep: {type: normalise, shape: [8, 8, 1], scale: 0.0625}
  net: {type: onnx, model: digits.onnx}
fifos:
  - camera.frame -> pick.frame
  - pick.kept -> prep.pixels
  - prep.image -> net.input
"""
BY_MODE = """\
  both:
    type: copy
    ports: {in: {of: "uint8[8,8,1]"}, out: {a: "uint8[8,8,1]", b: "uint8[8,8,1]"}}
  choose: {type: "tests.support.toy_actors:ChoosePace"}
  pick: {type: sample, of: 4, keep: [1, 2, 4]}
  best: {type: "tests.support.toy_actors:Brightest"}
  prep: {type: normalise, scale: 0.0625}
  net: {type: onnx, model: digits.onnx}
dpgs:
  pace:
    controller: choose
    modes:
      slow: {pick.kept: 1, best.frame: 1}
      middle: {pick.kept: 2, best.frame: 2}
      fast: {pick.kept: 4, best.frame: 4}
fifos:
  - camera.frame -> both.of
  - both.a -> choose.frame
  - both.b -> pick.frame
  - choose.to_pick -> pick.mode
  - choose.to_best -> best.mode
  - pick.kept -> best.frame
  - best.best -> prep.pixels
  - prep.image -> net.input
"""
TAIL = """\
  - net.logits -> result.answer
  - camera.label -> result.label
"""
DEPLOYMENT = """\
understudy: 1
deployment: several
graph: several.yaml
devices:
  cam: {{role: endpoint}}
  edge: {{role: server, count: 2, listen: "tcp://127.0.0.1:{port}"}}
map: {{{mapped}}}
failover: {{order: [{{net: edge}}], deadline_ms: 500}}
"""
GRAPHS = {"batch": BATCH, "sample": SAMPLE, "by mode": BY_MODE}


def several(folder: Path, kind: str) -> Plan:
    for name in ("digits-test.npz", "digits.onnx"):
        shutil.copy(DIGITS / name, folder)
    _fix_batch(onnx.load(str(folder / "digits.onnx")), folder / "four.onnx")
    (folder / "several.yaml").write_text(HEAD + GRAPHS[kind] + TAIL)
    home = [n for n in ("camera", "prep", "four", "pick", "both", "choose", "best",
                        "result") if f"  {n}:" in HEAD + GRAPHS[kind]]  # fmt: skip
    mapped = ", ".join([*(f"{name}: cam" for name in home), "net: edge"])
    text = DEPLOYMENT.format(port=free_ports(2), mapped=mapped)
    (folder / "deployment.yaml").write_text(text)
    return compile_plan(read_deployment(folder / "deployment.yaml"), folder / "plan")


def _fix_batch(model: Any, path: Path) -> None:
    """Write the model with its batch axis fixed to four."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = SPAN
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def whole(run: Run) -> list[Result]:
    """Return the answers but for the last, which the stream's end may cut short."""
    return results(run, "cam")[:-1]


@pytest.mark.parametrize("kind", GRAPHS)
def test_each_answer_covers_its_frames(tmp_path: Path, kind: str) -> None:
    plan = several(tmp_path, kind)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam", "edge.0", 20)
        run.kill("edge.0")
        run.wait_rows("cam", "edge.1", 20)
        run.launcher.kill("cam", signal.SIGINT)
        assert run.wait_exit("cam") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    answered = whole(found)
    frames = [(r.frame, r.last) for r in answered]
    assert frames == [(i, i + SPAN - 1) for i in range(0, SPAN * len(frames), SPAN)]
    assert {r.status for r in answered} == {"full"}
    error = full_error(plan, found)
    assert error is not None
    assert error <= 1e-4


def test_batch_gives_each_frame_its_own_answer(tmp_path: Path) -> None:
    with played(several(tmp_path, "batch"), tmp_path) as run:
        run.wait_rows("cam", "edge.0", 50)
    found, _ = outcome(tmp_path)
    pairs = [p for r in whole(found) for p in zip(r.answers, r.labels, strict=True)]
    assert len(pairs) >= 45 * SPAN
    assert sum(answer == label for answer, label in pairs) >= 0.95 * len(pairs)


def test_end_within_an_iteration_accounts_for_its_frames(tmp_path: Path) -> None:
    graph = tmp_path / "several.yaml"
    several(tmp_path, "batch")
    graph.write_text(
        graph.read_text().replace("rate_hz: 200", "rate_hz: 200, frames: 10")
    )
    plan = compile_plan(
        read_deployment(tmp_path / "deployment.yaml"), tmp_path / "plan"
    )
    with played(plan, tmp_path) as run:
        assert run.wait_exit("cam") == 0
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    told = [(r.frame, r.last, r.status, r.reason) for r in results(found, "cam")]
    assert [t[:2] for t in told] == [(0, 3), (4, 7), (8, 9)]
    assert told[-1][2:] == ("dropped", "end")
