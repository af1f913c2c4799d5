"""What a running device says of itself in numbers: the vocabulary, and how it is read.

`METRICS` is the whole vocabulary. `understudy.metrics` serves it to Prometheus; the
page docs/metrics.md is made from it. The labels are bounded: devices, streams, rows and
actors are those of the plan, reasons and states are listed in the code, and nothing
that a peer sends becomes a label.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from dataflow.engine import Chain
from dataflow.errors import REJECTIONS
from dataflow.host import Host
from dataflow.links import Links
from dataflow.meters import Histogram
from dataflow.plan import Device, Plan
from dataflow.play import Play
from dataflow.stream import Stream
from dataflow.wire.header import Nack
from dataflow.wire.link import Link
from dataflow.wire.link_states import Evidence, State

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One name of the vocabulary. The unit is the last word of a name that has one."""

    kind: Kind
    labels: tuple[str, ...]
    meaning: str


class Sample(NamedTuple):
    """One number, now."""

    metric: str
    labels: tuple[str, ...]
    """Values of the metric's labels, in their order."""
    value: float | Histogram


METRICS: Mapping[str, Metric] = {
    "understudy_device_info": Metric(
        "gauge",
        ("device", "role", "deployment", "plan"),
        "Always 1: who this is, and the digest of the plan that it runs.",
    ),
    "understudy_device_state": Metric(
        "gauge",
        ("state",),
        "1 for the state that the device is in: loading, ready, stopping or failed.",
    ),
    "understudy_queue_tokens": Metric(
        "gauge", (), "Tokens that wait for a firing, or are in one."
    ),
    "understudy_events_lost_total": Metric(
        "counter", (), "Lines that the event log has no room for, or could not write."
    ),
    "understudy_messages_rejected_total": Metric(
        "counter",
        ("reason",),
        "Messages of peers that were thrown away; the reasons stand below.",
    ),
    "understudy_actor_firings_total": Metric(
        "counter",
        ("actor",),
        "Firings. On a server one actor stands for those of its segment, of all "
        "streams. Trials before the first frame do not count.",
    ),
    "understudy_actor_busy_seconds_total": Metric(
        "counter", ("actor",), "Time spent in the actor's own code."
    ),
    "understudy_frames_total": Metric(
        "counter",
        ("stream", "outcome", "row", "reason"),
        "Frames with an outcome: full, degraded or dropped; the row that answered, or "
        "`drop`; why it was dropped.",
    ),
    "understudy_frame_latency_seconds": Metric(
        "histogram",
        ("stream", "outcome"),
        "From the source's firing until the outcome was decided.",
    ),
    "understudy_frames_missed_total": Metric(
        "counter",
        ("stream",),
        "Firings of the source that the device came too late for. They have no number.",
    ),
    "understudy_window_frames": Metric(
        "gauge", ("stream",), "Frames fired that have no outcome yet."
    ),
    "understudy_window_limit_frames": Metric(
        "gauge", ("stream",), "Frames admitted at once; what fires beyond is dropped."
    ),
    "understudy_attempts_total": Metric(
        "counter", ("stream", "row"), "Branches started; a frame may take several."
    ),
    "understudy_answers_late_total": Metric(
        "counter", ("stream",), "Answers to frames that had their outcome already."
    ),
    "understudy_nacks_received_total": Metric(
        "counter",
        ("stream", "peer", "reason"),
        "Attempts that a server refused: segment, expired, busy, hop, error, unknown.",
    ),
    "understudy_link_state": Metric(
        "gauge",
        ("peer", "state"),
        "1 for the state that a link is in, at the device that dials: "
        + ", ".join(state.value for state in State)
        + ".",
    ),
    "understudy_link_sessions_total": Metric(
        "counter", ("peer",), "Sessions dialled on a link: one, if nothing ever failed."
    ),
    "understudy_link_credit_messages": Metric(
        "gauge", ("peer", "stream"), "Messages that may still be sent there."
    ),
    "understudy_link_round_trip_seconds": Metric(
        "gauge", ("peer",), "What two beats spend on their way, at best, of late."
    ),
    "understudy_link_rate_bytes_per_second": Metric(
        "gauge", ("peer",), "What the link carries, as far as it was ever full."
    ),
    "understudy_link_heartbeat_timeout_seconds": Metric(
        "gauge", ("peer",), "Silence of the control lane after which a peer is lost."
    ),
    "understudy_link_clock_offset_seconds": Metric(
        "gauge",
        ("peer",),
        "The peer's monotonic clock minus ours, right to half a round trip.",
    ),
    "understudy_link_sent_bytes_total": Metric(
        "counter", ("peer",), "Headers and tensors sent on the data lane."
    ),
    "understudy_link_received_bytes_total": Metric(
        "counter", ("peer",), "Headers and tensors that came back."
    ),
    "understudy_failovers_total": Metric(
        "counter",
        ("peer", "evidence"),
        "Times that a peer was lost and the next rows were started: connection, "
        "heartbeat, beat, send, deadline, bye.",
    ),
    "understudy_sessions": Metric(
        "gauge", (), "Sessions that others have open with this device."
    ),
    "understudy_sessions_opened_total": Metric(
        "counter", (), "Sessions that others opened."
    ),
    "understudy_sessions_ended_total": Metric(
        "counter", ("why",), "Sessions that ended: bye, silent, a newer session."
    ),
    "understudy_tokens_answered_total": Metric(
        "counter", (), "Tokens of others that were computed and answered."
    ),
    "understudy_nacks_sent_total": Metric(
        "counter",
        ("reason",),
        "Tokens of others that were refused: segment, expired, busy, hop, error.",
    ),
    "understudy_served_received_bytes_total": Metric(
        "counter", (), "Headers and tensors that came from those who dial."
    ),
    "understudy_served_sent_bytes_total": Metric(
        "counter", (), "Headers and tensors sent back to them."
    ),
}
"""Name -> what it counts. A name, once out, keeps its meaning and its unit."""

STATES = ("loading", "ready", "stopping", "failed")


class Samples(Protocol):
    """Gives the numbers as they are now; called from any thread."""

    def __call__(self) -> Iterable[Sample]: ...


def of_play(play: Play) -> Iterator[Sample]:
    """Yield what there is to count of the plan that is played now."""
    for stream in play.streams:
        yield from of_stream(stream)
    yield from of_links(play.links)


def of_device(spec: Device, plan: Plan, state: str) -> Iterator[Sample]:
    """Yield who a device is, and how."""
    about = spec.name, spec.role, plan.name, plan.digest
    yield Sample("understudy_device_info", about, 1)
    for each in STATES:
        yield Sample("understudy_device_state", (each,), float(each == state))


def of_loop(queue: int, lost: int, rejected: Counter[str]) -> Iterator[Sample]:
    """Yield what the I/O loop counts, whatever it serves."""
    yield Sample("understudy_queue_tokens", (), queue)
    yield Sample("understudy_events_lost_total", (), lost)
    for reason in REJECTIONS:
        count = rejected[reason]
        yield Sample("understudy_messages_rejected_total", (reason,), count)


def of_chains(chains: Iterable[Chain]) -> Iterator[Sample]:
    """Yield what the actors of `chains` counted."""
    for chain in chains:
        for name, stats in chain.stats().actors.items():
            yield Sample("understudy_actor_firings_total", (name,), stats.firings)
            busy_s = stats.busy_ns / 1e9
            yield Sample("understudy_actor_busy_seconds_total", (name,), busy_s)


def of_stream(stream: Stream) -> Iterator[Sample]:
    """Yield what a stream and its actors counted."""
    name, meter = stream.name, stream.meter
    for outcome, frames in meter.outcomes.copy().items():
        yield Sample("understudy_frames_total", (name, *outcome), frames)
    for status, histogram in meter.latency.items():
        labels = name, status
        yield Sample("understudy_frame_latency_seconds", labels, histogram)
    yield Sample("understudy_frames_missed_total", (name,), stream.missed)
    used, limit = stream.window
    yield Sample("understudy_window_frames", (name,), used)
    yield Sample("understudy_window_limit_frames", (name,), limit)
    for row, attempts in meter.attempts.copy().items():
        yield Sample("understudy_attempts_total", (name, row), attempts)
    yield Sample("understudy_answers_late_total", (name,), stream.late_answers)
    for nack, count in meter.nacks.copy().items():
        yield Sample("understudy_nacks_received_total", (name, *nack), count)
    source = (stream.source,)
    yield Sample("understudy_actor_firings_total", source, stream.fired)
    busy_s = meter.source_busy_s
    yield Sample("understudy_actor_busy_seconds_total", source, busy_s)
    yield from of_chains(stream.chains)


def of_links(links: Links) -> Iterator[Sample]:
    """Yield what a device counted of the links that it dials."""
    for peer, link in links.by_peer.items():
        meter = links.meters[peer]
        for state in State:
            is_it = float(link.state is state)
            yield Sample("understudy_link_state", (peer, state.value), is_it)
        yield Sample("understudy_link_sessions_total", (peer,), link.session)
        yield from _credit(link)
        if (offset := link.clock.offset) is not None:
            round_trip_s, offset_s = offset.round_trip_s, offset.offset_s
            yield Sample("understudy_link_round_trip_seconds", (peer,), round_trip_s)
            yield Sample("understudy_link_clock_offset_seconds", (peer,), offset_s)
        if (rate := link.rate) is not None:
            bytes_s = rate.bytes_s
            yield Sample("understudy_link_rate_bytes_per_second", (peer,), bytes_s)
        timeout_s = link.heartbeat.timeout_ms / 1e3
        yield Sample("understudy_link_heartbeat_timeout_seconds", (peer,), timeout_s)
        sent, received = meter.sent_bytes, meter.received_bytes
        yield Sample("understudy_link_sent_bytes_total", (peer,), sent)
        yield Sample("understudy_link_received_bytes_total", (peer,), received)
        for evidence in get_args(Evidence):
            count = meter.failovers[evidence]
            yield Sample("understudy_failovers_total", (peer, evidence), count)


def _credit(link: Link) -> Iterator[Sample]:
    credit: Counter[str] = Counter()  # a stream may have several branches there
    for offer in link.offers:
        credit[offer.name] += link.credit(offer.stream)
    for stream, messages in credit.items():
        labels = link.peer, stream
        yield Sample("understudy_link_credit_messages", labels, messages)


def of_host(host: Host) -> Iterator[Sample]:
    """Yield what a device counted of the work that it does for others."""
    sessions = host.sessions
    yield Sample("understudy_sessions", (), len(sessions))
    yield Sample("understudy_sessions_opened_total", (), sessions.opened)
    for why, count in sessions.ended.copy().items():
        yield Sample("understudy_sessions_ended_total", (why,), count)
    yield Sample("understudy_tokens_answered_total", (), host.answered)
    for nack in Nack:
        reason = nack.name.lower()
        count = sessions.nacks[reason]
        yield Sample("understudy_nacks_sent_total", (reason,), count)
    yield Sample("understudy_served_received_bytes_total", (), host.received_bytes)
    yield Sample("understudy_served_sent_bytes_total", (), host.sent_bytes)
    yield from of_chains(host.chains)


class Measured(NamedTuple):
    """What the event ``device.measured`` holds."""

    firings: dict[str, float]
    busy_ms: dict[str, float]
    bytes_s: dict[str, float]
    rtt_ms: dict[str, float]


def measured(samples: Iterable[Sample]) -> Measured:
    """Return what actors took and links carry, by actor and by peer."""
    found = Measured({}, {}, {}, {})
    places = {
        "understudy_actor_firings_total": (found.firings, 1.0),
        "understudy_actor_busy_seconds_total": (found.busy_ms, 1e3),
        "understudy_link_rate_bytes_per_second": (found.bytes_s, 1.0),
        "understudy_link_round_trip_seconds": (found.rtt_ms, 1e3),
    }
    for sample in samples:
        if sample.metric in places:
            assert isinstance(sample.value, (int, float))
            where, scale = places[sample.metric]
            where[sample.labels[0]] = sample.value * scale
    return found
