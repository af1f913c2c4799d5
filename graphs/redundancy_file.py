"""Modes of redundancy in files: ``spread``, ``{replicate: 2}``, ``{hedge: p95}``."""

from dataflow.redundancy import (
    COPIES_MAX,
    PERCENTILE_MAX,
    PERCENTILE_MIN,
    STANDBY,
    Redundancy,
)
from graphs.located_yaml import Problems, Value

_LIKE = (
    "standby, spread, {replicate: N} with N from 2 to "
    f"{COPIES_MAX}, or {{hedge: pN}} with N from {PERCENTILE_MIN} to {PERCENTILE_MAX}"
)


def read_redundancy(value: Value, where: str, problems: Problems) -> Redundancy:
    """Return the mode that `value` names; `standby`, with a problem, if it is none."""
    match value.data:
        case str(text):
            pass
        case dict(parts):
            text = ", ".join(f"{key} {part.data}" for key, part in parts.items())
        case other:
            text = f"a {type(other).__name__}"
    try:
        return Redundancy.parse(text)
    except ValueError:
        told = f"{where}: '{text}' is no mode of redundancy; write {_LIKE}"
        problems.add(value.place, told)
        return STANDBY


def redundancy_json(redundancy: Redundancy) -> object:
    """Return what `read_redundancy` reads."""
    if redundancy.mode == "replicate":
        return {"replicate": redundancy.copies}
    if redundancy.mode == "hedge":
        return {"hedge": f"p{redundancy.percentile}"}
    return redundancy.mode
