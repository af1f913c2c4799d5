"""YAML as it is read, graphs as they are written, and the schemas for editors."""

import json
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs
from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef, TokenType
from dataflow.plan import graph_from_json, graph_to_json
from graphs import (
    actor_entries,
    actor_types,
    deployment,
    deployment_file,
    dynamics_file,
    graph_file,
    mapping,
)
from graphs.actor_types import inputs_first
from graphs.graph_file import read_graph, write_graph
from graphs.located_yaml import FileErrors, load

SCHEMAS = Path(graphs.__file__).parent / "schema"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("12", 12),
        ("010", 10),
        ("0x1f", 31),
        ("-.5", -0.5),
        ("no", "no"),
        ("true", True),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("", None),
        ("~", None),
        ("'12'", "12"),
        ("[1, [a, b]]", [1, ["a", "b"]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("1_000", "1_000"),
    ],
)
def test_plain_text_is_read_without_surprises(
    tmp_path: Path, text: str, value: object
) -> None:
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    assert load(tmp_path / "a.yaml").plain() == {"key": value}


def test_every_value_and_key_knows_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a:\n  - x\n  - b: 2\n")
    top = load(tmp_path / "a.yaml")
    assert isinstance(top.data, dict)
    items = top.data["a"].data
    assert isinstance(items, list)
    assert str(items[1].keys["b"]) == f"{tmp_path / 'a.yaml'}:3:5"
    assert isinstance(items[1].data, dict)
    assert items[1].data["b"].place[1:] == (3, 8)


NAMES = st.from_regex(
    r"[a-z][a-z0-9_]{0,6}(\[[a-z]\.[0-9]\])?(@[a-z]\.1)?", fullmatch=True
)
TOKENS = st.sampled_from(
    [
        None,
        TokenType("float32", (1, 3)),
        TokenType("int64", ()),
        TokenType("uint8", (7,)),
    ]
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, width=32)
    | st.text(max_size=8)
    | st.sampled_from(
        ["no", "1e5", "0x1f", "1:30", "~", "", "- a", "a: b", "2026-01-31"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEPT = (*actor_entries.ACTOR_KEYS, *actor_types.PATH_PARAMS)
PARAMS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda k: k not in KEPT),
    PLAIN,
    max_size=3,
)


@st.composite
def any_graph(draw: st.DrawFn) -> Graph:
    """Return a graph that says anything a graph file can hold, sound or not."""
    names = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    token, rates = draw(TOKENS), draw(st.sampled_from([(1,), (2,), (0, 1)]))
    actors = {}
    for name in names:
        ports = (
            Port("out", "out", token, rates, optional=draw(st.booleans())),
            Port("in", "in", token, rates),
        )
        actors[name] = Actor(
            name,
            draw(st.sampled_from(["", "onnx", "a.b:C"])),
            inputs_first(ports),
            draw(PARAMS),
            draw(st.none() | st.just("cam.0")),
            draw(st.booleans()),
        )
    capacity, delay = draw(st.none() | st.integers(1, 9)), draw(st.integers(0, 3))
    fifos = tuple(
        Fifo(PortRef(a, "out"), PortRef(b, "in"), capacity, delay)
        for a, b in pairwise(names)
    )
    table = {PortRef(names[0], "out"): rates[0]}
    dpgs = (Dpg("gate", names[1], {"on": table}, frozenset(names[:1])),)
    return Graph(draw(st.text(min_size=1, max_size=9)), actors, fifos, dpgs)


@given(graph=any_graph())
def test_written_graph_reads_back_equal(
    graph: Graph, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("g") / "graph.yaml"
    path.write_text(write_graph(graph))
    assert read_graph(path).graph == graph


def test_graph_of_a_user_reads_back_equal_with_its_taps(
    digits: Path, tmp_path: Path
) -> None:
    graph = read_graph(digits / "digits.yaml").graph
    assert graph.actors["net"].params["taps"] == {
        "features1": "features1",
        "features2": "features2",
    }
    (tmp_path / "again.yaml").write_text(write_graph(graph))
    assert read_graph(tmp_path / "again.yaml").graph == graph


def keys(schema: Mapping[str, object]) -> tuple[set[str], set[str]]:
    properties, required = schema["properties"], schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    return set(required), set(properties)


def reader_keys(required: tuple[str, ...], optional: tuple[str, ...] = ()) -> object:
    return set(required), {*required, *optional}


def test_graph_schema_has_the_keys_that_the_reader_knows() -> None:
    schema = json.loads((SCHEMAS / "graph.schema.json").read_text())
    parts = schema["$defs"]
    region = parts["region"]
    branch = region["properties"]["branches"]["items"]
    assert keys(schema) == reader_keys(
        graph_file.KEYS_REQUIRED, graph_file.KEYS_OPTIONAL
    )
    assert keys(parts["actor"]) == reader_keys((), actor_entries.ACTOR_KEYS)
    assert keys(parts["actor"]["properties"]["ports"]) == reader_keys(
        (), actor_entries.PORT_SIDES
    )
    assert keys(parts["port"]["oneOf"][1]) == reader_keys((), actor_entries.PORT_KEYS)
    assert keys(parts["fifo"]["oneOf"][1]) == reader_keys(
        graph_file.FIFO_KEYS_REQUIRED, graph_file.FIFO_KEYS_OPTIONAL
    )
    assert keys(parts["dpg"]) == reader_keys(
        dynamics_file.DPG_KEYS_REQUIRED, dynamics_file.DPG_KEYS_OPTIONAL
    )
    assert keys(region) == reader_keys(
        dynamics_file.REGION_KEYS, dynamics_file.REGION_KEYS_OPTIONAL
    )
    assert keys(branch) == reader_keys(
        dynamics_file.BRANCH_KEYS_REQUIRED, dynamics_file.BRANCH_KEYS_OPTIONAL
    )


def test_deployment_schema_has_the_keys_and_bounds_that_the_reader_knows() -> None:
    schema = json.loads((SCHEMAS / "deployment.schema.json").read_text())
    group, cut = schema["$defs"]["group"], schema["$defs"]["cut"]
    failover = schema["properties"]["failover"]
    assert keys(schema) == reader_keys(
        deployment_file.KEYS_REQUIRED, deployment_file.KEYS_OPTIONAL
    )
    assert keys(group) == reader_keys(
        deployment_file.GROUP_KEYS_REQUIRED, deployment_file.GROUP_KEYS_OPTIONAL
    )
    assert keys(cut) == reader_keys(
        mapping.CUT_KEYS_REQUIRED, mapping.CUT_KEYS_OPTIONAL
    )
    assert keys(schema["$defs"]["part"]) == reader_keys(
        mapping.PART_KEYS_REQUIRED, mapping.PART_KEYS_OPTIONAL
    )
    assert keys(schema["$defs"]["chain"]) == reader_keys(
        mapping.CHAIN_KEYS_REQUIRED, mapping.CUT_KEYS_OPTIONAL
    )
    assert keys(failover) == reader_keys((), deployment_file.FAILOVER_KEYS)
    assert group["properties"]["role"]["enum"] == list(deployment_file.ROLES)
    assert group["properties"]["count"]["maximum"] == deployment.COUNT_MAX
    for form in (cut, schema["$defs"]["part"]):
        assert form["properties"]["codec"]["enum"] == list(deployment.CODECS)
    failover_keys = failover["properties"]
    assert failover_keys["window"]["maximum"] == deployment.WINDOW_MAX
    assert failover_keys["deadline_ms"]["default"] == deployment.DEADLINE_MS


@pytest.mark.parametrize("text", ["2", "0", "0.1", "1/3", "7/2"])
def test_execution_time_is_exact_and_survives_writing(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "understudy: 1\ngraph: g\nactors:\n"
        f"  a: {{time: {text}, ports: {{out: {{o: {{optional: true}}}}}}}}\n"
    )
    graph = read_graph(path).graph
    assert graph.actors["a"].time == Fraction(text)
    path.write_text(write_graph(graph))
    assert read_graph(path).graph == graph
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph)))) == graph


@pytest.mark.parametrize("text", ["-1", "soon", "1/0", "1e999", "true", "[1]"])
def test_execution_time_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "understudy: 1\ngraph: g\nactors:\n"
        f"  a: {{time: {text}, ports: {{out: {{o: {{optional: true}}}}}}}}\n"
    )
    with pytest.raises(FileErrors, match="time: a number from 0 on is needed"):
        read_graph(path)
