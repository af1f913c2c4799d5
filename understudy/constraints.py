"""What a partition must keep to, and by how much one does not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from understudy.chains import Found, Search
from understudy.costs import Cost


@dataclass(frozen=True, slots=True)
class Constraints:
    """What is asked of a partition.

    Attributes:
        no_raw_input: The input must not leave the first device.
        endpoint_ms_max: How long the first device may be busy with a frame.
        memory_mb_max: Weights and activations of a side, ``endpoint`` or ``server``.
        pins: Tensor that a node makes -> name of the device that must run it.
    """

    no_raw_input: bool = False
    endpoint_ms_max: float | None = None
    memory_mb_max: Mapping[str, float] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Violation:
    """A constraint that a partition breaks.

    Attributes:
        excess: By how much, as a share of what is allowed; 1 where there is no measure.
    """

    text: str
    excess: float


def violations(
    constraints: Constraints, found: Found, cost: Cost, search: Search
) -> Iterator[Violation]:
    """Yield what a partition breaks, or why no deployment can be had of it."""
    if any(place.kind == "jpeg" for place in found.places):
        yield Violation("no deployment sends JPEG: a token has one size", 1.0)
    if search.exit is not None and found.partition.exit is None:
        yield Violation("in front of what the early exit reads", 1.0)
    if constraints.no_raw_input and any(place.raw_input for place in found.places):
        yield Violation("the raw input leaves the device", 1.0)
    limit = constraints.endpoint_ms_max
    if limit is not None and cost.busy_ms > limit:
        yield Violation(
            f"endpoint busy for {cost.busy_ms:.3g} ms, more than {limit:g}",
            cost.busy_ms / limit - 1 if limit else 1.0,
        )
    for side, most in constraints.memory_mb_max.items():
        mb = cost.endpoint_mb if side == "endpoint" else cost.server_mb
        if mb > most:
            yield Violation(
                f"{side} needs {mb:.3g} MB, more than {most:g}",
                mb / most - 1 if most else 1.0,
            )
    bounds = zip((None, *found.places), (*found.places, None), strict=True)
    wrong = sum(
        search.misplaced(i, start, end) for i, (start, end) in enumerate(bounds)
    )
    if wrong:
        what = "node is" if wrong == 1 else "nodes are"
        yield Violation(f"{wrong} pinned {what} on another device", float(wrong))
