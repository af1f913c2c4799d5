"""Signals that a device gets, handed to its I/O loop in their turn."""

import os
import signal
import threading
from collections import deque
from types import FrameType
from typing import Any

from dataflow.errors import UnderstudyError

STOPPING = (signal.SIGINT, signal.SIGTERM)
HANG_UP = "SIGHUP"
"""Tells that there may be another plan, as it tells other servers of other settings."""


class Signals:
    """Catches signals while it is entered, in the main thread only.

    Args:
        device: Its name, for messages.
        wake_fd: An eventfd that wakes the I/O loop.
        hang_up: Catch SIGHUP too. Where our terminal is gone, it still ends us.
    """

    def __init__(self, device: str, wake_fd: int, *, hang_up: bool = False) -> None:
        self._device = device
        self._wake_fd = wake_fd
        self._caught = (*STOPPING, signal.SIGHUP) if hang_up else STOPPING
        self._terminal = os.isatty(0)
        self._previous: dict[int, Any] = {}
        self._stops = 0
        self._came: deque[str] = deque()

    def catch(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._caught:
                self._previous[number] = signal.signal(number, self._on_signal)

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def take(self) -> str:
        """Return the name of a signal that came, and forget it; empty: none did."""
        return self._came.popleft() if self._came else ""

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        told = number == signal.SIGHUP and not (self._terminal and not os.isatty(0))
        self._stops += not told
        if self._stops > 1:
            raise UnderstudyError(
                f"device '{self._device}': stopped twice; what was under way is dropped"
            )
        self._came.append(HANG_UP if told else signal.Signals(number).name)
        os.eventfd_write(self._wake_fd, 1)
