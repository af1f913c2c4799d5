"""Actors that hang, die or dawdle on command: what `understudy chaos` does to a device.

Only `chaos` sets the environment variable that lets a device look at its orders: a few
bytes of a file in the run folder, mapped into the memory of both. Without the variable
nothing here is even imported.
"""

import ctypes
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

from dataflow.behaviour import Behaviour
from dataflow.cast import Library
from understudy.device_process import CHAOS

_FORM = struct.Struct("<Qd")


class Order(IntEnum):
    """What an actor is to do when it fires next."""

    WORK = 0
    HANG = 1
    """Hold the interpreter for a time, once."""
    ABORT = 2
    """Call abort(3), as native code does that finds itself broken; once."""
    DAWDLE = 3
    """Take so much longer, every time."""


class Orders:
    """The orders of one device: written by `chaos`, obeyed by every actor there."""

    def __init__(self, folder: Path, device: str, *, make: bool = False) -> None:
        self._path = folder / f"orders-{device}"
        if make:
            self._path.write_bytes(_FORM.pack(Order.WORK, 0.0))
        with self._path.open("r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _FORM.size)

    def give(self, order: Order, seconds: float = 0.0) -> None:
        self._bytes[:] = _FORM.pack(order, seconds)

    def obey(self) -> None:
        """Do as told, in an actor that is about to fire."""
        if self._bytes[0]:
            order, seconds = _FORM.unpack(self._bytes)
            if order != Order.DAWDLE:
                self.give(Order.WORK)
            _OBEY[Order(order)](seconds)

    def remove(self) -> None:
        self._bytes.close()
        self._path.unlink()


def sabotaged(library: Library, device: str) -> Library:
    """Return `library`, with actors that obey the orders of `device`, if it has any."""
    try:
        orders = Orders(Path(os.environ[CHAOS]), device)
    except OSError:
        return library
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def behaviour(name: str) -> type[Behaviour]:
        actor = library(name)

        def fire(self: Behaviour, *tokens: Any) -> Any:
            orders.obey()
            return actor.fire(self, *tokens)

        return type(actor.__name__, (actor,), {"fire": fire})

    return behaviour


def _hang(seconds: float) -> None:
    # Functions of a PyDLL are called with the interpreter's lock held.
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def _abort(_seconds: float) -> None:
    os.abort()


_OBEY: dict[Order, Callable[[float], None]] = {
    Order.HANG: _hang,
    Order.ABORT: _abort,
    Order.DAWDLE: time.sleep,
}
