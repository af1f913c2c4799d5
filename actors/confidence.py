"""A control actor: is an early answer good enough?"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors import params as read
from dataflow.behaviour import Behaviour, Params, Site, known_params
from dataflow.errors import UnderstudyError
from dataflow.graph import Port

Scores = NDArray[np.float64]
"""float64 [rows, classes]: one row for each answer that the token holds."""


def _softmax(scores: Scores) -> Scores:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float64)


def _largest(probabilities: Scores) -> Scores:
    return np.asarray(probabilities.max(axis=1), np.float64)


def _margin(probabilities: Scores) -> Scores:
    if probabilities.shape[1] < 2:
        return _largest(probabilities)
    two = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0], np.float64)


MEASURES: Mapping[str, Callable[[Scores], Scores]] = {
    "softmax": lambda scores: _largest(_softmax(scores)),
    "margin": lambda scores: _margin(_softmax(scores)),
    "probability": _largest,
}


class Confidence(Behaviour):
    """Names the first mode of its DPG when ``scores`` are sure, else the second.

    Params:
        threshold: From this confidence on an answer is sure: 0 is always, and what is
            above 1 never.
        measure: `softmax` (unless given), the largest softmax of the scores; `margin`,
            by how much it exceeds the second largest; `probability`, the largest score,
            where the network ends in a softmax.

    A token of several rows is sure if every row is. Scores that are not numbers never
    are.

    Source:
        Teerapittayanon, McDanel, Kung, "BranchyNet", ICPR 2016, and "Distributed Deep
        Neural Networks over the Cloud, the Edge and End Devices", ICDCS 2017.
    """

    controller = True

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        known_params(params, required=("threshold",), optional=("measure",))
        if read.number(params, "threshold", 0, above=-1e-9) > 2:
            raise UnderstudyError(
                f"parameter 'threshold': {params['threshold']} is no confidence; give "
                "one from 0, always sure, to 1, or a little more for never"
            )
        read.choice(params, "measure", tuple(MEASURES), "softmax")
        return (Port("scores", "in"),)

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._threshold = float(params["threshold"])
        self._measure = MEASURES[params.get("measure", "softmax")]

    def fire(self, *tokens: Any) -> int:
        scores = np.asarray(tokens[0], np.float64)
        rows = scores.reshape(-1, scores.shape[-1] if scores.ndim else 1)
        with np.errstate(invalid="ignore"):  # infinities give NaN, which is not sure
            sure = self._measure(rows) >= self._threshold
        return 0 if sure.all() else 1
