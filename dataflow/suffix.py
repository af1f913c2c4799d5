"""What takes a stream's outcomes: the actors behind the join, up to the sink.

The outcome enters where the answer came from: at the join's port, or, in a mode of the
DPG around the region that does not play it, at the port whose token is the answer. The
other of the two gets nothing in that iteration, as its rate says.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dataflow.engine import Chain
from dataflow.graph import PortRef
from dataflow.outcome import Outcome
from dataflow.parts import StreamPart

Enter = Callable[[Outcome, Sequence[Any], int], Any]
"""From the outcome, the tokens retained and the mode to what enters at a port."""


class Suffix:
    """The suffix of one stream, with its sink.

    Args:
        part: The stream's.
        chain: Made of `part.suffix`.
        made: Ports whose tokens are retained, in order; the source's first.
        source_ports: How many are the source's.
    """

    def __init__(
        self,
        part: StreamPart,
        chain: Chain,
        made: Sequence[PortRef],
        source_ports: int,
    ) -> None:
        self._part = part
        self.chain = chain
        self._made = made
        self._enters = [self._enter(ref) for ref in part.suffix.sources]
        reads = {made.index(ref) for ref in part.suffix.sources if ref in made}
        self._bypass = reads & set(range(source_ports))

    def run(self, outcome: Outcome, made: Sequence[Any], mode: int) -> None:
        """Hand `outcome` to the sink.

        Args:
            outcome: Of the iteration.
            made: Its retained tokens; at least those that `for_sink` keeps.
            mode: Of the DPG around the region, if there is one.
        """
        tokens = []
        for enter in self._enters:
            tokens.append(enter(outcome, made, mode))
        self.chain.run(tokens)

    def for_sink(self, made: Sequence[Any]) -> list[Any]:
        """Return copies of what goes from the source to the sink, None for the rest."""
        return [_copy(t) if i in self._bypass else None for i, t in enumerate(made)]

    def _enter(self, ref: PortRef) -> Enter:
        around = self._part.around
        if ref.actor == self._part.source:
            index = self._made.index(ref)
            return lambda outcome, made, mode: made[index]
        if around is None:
            return lambda outcome, made, mode: outcome
        if self._part.suffix.graph.port(ref).control:
            return lambda outcome, made, mode: mode
        if ref.actor == self._part.region.join:
            outside = around.answers
            return lambda outcome, made, mode: [] if mode in outside else outcome
        plays = {mode for mode, answer in around.answers.items() if answer == ref}
        return lambda outcome, made, mode: outcome if mode in plays else []


def _copy(token: Any) -> Any:
    return [np.copy(t) for t in token] if isinstance(token, list) else np.copy(token)
