"""Pixels to what a network takes."""

from itertools import cycle
from typing import Any

import numpy as np

import native
from actors import params as read
from actors.ring import ring
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.errors import UnderstudyError
from dataflow.graph import Port, TokenType


class Normalise(Behaviour):
    """Makes ``image`` float32 [1, C, H, W] of ``pixels`` uint8 [H, W, C].

    ``image = pixels * scale + offset``, channel by channel.

    Params:
        shape: [H, W, C] of the pixels.
        scale: A number, or one per channel.
        offset: The same; 0 unless given.
    """

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("shape", "scale"), optional=("offset",))
        shape = read.shape(params["shape"], "shape")
        if len(shape) != 3:
            raise UnderstudyError(
                f"parameter 'shape': {list(shape)} has {len(shape)} numbers; "
                "write height, width and channels, as [96, 96, 3]"
            )
        height, width, channels = shape
        read.per_channel(params, "scale", channels, 1)
        read.per_channel(params, "offset", channels, 0)
        return (
            Port("pixels", "in", TokenType("uint8", shape)),
            Port("image", "out", TokenType("float32", (1, channels, height, width))),
        )

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        pixels, image = (port.token for port in self.ports(params))
        assert pixels is not None
        assert image is not None
        channels = pixels.shape[-1]
        self._scale = np.array(
            read.per_channel(params, "scale", channels, 1), np.float32
        )
        self._offset = np.array(
            read.per_channel(params, "offset", channels, 0), np.float32
        )
        self._ring = cycle([(out, out[0]) for out in ring(image, site.slots)])

    def fire(self, *tokens: Any) -> Any:
        image, planes = next(self._ring)
        native.normalise(tokens[0], self._scale, self._offset, planes)
        return image
