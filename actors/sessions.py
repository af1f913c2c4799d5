"""onnxruntime sessions: one a process for a model file, shared by its actors.

Several streams run the same segment on one server: they share its weights and its
prepared kernels, and each keeps its own bound memory. `Run` of a session may be called
from several threads at once.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dataflow.errors import UnderstudyError, nearest

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FATAL = 4  # onnxruntime's log severity: what goes wrong is raised, nothing is printed


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session computes."""

    threads: int = 1
    """One: a device runs many actors, and each session has a pool of its own."""
    providers: tuple[str, ...] = ()
    """Names of execution providers, by preference; none: the processor."""


ON_THE_PROCESSOR = Settings()


@dataclass(slots=True)
class _Shared:
    session: "InferenceSession"
    users: int = 0


@dataclass(slots=True)
class Sessions:
    """The open sessions, by the file they were read from and how they compute."""

    _open: dict[tuple[Path, Settings], _Shared] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acquire(
        self, file: Path, settings: Settings = ON_THE_PROCESSOR
    ) -> "InferenceSession":
        """Return the session of `file`; `release` it once for each call.

        Raises:
            UnderstudyError: No such file, or not a model that onnxruntime can run, or
                not so.
        """
        key = (file.resolve(), settings)
        with self._lock:
            if key not in self._open:
                self._open[key] = _Shared(open_session(*key))
            shared = self._open[key]
            shared.users += 1
            return shared.session

    def release(self, file: Path, settings: Settings = ON_THE_PROCESSOR) -> None:
        """Give up one use of the session; the last one closes it."""
        key = (file.resolve(), settings)
        with self._lock:
            shared = self._open[key]
            shared.users -= 1
            if shared.users == 0:
                del self._open[key]

    def __len__(self) -> int:
        return len(self._open)


SESSIONS = Sessions()
"""Those of this process."""


def open_session(
    file: Path, settings: Settings, record: Path | None = None
) -> "InferenceSession":
    """Return a session of the model in `file`.

    Args:
        file: What it runs.
        settings: How.
        record: Beginning of the name of the file that `end_profiling` writes, with the
            times of all nodes; None: they are not taken.

    Raises:
        UnderstudyError: As `Sessions.acquire` does.
    """
    if not file.is_file():
        raise UnderstudyError(f"{file}: no such model file; compile the plan again")
    onnxruntime = _onnxruntime()
    providers = _present(settings.providers)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # A waiting pool that spins takes the core from the thread that would notice a dead
    # peer.
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if record is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(record)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise UnderstudyError(
            f"{file}: onnxruntime {onnxruntime.__version__} cannot load it "
            f"({first_line(error)}); check the model with onnx.checker"
        ) from None
    # Where a provider's own libraries are missing, onnxruntime goes on without it.
    if missing := [name for name in providers if name not in session.get_providers()]:
        raise UnderstudyError(
            f"provider '{missing[0]}': known to onnxruntime {onnxruntime.__version__}, "
            "but it does not start here; install what it needs, or leave it out of "
            "'providers'"
        )
    return session


def check_providers(providers: Sequence[str]) -> None:
    """Check that this machine has all of `providers`.

    Raises:
        UnderstudyError: One is not there; says which are.
    """
    _present(providers)


def _present(providers: Sequence[str]) -> list[str]:
    """Return what to give to onnxruntime, which only warns of what it has not."""
    onnxruntime = _onnxruntime()
    present = onnxruntime.get_available_providers()
    for name in providers:
        if name not in present:
            raise UnderstudyError(
                f"provider '{name}': not in onnxruntime {onnxruntime.__version__} of "
                f"this machine{nearest(name, present)}; it has {', '.join(present)}; "
                "install the onnxruntime that has it, or leave it out of 'providers'"
            )
    return [*providers] or ["CPUExecutionProvider"]


def _onnxruntime() -> ModuleType:
    # From 1.29 on onnxruntime reports models and their hashes to its maker, on Linux
    # too, unless told otherwise before it is imported. Who wants that can set it to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime  # type: ignore[no-any-return]


def first_line(error: Exception) -> str:
    """Return what onnxruntime says went wrong, without its stack of locations."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
