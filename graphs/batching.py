"""Segments that run as batches: their first axis open, and tried.

A batch stacks tokens along the first axis, so that axis must be of size 1 in every
token, and open in the model. Most exporters leave it open. Where it is fixed it is
opened here: the declared sizes of inputs and outputs are, and each `Reshape` to a
constant shape that begins with 1 keeps the first size of what it is given. Whether what
comes out still computes the same, row by row, no rule can tell; it is run and compared
(`actors.batch_trial`), on random tokens, to 1e-4 of the largest value.
"""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import numpy_helper

from actors.onnx_segment import OnnxSegment
from dataflow.behaviour import Site
from dataflow.errors import UnderstudyError
from graphs.deployment import Group
from graphs.located_yaml import Problems
from graphs.split import Segment
from graphs.streams import Stream
from graphs.units import Unit, Units

BATCH_AXIS = "batch"


def batch(
    streams: Iterable[Stream],
    units: Units,
    groups: Mapping[str, Group],
    problems: Problems,
) -> None:
    """Let the segments that servers run as batches be such; `units` learn of them."""
    wanted: dict[Unit, set[str]] = {}
    for way in (way for stream in streams for way in stream.ways):
        for hop in way.hops:
            if groups[hop.group].batch_max > 1:
                for unit in hop.units:
                    wanted.setdefault(unit, set()).add(hop.group)
    for unit, names in wanted.items():
        kind = units.kinds[unit]
        if kind.segment is None:
            continue
        most = max(groups[name].batch_max for name in names)
        try:
            segment = batched(kind.segment, most)
        except UnderstudyError as error:
            problems.add(
                units.place(unit.actor),
                f"map: {unit.actor}: cannot run as batches of {most} on "
                f"'{' or '.join(sorted(names))}': {error}; remove batch_max there",
            )
        else:
            units.kinds[unit] = replace(kind, segment=segment)


def batched(segment: Segment, count: int) -> Segment:
    """Return `segment` with its first axis open, fit to run `count` tokens at once.

    Its identity stays: it is the same computation.

    Raises:
        UnderstudyError: It cannot run as a batch, and says why.
    """
    for tensor in (*segment.inputs, *segment.outputs):
        if tensor.token.shape[:1] != (1,):
            raise UnderstudyError(
                f"tensor '{tensor.name}' is {tensor.token}, and tokens are stacked "
                "along a first axis of size 1"
            )
    opened = _opened(segment)
    _try(opened, count)
    return opened


def _opened(segment: Segment) -> Segment:
    proto = onnx.load_model_from_string(segment.data)
    graph = proto.graph
    first = [
        info.type.tensor_type.shape.dim[0] for info in (*graph.input, *graph.output)
    ]
    if not any(dim.HasField("dim_value") for dim in first):
        return segment
    for dim in first:
        dim.dim_param = BATCH_AXIS
    constants = {t.name: t for t in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    for index, node in enumerate(graph.node):
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = numpy_helper.to_array(constants[node.input[1]]).copy()
            if shape.size and shape[0] == 1:
                shape[0] = 0  # as in the input; the constant may have other readers
                name = f"{node.input[1]}_{BATCH_AXIS}_{index}"
                graph.initializer.append(numpy_helper.from_array(shape, name))
                node.input[1] = name
    data = bytes(proto.SerializeToString(deterministic=True))
    # The weights are in it: it is run at once, as devices run it.
    return replace(segment, build=lambda _carry: data)


def _try(segment: Segment, count: int) -> None:
    """Load a segment as a device does, which runs and compares a batch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "segment.onnx"
        file.write_bytes(segment.data)
        params = {
            "file": str(file),
            "inputs": [tensor.json() for tensor in segment.inputs],
            "outputs": [tensor.json() for tensor in segment.outputs],
        }
        site = Site("check", "check", 0, Path(folder), None, count + 1, count)
        behaviour = OnnxSegment(params, site)
        try:
            behaviour.start()
        except UnderstudyError as error:
            said = str(error).removeprefix(f"{file}: ")
            raise UnderstudyError(said.removesuffix("; remove batch_max")) from None
        finally:
            behaviour.stop()
