"""YAML in which every value knows its line and column, read without surprises.

The tree is composed by libyaml where PyYAML was built with it (four times faster than
the pure parser) and built here, not by PyYAML's constructors: those forget the places,
keep the last of two equal keys, read ``no`` as False, ``1:30`` as 90 and ``1e-3`` as
text. Anchors, merge keys and tags are refused: a file that needs them is too clever,
and they are how a small file becomes a huge tree.
"""

import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Self

import yaml

from dataflow.errors import MisuseError, UnderstudyError, nearest
from dataflow.finding import Finding

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

DEPTH_MAX = 32
"""Levels of nesting; no file of ours needs ten."""

FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)")
"""Plain text that is read as a number with a fraction or an exponent."""
EXACT = re.compile(r"\d{1,18}(/\d{1,18}|\.\d{1,18})?")
"""Text that is read as an exact number where one is needed."""
INTEGER = re.compile(r"[-+]?\d{1,19}|0x[0-9a-fA-F]{1,16}")

_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in (
        *("map", "seq", "str", "int", "float", "bool", "null"),
        # What plain text may look like to YAML 1.1; it stays text here.
        *("timestamp", "merge", "value"),
    )
)
_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLS = {"true": True, "True": True, "false": False, "False": False}


class Place(NamedTuple):
    """Where in a file something stands; lines and columns count from 1."""

    path: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"


Data = None | bool | int | float | str | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar, a list or a mapping, and where it stands."""

    place: Place
    data: Data
    keys: Mapping[str, Place] = field(default_factory=dict)
    """Of a mapping: where each key stands."""

    def plain(self) -> object:
        """Return the value as JSON would hold it, without places."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data

    def describe(self) -> str:
        """Return the value for a message: ``text 'cam'``, ``a list``."""
        if isinstance(self.data, dict):
            return "a mapping"
        if isinstance(self.data, list):
            return "a list"
        if self.data is None:
            return "empty"
        if isinstance(self.data, bool):
            return str(self.data).lower()
        if isinstance(self.data, str):
            return f"text '{self.data}'"
        return str(self.data)


class FileErrors(UnderstudyError):  # noqa: N818  (it holds several)
    """Everything that is wrong inside a user's files.

    Attributes:
        messages: One for each, which begins with its place in a file.
        findings: The same as a rule found it, with the place; empty if none did.
    """

    def __init__(
        self, messages: Collection[str], findings: Collection[tuple[str, Finding]] = ()
    ) -> None:
        self.messages = tuple(messages)
        self.findings = tuple(findings)
        super().__init__("\n".join(self.messages))

    @classmethod
    def broken(cls, findings: Collection[tuple[str, Finding]]) -> Self:
        """Return what rules found as an error; each with its place."""
        return cls([f"{place}: {finding}" for place, finding in findings], findings)


class Problems:
    """What one reading of files found wrong so far.

    The methods that read a value return None (or nothing) where it is wrong, and note
    why: a reader goes on and finds the next mistake as well.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], None] = {}

    def add(self, place: Place, text: str) -> None:
        self._found[place, text] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def messages(self) -> list[str]:
        """Return what was noted, in the order of files and lines."""
        # Stable: of two problems in one place the earlier noted comes first.
        ordered = sorted(self._found, key=lambda found: found[0])
        return [f"{place}: {text}" for place, text in ordered]

    def raise_if_any(self) -> None:
        """Raise FileErrors with all that was noted; return if nothing was."""
        if self._found:
            raise FileErrors(self.messages())

    def _wrong(self, value: Value, where: str, needed: str, todo: str = "") -> None:
        text = f"{where}: {needed} is needed, not {value.describe()}"
        self.add(value.place, f"{text}; {todo}" if todo else text)

    def mapping(self, value: Value, where: str, like: str) -> dict[str, Value]:
        """Return the entries of a mapping; `like` shows what one looks like."""
        if isinstance(value.data, dict):
            return value.data
        self._wrong(value, where, "a mapping", f"write {like}")
        return {}

    def items(self, value: Value, where: str, like: str) -> list[Value]:
        """Return the items of a list."""
        if isinstance(value.data, list):
            return value.data
        self._wrong(value, where, "a list", f"write {like}")
        return []

    def text(self, value: Value, where: str) -> str | None:
        if isinstance(value.data, str):
            return value.data
        scalar = isinstance(value.data, bool | int | float)
        quoted = f'write "{value.describe()}"' if scalar else ""
        self._wrong(value, where, "text", quoted)
        return None

    def integer(self, value: Value, where: str, *, at_least: int) -> int | None:
        if isinstance(value.data, int) and not isinstance(value.data, bool):
            if value.data >= at_least:
                return value.data
            self.add(
                value.place,
                f"{where}: {value.data} is too small; the least is {at_least}",
            )
            return None
        self._wrong(value, where, "a whole number")
        return None

    def number(self, value: Value, where: str) -> float | None:
        """Return a finite number above 0."""
        data = value.data
        if isinstance(data, int | float) and not isinstance(data, bool):
            if 0 < data < math.inf:
                return float(data)
            self.add(value.place, f"{where}: {data} is not above 0 and finite")
            return None
        self._wrong(value, where, "a number")
        return None

    def fraction(self, value: Value, where: str) -> Fraction | None:
        """Return an exact number from 0 on: ``2``, ``0.1`` or ``1/3``."""
        data = value.data
        if isinstance(data, int | float | str) and not isinstance(data, bool):
            # By its text: 0.1 is a tenth here, not the nearest binary number. And no
            # exponent in text: the number might not fit into memory.
            text = data if isinstance(data, str) else str(data)
            if not isinstance(data, str) or EXACT.fullmatch(text):
                with suppress(ValueError, ZeroDivisionError):
                    exact = Fraction(text)
                    if exact >= 0:
                        return exact
        self._wrong(value, where, "a number from 0 on", "write one like 2, 0.5 or 1/3")
        return None

    def boolean(self, value: Value, where: str) -> bool | None:
        if isinstance(value.data, bool):
            return value.data
        self._wrong(value, where, "true or false")
        return None

    def choice(self, value: Value, where: str, known: Collection[str]) -> str | None:
        """Return a text that is one of `known`."""
        text = self.text(value, where)
        if text is None or text in known:
            return text
        self.add(
            value.place,
            f"{where}: '{text}' is not known{nearest(text, known)}; "
            f"it is one of {', '.join(known)}",
        )
        return None

    def keys(
        self,
        value: Value,
        where: str,
        *,
        required: Collection[str],
        optional: Collection[str] = (),
    ) -> dict[str, Value]:
        """Return the entries of a mapping whose keys are `required` and `optional`."""
        known = (*required, *optional)
        entries = self.mapping(value, where, f"{{{', '.join(known)}}}")
        if not isinstance(value.data, dict):
            return {}
        for key in entries:
            if key not in known:
                self.add(
                    value.keys[key],
                    f"{where}: key '{key}' is not known{nearest(key, known)}; "
                    f"known are {', '.join(known)}",
                )
        for key in required:
            if key not in entries:
                self.add(value.place, f"{where}: key '{key}' is missing; give it")
        return entries


def load(path: Path) -> Value:
    """Return the tree of a YAML file.

    Raises:
        MisuseError: There is no such file, or it cannot be read, or is a model.
        FileErrors: It is not YAML, or uses what we refuse.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MisuseError(
            f"{path}: cannot be read ({error.strerror}); name a file that is there"
        ) from None
    if path.suffix == ".onnx":
        raise MisuseError(
            f"{path}: a model, neither a graph nor a deployment; make a deployment of "
            f"it with `understudy explore {path} … --write FOLDER`"
        )
    start = Place(str(path), 1, 1)
    try:
        node = yaml.compose(raw.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        place = Place(str(path), line, 1)
        raise FileErrors([f"{place}: not UTF-8; save the file as UTF-8"]) from None
    except yaml.MarkedYAMLError as error:
        place = _place(str(path), error.problem_mark) if error.problem_mark else start
        problem = error.problem or error.context
        raise FileErrors([f"{place}: not valid YAML: {problem}"]) from None
    except (yaml.YAMLError, RecursionError) as error:
        text = str(error).replace("\n", " ")
        raise FileErrors([f"{start}: not valid YAML: {text}"]) from None
    if node is None:
        raise FileErrors([f"{start}: the file is empty; write `understudy: 1` first"])
    problems = Problems()
    tree = _Builder(str(path), problems).value(node, 0)
    problems.raise_if_any()
    return tree


def _place(path: str, mark: "yaml.Mark") -> Place:
    return Place(path, mark.line + 1, mark.column + 1)


class _Builder:
    def __init__(self, path: str, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, depth: int) -> Value:
        place = _place(self._path, node.start_mark)
        if id(node) in self._seen:
            self._problems.add(
                place,
                "anchor: used by an alias; aliases are not allowed, "
                "write the value out where it is needed",
            )
            return Value(place, None)
        self._seen.add(id(node))
        if depth > DEPTH_MAX:
            self._problems.add(place, f"nested deeper than {DEPTH_MAX} levels")
            return Value(place, None)
        if node.tag not in _PLAIN_TAGS:
            self._problems.add(
                place, f"tag '{node.tag}': not allowed; write the plain value"
            )
            return Value(place, None)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            return Value(place, [self.value(item, depth + 1) for item in node.value])
        assert isinstance(node, yaml.ScalarNode)
        return Value(place, _scalar(node))

    def _mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> Value:
        entries: dict[str, Value] = {}
        keys: dict[str, Place] = {}
        for key_node, value_node in node.value:
            at = _place(self._path, key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(at, "key: not text; write a name")
                continue
            key = key_node.value  # as written: `no:` and `1:` are names like any other
            if key in entries:
                self._problems.add(
                    at,
                    f"key '{key}': given before, in line {keys[key].line}; "
                    "remove one of the two",
                )
                continue
            entries[key] = self.value(value_node, depth + 1)
            keys[key] = at
        return Value(place, entries, keys)


def _scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    text: str = node.value
    if node.style:  # quoted or a block: text, whatever it looks like
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if INTEGER.fullmatch(text):
        return int(text, 16) if text.startswith("0x") else int(text)
    if FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".I", "I"))
    return text
