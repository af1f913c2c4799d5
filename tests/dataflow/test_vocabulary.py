"""One table of events: whoever writes one keeps to it, and the docs say the same."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow.metrics import METRICS
from dataflow.vocabulary import EVENTS
from tests.support.pages import EVENTS_PAGE, METRICS_PAGE, events_page, metrics_page
from tests.support.protocol_page import PARTS, PROTOCOL_PAGE, protocol_page

ROOT = Path(__file__).parents[2]
SOURCES = [
    p for folder in ("dataflow", "understudy") for p in (ROOT / folder).rglob("*.py")
]


def _written(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield name and fields of every event that the code in `path` writes."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(
                ast.Attribute(ast.Attribute(_, "_events") | ast.Name("self"), "write"),
                [ast.Constant(str() as name)],
                keywords,
            ):
                yield name, {field for keyword in keywords for field in _names(keyword)}
            case ast.Dict(keys, values):
                keyed = {
                    key.value: value
                    for key, value in zip(keys, values, strict=True)
                    if isinstance(key, ast.Constant)
                }
                if isinstance(name := keyed.get("event"), ast.Constant):
                    yield str(name.value), {str(key) for key in keyed} - {"event"}


def _names(keyword: ast.keyword) -> set[str]:
    if keyword.arg is not None:
        return {keyword.arg}
    assert isinstance(keyword.value, ast.Dict), "fields are written out"
    return {key.value for key in keyword.value.keys if isinstance(key, ast.Constant)}


WRITTEN = [(path, *found) for path in SOURCES for found in _written(path)]


@pytest.mark.parametrize(
    ("path", "event", "fields"), WRITTEN, ids=[f"{p.stem}-{e}" for p, e, _ in WRITTEN]
)
def test_every_event_written_is_in_the_table_with_its_fields(
    path: Path, event: str, fields: set[str]
) -> None:
    assert event in EVENTS, f"{path}: add it to dataflow/vocabulary.py"
    assert fields - {"t_s"} == set(EVENTS[event].fields), path


def test_every_event_of_the_table_is_written_somewhere() -> None:
    assert {event for _, event, _ in WRITTEN} == set(EVENTS)


def test_no_field_takes_the_place_of_what_every_log_line_has() -> None:
    fields = {field for kind in EVENTS.values() for field in kind.fields}
    assert fields.isdisjoint({"time", "level", "device", "message", "event", "t_s"})


def test_durations_and_times_name_their_unit_last() -> None:
    numbers = {
        name
        for kind in EVENTS.values()
        for name, (of, _) in kind.fields.items()
        if of == "number"
    }
    assert all(name.endswith(("_s", "_ms", "_hz")) for name in numbers), numbers


def test_metrics_are_named_as_prometheus_wants_them() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("understudy_")
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert "le" not in metric.labels


@pytest.mark.parametrize(
    ("page", "text"), [(EVENTS_PAGE, events_page()), (METRICS_PAGE, metrics_page())]
)
def test_page_is_what_the_table_makes(page: str, text: str) -> None:
    """After a change: python -m tests.support.pages docs."""
    assert (ROOT / "docs" / page).read_text() == text


def test_protocol_page_has_the_tables_of_the_code() -> None:
    """After a change: python -m tests.support.pages docs."""
    text = (ROOT / "docs" / PROTOCOL_PAGE).read_text()
    assert protocol_page(text) == text
    assert all(f"made: {part} " in text for part in PARTS)
