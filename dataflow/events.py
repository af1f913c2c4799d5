"""The event log of a device: JSON Lines, one vocabulary, bounded."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from dataflow.clock import epoch_s, now_s

EVENTS_MAX = 200_000
"""Lines in one log. Failures are rare; a log this long is itself a failure."""

PER_FRAME = frozenset({"row", "frame.restarted", "frame.refused"})
"""Events that may come with every frame; half the log is theirs, so that they cannot
crowd out the failures."""
GARBAGE_TOLD = 20
"""Malformed messages reported one by one; further ones are only counted."""


class EventLog:
    """Writes events of one device, each at once, so that a SIGKILL loses none.

    A write that fails is counted, never raised: frames go on without a log.
    """

    def __init__(self, run_folder: Path | None, name: str, header: dict[str, Any]):
        self.lost = 0
        self.garbage_seen = 0
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
        most = EVENTS_MAX // 2 if event in PER_FRAME else EVENTS_MAX
        if self._lines >= most:
            self.lost += 1
            return
        self._line(
            {"t_s": fields.pop("t_s", None) or now_s(), "event": event, **fields}
        )

    def garbage(self, error: Exception, **fields: Any) -> None:
        """A peer sent something malformed: note the first few, count them all."""
        self.garbage_seen += 1
        if self.garbage_seen <= GARBAGE_TOLD:
            self.write("link.garbage", **fields, error=str(error))

    def tell(self, text: str) -> None:
        """Say something to the person who started the device."""
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.lost:
            self._line({"t_s": now_s(), "event": "log.lost", "lines": self.lost})
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
