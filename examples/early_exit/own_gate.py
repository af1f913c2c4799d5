"""A gate of your own: how uncertain is the early answer, in bits?"""

import numpy as np

from dataflow.behaviour import Behaviour, known_params
from dataflow.graph import Port


class Entropy(Behaviour):
    controller = True  # what it returns is a mode: 0 is `exit`, 1 is `server`

    @classmethod
    def ports(cls, params):
        known_params(params, required=("bits",), optional=())
        return (Port("scores", "in"),)

    def fire(self, scores):
        p = np.exp(scores - scores.max())
        p /= p.sum()
        entropy = -(p * np.log2(p + 1e-12)).sum()
        return 0 if entropy <= self.params["bits"] else 1
