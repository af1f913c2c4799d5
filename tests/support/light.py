"""The light models of the onnx package: real topologies, weights that are made up.

They hold the shapes of their large weights only, and fill them with one number when
they run. `with_weights` draws them instead: otherwise all channels of a layer are alike
and a wrong order of them would not show.
"""

import math
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

SEED = 1
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
HUGE = ("bvlc_alexnet", "vgg19", "zfnet512")
"""Those with 200 MB of weights and more."""
SMALL = (
    *("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet"),
    "squeezenet",
)


def light_model(name: str) -> Path:
    """Return the file of a light model."""
    return FOLDER / f"light_{name}.onnx"


def with_weights(name: str) -> onnx.ModelProto:
    """Return a light model with large weights drawn as He et al. initialise them."""
    model = onnx.load(light_model(name))
    graph = model.graph
    rng = np.random.default_rng(SEED)
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shape = tuple(shapes[node.input[0]])
        # One dimension: biases, means and variances, which must be above 0.
        weight = rng.random(shape, np.float32) + np.float32(0.5)
        if len(shape) > 1:
            weight = rng.standard_normal(shape, np.float32)
            weight *= np.float32(math.sqrt(2 / math.prod(shape[1:])))
        graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        graph.node.remove(node)
    return model


def real_models() -> list[Path]:
    """Return models with real weights, if UNDERSTUDY_DATA names a folder of some."""
    folder = os.environ.get("UNDERSTUDY_DATA")
    return sorted(Path(folder, "models").glob("*.onnx")) if folder else []
