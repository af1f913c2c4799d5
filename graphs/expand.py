"""The plain graph behind a deployment: every actor, FIFO, TX/RX pair, DPG and region.

Each stream has its own actors on every server. A stream ``cam.0`` whose model `net` is
cut between ``cam`` and ``edge`` becomes::

    camera[cam.0] -> prep[cam.0] -> net.head[cam.0] -> fork[cam.0]
    fork[cam.0] -> net.tail[cam.0]@edge.0.tx -> …rx -> net.tail[cam.0]@edge.0
        -> …return.tx -> …return.rx -> join[cam.0]      and the same for edge.1, …
    fork[cam.0] -> exit2[cam.0] -> join[cam.0]          for an understudy
    row[cam.0] -> every actor of the region at home     control tokens
    join[cam.0] -> result[cam.0]

Load is spread by rotation: where the order names a server group, stream i begins with
instance i mod n and goes round. So with all servers alive each serves its share of the
streams, and every stream has every server to fall back on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataflow.errors import UnderstudyError
from dataflow.graph import Graph
from graphs.batching import batch
from graphs.deployment import Deployment
from graphs.fanout import spread
from graphs.fusion import fuse, units_of
from graphs.located_yaml import Problems
from graphs.plain import Plain
from graphs.plain_branch import PlainBranch
from graphs.plain_stream import PlainStream
from graphs.split import Segment
from graphs.streams import Stream, Streams
from graphs.units import Units


@dataclass(frozen=True, slots=True)
class Expansion:
    """A plain graph, and where in the user's files its parts come from.

    Attributes:
        location: Name of an actor, or ``a.x -> b.y`` of a FIFO, to the ``file:line:
            column`` that it was made from.
        segments: What its `onnx` actors run, by SHA-256.
        streams: What the deployment's source actors lead to, each once.
        units: The parts that the plain graph was made of.
    """

    graph: Graph
    location: Mapping[str, str]
    segments: Mapping[str, Segment]
    streams: Sequence[Stream]
    units: Units


def expand(deployment: Deployment) -> Graph:
    """Return the plain graph of a deployment.

    Raises:
        FileErrors: It cannot be deployed so: says where and why.
    """
    return expansion(deployment).graph


def expansion(deployment: Deployment) -> Expansion:
    """Return the plain graph of a deployment with all that was found on the way.

    Raises:
        FileErrors: It cannot be deployed so: says where and why.
    """
    problems = Problems()
    units = Units(deployment, problems)
    problems.raise_if_any()
    found = Streams(deployment, units, problems).find()
    problems.raise_if_any()
    streams = [spread(fuse(stream, units), units) for stream in found]
    batch(streams, units, deployment.groups, problems)
    problems.raise_if_any()
    segments = _segments(streams, units, problems)
    problems.raise_if_any()
    plain = Plain(deployment, units)
    for index, (stream, device, name) in enumerate(_instances(deployment, streams)):
        part = PlainStream(plain, stream, device, name, index)
        part.begin()
        part.end(tuple(PlainBranch(part, row).build() for row in part.rows))
    plain.problems.raise_if_any()
    return Expansion(
        graph=Graph(
            deployment.graph.graph.name,
            plain.actors,
            tuple(plain.fifos),
            tuple(plain.dpgs),
            tuple(plain.regions),
        ),
        location={name: str(place) for name, place in plain.places.items()},
        segments=segments,
        streams=streams,
        units=units,
    )


def _segments(
    streams: Iterable[Stream], units: Units, problems: Problems
) -> dict[str, Segment]:
    """Return what the units of streams run, by SHA-256, each file made."""
    segments: dict[str, Segment] = {}
    for unit in (unit for stream in streams for unit in units_of(stream)):
        if (segment := units.kinds[unit].segment) is not None:
            try:
                segments[segment.sha256] = segment
            except UnderstudyError as error:
                problems.add(units.place(unit.actor), f"map: {unit}: {error}")
    return segments


def _instances(
    deployment: Deployment, streams: Iterable[Stream]
) -> list[tuple[Stream, str, str]]:
    """Return stream, device and name of every stream that will run."""
    listed = list(streams)
    per_group: dict[str, int] = {}
    for stream in listed:
        per_group[stream.group] = per_group.get(stream.group, 0) + 1
    return [
        (
            stream,
            device,
            device if per_group[stream.group] == 1 else f"{device}/{stream.source}",
        )
        for stream in listed
        for device in deployment.groups[stream.group].instances
    ]
