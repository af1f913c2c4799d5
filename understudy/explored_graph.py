"""A graph around a model by itself: a source, what prepares its frames, and a sink.

The source shows pictures, or tensors where the input of the model is no picture. They
are random until somebody puts their own in their place: times do not depend on them,
save for what a codec compresses. Several outputs are packed into one answer.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from actors.onnx_segment import port_names
from dataflow.graph import TokenType
from graphs.onnx_model import Model
from understudy.candidates import frame_shape

SOURCE, PREPARE, NETWORK, PACK, SINK = "camera", "prep", "net", "pack", "result"
GRAPH_FILE, FRAMES_FILE = "graph.yaml", "frames.npz"
FRAMES = 8
SEED = 1


def write_graph(folder: Path, model: Model, rate_hz: float) -> None:
    """Write the graph file and its frames.

    Raises:
        OSError: They cannot be written.
    """
    ports = port_names([*model.inputs, *model.outputs])
    taken, made = ports[: len(model.inputs)], ports[len(model.inputs) :]
    shape = frame_shape(model)
    write = _write_pictures if shape is not None else _write_tensors
    source, prepared, fifos = write(folder, model, taken)
    packed, answers = _answers(model, made)
    file = json.dumps(os.path.relpath(model.where, folder))
    source |= {"path": FRAMES_FILE, "rate_hz": rate_hz}
    lines = [
        "understudy: 1",
        f"graph: {json.dumps(Path(model.where).stem)}",
        "actors:",
        "  # Random content; put your own in its place.",
        f"  {SOURCE}: {json.dumps(source)}",
        *prepared,
        f"  {NETWORK}: {{type: onnx, model: {file}}}",
        *packed,
        f"  {SINK}: {{type: results}}",
        "fifos:",
        *(f"  - {fifo}" for fifo in (*fifos, *answers)),
    ]
    (folder / GRAPH_FILE).write_text("\n".join(lines) + "\n")


_Written = tuple[dict[str, object], list[str], list[str]]
"""Parameters of the source, lines of what prepares its frames, FIFOs to the network."""


def _write_pictures(folder: Path, model: Model, ports: list[str]) -> _Written:
    shape = frame_shape(model)
    assert shape is not None
    pixels = np.random.default_rng(SEED).integers(0, 256, (FRAMES, *shape), np.uint8)
    np.savez(folder / FRAMES_FILE, x=pixels)
    prepared = [
        "  # Pixels 0 to 255 become 0 to 1: write what your network was trained with.",
        f"  {PREPARE}: {{type: normalise, scale: {1 / 255!r}}}",
    ]
    fifos = [f"{SOURCE}.frame -> {PREPARE}.pixels"]
    fifos.append(f"{PREPARE}.image -> {NETWORK}.{ports[0]}")
    return {"type": "images"}, prepared, fifos


def _write_tensors(folder: Path, model: Model, ports: list[str]) -> _Written:
    rng = np.random.default_rng(SEED)
    arrays: dict[str, Any] = {
        port: _random(rng, model.tensor(name).token)
        for port, name in zip(ports, model.inputs, strict=True)
    }
    np.savez(folder / FRAMES_FILE, **arrays)
    fifos = [f"{SOURCE}.{port} -> {NETWORK}.{port}" for port in ports]
    return {"type": "arrays"}, [], fifos


def _random(rng: np.random.Generator, token: TokenType) -> Any:
    """Return `FRAMES` tokens: floats 0 to 1, zeros and ones of any other type."""
    shape = (FRAMES, *token.shape)
    if token.dtype.startswith("float"):
        return rng.random(shape).astype(token.dtype)
    return rng.integers(0, 2, shape).astype(token.dtype)


def _answers(model: Model, ports: list[str]) -> tuple[list[str], list[str]]:
    """Return the line of what packs several outputs, and the FIFOs to the sink."""
    if len(ports) == 1:
        return [], [f"{NETWORK}.{ports[0]} -> {SINK}.answer"]
    tokens = json.dumps([str(model.tensor(name).token) for name in model.outputs])
    fifos = [f"{NETWORK}.{port} -> {PACK}.t{i}" for i, port in enumerate(ports)]
    fifos.append(f"{PACK}.packed -> {SINK}.answer")
    return [f"  {PACK}: {{type: pack, tokens: {tokens}}}"], fifos
