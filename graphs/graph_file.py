"""Graph files: what is computed, as YAML.

A graph file that a person writes names actors by type, FIFOs as ``a.x -> b.y``, taps as
``net@tensor -> b.y``, under `understudies`, which ports may answer in whose place and,
under `exits`, which may answer first.
The same format holds every graph there is, explicit ports, devices, DPGs and regions
included, so that the plain graph behind a deployment is a file of its own kind.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataflow.errors import UnderstudyError, nearest
from dataflow.graph import Actor, Fifo, Graph, PortRef
from graphs import dynamics_file
from graphs.actor_entries import EntryReader, Params
from graphs.actor_types import (
    ActorReader,
    Models,
    behaviour_of,
    is_model,
    model_ports,
)
from graphs.exits import Exit, undivided
from graphs.graph_writer import VERSION, write_graph
from graphs.located_yaml import Place, Problems, Value, load

__all__ = ["GraphFile", "Params", "read_graph", "write_graph"]

KEYS_REQUIRED = ("understudy", "graph", "actors")
KEYS_OPTIONAL = ("fifos", "understudies", "exits", "dpgs", "regions")
EXIT_KEYS = ("answer", "gate")
FIFO_KEYS_REQUIRED = ("from", "to")
FIFO_KEYS_OPTIONAL = ("capacity", "delay")

ARROW = " -> "


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph as its file gives it.

    Attributes:
        understudies: Answering port -> the ports that may answer in its place.
        exits: Answering port -> who may answer before it.
        places: Where each actor (by name) and each FIFO (as ``a.x -> b.y``) stands.
        models: The ONNX models of its actors.
    """

    path: Path
    graph: Graph
    understudies: Mapping[PortRef, tuple[PortRef, ...]]
    exits: Mapping[PortRef, Exit]
    places: Mapping[str, Place] = field(compare=False)
    models: Models = field(compare=False)

    @property
    def undivided(self) -> Graph:
        """The graph by itself, undeployed, with its exits written out."""
        return undivided(self.graph, self.exits)


def read_graph(path: Path, *, params: Params | None = None) -> GraphFile:
    """Return the graph in the file `path`.

    Args:
        path: The file. Paths inside it are relative to its folder.
        params: Actor -> parameters that replace those in the file.

    Raises:
        MisuseError: No such file, or `params` names an actor that is not in it.
        FileErrors: Something is wrong inside; it holds all that was found.
    """
    problems = Problems()
    reader = _GraphReader(path, load(path), problems)
    graph_file = reader.read(params or {})
    problems.raise_if_any()
    return graph_file


def check_version(top: Mapping[str, Value], problems: Problems, kind: str) -> None:
    """Note a problem unless the file says ``understudy: 1``."""
    version = top.get("understudy")
    if version is not None and version.data != VERSION:
        problems.add(
            version.place,
            f"understudy: version {version.describe()} of {kind} files is not known; "
            f"write `understudy: {VERSION}`",
        )


class _GraphReader:
    def __init__(self, path: Path, root: Value, problems: Problems) -> None:
        self._path = path
        self._root = root
        self._problems = problems
        self._models = Models()
        self._types = ActorReader(self._models, problems)
        reader = EntryReader(path, root.place, problems)
        self._reader = reader
        self._entries, self._broken = reader.entries, reader.broken
        self._places = reader.places

    def read(self, params: Params) -> GraphFile:
        top = self._problems.keys(
            self._root,
            "graph file",
            required=KEYS_REQUIRED,
            optional=KEYS_OPTIONAL,
        )
        check_version(top, self._problems, "graph")
        name = self._problems.text(top["graph"], "graph") if "graph" in top else None
        if "actors" in top:
            self._reader.read(top["actors"], params)
        lines = self._fifo_lines(top["fifos"]) if "fifos" in top else []
        self._types.read(
            self._entries.values(), {line.target: line.source for line in lines}
        )
        self._broken |= set(self._entries) - set(self._types.actors)
        fifos = self._fifos(lines)
        understudies = (
            self._understudies(top["understudies"]) if "understudies" in top else {}
        )
        exits = self._exits(top["exits"]) if "exits" in top else {}
        self._types.blame_unfed()
        early = {ref for refs in understudies.values() for ref in refs}
        early |= {found.answer for found in exits.values()}
        actors = _with_optional(self._types.actors, early)
        graph = Graph(name or "", actors, fifos)
        if "dpgs" in top:
            dpgs = dynamics_file.read_dpgs(
                top["dpgs"], graph, self._broken, self._problems
            )
            graph = replace(graph, dpgs=dpgs)
        if "regions" in top:
            regions = dynamics_file.read_regions(top["regions"], graph, self._problems)
            graph = replace(graph, regions=regions)
        return GraphFile(
            self._path, graph, understudies, exits, self._places, self._models
        )

    # FIFOs

    def _fifo_lines(self, value: Value) -> list["_FifoLine"]:
        items = self._problems.items(value, "fifos", "- camera.frame -> net.input")
        lines = [self._fifo_line(item) for item in items]
        return [line for line in lines if line is not None]

    def _fifo_line(self, value: Value) -> "_FifoLine | None":
        if isinstance(value.data, dict):
            fields = self._problems.keys(
                value,
                "fifo",
                required=FIFO_KEYS_REQUIRED,
                optional=FIFO_KEYS_OPTIONAL,
            )
            ends = [
                self._problems.text(fields[key], f"fifo: {key}")
                for key in FIFO_KEYS_REQUIRED
                if key in fields
            ]
            if len(ends) != 2 or None in ends:
                return None
            source, target = str(ends[0]), str(ends[1])
        else:
            text = self._problems.text(value, "fifo")
            if text is None:
                return None
            source, arrow, target = text.partition(ARROW)
            if not arrow:
                self._problems.add(
                    value.place,
                    f"fifo '{text}': not of the form actor.port -> actor.port",
                )
                return None
            fields = {}
        source, target = source.strip(), target.strip()
        where = f"fifo {source} -> {target}"
        capacity = delay = None
        if "capacity" in fields:
            capacity = self._problems.integer(
                fields["capacity"], f"{where}: capacity", at_least=1
            )
        if "delay" in fields:
            delay = self._problems.integer(
                fields["delay"], f"{where}: delay", at_least=0
            )
        source = self._tapped(source, where, value.place)
        return _FifoLine(source, target, capacity, delay or 0, where, value.place)

    def _tapped(self, source: str, where: str, place: Place) -> str:
        """Return ``actor.port`` for a tap ``actor@tensor``; any other text as it is.

        Names in plain graphs hold '@' too: it is a tap only if no actor of that name
        is there, and one of the name in front of the '@' is.
        """
        name, at, tensor = source.partition("@")
        if not at or source.rpartition(".")[0] in self._entries:
            return source
        entry = self._entries.get(name)
        if entry is None:
            known = [n for n, e in self._entries.items() if is_model(e)]
            if name not in self._broken:
                self._problems.add(
                    place,
                    f"{where}: actor '{name}' is not in the graph"
                    f"{nearest(name, known)}",
                )
            return ""
        if not is_model(entry):
            self._problems.add(
                place,
                f"{where}: '{name}' is of type '{entry.type}'; "
                "only an onnx actor with a model can be tapped",
            )
            return ""
        try:
            model_ports(entry.params, self._models)
        except UnderstudyError:
            return ""  # noted where the actor stands
        try:
            return f"{name}.{self._types.tap(entry, tensor)}"
        except UnderstudyError as error:
            self._problems.add(place, f"{where}: {error}")
            return ""

    def _fifos(self, lines: list["_FifoLine"]) -> tuple[Fifo, ...]:
        used: dict[PortRef, str] = {}
        fifos = []
        for line in lines:
            source = self._end(line, line.source, "out")
            target = self._end(line, line.target, "in")
            if source is None or target is None:
                continue
            for ref in (source, target):
                if ref in used:
                    self._problems.add(
                        line.place,
                        f"{line.where}: port {ref} has {used[ref]} already; a port has "
                        "one FIFO, so copy tokens with an actor of two outputs",
                    )
                used.setdefault(ref, line.where)
            fifo = Fifo(source, target, line.capacity, line.delay)
            self._check_ends(line, fifo)
            self._places.setdefault(str(fifo), line.place)
            fifos.append(fifo)
        return tuple(fifos)

    def _end(self, line: "_FifoLine", text: str, direction: str) -> PortRef | None:
        if not text:
            return None  # a tap that was noted already
        ref = self.port(text, line.where, line.place)
        if ref is None:
            return None
        port = self._types.actors[ref.actor].port(ref.port)
        if port.direction != direction:
            begins = "starts at an output" if direction == "out" else "ends at an input"
            kind = "input" if port.direction == "in" else "output"
            self._problems.add(
                line.place, f"{line.where}: {ref} is an {kind}; a FIFO {begins}"
            )
            return None
        return ref

    def port(self, text: str, where: str, place: Place) -> PortRef | None:
        """Return the port that `text` names, or None with a problem noted."""
        try:
            ref = PortRef.parse(text)
        except UnderstudyError as error:
            self._problems.add(place, f"{where}: {error}")
            return None
        if ref.actor in self._broken:
            return None
        actor = self._types.actors.get(ref.actor)
        if actor is None:
            known = [*self._types.actors, *self._broken]
            self._problems.add(
                place,
                f"{where}: actor '{ref.actor}' is not in the graph"
                f"{nearest(ref.actor, known)}",
            )
            return None
        names = [port.name for port in actor.ports]
        if ref.port not in names:
            self._problems.add(
                place,
                f"{where}: actor '{ref.actor}' has no port '{ref.port}'"
                f"{nearest(ref.port, names)}; its ports are {', '.join(names)}",
            )
            return None
        return ref

    def _check_ends(self, line: "_FifoLine", fifo: Fifo) -> None:
        source = self._types.actors[fifo.source.actor].port(fifo.source.port)
        target = self._types.actors[fifo.target.actor].port(fifo.target.port)
        tell: Callable[[str], None] = lambda text: self._problems.add(  # noqa: E731
            line.place, f"{line.where}: {text}"
        )
        if source.control != target.control:
            first, second = (
                "control" if port.control else "data" for port in (source, target)
            )
            tell(
                f"a {first} port leads to a {second} port; "
                "control tokens go from control port to control port (R1)"
            )
        elif source.token and target.token and source.token != target.token:
            tell(
                f"carries {source.token}, but {fifo.target} takes {target.token}; "
                "put an actor between that converts, or connect another port (R1)"
            )

    # Understudies

    def _understudies(self, value: Value) -> dict[PortRef, tuple[PortRef, ...]]:
        like = "{net.logits: [early.logits]}"
        found: dict[PortRef, tuple[PortRef, ...]] = {}
        for key, listed in self._problems.mapping(value, "understudies", like).items():
            where = f"understudies of {key}"
            answer = self._output(key, where, value.keys[key])
            items = (
                [listed]
                if isinstance(listed.data, str)
                else self._problems.items(listed, where, like)
            )
            refs = []
            for item in items:
                text = self._problems.text(item, where)
                ref = self._output(text, where, item.place) if text else None
                if ref is not None:
                    refs.append(ref)
                    self._check_stand_in(answer, ref, where, item.place)
            if answer is not None:
                found[answer] = tuple(refs)
                self._places[f"understudies {answer}"] = value.keys[key]
        return found

    def _output(self, text: str, where: str, place: Place) -> PortRef | None:
        ref = self.port(text, where, place)
        if ref and self._types.actors[ref.actor].port(ref.port).direction == "in":
            self._problems.add(place, f"{where}: {ref} is an input; name an output")
            return None
        return ref

    # Exits

    def _exits(self, value: Value) -> dict[PortRef, Exit]:
        like = "{net.logits: {answer: early.logits, gate: sure}}"
        found: dict[PortRef, Exit] = {}
        for key, entry in self._problems.mapping(value, "exits", like).items():
            where, place = f"exits: {key}", value.keys[key]
            answer = self._output(key, where, place)
            fields = self._problems.keys(entry, where, required=EXIT_KEYS)
            texts = {
                name: self._problems.text(fields[name], f"{where}: {name}")
                for name in EXIT_KEYS
                if name in fields
            }
            early = None
            if text := texts.get("answer"):
                early = self._output(text, where, fields["answer"].place)
            gate = self._gate(texts.get("gate"), where, fields)
            if answer is None or early is None or gate is None:
                continue
            self._check_stand_in(answer, early, where, fields["answer"].place)
            found[answer] = Exit(early, gate)
            self._places[f"exits {answer}"] = place
        return found

    def _gate(
        self, name: str | None, where: str, fields: Mapping[str, Value]
    ) -> str | None:
        if name is None or name in self._broken:
            return None
        actor, place = self._types.actors.get(name), fields["gate"].place
        if actor is None:
            self._problems.add(
                place,
                f"{where}: actor '{name}' is not in the graph"
                f"{nearest(name, self._types.actors)}",
            )
            return None
        try:
            controls = behaviour_of(actor.type).controller
        except UnderstudyError as error:
            self._problems.add(place, f"{where}: gate '{name}': {error}")
            return None
        if not controls:
            self._problems.add(
                place,
                f"{where}: gate '{name}' is of type '{actor.type}', which names no "
                "mode; use `confidence`, or a type of your own with "
                "`controller = True`",
            )
            return None
        return name

    def _check_stand_in(
        self, answer: PortRef | None, ref: PortRef, where: str, place: Place
    ) -> None:
        if answer is None:
            return
        if ref == answer:
            self._problems.add(place, f"{where}: {ref} cannot stand in for itself")
            return
        mine, theirs = (
            self._types.actors[r.actor].port(r.port).token for r in (answer, ref)
        )
        if mine != theirs:
            self._problems.add(
                place,
                f"{where}: {ref} is {theirs}, not {mine}; "
                "who answers for another does so with the same dtype and shape (R14)",
            )


@dataclass(frozen=True, slots=True)
class _FifoLine:
    source: str
    target: str
    capacity: int | None
    delay: int
    where: str
    place: Place


def _with_optional(
    actors: Mapping[str, Actor], answering: Collection[PortRef]
) -> dict[str, Actor]:
    """Let ports that answer for others stay unconnected: no FIFO need connect them."""
    return {
        name: replace(
            actor,
            ports=tuple(
                replace(port, optional=True)
                if PortRef(name, port.name) in answering
                else port
                for port in actor.ports
            ),
        )
        for name, actor in actors.items()
    }
