"""Models as they are, run once: to see what their tensors are, and to compare."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.sessions import first_line
from dataflow.errors import UnderstudyError

Array = NDArray[Any]
Kind = tuple[str, Sequence[int]]
"""A NumPy dtype and a shape."""

SEED = 1
_FATAL = 4  # onnxruntime's log severity: what goes wrong is raised


def some(kinds: Mapping[str, Kind], seed: int = SEED) -> dict[str, Array]:
    """Return seeded values for inputs: normal numbers; of integers 0 and 1 only.

    What is an integer is often an index, and these two are in range of most.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name, (dtype, shape) in kinds.items():
        if np.issubdtype(np.dtype(dtype), np.floating):
            made[name] = rng.standard_normal(shape).astype(dtype)
        elif dtype == "uint8":  # pictures
            made[name] = rng.integers(0, 256, shape).astype(dtype)
        else:
            made[name] = rng.integers(0, 2, shape).astype(dtype)
    return made


def open_session(
    model: Path | bytes, *, optimised: bool, folder: Path | None = None
) -> Any:
    """Return a session of onnxruntime on one thread.

    Args:
        model: Its file, or its content.
        optimised: With all of its optimisations, or with none.
        folder: Of external data, if a model's content is given.

    Raises:
        UnderstudyError: It cannot be loaded here.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in `actors.sessions`
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = (
        level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    )
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        where = model if isinstance(model, Path) else "model"
        raise UnderstudyError(
            f"{where}: onnxruntime {onnxruntime.__version__} cannot load it "
            f"({first_line(error)}); check it with onnx.checker"
        ) from None


def observed(
    data: bytes, folder: Path, inputs: Mapping[str, Kind], wanted: Iterable[str]
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return dtype and shape of tensors as a run of the model has them.

    Args:
        data: The model; `wanted` are outputs of it.
        folder: Of its external data.
        inputs: All that it takes.
        wanted: Names of tensors. Those whose shape depends on the values of the inputs
            are left out, and all of them if the model cannot run here.
    """
    names = sorted(wanted)
    try:
        session = open_session(data, folder=folder, optimised=False)
        first, second = (run(session, some(inputs, seed), names) for seed in (1, 2))
    except UnderstudyError:
        return {}
    return {
        name: (value.dtype, value.shape)
        for name, value in first.items()
        if isinstance(value, np.ndarray) and value.shape == second[name].shape
    }


def run(
    session: Any, given: Mapping[str, Array], names: Sequence[str] | None = None
) -> dict[str, Array]:
    """Return the outputs `names` of a session, or all of them.

    Args:
        session: Of onnxruntime.
        given: What it takes, and maybe more.
        names: Of outputs.

    Raises:
        UnderstudyError: It does not run on what is given.
    """
    wanted = names or [output.name for output in session.get_outputs()]
    taken = {i.name: given[i.name] for i in session.get_inputs() if i.name in given}
    try:
        return dict(zip(wanted, session.run(list(wanted), taken), strict=True))
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise UnderstudyError(f"onnxruntime: {first_line(error)}") from None
