"""A folder with the parts of a model, written whole or not at all, and checked.

The parts are ``segment-1.onnx`` and so on, names that no tensor of any model can spoil.
They share one file with the weights, and ``split.json`` says what goes where. Each runs
wherever ONNX does, as long as the folder stays together.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.trial import Array, open_session, run, some
from dataflow.errors import MisuseError, UnderstudyError
from graphs.external import SharedWeights
from graphs.inference import dims_of, dtype_of
from graphs.onnx_model import Model
from graphs.split import Segment
from understudy.model_input import read_arrays

CONTENTS = "split.json"
WEIGHTS = "weights.bin"
ERROR_MAX = 1e-4
"""Of the largest value of an output, with optimisations: they order sums otherwise."""
HALF_ERROR_MAX = 1e-2
"""The same where float16 crosses: a rounding is 5e-4, and there may be many."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an output of the parts compares with that of the whole model.

    Attributes:
        output: Its name.
        same_bits: Without optimisations.
        error: With all of them: the largest difference as a part of the largest value.
        half: A float16 tensor crosses. A processor that does not compute in float16
            keeps more digits than that as long as nothing is cut, whatever the
            optimisations; `error` is then the larger of both comparisons.
    """

    output: str
    same_bits: bool
    error: float
    half: bool = False

    @property
    def error_max(self) -> float:
        return HALF_ERROR_MAX if self.half else ERROR_MAX

    @property
    def holds(self) -> bool:
        return (self.same_bits or self.half) and self.error <= self.error_max

    def __str__(self) -> str:
        said = "" if self.error <= self.error_max else f", more than {self.error_max:g}"
        off = f"off by {self.error:.2g} of its maximum{said}"
        if self.half:
            return f"{self.output}: {off}; float16 crosses, which rounds"
        bits = "the same bits" if self.same_bits else "OTHER BITS"
        return f"{self.output}: {bits} without optimisations; with all of them {off}"


def write_parts(
    segments: Sequence[Segment], folder: Path, given: Mapping[str, Array] | None
) -> list[Verdict]:
    """Write the parts of a model to `folder` and return how they compare with it.

    Args:
        segments: The parts, each behind what feeds it.
        folder: Made, or replaced if it holds parts that were written earlier.
        given: Inputs of the model to compare on; None: do not.

    Raises:
        MisuseError: The folder holds something else.
        UnderstudyError: A part cannot be written or run, or does not compute what the
            model computes. Then nothing was written.
    """
    model = segments[0].model
    with _replaced(folder) as partial:
        _write(segments, partial)
        verdicts = [] if given is None else compare(segments, partial, given)
        if not all(verdict.holds for verdict in verdicts):
            wrong = "; ".join(str(v) for v in verdicts if not v.holds)
            raise UnderstudyError(
                f"model {model.where}: its parts do not compute what it computes "
                f"({wrong}); nothing was written, cut elsewhere"
            )
        contents = _contents(segments, verdicts)
        (partial / CONTENTS).write_text(json.dumps(contents, indent=1) + "\n")
    return verdicts


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Give a folder that takes the place of `folder` if nothing goes wrong."""
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder}: is a file; name a folder")
    there = folder.is_dir() and any(folder.iterdir())
    if there and not (folder / CONTENTS).is_file():
        raise MisuseError(
            f"{folder}: holds other files; name a folder that is empty or not there"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield partial
        partial.chmod(0o755)  # made for its owner alone
        if folder.exists():
            folder.rename(partial.with_name(f"{partial.name}-old"))
        partial.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        for left in (partial, partial.with_name(f"{partial.name}-old")):
            shutil.rmtree(left, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> UnderstudyError:
    return UnderstudyError(
        f"{folder}: cannot be written ({error.strerror}); name another folder, on a "
        "disk with room"
    )


def file_name(number: int) -> str:
    """Return the name of the file of a part, the first being 1."""
    return f"segment-{number}.onnx"


def _write(segments: Sequence[Segment], folder: Path) -> None:
    path = folder / WEIGHTS
    with path.open("wb") as file:
        weights = SharedWeights(file, WEIGHTS, segments[0].model.folder)
        for number, segment in enumerate(segments, 1):
            (folder / file_name(number)).write_bytes(segment.referring(weights))
    if not path.stat().st_size:
        path.unlink()  # all weights are small, and in the segments


def _contents(
    segments: Sequence[Segment], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    def ports(segment: Segment, names: Sequence[str], *, made: bool) -> list[Any]:
        infos = [segment.model.written(name) for name in names]
        return [
            {
                "name": segment.output_name(info.name) if made else info.name,
                "tensor": info.name,
                "dtype": dtype_of(info.type.tensor_type.elem_type),
                "shape": dims_of(info),
            }
            for info in infos
        ]

    model = segments[0].model
    return {
        "understudy": 1,
        "split": {"model": Path(model.where).name, "sha256": model.sha256},
        "segments": [
            {
                "file": file_name(number),
                "inputs": ports(s, s.given, made=False),
                "outputs": ports(s, s.made, made=True),
            }
            for number, s in enumerate(segments, 1)
        ],
        "verified": [asdict(verdict) for verdict in verdicts],
    }


def inputs_for(model: Model, file: Path | None) -> dict[str, Array]:
    """Return inputs of a model: those in an .npz file, else made up from a seed.

    Raises:
        MisuseError: The file cannot be read, or lacks an input.
        UnderstudyError: An input has no fixed size.
    """
    tokens = {name: model.tensor(name).token for name in model.inputs}
    if file is None:
        return some({name: (t.dtype, t.shape) for name, t in tokens.items()})
    found = read_arrays(file)
    for name, token in tokens.items():
        if name not in found:
            raise MisuseError(
                f"{file}: has no array '{name}', an input of {model.where}; it has "
                f"{', '.join(found) or 'none'}"
            )
        shape = found[name].shape
        if found[name].dtype != token.dtype or shape[1:] != token.shape[1:]:
            raise MisuseError(
                f"{file}: '{name}' is {found[name].dtype}{list(shape)}, "
                f"{model.where} takes {token}"
            )
    return {name: found[name] for name in tokens}


def compare(
    segments: Sequence[Segment], folder: Path, given: Mapping[str, Array]
) -> list[Verdict]:
    """Return how what the parts compute compares with what their model computes.

    Args:
        segments: All parts of a model, each behind what feeds it.
        folder: Where they are.
        given: Inputs of the model.

    Raises:
        UnderstudyError: The model or a part does not run here, or the model draws
            random numbers.
    """
    model = segments[0].model
    if model.random:
        drawn = model.nodes[min(model.random)].output[0]
        raise UnderstudyError(
            f"model {model.where}: draws the random numbers '{drawn}', so two runs "
            "cannot be compared; split it with --no-verify"
        )
    plain = _both(segments, folder, given, optimised=False)
    fast = _both(segments, folder, given, optimised=True)
    half = any(
        dtype_of(model.written(name).type.tensor_type.elem_type) == "float16"
        for segment in segments[:-1]
        for name in segment.made
    )
    return [
        Verdict(
            name,
            same_bits=all(same_bits(*both) for both in _pairs(plain, name)),
            error=max(
                relative_error(*both)
                for run_ in ((plain, fast) if half else (fast,))
                for both in _pairs(run_, name)
            ),
            half=half,
        )
        for name in model.outputs
    ]


def _pairs(
    values: tuple[Mapping[str, Any], Mapping[str, Any]], name: str
) -> list[tuple[Array, Array]]:
    """Return the arrays in an output of the whole, each with that of the parts."""
    whole, parts = ([*_arrays(side[name])] for side in values)
    counts = np.array(len(whole)), np.array(len(parts))
    return [counts, *zip(whole, parts, strict=False)]


def _arrays(value: Any) -> Iterator[Array]:
    """Yield what an output holds: an array, or a list, of maps of class to score."""
    if isinstance(value, dict):
        value = [np.array([*value]), np.array([*value.values()])]
    if isinstance(value, list):
        for inner in value:
            yield from _arrays(inner)
    elif value is not None:  # an optional without a value
        yield np.asarray(value)


def _both(
    segments: Sequence[Segment],
    folder: Path,
    given: Mapping[str, Array],
    *,
    optimised: bool,
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Return the outputs of the whole model, and what its parts make."""
    model = segments[0].model
    session = open_session(Path(model.where), optimised=optimised)
    try:
        whole = run(session, given)
    except UnderstudyError as error:
        raise UnderstudyError(
            f"model {model.where}: does not run on the inputs to compare on ({error}); "
            f"give some that it takes with --input{model.to_choose_sizes}"
        ) from None
    del session  # its weights are not needed beside those of the parts
    known = dict(given)
    for number, segment in enumerate(segments, 1):
        path = folder / file_name(number)
        session = open_session(path, optimised=optimised)
        names = [segment.output_name(name) for name in segment.made]
        made = run(session, known, names)
        known |= {n: made[o] for n, o in zip(segment.made, names, strict=True)}
    return whole, known


def same_bits(a: Array, b: Array) -> bool:
    """Say whether two arrays are alike: in type, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and _bits(a) == _bits(b)


def _bits(array: Array) -> object:
    return array.tolist() if array.dtype == object else array.tobytes()


def relative_error(whole: Array, parts: Array) -> float:
    """Return the largest difference as a part of the largest value of `whole`.

    It is infinite where types, shapes or what is not finite differ. A difference of
    single elements would say nothing: next to zero it may be of any size.
    """
    if whole.shape != parts.shape or whole.dtype != parts.dtype:
        return math.inf
    if not np.issubdtype(whole.dtype, np.number):
        return 0.0 if same_bits(whole, parts) else math.inf
    expected, found = whole.astype(np.float64), parts.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return math.inf
    off = np.abs(expected[finite] - found[finite]).max(initial=0.0)
    most = np.abs(expected[finite]).max(initial=0.0)
    return float(off / most) if most else (math.inf if off else 0.0)
