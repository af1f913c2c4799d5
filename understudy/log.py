"""Log lines: for a person to read, or as JSON for what collects logs.

Only formatters: what is said, and when, is `dataflow.events` and its vocabulary.
"""

import json
import logging
import math
import sys
import time
from typing import Any, Literal, TextIO

from dataflow.clock import epoch_s
from dataflow.events import LOG

Style = Literal["text", "json"]


def speak(style: Style, device: str, stream: TextIO | None = None) -> None:
    """Let the log of this process speak from now on.

    Args:
        style: Sentences with a time, or one JSON object a line.
        device: Who speaks, where a record does not say.
        stream: Where to; standard error by default.
    """
    # A log that cannot be written must not end in a traceback, nor in anything else.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(device) if style == "json" else Lines(device))
    LOG.handlers = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def tell(text: str) -> None:
    """Say something that is no event."""
    LOG.info("%s", text)


def complain(text: str) -> bool:
    """Say what went wrong in the log, if it speaks JSON; tell whether it does."""
    spoken = any(isinstance(h.formatter, JsonLines) for h in LOG.handlers)
    if spoken:
        LOG.error("%s", text)
    return spoken


class Lines(logging.Formatter):
    """``12:03:04.123 edge.0: ready after 23 ms``."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def format(self, record: logging.LogRecord) -> str:
        device = getattr(record, "device", "") or self._device
        clock = time.strftime("%H:%M:%S", time.localtime(_epoch_s(record)))
        thousandths = int(_epoch_s(record) * 1e3) % 1000
        return f"{clock}.{thousandths:03} {device}: {record.getMessage()}"


class JsonLines(logging.Formatter):
    """The same as an object: time, level, device, message, and the event's fields."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def format(self, record: logging.LogRecord) -> str:
        at_s = _epoch_s(record)
        seconds, ms = divmod(math.floor(at_s * 1e3), 1000)
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        event: dict[str, Any] = getattr(record, "event", {})
        line = {
            "time": f"{whole}.{ms:03}Z",
            "level": record.levelname.lower(),
            "device": getattr(record, "device", "") or self._device,
            "message": record.getMessage(),
            **event,
        }
        return json.dumps(line, ensure_ascii=False)


def _epoch_s(record: logging.LogRecord) -> float:
    """Return when it happened: an event may be told a little after."""
    event = getattr(record, "event", None)
    return record.created if event is None else float(event["t_s"]) + epoch_s()
