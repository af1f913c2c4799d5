"""Graphs of a camera and a model, their layers, and deployments of both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.onnx_segment import port_names
from dataflow.plan import SEGMENTS, Plan
from dataflow.rules import check
from graphs.compile import compile_plan
from graphs.deployment_file import read_deployment
from graphs.expand import expand, expansion
from graphs.graph_file import GraphFile, read_graph, write_graph
from graphs.groups import groups
from graphs.onnx_model import Model
from understudy.launch import free_ports

GRAPH = """\
understudy: 1
graph: pictures
actors:
  camera: {{type: images, path: cam.npz, rate_hz: 10}}
  prep: {{type: normalise, scale: 0.004}}
  net: {{type: onnx, model: {model}}}
  result: {{type: results}}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.{input}
  - net.{output} -> result.answer
"""
DEPLOYMENT = """\
understudy: 1
deployment: demo
graph: {graph}
devices:
  cam: {{role: endpoint}}
  edge: {{role: server, listen: "tcp://127.0.0.1:7000"}}
map:
  camera: cam
  prep: cam
  result: cam
{mapping}
"""


def pictures(model: Path, shape: tuple[int, int, int]) -> GraphFile:
    """Write a graph of a camera of pictures [H, W, C] and `model`, whole.

    Of several outputs the first is used.
    """
    np.savez("cam.npz", x=np.zeros((2, *shape), np.uint8))
    found = Model.read(model)
    given, made = port_names([found.inputs[0], found.outputs[0]])
    text = GRAPH.format(model=model, input=given, output=made)
    Path("whole.yaml").write_text(text)
    return read_graph(Path("whole.yaml"))


def written(file: GraphFile, name: str = "layers.yaml") -> Path:
    Path(name).write_text(write_graph(file.graph, file.understudies, file.exits))
    return Path(name)


def deployed(graph: Path | str, mapping: str) -> Path:
    path = Path(f"demo-of-{graph}")
    path.write_text(DEPLOYMENT.format(graph=graph, mapping=mapping))
    return path


def on_free_ports(path: Path, servers: int = 2) -> None:
    """Let the servers of a deployment file listen where nobody else does."""
    text, base = path.read_text(), free_ports(servers)
    for index in range(servers):
        text = text.replace(f"127.0.0.1:{7000 + index}", f"127.0.0.1:{base + index}")
    path.write_text(text)


def parts(file: GraphFile, of: str = "net.") -> list[str]:
    return [name for name in file.graph.actors if name.startswith(of)]


def divided(names: Sequence[str], count: int) -> str:
    """Map the first `count` actors to the endpoint and the others to the server."""
    here = [f"  {name}: cam\n" for name in names[:count]]
    return "".join(here) + "".join(f"  {name}: edge\n" for name in names[count:])


def alive(model: Model, count: int) -> list[str]:
    """Return the tensors between the first `count` groups of a model and the others."""
    found = groups(model)
    made = {name for group in found[:count] for name in group.part.outputs}
    return [n for n in made if any(n in group.part.inputs for group in found[count:])]


def computed(path: Path) -> tuple[set[str], list[int]]:
    """Return the segments that a deployment runs, and what its branches are."""
    found = expansion(read_deployment(path))
    assert check(found.graph) == []
    branches = [b.segment for region in found.graph.regions for b in region.branches]
    return set(found.segments), branches


def plan_of(path: Path, codec: str | None = None) -> Plan:
    return compile_plan(
        read_deployment(path, codec=codec), Path.cwd() / f"plan-{path.name}"
    )


def files(plan: Plan) -> set[str]:
    return {path.name for path in (plan.folder / SEGMENTS).iterdir()}


def segments_of(path: Path) -> list[str]:
    """Return the actors that run segments in the sound plain graph of a deployment."""
    graph = expand(read_deployment(path))
    assert check(graph) == []
    return [name for name, actor in graph.actors.items() if actor.type == "onnx"]
