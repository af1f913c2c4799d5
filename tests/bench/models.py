"""Deployments that benchmarks run: the shipped digits, and larger networks if there."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow.plan import Plan
from graphs.onnx_model import Model
from understudy.explored_graph import write_graph
from understudy.launch import free_ports
from understudy.plans import compile_deployment

GRAPHS = Path(__file__).parents[2] / "graphs" / "digits"
DIGITS = GRAPHS / "two-by-two.yaml"
DIGITS_CUT = "features2"
LARGER = {
    "vehicle": ("vehicle_cnn_4.onnx", "/MaxPool_output_0"),
    "mobilenet": ("mobilenet_v2_1.0_224_imagenet.onnx", "Conv_108"),
    "yolox": ("yolox_nano.onnx", "725"),
}
"""By name: file in the folder ``models`` of UNDERSTUDY_DATA, and the tensor at which
it is cut: the best within the network that `understudy explore` finds for an endpoint
four times slower than its server, over 100 Mbit/s."""
RATE_HZ = 20.0
DEPLOYMENT = """
understudy: 1
deployment: {name}
graph: {graph}
devices:
  cam: {{role: endpoint, count: 1}}
  edge: {{role: server, count: 1, listen: "tcp://127.0.0.1:7000"}}
map:
  camera: cam
  prep: cam
  net: {{cut: "{cut}", head: cam, tail: edge}}
  result: cam
{others}failover:
  order: [{{net: edge}}]
  deadline_ms: 1000
"""


def models() -> list[str]:
    """Return the models that `topologies` runs: digits always."""
    return [name for name in ("digits", "vehicle") if _is_there(name)]


def networks() -> list[str]:
    """Return all that are there, the quickest first: digits always."""
    return [name for name in ("digits", *LARGER) if _is_there(name)]


def make_plan(
    model: str,
    folder: Path,
    *,
    endpoints: int = 1,
    servers: int = 1,
    camera: Mapping[str, Any] | None = None,
) -> Plan:
    """Compile K_{servers,endpoints} of a model into ``folder/plan``.

    Args:
        model: One of `networks`. Digits has its early exits.
        folder: Files that the plan is made of are written there too.
        endpoints: How many.
        servers: How many.
        camera: Parameters in place of those of the graph's camera.
    """
    path = DIGITS if model == "digits" else _write(model, folder)
    return _compiled(path, folder, endpoints, servers, camera)


def make_split(model: str, folder: Path, *, camera: Mapping[str, Any]) -> Plan:
    """Compile a model split over two devices, and nothing that could answer instead.

    Args:
        model: One of `networks`.
        folder: Files that the plan is made of are written there too.
        camera: Parameters in place of those of the graph's camera.
    """
    path = _write(model, folder)
    return _compiled(path, folder, 1, 1, camera)


def _compiled(
    path: Path,
    folder: Path,
    endpoints: int,
    servers: int,
    camera: Mapping[str, Any] | None,
) -> Plan:
    return compile_deployment(
        path,
        folder / "plan",
        counts={"cam": endpoints, "edge": servers},
        params={"camera": dict(camera or {})},
        listen_base=free_ports(servers),
    )


def _write(model: str, folder: Path) -> Path:
    """Write a graph around a model, and its deployment; return that one's file."""
    if model == "digits":
        graph, cut = GRAPHS / "digits.yaml", DIGITS_CUT
        others = "  exit1: cam\n  exit2: cam\n"
    else:
        path, cut, others = _file(model), LARGER[model][1], ""
        assert path is not None, "asked for a model that is not there"
        write_graph(folder, Model.read(path), RATE_HZ)
        graph = folder / "graph.yaml"
    deployment = folder / "two-devices.yaml"
    deployment.write_text(
        DEPLOYMENT.format(name=model, graph=graph, cut=cut, others=others)
    )
    return deployment


def _is_there(model: str) -> bool:
    return model == "digits" or _file(model) is not None


def _file(model: str) -> Path | None:
    """Return a model's file, if it is in the folder that UNDERSTUDY_DATA names."""
    path = Path(os.environ.get("UNDERSTUDY_DATA", "")) / "models" / LARGER[model][0]
    return path.resolve() if path.is_file() else None
