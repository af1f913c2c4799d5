"""The event log of a device: JSON Lines, one vocabulary, bounded.

What a person should know is also said through `logging`, to whoever set that up: the
logger is called `understudy`, and its records carry the event as `event`.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow.clock import epoch_s, now_s
from dataflow.errors import PeerError
from dataflow.vocabulary import EVENTS

EVENTS_MAX = 200_000
"""Lines in one log. Failures are rare; a log this long is itself a failure."""

GARBAGE_TOLD = 20
"""Malformed messages reported one by one; further ones are only counted."""

LOG = logging.getLogger("understudy")
LOG.addHandler(logging.NullHandler())


class EventLog:
    """Writes events of one device, each at once, so that a SIGKILL loses none.

    A write that fails is counted, never raised: frames go on without a log.
    """

    def __init__(self, run_folder: Path | None, name: str, header: dict[str, Any]):
        self.lost = 0
        self.rejected: Counter[str] = Counter()
        """Messages of peers that were thrown away, by reason."""
        self._told = 0
        self._lines = 0
        self._fd: int | None = None
        if run_folder is not None:
            self._fd = os.open(
                run_folder / f"events-{name}.jsonl",
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
                0o644,
            )
        self._line({"understudy": 1, "events": {**header, "epoch_s": epoch_s()}})

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time now, or with `t_s` where it was taken."""
        kind = EVENTS.get(event)
        frequent = kind is not None and kind.frequent
        most = EVENTS_MAX // 2 if frequent else EVENTS_MAX
        if self._lines >= most:
            self.lost += 1
            return
        record = {"t_s": fields.pop("t_s", None) or now_s(), "event": event, **fields}
        self._line(record)
        say(record)

    def reject(self, error: PeerError, peer: str = "") -> None:
        """A peer sent something malformed: note the first few, count them all."""
        self.rejected[error.reason] += 1
        if self._told < GARBAGE_TOLD:
            self._told += 1
            self.write("link.garbage", peer=peer, reason=error.reason, error=str(error))

    def close(self) -> None:
        if self.lost:
            record = {"t_s": now_s(), "event": "log.lost", "lines": self.lost}
            self._line(record)
            say(record)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _line(self, value: dict[str, Any]) -> None:
        self._lines += 1
        if self._fd is None:
            return
        data = (json.dumps(value) + "\n").encode()
        try:
            written = os.write(self._fd, data)
            if written < len(data):  # a full disk: half a line must not stay
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
                self.lost += 1
        except OSError:
            self.lost += 1


def say(record: Mapping[str, Any], device: str = "") -> None:
    """Let the log say an event.

    Args:
        record: As it was written.
        device: Who wrote it, if not the device that the log is of.
    """
    kind = EVENTS.get(record["event"])
    if kind is not None and LOG.isEnabledFor(kind.level):
        extra = {"event": record, "device": device}
        LOG.log(kind.level, "%s", kind.says(record), extra=extra)
