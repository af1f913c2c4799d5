"""Devices that compute with what the deployment gives them, each with its own."""

import os
from pathlib import Path

import pytest

from dataflow.errors import UnderstudyError
from dataflow.plan import Plan
from graphs.graph_file import read_graph
from graphs.layered import layered
from tests.support.deployed import parts, written
from tests.support.run import Played, outcome, played, results
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.reference import full_error
from understudy.status import ask_all, format_status

FULL_ERROR_MAX = 1e-4
DIGITS = Path("graphs/digits").resolve()
DEPLOYMENT = """\
understudy: 1
deployment: unlike
graph: {graph}
devices:
  cam: {{role: endpoint, {cam}}}
  edge: {{role: server, listen: "tcp://127.0.0.1:{port}", {edge}}}
map:
  camera: cam
  prep: cam
  result: cam
{mapping}
"""
CUT = """\
  net: {cut: features2, head: cam, tail: edge}
  exit1: cam
failover: {order: [net, exit1]}"""
CORES = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


def _written(folder: Path, *, cam: str, edge: str, **other: str) -> Path:
    fields = {"graph": str(DIGITS / "digits.yaml"), "mapping": CUT, **other}
    text = DEPLOYMENT.format(cam=cam, edge=edge, port=free_ports(1), **fields)
    path = folder / "deployment.yaml"
    path.write_text(text)
    return path


def _plan(path: Path) -> Plan:
    return compile_deployment(path, path.parent / "plan")


def _threads(run: Played, device: str) -> list[int]:
    """Return the threads of a device's process."""
    pid = run.launcher.pid(device)
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


def _cores(run: Played, device: str) -> set[frozenset[int]]:
    """Return the cores that the threads of a device may run on."""
    return {frozenset(os.sched_getaffinity(task)) for task in _threads(run, device)}


def test_every_thread_of_a_device_is_held_to_its_cores(tmp_path: Path) -> None:
    first, last = CORES[0], CORES[-1]
    path = _written(tmp_path, cam=f"cores: [{first}]", edge=f'cores: "{last}"')
    with played(_plan(path), tmp_path) as run:
        run.wait_rows("cam", "edge", 10)
        assert _cores(run, "cam") == {frozenset({first})}
        assert _cores(run, "edge") == {frozenset({last})}
        status = format_status(ask_all(path, None))
    assert f"computes on cores {last}, 1 thread a model" in status
    _, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations


def test_a_model_has_as_many_more_threads_as_the_device_says(tmp_path: Path) -> None:
    counts = []
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        folder.mkdir()
        plan = _plan(_written(folder, cam="threads: 1", edge=f"threads: {threads}"))
        with played(plan, folder) as run:
            run.wait_rows("cam", "edge", 10)
            counts.append(len(_threads(run, "edge")))
        found, verdict = outcome(folder)
        assert verdict.kept, verdict.violations
        error = full_error(plan, found)
        assert error is not None
        assert error <= FULL_ERROR_MAX
    assert counts[1] - counts[0] == 2


def test_layer_groups_on_a_core_of_their_own_are_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layers = layered(read_graph(DIGITS / "digits.yaml"))
    names = parts(layers)
    here = names[: names.index("net.features1") + 1]
    mapping = "".join(f"  {name}: cam\n" for name in here)
    order = "failover: {order: [{net.logits: edge}, exit1.logits]}"
    path = _written(
        tmp_path,
        graph=str(written(layers)),
        cam=f"cores: {CORES[0]}",
        edge=f"cores: {CORES[1]}",
        mapping=f"{mapping}  net.*: edge\n  exit*: cam\n{order}",
    )
    plan = _plan(path)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam", "edge", 10)
        assert _cores(run, "cam") == {frozenset({CORES[0]})}
        assert _cores(run, "edge") == {frozenset({CORES[1]})}
    found, verdict = outcome(tmp_path)
    assert verdict.kept, verdict.violations
    assert {r.status for r in results(found, "cam")} == {"full"}
    error = full_error(plan, found)
    assert error is not None
    assert error <= FULL_ERROR_MAX


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ('cores: "0-4095"', "device 'edge': cores 0-4095: no core "),
        ("providers: [NoSuch]", "provider 'NoSuch': not in onnxruntime "),
    ],
)
def test_what_the_machine_lacks_ends_the_device_with_what_it_has(
    tmp_path: Path, edge: str, said: str
) -> None:
    plan = _plan(_written(tmp_path, cam="threads: 1", edge=edge))
    with played(plan, tmp_path, start=["edge"], ready=False) as run:
        assert run.wait_exit("edge") == 1
        log = run.log("edge")
    assert said in log
    assert "it has " in log
    assert "Traceback" not in log


def test_provider_that_is_there_is_what_computes(tmp_path: Path) -> None:
    edge = "providers: [CPUExecutionProvider]"
    plan = _plan(_written(tmp_path, cam="threads: 1", edge=edge))
    assert plan.devices["edge"].providers == ("CPUExecutionProvider",)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam", "edge", 10)


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ("threads: 0", "threads: 0 is too small"),
        ("threads: 2000", "the most is 1024"),
        ('cores: "3-1"', "write cores like 0-3 or 0,2"),
        ("cores: []", "write cores like 0-3 or 0,2"),
        ("cores: [a]", "write cores like 0-3 or 0,2"),
        ("providers: CUDA", r"write \[CUDAExecutionProvider\]"),
        ("providers: [3]", "providers: "),
    ],
)
def test_what_no_machine_could_have_is_an_error_of_the_file(
    tmp_path: Path, edge: str, said: str
) -> None:
    with pytest.raises(UnderstudyError, match=f"device group 'edge': .*{said}"):
        _plan(_written(tmp_path, cam="threads: 1", edge=edge))
