"""The plain graph of a deployment: its parts, its numbers, and that it is sound."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow.graph import Graph, PortRef
from dataflow.rules import check
from graphs.deployment import CODECS
from graphs.deployment_file import read_deployment
from graphs.expand import expand, expansion
from graphs.graph_file import read_graph, write_graph
from graphs.located_yaml import FileErrors
from graphs.plain_stream import default_window

Write = Callable[..., Path]


def expanded(path: Path, **given: object) -> Graph:
    return expand(read_deployment(path, **given))  # type: ignore[arg-type]


def messages(path: Path) -> tuple[str, ...]:
    with pytest.raises(FileErrors) as caught:
        expanded(path)
    return caught.value.messages


@pytest.mark.parametrize("codec", ["none", "int8"])
@pytest.mark.parametrize(("cameras", "servers"), [(1, 1), (2, 2), (2, 4), (5, 3)])
def test_every_stream_has_its_own_actors_on_every_server(
    write: Write, cameras: int, servers: int, codec: str
) -> None:
    counts = {"cam": cameras, "edge": servers}
    graph = expanded(write(), counts=counts, codec=codec)
    crossing = [
        f
        for f in graph.fifos
        if graph.actors[f.source.actor].device != graph.actors[f.target.actor].device
    ]
    at_home = 9  # camera prep net.head fork exit2 exit1 join row result
    per_server = 5 + 2 * (codec != "none")
    assert len(graph.actors) == cameras * (at_home + servers * per_server)
    assert len(crossing) == 2 * cameras * servers
    assert len(graph.regions) == len(graph.dpgs) == cameras
    assert check(graph) == []


def test_plain_graph_of_one_camera_and_one_server_is_the_one_described(
    write: Write,
) -> None:
    graph = expanded(write(), counts={"cam": 1, "edge": 1})
    assert [(a.name, a.device) for a in graph.actors.values()] == [
        ("camera[cam.0]", "cam.0"),
        ("prep[cam.0]", "cam.0"),
        ("net.head[cam.0]", "cam.0"),
        ("fork[cam.0]", "cam.0"),
        ("net.tail[cam.0]@edge.0.tx", "cam.0"),
        ("net.tail[cam.0]@edge.0.rx", "edge.0"),
        ("net.tail[cam.0]@edge.0", "edge.0"),
        ("net.tail[cam.0]@edge.0.return.tx", "edge.0"),
        ("net.tail[cam.0]@edge.0.return.rx", "cam.0"),
        ("exit2[cam.0]", "cam.0"),
        ("exit1[cam.0]", "cam.0"),
        ("join[cam.0]", "cam.0"),
        ("row[cam.0]", "cam.0"),
        ("result[cam.0]", "cam.0"),
    ]
    fork = graph.actors["fork[cam.0]"]
    assert [p.name for p in fork.inputs] == ["features1", "features2", "row"]
    assert {p.name for p in fork.outputs} == {
        "b0_features2",
        "b1_features2",
        "b2_features1",
    }
    region = graph.regions[0]
    assert (region.name, region.stream) == ("region[cam.0]", "cam.0")
    assert [(b.row, b.device, b.quality) for b in region.branches] == [
        ("edge.0", "edge.0", "full"),
        ("exit2", "cam.0", "degraded"),
        ("exit1", "cam.0", "degraded"),
    ]
    assert list(graph.dpgs[0].modes) == ["edge.0", "exit2", "exit1", "drop"]
    carried = set(region.branches[0].actors) - {"net.tail[cam.0]@edge.0.tx"}
    assert graph.dpgs[0].carried == carried


def test_mode_of_a_row_plays_its_own_branch_and_no_other(write: Write) -> None:
    graph = expanded(write())
    for dpg, region in zip(graph.dpgs, graph.regions, strict=True):
        assert not any(dpg.modes["drop"].values())
        for branch in region.branches:
            playing = {ref.actor for ref, rate in dpg.modes[branch.row].items() if rate}
            assert playing == {*branch.actors, region.fork, region.join}


@pytest.mark.parametrize("told", ["{replicate: 2}", "{hedge: p95}"])
def test_where_several_may_play_one_row_plays_all(write: Write, told: str) -> None:
    added = "deadline_ms: 200", f"redundancy: {told}\n  deadline_ms: 200"
    graph = expanded(write(deployment=added))
    for dpg, region in zip(graph.dpgs, graph.regions, strict=True):
        assert list(dpg.modes)[-2:] == ["all", "drop"]
        alone = [dpg.modes[branch.row] for branch in region.branches]
        assert dpg.modes["all"] == {
            ref: max(row[ref] for row in alone) for ref in dpg.dynamic_ports
        }
    assert check(graph) == []


@pytest.mark.parametrize("told", ["standby", "spread"])
def test_where_one_plays_at_a_time_no_row_plays_all(write: Write, told: str) -> None:
    added = "deadline_ms: 200", f"redundancy: {told}\n  deadline_ms: 200"
    graph = expanded(write(deployment=added))
    assert {str(region.redundancy) for region in graph.regions} == {told}
    assert not any("all" in dpg.modes for dpg in graph.dpgs)


def test_streams_begin_with_different_servers(write: Write) -> None:
    graph = expanded(write(), counts={"cam": 3, "edge": 2})
    assert [[b.row for b in r.branches[:2]] for r in graph.regions] == [
        ["edge.0", "edge.1"],
        ["edge.1", "edge.0"],
        ["edge.0", "edge.1"],
    ]


@pytest.mark.parametrize("told", ["standby", "{replicate: 3}", "{hedge: p99}"])
def test_plain_graph_is_a_graph_file(write: Write, folder: Path, told: str) -> None:
    added = "deadline_ms: 200", f"redundancy: {told}"
    for codec in ("none", "float16"):
        graph = expanded(write(deployment=added), codec=codec)
        Path("plain.yaml").write_text(write_graph(graph))
        assert read_graph(Path("plain.yaml")).graph == graph


def test_every_actor_and_fifo_knows_its_place_in_the_files(write: Write) -> None:
    found = expansion(read_deployment(write(), codec="int8"))
    named = {*found.graph.actors, *(str(f) for f in found.graph.fifos)}
    assert named <= found.location.keys()
    location = found.location
    assert location["camera[cam.1]"] == "digits.yaml:4:3"
    assert location["net.tail[cam.0]@edge.1"] == "demo.yaml:10:3"
    assert location["join[cam.0]"] == "demo.yaml:15:3"
    assert location["camera[cam.0].label -> result[cam.0].label"] == "digits.yaml:16:5"


def test_compression_is_of_the_pair_that_crosses_and_of_no_actor(write: Write) -> None:
    counts = {"cam": 1, "edge": 1}
    plain, packed = (
        expanded(write(), codec=codec, counts=counts) for codec in ("int8", "int8+zstd")
    )
    assert packed.fifos == plain.fifos
    changed = [n for n in plain.actors if packed.actors[n] != plain.actors[n]]
    base = "net.tail[cam.0]@edge.0"
    assert changed == [f"{base}.tx", f"{base}.rx", "result[cam.0]"]
    for name in changed[:2]:
        assert packed.actors[name].params["compression"] == "zstd"
    assert packed.actors["result[cam.0]"].params["codec"] == "int8+zstd"


@pytest.mark.parametrize(("least", "given"), [(40, {"compression": "zstd"}), (41, {})])
def test_large_answer_is_compressed_as_the_token_was(
    write: Write, monkeypatch: pytest.MonkeyPatch, least: int, given: dict[str, str]
) -> None:
    monkeypatch.setattr("graphs.plain_branch.ANSWER_BYTES_MIN", least)
    graph = expanded(write(), codec="zstd", counts={"cam": 1, "edge": 1})
    for end in ("tx", "rx"):
        params = graph.actors[f"net.tail[cam.0]@edge.0.return.{end}"].params
        assert {k: v for k, v in params.items() if k == "compression"} == given


def test_other_codec_is_another_computation_behind_the_cut(write: Write) -> None:
    """Peers of different codecs refuse each other's greeting, not each token."""
    segments = {
        expanded(write(), codec=codec).regions[0].branches[0].segment
        for codec in CODECS
    }
    assert len(segments) == len(CODECS)


def test_auto_has_a_row_that_encodes_behind_those_that_do_not(write: Write) -> None:
    graph = expanded(write(), codec="auto", counts={"cam": 1, "edge": 2})
    branches = graph.regions[0].branches
    assert [(b.row, b.quality, b.codec) for b in branches[:4]] == [
        ("edge.0", "full", ""),
        ("edge.1", "full", ""),
        ("int8@edge.0", "degraded", "int8"),
        ("int8@edge.1", "degraded", "int8"),
    ]
    assert [b.codec for b in branches[4:]] == ["", ""]
    sent = [a.params.get("compression") for a in graph.actors.values() if a.type == "tx"
            and ".return" not in a.name]  # fmt: skip
    assert sent == ["auto"] * 4
    encoders = [a for a in graph.actors.values() if a.type == "encode"]
    assert [a.params["codec"] for a in encoders] == ["int8", "int8"]
    assert graph.actors["result[cam.0]"].params["codec"] == "auto"
    assert check(graph) == []


def test_auto_costs_no_answer_its_being_full(write: Write) -> None:
    none, auto = (
        expanded(write(), codec=codec).regions[0].branches for codec in ("none", "auto")
    )
    assert [b.quality for b in auto if not b.codec] == [b.quality for b in none]


def test_codec_stands_right_before_tx_and_right_behind_rx(write: Write) -> None:
    graph = expanded(write(), codec="int8", counts={"cam": 1, "edge": 1})
    assert graph.regions[0].branches[0].actors == (
        "net.encode[cam.0]@edge.0",
        "net.tail[cam.0]@edge.0.tx",
        "net.tail[cam.0]@edge.0.rx",
        "net.decode[cam.0]@edge.0",
        "net.tail[cam.0]@edge.0",
        "net.tail[cam.0]@edge.0.return.tx",
        "net.tail[cam.0]@edge.0.return.rx",
    )
    assert graph.fifo_into[PortRef("net.tail[cam.0]@edge.0.tx", "in_features2")]
    crossing = graph.token(
        graph.fifo_into[PortRef("net.tail[cam.0]@edge.0.rx", "in_features2")]
    )
    assert crossing is not None
    assert crossing.dtype == "uint8"


def test_results_say_what_they_are_results_of(write: Write) -> None:
    graph = expanded(write(), codec="float16", counts={"cam": 1, "edge": 1})
    assert graph.actors["result[cam.0]"].params == {
        "deployment": "demo",
        "graph": "digits",
        "rows": ["edge.0", "exit2", "exit1"],
        "codec": "float16",
    }


def test_group_without_count_keeps_its_name(write: Write) -> None:
    path = write(deployment=("role: endpoint, count: 2", "role: endpoint"))
    assert expanded(path).regions[0].stream == "cam"


def test_without_failover_the_mapped_servers_are_the_only_rows(write: Write) -> None:
    path = write(
        deployment=("failover:\n  order: [{net: edge}, exit2, exit1]\n", "failover:\n")
    )
    graph = expanded(path, counts={"cam": 1})
    assert [b.row for b in graph.regions[0].branches] == ["edge.0", "edge.1"]
    assert not any("exit" in name for name in graph.actors)


@pytest.mark.parametrize(
    ("mapping", "rows", "prefix_end"),
    [
        ("net: edge", ["edge.0", "edge.1"], "prep[cam.0]"),
        ("net: cam", ["net"], "prep[cam.0]"),
    ],
)
def test_model_may_be_mapped_whole(
    write: Write, mapping: str, rows: list[str], prefix_end: str
) -> None:
    path = write(
        deployment=("net: {cut: features2, head: cam, tail: edge}", mapping),
        graph=("", ""),
    )
    text = path.read_text().replace("[{net: edge}, exit2, exit1]", "[net]")
    path.write_text(text)
    graph = expanded(path, counts={"cam": 1})
    region = graph.regions[0]
    assert [b.row for b in region.branches] == rows
    assert next(graph.inputs(region.fork)).source.actor == prefix_end
    assert check(graph) == []


def test_whole_network_at_home_may_be_the_last_resort(write: Write) -> None:
    path = write(deployment=("exit2, exit1]", "{net: cam}]"))
    graph = expanded(path, codec="int8", counts={"cam": 1})
    last = graph.regions[0].branches[-1]
    assert (last.row, last.device, last.quality) == ("net", "cam.0", "full")
    # It rounds as the others do: full is one value, wherever it is computed.
    assert last.actors == ("net.encode[cam.0]", "net.decode[cam.0]", "net.tail[cam.0]")
    assert check(graph) == []


def test_understudy_may_play_on_a_server(write: Write) -> None:
    path = write(deployment=("exit2, exit1]", "{exit2: lab}]"))
    lab = '  lab: {role: server, listen: "tcp://127.0.0.1:7100"}\n'
    text = path.read_text()
    path.write_text(text.replace("devices:\n", f"devices:\n{lab}", 1))
    graph = expanded(path, counts={"cam": 1})
    assert [b.row for b in graph.regions[0].branches] == [
        "edge.0",
        "edge.1",
        "exit2@lab",
    ]
    assert check(graph) == []


def test_one_server_may_have_two_ways_to_an_answer(write: Write) -> None:
    graph = expanded(write(deployment=("exit2, exit1]", "{exit2: edge}]")))
    rows = [branch.row for branch in graph.regions[0].branches]
    assert rows == ["edge.0", "edge.1", "exit2@edge.0", "exit2@edge.1"]
    assert check(graph) == []


def test_smaller_network_may_read_what_the_large_one_reads(write: Write) -> None:
    path = write(
        graph=(
            "  - net@features1 -> exit1.features",
            "  - net@input -> small.input",
        ),
        deployment=("exit1: cam", "small: cam"),
    )
    for name, edits in (
        ("digits.yaml", [
            ("  exit1: {type: onnx, model: digits-exit1.onnx}",
             "  small: {type: onnx, model: digits.onnx}"),
            ("exit1.logits", "small.logits"),
        ]),
        ("demo.yaml", [("exit2, exit1", "exit2, small")]),
    ):  # fmt: skip
        text = Path(name).read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        Path(name).write_text(text)
    graph = expanded(path, counts={"cam": 1})
    head = graph.actors["net.head[cam.0]"]
    assert "input_copy" in {p.name for p in head.outputs}
    assert [b.row for b in graph.regions[0].branches][-1] == "small"
    assert check(graph) == []


def test_capacities_inside_a_region_hold_a_window(write: Write) -> None:
    graph = expanded(write(deployment=("deadline_ms: 200", "window: 9")))
    region = graph.regions[0]
    inside = {region.fork, region.join}
    inside |= {a for b in region.branches for a in b.actors}
    for fifo in graph.fifos:
        if fifo.target.actor in inside:
            assert fifo.capacity == 9
    bypass = graph.fifo_into[PortRef(region.sink, "label")]
    assert bypass.capacity == 9 + 2


@pytest.mark.parametrize(("rate_hz", "window"), [(1, 4), (25, 4), (50, 7), (1000, 121)])
def test_default_window_covers_the_detection_of_a_silent_peer(
    rate_hz: float, window: int
) -> None:
    assert default_window(rate_hz) == window


def test_parameters_counts_and_addresses_can_be_given(write: Write) -> None:
    deployment = read_deployment(
        write(),
        counts={"cam": 3, "edge": 1},
        params={"camera": {"rate_hz": 30}},
        listen_base=9100,
    )
    graph = expand(deployment)
    assert [r.window for r in graph.regions] == [5, 5, 5]
    assert graph.actors["camera[cam.2]"].params["rate_hz"] == 30
    assert deployment.devices["edge.0"].connect == "tcp://127.0.0.1:9100"


def test_instances_listen_on_their_own_ports_and_hosts(write: Write) -> None:
    path = write(
        deployment=(
            '"tcp://127.0.0.1:7000"',
            '"tcp://0.0.0.0:7000", connect: [lab-1, 10.0.0.2]',
        )
    )
    devices = read_deployment(path).devices
    assert [(d.listen, d.connect) for n, d in devices.items() if "edge" in n] == [
        ("tcp://0.0.0.0:7000", "tcp://lab-1:7000"),
        ("tcp://0.0.0.0:7001", "tcp://10.0.0.2:7001"),
    ]


def test_instances_serve_metrics_on_their_own_ports(write: Write) -> None:
    asked = 'role: endpoint, count: 2, metrics: "tcp://127.0.0.1:9100"'
    path = write(deployment=("role: endpoint, count: 2", asked))
    devices = read_deployment(path).devices
    assert [(n, d.metrics) for n, d in devices.items()] == [
        ("cam.0", "tcp://127.0.0.1:9100"),
        ("cam.1", "tcp://127.0.0.1:9101"),
        ("edge.0", None),
        ("edge.1", None),
    ]


def test_only_the_source_may_pass_by_the_answer(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own_sink.py").write_text(
        "from dataflow.behaviour import Sink\n"
        "from dataflow.graph import Port\n"
        "class Two(Sink):\n"
        "    @classmethod\n"
        "    def ports(cls, params):\n"
        "        return (Port('answer', 'in'), Port('label', 'in'))\n"
    )
    monkeypatch.syspath_prepend(folder)
    path = write(
        graph=("camera.label -> result.label", "net@features3 -> result.label"),
    )
    text = Path("digits.yaml").read_text()
    Path("digits.yaml").write_text(text.replace("results", '"own_sink:Two"'))
    assert messages(path) == (
        "digits.yaml:16:5: fifo net.features3 -> result.label: passes by the answer, "
        "but does not come from the source; only 'camera' may feed 'result' beside the "
        "answer",
    )


def test_two_cameras_of_one_device_are_two_streams(write: Write) -> None:
    path = write()
    second = """\
  eye: {type: images, path: digits-test.npz, rate_hz: 10}
  look: {type: normalise, scale: 0.0625}
  brain: {type: onnx, model: digits.onnx}
  log: {type: results}
fifos:
  - eye.frame -> look.pixels
  - look.image -> brain.input
  - brain.logits -> log.answer
"""
    graph_text = Path("digits.yaml").read_text().replace("fifos:\n", second)
    Path("digits.yaml").write_text(graph_text)
    mapping = "map:\n  eye: cam\n  look: cam\n  brain: edge\n  log: cam\n"
    path.write_text(path.read_text().replace("map:\n", mapping))
    graph = expanded(path)
    assert [r.stream for r in graph.regions] == [
        "cam.0/camera",
        "cam.1/camera",
        "cam.0/eye",
        "cam.1/eye",
    ]
    assert check(graph) == []


def test_graph_that_is_deployed_already_is_refused(write: Write) -> None:
    path = write()
    Path("digits.yaml").write_text(write_graph(expanded(path)))
    assert messages(path) == (
        "demo.yaml:3:8: graph: 'digits.yaml' has devices in it already; name the graph "
        "that it was made from",
    )


def test_codec_is_part_of_what_a_server_is_asked_for(write: Write) -> None:
    """One server may hold two plans that differ in nothing else."""
    path = write()
    asked = {
        branch.segment
        for codec in ("none", "int8")
        for region in expand(read_deployment(path, codec=codec)).regions
        for branch in region.branches
        if branch.segment
    }
    assert len(asked) == 2
