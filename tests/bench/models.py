"""Deployments that benchmarks run: the shipped digits, and a larger one if present."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.plan import Plan
from understudy.launch import free_ports
from understudy.plans import compile_deployment

DIGITS = Path(__file__).parents[2] / "graphs" / "digits" / "two-by-two.yaml"
VEHICLE = "vehicle_cnn_4.onnx"
VEHICLE_GRAPH = """
understudy: 1
graph: vehicle
actors:
  camera: {{type: images, path: pictures.npz, rate_hz: 20}}
  prep: {{type: normalise, scale: 0.00392156862745098, offset: -0.5}}
  net: {{type: onnx, model: {model}}}
  result: {{type: results}}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.input
  - net.prob -> result.answer
"""
VEHICLE_DEPLOYMENT = """
understudy: 1
deployment: vehicle
graph: vehicle.yaml
devices:
  cam: {role: endpoint, count: 1}
  edge: {role: server, count: 1, listen: "tcp://127.0.0.1:7000"}
map:
  camera: cam
  prep: cam
  net: {cut: /MaxPool_output_0, head: cam, tail: edge}
  result: cam
failover:
  order: [{net: edge}]
  deadline_ms: 1000
"""


def models() -> list[str]:
    """Return the models that are there: digits always."""
    return ["digits", *(["vehicle"] if _data() is not None else [])]


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
        model: One of `models`.
        folder: Files that the plan is made of are written there too.
        endpoints: How many.
        servers: How many.
        camera: Parameters in place of those of the graph's camera.
    """
    path = DIGITS if model == "digits" else _write_vehicle(folder)
    return compile_deployment(
        path,
        folder / "plan",
        counts={"cam": endpoints, "edge": servers},
        params={"camera": dict(camera or {})},
        listen_base=free_ports(servers),
    )


def _write_vehicle(folder: Path) -> Path:
    data = _data()
    assert data is not None, "asked for a model that is not there"
    pictures = np.random.default_rng(1).integers(0, 256, (16, 96, 96, 3), np.uint8)
    np.savez(folder / "pictures.npz", x=pictures)
    graph = VEHICLE_GRAPH.format(model=data / "models" / VEHICLE)
    (folder / "vehicle.yaml").write_text(graph)
    (folder / "two-devices.yaml").write_text(VEHICLE_DEPLOYMENT)
    return folder / "two-devices.yaml"


def _data() -> Path | None:
    """Return the folder that UNDERSTUDY_DATA names, if it has the model."""
    folder = Path(os.environ.get("UNDERSTUDY_DATA", ""))
    return folder.resolve() if (folder / "models" / VEHICLE).is_file() else None
