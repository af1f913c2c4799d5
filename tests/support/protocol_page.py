"""The parts of docs/protocol.md that are made from tables in the code."""

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import get_args

from dataflow.wire import (
    control,
    header,
    link_states,
    listener,
    sessions,
    sockets,
    timers,
)
from dataflow.wire.control import Control
from dataflow.wire.link_states import TRANSITIONS
from tests.support.tables import table

PROTOCOL_PAGE = "protocol.md"
_MARKED = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
_TIMED: tuple[ModuleType, ...] = (timers, sessions, sockets, listener)


def protocol_page(text: str) -> str:
    """Return the page with its made parts made anew."""
    return _MARKED.sub(_made, text)


def _made(found: re.Match[str]) -> str:
    made = PARTS[found[1]]()
    return f"<!-- made: {found[1]} -->\n\n{made}\n<!-- end -->"


def _states() -> str:
    lines = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TRANSITIONS.items()
        if before is not after
    ]
    start = f"    [*] --> {link_states.State.WAITING.value}"
    return "\n".join(["```mermaid", "stateDiagram-v2", start, *lines, "```", ""])


def _timers() -> str:
    rows = [
        (f"`{name}`", value, reason)
        for module in _TIMED
        for name, value, reason in _constants(module)
    ]
    return table(("what", "value", "why"), rows)


def _constants(module: ModuleType) -> list[tuple[str, str, str]]:
    """Return the public numbers of a module that say why they are so."""
    assert module.__file__ is not None
    body = ast.parse(Path(module.__file__).read_text()).body
    found = []
    for node, after in itertools.pairwise(body):
        if not isinstance(node, ast.Assign) or not isinstance(after, ast.Expr):
            continue
        (target,) = node.targets
        reason = ast.literal_eval(after.value)
        if isinstance(target, ast.Name) and isinstance(reason, str):
            value = getattr(module, target.id)
            if isinstance(value, int | float):
                text = f"{value:,g}" if value < 1e6 else f"{value / 2**20:g} MiB"
                found.append((target.id, text, " ".join(reason.split())))
    return found


def _messages() -> str:
    rows = []
    for kind in get_args(Control):
        named = ", ".join(f"`{field.name}`" for field in fields(kind))
        meaning = (kind.__doc__ or "").split("\n")[0]
        rows.append((f"`{kind.kind}`", meaning, named))
    bound = f"At most {control.CONTROL_BYTES_MAX} bytes.\n"
    return table(("kind", "what it says", "fields"), rows) + "\n" + bound


def _header() -> str:
    sizes = {"2s": 2, "B": 1, "x": 1, "H": 2, "I": 4, "Q": 8}
    at, rows = 0, []
    for code, name, meaning in header.FIELDS:
        rows.append((str(at), str(sizes[code]), f"`{name}`" if name else "-", meaning))
        at += sizes[code]
    assert at == header.HEADER_BYTES
    told = f"{at} bytes, little-endian, packed.\n"
    return told + "\n" + table(("at", "bytes", "field", "meaning"), rows)


def _kinds() -> str:
    source = Path(header.__file__).read_text()
    meanings = dict(re.findall(r"    ([A-Z]+) = \d+  # (.*)", source))
    rows = [
        (title, str(int(each)), f"`{each.name}`", meanings[each.name])
        for title, kind in (("kind", header.Kind), ("NACK", header.Nack))
        for each in kind
    ]
    return table(("of", "number", "name", "meaning"), rows)


PARTS: Mapping[str, Callable[[], str]] = {
    "states": _states,
    "timers": _timers,
    "messages": _messages,
    "header": _header,
    "kinds": _kinds,
}
