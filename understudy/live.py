"""What a person sees while a run is under way: a line a second, and what happens."""

import math
import shutil
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataflow.events import LOG, say
from dataflow.vocabulary import failover_text
from understudy.launch import Launcher, Tail
from understudy.run_folder import LAUNCHER

HEADER = "  time  frames    fps    full degraded dropped worst ms  who answered"
STOPPING = "stopping: what is under way is still answered"
TURN_S = 0.05
_INDENT = 8
"""Letters before what a note says."""


@dataclass
class _Second:
    """Outcomes of the second under way."""

    frames: int = 0
    worst_ms: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)


class Live:
    """Follows the logs of a run and prints what they say.

    Args:
        launcher: The run's processes.
        say: Prints one line.
        width: Letters in a line; None: of the terminal, without bound in a pipe.

    Attributes:
        failed: What the devices said that ended by themselves with an error.
        stopped: Whether somebody pressed Ctrl-C.
        expected: Devices and statuses with which they may end: somebody saw to it.
    """

    def __init__(
        self, launcher: Launcher, say: Callable[[str], None], width: int | None = None
    ) -> None:
        self.failed: list[str] = []
        self.stopped = False
        self.expected: set[tuple[str, int]] = set()
        self._launcher = launcher
        self._width = width or terminal_width()
        self._tail = Tail(launcher.run_folder)
        self._say = say
        self._second = _Second()
        self._status: Counter[str] = Counter()
        self._start_s = time.monotonic()
        self._next_s = math.inf

    def begin(self) -> None:
        """Count the time from now on, and print a line a second."""
        self._start_s = time.monotonic()
        self._next_s = self._start_s + 1.0
        self._say(HEADER)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s

    def follow(self, until_s: float, done: Callable[[], bool] | None = None) -> None:
        """Print until `until_s` after the start, or until `done`."""
        while self.elapsed_s < until_s and not (done and done()):
            self.turn()
            time.sleep(TURN_S)
        self.turn()

    def turn(self) -> None:
        """Take in what is new; print when something happened or a second is over."""
        # By time over all files: who reads along should see a cause before its effect.
        news = sorted(self._tail.news(), key=lambda item: item[1].get("t_s", 0.0))
        for file, record in news:
            if file.startswith("results-"):
                self._result(_name_in(file), record)
            elif "event" in record:
                self._event(_name_in(file), record)
        for name, status in self._launcher.exits():
            self._exit(name, status)
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._line(now_s)

    def end(self) -> None:
        """Print the second that is not over."""
        self.turn()
        if self._second.frames and self._next_s < math.inf:
            self._line(time.monotonic())

    def note(self, text: str) -> None:
        """Print something that happened, with its time."""
        text = f"{self.elapsed_s:4.1f} s  {text}"
        for line in textwrap.wrap(
            text, self._width or len(text), subsequent_indent=" " * _INDENT
        ):
            self._say(line)

    def _exit(self, name: str, status: int) -> None:
        if status == -signal.SIGKILL:  # somebody tries what we promise
            self.note(f"{name} was killed with SIGKILL")
        elif (name, status) in self.expected:
            self.note(f"{name} ended with status {status}")
        elif status:
            why = self._launcher.said(name) or "it said nothing"
            self.failed.append(f"device '{name}' ended with status {status}: {why}")
            self.note(self.failed[-1])

    def _result(self, stream: str, record: Mapping[str, Any]) -> None:
        if "status" not in record:
            return
        frames = record["last"] - record["frame"] + 1
        self._second.frames += frames
        self._status[record["status"]] += frames
        took_ms = (record["settled_s"] - record["fired_s"]) * 1e3
        self._second.worst_ms = max(self._second.worst_ms, took_ms)
        self._second.rows[record["row"]] += frames

    def _event(self, device: str, record: Mapping[str, Any]) -> None:
        match record["event"]:
            case "failover":
                self.note(f"{device} {failover_text(record)}")
            case "device.metrics":
                self.note(f"{device}: metrics on {record['url']}")
            case "link.back":
                self.note(
                    f"{device} uses {record['peer']} again, away "
                    f"{record['away_ms'] / 1e3:.1f} s"
                )
            case "plan.ready":
                self.note(f"{device} plays plan {record['plan'][:12]}")
            case "plan.refused":
                self.note(f"{device} stays with its plan: {record['error']}")
            case "link.refused" | "device.failed":
                self.note(f"{device}: {record['error']}")

    def _line(self, now_s: float) -> None:
        second, self._second = self._second, _Second()
        took_s = now_s - self._next_s + 1.0
        figures = (
            f"{self.elapsed_s:4.0f} s{self._status.total():8d}"
            f"{second.frames / took_s:7.1f}{self._status['full']:8d}"
            f"{self._status['degraded']:9d}{self._status['dropped']:8d}"
            f"{second.worst_ms:9.1f}  "
        )
        room = self._width - len(figures) if self._width else None
        self._say(figures + rows_text(second.rows, room))
        self._next_s = now_s + 1.0


class Notes(Live):
    """Prints what happens and nothing else: for a pipe."""

    def begin(self) -> None:
        self._start_s = time.monotonic()


class Told(Notes):
    """Lets the log tell what happens, in the words of the devices."""

    def note(self, text: str) -> None:
        LOG.info("%s", text)

    def _event(self, device: str, record: Mapping[str, Any]) -> None:
        if device != LAUNCHER:  # that is us, and has said it
            say(record, device)


def _name_in(file: str) -> str:
    """Return the device or stream that a file of a run is named after.

    >>> _name_in("events-cam.0-00000000075bcd15.jsonl")
    'cam.0'
    >>> _name_in("events-launcher.jsonl")
    'launcher'
    """
    name = file.removesuffix(".jsonl").partition("-")[2]
    return name if name == LAUNCHER else name.rpartition("-")[0].replace("+", "/")


def rows_text(rows: Counter[str], room: int | None) -> str:
    """Return who answered how often, in `room` letters; None: without bound.

    >>> rows_text(Counter({"edge.1": 25, "edge.0": 20, "exit2": 58}), 30)
    'edge.0 20, edge.1 25, exit2 58'
    >>> rows_text(Counter({"edge.1": 25, "edge.0": 20, "exit2": 58}), 23)
    'exit2 58, 2 more'
    """
    text = _joined(sorted(rows.items()))
    for kept in range(len(rows) - 1, 0, -1):
        if room is None or len(text) <= room:
            return text
        text = f"{_joined(rows.most_common(kept))}, {len(rows) - kept} more"
    return text


def _joined(rows: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{row} {n}" for row, n in rows)


def terminal_width() -> int | None:
    """Return the letters in a line of standard output, None if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
