"""A source of any tensors, from an archive: a stand-in for sensors of any kind."""

import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from actors import params as read
from dataflow.behaviour import Params, Site, Source, StreamEnd, known_params
from dataflow.errors import UnderstudyError
from dataflow.graph import Port, TokenType


class Arrays(Source):
    """Shows the rows of arrays at a rate, over and over: a port for each array.

    Params:
        path: npz archive of arrays [n, …]; a port is called as its array is, and gives
            row after row.
        rate_hz: Firings per second.
        frames: End the stream after this many; no end unless given.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("path", "rate_hz"), optional=("frames",))
        read.number(params, "rate_hz", 0, above=0)
        read.count(params, "frames")
        arrays = _load(Path(read.text(params, "path")))
        return tuple(
            Port(name, "out", TokenType(str(array.dtype), array.shape[1:]))
            for name, array in arrays.items()
        )

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._rows: list[Any] = []
        self._fired = 0

    def start(self) -> None:
        arrays = _load(Path(self.params["path"]))
        count = len(next(iter(arrays.values())))
        rows = [tuple(a[i, ...] for a in arrays.values()) for i in range(count)]
        self._rows = [row if len(row) > 1 else row[0] for row in rows]

    def fire(self, *tokens: Any) -> Any:
        # Every row has memory of its own that nobody writes to: no ring is needed.
        if self._fired >= self.params.get("frames", float("inf")):
            raise StreamEnd
        row = self._rows[self._fired % len(self._rows)]
        self._fired += 1
        return row

    def stop(self) -> None:
        self._rows = []


def _load(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.ascontiguousarray(archive[name]) for name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnderstudyError(
            f"{path}: cannot be read ({error}); save arrays as np.savez(path, name=...)"
        ) from None
    counts = [array.shape[0] if array.ndim else 0 for array in arrays.values()]
    if not counts or 0 in counts or any(a != b for a, b in pairwise(counts)):
        sizes = ", ".join(f"{n} {list(a.shape)}" for n, a in arrays.items())
        raise UnderstudyError(
            f"{path}: holds {sizes or 'nothing'}; each array must have as many rows as "
            "the others, a row a frame"
        )
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
