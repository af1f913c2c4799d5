"""What it costs to find every cut of a model and to make both parts of each.

    python -m tests.bench.cutting [--rounds N] [--json FILE]

A round reads nothing: it takes a model that is in memory, anew, finds its cuts, and
makes head and tail of every single cut, as files that refer to shared weights. Those
are written once a model, which is not in the figure. It is the least of the rounds, for
what is slower was another process.

Models: light ones of the onnx package, with weights of the right size, zeros, in a file
beside the model (their own weights are filled in as they run).
"""

import argparse
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from graphs.cuts import cuts
from graphs.external import SharedWeights
from graphs.onnx_model import Model
from graphs.split import split, whole
from tests.bench.common import Figure, arguments, conditions, show, write
from tests.support.light import light_model

BUDGETS_S = {"resnet50": 0.1, "vgg19": 1.0, "squeezenet": None, "densenet121": None}


class Nothing(BytesIO):
    """A file that forgets: how fast a disk writes weights is not asked here."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, _whence: int = 0) -> int:
        self._at = offset
        return offset

    def write(self, data: Any) -> int:
        self._at += len(data)
        return len(data)


def apart(name: str, folder: Path) -> Path:
    """Write a light model with its weights, zeros, in a file beside it."""
    model = onnx.load(light_model(name))
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    size = 0
    for node in made:
        tensor = graph.initializer.add(name=node.output[0], data_type=TensorProto.FLOAT)
        tensor.dims.extend(int(n) for n in shapes[node.input[0]])
        tensor.data_location = TensorProto.EXTERNAL
        length = 4 * int(shapes[node.input[0]].prod())
        places = {"location": "weights.bin", "offset": size, "length": length}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        size += length
        graph.node.remove(node)
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(size)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def measure(path: Path, rounds: int) -> tuple[float, float, int]:
    """Return seconds to find all cuts and to make the single ones, and how many."""
    finding, making, count = [], [], 0
    read = Model.read(path)
    weights = SharedWeights(Nothing(), "weights.bin", path.parent)
    whole(read).referring(weights)
    for _ in range(rounds):
        model = Model(read.proto, str(path), "")
        begun = time.perf_counter()
        alone = [cut.tensors for cut in cuts(model) if len(cut.tensors) == 1]
        found = time.perf_counter()
        for names in alone:
            for segment in split(model, names, model.outputs).segments:
                segment.referring(weights)
        making.append(time.perf_counter() - found)
        finding.append(found - begun)
        count = len(alone)
    return min(finding), min(making), count


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    chosen = parser.parse_args()
    print(conditions())
    figures = []
    for name, budget in BUDGETS_S.items():
        with tempfile.TemporaryDirectory() as folder:
            finding, making, count = measure(apart(name, Path(folder)), chosen.rounds)
        figures += [
            Figure(f"{name}: {count} single cuts, found and made", finding + making,
                   "s", budget),
            Figure(f"{name}: of that, found", finding, "s"),
        ]  # fmt: skip
    title = f"cuts, least of {chosen.rounds} rounds"
    show(title, figures)
    write(chosen.json, {title: figures})


if __name__ == "__main__":
    main()
