"""Dynamic actors that move tokens and change none: copy, switch, select.

A switch and a select are the boundaries of a DPG: the mode says to which outputs a
token goes, and from which input the next one comes. Expansion puts them where a graph
needs them; in a graph file they have explicit ports.

Source:
    Buck, "Scheduling Dynamic Dataflow Graphs with Bounded Memory Using the Token Flow
    Model", PhD thesis, 1993: the SWITCH and SELECT actors.
"""

from collections.abc import Sequence
from typing import Any

from dataflow.behaviour import Behaviour, Params, Site
from dataflow.errors import UnderstudyError
from dataflow.graph import Port


class _Routing(Behaviour):
    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        raise UnderstudyError(
            "parameter 'ports': missing; write out its ports, their rates and tokens"
        )


class Copy(_Routing):
    """Gives what it takes to each of its outputs.

    A port has one FIFO, so tokens with several readers need it.
    """

    told_rates = True

    def fire(self, *tokens: Any, rates: Sequence[int] = ()) -> Any:
        given = (tokens[0],) * len(rates)
        return given if len(given) > 1 else tokens[0]


class Switch(_Routing):
    """Gives what it takes to those of its outputs that have a rate now.

    Params:
        gives: For each data output, the index of the data input whose tokens it gives.
    """

    told_rates = True

    def __init__(self, params: Params, site: Site) -> None:
        super().__init__(params, site)
        self._gives: Sequence[int] = params["gives"]

    def fire(self, *tokens: Any, rates: Sequence[int] = ()) -> Any:
        routes = zip(self._gives, rates, strict=True)
        given = tuple(tokens[i] if rate else [] for i, rate in routes)
        return given if len(given) > 1 else given[0]


class Select(_Routing):
    """Gives on what it takes at the one input that has a rate now."""

    def fire(self, *tokens: Any) -> Any:
        return next(t for t in tokens if not (isinstance(t, list) and not t))
