"""From what a graph file says of an actor to its ports.

A library type says its ports itself. An `onnx` actor with a `model` has the model's
inputs and outputs, or the tensors that it names under `from` and `to`, and a port for
each tap. A `normalise` without a shape takes that of the port that feeds it. Any other
actor with explicit `ports:` is taken at its word: its type need not even be importable
here, and plain graphs are such files.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import actors
from dataflow.behaviour import Behaviour
from dataflow.errors import UnderstudyError, nearest
from dataflow.graph import Actor, Port, TokenType
from graphs.located_yaml import Place, Problems
from graphs.onnx_model import Model, Tensor
from graphs.segment_file import copy_name
from graphs.submodel import SubModel, submodel

PATH_PARAMS = ("path", "model", "file")
"""Parameters that name a file, relative to the file that they stand in."""

ONNX_TYPE = "onnx"
_ONNX_PARAMS = ("model", "from", "to", "taps", "dims")
_SEGMENT_PLACEHOLDER = "0" * 64
_FED: Mapping[str, tuple[str, str, Callable[[TokenType], object]]] = {
    "normalise": ("pixels", "shape", lambda token: list(token.shape)),
    "batch": ("one", "token", str),
    "sample": ("frame", "token", str),
}
"""Type -> the port whose feeding port gives, unless given, a parameter; and how."""

_NAMED_PARAM = re.compile(r"parameters? '(\w+)'")


@dataclass(slots=True, eq=False)
class ActorEntry:
    """What a graph file says of one actor."""

    name: str
    type: str
    place: Place
    type_place: Place
    params: dict[str, object]
    param_places: Mapping[str, Place]
    ports: tuple[Port, ...] | None
    device: str | None
    stateful: bool
    time: Fraction | None = None


@dataclass(slots=True)
class Models:
    """The models that a graph names, each loaded once."""

    _loaded: dict[tuple[object, ...], Model] = field(default_factory=dict)
    _parts: dict[tuple[object, ...], SubModel] = field(default_factory=dict)

    def of(self, params: Mapping[str, object]) -> SubModel:
        """Return what an `onnx` actor with the parameter `model` computes.

        Raises:
            UnderstudyError: `from` or `to` do not bound a part of the model.
        """
        path, sizes = str(params["model"]), _sizes(params)
        start, end = _tensors(params, "from"), _tensors(params, "to")
        key = (path, start, end, *sizes.items())
        if key not in self._parts:
            self._parts[key] = submodel(self.at(path, sizes), start, end)
        return self._parts[key]

    def at(self, path: str, sizes: Mapping[str, int]) -> Model:
        key = (path, *sizes.items())
        if key not in self._loaded:
            self._loaded[key] = Model.read(Path(path), sizes)
        return self._loaded[key]


def is_model(actor: Actor | ActorEntry) -> bool:
    """Say whether the actor is an ONNX model or a part of one, which can be cut."""
    return actor.type == ONNX_TYPE and "model" in actor.params


def is_part(actor: Actor, models: Models) -> bool:
    """Say whether the actor is a part of an ONNX model, and not all of it."""
    return is_model(actor) and not models.of(actor.params).is_whole


def _tensors(params: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    """Return the tensors that a parameter names, one or a list of them."""
    value = params.get(name)
    if value is None and name not in params:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(
        isinstance(each, str) for each in names
    ):
        raise UnderstudyError(
            f"parameter '{name}': {value!r} is not a tensor name or a list of them; "
            "write [conv1]"
        )
    return tuple(names)


def _sizes(params: Mapping[str, object]) -> dict[str, int]:
    """Return the sizes that an actor gives to open dimensions of its model."""
    value = params.get("dims", {})
    if not isinstance(value, dict) or not all(
        type(size) is int and size > 0 for size in value.values()
    ):
        raise UnderstudyError(
            f"parameter 'dims': {value!r} is not a mapping of names to sizes; write "
            "{height: 320, width: 320}"
        )
    return {str(name): size for name, size in value.items()}


def behaviour_of(type_name: str) -> type[Behaviour]:
    """Return the class of a type; any mistake in it is an UnderstudyError."""
    return actors.behaviour(type_name)


def onnx_ports(
    inputs: Iterable[Tensor], outputs: Iterable[Tensor]
) -> tuple[tuple[Port, ...], dict[str, object]]:
    """Return ports and parameters (without `segment`) of an `onnx` actor.

    The library names the ports after the tensors; they stand in the tensors' order.
    """
    params: dict[str, object] = {
        "inputs": [tensor.json() for tensor in inputs],
        "outputs": [tensor.json() for tensor in outputs],
    }
    ports = behaviour_of(ONNX_TYPE).ports({"segment": _SEGMENT_PLACEHOLDER, **params})
    return ports, params


def port_of_tensor(actor: Actor, models: Models) -> dict[str, str]:
    """Return port name -> tensor name of a model or a part of one, taps included."""
    part = models.of(actor.params)
    own, _ = onnx_ports(*part.interface())
    names = [port.name for port in own]
    tensors = dict(zip(names, (*part.inputs, *part.outputs), strict=True))
    return tensors | _taps(actor.params)


def _taps(params: Mapping[str, object]) -> dict[str, str]:
    taps = params.get("taps", {})
    if not isinstance(taps, dict) or not all(isinstance(t, str) for t in taps.values()):
        raise UnderstudyError(
            f"parameter 'taps': {taps!r} is not a mapping; write {{port: tensor}}"
        )
    return {str(port): str(tensor) for port, tensor in taps.items()}


def model_ports(params: Mapping[str, object], models: Models) -> tuple[Port, ...]:
    """Return the ports of an `onnx` actor with the parameter `model`.

    Raises:
        UnderstudyError: A parameter is unknown, or names what is not there.
    """
    for name in params:
        if name not in _ONNX_PARAMS:
            raise UnderstudyError(
                f"parameter '{name}': unknown{nearest(name, _ONNX_PARAMS)}; an onnx "
                f"actor with a model has {', '.join(_ONNX_PARAMS[1:])} and nothing else"
            )
    part = models.of(params)
    own, _ = onnx_ports(*part.interface())
    taps = [_tap_port(part, t, p) for p, t in _taps(params).items()]
    # No output of a model need be used: a segment exports only what is.
    return tuple(
        replace(port, optional=True) if port.direction == "out" else port
        for port in (*own, *taps)
    )


def add_tap(params: dict[str, object], tensor: str, models: Models) -> str:
    """Give an `onnx` actor one more output port, for `tensor`; return its name.

    Raises:
        UnderstudyError: No such tensor in what the actor computes.
    """
    part = models.of(params)
    port = _tap_port(part, tensor, "")
    taps = _taps(params)
    own, _ = onnx_ports(*part.interface())
    name = fresh_name(port.name, {p.name for p in own} | set(taps))
    params["taps"] = taps | {name: tensor}
    return name


class ActorReader:
    """Gives every actor of a file its ports, and notes what cannot have any."""

    def __init__(self, models: Models, problems: Problems) -> None:
        self._models = models
        self._problems = problems
        self.actors: dict[str, Actor] = {}
        self._unfed: list[ActorEntry] = []
        """Those that lack a parameter because what feeds them is wrong or missing."""

    def tap(self, entry: ActorEntry, tensor: str) -> str:
        """Give an `onnx` actor one more output port, for `tensor`; return its name.

        Raises:
            UnderstudyError: No such tensor in what the actor computes.
        """
        return add_tap(entry.params, tensor, self._models)

    def read(self, entries: Iterable[ActorEntry], feeds: Mapping[str, str]) -> None:
        """Fill `actors`.

        Args:
            entries: What the file says, in its order.
            feeds: Target -> source of each FIFO, as ``actor.port``.
        """
        order = [entry.name for entry in entries]
        waiting = list(entries)
        while waiting:
            later = [e for e in waiting if self._waits(e, feeds, waiting)]
            for entry in waiting:
                if entry not in later or len(later) == len(waiting):
                    self._resolve(entry)
            waiting = later if len(later) < len(waiting) else []
        self.actors = {n: self.actors[n] for n in order if n in self.actors}

    def _waits(
        self,
        entry: ActorEntry,
        feeds: Mapping[str, str],
        waiting: Iterable[ActorEntry],
    ) -> bool:
        """Fill in what the feeding port gives; say whether that one is yet to come."""
        if entry.type not in _FED or entry.ports is not None:
            return False
        port_name, param, given = _FED[entry.type]
        source = feeds.get(f"{entry.name}.{port_name}")
        if param in entry.params or source is None:
            return False
        actor_name, _, source_port = source.rpartition(".")
        actor = self.actors.get(actor_name)
        if actor is None and any(e.name == actor_name for e in waiting):
            return True
        outputs = actor.outputs if actor else ()
        token = next((p.token for p in outputs if p.name == source_port), None)
        if token is not None:
            entry.params[param] = given(token)
        else:
            self._unfed.append(entry)
        return False

    def blame_unfed(self) -> None:
        """Note what `_unfed` lack, unless other problems say already why."""
        if not self._problems:
            for entry in self._unfed:
                port_name, param, _ = _FED[entry.type]
                self._problems.add(
                    entry.place,
                    f"actor '{entry.name}': what feeds its port '{port_name}' has no "
                    f"shape; give it the parameter '{param}'",
                )

    def _resolve(self, entry: ActorEntry) -> None:
        if entry in self._unfed:
            return
        try:
            ports, stateful = self._ports(entry)
        except UnderstudyError as error:
            named = _NAMED_PARAM.match(str(error))
            param = named[1] if named else ""
            place = entry.param_places.get(param) or (
                entry.place if named else entry.type_place
            )
            self._problems.add(place, f"actor '{entry.name}': {error}")
            return
        self.actors[entry.name] = Actor(
            name=entry.name,
            type=entry.type,
            ports=inputs_first(ports),
            params=entry.params,
            device=entry.device,
            stateful=stateful,
            time=entry.time,
        )

    def _ports(self, entry: ActorEntry) -> tuple[tuple[Port, ...], bool]:
        if is_model(entry):
            ports = model_ports(entry.params, self._models)
            _check_written(entry.ports, ports)
            return ports, entry.stateful
        if entry.ports is not None:
            return entry.ports, entry.stateful
        found = behaviour_of(entry.type)
        try:
            ports = found.ports(entry.params)
        except UnderstudyError:
            raise
        except Exception as error:  # the code of a user's own type
            raise UnderstudyError(
                f"type '{entry.type}' raised {type(error).__name__}: {error} while "
                "naming its ports; correct its method `ports`"
            ) from error
        return ports, entry.stateful or found.stateful


def _check_written(written: tuple[Port, ...] | None, ports: tuple[Port, ...]) -> None:
    """Check ports that a file writes out beside a model against the model's own."""
    known = {(port.name, port.direction, port.token) for port in ports}
    for port in written or ():
        if (port.name, port.direction, port.token) not in known:
            listed = ", ".join(f"{p.name} {p.token}" for p in ports)
            raise UnderstudyError(
                f"port '{port.name}': its model has no such {port.direction}put of "
                f"type {port.token}; leave `ports` out: they are {listed}"
            )


def _tap_port(part: SubModel, tensor: str, name: str) -> Port:
    """Return the output port for a tap, called `name` or, without one, as its tensor.

    Raises:
        UnderstudyError: No such tensor.
    """
    found = part.tensor(tensor)
    if tensor in part.inputs:
        found = replace(found, name=copy_name(tensor))
    inputs, _ = part.interface()
    ports, _ = onnx_ports(inputs, (found,))
    return replace(ports[-1], name=name or ports[-1].name)


def inputs_first(ports: Iterable[Port]) -> tuple[Port, ...]:
    """Return ports with the inputs first, each direction in its order.

    Firing depends on nothing else, and a graph file, which lists the directions apart,
    could hold no other order.
    """
    return tuple(sorted(ports, key=lambda port: port.direction != "in"))


def fresh_name(name: str, taken: Iterable[str]) -> str:
    """Return `name`, or with a number after it if it is taken."""
    known = set(taken)
    if name not in known:
        return name
    return next(
        n for i in range(2, len(known) + 3) if (n := f"{name}_{i}") not in known
    )
