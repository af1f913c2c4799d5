"""An actor of your own: a class with ports and a `fire`."""

from itertools import cycle

import numpy as np

from dataflow.behaviour import Behaviour, known_params
from dataflow.errors import UnderstudyError
from dataflow.graph import Port, TokenType


class Contrast(Behaviour):
    """Stretches an image float32 [1, C, H, W] so that its values fill 0 to 1.

    Params:
        shape: [1, C, H, W] of the image.
        floor: Range below which an image is left as it is; 0.05 unless given.
    """

    @classmethod
    def ports(cls, params):
        known_params(params, required=("shape",), optional=("floor",))
        floor = params.get("floor", 0.05)
        if not isinstance(floor, (int, float)) or floor <= 0:
            raise UnderstudyError(
                f"parameter 'floor': {floor!r} is not above 0; write one such as 0.05"
            )
        image = TokenType("float32", tuple(params["shape"]))
        return (Port("image", "in", image), Port("stretched", "out", image))

    def __init__(self, params, site):
        super().__init__(params, site)
        self.floor = params.get("floor", 0.05)
        # Outputs are read after we have fired again, so a ring of them is kept. An
        # actor that returns a new array each time needs none of this.
        self.ring = cycle(
            [np.empty(params["shape"], np.float32) for _ in range(site.slots)]
        )

    def fire(self, image):
        out = next(self.ring)
        low, high = float(image.min()), float(image.max())
        if high - low < self.floor:
            out[:] = image
        else:
            np.subtract(image, low, out=out)
            out /= high - low
        return out
