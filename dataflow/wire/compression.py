"""Lossless compression of the tokens in a message: a property of a TX/RX pair.

It is no actor. An actor makes a token of another type, and a compressed tensor has no
size before it is made, while every token has one: capacities, credit and memory are
counted in it. Compression changes no token: what RX hands on is, byte by byte, what TX
took. So the graph, its analysis and what *full* means are the same with and without;
only the frames of the message differ. The lossy codecs, which do change values, are
actors (`actors.codec`).

A tensor frame as long as its token is the token itself; a shorter one is compressed, as
the header's `codec` says; a longer one does not exist. A tensor that does not shrink
goes as it is, so the token's size bounds what the wire carries, compressed or not, and
credit still bounds memory.

Nothing of a received frame is believed. zstd frames state the size of their content
and of the window that their decoder needs: both are read and compared with the token's
size before anything is allocated. An lz4 block states nothing, and is decoded into room
of the token's size. What does not fill the token exactly is refused.

Source:
    RFC 8878 (zstd), and the LZ4 block format of the lz4 project.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataflow.clock import now_s as clock_s
from dataflow.errors import PeerError
from dataflow.graph import TokenType

ZSTD = "zstd"
AUTO = "auto"
"""zstd for the messages that it makes travel faster, see `wire.codecs`."""
CODES = {"": 0, ZSTD: 1, "lz4": 2, AUTO: 1}
"""Name -> `codec` of the header. 0: every frame is its token."""
COMPRESSIONS = (ZSTD, "lz4")
ZSTD_LEVEL = 1
"""Level 3 takes twice as long and saves 1 to 2 % more of features."""
TRIALS = 5
_WINDOW_MIN = 1024
"""Smallest window that zstd knows, in bytes."""

Frame = Any
"""bytes, or anything with the buffer protocol: a C-contiguous NumPy array."""


class Compression(ABC):
    """One way to make frames shorter, and long again. Not for two threads at once."""

    def run(self, tokens: Sequence[Any]) -> list[Frame]:
        """Return `tokens` as frames: each compressed, or itself if that is no longer.

        It is what an executor runs, as it runs a chain.
        """
        frames: list[Frame] = []
        for token in tokens:
            made = self._compress(token)
            frames.append(made if len(made) < token.nbytes else token)
        return frames

    def run_many(self, tokens: Sequence[Sequence[Any]]) -> list[list[Frame]]:
        """Return the frames of several messages."""
        return [self.run(each) for each in tokens]

    def time_s(self, tokens: Sequence[TokenType]) -> float:
        """Return how long such tokens take at best, in seconds."""
        tried, best_s = trial(tokens), float("inf")
        for _ in range(TRIALS):
            start_s = clock_s()
            self.run(tried)
            best_s = min(best_s, clock_s() - start_s)
        return best_s

    def token(self, frame: Frame, token_bytes: int) -> Frame:
        """Return the `token_bytes` bytes that `frame` stands for.

        Raises:
            PeerError: It stands for fewer, for more, or for nothing.
        """
        if len(frame) == token_bytes:
            return frame
        if len(frame) > token_bytes:
            raise _refused(f"frame of {len(frame)} bytes", token_bytes)
        made = self._restore(frame, token_bytes)
        if len(made) != token_bytes:
            raise _refused(f"content of {len(made)} bytes", token_bytes)
        return made

    @abstractmethod
    def _compress(self, token: Any) -> bytes: ...

    @abstractmethod
    def _restore(self, frame: Frame, token_bytes: int) -> bytes: ...


class Zstd(Compression):
    """Zstandard frames with the size of their content in front."""

    def __init__(self) -> None:
        import zstandard

        self._library = zstandard
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def _compress(self, token: Any) -> bytes:
        return self._compressor.compress(token)

    def _restore(self, frame: Frame, token_bytes: int) -> bytes:
        try:
            told = self._library.get_frame_parameters(frame)
            # First of all: the library allocates whatever content size is stated, and
            # of a frame that is cut short also the window.
            if told.content_size != token_bytes:
                raise _refused(f"content of {told.content_size} bytes", token_bytes)
            if told.window_size > max(token_bytes, _WINDOW_MIN):
                raise _refused(f"window of {told.window_size} bytes", token_bytes)
            return self._decompressor.decompress(frame, allow_extra_data=False)
        except self._library.ZstdError as error:
            raise _refused(str(error), token_bytes) from None


class Lz4(Compression):
    """LZ4 blocks: faster than zstd, and less small."""

    def __init__(self) -> None:
        import lz4.block

        self._library = lz4.block

    def _compress(self, token: Any) -> bytes:
        made: bytes = self._library.compress(token, store_size=False)
        return made

    def _restore(self, frame: Frame, token_bytes: int) -> bytes:
        try:
            # The size is a bound: what would be longer is an error, not allocated.
            made: bytes = self._library.decompress(frame, uncompressed_size=token_bytes)
        except self._library.LZ4BlockError as error:
            raise _refused(str(error), token_bytes) from None
        return made


_CLASSES: dict[str, type[Compression]] = {ZSTD: Zstd, "lz4": Lz4, AUTO: Zstd}


def compression(name: str) -> Compression | None:
    """Return the compression called `name`, one of `CODES`; None for none."""
    return _CLASSES[name]() if name else None


def fits(frame_bytes: int, token_bytes: int, codec: int) -> bool:
    """Tell whether a frame of this length can stand for a token, see above.

    >>> fits(100, 100, 0), fits(60, 100, 0), fits(60, 100, 1), fits(101, 100, 1)
    (True, False, True, False)
    """
    return frame_bytes == token_bytes or (codec != 0 and 0 < frame_bytes < token_bytes)


def all_fit(frame_bytes: Iterable[int], token_bytes: Sequence[int], codec: int) -> bool:
    """Tell whether frames of these lengths can stand for the tokens of a message."""
    lengths = list(frame_bytes)
    return len(lengths) == len(token_bytes) and all(
        fits(frame, token, codec)
        for frame, token in zip(lengths, token_bytes, strict=True)
    )


def trial(tokens: Sequence[TokenType]) -> list[Any]:
    """Return tokens to time a compression on: noise, half of it zeros.

    What a rectifier leaves. Zeros alone would take no time.
    """
    random = np.random.default_rng(0)
    made = []
    for token in tokens:
        noise = np.maximum(random.standard_normal(token.nbytes // 4 + 1), 0)
        data = noise.astype(np.float32).tobytes()[: token.nbytes]
        made.append(np.frombuffer(data, np.uint8))
    return made


def _refused(what: str, token_bytes: int) -> PeerError:
    return PeerError(
        f"compressed token: {what}, for a token of {token_bytes} bytes; refused",
        "compression",
    )
