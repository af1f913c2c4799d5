"""A model named layer by layer, fused and run as a chain, against `session.run`.

    python -m tests.bench.fused [--rounds N] [--json FILE]

The light squeezenet and resnet50 of the onnx package, with weights drawn anew, are
taken apart into layer groups, written as a graph file, deployed on one device and
compiled: what the endpoint then runs for a frame is measured, as a `Chain`. Beside it
runs the whole model in two sessions of its own, in rounds whose order rotates; figures
are medians over the rounds in which no other process had the core. `A/A` is one of
these sessions against the other.

`one session a group` is what the same graph would cost without fusion.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actors import behaviour
from actors.sessions import SESSIONS
from dataflow.behaviour import Behaviour, Site
from dataflow.engine import Chain
from dataflow.graph import Actor, Fifo, Graph, PortRef
from dataflow.parts import ChainPart, make_chain, stream_parts
from dataflow.plan import SEGMENTS, Plan
from graphs.compile import compile_plan, write_segments
from graphs.deployment_file import read_deployment
from graphs.graph_file import read_graph, write_graph
from graphs.groups import groups
from graphs.layered import layered
from graphs.onnx_model import Model
from graphs.units import Kind, segment_kind
from tests.bench.common import (
    Figure,
    arguments,
    conditions,
    median_ratio,
    show,
    warn_if_void,
    write,
)
from tests.support.light import with_weights

MODELS = ("squeezenet", "resnet50")
ROUNDS = 300
WARM_ROUNDS = 20
SLOTS = 6
SEED = 1
RATIO_MAX = 1.01
OWN_US_MAX = 20.0
GRAPH = """
understudy: 1
graph: whole
actors:
  camera: {{type: images, path: pictures.npz, rate_hz: 10}}
  prep: {{type: normalise, scale: 0.00392156862745098, offset: -0.5}}
  net: {{type: onnx, model: {model}}}
  result: {{type: results}}
fifos:
  - camera.frame -> prep.pixels
  - prep.image -> net.{input}
  - net.{output} -> result.answer
"""
DEPLOYMENT = """
understudy: 1
deployment: alone
graph: layers.yaml
devices:
  cam: {role: endpoint}
map: {camera: cam, prep: cam, net.*: cam, result: cam}
"""

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[int], object]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(conditions())
    tables = {}
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            title, figures = measure(name, Path(folder), options.rounds)
        show(title, figures)
        warn_if_void(figures[0].value)
        tables[name] = figures
    write(options.json, tables)
    return int(any(f.verdict for figures in tables.values() for f in figures))


def measure(name: str, folder: Path, rounds: int) -> tuple[str, list[Figure]]:
    """Return a title and the figures of a model."""
    model = Model.read(_write_model(name, folder))
    plan = _plan(model, folder)
    (stream,) = stream_parts(plan.graph, "cam")
    (branch,) = stream.branches
    feeds = _feeds(model)
    with (
        started(plan, stream.prefix) as prefix,
        started(plan, branch.chain) as fused,
        whole(model, feeds) as one,
        whole(model, feeds) as other,
        grouped(model, folder) as apart,
    ):
        _agree(fused, one, feeds)
        took = alternate([one, other, lambda k: fused.run((feeds[k % SLOTS],))], rounds)
        without = alternate([one, lambda k: apart.run((feeds[k % SLOTS],))], rounds)
        prefix_us, fused_us = _own_us([prefix, fused], rounds)
    title = (
        f"{name}: {len(groups(model))} layer groups, fused into "
        f"{len(branch.chain.actors)} segment; session.run "
        f"{statistics.median(took[0]) * 1e3:.2f} ms"
    )
    return title, [
        Figure("A/A", median_ratio(took[1], took[0]), "x"),
        Figure("fused chain", median_ratio(took[2], took[0], took[1]), "x", RATIO_MAX),
        Figure("engine's own cost of it", fused_us, "µs", OWN_US_MAX),
        Figure("of the chain in front", prefix_us, "µs"),
        Figure("one session a group", median_ratio(without[1], without[0]), "x"),
    ]


def alternate(variants: Sequence[Run], rounds: int) -> list[list[float]]:
    """Return the seconds of each variant in each round; who begins rotates.

    Rounds in which another process had our core do not count, if enough are left: what
    it takes away falls on one variant.
    """
    took: list[list[float]] = []
    undisturbed: list[list[float]] = []
    for k in range(-WARM_ROUNDS, rounds):
        row = [0.0] * len(variants)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        for place in range(len(variants)):
            index = (k + place) % len(variants)
            start_s = time.perf_counter()
            variants[index](k)
            row[index] = time.perf_counter() - start_s
        if k >= 0:
            took.append(row)
            if resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == before:
                undisturbed.append(row)
    if len(undisturbed) < rounds / 5:
        print(f"  others had our core in all but {len(undisturbed)} of {rounds} rounds")
        undisturbed = took
    return [list(column) for column in zip(*undisturbed, strict=True)]


def _own_us(chains: Sequence[Chain], frames: int) -> list[float]:
    """Return what the engine adds to the actors' own time in each chain; medians.

    Actors' time is taken as the engine takes it, with two clock reads each. The chains
    run one after the other, as in a device: a model leaves the caches empty.
    """
    pictures = np.random.default_rng(SEED).integers(0, 256, (SLOTS, 224, 224, 3))
    shown = pictures.astype(np.uint8)
    own_ns: list[list[int]] = [[] for _ in chains]
    for k in range(frames):
        before = [_overhead_ns(chain) for chain in chains]
        tokens: Sequence[Any] = (shown[k % SLOTS],)
        for chain in chains:
            tokens = chain.run(tokens)
        for each, chain, start in zip(own_ns, chains, before, strict=True):
            each.append(_overhead_ns(chain) - start)
    return [statistics.median(each) / 1e3 for each in own_ns]


def _overhead_ns(chain: Chain) -> int:
    stats = chain.stats()
    return stats.busy_ns - sum(actor.busy_ns for actor in stats.actors.values())


# What runs


def _write_model(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(with_weights(name), path)
    return path


def _plan(model: Model, folder: Path) -> Plan:
    """Return the compiled deployment of the model's layers on one endpoint."""
    (source,), (answer,) = model.inputs, model.outputs
    np.savez(folder / "pictures.npz", x=np.zeros((2, 224, 224, 3), np.uint8))
    ports = {"input": source.replace("/", "_"), "output": answer.replace("/", "_")}
    (folder / "whole.yaml").write_text(GRAPH.format(model=model.where, **ports))
    layers = layered(read_graph(folder / "whole.yaml"))
    (folder / "layers.yaml").write_text(write_graph(layers.graph))
    (folder / "alone.yaml").write_text(DEPLOYMENT)
    return compile_plan(read_deployment(folder / "alone.yaml"), folder / "plan")


def _feeds(model: Model) -> list[Array]:
    """Return as many inputs as rings have places: a place always gets the same."""
    shape = model.interface()[0][0].token.shape
    rng = np.random.default_rng(SEED)
    return [rng.standard_normal(shape, np.float32) for _ in range(SLOTS)]


@contextmanager
def started(plan: Plan, part: ChainPart) -> Iterator[Chain]:
    with running(plan.graph, part.actors, plan.folder) as behaviours:
        yield make_chain(part, behaviours)


@contextmanager
def running(
    graph: Graph, names: Sequence[str], folder: Path
) -> Iterator[Mapping[str, Behaviour]]:
    """Make and start the actors `names`; stop them on leaving."""
    site = Site("cam", "cam", 1, folder, None, SLOTS)
    actors = [graph.actors[name] for name in names]
    made = {a.name: behaviour(a.type)(a.params, site) for a in actors}
    for each in made.values():
        each.start()
    try:
        yield made
    finally:
        for each in made.values():
            each.stop()


@contextmanager
def whole(model: Model, feeds: Sequence[Array]) -> Iterator[Run]:
    """Run the file of a model in a session of its own, set up as an actor's is."""
    copy = Path(f"{model.where}.{time.monotonic_ns()}.onnx")
    os.link(model.where, copy)  # one session is shared per name
    session = SESSIONS.acquire(copy)
    names = list(model.outputs)
    (taken,) = model.inputs
    try:
        yield lambda k: session.run(names, {taken: feeds[k % SLOTS]})
    finally:
        SESSIONS.release(copy)


@contextmanager
def grouped(model: Model, folder: Path) -> Iterator[Chain]:
    """Run every layer group in a session of its own, as a chain."""
    found = groups(model)
    kinds: dict[str, Kind] = {}
    maker: dict[str, str] = {}
    for group in found:
        segment = group.part.segment(group.part.outputs)
        reading = [
            other for other in found if set(other.part.inputs) & set(segment.made)
        ]
        kinds[group.name] = segment_kind(segment, {segment.made[0]: len(reading)})
        maker |= dict.fromkeys(segment.made, group.name)
    segments = {k.segment.sha256: k.segment for k in kinds.values() if k.segment}
    write_segments(segments, folder / SEGMENTS)
    fifos: list[Fifo] = []
    inputs: list[PortRef] = []
    for name, kind in kinds.items():
        for tensor, port in kind.inputs.items():
            if tensor in model.inputs:
                inputs.append(PortRef(name, port))
                continue
            used = {fifo.source for fifo in fifos}
            ports = kinds[maker[tensor]].outputs.values()
            refs = (PortRef(maker[tensor], port) for port in ports)
            source = next(ref for ref in refs if ref not in used)
            fifos.append(Fifo(source, PortRef(name, port)))
    actors = {n: Actor(n, k.type, k.ports, k.params) for n, k in kinds.items()}
    graph = Graph("apart", actors, tuple(fifos))
    last = found[-1].name
    outputs = [PortRef(last, port) for port in kinds[last].outputs.values()]
    with running(graph, list(actors), folder) as behaviours:
        yield Chain(graph, list(actors), behaviours, inputs, outputs)


def _agree(fused: Chain, run: Run, feeds: Sequence[Array]) -> None:
    """Check that the chain computes what the whole model computes."""
    for k, feed in enumerate(feeds):
        (found,), (expected,) = fused.run((feed,)), run(k)  # type: ignore[misc]
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error <= 1e-4, f"differs by {error}"


if __name__ == "__main__":
    sys.exit(main())
