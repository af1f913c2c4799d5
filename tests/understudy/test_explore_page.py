"""The report of an exploration: whole, self-contained, and true to the figures."""

import csv
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from graphs.onnx_model import Model
from tests.support.light import light_model
from tests.support.profiles import profile_of
from understudy.candidates import Device
from understudy.constraints import Constraints
from understudy.costs import Link, Power
from understudy.exploration import Exploration, Measured
from understudy.explore_page import DATA, PAGE, TABLE, write_folder
from understudy.explore_plots import PARTS, shown
from understudy.exploring import Wish, explore
from understudy.rate_plots import Line, at_rate

LINKS = [[Link("wifi", 16.0, 16.0, 5.0)], [Link("lan", 100.0, 100.0, 1.0)]]


def explored(model: Model, panels: int = 1, **changes) -> Exploration:
    devices = tuple(
        Device(name, f"{name}.json", profile_of(model, ms, name))
        for name, ms in (("pi", 60.0), ("lab", 2.0))
    )
    return explore(
        model, Wish(**{"devices": devices, "links": LINKS[:panels], **changes})
    )


@pytest.fixture(scope="module")
def squeezenet() -> Model:
    return Model.read(light_model("squeezenet"))


@pytest.fixture(scope="module")
def digits() -> Model:
    return Model.read(Path(str(files("graphs"))) / "digits" / "digits.onnx")


def test_page_stands_alone_and_says_what_is_recommended(
    squeezenet: Model, tmp_path: Path
) -> None:
    found = explored(squeezenet, panels=2)
    page = write_folder(found, tmp_path / "out")
    assert page.name == PAGE
    text = page.read_text()
    assert ">mJ<" not in text
    assert not re.search(r"<script|<link|@import|https?://(?!www\.w3\.org)", text)
    for panel in found.panels:
        assert panel.best is not None
        assert panel.why in text
        assert f"point {panel.best.number}<" in text
        for row in panel.rows:
            assert f"<td>{row.label}</td>" in text or f">{row.label}<" in text
    for ids in (re.findall(r'\bid="([^"]+)"', text),):
        assert len(ids) == len(set(ids))


def test_same_exploration_gives_the_same_page(digits: Model, tmp_path: Path) -> None:
    pages = [write_folder(explored(digits), tmp_path / name) for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_each_plot_lies_beside_as_svg_and_pdf(digits: Model, tmp_path: Path) -> None:
    write_folder(explored(digits), tmp_path)
    svg, pdf = ({p.stem for p in tmp_path.glob(f"*.{kind}")} for kind in ("svg", "pdf"))
    kinds = ("bars", "rate", "pareto", "throughput", "regret")
    assert (
        svg
        == pdf
        == {f"{k}-0" for k in kinds for i in (0, 1)}
        | {
            "bytes",
            "memory",
        }
    )
    assert all(p.read_bytes().startswith(b"%PDF") for p in tmp_path.glob("*.pdf"))


def test_data_beside_the_page_is_all_of_it(digits: Model, tmp_path: Path) -> None:
    found = explored(digits)
    write_folder(found, tmp_path)
    assert json.loads((tmp_path / DATA).read_text()) == json.loads(
        json.dumps(found.to_json())
    )
    with (tmp_path / TABLE).open() as file:
        assert len(list(csv.DictReader(file))) == sum(len(p.rows) for p in found.panels)


def test_parts_of_a_bar_are_the_whole_of_it(squeezenet: Model) -> None:
    for panel in explored(squeezenet).panels:
        for row in panel.rows:
            parts = sum(part(row.cost) for _, part in PARTS.values())
            assert parts == pytest.approx(row.cost.total_ms)


def test_page_says_so_when_constraints_exclude_all(
    digits: Model, tmp_path: Path
) -> None:
    strict = Constraints(endpoint_ms_max=1e-6, no_raw_input=True)
    text = write_folder(explored(digits, constraints=strict), tmp_path).read_text()
    assert 'class="verdict broken"' in text
    assert "the raw input leaves the device" in text


def test_energy_stands_in_the_table_where_it_is_known(
    digits: Model, tmp_path: Path
) -> None:
    known = explored(digits, power=Power(endpoint_w=3.0))
    assert ">mJ<" in write_folder(known, tmp_path).read_text()


def test_measured_rows_are_drawn_against_what_was_predicted(
    digits: Model, tmp_path: Path
) -> None:
    found = explored(digits)
    (panel,) = found.panels
    rows = {r.number: replace(r, measured=Measured(100, 9.0, 10.0, 12.0, 50.0))
            for r in panel.rows[:2]}  # fmt: skip
    text = write_folder(found.with_rows(panel, rows), tmp_path).read_text()
    assert ">measured ms<" in text
    assert (tmp_path / "predicted.svg").is_file()


def test_names_of_tensors_are_escaped(digits: Model, tmp_path: Path) -> None:
    found = explored(digits)
    (panel,) = found.panels
    odd = {panel.rows[0].number: replace(panel.rows[0], label="<b>&x")}
    text = write_folder(found.with_rows(panel, odd), tmp_path).read_text()
    assert "<b>&x" not in text
    assert "&lt;b&gt;&amp;x" in text


def test_of_many_rows_none_that_matters_is_left_out(squeezenet: Model) -> None:
    (panel,) = explored(squeezenet).panels
    few = shown(panel, 8)
    assert [row.number for row in few] == sorted(row.number for row in few)
    kept = {row.number for row in few}
    wanted = {r.number for r in panel.rows if r.best or r.pareto or r.kind == "local"}
    assert wanted <= kept
    assert len(few) < len(panel.rows)


def test_at_the_rate_of_its_link_a_row_costs_what_it_did(digits: Model) -> None:
    for panel in explored(digits).panels:
        for row in panel.rows:
            again = at_rate(row.pieces, panel.links[0].there_mbit_s)
            assert again.total_ms == pytest.approx(row.cost.total_ms)
            line = Line.of(row.pieces)
            rate = panel.links[0].there_mbit_s
            assert line.ms(rate, 1.0) == pytest.approx(row.cost.total_ms)


def test_folder_that_cannot_be_is_one_clear_error(
    digits: Model, tmp_path: Path
) -> None:
    from dataflow.errors import UnderstudyError

    (tmp_path / "file").write_text("")
    with pytest.raises(UnderstudyError, match="cannot be written"):
        write_folder(explored(digits), tmp_path / "file")
