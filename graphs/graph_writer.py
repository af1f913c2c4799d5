"""Any graph as the text of a graph file."""

from collections.abc import Mapping, Sequence

import yaml

from dataflow.graph import Actor, Asked, Dpg, Fifo, Graph, Port, PortRef, Region
from dataflow.redundancy import STANDBY
from graphs.actor_types import is_model
from graphs.dynamics_file import REGION_KEYS
from graphs.exits import Exit
from graphs.located_yaml import FLOAT
from graphs.redundancy_file import redundancy_json

try:
    from yaml import CSafeDumper as _SafeDumper
except ImportError:  # PyYAML without libyaml
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]

VERSION = 1
"""Of the graph and deployment file formats."""


def write_graph(
    graph: Graph,
    understudies: Mapping[PortRef, Sequence[PortRef]] | None = None,
    exits: Mapping[PortRef, Exit] | None = None,
) -> str:
    """Return `graph` as the text of a graph file; reading it gives an equal graph.

    Ports are written out, save those of actors that name a model: so no other type is
    needed to read it. Equal holds for graphs whose actors list their inputs before
    their outputs.
    """
    top: dict[str, object] = {
        "understudy": VERSION,
        "graph": graph.name,
        "actors": {actor.name: _actor_json(actor) for actor in graph.actors.values()},
    }
    if graph.fifos:
        top["fifos"] = _Lines(_fifo_json(fifo) for fifo in graph.fifos)
    if understudies:
        top["understudies"] = {
            str(answer): [str(ref) for ref in refs]
            for answer, refs in understudies.items()
        }
    if exits:
        top["exits"] = {
            str(answer): {"answer": str(early.answer), "gate": early.gate}
            for answer, early in exits.items()
        }
    if graph.dpgs:
        top["dpgs"] = {dpg.name: _dpg_json(dpg) for dpg in graph.dpgs}
    if graph.regions:
        top["regions"] = {region.name: _region_json(region) for region in graph.regions}
    return yaml.dump(
        top, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=88
    )


def _actor_json(actor: Actor) -> dict[str, object]:
    fields: dict[str, object] = {}
    if actor.type:
        fields["type"] = actor.type
    if actor.device is not None:
        fields["device"] = actor.device
    if actor.stateful:
        fields["stateful"] = True
    if actor.time is not None:
        whole = actor.time == int(actor.time)
        fields["time"] = int(actor.time) if whole else str(actor.time)
    fields |= actor.params
    if is_model(actor):  # which says them better
        return fields
    fields["ports"] = {
        direction: {port.name: _port_json(port) for port in ports}
        for direction, ports in (("in", actor.inputs), ("out", actor.outputs))
        if ports
    }
    return fields


def _port_json(port: Port) -> object:
    fields: dict[str, object] = {}
    token = str(port.token) if port.token is not None else None
    if port.rates != (1,):
        fields["rate"] = list(port.rates) if port.dynamic else port.rate
    if port.control:
        fields["control"] = True
    if port.optional:
        fields["optional"] = True
    return {"token": token} | fields if fields else token


def _fifo_json(fifo: Fifo) -> object:
    if fifo.capacity is None and not fifo.delay:
        return str(fifo)
    fields: dict[str, object] = {"from": str(fifo.source), "to": str(fifo.target)}
    if fifo.capacity is not None:
        fields["capacity"] = fifo.capacity
    if fifo.delay:
        fields["delay"] = fifo.delay
    return fields


class _Lines(list[object]):
    """A list that is written one item a line."""


class _Dumper(_SafeDumper):
    """Writes what `located_yaml` reads back: no aliases, numbers unmistakable."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if FLOAT.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_lines(dumper: _Dumper, lines: _Lines) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", lines, flow_style=False)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(_Lines, _represent_lines)


def _dpg_json(dpg: Dpg) -> dict[str, object]:
    fields: dict[str, object] = {"controller": dpg.controller}
    if dpg.carried:
        fields["carried"] = sorted(dpg.carried)
    playing = {ref for row in dpg.modes.values() for ref, rate in row.items() if rate}
    modes: dict[str, dict[str, int]] = {}
    for mode, row in dpg.modes.items():
        # Reading gives rate 0 to a port that only other modes name; one that no mode
        # plays is named once, in the first.
        silent = dpg.dynamic_ports - playing if not modes else frozenset()
        kept = [ref for ref, rate in row.items() if rate or ref in silent]
        modes[mode] = {str(ref): row[ref] for ref in kept}
    fields["modes"] = modes
    return fields


def _region_json(region: Region) -> dict[str, object]:
    fields: dict[str, object] = {key: getattr(region, key) for key in REGION_KEYS}
    if region.redundancy != STANDBY:
        fields["redundancy"] = redundancy_json(region.redundancy)
    fields["branches"] = [
        {
            "row": branch.row,
            "actors": list(branch.actors),
            "device": branch.device,
            "quality": branch.quality,
        }
        # Hexadecimal text: as a number it would lose digits in other readers.
        | ({"segment": f"{branch.segment:016x}"} if branch.segment else {})
        | ({"onward": _onward_json(branch.onward)} if branch.onward else {})
        | ({"codec": branch.codec} if branch.codec else {})
        for branch in region.branches
    ]
    return fields


def _onward_json(onward: tuple[Asked, ...]) -> list[dict[str, str]]:
    return [{"device": a.device, "segment": f"{a.segment:016x}"} for a in onward]
