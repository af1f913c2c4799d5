"""Measure what stands around a network in a deployment: preparing, and packing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.normalise import Normalise
from actors.pack import Pack
from dataflow.behaviour import Site
from dataflow.graph import TokenType
from dataflow.wire.compression import COMPRESSIONS, compression
from graphs.onnx_model import Model
from understudy.candidates import frame_shape
from understudy.profile_file import Ends
from understudy.timing import SLOTS, least_s

_SITE = Site("profile", "profile", 0, Path(), None, SLOTS)

Array = NDArray[Any]


def ends(model: Model, answer: Sequence[Array]) -> Ends:
    """Return what stands around `model`, which answers a frame with `answer`."""
    packed = np.concatenate(
        [np.frombuffer(each.tobytes(), np.uint8) for each in answer]
    )
    return Ends(
        prepare_ms=round(_prepare_ms(model), 4),
        pack_ms=round(_pack_ms(answer), 4) if len(answer) > 1 else 0.0,
        answer={
            name: sum(memoryview(frame).nbytes for frame in made.run([packed]))
            for name in COMPRESSIONS
            if (made := compression(name)) is not None
        },
    )


def _prepare_ms(model: Model) -> float:
    shape = frame_shape(model)
    if shape is None:
        return 0.0
    actor = Normalise({"shape": list(shape), "scale": 0.02, "offset": -2.0}, _SITE)
    pixels = np.zeros(shape, np.uint8)
    return least_s(lambda: actor.fire(pixels)) * 1e3


def _pack_ms(answer: Sequence[Array]) -> float:
    types = [str(TokenType(str(each.dtype), each.shape)) for each in answer]
    actor = Pack({"tokens": types}, _SITE)
    return least_s(lambda: actor.fire(*answer)) * 1e3
