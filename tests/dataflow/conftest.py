import re
from collections.abc import Callable

import pytest

from dataflow.graph import Actor, Fifo, Graph, Port, PortRef

EDGE = re.compile(r"(\w+) (\d+)->(\d+) (\w+)(?: d(\d+))?(?: cap(\d+))?")


def _sdf(text: str) -> Graph:
    """Return the graph of lines or items such as ``a 2->3 b d4 cap7``."""
    ports: dict[str, list[Port]] = {}
    fifos = []
    for i, item in enumerate(filter(None, map(str.strip, re.split("[;\n]", text)))):
        match = EDGE.fullmatch(item)
        assert match, item
        source, produced, consumed, target, delay, capacity = match.groups()
        ports.setdefault(source, []).append(
            Port(f"o{i}", "out", rates=(int(produced),))
        )
        ports.setdefault(target, []).append(Port(f"i{i}", "in", rates=(int(consumed),)))
        fifos.append(
            Fifo(
                PortRef(source, f"o{i}"),
                PortRef(target, f"i{i}"),
                int(capacity) if capacity else None,
                int(delay or 0),
            )
        )
    actors = {name: Actor(name, "pass", tuple(p)) for name, p in ports.items()}
    return Graph("sdf", actors, tuple(fifos))


@pytest.fixture(scope="session")
def sdf() -> Callable[[str], Graph]:
    return _sdf
