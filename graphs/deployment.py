"""A deployment: a graph, where it runs, and what plays when a device is gone.

A device group is one name for `count` devices alike: instance i of group ``edge`` is
``edge.i`` and listens on the group's port + i. A group without a count is one device of
the group's own name.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dataflow.errors import MisuseError, nearest
from dataflow.plan import Device
from graphs.graph_file import GraphFile
from graphs.located_yaml import Place, Problems

CODECS = ("float16", "int8")
NO_CODEC = "none"
COUNT_MAX = 256
"""Devices in a group: far more than the rows of a stream can name."""
DEADLINE_MS = 1000.0
WINDOW_MAX = 4096


@dataclass(frozen=True, slots=True)
class Group:
    """Devices alike."""

    name: str
    role: Literal["endpoint", "server"]
    count: int | None = None
    """None: one device, called as the group."""
    host: str = ""
    """Where the instances of a server listen."""
    port: int = 0
    """Of instance 0."""
    connect: tuple[str, ...] = ()
    """Hosts where others reach the instances, one for all or one each; else `host`."""

    @property
    def instances(self) -> tuple[str, ...]:
        if self.count is None:
            return (self.name,)
        return tuple(f"{self.name}.{i}" for i in range(self.count))

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self._device(i, name) for i, name in enumerate(self.instances))

    def _device(self, index: int, name: str) -> Device:
        if self.role == "endpoint":
            return Device(name, "endpoint")
        hosts = self.connect or (self.host,)
        host = hosts[index] if len(hosts) > 1 else hosts[0]
        port = self.port + index
        return Device(
            name, "server", f"tcp://{self.host}:{port}", f"tcp://{host}:{port}"
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an actor runs: on one group, or cut in two."""

    group: str
    """Group of the whole actor; of the head, when it is cut."""
    cut: tuple[str, ...] = ()
    """Names of the tensors that cross."""
    tail: str = ""
    codec: str = NO_CODEC


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a failover order."""

    actor: str
    group: str | None
    """None: where the mapping has it."""
    place: Place


@dataclass(frozen=True, slots=True)
class Deployment:
    """A graph and where it runs, as the deployment file gives it.

    Attributes:
        order: Who answers, first to last; empty: the mapped place and no other.
        window: Iterations admitted beyond the last settled; None: computed from the
            rate of each source.
        places: Where each mapping (by actor), each group (as ``group NAME``) and the
            failover policy (as ``failover``) stand.
    """

    path: Path
    name: str
    graph: GraphFile
    groups: Mapping[str, Group]
    mapping: Mapping[str, Placement]
    order: tuple[Choice, ...]
    deadline_ms: float
    window: int | None
    keys: Path | None
    places: Mapping[str, Place] = field(compare=False)

    @property
    def devices(self) -> dict[str, Device]:
        return {d.name: d for g in self.groups.values() for d in g.devices}


def used_actors(graph: GraphFile, playing: Collection[str]) -> list[str]:
    """Return the actors of a graph that a deployment runs, in the file's order.

    They are all but the understudies that are not `playing` and what only those need.
    """
    fallback = {ref.actor for refs in graph.understudies.values() for ref in refs}
    feeds: dict[str, set[str]] = {name: set() for name in graph.graph.actors}
    leads_on = set()
    for fifo in graph.graph.fifos:
        feeds[fifo.target.actor].add(fifo.source.actor)
        leads_on.add(fifo.source.actor)
    todo = [
        name
        for name in graph.graph.actors
        if name in playing or (name not in leads_on and name not in fallback)
    ]
    used = set(todo)
    while todo:
        fresh = feeds[todo.pop()] - used
        used |= fresh
        todo.extend(fresh)
    return [name for name in graph.graph.actors if name in used]


def changed(
    deployment: Deployment,
    counts: Mapping[str, int],
    codec: str | None,
    listen_base: int | None,
) -> Deployment:
    groups = dict(deployment.groups)
    for name, count in counts.items():
        if name not in groups:
            raise MisuseError(
                f"device group '{name}': not in {deployment.path}"
                f"{nearest(name, groups)}"
            )
        if not 1 <= count <= COUNT_MAX:
            raise MisuseError(
                f"device group '{name}': count {count}; give 1 to {COUNT_MAX}"
            )
        if 1 < len(groups[name].connect) != count:
            raise MisuseError(
                f"device group '{name}': count {count}, but {deployment.path} connects "
                f"to {len(groups[name].connect)} hosts; change it there"
            )
        groups[name] = replace(groups[name], count=count)
    port = listen_base
    for name, group in groups.items():
        if port is not None and group.role == "server":
            groups[name] = replace(group, port=port)
            port += len(group.instances)
    mapping = dict(deployment.mapping)
    if codec is not None:
        if codec not in (*CODECS, NO_CODEC):
            raise MisuseError(
                f"codec '{codec}': not known; use {', '.join((*CODECS, NO_CODEC))}"
            )
        if codec != NO_CODEC and not any(p.cut for p in mapping.values()):
            raise MisuseError(
                f"codec '{codec}': {deployment.path} cuts no model, "
                "so there is nothing to encode"
            )
        mapping = {
            name: replace(p, codec=codec) if p.cut else p for name, p in mapping.items()
        }
    changed = replace(deployment, groups=groups, mapping=mapping)
    _check_ports(changed)
    return changed


def _check_ports(deployment: Deployment) -> None:
    """Refuse two devices at one address, and ports past the last."""
    problems = Problems()
    taken: dict[tuple[str, int], str] = {}
    for group in deployment.groups.values():
        place = deployment.places[f"group {group.name}"]
        for index, name in enumerate(group.instances if group.host else ()):
            port = group.port + index
            if port > 65535:
                problems.add(
                    place,
                    f"device '{name}': port {port} is past 65535; "
                    "let the group listen on a lower one",
                )
            # Hosts differ where each instance has a machine of its own.
            host = group.connect[index] if len(group.connect) > 1 else group.host
            other = taken.setdefault((host, port), name)
            if other != name:
                problems.add(
                    place,
                    f"device '{name}': port {port} is that of device '{other}'; "
                    "instance i listens on the group's port + i, so set the groups "
                    "further apart",
                )
    problems.raise_if_any()
