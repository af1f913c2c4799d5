"""Actors without a neural network, for plans made by hand."""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour, Params, Source, StreamEnd
from dataflow.graph import CONTROL_TOKEN, Port, TokenType

PICTURE = TokenType("uint8", (8, 8, 1))

Vector = NDArray[np.float32]


def _token(params: Params) -> TokenType:
    return TokenType("float32", (int(params.get("size", 4)),))


class Counter(Source):
    """Emits vectors filled with the frame number."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (Port("out", "out", _token(params)),)

    def start(self) -> None:
        self._next = 0

    def fire(self) -> Vector:
        if self._next >= self.params.get("frames", float("inf")):
            raise StreamEnd
        self._next += 1
        return np.full(self.params.get("size", 4), self._next - 1, np.float32)


class RingCounter(Counter):
    """Keeps its tokens in a ring of `site.slots`, as the interface allows."""

    def start(self) -> None:
        super().start()
        self._ring = np.zeros((self.site.slots, self.params["size"]), np.float32)

    def fire(self) -> Vector:
        token = super().fire()
        kept: Vector = self._ring[int(token[0]) % len(self._ring)]
        kept[:] = token
        return kept


class RingAdd(Behaviour):
    """Adds one into a ring of `site.slots`."""

    ports = classmethod(lambda cls, params: Add.ports(params))

    def start(self) -> None:
        self._ring = np.zeros((self.site.slots, self.params["size"]), np.float32)
        self._fired = 0

    def fire(self, token: Vector) -> Vector:
        time.sleep(self.params.get("take_s", 0))
        made: Vector = self._ring[self._fired % len(self._ring)]
        self._fired += 1
        np.add(token, np.float32(1), out=made)
        return made


class Add(Behaviour):
    """Adds a constant; can be slow, large, hang, fail or die at a frame, as needed."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (Port("in", "in", _token(params)), Port("out", "out", _token(params)))

    def start(self) -> None:
        self._held = np.ones(self.params.get("resident_mb", 0) << 20, np.uint8)

    def fire(self, token: Vector) -> Any:
        number, told = token[0], self.params
        if number == told.get("raise_at", -1) or number >= told.get("raise_from", 1e9):
            raise ValueError("told to")
        if token[0] == self.params.get("die_at", -1):
            os._exit(3)
        if token[0] == self.params.get("hang_at", -1):
            _hold_the_interpreter()
        if self.params.get("take_s"):
            time.sleep(self.params["take_s"])
        return token + np.float32(self.params.get("add", 1.0))


class Twice(Behaviour):
    """Gives each token to two."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        token = _token(params)
        names = ("left", "right")
        return (Port("in", "in", token), *(Port(n, "out", token) for n in names))

    def fire(self, token: Vector) -> tuple[Vector, Vector]:
        return token, token


class AddTogether(Add):
    """Adds one to the first number; answers in the second how many fired as one.

    A call takes `take_s`, however many tokens it is for.
    """

    def fire(self, token: Vector) -> Any:
        return self.fire_many([(token,)])[0]

    def fire_many(self, firings: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        time.sleep(self.params.get("take_s", 0))
        answers = [token + np.float32(1) for (token,) in firings]
        for answer in answers:
            answer[1] = len(firings)
        return answers


def _hold_the_interpreter() -> None:
    """Run a regular expression that never ends and never lets another thread run."""
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")


class ChoosePace(Behaviour):
    """Names one of three modes, by the first of four pictures."""

    controller = True

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (
            Port("frame", "in", PICTURE, (4,)),
            *(
                Port(f"to_{name}", "out", CONTROL_TOKEN, control=True)
                for name in ("pick", "best")
            ),
        )

    def fire(self, frames: list[Any]) -> int:
        return int(frames[0].sum()) % 3


class Brightest(Behaviour):
    """Gives on the brightest of one, two or four pictures."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return (
            Port("frame", "in", PICTURE, (1, 2, 4)),
            Port("mode", "in", CONTROL_TOKEN, control=True),
            Port("best", "out", PICTURE),
        )

    def fire(self, frames: Any) -> Any:
        several = frames if isinstance(frames, list) else [frames]
        return max(several, key=lambda frame: int(frame.sum()))
