"""Several plans on one device: what they must agree on."""

from collections.abc import Collection, Iterable, Sequence

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.parts import StreamPart, stream_parts
from dataflow.plan import Plan
from dataflow.wire.control import CONTROL_BYTES_MAX


def check_together(plans: Sequence[Plan], name: str) -> None:
    """Check that one process can be device `name` of all of `plans`.

    Raises:
        MisuseError: It is an endpoint, or its name, its address or its keys differ: a
            process has one of each.
    """
    first, *others = plans
    spec = first.device(name)
    for index, plan in enumerate(others, start=1):
        other = plan.device(name)
        if plan.name in {before.name for before in plans[:index]}:
            raise MisuseError(
                f"deployment '{plan.name}': given twice; a device plays one of each "
                "name"
            )
        if "endpoint" in (spec.role, other.role):
            raise MisuseError(
                f"device '{name}': an endpoint in '{first.name}' or '{plan.name}'; "
                "only servers hold several plans, so start one process for each"
            )
        if other.listen != spec.listen:
            raise MisuseError(
                f"device '{name}': listens on {spec.listen} in '{first.name}', on "
                f"{other.listen} in '{plan.name}'; give it one address in both"
            )
        if plan.keys != first.keys:
            raise MisuseError(
                f"device '{name}': keys in {first.keys or 'no folder'} for "
                f"'{first.name}', in {plan.keys or 'no folder'} for '{plan.name}'; "
                "name one folder in both"
            )


def check_follows(old: Sequence[Plan], new: Sequence[Plan], name: str) -> None:
    """Check that device `name` can go from some plans to others while it runs.

    Raises:
        UnderstudyError: Its address, its keys or its streams are others, or something
            of a stream that has to go on: source, actors behind the join, sink.
    """
    check_together(new, name)
    for before, after in zip(old, new, strict=True):
        was, will = before.device(name), after.device(name)
        if (was.role, was.listen, before.keys) != (will.role, will.listen, after.keys):
            raise UnderstudyError(
                f"device '{name}': has another role, address or keys folder in the "
                "plan that follows; these stay while it runs, so restart it"
            )
        _check_streams(before, after, name)


def _check_streams(old: Plan, new: Plan, name: str) -> None:
    before, after = (
        {part.region.stream: part for part in stream_parts(plan.graph, name)}
        for plan in (old, new)
    )
    if before.keys() != after.keys():
        raise UnderstudyError(
            f"device '{name}': has the streams {_listed(before)}, and "
            f"{_listed(after)} in the plan that follows; those of a run stay the same, "
            "so restart the device for others"
        )
    for stream, part in before.items():
        _check_goes_on(part, after[stream])


def _check_goes_on(old: StreamPart, new: StreamPart) -> None:
    where = f"stream '{old.region.stream}'"
    if old.frames != new.frames:
        raise UnderstudyError(
            f"{where}: an iteration has {old.frames} frames, and {new.frames} in the "
            "plan that follows; restart the device for it"
        )
    kept = [
        {name: _identity(part, name) for name in (part.source, *part.suffix.actors)}
        for part in (old, new)
    ]
    if kept[0] != kept[1]:
        changed = sorted(
            name
            for name in kept[0].keys() | kept[1].keys()
            if kept[0].get(name) != kept[1].get(name)
        )
        raise UnderstudyError(
            f"{where}: '{changed[0]}' is another actor in the plan that follows; "
            "source, sink and what is behind the join go on as they are, so restart "
            "the device for it"
        )
    for part in (old, new):
        for name in part.prefix.actors:
            if part.prefix.graph.actors[name].stateful:
                raise UnderstudyError(
                    f"{where}: '{name}' has state and stands before the fork, where "
                    "actors are made anew; restart the device for the plan that follows"
                )


def _identity(part: StreamPart, name: str) -> tuple[object, ...]:
    """Return what must be the same of an actor that goes on; a sink judges itself."""
    actor = part.prefix.graph.actors[name]
    params = None if name == part.region.sink else dict(actor.params)
    return actor.type, params, actor.ports


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def addresses_of(plans: Iterable[Plan], devices: Iterable[str]) -> dict[str, str]:
    """Return where `devices` are reached.

    Raises:
        UnderstudyError: Two plans disagree.
    """
    found: dict[str, str] = {}
    for name in devices:
        for plan in plans:
            address = plan.devices[name].address if name in plan.devices else None
            if address is not None and found.setdefault(name, address) != address:
                raise UnderstudyError(
                    f"device '{name}': at {found[name]} in one plan, at {address} in "
                    f"'{plan.name}'; rename one of the two, or give both one address"
                )
    return found


def largest_frame_bytes(plans: Iterable[Plan]) -> int:
    """Return the most bytes that one frame of these plans may have on the wire."""
    sizes = (
        port.token.nbytes
        for plan in plans
        for actor in plan.graph.actors.values()
        if actor.type in ("tx", "rx")
        for port in actor.ports
        if port.token is not None
    )
    return max(max(sizes, default=0), CONTROL_BYTES_MAX) + 1024
