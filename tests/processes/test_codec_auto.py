"""A codec chosen at run time, on real processes and a link that becomes slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from dataflow.plan import Plan
from dataflow.wire.ask import ask_status
from tests.support.run import Played, outcome, played, results
from understudy.chaos_faults import breakable_links
from understudy.launch import free_ports
from understudy.plans import compile_deployment
from understudy.proxy import WHOLE, Condition, ProxiedLink

Links = dict[tuple[str, str], ProxiedLink]
MBIT = 1e6 / 8
SLOW = Condition(bytes_per_s=16 * MBIT)
SHAPE = (1, 16, 32, 32)
"""Of the tensor that crosses: 64 kB, of which 50 a second are 26 Mbit/s."""
GRAPH = """\
understudy: 1
graph: pictures
actors:
  camera: {type: images, path: cam.npz, rate_hz: 50, loop: true}
  prep: {type: normalise, scale: 0.004}
  net: {type: onnx, model: net.onnx}
  result: {type: results}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.image
  - net.answer -> result.answer
"""
DEPLOYMENT = """\
understudy: 1
deployment: auto
graph: graph.yaml
devices:
  cam: {role: endpoint}
  edge: {role: server, count: COUNT, listen: "tcp://127.0.0.1:7000"}
map:
  camera: cam
  prep: cam
  net: {cut: features, head: cam, tail: edge, codec: auto}
  result: cam
"""


def _model() -> onnx.ModelProto:
    """Return a model whose features are as large as its picture."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, (1, 16, 1, 1))
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["image"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["answer"]),
        ],
        "net",
        [image],
        [answer],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


def _plan(folder: Path, servers: int) -> Plan:
    onnx.save(_model(), str(folder / "net.onnx"))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 16), np.uint8)
    np.savez(folder / "cam.npz", x=pictures)
    (folder / "graph.yaml").write_text(GRAPH)
    deployment = folder / "auto.yaml"
    deployment.write_text(DEPLOYMENT.replace("COUNT", str(servers)))
    return compile_deployment(
        deployment, folder / "plan", listen_base=free_ports(servers)
    )


@contextmanager
def proxied(plan: Plan, folder: Path) -> Iterator[tuple[Played, Links]]:
    """Play `plan` with every link through a proxy."""
    with (
        breakable_links(plan, folder) as (links, folders),
        played(plan, folder, start=[]) as run,
    ):
        run.launcher.folders.update(folders)
        for name in plan.devices:
            run.launcher.start(name)
        yield run, links


def _judged(folder: Path) -> tuple[set[tuple[str, str]], list[tuple[object, object]]]:
    """Return the rows that answered, and the changes of codec; the promise is kept."""
    found, verdict = outcome(folder)
    assert verdict.kept, verdict.violations
    answered = [r for r in results(found, "cam") if r.status != "dropped"]
    changes = [event.fields for d in found.devices for event in d.named("codec")]
    rows = {(r.row, r.status) for r in answered}
    return rows, [(each["before"], each["codec"]) for each in changes]


def test_fast_link_gets_tokens_as_they_are(tmp_path: Path) -> None:
    with proxied(_plan(tmp_path, 1), tmp_path) as (run, _):
        run.wait_rows("cam", "edge.0", 200)
    rows, changes = _judged(tmp_path)
    assert rows == {("edge.0", "full")}
    assert not [after for _, after in changes if str(after).startswith("int8")]


def test_slow_link_gets_encoded_tokens_and_whole_ones_when_it_recovers(
    tmp_path: Path,
) -> None:
    plan = _plan(tmp_path, 1)
    address = plan.devices["edge.0"].listen or ""
    with proxied(plan, tmp_path) as (run, links):
        run.wait_rows("cam", "edge.0", 50)
        links["cam", "edge.0"].become(SLOW)
        run.wait_rows("cam", "int8@edge.0", 100)
        links["cam", "edge.0"].become(WHOLE)
        run.wait_rows("cam", "edge.0", 50)
        status = ask_status("edge.0", address, keys=None, timeout_s=5)
    rows, changes = _judged(tmp_path)
    assert rows == {("edge.0", "full"), ("int8@edge.0", "degraded")}
    (said,) = status["sessions"][0]["about"]
    assert said["rows"]["int8@edge.0"] >= 100
    assert {"none", "int8"} <= {codec.partition("+")[0] for codec in said["codecs"]}
    # Back to whole tokens, compressed or not, in one step or after others.
    (_, first), *_, (_, last) = changes
    assert {str(first), str(last)} <= {"none", "zstd", "int8", "int8+zstd"}
    assert not str(last).startswith("int8")


def test_server_behind_a_fast_link_gets_whole_tokens_instead(tmp_path: Path) -> None:
    """A full answer over another link comes before a degraded one over this."""
    with proxied(_plan(tmp_path, 2), tmp_path) as (run, links):
        for server in ("edge.0", "edge.1"):
            run.wait_event("cam", "link.up", peer=server)
        run.wait_rows("cam", "edge.0", 50)
        links["cam", "edge.0"].become(SLOW)
        run.wait_rows("cam", "edge.1", 50)
    rows, _ = _judged(tmp_path)
    assert rows == {("edge.0", "full"), ("edge.1", "full")}
