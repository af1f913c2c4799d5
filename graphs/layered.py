"""A graph with every whole model replaced by one actor for each of its layer groups."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from dataflow.graph import Actor, Fifo, PortRef
from graphs.actor_types import (
    add_tap,
    fresh_name,
    inputs_first,
    is_model,
    model_ports,
    onnx_ports,
    port_of_tensor,
)
from graphs.graph_file import GraphFile
from graphs.groups import Group, groups
from graphs.located_yaml import Problems


def layered(file: GraphFile) -> GraphFile:
    """Return the graph of `file` with its models taken apart into layer groups.

    The actors of a model `net` are called ``net.GROUP``; FIFOs lead where they led. A
    tensor with several readers has a port, a tap, for each. What is no whole model,
    keeps a state or has one group only stays as it is. Layers that nothing in the graph
    needs are left out.

    Raises:
        FileErrors: A model has an input that none of its nodes reads.
    """
    problems = Problems()
    apart: dict[str, _Layers] = {}
    for actor in file.graph.actors.values():
        if is_model(actor) and not actor.stateful:
            part = file.models.of(actor.params)
            found = groups(part.model) if part.is_whole else ()
            found = _used(file, actor, found)
            if len(found) > 1:
                apart[actor.name] = _Layers(file, actor, found)
    for name, layers in apart.items():
        for tensor in layers.unread:
            problems.add(
                file.places[name],
                f"actor '{name}': no node of its model reads the input '{tensor}'; "
                "remove it from the model",
            )
    problems.raise_if_any()
    return _replaced(file, apart)


def _used(file: GraphFile, actor: Actor, found: tuple[Group, ...]) -> tuple[Group, ...]:
    """Return those of the groups of a model that the graph has a use for.

    Outputs of the model that lead nowhere are computed by no actor.
    """
    refs = [fifo.source for fifo in file.graph.fifos]
    refs += [ref for refs in file.understudies.values() for ref in refs]
    refs += [early.answer for early in file.exits.values()]
    tensors = port_of_tensor(actor, file.models)
    wanted = {tensors[ref.port] for ref in refs if ref.actor == actor.name}
    kept: list[Group] = []
    for group in reversed(found):
        nodes = group.part.model.nodes
        if any(not wanted.isdisjoint(nodes[index].output) for index in group.nodes):
            kept.append(group)
            wanted |= set(group.part.inputs)
    return tuple(reversed(kept)) or found


def _replaced(file: GraphFile, apart: Mapping[str, "_Layers"]) -> GraphFile:
    def source(ref: PortRef) -> PortRef:
        return apart[ref.actor].output(ref.port) if ref.actor in apart else ref

    def target(ref: PortRef) -> PortRef:
        return apart[ref.actor].input(ref.port) if ref.actor in apart else ref

    places = dict(file.places)
    between = {name: layers.fifos for name, layers in apart.items()}
    places |= {str(f): file.places[name] for name, fs in between.items() for f in fs}
    fifos: list[Fifo] = []
    for fifo in file.graph.fifos:
        fifos += between.pop(fifo.source.actor, ())
        moved = replace(fifo, source=source(fifo.source), target=target(fifo.target))
        places[str(moved)] = file.places[str(fifo)]
        fifos.append(moved)
    understudies = {}
    for key, refs in file.understudies.items():
        understudies[source(key)] = tuple(source(ref) for ref in refs)
        places[f"understudies {source(key)}"] = file.places[f"understudies {key}"]
    exits = {}
    for key, early in file.exits.items():
        exits[source(key)] = replace(early, answer=source(early.answer))
        places[f"exits {source(key)}"] = file.places[f"exits {key}"]
    actors: dict[str, Actor] = {}
    for actor in file.graph.actors.values():
        for made in apart[actor.name].actors() if actor.name in apart else (actor,):
            actors[made.name] = made
            places[made.name] = file.places[actor.name]
    return replace(
        file,
        graph=replace(
            file.graph, actors=actors, fifos=(*fifos, *chain(*between.values()))
        ),
        understudies=understudies,
        exits=exits,
        places=places,
    )


class _Layers:
    """The actors in the place of one model, and where its ports have gone.

    Attributes:
        fifos: Between the actors.
        unread: Inputs of the model that no group reads.
    """

    def __init__(self, file: GraphFile, actor: Actor, found: tuple[Group, ...]) -> None:
        self._actor = actor
        self._models = file.models
        self._tensors = port_of_tensor(actor, file.models)
        self._params: dict[str, dict[str, object]] = {}
        self._maker: dict[str, str] = {}
        """Tensor -> the actor that makes it; of an input, the first that reads it."""
        self._takes: dict[str, list[PortRef]] = {}
        """Tensor -> the input ports that take it, in feeding order."""
        self._free: dict[str, PortRef] = {}
        """Tensor -> the output port for it, as long as that leads nowhere."""
        self._moved: dict[str, PortRef] = {}
        for group in found:
            taken = (*file.graph.actors, *self._params)
            self._add(fresh_name(f"{actor.name}.{group.name}", taken), group)
        inputs = found[0].part.model.inputs
        self.unread = [name for name in inputs if name not in self._takes]
        self.fifos = [
            Fifo(self._leave(tensor), target)
            for tensor, targets in self._takes.items()
            for target in (targets[1:] if tensor in inputs else targets)
        ]

    def _add(self, name: str, group: Group) -> None:
        part = group.part
        self._params[name] = {
            **{k: p for k, p in self._actor.params.items() if k in ("model", "dims")},
            "from": list(part.inputs),
            "to": list(part.outputs),
        }
        ports, _ = onnx_ports(*part.interface())
        refs = [PortRef(name, port.name) for port in ports]
        for ref, tensor in zip(refs, part.inputs, strict=False):
            self._takes.setdefault(tensor, []).append(ref)
            self._maker.setdefault(tensor, name)
        self._free |= dict(zip(part.outputs, refs[len(part.inputs) :], strict=True))
        for index in group.nodes:
            self._maker |= dict.fromkeys(part.model.nodes[index].output, name)

    def _leave(self, tensor: str) -> PortRef:
        """Return a port where `tensor` can be had, which leads nowhere yet."""
        if tensor in self._free:
            return self._free.pop(tensor)
        actor = self._maker[tensor]
        return PortRef(actor, add_tap(self._params[actor], tensor, self._models))

    def input(self, port: str) -> PortRef:
        """Return the port that takes what the model's input port took."""
        return self._takes[self._tensors[port]][0]

    def output(self, port: str) -> PortRef:
        """Return the port that has what the model's output port, or tap, had."""
        if port not in self._moved:
            self._moved[port] = self._leave(self._tensors[port])
        return self._moved[port]

    def actors(self) -> list[Actor]:
        """Return the actors, with the taps that were asked for."""
        return [
            replace(
                self._actor,
                name=name,
                ports=inputs_first(model_ports(params, self._models)),
                params=params,
                time=None,  # nobody knows how it divides
            )
            for name, params in self._params.items()
        ]
