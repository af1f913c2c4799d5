"""One firing: what an actor takes, gives and must keep to, in one mode."""

from collections.abc import Callable, Sequence
from operator import index
from typing import Any

import numpy as np

from dataflow.graph import Dpg, Port, TokenType
from dataflow.outcome import Outcome


class BrokenPortError(Exception):
    """An actor returned what its ports do not declare. Never leaves the engine."""


class Meter:
    """Counters of an actor, shared by its steps."""

    __slots__ = ("busy_ns", "firings", "skips")

    def __init__(self) -> None:
        self.firings = 0
        self.skips = 0
        self.busy_ns = 0


class Output:
    """A data output port in one mode."""

    __slots__ = ("dtype", "port", "put", "rate", "shape")

    def __init__(self, port: Port, put: Callable[[Any], None], rate: int) -> None:
        self.port = port
        self.put = put
        self.rate = rate
        self.dtype = np.dtype(port.token.dtype) if port.token else None
        self.shape = port.token.shape if port.token else None

    def put_all(self, value: Any) -> None:
        """Put what a firing returned for this port: a token, or a list of them."""
        if self.rate == 1:
            self.check(value)
            self.put(value)
            return
        if not isinstance(value, list) or len(value) != self.rate:
            got = f"{len(value)} tokens" if isinstance(value, list) else told(value)
            raise BrokenPortError(
                f"returned {got} on port '{self.port.name}'; its rate is {self.rate}, "
                f"return a list of {self.rate}"
            )
        for token in value:
            self.check(token)
            self.put(token)

    def check(self, token: Any) -> None:
        if not fits(token, self.port.token):
            raise BrokenPortError(
                f"returned {told(token)} on port '{self.port.name}'; "
                f"return {self.port.token}"
            )


class Step:
    """A firing of an actor in one mode.

    Attributes:
        actor: Its name.
        fire: Its behaviour's `fire`.
        fire_many: The same for several firings at once.
        meter: Its counters.
        gets: Takes one token, per connected data input.
        get: The same, where there is one input.
        rates: Tokens per firing, per connected data input.
        outputs: Data outputs in the order of the ports, connected or not.
        controls: Takes a control token, per connected control input.
        dpg: The DPG that it controls.
        tells: Puts the mode on a control output, per connected one.
        outputs_in: A controller's `outputs` in each mode that it may name.
        single: It has one output.
        puts: The same outputs as (put, dtype, shape), which the fast path unpacks.
        off: All its data ports have rate 0: only its control token is taken.
        plain: Every rate is 1 and there is no control: the fast path.
    """

    __slots__ = (
        "actor",
        "controls",
        "dpg",
        "fire",
        "fire_many",
        "get",
        "gets",
        "meter",
        "off",
        "outputs",
        "outputs_in",
        "plain",
        "puts",
        "rates",
        "single",
        "tells",
    )

    def __init__(
        self,
        actor: str,
        fire: Callable[..., Any],
        fire_many: Callable[[Sequence[tuple[Any, ...]]], Sequence[Any]],
        meter: Meter,
        *,
        gets: Sequence[Callable[[], Any]],
        rates: Sequence[int],
        outputs: Sequence[Output],
        controls: Sequence[Callable[[], Any]] = (),
        dpg: Dpg | None = None,
        tells: Sequence[Callable[[Any], None]] = (),
        outputs_in: Sequence[Sequence[Output]] = (),
        dynamic: bool = False,
    ) -> None:
        self.actor = actor
        self.fire = fire
        self.fire_many = fire_many
        self.meter = meter
        self.gets = gets
        self.get = gets[0] if len(gets) == 1 else None
        self.rates = rates
        self.outputs = outputs
        self.controls = controls
        self.dpg = dpg
        self.tells = tells
        self.outputs_in = outputs_in
        moved = {*rates, *(output.rate for output in outputs)}
        self.single = len(outputs) == 1
        self.puts = tuple((out.put, out.dtype, out.shape) for out in outputs)
        self.off = dynamic and dpg is None and moved <= {0}
        self.plain = moved <= {1} and not controls and dpg is None

    def check(self, made: Sequence[Any]) -> None:
        """Refuse what does not fit; tokens of a port without a type always do."""
        for output, token in zip(self.outputs, made, strict=True):
            output.check(token)


def values(made: Any, count: int) -> Sequence[Any]:
    """Return what a firing returned as one value per output."""
    if count == 1:
        return (made,)
    if count == 0 and made is None:
        return ()
    if isinstance(made, tuple) and len(made) == count:
        return made
    got = f"a tuple of {len(made)}" if isinstance(made, tuple) else told(made)
    wanted = "None" if count == 0 else f"a tuple of {count}, one per output port"
    raise BrokenPortError(f"returned {got}; return {wanted}")


def fits(token: Any, token_type: TokenType | None) -> bool:
    """Whether a token may be in a FIFO of this type."""
    if token_type is None or isinstance(token, Outcome):
        return True
    dtype, shape = getattr(token, "dtype", None), getattr(token, "shape", None)
    return bool(dtype == token_type.dtype and shape == token_type.shape)


def told(token: Any) -> str:
    """Return what to call a token in a message."""
    if isinstance(token, np.ndarray):
        return f"{token.dtype}[{','.join(map(str, token.shape))}]"
    return "nothing" if token is None else f"a {type(token).__name__}"


def mode_index(dpg: Dpg, mode: Any) -> int:
    """Return a control token as the index of a mode of `dpg`."""
    try:
        named = index(mode)
    except TypeError:
        raise BrokenPortError(
            f"names a mode by {told(mode)}; give its index, an integer"
        ) from None
    if not 0 <= named < len(dpg.modes):
        raise BrokenPortError(
            f"names mode {named} of '{dpg.name}', which has 0 to {len(dpg.modes) - 1}"
        )
    return named
