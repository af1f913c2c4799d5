"""Codecs on real features: bytes, encode and decode time, against bare float32.

    UNDERSTUDY_DATA=DIR python -m tests.bench.codecs [--mbit 100] [--json FILE]

Each model is cut where a deployment would cut it, and its head fed with real pictures.
Encoding is what an endpoint does between the fork and the socket (the encode actor,
then the compression), decoding what a server does between the socket and the tail; both
the median over the pictures, each the best of a few. `link` is one tensor's time from
the fork to the tail over a link of the rate given, as codec / float32: bytes over rate,
plus encoding and decoding, without the network's latency. Below 1 the codec pays.

Without UNDERSTUDY_DATA only the shipped digits are there.
"""

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from actors.codec import Decode, Encode
from dataflow.behaviour import Site
from dataflow.graph import TokenType
from dataflow.wire.compression import compression
from graphs.deployment import CODECS, Codec
from graphs.onnx_model import Model
from graphs.split import split
from tests.bench.common import Figure, arguments, conditions, write

DIGITS = Path(__file__).parents[2] / "graphs" / "digits"
PICTURES = 10
TRIALS = 5
SITE = Site("bench", "bench", 0, Path(), None, 2)
Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A model, where it is cut, and pictures as its input wants them."""

    path: Path
    cut: str
    images: list[Image]


@dataclass(frozen=True, slots=True)
class Measured:
    """One codec on the features of one case: medians over the pictures."""

    nbytes: float
    encode_ms: float
    decode_ms: float

    def link_ms(self, mbit: float) -> float:
        """Return the time from fork to tail over a link of `mbit` Mbit/s."""
        return self.nbytes * 8 / mbit / 1e3 + self.encode_ms + self.decode_ms


def cases() -> Iterator[Case]:
    """Yield what is to be had."""
    with np.load(DIGITS / "digits-test.npz") as stored:
        digits = stored["x"][:PICTURES].astype(np.float32) * np.float32(0.0625)
    images = [each.reshape(1, 1, 8, 8) for each in digits]
    yield Case(DIGITS / "digits.onnx", "features1", images)
    yield Case(DIGITS / "digits.onnx", "features2", images)
    data = Path(os.environ.get("UNDERSTUDY_DATA", ""))
    if not (data / "models").is_dir():
        print("UNDERSTUDY_DATA names no folder with models: the digits alone")
        return
    models = data / "models"
    with np.load(data / "cifar10_png_test1000.npz") as stored:
        cifar = [picture / 255 for picture in stored["x"][:PICTURES]]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = [_nchw((picture - mean) / deviation) for picture in cifar]
    cut = "/layer2/layer2.0/Relu_1_output_0"
    yield Case(models / "resnet20_cifar10.onnx", cut, images)
    with np.load(data / "vehicles4_jpeg.npz", allow_pickle=False) as stored:
        ends = stored["offsets"]
        blobs = [
            stored["blob"][a:b].tobytes() for a, b in pairwise(ends[: PICTURES + 1])
        ]
    images = [_nchw(_picture(blob, 96) / 255 - 0.5) for blob in blobs]
    yield Case(models / "vehicle_cnn_4.onnx", "/MaxPool_output_0", images)
    photos = [path.read_bytes() for path in sorted((data / "images").glob("*.jpg"))]
    images = [_nchw(_picture(photo, 224) / 127.5 - 1) for photo in photos]
    mobilenet = models / "mobilenet_v2_1.0_224_imagenet.onnx"
    yield Case(mobilenet, "Add_46", images)
    yield Case(mobilenet, "Clip_58", images)
    images = [_nchw(_picture(photo, 300) / 127.5 - 1) for photo in photos]
    yield Case(models / "ssd_mobilenet_v1_coco_300.onnx", "Clip_48", images)


def _picture(data: bytes, side: int) -> NDArray[np.float64]:
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB").resize((side, side)), np.float64)


def _nchw(picture: NDArray[Any]) -> Image:
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)


def features(case: Case) -> list[Image]:
    """Return what the head makes of each picture."""
    model = Model.read(case.path)
    outputs = [output.name for output in model.proto.graph.output]
    head = split(model, [case.cut], outputs).head
    session = onnxruntime.InferenceSession(head.data)
    (taken,) = session.get_inputs()
    return [session.run([case.cut], {taken.name: image})[0] for image in case.images]


def measure(codec: Codec, tensors: list[Image]) -> Measured:
    token = TokenType("float32", tensors[0].shape)
    packed = compression(codec.compression)
    params = {"codec": codec.encoding, "token": str(token)}
    ends = (Encode(params, SITE), Decode(params, SITE)) if codec.encoding else None
    found = []
    for tensor in tensors:
        code_ms, code = _timed(ends[0].fire, tensor) if ends else (0.0, tensor)
        pack_ms, frame = _timed(lambda t: packed.run([t])[0], code) if packed else (
            0.0, code
        )  # fmt: skip
        sent = memoryview(frame).cast("B")
        unpack_ms, back = 0.0, code
        if packed:
            restore = partial(packed.token, token_bytes=code.nbytes)
            unpack_ms, made = _timed(restore, sent)
            back = np.frombuffer(made, code.dtype).reshape(code.shape)
            assert back.tobytes() == code.tobytes(), "lossless"
        decode_ms = _timed(ends[1].fire, back)[0] if ends else 0.0
        found.append((len(sent), code_ms + pack_ms, unpack_ms + decode_ms))
    sizes, encode, decode = zip(*found, strict=True)
    return Measured(*(statistics.median(each) for each in (sizes, encode, decode)))


def _timed(call: Callable[[Any], Any], value: Any) -> tuple[float, Any]:
    """Return the best time in milliseconds of a few calls, and what they return."""
    best_s, made = float("inf"), None
    for _ in range(TRIALS):
        start_s = time.perf_counter()
        made = call(value)
        best_s = min(best_s, time.perf_counter() - start_s)
    return best_s * 1e3, made


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--mbit", type=float, action="append", help="of the link")
    chosen = parser.parse_args()
    rates = chosen.mbit or [16.0, 100.0, 1000.0]
    print(conditions("one"))
    tables: dict[str, list[Figure]] = {}
    for case in cases():
        tensors = features(case)
        bare = measure(Codec(), tensors)
        title = (
            f"{case.path.stem} at {case.cut}: {list(tensors[0].shape)}, "
            f"{bare.nbytes / 1e3:.1f} kB, {len(tensors)} pictures, "
            f"{np.mean([np.mean(t == 0) for t in tensors]):.0%} zeros"
        )
        print(f"\n{title}")
        print(f"  {'codec':14}{'bytes':>8}{'encode ms':>11}{'decode ms':>11}"
              + "".join(f"{f'link {rate:g}':>11}" for rate in rates))  # fmt: skip
        tables[title] = []
        for name, codec in CODECS.items():
            found = measure(codec, tensors)
            ratios = [found.link_ms(rate) / bare.link_ms(rate) for rate in rates]
            print(f"  {name:14}{found.nbytes / bare.nbytes:8.3f}"
                  f"{found.encode_ms:11.3f}{found.decode_ms:11.3f}"
                  + "".join(f"{ratio:11.3f}" for ratio in ratios))  # fmt: skip
            tables[title] += [
                Figure(f"{name} {key}", value) for key, value in asdict(found).items()
            ]
    write(chosen.json, tables)


if __name__ == "__main__":
    main()
