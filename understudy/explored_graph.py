"""A graph around a model by itself: a source, what prepares its frames, and a sink.

The source shows pictures, or tensors where the input of the model is no picture: the
frame that is given, or those that `profile` measures with, moved about, until somebody
puts their own in their place. Several outputs are packed into one answer.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actors.onnx_segment import port_names
from graphs.onnx_model import Model
from understudy.candidates import frame_shape
from understudy.model_input import Array, natural

SOURCE, PREPARE, NETWORK, PACK, SINK = "camera", "prep", "net", "pack", "result"
GRAPH_FILE, FRAMES_FILE = "graph.yaml", "frames.npz"
FRAMES = 8
_Frames = Mapping[str, Array]


def write_graph(
    folder: Path, model: Model, rate_hz: float, frame: _Frames | None = None
) -> None:
    """Write the graph file and its frames.

    Args:
        folder: That is there.
        model: Of the network.
        rate_hz: Of the source.
        frame: Input -> what the source shows; None: made up.

    Raises:
        OSError: They cannot be written.
    """
    ports = port_names([*model.inputs, *model.outputs])
    taken, made = ports[: len(model.inputs)], ports[len(model.inputs) :]
    shape = frame_shape(model)
    write = _write_pictures if shape is not None else _write_tensors
    frames = _made_up(model) if frame is None else _alone(frame)
    source, prepared, fifos = write(folder, frames, taken)
    packed, answers = _answers(model, made)
    file = json.dumps(os.path.relpath(model.where, folder))
    source |= {"path": FRAMES_FILE, "rate_hz": rate_hz}
    dims = f", dims: {json.dumps(model.sizes)}" if model.sizes else ""
    lines = [
        "understudy: 1",
        f"graph: {json.dumps(Path(model.where).stem)}",
        "actors:",
        f"  # {'Made-up frames' if frame is None else 'The frame that was given'}; "
        "put your own in their place.",
        f"  {SOURCE}: {json.dumps(source)}",
        *prepared,
        f"  {NETWORK}: {{type: onnx, model: {file}{dims}}}",
        *packed,
        f"  {SINK}: {{type: results}}",
        "fifos:",
        *(f"  - {fifo}" for fifo in (*fifos, *answers)),
    ]
    (folder / GRAPH_FILE).write_text("\n".join(lines) + "\n")


_Written = tuple[dict[str, object], list[str], list[str]]
"""Parameters of the source, lines of what prepares its frames, FIFOs to the network."""


def _write_pictures(folder: Path, frames: _Frames, ports: list[str]) -> _Written:
    (tensors,) = frames.values()
    values = tensors[:, 0].transpose(0, 2, 3, 1)
    offset = float(values.min())
    scale = (float(values.max()) - offset) / 255 or 1.0
    pixels = np.rint((values - offset) / scale).clip(0, 255).astype(np.uint8)
    np.savez(folder / FRAMES_FILE, x=pixels)
    prepared = [
        "  # Write what your network wants of pixels from 0 to 255.",
        f"  {PREPARE}: {{type: normalise, scale: {scale!r}, offset: {offset!r}}}",
    ]
    fifos = [f"{SOURCE}.frame -> {PREPARE}.pixels"]
    fifos.append(f"{PREPARE}.image -> {NETWORK}.{ports[0]}")
    return {"type": "images"}, prepared, fifos


def _write_tensors(folder: Path, frames: _Frames, ports: list[str]) -> _Written:
    arrays: dict[str, Any] = dict(zip(ports, frames.values(), strict=True))
    np.savez(folder / FRAMES_FILE, **arrays)
    fifos = [f"{SOURCE}.{port} -> {NETWORK}.{port}" for port in ports]
    return {"type": "arrays"}, [], fifos


def _alone(frame: _Frames) -> dict[str, Array]:
    """Return the frame as the only one there is."""
    return {name: token[None] for name, token in frame.items()}


def _made_up(model: Model) -> dict[str, Array]:
    """Return `FRAMES` tokens for each input, each the first one, turned round."""
    first = natural([model.tensor(name) for name in model.inputs])
    return {
        name: np.stack([np.roll(token, shift, axis=-1) for shift in range(FRAMES)])
        if token.ndim
        else np.stack([token] * FRAMES)
        for name, token in first.items()
    }


def _answers(model: Model, ports: list[str]) -> tuple[list[str], list[str]]:
    """Return the line of what packs several outputs, and the FIFOs to the sink."""
    if len(ports) == 1:
        return [], [f"{NETWORK}.{ports[0]} -> {SINK}.answer"]
    tokens = json.dumps([str(model.tensor(name).token) for name in model.outputs])
    fifos = [f"{NETWORK}.{port} -> {PACK}.t{i}" for i, port in enumerate(ports)]
    fifos.append(f"{PACK}.packed -> {SINK}.answer")
    return [f"  {PACK}: {{type: pack, tokens: {tokens}}}"], fifos
