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
from dataflow.graph import TokenType
from dataflow.plan import Device, Expected
from dataflow.redundancy import Redundancy
from dataflow.wire.compression import AUTO, COMPRESSIONS
from graphs.actor_types import is_part
from graphs.graph_file import GraphFile
from graphs.located_yaml import Place, Problems

ENCODINGS = ("float16", "int8")
COUNT_MAX = 256
"""Devices in a group: far more than the rows of a stream can name."""
DEADLINE_MS = 1000.0
WINDOW_MAX = 4096
BATCH_MAX = 64
"""A processor gains nothing more from larger batches, and each token waits for all."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How tensors cross a link: ``none``, ``int8``, ``int8+zstd``, …, ``auto``.

    With ``auto`` a stream chooses for each link, and each time that it changes: whether
    to compress, and whether to encode, in rows of their own.

    Attributes:
        encoding: What the actors around TX and RX make of a float32 tensor, with loss;
            "": nothing.
        compression: What TX and RX do to the message, without loss; "": nothing.
    """

    encoding: str = ""
    compression: str = ""

    def __str__(self) -> str:
        return "+".join(filter(None, (self.encoding, self.compression))) or "none"

    def of(self, token: TokenType) -> "Codec":
        """Return what is done to tokens of a type: only float32 can be encoded."""
        return self if token.dtype == "float32" else replace(self, encoding="")


NO_CODEC = Codec()
CODECS = {
    str(codec): codec
    for codec in (Codec(e, c) for e in ("", *ENCODINGS) for c in ("", *COMPRESSIONS))
}
"""Codecs by the name that a deployment file gives them."""
CODECS[AUTO] = Codec("", AUTO)
AUTO_ENCODING = "int8"
"""With loss, for a link that does not carry tokens without. One, since each costs a row
for every server: float16 makes 0.21 to 0.46 of the bytes with zstd, int8 0.10 to
0.22 (`tests.bench.codecs`), and either makes the answer a degraded one."""


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
    batch_max: int = 1
    """Tokens of one segment that an instance may compute as one batch."""
    batch_wait_ms: float = 0.0
    """How long a lone token waits for others."""
    metrics: tuple[str, int] | None = None
    """Host and port of instance 0 where metrics are served; None: nowhere."""
    threads: int = 1
    """Threads that each model of an instance computes with."""
    cores: tuple[int, ...] = ()
    """Logical cores that each instance runs on; none: all that it is given."""
    providers: tuple[str, ...] = ()
    """What computes the models, by preference; none: the processor."""

    @property
    def instances(self) -> tuple[str, ...]:
        if self.count is None:
            return (self.name,)
        return tuple(f"{self.name}.{i}" for i in range(self.count))

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self._device(i, name) for i, name in enumerate(self.instances))

    def _device(self, index: int, name: str) -> Device:
        metrics = None
        if self.metrics is not None:
            metrics = f"tcp://{self.metrics[0]}:{self.metrics[1] + index}"
        device = Device(
            name,
            self.role,
            metrics=metrics,
            threads=self.threads,
            cores=self.cores,
            providers=self.providers,
        )
        if self.role == "endpoint":
            return device
        hosts = self.connect or (self.host,)
        host = hosts[index] if len(hosts) > 1 else hosts[0]
        port = self.port + index
        return replace(
            device,
            listen=f"tcp://{self.host}:{port}",
            connect=f"tcp://{host}:{port}",
            batch_max=self.batch_max,
            batch_wait_ms=self.batch_wait_ms,
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an actor runs: on one group, or cut, along several.

    Of the parts of one model, which may run on several groups, one names the codec.
    """

    path: tuple[str, ...]
    """Groups of its parts, head first; of the whole actor, when it is not cut."""
    cuts: tuple[tuple[str, ...], ...] = ()
    """Between the parts: names of the tensors that cross."""
    codec: Codec = NO_CODEC

    @property
    def group(self) -> str:
        """Of the whole actor, or of the head."""
        return self.path[0]


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a failover order."""

    actor: str
    path: tuple[str, ...]
    """Groups, one for each part of it that is on a server, or one for all of them.
    Empty: where the mapping has it."""
    place: Place


@dataclass(frozen=True, slots=True)
class Deployment:
    """A graph and where it runs, as the deployment file gives it.

    Attributes:
        order: Who answers, first to last; empty: the mapped place and no other.
        window: Iterations admitted beyond the last settled; None: computed from the
            rate of each source.
        redundancy: How several servers that could answer are used.
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
    redundancy: Redundancy
    keys: Path | None
    expected: Expected | None
    places: Mapping[str, Place] = field(compare=False)

    @property
    def devices(self) -> dict[str, Device]:
        return {d.name: d for g in self.groups.values() for d in g.devices}


def used_actors(graph: GraphFile, playing: Collection[str]) -> list[str]:
    """Return the actors of a graph that a deployment runs, in the file's order.

    They are all but the understudies that are not `playing` and what only those need.
    """
    early = {found.answer.actor for found in graph.exits.values()}
    fallback = {ref.actor for refs in graph.understudies.values() for ref in refs}
    fallback -= early
    feeds: dict[str, set[str]] = {name: set() for name in graph.graph.actors}
    leads_on = set()
    for fifo in graph.graph.fifos:
        feeds[fifo.target.actor].add(fifo.source.actor)
        leads_on.add(fifo.source.actor)
    todo = [
        name
        for name in graph.graph.actors
        if name in playing
        or name in early
        or (name not in leads_on and name not in fallback)
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
        divided = _divided(deployment)
        if codec not in CODECS:
            raise MisuseError(f"codec '{codec}': not known; use {', '.join(CODECS)}")
        if CODECS[codec] != NO_CODEC and not divided:
            raise MisuseError(
                f"codec '{codec}': {deployment.path} cuts no model, "
                "so there is nothing to encode"
            )
        mapping = {
            name: replace(p, codec=CODECS[codec]) if name in divided else p
            for name, p in mapping.items()
        }
    changed = replace(deployment, groups=groups, mapping=mapping)
    _check_ports(changed)
    return changed


def _divided(deployment: Deployment) -> set[str]:
    """Return the actors that are cut, or parts of a model that is on several groups."""
    file = deployment.graph
    groups: dict[object, set[str]] = {}
    parts = {}
    for name, placement in deployment.mapping.items():
        actor = file.graph.actors[name]
        if is_part(actor, file.models):
            parts[name] = actor.params["model"]
            groups.setdefault(parts[name], set()).add(placement.group)
    cut = {name for name, placement in deployment.mapping.items() if placement.cuts}
    return cut | {name for name, model in parts.items() if len(groups[model]) > 1}


def _check_ports(deployment: Deployment) -> None:
    """Refuse two devices at one address, and ports past the last."""
    problems = Problems()
    taken: dict[tuple[str, int], str] = {}
    for group in deployment.groups.values():
        place = deployment.places[f"group {group.name}"]
        last = len(group.instances) - 1
        if group.metrics is not None and group.metrics[1] + last > 65535:
            problems.add(
                place,
                f"device '{group.instances[last]}': metrics port "
                f"{group.metrics[1] + last} is past 65535; begin with a lower one",
            )
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
