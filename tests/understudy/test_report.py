import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from dataflow.errors import UnderstudyError
from dataflow.graph import Actor, Fifo, Graph, Port, PortRef
from understudy.drawing import draw, links
from understudy.figures import figures
from understudy.plots import thinned
from understudy.promise import judge
from understudy.report import write_report
from understudy.run_folder import read_run

_VOID = {"meta", "br", "link", "img"}


class _Tags(HTMLParser):
    """Checks that every tag is closed, and keeps ids and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.words, self.tags = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def _page(made, *, plan=None, **options):
    folder = made.write()
    if plan:
        plan(folder / "plan")
    run = read_run(folder)
    path = folder / "report.html"
    write_report(run, figures(run, 1.2e-7), judge(run), path, **options)
    return path.read_text()


@pytest.fixture
def crashed(maker):
    made = maker.simulate(seconds=5, outages=(maker.Outage("edge.0", 2.0025, 4.0),))
    maker.drop(made.results[maker.results_name("cam.1")][60], "window")
    return made


def test_page_says_all_that_was_asked(crashed, maker):
    page = _page(crashed, plan=maker.write_plan)
    words = " ".join(_Tags(page).words)
    for said in (
        "two-cameras-two-servers", "Kept", "every frame answered once, in order",
        "SIGKILL edge.0", "disconnected: data lane closed", "dropped: window",
        "Full equals the unsplit model within 1.2e-07", "net.tail", "processor",
        "time since the first frame, s", "latency, ms", "share of frames",
    ):  # fmt: skip
        assert said in words, said


def test_page_is_well_formed_and_its_ids_are_unique(crashed, maker):
    tags = _Tags(_page(crashed, plan=maker.write_plan))
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))


def test_page_loads_nothing_and_runs_nothing(crashed, maker):
    page = _page(crashed, plan=maker.write_plan)
    assert not {"script", "img", "link", "iframe", "object"} & set(_Tags(page).tags)
    addresses = set(re.findall(r"https?://[^\"'< )]*", page))
    assert all(a.startswith("http://www.w3.org/") for a in addresses), addresses
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_same_run_gives_the_same_page(crashed, maker):
    assert _page(crashed) == _page(crashed)


def test_steps_after_a_failure_are_drawn_with_their_times(crashed, maker):
    words = " ".join(_Tags(_page(crashed)).words)
    assert "SIGKILL edge.0 at 2.00 s, cam.0" in words
    assert f"detect {maker.detect_ms:.2f} + decide" in words
    assert "refill" in words


def test_failure_that_nobody_noticed_has_no_steps(maker):
    made = maker.simulate(seconds=5, outages=(maker.Outage("edge.0", 2.0025, 4.0),))
    for table in made.events.values():
        table[:] = [e for e in table if e.get("event") not in ("link.suspect",)]
    page = _page(made)
    assert "SIGKILL edge.0" in page
    assert "What followed each failure" not in page


def test_broken_promise_is_written_large_with_its_places(crashed, maker):
    del crashed.results[maker.results_name("cam.0")][5]
    page = _page(crashed)
    assert "✗ Broken" in page
    assert ":6: frame 4 unaccounted for before frame 5" in page
    assert "✓ Kept" not in page


def test_text_of_the_run_cannot_become_markup(crashed, maker):
    evil = "<script>alert(1)</script>"
    for table in crashed.results.values():
        table[0]["results"]["deployment"] = evil
        table[0]["results"]["rows"].append(evil)
        table[9]["row"] = evil
    events = crashed.events[maker.events_name("cam.0")]
    next(e for e in events if e.get("event") == "link.suspect")["text"] = evil
    crashed.events["events-launcher.jsonl"][0]["target"] = evil
    folder = crashed.write()
    (folder / "deployment.yaml").write_text(f"understudy: 1  # {evil}\n")
    page = _page(crashed)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_deployment_is_shown_if_the_run_kept_it(crashed):
    folder = crashed.write()
    (folder / "deployment.yaml").write_text("understudy: 1\ndeployment: mine\n")
    assert "<pre>understudy: 1\ndeployment: mine\n</pre>" in _page(crashed)


def test_machine_of_the_run_is_shown_rather_than_this_one(crashed, maker):
    head = maker.events_head("launcher", 1)
    head["events"]["machine"] = {"processor": "Cortex-A76"}
    crashed.events["events-launcher.jsonl"].insert(0, head)
    page = _page(crashed)
    assert "Cortex-A76" in page
    assert "Machine that wrote this report" not in page


def test_run_without_results_or_failures_has_a_page(maker):
    made = maker.simulate(seconds=0.2)
    made.results.clear()
    page = _page(made)
    assert "no device was lost" in page
    assert "Broken" in page


@pytest.mark.parametrize("frames", [1, 2])
def test_run_of_one_or_two_frames_has_a_page(maker, frames):
    made = maker.simulate(seconds=frames / 50, cameras=1)
    assert "Kept" in _page(made)


def test_page_of_a_long_run_stays_small(maker):
    outages = tuple(maker.Outage("edge.0", t, t + 1) for t in range(10, 190, 3))
    made = maker.simulate(seconds=200, cameras=2, outages=outages)
    assert len(_page(made)) < 1_500_000


def test_thinned_dots_keep_the_slowest_frame_and_every_row(maker):
    made = maker.simulate(seconds=200, cameras=1)
    table = made.results[maker.results_name("cam.0")]
    table[5000]["settled_s"] += 0.7
    maker.drop(table[6000], "window")
    run = read_run(made.write())
    dots = list(thinned(run, figures(run), 400))
    assert len(dots) < 500
    assert max(ms for _, _, ms in dots) > 700
    assert "drop" in {row for row, _, _ in dots}


def test_report_that_cannot_be_written_is_one_clear_error(crashed, tmp_path):
    run = read_run(crashed.write())
    with pytest.raises(UnderstudyError, match="cannot be written"):
        write_report(run, figures(run), judge(run), tmp_path / "no" / "report.html")


def test_drawing_sees_through_tx_and_rx(maker):
    found = links(maker.plain_graph())
    cuts = {(k.source, k.target) for k in found if k.cut}
    assert ("fork[cam.0]", "net.tail[cam.0]@edge.1") in cuts
    assert ("net.tail[cam.0]@edge.1", "join[cam.0]") in cuts
    assert len(cuts) == 8
    assert not any("tx" in name or "rx" in name for cut in cuts for name in cut)


def test_drawing_shows_every_actor_of_two_endpoints_and_names_the_rest(maker):
    drawing = draw(maker.plain_graph(cameras=3, servers=3))
    for name in ("camera[cam.0]", "row[cam.1]", "net.tail[cam.1]@edge.2"):
        assert f"<title>{name}: " in drawing
    assert "not drawn: cam.2" in drawing
    assert "net.tail[cam.2]" not in drawing


def test_drawing_of_any_graph_ends(maker):
    """No devices, no region, a cycle without initial tokens, an actor on its own."""
    ports = (Port("in", "in"), Port("out", "out"))
    actors = {name: Actor(name, "any", ports) for name in ("a", "b", "c")}
    cycle = (
        Fifo(PortRef("a", "out"), PortRef("b", "in")),
        Fifo(PortRef("b", "out"), PortRef("a", "in")),
    )
    assert "<title>c: any</title>" in draw(Graph("loop", actors, cycle))
    assert draw(Graph("empty", {}, ())).startswith("<svg")


def test_matplotlib_is_not_loaded_before_a_plot_is_drawn():
    code = "import sys, understudy.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
