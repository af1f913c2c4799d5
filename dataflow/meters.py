"""What a device counts while it runs: plain numbers, read from another thread.

The I/O loop pays for an addition, and nothing for who looks: a scrape copies what it
wants. Two numbers read one after the other may be a frame apart.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from dataflow.outcome import Outcome, Status

BOUNDS_S: Sequence[float] = tuple(
    digit * 10.0**power for power in (-4, -3, -2, -1, 0) for digit in (1, 2, 5)
)
"""Upper bounds of a histogram's buckets, 0.1 ms to 5 s; one more holds the rest."""


class Histogram:
    """Durations in buckets."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s


class StreamMeter:
    """What a stream counts.

    Attributes:
        outcomes: Frames by (status, row, reason).
        latency: Firing to decision, by status.
        attempts: Branches started, by row.
        nacks: Attempts that a peer refused, by (peer, reason).
        codecs: Messages by (peer, codec), where the stream chooses the codec.
        source_busy_s: Spent in the source's `fire`.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[Status, str, str]] = Counter()
        self.latency: dict[Status, Histogram] = {
            "full": Histogram(),
            "degraded": Histogram(),
            "dropped": Histogram(),
        }
        self.attempts: Counter[str] = Counter()
        self.nacks: Counter[tuple[str, str]] = Counter()
        self.codecs: Counter[tuple[str, str]] = Counter()
        self.source_busy_s = 0.0

    @property
    def row_counts(self) -> dict[str, int]:
        """Frames by the row that answered, dropped ones by their reason."""
        counts: dict[str, int] = {}
        for (status, row, reason), frames in self.outcomes.items():
            name = f"{status} ({reason})" if reason else row
            counts[name] = counts.get(name, 0) + frames
        return counts

    @property
    def codec_counts(self) -> dict[str, int]:
        """Messages by codec, where the stream chooses it."""
        counts: dict[str, int] = {}
        for (_, codec), messages in self.codecs.items():
            counts[codec] = counts.get(codec, 0) + messages
        return counts

    def settled(self, outcome: Outcome) -> None:
        """Count an outcome."""
        status = outcome.status
        frames = outcome.last - outcome.first + 1
        self.outcomes[status, outcome.row, outcome.reason] += frames
        self.latency[status].add(outcome.settled_s - outcome.fired_s)


class LinkMeter:
    """What a device counts of one link that it dials, and of no session in particular.

    Attributes:
        sent_bytes: On the data lane: headers and tensors.
        received_bytes: The same, the other way.
        failovers: Times that the peer was lost, by evidence.
    """

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.failovers: Counter[str] = Counter()
