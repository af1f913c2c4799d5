"""onnxruntime sessions: one per model file and process, shared by its actors.

Several streams run the same segment on one server: they share its weights and its
prepared kernels, and each keeps its own bound memory. `Run` of a session may be called
from several threads at once.
"""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dataflow.errors import UnderstudyError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FATAL = 4  # onnxruntime's log severity: what goes wrong is raised, nothing is printed


@dataclass(slots=True)
class _Shared:
    session: "InferenceSession"
    users: int = 0


@dataclass(slots=True)
class Sessions:
    """The open sessions, by the file they were read from."""

    _open: dict[Path, _Shared] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acquire(self, file: Path) -> "InferenceSession":
        """Return the session of `file`; `release` it once for each call.

        Raises:
            UnderstudyError: No such file, or not a model that onnxruntime can run.
        """
        key = file.resolve()
        with self._lock:
            if key not in self._open:
                self._open[key] = _Shared(_session(key))
            shared = self._open[key]
            shared.users += 1
            return shared.session

    def release(self, file: Path) -> None:
        """Give up one use of the session; the last one closes it."""
        key = file.resolve()
        with self._lock:
            shared = self._open[key]
            shared.users -= 1
            if shared.users == 0:
                del self._open[key]

    def __len__(self) -> int:
        return len(self._open)


SESSIONS = Sessions()
"""Those of this process."""


def _session(file: Path) -> "InferenceSession":
    if not file.is_file():
        raise UnderstudyError(f"{file}: no such model file; compile the plan again")
    # From 1.29 on onnxruntime reports models and their hashes to its maker, on Linux
    # too, unless told otherwise before it is imported. Who wants that can set it to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # One thread: a device runs many actors, and a waiting pool that spins takes the
    # core from the thread that would notice a dead peer.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise UnderstudyError(
            f"{file}: onnxruntime {onnxruntime.__version__} cannot load it "
            f"({first_line(error)}); check the model with onnx.checker"
        ) from None


def first_line(error: Exception) -> str:
    """Return what onnxruntime says went wrong, without its stack of locations."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
