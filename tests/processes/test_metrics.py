"""Metrics of real devices, scraped over HTTP, say what their files say."""

import json
import signal
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from dataflow.meters import BOUNDS_S
from dataflow.metrics import METRICS
from dataflow.plan import write_plan
from dataflow.wire.header import HEADER_BYTES
from tests.support.run import Played, Record, played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports
from understudy.metrics import Address

ANY_PORT = Address("127.0.0.1", 0)
Labels = Mapping[str, str]


class Scrape:
    """What one device answered."""

    def __init__(self, run: Played, device: str) -> None:
        (serving,) = _events(run, device, "device.metrics")
        with urlopen(serving["url"], timeout=10) as answer:
            text = answer.read().decode()
        self.samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def __getitem__(self, name: str) -> list[tuple[Labels, float]]:
        return [(s.labels, s.value) for s in self.samples if s.name == name]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the sums that are not 0, by these labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for of, value in self[name]:
            found[tuple(of[label] for label in labels)] += value  # type: ignore[assignment]
        return {key: value for key, value in found.items() if value}


def _events(run: Played, device: str, name: str) -> list[Record]:
    (file,) = run.folder.glob(f"events-{device}-*.jsonl")
    events = map(json.loads, file.read_text().splitlines())
    return [event for event in events if event.get("event") == name]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Played]:
    """One camera and two servers, of which the first was killed."""
    plan = toy_plan(tmp_path / "plan", port=free_ports(2))
    with played(plan, tmp_path, metrics=ANY_PORT) as run:
        run.wait_rows("cam.0", "edge.0", 30)
        run.kill("edge.0")
        run.wait_rows("cam.0", "edge.1", 30)
        yield run


def _results(run: Played, count: int) -> list[Record]:
    """Return the first `count` results of cam.0; they are written after they count."""
    run.wait(lambda _, record: int(record.get("frame", -1)) + 1 >= count)
    (file,) = run.folder.glob("results-cam.0-*.jsonl")
    lines = file.read_text().splitlines()
    return [json.loads(line) for line in lines[1 : count + 1]]


def test_frames_and_latencies_are_those_of_the_results_file(scene: Played) -> None:
    scrape = Scrape(scene, "cam.0")
    frames = scrape.by("understudy_frames_total", "outcome", "row", "reason")
    results = _results(scene, int(sum(frames.values())))
    assert frames == Counter((r["status"], r["row"], r["reason"]) for r in results)
    took_s = [r["settled_s"] - r["fired_s"] for r in results if r["status"] == "full"]
    name = "understudy_frame_latency_seconds"
    buckets = [
        value
        for labels, value in scrape[f"{name}_bucket"]
        if labels["outcome"] == "full"
    ]
    expected = Counter(bisect_left(BOUNDS_S, took) for took in took_s)
    assert buckets == [
        sum(expected[i] for i in range(last + 1)) for last in range(len(BOUNDS_S) + 1)
    ]
    total = next(v for of, v in scrape[f"{name}_sum"] if of["outcome"] == "full")
    assert total == pytest.approx(sum(took_s))


def test_firings_and_attempts_agree_with_the_frames(scene: Played) -> None:
    scrape = Scrape(scene, "cam.0")
    frames = scrape.by("understudy_frames_total", "row")
    attempts = scrape.by("understudy_attempts_total", "row")
    firings = scrape.by("understudy_actor_firings_total", "actor")
    assert attempts["edge.0",] >= frames["edge.0",]
    # It is scraped while it runs: between two counters a frame may have come in.
    assert 0 <= firings["result[cam.0]",] - sum(frames.values()) <= 1
    assert firings["camera[cam.0]",] >= sum(frames.values())
    assert ("local[cam.0]",) not in firings, "trials are no work"
    busy_s = scrape.by("understudy_actor_busy_seconds_total", "actor")
    assert 0 < busy_s["result[cam.0]",] < 10


def test_failover_is_counted_with_its_evidence_and_the_link_is_not_ready(
    scene: Played,
) -> None:
    scrape = Scrape(scene, "cam.0")
    failovers = scrape.by("understudy_failovers_total", "peer", "evidence")
    (suspect,) = _events(scene, "cam.0", "link.suspect")
    assert failovers == {("edge.0", suspect["evidence"]): 1}
    states = scrape.by("understudy_link_state", "peer", "state")
    assert ("edge.1", "ready") in states
    assert ("edge.0", "ready") not in states
    sent = scrape.by("understudy_link_sent_bytes_total", "peer")
    attempts = scrape.by("understudy_attempts_total", "row")
    assert sent["edge.0",] == attempts["edge.0",] * (HEADER_BYTES + 4 * 4)


def test_server_counts_what_it_answered_and_its_memory(scene: Played) -> None:
    scrape = Scrape(scene, "edge.1")
    answered = scrape["understudy_tokens_answered_total"][0][1]
    (firings,) = scrape.by("understudy_actor_firings_total", "actor").values()
    assert answered >= 30
    assert firings == pytest.approx(answered, abs=2)
    assert scrape["understudy_sessions"] == [({}, 1)]
    assert scrape["process_resident_memory_bytes"][0][1] > 2**20
    assert {of["device"] for of, _ in scrape["understudy_device_info"]} == {"edge.1"}


def test_every_name_and_label_is_in_the_vocabulary(scene: Played) -> None:
    for device in ("cam.0", "edge.1"):
        for sample in Scrape(scene, device).samples:
            if sample.name.startswith("process_"):
                continue
            name = sample.name
            if name not in METRICS:
                name = name.rpartition("_")[0]
            assert set(sample.labels) - {"le"} == set(METRICS[name].labels), name


def test_rejected_messages_are_counted_by_reason(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    garbage = {
        "size": [[b"US" + bytes(90)], [b""]],
        "magic": [[bytes(HEADER_BYTES)]],
        "encoding": [[b"UC\x01\xc1"]],
        "field": [[b"UC\x01\x81\xa4kind\xa4beat"]],
        "version": [[b"UC\x09whatever"]],
        "frames": [[b"x"] * 100],
    }
    sent = {(reason,): len(messages) for reason, messages in garbage.items()}
    sent["flood",] = 1  # nobody has a reason for so many frames: it is shut out at once
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    name = "understudy_messages_rejected_total"
    with (
        played(plan, tmp_path, metrics=ANY_PORT) as run,
        context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.connect(plan.devices["edge.0"].connect or "")
        for messages in garbage.values():
            for message in messages:
                dealer.send_multipart(message)
        # Frames go on, and each is an occasion to look.
        run.wait(lambda *_: len(Scrape(run, "edge.0").by(name, "reason")) == len(sent))
        assert Scrape(run, "edge.0").by(name, "reason") == sent


def test_nothing_is_served_where_nobody_asked(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with played(plan, tmp_path) as run:
        run.wait_rows("cam.0", "edge.0", 5)
        assert not [r for _, r in run.records if r.get("event") == "device.metrics"]
        pid = run.launcher._processes["edge.0"].pid
        maps = Path(f"/proc/{pid}/task").iterdir()
        names = {(task / "comm").read_text().strip() for task in maps}
    assert "metrics" not in names


def test_deployment_may_say_where_metrics_are(tmp_path: Path) -> None:
    port = free_ports(2)
    plan = toy_plan(tmp_path / "plan", port=port, servers=1)
    address = f"tcp://127.0.0.1:{port + 1}"
    server = replace(plan.devices["edge.0"], metrics=address)
    plan = replace(plan, devices={**plan.devices, "edge.0": server})
    write_plan(plan)
    with played(plan, tmp_path, start=["edge.0"]) as run:
        url = run.wait_event("edge.0", "device.metrics")["url"]
        assert url == f"http://127.0.0.1:{port + 1}/metrics"
        assert Scrape(run, "edge.0").by("understudy_device_state", "state") == {
            ("ready",): 1
        }
        run.kill("edge.0", signal.SIGTERM)
        assert run.wait_exit("edge.0") == 0


@contextmanager
def _taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use_is_one_clear_error_and_status_2(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "plan", port=free_ports(1), servers=1)
    with (
        _taken() as port,
        played(
            plan,
            tmp_path,
            start=["cam.0"],
            ready=False,
            metrics=Address("127.0.0.1", port),
        ) as run,
    ):
        assert run.wait_exit("cam.0") == 2
        assert run.log("cam.0") == (
            f"understudy: metrics address '127.0.0.1:{port}': cannot listen there "
            "(address already in use); end what uses it, or give another\n"
        )
