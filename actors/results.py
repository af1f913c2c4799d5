"""What a stream answered, as JSON Lines in the run folder.

Each outcome is one `write` to the file, unbuffered: what was handed over survives the
death of the process. A write that fails, or would pass the bound, is counted and the
stream goes on: frames are answered even when the disk is full. The file then says which
outcomes are not in it, before the next one that is.
"""

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors import params as read
from dataflow.behaviour import Params, Sink, Site, known_params
from dataflow.clock import epoch_s
from dataflow.errors import UnderstudyError
from dataflow.graph import Port, TokenType
from dataflow.outcome import Outcome

_log = logging.getLogger(__name__)

RESULTS_VERSION = 1
VALUES_LIMIT = 64
"""Elements of an answer up to which its values are written unless told otherwise."""
DEFAULT_LIMIT_MB = 1024.0
FILLED_IN = ("deployment", "graph", "rows", "codec")
_END_BYTES = 256
"""Kept free below the bound for the last lines."""


class Results(Sink):
    """Writes one line per outcome into the run folder.

    Params:
        values: Write the answer's values: true or false; unless given, when it has at
            most 64.
        limit_mb: Bound of the file, in 1,048,576 bytes; 1024 unless given.
        frames: Frames that each answer covers, where one is made of several: so many
            labels come with it. An answer of as many rows has one for each frame; any
            other holds for all of them. 1 unless given.
        deployment, graph, rows, codec: Of the plan, for the first line; filled in when
            it is compiled.

    Attributes:
        unwritten: Outcomes that are not in the file: the disk was full, or the bound
            was reached. Also in the file's last line.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(
            params,
            required=(),
            optional=(
                "values",
                "limit_mb",
                "frames",
                "deployment",
                "graph",
                "rows",
                "codec",
            ),
        )
        frames = read.count(params, "frames") or 1
        if "values" in params:
            read.flag(params, "values", True)
        read.number(params, "limit_mb", DEFAULT_LIMIT_MB, above=0)
        return (
            Port("answer", "in"),
            Port("label", "in", TokenType("int64", ()), (frames,), optional=True),
        )

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self.unwritten = 0
        self._limit_bytes = params.get("limit_mb", DEFAULT_LIMIT_MB) * 1024 * 1024
        self._values: bool | None = params.get("values")
        self._path = _path(site)
        self._file = -1
        self._size_bytes = 0
        self._missing: dict[str, int] = {}
        """The frames since the last line of which none could be written."""

    def start(self) -> None:
        if self._path is None:
            return
        # Exclusively: a stream's incarnation has one life, and so has its file. Append,
        # so that a write goes to the end also after a torn one was cut off.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise UnderstudyError(
                f"{self._path}: cannot be created ({error.strerror}); results need a "
                "run folder of their own that can be written to"
            ) from None

    def fire(self, *tokens: Any) -> None:
        if self._path is None:
            return
        outcome, label = tokens if len(tokens) == 2 else (tokens[0], None)
        line = self._gap_line() + self._line(outcome, label)
        if self._size_bytes == 0:
            line = self._first_line(labels=label is not None) + line
        if self._size_bytes + len(line) + _END_BYTES > self._limit_bytes:
            why = f"has reached its bound of {self._limit_bytes:.0f} bytes"
            self._count(outcome, why)
            return
        try:
            self._write(line)
        except OSError as error:
            self._count(outcome, f"cannot be written ({error.strerror})")

    def may_become(self, params: Params) -> bool:
        return _ours(params) == _ours(self.params)

    def become(self, params: Params, first: int) -> None:
        """Note who may answer from now on."""
        self.params = params
        if self._path is None or self._size_bytes == 0:
            return  # the first line is still to come, and says it
        line = self._gap_line() + _json({"switched": first, **self._plan()})
        try:
            self._write(line)
        except OSError as error:
            _log.error("%s: lacks the line of a switch (%s)", self._path, error)

    def end(self, last: int) -> None:
        if self._path is None:
            return
        ended = {"ended": last}
        if self.unwritten:
            ended["unwritten"] = self.unwritten
        line = self._gap_line() + _json(ended)
        if self._size_bytes == 0:
            line = self._first_line(labels=False) + line
        try:
            self._write(line)
        except OSError as error:
            _log.error("%s: ends without its last line (%s)", self._path, error)

    def stop(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _line(self, outcome: Outcome, label: Any) -> bytes:
        frames = outcome.last - outcome.first + 1
        answer, values = self._answer(outcome.value)
        return _json(
            {
                "frame": outcome.first,
                "last": outcome.last,
                "status": outcome.status,
                "row": outcome.row,
                "reason": outcome.reason,
                "fired_s": outcome.fired_s,
                "settled_s": outcome.settled_s,
                "attempts": outcome.attempts,
                "answer": answer,
                "label": _labels(label, frames),
                "value": values,
            }
        )

    def _answer(
        self, value: NDArray[np.generic] | None
    ) -> tuple[int | list[int | None] | None, list[Any] | None]:
        """Return the class that `value` names, if it does, and its elements.

        A value of a row for each of several frames names several classes.
        """
        if value is None:
            return None, None
        answer: int | list[int | None] | None = None
        if value.ndim <= 2 and value.dtype.kind == "f" and value.size:
            rows = self.params.get("frames", 1)
            if rows > 1 and value.ndim == 2 and len(value) == rows:
                answer = [_class(row) for row in value]
            else:
                answer = _class(value)
        wanted = value.size <= VALUES_LIMIT if self._values is None else self._values
        if not wanted:
            return answer, None
        numbers = value.view(np.uint8) if value.dtype.kind == "b" else value
        return answer, numbers.ravel().tolist()

    def _first_line(self, *, labels: bool) -> bytes:
        return _json(
            {
                "understudy": RESULTS_VERSION,
                "results": {
                    "stream": self.site.stream,
                    "incarnation": f"{self.site.incarnation:016x}",
                    "device": self.site.device,
                    **self._plan(),
                    # Wall clock minus monotonic: turns the times below into dates.
                    "epoch_s": epoch_s(),
                    "labels": labels,
                },
            }
        )

    def _plan(self) -> dict[str, Any]:
        """Return what the plan filled in."""
        return {
            "deployment": self.params.get("deployment", ""),
            "graph": self.params.get("graph", ""),
            "rows": list(self.params.get("rows", ())),
            "codec": self.params.get("codec", "none"),
        }

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written == len(line):
            self._size_bytes += written
            self._missing = {}
            return
        os.ftruncate(self._file, self._size_bytes)  # a line is whole or not there
        raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes fitted")

    def _gap_line(self) -> bytes:
        return _json({"unwritten": self._missing}) if self._missing else b""

    def _count(self, outcome: Outcome, what: str) -> None:
        self.unwritten += 1
        missing = self._missing or {"first": outcome.first}
        missing["last"] = outcome.last
        missing[outcome.status] = missing.get(outcome.status, 0) + 1
        self._missing = missing
        if self.unwritten == 1:
            _log.error(
                "%s: %s; frames are answered on, those not written are counted",
                self._path,
                what,
            )


def _path(site: Site) -> Path | None:
    if site.run_folder is None:
        return None
    stream = site.stream.replace("/", "+")
    return site.run_folder / f"results-{stream}-{site.incarnation:016x}.jsonl"


def _ours(params: Params) -> dict[str, Any]:
    """Return what the user gave, without what the plan filled in."""
    return {name: value for name, value in params.items() if name not in FILLED_IN}


def _json(data: Mapping[str, Any]) -> bytes:
    """Return `data` as a line. NaN and infinities are written as Python reads them."""
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _class(scores: NDArray[np.generic]) -> int | None:
    """Return the index of the largest score, if it is a number."""
    best = int(scores.argmax())
    return None if math.isnan(scores.item(best)) else best


def _labels(label: Any, frames: int) -> int | list[int] | None:
    if isinstance(label, list):
        # An iteration that its stream's end cut short has fewer frames.
        return [int(each) for each in label[:frames]]
    return None if label is None else int(label)
