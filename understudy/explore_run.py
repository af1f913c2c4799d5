"""What a run has really seen, as input for exploring again.

Devices write every now and then how long their actors took and what their links carry
(`device.measured`): a run may be up still, or have been killed. The profile of each
device is scaled so that it agrees at the cut that ran: another cut then takes as much
longer, or less, as this one did.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from dataflow.errors import UnderstudyError
from dataflow.plan import Plan
from dataflow.vocabulary import EVENTS
from graphs.actor_types import ONNX_TYPE
from graphs.exits import EXIT_MODE
from understudy.candidates import Device, Place, places
from understudy.costs import Exit, Link
from understudy.explore_subject import Subject
from understudy.json_lines import is_number
from understudy.records import Run
from understudy.run_folder import read_run

EVENT = "device.measured"
MEASURED = tuple(
    name for name, (kind, _) in EVENTS[EVENT].fields.items() if kind == "numbers"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run measured.

    Attributes:
        run: Its folder.
        tensors: That crossed; the model's inputs: all was remote; empty: all local.
        endpoint_ms: Of the network on endpoints, a frame; None: nothing of it.
        server_ms: The same on servers.
        link: None: no link was learned.
        exit_share: Of the frames that an early exit answered; None: there is none.
        exit_ms: What early answer and gate took, a frame.
    """

    run: Path
    tensors: tuple[str, ...]
    endpoint_ms: float | None
    server_ms: float | None
    link: Link | None
    exit_share: float | None
    exit_ms: float


def seen(folder: Path, subject: Subject) -> Seen:
    """Return what the run in `folder` measured of the network.

    Raises:
        MisuseError: No run there.
        UnderstudyError: It has no plan of this network, or no device ran for long.
    """
    run = read_run(folder)
    if run.plan is None:
        raise UnderstudyError(f"{folder}: its plan is gone; name a run that has it")
    times = _times(run, run.plan.digest)
    if not times:
        raise UnderstudyError(
            f"{folder}: no device has written what it measured yet; look again when "
            "they have run for some seconds"
        )
    mine = [
        name
        for name, actor in run.plan.graph.actors.items()
        if actor.type == ONNX_TYPE and _base(name) == subject.actor
    ]
    there = [name for name in mine if _role(run.plan, name) == "server"]
    if not mine:
        raise UnderstudyError(
            f"{folder}: no '{subject.actor}' ran there; name a run of this network"
        )
    endpoint_ms, server_ms = stage_ms(run, subject.actor, run.plan.digest)
    early = _early(subject)
    exits = (
        _mean_ms(times, [n for n in run.plan.graph.actors if _base(n) == name])
        for name in early
    )
    return Seen(
        run=folder,
        tensors=_crossing(run.plan, there),
        endpoint_ms=endpoint_ms,
        server_ms=server_ms,
        link=_link(run, folder),
        exit_share=_exit_share(run) if early else None,
        exit_ms=sum(filter(None, exits)),
    )


def _early(subject: Subject) -> set[str]:
    """Return the actors of early answers and their gates."""
    exits = () if subject.graph is None else subject.graph.exits.values()
    return {name for found in exits for name in (found.answer.actor, found.gate)}


def _base(name: str) -> str:
    """Return the graph file's name of a plain graph's actor.

    >>> _base("net.tail[cam.0]@edge.1"), _base("net[cam.0]")
    ('net', 'net')
    """
    return name.partition("[")[0].partition(".")[0]


def _role(plan: Plan, actor: str) -> str:
    device = plan.graph.actors[actor].device
    return "" if device is None else plan.devices[device].role


def stage_ms(run: Run, network: str, plan: str) -> tuple[float | None, float | None]:
    """Return what a network took under a plan: ms a frame on endpoints, on servers.

    Args:
        run: What it left.
        network: Name of its actor in the graph file.
        plan: Digest.
    """
    found: dict[bool, dict[str, tuple[float, float]]] = {True: {}, False: {}}
    endpoints = {stream.device for stream in run.streams}
    for device, record in _measured(run, plan):
        for actor, firings in record["firings"].items():
            if _base(actor) == network:
                at = found[device in endpoints]
                count, ms = at.get(actor, (0.0, 0.0))
                at[actor] = count + firings, ms + record["busy_ms"].get(actor, 0.0)
    here, there = found[True], found[False]
    return _mean_ms(here, [*here]), _mean_ms(there, [*there])


def _times(run: Run, plan: str) -> dict[str, tuple[float, float]]:
    """Return firings and busy ms of each actor, over all lives of all devices."""
    found: dict[str, tuple[float, float]] = {}
    for _, record in _measured(run, plan):
        for actor, firings in record["firings"].items():
            before = found.get(actor, (0.0, 0.0))
            busy_ms = record["busy_ms"].get(actor, 0.0)
            found[actor] = before[0] + firings, before[1] + busy_ms
    return found


def _measured(
    run: Run, plan: str
) -> Iterator[tuple[str, Mapping[str, Mapping[str, float]]]]:
    """Yield (device, the last numbers that it left under a plan) of each life.

    Raises:
        UnderstudyError: They are none.
    """
    for device in run.devices:
        last: Mapping[str, object] | None = None
        for event in device.named(EVENT):
            fields = event.fields
            if not all(_numbers(fields.get(name)) for name in MEASURED):
                raise UnderstudyError(
                    f"{device.path}:{event.line}: not what a device measured; name "
                    "a folder that a run wrote"
                )
            if plan in str(fields.get("plan", "")).split(", "):
                last = fields
        if last is not None:
            yield device.device, cast(Mapping[str, Mapping[str, float]], last)


def _numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


def _mean_ms(
    times: Mapping[str, tuple[float, float]], actors: Sequence[str]
) -> float | None:
    """Return ms a firing over actors that do the same on several devices."""
    found = [times[name] for name in actors if name in times]
    firings = sum(count for count, _ in found)
    return sum(ms for _, ms in found) / firings if firings else None


def _crossing(plan: Plan, there: Sequence[str]) -> tuple[str, ...]:
    """Return the tensors that the first server's part takes."""
    for name in there:
        inputs = plan.graph.actors[name].params["inputs"]
        assert isinstance(inputs, list)
        return tuple(str(entry[0]) for entry in inputs)
    return ()


def _link(run: Run, folder: Path) -> Link | None:
    """Return the slowest link that was learned, with its least round trip."""
    rates: list[float] = []
    trips: list[float] = []
    assert run.plan is not None
    for _, record in _measured(run, run.plan.digest):
        rates += record["bytes_s"].values()
        trips += record["rtt_ms"].values()
    if not rates:
        return None
    mbit_s = min(rates) * 8e-6
    rtt_ms = min(trips, default=0.0)
    return Link(folder.name, mbit_s, mbit_s, rtt_ms, measured=True)


def _exit_share(run: Run) -> float | None:
    answered = [r for s in run.streams for r in s.results if r.status != "dropped"]
    if not answered:
        return None
    return sum(r.row == EXIT_MODE for r in answered) / len(answered)


def scaled(devices: Sequence[Device], subject: Subject, found: Seen) -> list[Device]:
    """Return the devices with their profiles made to agree with a run.

    Raises:
        UnderstudyError: The cut that ran was not profiled.
    """
    place = _place(subject, found)
    cut = None if place is None or not place.tensors else place
    first, *others = devices
    last = others[-1]
    expected = (
        first.part(None, cut).ms if found.endpoint_ms is not None else None,
        last.part(cut, None).ms if found.server_ms is not None else None,
    )
    pairs = ((first, found.endpoint_ms), (last, found.server_ms))
    changed = [
        _scaled(device, took, wanted, found.run)
        for (device, took), wanted in zip(pairs, expected, strict=True)
    ]
    return [changed[0], *others[:-1], changed[1]]


def _scaled(
    device: Device, took_ms: float | None, expected_ms: float | None, run: Path
) -> Device:
    if not took_ms or not expected_ms:
        return device
    ratio = took_ms / expected_ms
    why = f"seen in {run}: the profile x {ratio:.3g}"
    return replace(device, factor=device.factor * ratio, scaled=why)


def _place(subject: Subject, found: Seen) -> Place | None:
    """Return where the run was cut; None: all of it was on one side."""
    if not found.tensors or set(found.tensors) == set(subject.model.inputs):
        return None
    for place in places(subject.model):
        if set(place.tensors) == set(found.tensors) and place.kind in _CUTS:
            return place
    raise UnderstudyError(
        f"{found.run}: was cut at {', '.join(found.tensors)}, which is none of the "
        f"useful cuts of {subject.model.where}; run one that `explore` wrote"
    )


_CUTS = ("single", "multi")


def early_exit_of(subject: Subject, found: Seen) -> Exit | None:
    """Return the early exit as a run saw it."""
    if found.exit_share is None or not subject.exit_tensor:
        return None
    return Exit(subject.exit_tensor, found.exit_share, found.exit_ms)
