"""The mutation engine: makes hostile messages of good ones.

A message that is random all through is refused at its first byte, so most of what is
sent is nearly right: the right kind with one wrong field, the right fields of another
session, sizes one off, good bytes with a few flipped.
"""

import random
from typing import Any

import msgpack

from dataflow.wire.control import CONTROL_MAGIC
from dataflow.wire.header import VERSION, Header

NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1, 2**32)
NUMBERS += (2**63 - 1, 2**63, 2**64 - 1)
ODDITIES: tuple[Any, ...] = (
    None, True, False, -1, 1.5, float("nan"), float("inf"), "", "x" * 201, "x" * 60_000,
    "\x1b[2J", "\0", "cam.0", b"", b"cam.0", [], [[]], [None] * 300, {}, {"a": 1},
    {0: 0}, [{}] * 3, 2**63, 2**64 - 1, -(2**63), "9" * 50, [[[[[[[[]]]]]]]],
)  # fmt: skip
FIELD_BITS = {
    "flags": 8, "attempt": 8, "row": 8, "codec": 8, "tensors": 16, "stream": 32,
    "session": 32, "incarnation": 64, "segment": 64, "frame": 64, "ordinal": 64,
    "limit": 64, "budget_us": 32, "queue_us": 32, "compute_us": 32, "payload_bytes": 32,
}  # fmt: skip


class Mutator:
    """Changes messages; what it makes follows from the seed alone."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def some(self, chance: float) -> bool:
        return self.random.random() < chance

    def number(self, bits: int) -> int:
        """Return a number of so many bits: one that programs stumble over, or any."""
        if self.some(0.7):
            return self.random.choice(NUMBERS) % (1 << bits)
        return self.random.getrandbits(bits)

    def header(self, header: Header, chance: float) -> Header:
        """Change each field with `chance`."""
        changed = {
            name: self.number(bits)
            for name, bits in FIELD_BITS.items()
            if self.some(chance)
        }
        return header._replace(**changed) if changed else header

    def body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Change, leave out or add a field of a control message, at any depth."""
        changed = dict(body)
        key = self.random.choice(list(changed))
        match self.random.randrange(5):
            case 0:
                del changed[key]
            case 1:
                changed[self.random.choice(("", "extra", 7))] = self.oddity()
            case 2 if isinstance(changed[key], list | tuple) and changed[key]:
                items = list(changed[key])
                index = self.random.randrange(len(items))
                inner = items[index]
                items[index] = (
                    self.body(inner) if isinstance(inner, dict) else self.oddity()
                )
                changed[key] = items * self.random.choice((1, 1, 2, 300))
            case 3 if type(changed[key]) is int:
                changed[key] = self.number(64)
            case _:
                changed[key] = self.oddity()
        return changed

    def oddity(self) -> Any:
        return self.random.choice(ODDITIES)

    def packed(self, body: dict[str, Any]) -> bytes:
        return CONTROL_MAGIC + bytes([VERSION]) + msgpack.packb(body)

    def data(self, data: bytes) -> bytes:
        """Flip, cut, double, insert, overwrite: once or a few times."""
        made = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 4, 8))):
            at = self.random.randrange(len(made) + 1)
            length = self.random.choice((1, 1, 2, 4, 8, 64))
            match self.random.randrange(6):
                case 0 if at < len(made):
                    made[at] ^= 1 << self.random.randrange(8)
                case 1:
                    del made[at : at + length]
                case 2:
                    made[at:at] = made[at : at + length]
                case 3:
                    made[at:at] = self.random.randbytes(length)
                case 4:
                    size = self.random.choice((1, 2, 4, 8))
                    number = self.number(8 * size)
                    made[at : at + size] = number.to_bytes(size, "little")
                case _:
                    del made[at:]
        return bytes(made)
