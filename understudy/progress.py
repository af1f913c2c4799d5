"""One line on a terminal that says what is being done; nothing in a pipe."""

import sys
from typing import Self

_ERASE_LINE = "\r\x1b[K"


class Progress:
    """The line; it is erased at the end, so that only results stay."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._write("")

    def tell(self, text: str) -> None:
        self._write(f"{text} …")

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"{_ERASE_LINE}{text}")
            sys.stderr.flush()
