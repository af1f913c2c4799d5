"""A detector that answers with its best detections only.

An SSD's raw answer has a box and a score of every class for each of 1,917 anchors: more
bytes than the picture. A server that finished the job would send back the few that
matter, and so does this: the best `count` anchors, with their boxes, scores, classes
and numbers (to decode the boxes with). Its size is fixed, as a token's must be.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dataflow.errors import UnderstudyError
from graphs.onnx_model import Model

COUNT = 100
OPSET_MIN = 11
_AXES_ARE_INPUTS = 18
"""From this opset on ReduceMax takes its axes as an input."""


def is_raw(model: Model) -> bool:
    """Say whether a model answers with [1, A, 4] boxes and [1, A, classes] scores."""
    shapes = [model.tensor(name).token.shape for name in model.outputs]
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes):
        return False
    boxes, scores = sorted(shapes, key=lambda shape: shape[2])
    return boxes[2] == 4 and boxes[1] == scores[1] > COUNT


def write_best_detections(source: Path, target: Path, count: int = COUNT) -> None:
    """Write the model `source` to `target`, its answer cut down to the best anchors.

    Args:
        source: A model for which `is_raw` holds.
        target: Where to write the new one.
        count: Anchors that are kept.

    Raises:
        UnderstudyError: Its opset has no operator for this.
    """
    model = onnx.load(source)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < OPSET_MIN:
        raise UnderstudyError(
            f"{source}: opset {opset}; to keep the best detections takes "
            f"{OPSET_MIN} or later, convert it"
        )
    graph = model.graph
    by_last = sorted(
        graph.output, key=lambda o: o.type.tensor_type.shape.dim[2].dim_value
    )
    boxes, scores = (output.name for output in by_last)
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param or 1
    del graph.output[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"best_{name}")
        for name, value in (("count", [count]), ("axis", [2]), ("sizes", [1, 1, 4]))
    )
    if opset < _AXES_ARE_INPUTS:
        highest = helper.make_node(
            "ReduceMax", [scores], ["best_of_each"], axes=[2], keepdims=0
        )
    else:
        highest = helper.make_node(
            "ReduceMax", [scores, "best_axis"], ["best_of_each"], keepdims=0
        )
    graph.node.extend(
        [
            highest,
            helper.make_node("ArgMax", [scores], ["best_class"], axis=2, keepdims=0),
            helper.make_node(
                "TopK", ["best_of_each", "best_count"],
                ["detection_scores", "detection_anchors"], axis=1,
            ),
            helper.make_node(
                "GatherElements", ["best_class", "detection_anchors"],
                ["detection_classes"], axis=1,
            ),
            helper.make_node(
                "Unsqueeze", ["detection_anchors"], ["best_column"], axes=[2]
            )
            if opset < 13
            else helper.make_node(
                "Unsqueeze", ["detection_anchors", "best_axis"], ["best_column"]
            ),
            helper.make_node("Tile", ["best_column", "best_sizes"], ["best_rows"]),
            helper.make_node(
                "GatherElements", [boxes, "best_rows"], ["detection_boxes"], axis=1
            ),
        ]
    )  # fmt: skip
    for name, kind, shape in (
        ("detection_boxes", TensorProto.FLOAT, [batch, count, 4]),
        ("detection_scores", TensorProto.FLOAT, [batch, count]),
        ("detection_classes", TensorProto.INT64, [batch, count]),
        ("detection_anchors", TensorProto.INT64, [batch, count]),
    ):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    onnx.save(model, target)
