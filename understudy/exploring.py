"""Exploring: every partition of a model over given devices and links, judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dataflow.errors import MisuseError, UnderstudyError, nearest
from graphs.onnx_model import Model
from understudy.candidates import (
    LOSSLESS,
    Device,
    check_same,
    places,
)
from understudy.chains import Found, Search
from understudy.constraints import Constraints, Violation, violations
from understudy.costs import NOISE, Exit, Link, Power, cost, score
from understudy.exploration import (
    Exploration,
    ExploredDevice,
    Panel,
    Row,
)
from understudy.summary import three_digits
from understudy.thresholds import thresholds

ADDED_MAX = 0.05
"""Of the whole model's time: a cut that costs more in itself is said to, and another
that is as good is recommended."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be explored.

    Attributes:
        links: Sets of links between the devices: a panel each.
        weights: Objective -> weight, in the objective's unit.
        answer_bytes: What comes back of a frame; None: the model's outputs.
        jpeg_bytes: Of a frame as JPEG; None: not looked at.
    """

    devices: Sequence[Device]
    links: Sequence[Sequence[Link]]
    weights: Mapping[str, float] = field(default_factory=lambda: {"latency": 1.0})
    codecs: Sequence[str] = LOSSLESS
    constraints: Constraints = field(default_factory=Constraints)
    power: Power | None = None
    exit: Exit | None = None
    answer_bytes: int | None = None
    jpeg_bytes: int | None = None
    run: str = ""


def explore(model: Model, wish: Wish) -> Exploration:
    """Return what every partition of `model` costs, and which one is best.

    Raises:
        UnderstudyError: A profile is of another model, or a pin names no node.
    """
    check_same(model, wish.devices)
    _check(wish)
    found = places(model, answer_bytes=wish.answer_bytes, jpeg_bytes=wish.jpeg_bytes)
    known = [p for p in found if all(device.knows(p) for device in wish.devices)]
    pins = _pins(model, wish)
    searches = [
        Search(known, wish.devices, links, wish.weights, wish.codecs, wish.power,
               wish.exit, pins)
        for links in wish.links
    ]  # fmt: skip
    return Exploration(
        model=model.where,
        devices=tuple(
            ExploredDevice(d.name, d.file, d.profile, d.factor, d.scaled)
            for d in wish.devices
        ),
        panels=tuple(_panel(search, wish) for search in searches),
        weights=wish.weights,
        constraints=wish.constraints,
        codecs=tuple(wish.codecs),
        power=wish.power,
        exit=wish.exit,
        run=wish.run,
    )


def _check(wish: Wish) -> None:
    """Refuse what cannot be explored.

    Raises:
        MisuseError: Links do not fit the devices, or an objective cannot be had.
    """
    hops = len(wish.devices) - 1
    if hops < 1:
        raise MisuseError("one device: there is nothing to divide; name two or more")
    if not wish.links:
        raise MisuseError("no link: give --link, such as 16mbit,5ms")
    for links in wish.links:
        if len(links) != hops:
            raise MisuseError(
                f"{len(links)} links: {len(wish.devices)} devices in a row have {hops}"
            )
    if "throughput" in wish.weights and len(wish.weights) > 1 and hops > 1:
        raise MisuseError(
            "objective: throughput is weighed with others between two devices only"
        )
    power = wish.power
    if "endpoint-energy" in wish.weights and (
        power is None or power.endpoint_w is None
    ):
        raise MisuseError(
            "objective endpoint-energy: needs power figures; give --power endpoint=3.5W"
        )


def _pins(model: Model, wish: Wish) -> dict[int, int]:
    """Return node -> index of the device that must run it.

    A node is named by itself or by a tensor that it makes.
    """
    named = {node.name: i for i, node in enumerate(model.nodes) if node.name}
    named |= model.producer
    devices = {device.name: i for i, device in enumerate(wish.devices)}
    devices |= {"endpoint": 0, "server": len(wish.devices) - 1}
    pins = {}
    for node, device in wish.constraints.pins.items():
        if node not in named:
            raise UnderstudyError(
                f"pin '{node}': {model.where} has no such node or tensor"
                f"{nearest(node, named)}"
            )
        if device not in devices:
            raise UnderstudyError(
                f"pin '{node}': no device '{device}'{nearest(device, devices)}; "
                f"there are {', '.join(devices)}"
            )
        pins[named[node]] = devices[device]
    return pins


def _panel(search: Search, wish: Wish) -> Panel:
    every = search.rows()
    costs = [cost(found.partition, wish.power) for found in every]
    broken = [
        list(violations(wish.constraints, found, paid, search))
        for found, paid in zip(every, costs, strict=True)
    ]
    rows = [_row(i, found, search, broken[i]) for i, found in enumerate(every)]
    rows = _with_pareto(rows)
    allowed = [row for row in rows if not row.excluded]
    links = tuple(search.links)
    if not allowed:
        return Panel(links, tuple(rows), _nearest_text(rows, broken), ())
    best, ties = _choose(allowed)
    rows = [
        replace(row, best=row.number == best.number, tie=row.number in ties)
        for row in rows
    ]
    found_for = {row.number: (row.label, every[row.number]) for row in allowed}
    return Panel(
        links,
        tuple(rows),
        _why(search.weights, rows, best),
        thresholds(search, found_for),
    )


def _row(number: int, found: Found, search: Search, broken: Sequence[Violation]) -> Row:
    place = search.places[number]
    paid = cost(found.partition, search.power)
    used = search.devices[: len(found.places) + 1]
    sources = [device.source(found.places) for device in used]
    weakest = max(sources, key=_SOURCES.index)
    kind = place.kind if len(found.places) < 2 else "chain"
    notes = list(place.notes)
    added = max((d.added(p) for p in found.places for d in used), default=0.0)
    if added > ADDED_MAX:
        notes.append(f"costs {100 * added:.0f} % in itself")
    return Row(
        number=number,
        label=" | ".join(p.label for p in found.places) or place.label,
        kind=kind,
        tensors=place.tensors,
        depth=place.depth,
        crossings=tuple(
            (p.label, c.codec)
            for p, c in zip(found.places, found.partition.crossings, strict=True)
        ),
        raw_input=any(p.raw_input for p in found.places),
        source=weakest,
        notes=tuple(notes),
        cost=paid,
        score=score(search.weights, paid),
        pieces=found.partition,
        excluded=tuple(violation.text for violation in broken),
        added=added,
        kinds=tuple(p.kind for p in found.places),
    )


UNCUT = ("local", "raw", "jpeg", "input")
"""Kinds of rows that do not divide the model."""
_EQUALS_MAX = 5
_SOURCES = ("measured", "interpolated", "profile", "modelled")


def _with_pareto(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other is better than in latency, bytes, endpoint time."""

    def values(row: Row) -> tuple[float, ...]:
        return (row.cost.total_ms, row.cost.wire_bytes, row.cost.busy_ms)

    allowed = [values(row) for row in rows if not row.excluded]

    def dominated(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(o <= m for o, m in zip(other, mine, strict=True))
            for other in allowed
        )

    return [
        replace(row, pareto=not row.excluded and not dominated(values(row)))
        for row in rows
    ]


def _choose(allowed: Sequence[Row]) -> tuple[Row, set[int]]:
    """Return the best row, and the numbers of all that may be as good.

    Among those the plainest is recommended: no network where none is needed, one tensor
    rather than several, a cut that costs little in itself, and else the one with the
    least score.
    """
    least = min(allowed, key=lambda row: row.score)
    ties = [row for row in allowed if row.score - least.score <= _doubt(row, least)]
    plain = [row for row in ties if row.kind == "local"] or [min(ties, key=_plainness)]
    return plain[0], {row.number for row in ties}


def _plainness(row: Row) -> tuple[bool, bool, float]:
    return row.kind in ("multi", "chain"), row.added > ADDED_MAX, row.score


def _doubt(row: Row, other: Row) -> float:
    """Return the difference of scores that errors of the times may well explain.

    As a share it is taken to be that of the latencies, and at least `NOISE`.
    """
    if row is other:
        return 0.0
    share = math.hypot(
        *(max(NOISE, r.cost.error_ms / r.cost.total_ms) for r in (row, other))
        if row.cost.total_ms and other.cost.total_ms
        else (NOISE,)
    )
    return share * min(row.score, other.score)


def _why(weights: Mapping[str, float], rows: Sequence[Row], best: Row) -> str:
    """Return what is recommended, what it takes and what that gains, in a sentence."""
    local = next(row for row in rows if row.kind == "local")
    said = f"{_ms(best)} a frame (p50, within {best.cost.error_ms:.2g})"
    if best.kind in UNCUT:
        text = f"do not split: {best.label} takes {said}"
    else:
        text = f"cut at {best.label}: {said}"
    if best.kind == "local":
        cuts = [row for row in rows if row.kind not in UNCUT and not row.excluded]
        if cuts:
            cut = min(cuts, key=lambda row: row.score)
            text += f", the best cut {_ms(cut)} ({cut.label})"
    elif local.excluded:
        text += f"; all local is excluded ({local.excluded[0]})"
    else:
        text += f", {_gain(weights, local, best)}"
    equals = [row.label for row in rows if row.tie and row.label != best.label]
    if equals:
        shown = ", ".join(equals[:_EQUALS_MAX])
        more = len(equals) - _EQUALS_MAX
        text += f"; not to be told from {shown}" + (f" and {more} more" * (more > 0))
    return text


def _gain(weights: Mapping[str, float], local: Row, best: Row) -> str:
    """Return by how much a row is better than all local."""
    gain = f"{local.score / best.score:.3g} x" if best.score else "without end"
    if list(weights) == ["latency"]:
        return f"{gain} quicker than all local ({_ms(local)})"
    if list(weights) == ["throughput"]:
        return f"{gain} the frames/s of all local"
    if len(weights) == 1:
        return f"{gain} less {next(iter(weights))} than all local"
    return f"{gain} better than all local by these weights"


def _ms(row: Row) -> str:
    return f"{three_digits(row.cost.total_ms)} ms"


def _nearest_text(rows: Sequence[Row], broken: Sequence[Sequence[Violation]]) -> str:
    def distance(row: Row) -> tuple[float, float]:
        return sum(violation.excess for violation in broken[row.number]), row.score

    row = min(rows, key=distance)
    return (
        f"the constraints exclude all {len(rows)} partitions; the nearest is "
        f"{row.label}: {', '.join(row.excluded)}"
    )
