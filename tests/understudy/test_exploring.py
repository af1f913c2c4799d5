"""Explorations: against a minimum cut, against trying all, and what they refuse.

Source of the graph for the minimum cut: a tensor is one vertex, whoever reads it, so
that it is paid for once (see Hu et al., "Dynamic Adaptive DNN Surgery", 2019).
"""

import itertools
import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import networkx
import pytest

from dataflow.errors import MisuseError, UnderstudyError
from graphs.groups import groups
from graphs.onnx_model import Model
from tests.support.light import light_model
from tests.support.profiles import RUNTIME, profile_of
from understudy.candidates import CODECS, Device, crossings, places
from understudy.chains import Found, Search
from understudy.constraints import Constraints
from understudy.costs import (
    Exit,
    Link,
    Power,
    air_ms,
    cost,
    score,
)
from understudy.exploration import Exploration, Panel
from understudy.exploring import Wish, explore
from understudy.profile_file import Ends, Paced, Runtime

DIGITS = Path(str(files("graphs"))) / "digits" / "digits.onnx"
LINK = Link("wifi", 8.0, 8.0, 1.0)


@pytest.fixture(scope="module")
def digits() -> Model:
    return Model.read(DIGITS)


def device(model: Model, name: str, ms: float) -> Device:
    return Device(name, f"{name}.json", profile_of(model, ms, name))


def wish(model: Model, *, ms: tuple[float, float] = (20.0, 1.0), **changes) -> Wish:
    near, far = device(model, "pi", ms[0]), device(model, "lab", ms[1])
    return Wish(**{"devices": (near, far), "links": [[LINK]], **changes})


def panel(exploration: Exploration) -> Panel:
    (only,) = exploration.panels
    return only


def min_cut_ms(model: Model, near: Device, far: Device, mbit_s: float) -> float:
    """Return the least latency of any partition, answers and messages being free.

    No layer group is cut apart: that costs time of its own.
    """
    graph = networkx.DiGraph()
    times = {}
    for index, device in enumerate((near, far)):
        for node in device.profile.nodes:
            times.setdefault(node.tensor, [0.0, 0.0])[index] = node.ms
    for tensor, (near_ms, far_ms) in times.items():
        node = model.producer[tensor]
        graph.add_edge("endpoint", node, capacity=far_ms)
        graph.add_edge(node, "server", capacity=near_ms)
    makers = dict.fromkeys(model.inputs, "endpoint") | dict(model.producer)
    for node in [n for n in graph if isinstance(n, int)]:
        for tensor in model.reads[node]:
            if tensor in model.dynamic:
                ms = model.tensor(tensor).token.nbytes * 8e-3 / mbit_s
                graph.add_edge(makers[tensor], tensor, capacity=ms)
                graph.add_edge(tensor, node)  # no capacity: it never pays to cut here
                graph.add_edge(node, makers[tensor])  # nothing goes back and forth
    for group in groups(model):
        inside = [node for node in group.nodes if node in graph]
        graph.add_edges_from(itertools.permutations(inside, 2))
    return float(networkx.minimum_cut_value(graph, "endpoint", "server"))


@pytest.mark.parametrize("name", ["squeezenet", "resnet50", "shufflenet"])
@pytest.mark.parametrize("mbit_s", [10.0, 100.0, 1000.0])
def test_best_row_is_the_minimum_cut(name: str, mbit_s: float) -> None:
    model = Model.read(light_model(name))
    near, far = device(model, "pi", 400.0), device(model, "lab", 40.0)
    link = Link("wifi", mbit_s, mbit_s, 0.0)
    given = Wish((near, far), [[link]], codecs=("none",), answer_bytes=0)
    rows = [r for r in panel(explore(model, given)).rows if r.kind != "raw"]
    best_ms = min(row.cost.total_ms for row in rows)
    headers_ms = 2 * (air_ms(0, mbit_s, 3) + 2 * RUNTIME.message_ms)
    least_ms = min_cut_ms(model, near, far, mbit_s) + RUNTIME.frame_ms
    assert least_ms - 1e-6 <= best_ms <= least_ms + headers_ms + 1e-6


@pytest.mark.parametrize(
    ("weights", "wan_mbit_s"),
    [
        ({"latency": 1.0}, 0.1),
        ({"throughput": 1.0}, 0.1),
        ({"throughput": 1.0}, 0.04),
        ({"latency": 1.0, "bytes": 0.5}, 0.1),
        ({"endpoint-energy": 1.0, "bytes": 2.0}, 0.1),
    ],
)
def test_chain_of_three_is_the_best_of_all(
    digits: Model, weights, wan_mbit_s: float
) -> None:
    """A quick link to a slow device, and a slow link to a quick one: all three work."""
    times = (("a", 900.0), ("b", 90.0), ("c", 1.0))
    devices = tuple(device(digits, name, ms) for name, ms in times)
    links = (Link("lan", 100.0, 100.0, 0.1), Link("wan", wan_mbit_s, 2.0, 0.2))
    power = Power(endpoint_w=3.0, idle_w=1.0, radio_w=0.5)
    codecs = ("none", "zstd")
    found = [place for place in places(digits) if not place.fixed]
    search = Search(found, devices, links, weights, codecs, power)
    rows = search.rows()
    every = [row for row in rows if not row.places]
    for first, second in itertools.product(search._ways[0], search._ways[1]):
        onward = second.place is first.place or (
            second.place.kind == "single" and first.place.nodes <= second.place.nodes
        )
        if onward and first.crossing.codec == second.crossing.codec:
            every.append(search._partition((first, second)))
        every.append(search._partition((first,)))

    def paid(found: Found) -> float:
        return score(weights, cost(found.partition, power))

    best = min(rows, key=paid)
    assert paid(best) == pytest.approx(min(map(paid, every)))
    assert len(best.places) == 2
    assert best.places[0] is not best.places[1]


def test_slow_network_keeps_everything_at_home_and_says_so(digits: Model) -> None:
    far_away = Link("gprs", 0.05, 0.05, 500.0)
    found = panel(explore(digits, wish(digits, links=[[far_away]])))
    assert found.best is not None
    assert found.best.kind == "local"
    assert found.why.startswith("do not split")


def test_fast_network_sends_the_frame_as_it_is(digits: Model) -> None:
    found = panel(explore(digits, wish(digits, links=[[Link("lan", 1e4, 1e4, 0.1)]])))
    assert found.best is not None
    assert found.best.kind == "raw"
    assert {row.kind for row in found.rows} >= {"raw", "input", "single", "local"}


def test_frame_of_a_camera_is_a_quarter_of_the_float_input(digits: Model) -> None:
    rows = {r.kind: r for r in panel(explore(digits, wish(digits))).rows}
    assert rows["raw"].cost.wire_bytes * 4 == rows["input"].cost.bytes


def test_no_raw_input_leaves_only_cuts_and_all_local(digits: Model) -> None:
    strict = Constraints(no_raw_input=True)
    found = panel(explore(digits, wish(digits, constraints=strict)))
    assert not any(row.raw_input for row in found.rows if not row.excluded)
    assert all(
        row.excluded == ("the raw input leaves the device",)
        for row in found.rows
        if row.raw_input
    )


def test_where_nothing_is_left_the_nearest_is_named(digits: Model) -> None:
    strict = Constraints(no_raw_input=True, endpoint_ms_max=1e-6)
    found = panel(explore(digits, wish(digits, constraints=strict)))
    assert found.best is None
    assert "the constraints exclude all" in found.why
    assert "the nearest is" in found.why


def test_memory_is_limited_on_either_side(digits: Model) -> None:
    for side, kind in (("endpoint", "local"), ("server", "raw")):
        strict = Constraints(memory_mb_max={side: 1.0})
        found = panel(explore(digits, wish(digits, constraints=strict)))
        row = next(row for row in found.rows if row.kind == kind)
        assert row.excluded[0].startswith(f"{side} needs")


def test_pinned_node_runs_where_it_is_pinned(digits: Model) -> None:
    every = places(digits)
    tensor = next(p.tensors[0] for p in every if p.kind == "single")
    for side in ("endpoint", "server"):
        pinned = Constraints(pins={tensor: side})
        found = panel(explore(digits, wish(digits, constraints=pinned)))
        for row in found.rows:
            here = every[row.number].makes(tensor)
            assert bool(row.excluded) == (here != (side == "endpoint")), row.label


def test_pin_to_a_node_that_is_not_there_is_refused(digits: Model) -> None:
    pinned = Constraints(pins={"nowhere": "server"})
    with pytest.raises(UnderstudyError, match="no such node or tensor"):
        explore(digits, wish(digits, constraints=pinned))


def test_equals_within_noise_are_printed_and_all_local_is_preferred(
    digits: Model,
) -> None:
    """On a perfect link to an equal device it makes no difference where to cut."""
    equal = wish(digits, ms=(500.0, 500.0), links=[[Link("bus", 1e9, 1e9, 0.0)]])
    found = panel(explore(digits, equal))
    assert found.best is not None
    assert found.best.kind == "local"
    assert len(found.ties) == len(found.rows)
    assert "not to be told from" in found.why


def dear(device: Device, tensors: tuple[str, ...], share: float) -> Device:
    """Return a device on which one cut adds a share of the whole to its head."""
    made = device.profile
    added_ms = share * made.whole.min_ms
    times = [
        replace(c, head_ms=c.head_ms + added_ms) if c.tensors == tensors else c
        for c in made.cuts
    ]
    return replace(device, profile=replace(made, cuts=tuple(times)))


def test_what_a_cut_costs_in_itself_is_said(digits: Model) -> None:
    plain = wish(digits)
    tensors = panel(explore(digits, plain)).rows[3].tensors
    near, far = plain.devices
    rows = panel(
        explore(digits, replace(plain, devices=(dear(near, tensors, 0.2), far)))
    ).rows
    said = {row.tensors: row.notes for row in rows if row.added > 0.05}
    assert [*said] == [tensors]
    assert said[tensors][-1] == "costs 20 % in itself"


def test_among_equals_one_that_costs_in_itself_is_not_recommended(
    digits: Model,
) -> None:
    """Over a link to a far place it hardly matters where to cut."""
    forced = Constraints(no_raw_input=True, pins={digits.outputs[-1]: "lab"})
    far = [[Link("far", 1e9, 1e9, 1e4)]]
    plain = wish(digits, links=far, constraints=forced)
    best = panel(explore(digits, plain)).best
    assert best is not None
    near, server = plain.devices
    changed = replace(plain, devices=(dear(near, best.tensors, 0.06), server))
    found = panel(explore(digits, changed))
    assert min(found.ties, key=lambda row: row.score).number == best.number
    assert found.best is not None
    assert found.best.number != best.number


def test_thresholds_say_what_is_the_quickest_at_any_rate(digits: Model) -> None:
    found = panel(explore(digits, wish(digits))).thresholds
    assert len(found) > 1
    assert found[0].from_mbit_s == 0
    assert found[-1].to_mbit_s is None
    for threshold in found:
        low = max(threshold.from_mbit_s * 1.001, 1e-3)
        high = (threshold.to_mbit_s or 1e6) * 0.999
        for mbit_s in (low, math.sqrt(low * high), high):
            links = [[replace(LINK, there_mbit_s=mbit_s, back_mbit_s=mbit_s)]]
            rows = panel(explore(digits, wish(digits, links=links))).rows
            quickest = min(rows, key=lambda row: row.cost.total_ms)
            assert quickest.number == threshold.number, mbit_s


def test_codec_is_used_where_it_pays(digits: Model) -> None:
    def best_codec(mbit_s: float) -> set[str]:
        links = [[Link("x", mbit_s, mbit_s, 0.0)]]
        rows = panel(explore(digits, wish(digits, links=links))).rows
        return {row.codec for row in rows if row.kind == "single"}

    assert best_codec(1.0) == {"zstd"}
    assert best_codec(1e5) == {"none"}


def test_what_is_not_cut_crosses_as_it_is(digits: Model) -> None:
    """No deployment has a codec for it."""
    links = [[Link("x", 1.0, 1.0, 0.0)]]
    rows = panel(explore(digits, wish(digits, links=links, codecs=CODECS))).rows
    assert {r.codec for r in rows if r.kind == "single"} == {"int8"}
    assert {r.codec for r in rows if r.kind in ("raw", "input")} == {"none"}


def test_codec_that_was_asked_for_is_used_even_where_it_does_not_pay(
    digits: Model,
) -> None:
    links = [[Link("x", 1e5, 1e5, 0.0)]]
    found = panel(explore(digits, wish(digits, links=links, codecs=("int8",))))
    assert {row.codec for row in found.rows if row.kind == "single"} == {"int8"}


def test_exit_counts_only_where_what_it_reads_is_made(digits: Model) -> None:
    every = places(digits)
    cut = [p for p in every if p.kind == "single"][1]
    early = Exit(cut.tensors[0], 0.5, 0.1)
    found = panel(explore(digits, wish(digits, exit=early)))
    for row in found.rows:
        has = row.pieces.exit is not None
        assert has == every[row.number].makes(early.tensor), row.label
        assert has or row.excluded
    local = next(row for row in found.rows if row.kind == "local")
    head = next(row for row in found.rows if row.tensors == cut.tensors)
    head_ms = head.pieces.parts[0].ms  # of 20 ms, the rest for every second frame
    assert local.pieces.parts[0].ms == pytest.approx(head_ms + 0.5 * (20 - head_ms))


def test_profile_of_another_model_is_refused(digits: Model) -> None:
    other = replace(
        profile_of(digits, 1.0),
        model=replace(profile_of(digits, 1.0).model, sha256="0" * 64),
    )
    given = (Device("pi", "pi.json", other), device(digits, "lab", 1.0))
    with pytest.raises(UnderstudyError, match="profile this model there"):
        explore(digits, Wish(given, [[LINK]]))


def test_energy_without_power_figures_is_misuse(digits: Model) -> None:
    with pytest.raises(MisuseError, match="give --power"):
        explore(digits, wish(digits, weights={"endpoint-energy": 1.0}))


def test_slower_endpoint_is_marked_as_modelled(digits: Model) -> None:
    given = wish(digits)
    slow = replace(given.devices[0], factor=8.0, scaled="modelled: the profile x 8")
    found = panel(explore(digits, replace(given, devices=(slow, given.devices[1]))))
    plain = panel(explore(digits, given))
    for row, other in zip(found.rows, plain.rows, strict=True):
        assert row.source == "modelled"
        assert row.cost.endpoint_ms == pytest.approx(8 * other.cost.endpoint_ms)
        assert row.cost.server_ms == other.cost.server_ms


def test_device_adds_what_its_profile_says_and_the_factor_scales(
    digits: Model,
) -> None:
    plain = profile_of(digits, 4.0)
    made = replace(
        plain,
        paced=Paced(1.5, 0.25, 0.0),
        runtime=Runtime(0.5, 0.25, 0.125, 0.0),
        ends=Ends(1.0, 2.0, {}),
    )
    near = Device("pi", "", made, factor=2.0)
    found = {place.kind: place for place in places(digits)}
    whole = near.part(None, None)
    assert whole.ms == pytest.approx((4.0 * 1.5 + 0.25) * 2)
    # Each part has a start of its own, and who computes nothing has none.
    parts = near.part(None, found["single"]), near.part(found["single"], None)
    assert sum(part.ms for part in parts) == pytest.approx((4.0 * 1.5 + 2 * 0.25) * 2)
    assert near.part(None, found["raw"]).ms == 0
    # Runtime and hand-off, then preparing and packing, which are work as well.
    assert whole.around_ms == pytest.approx(2 * (0.5 + 0.125) + 2 * 1.5 * (1.0 + 2.0))
    assert near.part(None, found["raw"]).around_ms == pytest.approx(2 * 0.5)
    assert near.part(None, found["input"]).around_ms == pytest.approx(2 * (0.5 + 1.5))
    behind = near.part(found["raw"], None).around_ms
    assert behind == pytest.approx(2 * 0.125 + 2 * 1.5 * (1.0 + 2.0))
    assert whole.message_ms == pytest.approx(2 * 0.25)


def test_large_answer_comes_back_compressed_where_the_frame_was(
    digits: Model,
) -> None:
    far = replace(device(digits, "lab", 1.0))
    ends = Ends(0.0, 0.0, {"zstd": 10})
    far = replace(far, profile=replace(far.profile, ends=ends))
    near = device(digits, "pi", 20.0)
    cut = next(place for place in places(digits) if place.kind == "single")
    for answer_bytes, packed in ((cut.answer_bytes, False), (400_000, True)):
        place = replace(cut, answer_bytes=answer_bytes)
        plain, zstd = crossings(place, near, far, ("none", "zstd"))
        assert plain.answer_bytes == answer_bytes
        assert zstd.answer_bytes == (100_000 if packed else answer_bytes)
        # CODECS of the profile: 2 ms to encode a megabyte, 0.8 ms to decode it.
        assert zstd.decode_ms == pytest.approx(
            0.8 * place.bytes / 1e6 + 2.0 * 0.4 * packed
        )


def test_json_holds_every_row_and_no_infinity(digits: Model) -> None:
    exploration = explore(digits, wish(digits))
    data = exploration.to_json()
    (first,) = data["panels"]
    assert len(first["rows"]) == len(exploration.panels[0].rows)

    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for each in value:
                yield from numbers(each)
        elif isinstance(value, float):
            yield value

    assert all(math.isfinite(number) for number in numbers(data))
    assert len(exploration.to_csv().splitlines()) == 1 + len(first["rows"])
