"""The dynamic parts of a graph file: control tables and regions.

A mode lists the ports that have tokens in it: those that it leaves out, and that
another mode names, have rate 0. So a row of a table says who plays, and the plain graph
of many servers does not grow with the square of their number.
"""

from collections.abc import Collection
from typing import Literal

from dataflow.errors import UnderstudyError, nearest
from dataflow.graph import Asked, Branch, Dpg, Graph, PortRef, Region
from dataflow.redundancy import STANDBY
from graphs.located_yaml import Place, Problems, Value
from graphs.redundancy_file import read_redundancy

DPG_KEYS_REQUIRED = ("controller", "modes")
DPG_KEYS_OPTIONAL = ("carried",)
REGION_ACTOR_KEYS = ("source", "sink", "control", "fork", "join")
REGION_KEYS = ("stream", *REGION_ACTOR_KEYS, "window", "deadline_ms", "branches")
REGION_KEYS_OPTIONAL = ("redundancy",)
BRANCH_KEYS_REQUIRED = ("row", "actors", "device", "quality")
BRANCH_KEYS_OPTIONAL = ("segment", "onward", "codec")
ONWARD_KEYS = ("device", "segment")

_DPG_LIKE = "{gate: {controller: chooser, modes: {on: {net.input: 1}}}}"


def read_dpgs(
    value: Value, graph: Graph, broken: Collection[str], problems: Problems
) -> tuple[Dpg, ...]:
    """Return the DPGs of a file.

    Args:
        value: What stands under `dpgs`.
        graph: The actors and FIFOs of the same file.
        broken: Actors that are in the file but not in `graph`.
        problems: Takes what is wrong.
    """
    listed = problems.mapping(value, "dpgs", _DPG_LIKE)
    return tuple(
        _DpgReader(name, graph, broken, problems).read(dpg)
        for name, dpg in listed.items()
    )


class _DpgReader:
    def __init__(
        self, name: str, graph: Graph, broken: Collection[str], problems: Problems
    ) -> None:
        self._name = name
        self._where = f"dpg '{name}'"
        self._graph = graph
        self._broken = broken
        self._problems = problems

    def read(self, value: Value) -> Dpg:
        fields = self._problems.keys(
            value,
            self._where,
            required=DPG_KEYS_REQUIRED,
            optional=DPG_KEYS_OPTIONAL,
        )
        controller = ""
        if "controller" in fields:
            where = f"{self._where}: controller"
            controller = self._problems.text(fields["controller"], where) or ""
            self._known_actor(controller, where, fields["controller"].place)
        modes = self._modes(fields["modes"]) if "modes" in fields else {}
        carried = _names(fields, "carried", self._where, self._problems)
        for item, name in carried:
            self._known_actor(name, f"{self._where}: carried", item.place)
        return Dpg(self._name, controller, modes, frozenset(n for _, n in carried))

    def _known_actor(self, name: str, where: str, place: Place) -> bool:
        if name in self._graph.actors:
            return True
        if name and name not in self._broken:
            self._problems.add(
                place,
                f"{where}: actor '{name}' is not in the graph"
                f"{nearest(name, self._graph.actors)}",
            )
        return False

    def _modes(self, value: Value) -> dict[str, dict[PortRef, int]]:
        where = f"{self._where}: modes"
        modes: dict[str, dict[PortRef, int]] = {}
        for mode, row in self._problems.mapping(value, where, _DPG_LIKE).items():
            place = f"{self._where}: mode '{mode}'"
            rates = {}
            for key, rate in self._problems.mapping(row, place, _DPG_LIKE).items():
                ref = self._ref(key, place, row.keys[key])
                count = self._problems.integer(rate, f"{place}: {key}", at_least=0)
                if ref is not None and count is not None:
                    rates[ref] = count
                    self._check_rate(ref, count, place, rate)
            modes[mode] = rates
        named = {ref for rates in modes.values() for ref in rates}
        # Where 0 is not allowed the rate stays missing, and rule R2 says so.
        silent = {ref: 0 for ref in sorted(named) if 0 in self._graph.port(ref).rates}
        return {mode: {**silent, **rates} for mode, rates in modes.items()}

    def _ref(self, text: str, where: str, place: Place) -> PortRef | None:
        try:
            ref = PortRef.parse(text)
        except UnderstudyError as error:
            self._problems.add(place, f"{where}: {error}")
            return None
        if not self._known_actor(ref.actor, where, place):
            return None
        names = [port.name for port in self._graph.actors[ref.actor].ports]
        if ref.port in names:
            return ref
        self._problems.add(
            place,
            f"{where}: actor '{ref.actor}' has no port '{ref.port}'"
            f"{nearest(ref.port, names)}; its ports are {', '.join(names)}",
        )
        return None

    def _check_rate(self, ref: PortRef, rate: int, where: str, value: Value) -> None:
        allowed = self._graph.port(ref).rates
        if rate not in allowed:
            self._problems.add(
                value.place,
                f"{where}: rate {rate} of {ref} is not one of its rates "
                f"{'|'.join(map(str, allowed))}; "
                "name one of them, or allow it at the port (R2)",
            )


def _names(
    fields: dict[str, Value], key: str, where: str, problems: Problems
) -> list[tuple[Value, str]]:
    if key not in fields:
        return []
    items = problems.items(fields[key], f"{where}: {key}", f"{key}: [a, b]")
    texts = [(item, problems.text(item, f"{where}: {key}")) for item in items]
    return [(item, text) for item, text in texts if text is not None]


def read_regions(value: Value, graph: Graph, problems: Problems) -> tuple[Region, ...]:
    """Return the regions of a file; arguments as for `read_dpgs`."""
    like = "the regions that `check --expand` prints"
    regions = []
    for name, entry in problems.mapping(value, "regions", like).items():
        region = _region(name, entry, graph, problems)
        if region is not None:
            regions.append(region)
    return tuple(regions)


def _region(name: str, value: Value, graph: Graph, problems: Problems) -> Region | None:
    where = f"region '{name}'"
    fields = problems.keys(
        value, where, required=REGION_KEYS, optional=REGION_KEYS_OPTIONAL
    )
    if any(key not in fields for key in REGION_KEYS):
        return None
    roles = {}
    for key in REGION_ACTOR_KEYS:
        roles[key] = problems.text(fields[key], f"{where}: {key}") or ""
        if roles[key] not in graph.actors:
            problems.add(
                fields[key].place,
                f"{where}: {key} '{roles[key]}' is not an actor"
                f"{nearest(roles[key], graph.actors)}",
            )
    window = problems.integer(fields["window"], f"{where}: window", at_least=1)
    deadline_ms = problems.number(fields["deadline_ms"], f"{where}: deadline_ms")
    items = problems.items(fields["branches"], f"{where}: branches", "a list of rows")
    redundancy = STANDBY
    if "redundancy" in fields:
        place = f"{where}: redundancy"
        redundancy = read_redundancy(fields["redundancy"], place, problems)
    return Region(
        name=name,
        stream=problems.text(fields["stream"], f"{where}: stream") or "",
        **roles,
        branches=tuple(_branch(item, where, graph, problems) for item in items),
        window=window or 1,
        deadline_ms=deadline_ms or 1.0,
        redundancy=redundancy,
    )


def _branch(value: Value, where: str, graph: Graph, problems: Problems) -> Branch:
    fields = problems.keys(
        value,
        f"{where}: branch",
        required=BRANCH_KEYS_REQUIRED,
        optional=BRANCH_KEYS_OPTIONAL,
    )
    texts = {
        key: (problems.text(fields[key], f"{where}: {key}") or "")
        if key in fields
        else ""
        for key in ("row", "device")
    }
    quality: Literal["full", "degraded"] = "full"
    if "quality" in fields:
        known = ("full", "degraded")
        found = problems.choice(fields["quality"], f"{where}: quality", known)
        quality = "degraded" if found == "degraded" else "full"
    members = _names(fields, "actors", where, problems)
    for item, name in members:
        if name not in graph.actors:
            problems.add(
                item.place,
                f"{where}: '{name}' is not an actor{nearest(name, graph.actors)}",
            )
    return Branch(
        row=texts["row"],
        actors=tuple(name for _, name in members),
        device=texts["device"],
        quality=quality,
        segment=_identity(fields["segment"], where, problems)
        if "segment" in fields
        else 0,
        onward=_onward(fields["onward"], where, problems) if "onward" in fields else (),
        codec=problems.text(fields["codec"], f"{where}: codec") or ""
        if "codec" in fields
        else "",
    )


def _onward(value: Value, where: str, problems: Problems) -> tuple[Asked, ...]:
    where = f"{where}: onward"
    found = []
    for item in problems.items(value, where, '[{device: edge, segment: "…"}]'):
        fields = problems.keys(item, where, required=ONWARD_KEYS, optional=())
        if fields.keys() == set(ONWARD_KEYS):
            device = problems.text(fields["device"], f"{where}: device") or ""
            found.append(Asked(device, _identity(fields["segment"], where, problems)))
    return tuple(found)


def _identity(value: Value, where: str, problems: Problems) -> int:
    text = problems.text(value, f"{where}: segment") or "0"
    try:
        return int(text, 16)
    except ValueError:
        problems.add(value.place, f"{where}: segment '{text}' is not hexadecimal")
        return 0
