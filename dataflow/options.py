"""How one device is run."""

from dataclasses import dataclass
from pathlib import Path

from dataflow.switching import Reread


@dataclass(frozen=True, slots=True)
class Options:
    """How one device is run.

    Attributes:
        run_folder: Where results and events are written; None: nowhere.
        insecure: Listen beyond loopback without keys.
        seconds: End the sources after this long; None: when they end themselves.
        stdin: End when standard input does: with the process that started us.
        metrics: Where its metrics are served, if they are: said in the log.
        reread: Reads the plans again when SIGHUP tells that there may be others; None:
            SIGHUP ends the device, as it ends any process.
    """

    run_folder: Path | None = None
    insecure: bool = False
    seconds: float | None = None
    stdin: bool = False
    metrics: str = ""
    reread: Reread | None = None
