"""SDF graphs from the XML files of the tool SDF3.

Read are actors, ports with their rates, channels with their initial tokens, and the
execution time of each actor on its default processor. Where several processors are
marked as default the last one counts, as it does in SDF3; where none is, the only one.
All else, such as memory sizes, is passed over: so is the size of channels.

An entity declared in a file could make it grow without end: such files are refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal
from xml.parsers import expat

from dataflow.errors import MisuseError, nearest
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from graphs.located_yaml import EXACT, FileErrors, Place, Problems


def read_sdf3(path: Path) -> Graph:
    """Return the SDF graph in the SDF3 file `path`.

    Raises:
        MisuseError: No such file.
        FileErrors: It is not XML, not SDF3's, or not a static SDF graph; it holds all
            that was found.
    """
    problems = Problems()
    graph = _Reader(_load(path), problems).read()
    problems.raise_if_any()
    return graph


@dataclass(frozen=True, slots=True)
class _Element:
    tag: str
    attributes: Mapping[str, str]
    place: Place
    children: list["_Element"] = field(default_factory=list)

    def all(self, tag: str) -> Iterator["_Element"]:
        return (child for child in self.children if child.tag == tag)

    def first(self, *tags: str) -> "_Element | None":
        """Return the first element that this way of tags leads to."""
        found: _Element | None = self
        for tag in tags:
            found = None if found is None else next(found.all(tag), None)
        return found


class _RefusedError(Exception):
    """The file declares what could make it grow."""


def _load(path: Path) -> _Element:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MisuseError(
            f"{path}: cannot be read ({error.strerror}); name a file that is there"
        ) from None
    parser = expat.ParserCreate()
    top = _Element("", {}, Place(str(path), 1, 1))
    open_elements = [top]

    def place() -> Place:
        line, column = parser.CurrentLineNumber, parser.CurrentColumnNumber
        return Place(str(path), line, column + 1)

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = _Element(tag, attributes, place())
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_tag: str) -> None:
        open_elements.pop()

    def refuse(*_declaration: object) -> None:
        raise _RefusedError

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        where = Place(str(path), error.lineno, error.offset + 1)
        text = expat.errors.messages[error.code]
        raise FileErrors([f"{where}: not valid XML: {text}"]) from None
    except (ValueError, LookupError) as error:  # an encoding that is not known
        raise FileErrors([f"{path}:1:1: not valid XML: {error}"]) from None
    except _RefusedError:
        raise FileErrors(
            [f"{place()}: declares an entity, which can make a file grow; remove it"]
        ) from None
    return top


class _Reader:
    def __init__(self, top: _Element, problems: Problems) -> None:
        self._top = top
        self._problems = problems

    def read(self) -> Graph:
        application = self._top.first("sdf3", "applicationGraph")
        sdf = application and application.first("sdf")
        if application is None or sdf is None:
            kind = application and next(iter(application.children), None)
            has = f", but a <{kind.tag}>" if kind else ""
            self._problems.add(
                (application or self._top).place,
                f"no <sdf> in an <applicationGraph> of <sdf3>{has}; "
                "give a file of an SDF graph that SDF3 wrote",
            )
            return Graph("", {}, ())
        times = self._times(application)
        actors: dict[str, Actor] = {}
        for element in sdf.all("actor"):
            name = self._text(element, "name")
            if name in actors:
                self._wrong(element, f"actor '{name}' is there twice; rename one")
            actors[name] = Actor(
                name,
                element.attributes.get("type", ""),
                self._ports(element),
                time=times.pop(name, None),
            )
        for name in times:
            self._wrong(
                application,
                f"actorProperties of '{name}', which is not an actor"
                f"{nearest(name, actors)}",
            )
        fifos = [self._fifo(element, actors) for element in sdf.all("channel")]
        name = application.attributes.get("name") or sdf.attributes.get("name", "")
        return Graph(name, actors, tuple(f for f in fifos if f is not None))

    def _wrong(self, element: _Element, text: str) -> None:
        self._problems.add(element.place, text)

    def _text(self, element: _Element, key: str) -> str:
        text = element.attributes.get(key, "")
        if not text:
            self._wrong(element, f"<{element.tag}> without '{key}'; give it")
        return text

    def _whole(self, element: _Element, key: str, default: int) -> int:
        text = element.attributes.get(key, str(default)).strip()
        if text.isascii() and text.isdigit() and len(text) < 19:
            return int(text)
        more = "; rates that change from firing to firing (CSDF) are not supported"
        self._wrong(
            element,
            f"<{element.tag}> with {key} '{text}', which is not a whole number from 0 "
            f"on{more if ',' in text else ''}",
        )
        return default

    def _ports(self, actor: _Element) -> tuple[Port, ...]:
        ports: dict[Literal["in", "out"], list[Port]] = {"in": [], "out": []}
        names: set[str] = set()
        for element in actor.all("port"):
            name = _port_name(self._text(element, "name"))
            if name in names:
                self._wrong(element, f"port '{name}' is there twice; rename one")
            names.add(name)
            rates = (self._whole(element, "rate", 1),)
            kind = self._text(element, "type")
            if kind == "in":
                ports["in"].append(Port(name, "in", rates=rates))
            elif kind == "out":
                ports["out"].append(Port(name, "out", rates=rates))
            else:
                self._wrong(element, f"port '{name}' of type '{kind}'; say in or out")
        return (*ports["in"], *ports["out"])

    def _fifo(self, channel: _Element, actors: Mapping[str, Actor]) -> Fifo | None:
        ends = []
        for side in ("src", "dst"):
            actor = self._text(channel, f"{side}Actor")
            port = _port_name(self._text(channel, f"{side}Port"))
            if actor not in actors:
                self._wrong(
                    channel,
                    f"<channel> with {side}Actor '{actor}', which is not in the graph"
                    f"{nearest(actor, actors)}",
                )
            elif port not in (names := [p.name for p in actors[actor].ports]):
                self._wrong(
                    channel,
                    f"<channel> with {side}Port '{port}', which actor '{actor}' does "
                    f"not have{nearest(port, names)}",
                )
            else:
                ends.append(PortRef(actor, port))
        delay = self._whole(channel, "initialTokens", 0)
        return Fifo(ends[0], ends[1], delay=delay) if len(ends) == 2 else None

    def _times(self, application: _Element) -> dict[str, Fraction]:
        properties = application.first("sdfProperties")
        times = {}
        for element in properties.all("actorProperties") if properties else ():
            name = self._text(element, "actor")
            found = list(element.all("processor"))
            marked = [p for p in found if p.attributes.get("default") == "true"]
            for processor in marked[-1:] or (found if len(found) == 1 else []):
                if (time := processor.first("executionTime")) is not None:
                    times[name] = self._time(time)
        return times

    def _time(self, element: _Element) -> Fraction:
        text = element.attributes.get("time", "").strip()
        if EXACT.fullmatch(text) and not text.endswith("/0"):
            return Fraction(text)
        self._wrong(element, f"execution time '{text}' is not a number from 0 on")
        return Fraction(0)


def _port_name(text: str) -> str:
    """Return a name of SDF3 as one of ours, which hold no dots."""
    return text.replace(".", "_")
