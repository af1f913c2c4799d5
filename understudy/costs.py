"""What a partition costs: pure arithmetic over what was measured.

A model in parts runs along a chain of devices. Each part computes, what crosses to the
next device is encoded, sent and decoded, and the answer comes back over all links.
Latency is the sum. In a stream of frames every device and each direction of a link is a
*stage*, busy with one frame at a time: the slowest bounds the throughput.

An early exit answers a share of the frames on the first device: what follows it is
played for the others only, so times, bytes and stages behind it are means over frames.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dataflow.wire.header import HEADER_BYTES

FRAME_BYTES = 9
"""Of ZMTP, in front of each part of a message."""
NOISE = 0.02
"""Relative error below which no time is taken to be known: two runs differ by more."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link between neighbouring devices.

    Attributes:
        there_mbit_s: From the first to the second, of what our messages hold.
        back_mbit_s: The other way.
        rtt_ms: Round trip of a small message.
        measured: It comes from a profile or a run, not from a wish.
    """

    name: str
    there_mbit_s: float
    back_mbit_s: float
    rtt_ms: float
    jitter_ms: float = 0.0
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Power:
    """What devices draw, in watts; None: not known.

    Attributes:
        endpoint_w: The first device while it computes.
        idle_w: The first device while it waits.
        radio_w: What it draws on top while a message is on the air.
        server_w: Each other device while it computes.
    """

    endpoint_w: float | None = None
    idle_w: float | None = None
    radio_w: float | None = None
    server_w: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one device computes.

    Attributes:
        ms: Of the network.
        around_ms: What comes on top, for each frame that gets there.
        message_ms: What a message costs it, on either way.
    """

    device: str
    ms: float
    error_ms: float
    memory_mb: float
    around_ms: float = 0.0
    message_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Crossing:
    """What goes from one device to the next, for a frame.

    Attributes:
        bytes: As it is computed.
        wire_bytes: As it is sent.
        answer_bytes: What comes back for it, as it is sent.
        encode_ms: What the codec costs the first device, also of the answer.
        decode_ms: The same of the next one.
    """

    tensors: tuple[str, ...]
    bytes: int
    wire_bytes: int
    answer_bytes: int = 0
    codec: str = "none"
    encode_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Exit:
    """An early exit on the first device.

    Attributes:
        tensor: What it reads.
        share: Of the frames that it answers.
        ms: What it takes, for every frame.
    """

    tensor: str
    share: float
    ms: float


@dataclass(frozen=True, slots=True)
class Partition:
    """A model along a chain of devices: one crossing and one link between parts.

    Attributes:
        exit: None: there is none, or it reads what the first device does not make.
    """

    parts: tuple[Part, ...]
    crossings: tuple[Crossing, ...] = ()
    links: tuple[Link, ...] = ()
    exit: Exit | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A device, or one direction of a link: ms that it is busy with a frame."""

    name: str
    kind: Literal["device", "link"]
    ms: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a frame costs; where there is an early exit, in the mean.

    Attributes:
        endpoint_ms: The first device computes.
        codec_ms: All encoding and decoding.
        network_ms: Messages are on their way there.
        server_ms: The other devices compute.
        return_ms: The answer is on its way back.
        total_ms: From the frame to its answer: the sum. The median of frames that come
            at a pace, and do not wait for each other.
        error_ms: Within which `total_ms` is known.
        busy_ms: The first device computes and encodes.
        wire_bytes: Sent by the first device; of all links in a chain.
        endpoint_mb: Weights and activations of the first device.
        server_mb: The same of all others together.
        endpoint_mj: Energy of the first device; None without power figures.
        server_mj: The same of all others together.
    """

    endpoint_ms: float
    codec_ms: float
    network_ms: float
    server_ms: float
    return_ms: float
    total_ms: float
    error_ms: float
    busy_ms: float
    bytes: float
    wire_bytes: float
    endpoint_mb: float
    server_mb: float
    endpoint_mj: float | None
    server_mj: float | None
    stages: tuple[Stage, ...] = field(default=())

    @property
    def bottleneck(self) -> Stage:
        return max(self.stages, key=lambda stage: stage.ms)

    @property
    def fps(self) -> float:
        """Frames per second with as many under way as it takes; infinite: no time."""
        ms = self.bottleneck.ms
        return 1e3 / ms if ms else math.inf


def air_ms(size: float, mbit_s: float, tensors: int = 1) -> float:
    """Return how long a message is on a link.

    >>> round(air_ms(2_000_000, 16), 1)
    1000.0
    """
    overhead = HEADER_BYTES + FRAME_BYTES * (1 + tensors)
    return (size + overhead) * 8e-3 / mbit_s


def hop_ms(link: Link, near: Part, far: Part) -> float:
    """Return what a message takes beside what its bytes do, either way."""
    return link.rtt_ms / 2 + near.message_ms + far.message_ms


def cost(partition: Partition, power: Power | None = None) -> Cost:
    """Return what a frame costs."""
    first, *others = partition.parts
    early = partition.exit
    played = 1.0 if early is None else 1.0 - early.share
    endpoint_ms = first.ms + first.around_ms + (0.0 if early is None else early.ms)
    hops = list(zip(partition.crossings, partition.links, strict=True))
    there = [
        air_ms(c.wire_bytes, link.there_mbit_s, len(c.tensors)) * played
        for c, link in hops
    ]
    back = [air_ms(c.answer_bytes, link.back_mbit_s) * played for c, link in hops]
    ends = zip(partition.links, partition.parts, others, strict=False)
    half_trips = [hop_ms(*each) * played for each in ends]
    codec_ms = sum(c.encode_ms + c.decode_ms for c, _ in hops) * played
    server_ms = sum(part.ms + part.around_ms for part in others) * played
    network_ms, return_ms = sum(there + half_trips), sum(back + half_trips)
    total_ms = endpoint_ms + codec_ms + network_ms + server_ms + return_ms
    sent = played if partition.crossings else 0.0
    encode_ms = partition.crossings[0].encode_ms * played if hops else 0.0
    busy_ms = endpoint_ms + encode_ms
    air = (there[0] + back[0]) if hops else 0.0
    return Cost(
        endpoint_ms=endpoint_ms,
        codec_ms=codec_ms,
        network_ms=network_ms,
        server_ms=server_ms,
        return_ms=return_ms,
        total_ms=total_ms,
        error_ms=_error_ms(partition, played),
        busy_ms=busy_ms,
        bytes=sum(c.bytes for c, _ in hops) * sent,
        wire_bytes=sum(c.wire_bytes for c, _ in hops) * sent,
        endpoint_mb=first.memory_mb,
        server_mb=sum(part.memory_mb for part in others),
        endpoint_mj=_endpoint_mj(power, busy_ms, total_ms, air),
        server_mj=_server_mj(power, server_ms),
        stages=tuple(_stages(partition, endpoint_ms, there, back, played)),
    )


def _error_ms(partition: Partition, played: float) -> float:
    """Return the root of the squared errors: parts and links err independently."""
    errors = [
        max(part.error_ms, NOISE * part.ms) * (played if index else 1.0)
        for index, part in enumerate(partition.parts)
    ]
    errors += [link.jitter_ms * played for link in partition.links]
    return math.hypot(*errors)


def _stages(
    partition: Partition,
    endpoint_ms: float,
    there: Sequence[float],
    back: Sequence[float],
    played: float,
) -> list[Stage]:
    stages = []
    crossings = partition.crossings
    for index, part in enumerate(partition.parts):
        ms = endpoint_ms if index == 0 else (part.ms + part.around_ms) * played
        if index < len(crossings):
            ms += crossings[index].encode_ms * played
        if index:
            ms += crossings[index - 1].decode_ms * played
        stages.append(Stage(part.device, "device", ms))
        if index < len(crossings):
            follower = partition.parts[index + 1].device
            ways = f"{part.device} to {follower}", f"{follower} to {part.device}"
            stages.append(Stage(ways[0], "link", there[index]))
            stages.append(Stage(ways[1], "link", back[index]))
    return stages


def _endpoint_mj(
    power: Power | None, busy_ms: float, total_ms: float, air_ms: float
) -> float | None:
    if power is None or power.endpoint_w is None:
        return None
    idle_w, radio_w = power.idle_w or 0.0, power.radio_w or 0.0
    waits_ms = total_ms - busy_ms
    return power.endpoint_w * busy_ms + idle_w * waits_ms + radio_w * air_ms


def _server_mj(power: Power | None, server_ms: float) -> float | None:
    if power is None or power.server_w is None:
        return None
    return power.server_w * server_ms


OBJECTIVES: Mapping[str, tuple[str, Callable[[Cost], float]]] = {
    "latency": ("ms", lambda cost: cost.total_ms),
    "throughput": ("ms a frame", lambda cost: cost.bottleneck.ms),
    "endpoint-time": ("ms", lambda cost: cost.busy_ms),
    # What is not known counts as nothing; who asks for it has checked.
    "endpoint-energy": ("mJ", lambda cost: cost.endpoint_mj or 0.0),
    "bytes": ("kB", lambda cost: cost.wire_bytes / 1e3),
}
"""Name -> the unit in which a weight counts it, and what is wanted small."""


def score(weights: Mapping[str, float], cost: Cost) -> float:
    """Return the weighted sum of what the objectives want small."""
    return sum(weight * OBJECTIVES[name][1](cost) for name, weight in weights.items())
