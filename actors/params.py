"""Reading parameters: each value is checked once, in `ports`."""

import math
from collections.abc import Sequence

from dataflow.behaviour import Params
from dataflow.errors import UnderstudyError, nearest


def number(params: Params, name: str, default: float, *, above: float) -> float:
    """Return the finite number called `name`, which is greater than `above`."""
    value = params.get(name, default)
    if not _is_number(value) or value <= above:
        raise wrong(name, value, f"a number above {above:g}")
    return float(value)


def count(params: Params, name: str) -> int | None:
    """Return the integer called `name`, at least 1; None when it is not given."""
    value = params.get(name)
    if value is not None and not (_is_integer(value) and value >= 1):
        raise wrong(name, value, "a whole number of at least 1")
    return value


def flag(params: Params, name: str, default: bool) -> bool:
    """Return the boolean called `name`."""
    value = params.get(name, default)
    if not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return value


def choice(
    params: Params, name: str, among: Sequence[str], default: str | None = None
) -> str:
    """Return the word called `name`, one of `among`."""
    value = params.get(name, default)
    if value not in among:
        raise UnderstudyError(
            f"parameter '{name}': {value!r} is not known{nearest(str(value), among)}; "
            f"write one of {', '.join(among)}"
        )
    return str(value)


def text(params: Params, name: str) -> str:
    """Return the non-empty text called `name`."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise wrong(name, value, "a text")
    return value


def shape(value: object, name: str) -> tuple[int, ...]:
    """Return `value` as a shape: a list of whole numbers of at least 1."""
    if not isinstance(value, (list, tuple)) or not all(
        _is_integer(n) and n >= 1 for n in value
    ):
        raise wrong(name, value, "a list of whole numbers of at least 1")
    return tuple(value)


def per_channel(
    params: Params, name: str, channels: int, default: float
) -> tuple[float, ...]:
    """Return `channels` numbers: the list called `name`, or its one number repeated."""
    value = params.get(name, default)
    values = value if isinstance(value, (list, tuple)) else [value] * channels
    if len(values) != channels or not all(_is_number(v) for v in values):
        raise wrong(name, value, f"a number or a list of {channels} numbers")
    return tuple(float(v) for v in values)


def wrong(name: str, value: object, wanted: str) -> UnderstudyError:
    """Return the error that says what a parameter should have been."""
    return UnderstudyError(f"parameter '{name}': {value!r} is not {wanted}; write one")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
