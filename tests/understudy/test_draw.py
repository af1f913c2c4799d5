"""`understudy draw`: structure of the pictures, what is off, hostile names."""

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from dataflow.errors import MisuseError
from dataflow.graph import Actor, Dpg, Fifo, Graph, Port, PortRef, TokenType
from understudy.cli import main
from understudy.draw import FORMATS, draw
from understudy.layers import Item, Line, layout
from understudy.pictures import picture

VEHICLE = Path(__file__).parent / "graphs" / "vehicle-2x6.yaml"
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "graphs" / "digits" / "two-by-two.yaml"
GATED = ROOT / "graphs" / "digits" / "gated-two-by-two.yaml"
HOSTILE = 'a"b<script>&]|`#;\\N\n\x01{c}'
SVG = "{http://www.w3.org/2000/svg}"
TOKEN = TokenType("float32", (4,))


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["draw", *map(str, args)])


def groups(text: str, kind: str) -> dict[str, set[str]]:
    """Return what an SVG draws as ``data-kind``: name -> its classes."""
    root = ElementTree.fromstring(text)
    found = [g for g in root.iter(f"{SVG}g") if g.get(f"data-{kind}") is not None]
    named = {
        str(g.get(f"data-{kind}")): set(str(g.get("class")).split()) for g in found
    }
    assert len(named) == len(found)  # each once
    return named


def off(text: str, kind: str) -> set[str]:
    return {name for name, classes in groups(text, kind).items() if "off" in classes}


def gate() -> Graph:
    """A choice whether `p` fires between `x` and `y`, which share a bypass."""

    def data(name: str, direction: str, *rates: int) -> Port:
        return Port(name, direction, TOKEN, rates or (1,))  # type: ignore[arg-type]

    control = Port("c", "in", None, control=True)
    ports = {
        "x": (control, data("o", "out", 0, 2), data("skip", "out")),
        "p": (control, data("i", "in", 0, 2), data("o", "out", 0, 2)),
        "y": (control, data("i", "in", 0, 2), data("skip", "in")),
        "k": tuple(Port(n, "out", None, control=True) for n in "xpy"),
    }
    actors = {n: Actor(n, "t", p, device="d") for n, p in ports.items()}
    lines = ("k.x x.c", "k.p p.c", "k.y y.c", "x.o p.i", "p.o y.i", "x.skip y.skip")
    ends = [tuple(map(PortRef.parse, line.split())) for line in lines]
    fifos = tuple(Fifo(source, target) for source, target in ends)
    dynamic = [PortRef.parse(r) for r in ("x.o", "p.i", "p.o", "y.i")]
    modes = {"off": dict.fromkeys(dynamic, 0), "on": dict.fromkeys(dynamic, 2)}
    return Graph("gate", actors, fifos, (Dpg("g", "k", modes),))


def hostile() -> Graph:
    port = Port("p", "out", TOKEN)
    ends = (PortRef(HOSTILE, "p"), PortRef("other", "q"))
    actors = {
        HOSTILE: Actor(HOSTILE, HOSTILE, (port,), device=HOSTILE),
        "other": Actor("other", "", (Port("q", "in", TOKEN),), device="e"),
    }
    return Graph(HOSTILE, actors, (Fifo(*ends),))


def test_vehicle_network_on_two_servers_has_its_26_actors_and_30_fifos() -> None:
    text = draw(VEHICLE)
    assert len(groups(text, "actor")) == 26
    fifos = groups(text, "fifo")
    assert len(fifos) == 30
    assert sum("cut" in classes for classes in fifos.values()) == 12
    assert len(groups(text, "device")) == 8
    assert "72 KiB" in text


def test_boxes_of_devices_hold_their_actors_and_do_not_overlap() -> None:
    root = ElementTree.fromstring(draw(DIGITS))
    rects = {}
    for g in root.iter(f"{SVG}g"):
        name = g.get("data-device") or g.get("data-actor")
        r = g.find(f"{SVG}rect")
        if name and r is not None:
            x, y, w, h = (float(str(r.get(k))) for k in ("x", "y", "width", "height"))
            rects[name] = (x, y, x + w, y + h)
    devices = {n: rects.pop(n) for n in ("cam.0", "cam.1", "edge.0", "edge.1")}
    for a in rects.values():
        inside = [
            d for d in devices.values() if d[0] < a[0] and a[2] < d[2]
            if d[1] < a[1] and a[3] < d[3]
        ]  # fmt: skip
        assert len(inside) == 1
    for some in (devices, rects):
        boxes = sorted(some.values())
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert b[0] >= a[2] or b[1] >= a[3] or a[1] >= b[3]


def test_silent_mode_greys_what_does_not_fire_but_not_its_control() -> None:
    text = FORMATS["svg"](picture(gate(), ["g=off"]))
    assert off(text, "actor") == {"p"}
    assert off(text, "fifo") == {"x.o -> p.i", "p.o -> y.i"}


def test_mode_that_passes_a_region_by_greys_all_of_it() -> None:
    text = draw(GATED, modes=["exit[cam.0]=exit"])
    inside = {n for n in groups(text, "actor") if n.startswith("net.tail[cam.0]")}
    assert off(text, "actor") == {"fork[cam.0]", "join[cam.0]", *inside}


@pytest.mark.parametrize("kind", FORMATS)
def test_rates_of_dynamic_ports_are_all_or_the_chosen(kind: str) -> None:
    assert "0|2" in FORMATS[kind](picture(gate()))
    chosen = FORMATS[kind](picture(gate(), ["g=on"]))
    assert "0|2" not in chosen
    assert "modes off, [on]" in chosen


def test_failed_server_takes_its_branches_and_nothing_else() -> None:
    text = draw(DIGITS, failed=["edge.0"])
    grey = off(text, "actor")
    assert {name.partition("@")[2].partition(".")[0] for name in grey} == {"edge"}
    assert all("@edge.0" in name for name in grey)
    assert len(grey) == 10  # TX, RX, tail, TX, RX of two streams
    assert groups(text, "device")["edge.0"] == {"device", "failed"}


def test_failed_endpoint_takes_its_stream_at_the_servers_with_it() -> None:
    text = draw(DIGITS, failed=["cam.0"])
    actors = groups(text, "actor")
    assert off(text, "actor") == {name for name in actors if "[cam.0]" in name}


def test_server_that_joins_endpoints_goes_on_without_one_of_them() -> None:
    lost = off(draw(VEHICLE, failed=["cam0"]), "actor")
    assert lost == {"camera0", "conv1-0", "conv2-0", "flat0"}


@pytest.mark.parametrize("kind", FORMATS)
def test_pictures_do_not_change_from_one_time_to_the_next(kind: str) -> None:
    assert draw(DIGITS, kind) == draw(DIGITS, kind)


def test_hostile_names_stay_text_in_svg() -> None:
    text = FORMATS["svg"](picture(hostile()))
    assert HOSTILE.replace("\n", " ").replace("\x01", " ") in groups(text, "actor")
    assert "<script" not in text


@pytest.mark.parametrize("name", ["vehicle", "hostile", "digits"])
def test_graphviz_reads_the_dot_with_every_actor_and_fifo_once(name: str) -> None:
    text = _text(name, "dot")
    nodes = re.findall(r"^ +(a\d+) \[", text, re.MULTILINE)
    edges = re.findall(r"^  a\d+ -> a\d+ \[", text, re.MULTILINE)
    graph = _graph(name)
    assert len(nodes) == len(set(nodes)) == len(graph.actors)
    assert len(edges) == len(graph.fifos)
    if (program := shutil.which("dot")) is not None:
        made = subprocess.run(
            [program, "-Tplain"], input=text, capture_output=True, text=True, check=True
        )
        assert made.stderr == ""
        lines = made.stdout.splitlines()
        assert sum(line.startswith("node ") for line in lines) == len(nodes)
        assert sum(line.startswith("edge ") for line in lines) == len(edges)


_LABEL = r'"[^"<>`\n]*"'
_MERMAID = re.compile(
    rf"flowchart LR|  subgraph d\d+\[{_LABEL}\]|  end|    a\d+\[{_LABEL}\](:::off)?"
    rf"|  a\d+ (-->|-\.->)(\|{_LABEL}\|)? a\d+|  notes\[{_LABEL}\]:::notes"
    r"|  linkStyle \d+ [\w#:,\-]+|  classDef (off|notes) .+"
)


@pytest.mark.parametrize("name", ["vehicle", "hostile", "digits"])
def test_mermaid_has_every_actor_and_fifo_once(name: str) -> None:
    text = _text(name, "mermaid")
    lines = text.replace("<br/>", " ").splitlines()
    assert [line for line in lines if not _MERMAID.fullmatch(line)] == []
    graph = _graph(name)
    assert sum(re.match(r"    a\d+\[", line) is not None for line in lines) == len(
        graph.actors
    )
    assert sum(re.match(r"  a\d+ -", line) is not None for line in lines) == len(
        graph.fifos
    )
    assert sum(line.startswith("  subgraph") for line in lines) == lines.count("  end")


def _graph(name: str) -> Graph:
    from graphs.deployment_file import read_deployment
    from graphs.expand import expand
    from graphs.graph_file import read_graph

    if name == "digits":
        return expand(read_deployment(DIGITS))
    return hostile() if name == "hostile" else read_graph(VEHICLE).graph


def _text(name: str, kind: str) -> str:
    return FORMATS[kind](picture(_graph(name)))


def test_command_writes_the_picture_named_after_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(VEHICLE).stdout == "vehicle-2x6.svg\n"
    assert run(VEHICLE, "--format", "mermaid").stdout == "vehicle-2x6.mmd\n"
    assert run(VEHICLE, "-o", "x.dot").exit_code == 0
    assert Path("x.dot").read_text().startswith("digraph")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "vehicle-2x6.mmd",
        "vehicle-2x6.svg",
        "x.dot",
    ]
    assert run(VEHICLE, "-o", "-").stdout == Path("vehicle-2x6.svg").read_text()


def test_plan_folder_is_drawn_like_its_deployment(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    made = CliRunner().invoke(main, ["check", str(DIGITS), "--plan", str(plan)])
    assert made.exit_code == 0
    assert draw(plan) == draw(DIGITS)


def test_graph_that_check_refuses_is_drawn() -> None:
    refused = ROOT / "tests" / "dataflow" / "conformance" / "preesm-38.yaml"
    assert len(groups(draw(refused), "actor")) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--failure", "edge0"], "device 'edge0': not in graph 'digits' (did you mean"),
        (["--mode", "region"], "mode 'region': not of the form DPG=MODE"),
        (["--mode", "regin[cam.0]=drop"], "did you mean 'region[cam.0]'?"),
        (["--mode", "region[cam.0]=exit"], "no mode 'exit' (did you mean 'exit2'?)"),
        (["-o", "x.png"], "ending '.png' is of no format"),
        (["-o", "none/x.svg"], "no folder"),
        (["--format", "pdf"], "Invalid value for '--format'"),
    ],
)
def test_misuse_names_what_is_nearest(options: list[str], said: str) -> None:
    result = run(DIGITS, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_file_that_is_not_there_is_misuse() -> None:
    assert run("none.yaml").exit_code == 2


def test_cycle_is_opened_where_tokens_lie_and_a_loop_goes_nowhere() -> None:
    items = [Item(name, "", 40.0) for name in "abc"]
    lines = [Line("c", "a", back=True), Line("a", "b"), Line("b", "c"), Line("b", "b")]
    placed = layout(items, lines)
    xs = [placed.items[name].x for name in "abc"]
    assert xs == sorted(xs)
    assert placed.lines[0][0][0] > placed.lines[0][-1][0]  # from right to left
    assert placed.lines[3] == []


def test_graph_without_actors_is_drawn() -> None:
    for kind in FORMATS.values():
        assert kind(picture(Graph("empty", {}, ())))


def test_device_that_a_graph_does_not_have_cannot_fail() -> None:
    with pytest.raises(MisuseError, match="its devices are none"):
        picture(Graph("empty", {}, ()), failed=["x"])
