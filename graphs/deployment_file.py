"""Deployment files, read."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from dataflow.cores import parse_cores
from dataflow.errors import UnderstudyError, nearest
from dataflow.plan import Expected
from dataflow.redundancy import STANDBY, Redundancy
from graphs.deployment import (
    BATCH_MAX,
    COUNT_MAX,
    DEADLINE_MS,
    WINDOW_MAX,
    Choice,
    Deployment,
    Group,
    Placement,
    changed,
    used_actors,
)
from graphs.graph_file import GraphFile, Params, check_version, read_graph
from graphs.located_yaml import FileErrors, Place, Problems, Value, load
from graphs.mapping import MappingReader
from graphs.redundancy_file import read_redundancy
from graphs.units import RANGE

__all__ = ["Deployment", "read_deployment"]

KEYS_REQUIRED = ("understudy", "deployment", "graph", "devices", "map")
KEYS_OPTIONAL = ("failover", "keys", "expected")
GROUP_KEYS_REQUIRED = ("role",)
SERVER_KEYS = ("listen", "connect", "batch_max", "batch_wait_ms")
GROUP_KEYS_OPTIONAL = (
    *("count", *SERVER_KEYS, "metrics"),
    *("threads", "cores", "providers"),
)
THREADS_MAX = 1024
EXPECTED_KEYS_REQUIRED = ("p50_ms", "within_ms")
EXPECTED_KEYS_OPTIONAL = ("over",)
FAILOVER_KEYS = ("order", "redundancy", "deadline_ms", "window")

ROLES = ("endpoint", "server")

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_LISTEN = re.compile(r"tcp://(?P<host>[^\s/]+):(?P<port>\d{1,5})")
_WILDCARDS = ("*", "0.0.0.0", "[::]")
_LISTEN_LIKE = "tcp://127.0.0.1:7000"


def read_deployment(
    path: Path,
    *,
    counts: Mapping[str, int] | None = None,
    codec: str | None = None,
    params: Params | None = None,
    listen_base: int | None = None,
) -> Deployment:
    """Return the deployment in the file `path`, with its graph.

    Args:
        path: The file. Paths inside it are relative to its folder.
        counts: Group -> number of instances in place of the file's.
        codec: Codec of every cut in place of the file's; ``none`` for none.
        params: Actor -> parameters in place of the graph file's.
        listen_base: Port of the first server; the others count up from it.

    Raises:
        MisuseError: No such file, or an argument names what is not in it.
        FileErrors: Something is wrong inside; it holds all that was found.
    """
    deployment = _DeploymentReader(path).read(params or {})
    return changed(deployment, counts or {}, codec, listen_base)


class _DeploymentReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems = Problems()
        self._graph_messages: tuple[str, ...] = ()
        self._places: dict[str, Place] = {}
        self._groups: dict[str, Group] = {}
        self._broken: set[str] = set()
        """Groups in the file that could not be read: no follow-on errors."""
        self._maps = MappingReader(
            self._groups, self._broken, self._places, self._problems
        )

    def read(self, params: Params) -> Deployment:
        top = self._problems.keys(
            load(self._path),
            "deployment file",
            required=KEYS_REQUIRED,
            optional=KEYS_OPTIONAL,
        )
        check_version(top, self._problems, "deployment")
        name = self._text(top, "deployment")
        keys, expected = self._keys(top), self._expected(top)
        if "devices" in top:
            self._read_groups(top["devices"])
        graph = self._graph(top["graph"], params) if "graph" in top else None
        mapping: dict[str, Placement] = {}
        order: tuple[Choice, ...] = ()
        deadline_ms, window, redundancy = DEADLINE_MS, None, STANDBY
        if graph is not None and "map" in top:
            self._places["map"] = top["map"].place
            mapping = self._maps.read(top["map"], graph)
        if "failover" in top:
            self._places["failover"] = top["failover"].place
            policy = self._failover(top["failover"], graph, mapping)
            order, redundancy, deadline_ms, window = policy
        if graph is not None and not self._problems:
            self._check_mapped(graph, mapping, order)
        if graph is None or self._problems:
            raise FileErrors([*self._problems.messages(), *self._graph_messages])
        return Deployment(
            path=self._path,
            name=name,
            graph=graph,
            groups=self._groups,
            mapping=mapping,
            order=order,
            deadline_ms=deadline_ms,
            window=window,
            redundancy=redundancy,
            keys=keys,
            expected=expected,
            places=self._places,
        )

    def _text(self, top: Mapping[str, Value], key: str) -> str:
        return (self._problems.text(top[key], key) or "") if key in top else ""

    def _keys(self, top: Mapping[str, Value]) -> Path | None:
        text = self._text(top, "keys")
        return Path(os.path.abspath(self._path.parent / text)) if text else None

    def _expected(self, top: Mapping[str, Value]) -> Expected | None:
        if "expected" not in top:
            return None
        fields = self._problems.keys(
            top["expected"],
            "expected",
            required=EXPECTED_KEYS_REQUIRED,
            optional=EXPECTED_KEYS_OPTIONAL,
        )
        p50_ms, within_ms = (
            self._problems.number(fields[key], f"expected: {key}")
            if key in fields
            else None
            for key in EXPECTED_KEYS_REQUIRED
        )
        over = self._text(fields, "over")
        return Expected(p50_ms, within_ms, over) if p50_ms and within_ms else None

    def _graph(self, value: Value, params: Params) -> GraphFile | None:
        text = self._problems.text(value, "graph")
        if text is None:
            return None
        path = self._path.parent / text
        if not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            self._problems.add(
                value.place,
                f"graph: file '{text}' is not there"
                f"{nearest(text, [p.name for p in beside if p.suffix == '.yaml'])}",
            )
            return None
        try:
            graph = read_graph(path, params=params)
        except FileErrors as errors:
            self._graph_messages = errors.messages
            return None
        if graph.graph.regions or any(a.device for a in graph.graph.actors.values()):
            self._problems.add(
                value.place,
                f"graph: '{text}' has devices in it already; "
                "name the graph that it was made from",
            )
            return None
        return graph

    # Devices

    def _read_groups(self, value: Value) -> None:
        like = '{cam: {role: endpoint}, edge: {role: server, listen: "…"}}'
        for name, entry in self._problems.mapping(value, "devices", like).items():
            self._places[f"group {name}"] = value.keys[name]
            if not _NAME.fullmatch(name):
                self._problems.add(
                    value.keys[name],
                    f"device group '{name}': not a name; begin with a letter and use "
                    "letters, digits, '_', '-', '.'",
                )
            group = self._group(name, entry)
            if group is None:
                self._broken.add(name)
                continue
            self._groups[name] = group
        seen: dict[str, str] = {}
        for group in self._groups.values():
            for instance in group.instances:
                other = seen.setdefault(instance, group.name)
                if other != group.name:
                    self._problems.add(
                        self._places[f"group {group.name}"],
                        f"device '{instance}': also an instance of group '{other}'; "
                        "rename one of the two",
                    )

    def _group(self, name: str, value: Value) -> Group | None:
        where = f"device group '{name}'"
        fields = self._problems.keys(
            value, where, required=GROUP_KEYS_REQUIRED, optional=GROUP_KEYS_OPTIONAL
        )
        if "role" not in fields:
            return None
        role = self._problems.choice(fields["role"], f"{where}: role", ROLES)
        if role is None:
            return None
        count = None
        if "count" in fields:
            count = self._bounded(fields["count"], f"{where}: count", COUNT_MAX)
            if count is None:
                return None
        metrics = None
        if "metrics" in fields:
            metrics = self._listen(fields["metrics"], f"{where}: metrics")
            if metrics is None:
                return None
        if role == "endpoint":
            for key in SERVER_KEYS:
                if key in fields:
                    self._problems.add(
                        fields[key].place,
                        f"{where}: an endpoint dials and has no '{key}'; remove it",
                    )
            return self._computing(
                Group(name, "endpoint", count, metrics=metrics), fields, where
            )
        if "listen" not in fields:
            self._problems.add(
                value.place,
                f"{where}: key 'listen' is missing; say where instance 0 listens, "
                f'as "{_LISTEN_LIKE}"',
            )
            return None
        address = self._listen(fields["listen"], f"{where}: listen")
        if address is None:
            return None
        host, port = address
        group = Group(name, "server", count, host, port, metrics=metrics)
        connect = self._connect(fields, where, group)
        if host in _WILDCARDS and not connect:
            self._problems.add(
                fields["listen"].place,
                f"{where}: others cannot dial '{host}'; add `connect: HOST`, the name "
                "or address by which they reach it",
            )
        most, wait_ms = self._batching(fields, where)
        group = self._computing(group, fields, where)
        return replace(group, connect=connect, batch_max=most, batch_wait_ms=wait_ms)

    def _computing(
        self, group: Group, fields: Mapping[str, Value], where: str
    ) -> Group:
        """Return `group` with what its models compute with."""
        threads = 1
        if "threads" in fields:
            place = f"{where}: threads"
            threads = self._bounded(fields["threads"], place, THREADS_MAX) or 1
        cores = self._cores(fields["cores"], where) if "cores" in fields else ()
        providers: list[str] = []
        if "providers" in fields:
            place = f"{where}: providers"
            items = self._problems.items(
                fields["providers"], place, "[CUDAExecutionProvider]"
            )
            providers = [t for item in items if (t := self._problems.text(item, place))]
        return replace(group, threads=threads, cores=cores, providers=tuple(providers))

    def _cores(self, value: Value, where: str) -> tuple[int, ...]:
        """Return cores written as a text like 0-3, a number, or a list of numbers."""
        data = value.data
        if isinstance(data, list):
            parts = [str(item.data) for item in data]
        else:
            parts = [str(data)]
        try:
            return parse_cores(",".join(parts))
        except UnderstudyError as error:
            self._problems.add(value.place, f"{where}: {error}")
            return ()

    def _batching(self, fields: Mapping[str, Value], where: str) -> tuple[int, float]:
        most, wait_ms = None, None
        if "batch_max" in fields:
            place = f"{where}: batch_max"
            most = self._bounded(fields["batch_max"], place, BATCH_MAX)
        if "batch_wait_ms" in fields:
            value, place = fields["batch_wait_ms"], f"{where}: batch_wait_ms"
            wait_ms = self._problems.number(value, place)
            if "batch_max" not in fields:
                self._problems.add(
                    value.place,
                    f"{place}: nothing to wait for without batches; add `batch_max: 8`",
                )
        return most or 1, wait_ms or 0.0

    def _bounded(self, value: Value, where: str, most: int) -> int | None:
        count = self._problems.integer(value, where, at_least=1)
        if count is not None and count > most:
            self._problems.add(
                value.place, f"{where}: {count} is too large; the most is {most}"
            )
            return None
        return count

    def _listen(self, value: Value, where: str) -> tuple[str, int] | None:
        text = self._problems.text(value, where)
        if text is None:
            return None
        match = _LISTEN.fullmatch(text)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            self._problems.add(
                value.place,
                f"{where}: '{text}' is not an address; "
                f'write tcp://HOST:PORT, as "{_LISTEN_LIKE}"',
            )
            return None
        return match["host"], int(match["port"])

    def _connect(
        self, fields: Mapping[str, Value], where: str, group: Group
    ) -> tuple[str, ...]:
        if "connect" not in fields:
            return ()
        value, place = fields["connect"], f"{where}: connect"
        items = value.data if isinstance(value.data, list) else [value]
        hosts = [text for item in items if (text := self._problems.text(item, place))]
        for host in hosts:
            if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host):
                self._problems.add(
                    value.place,
                    f"{place}: '{host}' is not a host; "
                    "write a name or an address without port",
                )
        if 1 < len(hosts) != len(group.instances):
            self._problems.add(
                value.place,
                f"{place}: {len(hosts)} hosts for {len(group.instances)} devices; "
                "name one host, or one for each",
            )
        return tuple(hosts)

    # Failover

    def _failover(
        self,
        value: Value,
        graph: GraphFile | None,
        mapping: Mapping[str, Placement],
    ) -> tuple[tuple[Choice, ...], Redundancy, float, int | None]:
        fields = self._problems.keys(
            value, "failover", required=(), optional=FAILOVER_KEYS
        )
        deadline_ms: float | None = DEADLINE_MS
        if "deadline_ms" in fields:
            deadline_ms = self._problems.number(
                fields["deadline_ms"], "failover: deadline_ms"
            )
        window = None
        if "window" in fields:
            window = self._bounded(fields["window"], "failover: window", WINDOW_MAX)
        choices = []
        if "order" in fields and graph is not None:
            items = self._problems.items(
                fields["order"], "failover: order", "[{net: edge}, early]"
            )
            choices = [self._choice(item, graph, mapping) for item in items]
        order = tuple(choice for choice in choices if choice is not None)
        for index, choice in enumerate(order):
            for before in order[:index]:
                if (choice.actor, choice.path) == (before.actor, before.path):
                    self._problems.add(
                        choice.place,
                        f"failover: order: '{choice.actor}' stands there before; "
                        "a branch is started once per frame, so remove one",
                    )
        redundancy = STANDBY
        if "redundancy" in fields:
            redundancy = read_redundancy(
                fields["redundancy"], "failover: redundancy", self._problems
            )
        return order, redundancy, deadline_ms or DEADLINE_MS, window

    def _choice(
        self, value: Value, graph: GraphFile, mapping: Mapping[str, Placement]
    ) -> Choice | None:
        where = "failover: order"
        if isinstance(value.data, dict):
            if len(value.data) != 1:
                self._problems.add(
                    value.place,
                    f"{where}: an entry names {len(value.data)} actors; "
                    "write one entry for each, as {net: edge}",
                )
                return None
            name, entry = next(iter(value.data.items()))
            place = value.keys[name]
            items = entry.data if isinstance(entry.data, list) else [entry]
            groups = [self._maps.group_name(i, f"{where}: {name}") for i in items]
            path = tuple(group for group in groups if group is not None)
            if not path or len(path) < len(groups):
                return None
        else:
            text = self._problems.text(value, where)
            if text is None:
                return None
            name, path, place = text, (), value.place
        if name not in graph.graph.actors:
            known: Collection[str] = graph.graph.actors
            self._problems.add(
                place,
                f"{where}: actor '{name}' is not in graph '{graph.graph.name}'"
                f"{nearest(name, known)}",
            )
            return None
        # Naming the group where it is mapped anyway says the same as not naming it.
        placement = mapping.get(name)
        mapped = placement.path[1:] or placement.path if placement else ()
        if path == mapped:
            path = ()
        if len(path) > 1 and len(path) != len(mapped):
            self._problems.add(
                place,
                f"{where}: {name}: {len(path)} groups, but {len(mapped)} of its parts "
                "are on servers; name one group for each of them, or one for all",
            )
            return None
        return Choice(name, path, place)

    def _check_mapped(
        self,
        graph: GraphFile,
        mapping: Mapping[str, Placement],
        order: tuple[Choice, ...],
    ) -> None:
        """Every actor must be mapped, save understudies that never play."""
        for name in graph.graph.actors:
            if any(mark in name for mark in ("[", "]", "@", "#", "/", "+", RANGE)):
                self._problems.add(
                    graph.places[name],
                    f"actor '{name}': '[', ']', '@', '#', '/', '+' and '..' are for "
                    "the names in plain graphs; rename it",
                )
        for name in used_actors(graph, {choice.actor for choice in order}):
            if name in mapping or any(c.actor == name and c.path for c in order):
                continue
            self._problems.add(
                self._places["map"],
                f"map: actor '{name}' is not mapped; name its device group, "
                f"one of {', '.join(self._groups)}",
            )
