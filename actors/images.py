"""A camera that shows pictures from an archive or a folder."""

from pathlib import Path
from typing import Any

import numpy as np

from actors import params as read
from actors.pictures import Frames, Labels, load, look
from dataflow.behaviour import Params, Site, Source, StreamEnd, known_params
from dataflow.graph import Port, TokenType


class Images(Source):
    """Shows pictures at a rate: ``frame`` uint8 [H, W, C] and, if known, ``label``.

    Params:
        path: npz archive with `x` uint8 [n, H, W, C] or [n, H, W] and, if the pictures
            have labels, `y` [n]; or a folder of image files, or of one folder of them
            per label.
        rate_hz: Frames per second.
        loop: Start again after the last picture; true unless given.
        frames: End the stream after this many; no end unless given.
        order: `sequential` (unless given) or `shuffled`, the same in every round.
        seed: Of the shuffled order; 0 unless given.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(
            params,
            required=("path", "rate_hz"),
            optional=("loop", "frames", "order", "seed"),
        )
        read.number(params, "rate_hz", 0, above=0)
        read.flag(params, "loop", True)
        read.count(params, "frames")
        read.choice(params, "order", ("sequential", "shuffled"), "sequential")
        read.number(params, "seed", 0, above=-1)
        pictures = look(Path(read.text(params, "path")))
        frame = Port("frame", "out", TokenType("uint8", pictures.shape))
        if not pictures.labelled:
            return (frame,)
        return (frame, Port("label", "out", TokenType("int64", ()), optional=True))

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._frames: Frames | None = None
        self._labels: Labels | None = None
        self._order: list[int] = []
        self._end: float = 0  # firings until the stream ends; may be infinite
        self._fired = 0

    def start(self) -> None:
        pictures = look(Path(self.params["path"]))
        self._frames, self._labels = load(pictures)
        order = np.arange(pictures.count)
        if self.params.get("order") == "shuffled":
            np.random.default_rng(int(self.params.get("seed", 0))).shuffle(order)
        self._order = order.tolist()
        whole = float("inf") if self.params.get("loop", True) else pictures.count
        self._end = min(whole, self.params.get("frames") or whole)

    def fire(self, *tokens: Any) -> Any:
        # Every picture has memory of its own that nobody writes to: no ring is needed.
        if self._fired >= self._end:
            raise StreamEnd
        assert self._frames is not None
        index = self._order[self._fired % len(self._order)]
        self._fired += 1
        if self._labels is None:
            return self._frames[index]
        return self._frames[index], self._labels[index, ...]

    def stop(self) -> None:
        self._frames = self._labels = None
