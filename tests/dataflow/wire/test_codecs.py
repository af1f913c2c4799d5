"""The codec of a link that changes: small enough, no lossier than need be, steady."""

import itertools
from collections import deque
from dataclasses import dataclass, field

import pytest

from dataflow.wire.codecs import CALM_S, Change, CodecChoice, Coding
from dataflow.wire.sampling import Sampling

RATE_HZ = 50
WINDOW = 8
WHOLE_BYTES = 64_000
ROUND_TRIP_S = 0.001
SERVICE_S = 0.002
FAST, SLOW, SLOWER = 100e6, 2e6, 0.2e6
"""Bytes a second: of loopback, of 16 Mbit/s, and of a tenth of it."""


def whole(
    nbytes: int = WHOLE_BYTES, packed: float = 0.6, pack_s: float = 4e-4
) -> Coding:
    return Coding("", nbytes, 0.0, packed * nbytes, pack_s)


def int8(nbytes: int = WHOLE_BYTES // 4) -> Coding:
    return Coding("int8", nbytes, 1e-4, 0.7 * nbytes, 1e-4)


@dataclass
class Link:
    """A camera, a window, and a link that passes on one token after the other."""

    choice: CodecChoice
    sampling: Sampling = field(default_factory=Sampling)
    now_s: float = 0.0
    free_s: float = 0.0
    number: int = 0
    open: deque[tuple[int, float]] = field(default_factory=deque)
    sent: list[str] = field(default_factory=list)
    """The codec of each frame; empty: it was not admitted."""
    changes: list[Change] = field(default_factory=list)

    def run(self, seconds: float, bytes_per_s: float) -> None:
        self.sent.clear()
        self.changes.clear()
        for _ in range(round(seconds * RATE_HZ)):
            self._answers()
            self.sent.append(self._send(bytes_per_s))
            self.number += 1
            self.now_s += 1 / RATE_HZ

    def _answers(self) -> None:
        while self.open and self.open[0][1] <= self.now_s:
            number, done_s = self.open.popleft()
            self.sampling.answered()
            self._note(
                self.choice.answered(
                    number,
                    service_s=SERVICE_S,
                    round_trip_s=ROUND_TRIP_S,
                    now_s=done_s,
                )
            )

    def _send(self, bytes_per_s: float) -> str:
        if not self.sampling.admits(self.now_s, lighter=self.choice.carried):
            return ""
        self.sampling.met(len(self.open), WINDOW)
        if len(self.open) >= WINDOW:
            return ""
        self._note(self.choice.tick(self.now_s))
        coding = self.choice.whole if self.choice.carried else self.choice.lossy[0]
        nbytes = round(coding.nbytes)
        self.choice.sent(self.number, nbytes, self.now_s)
        self.free_s = max(self.free_s, self.now_s) + nbytes / bytes_per_s
        self.open.append((self.number, self.free_s + ROUND_TRIP_S + SERVICE_S))
        return coding.name

    def _note(self, change: Change | None) -> None:
        if change is not None:
            self.changes.append(change)


def link(*encoded: Coding, first: Coding | None = None) -> Link:
    return Link(CodecChoice(0.8 / RATE_HZ, first or whole(), encoded))


def lossy(codec: str) -> bool:
    return codec.startswith("int8")


def test_fast_link_gets_tokens_as_they_are() -> None:
    carried = link(int8())
    carried.run(20, FAST)
    assert set(carried.sent) == {"none"}


def test_link_that_becomes_slow_gets_small_tokens_soon_and_each_frame_then() -> None:
    changed = link(int8())
    changed.run(5, FAST)
    changed.run(1, SLOW)
    assert any(map(lossy, changed.sent[: int(0.4 * RATE_HZ)]))
    changed.run(10, SLOW)
    assert all(map(lossy, changed.sent))


def test_link_that_recovers_gets_whole_tokens_again() -> None:
    changed = link(int8())
    changed.run(5, SLOW)
    assert not changed.choice.carried
    changed.run(CALM_S + 1, FAST)
    assert changed.sent[-1] == "none"


def test_lossless_codec_is_preferred_where_it_suffices() -> None:
    # A whole token takes 19 ms of the 16 that there are, a compressed one 11.
    changed = link(int8(), first=whole(38_000))
    changed.run(10, SLOW)
    assert changed.sent[-1] == "zstd"
    assert not any(map(lossy, changed.sent[RATE_HZ:]))


def test_nothing_is_compressed_that_saves_less_than_it_takes() -> None:
    slow_to_pack = link(first=whole(30_000, packed=0.9, pack_s=0.01))
    slow_to_pack.run(10, SLOW)
    assert set(slow_to_pack.sent) == {"none"}


def test_stream_without_lossy_codec_keeps_sending_whole() -> None:
    alone = link()
    alone.run(10, SLOWER)
    assert not any(map(lossy, alone.sent))
    assert alone.choice.carried


def test_link_between_both_is_tried_less_and_less() -> None:
    """Small tokens find it fast, whole ones slow: so it goes back and forth, rarely."""
    torn = link(int8())
    flips = 0
    for _ in range(100):
        torn.run(1, SLOW if torn.choice.carried else FAST)
        flips += sum(lossy(c.before) != lossy(c.after) for c in torn.changes)
    assert flips <= 2 * 6


def test_hiccup_changes_nothing() -> None:
    steady = link(int8())
    steady.run(5, FAST)
    steady.free_s = steady.now_s + 0.09
    steady.run(5, FAST)
    assert not steady.changes


def test_busy_machine_is_not_a_slow_link() -> None:
    """Two answers of three are 60 ms late, as at the start under load."""
    late = CodecChoice(0.8 / RATE_HZ, whole(), (int8(),))
    for number in range(300):
        now_s = number * 0.1
        took_s = 0.06 if number % 3 else 0.001
        late.sent(number, WHOLE_BYTES, now_s)
        late.answered(number, service_s=0, round_trip_s=0, now_s=now_s + took_s)
    assert late.carried


def test_round_trip_is_not_taken_for_transfer() -> None:
    """Far away is not slow: 40 ms there and back, at 50 frames a second."""
    far = CodecChoice(0.8 / RATE_HZ, whole(), (int8(),))
    for number in range(200):
        now_s = number / RATE_HZ
        far.sent(number, WHOLE_BYTES, now_s)
        if number >= 3:
            sent_s = (number - 3) / RATE_HZ
            far.answered(
                number - 3,
                service_s=SERVICE_S,
                round_trip_s=0.04,
                now_s=sent_s + 0.04 + SERVICE_S + WHOLE_BYTES / FAST,
            )
    assert far.name == "none"


def test_link_that_falls_silent_is_given_small_tokens_before_any_answer() -> None:
    silent = CodecChoice(0.8 / RATE_HZ, whole(), (int8(),))
    silent.sent(0, WHOLE_BYTES, 0.0)
    assert silent.tick(0.05) is None
    change = silent.tick(0.2)
    assert change is not None
    assert (change.before, change.after) == ("none", "int8")
    assert "200 ms" in change.why


def test_link_that_nobody_uses_is_tried_again() -> None:
    unused = link(int8())
    unused.run(5, SLOW)
    assert unused.choice.tick(unused.now_s + 1.0) is None
    assert unused.choice.tick(unused.now_s + 10.0) is not None
    assert unused.choice.carried


def test_codec_stands_when_a_session_ends() -> None:
    ended = link(int8())
    ended.run(5, SLOW)
    ended.choice.forget()
    assert not ended.choice.carried
    assert ended.choice.answered(0, service_s=0, round_trip_s=0, now_s=9.0) is None


@pytest.mark.parametrize("carries", [SLOW, 1.2e6])
def test_bytes_are_lowered_before_the_rate(carries: float) -> None:
    """int8 fits, so no frame is dropped for the rate; a full window drops a few."""
    both = link(int8())
    both.run(10, FAST)
    both.run(10, carries)
    assert both.sampling.share == 1.0
    assert both.sent[2 * RATE_HZ :].count("") == 0


def test_rate_is_lowered_where_small_tokens_do_not_suffice() -> None:
    both = link(int8())
    both.run(10, FAST)
    both.run(10, SLOWER)
    both.run(10, SLOWER)
    carried_hz = SLOWER / min(both.choice.lossy[0].nbytes, WHOLE_BYTES / 4)
    admitted = sum(map(bool, both.sent)) / 10
    assert not both.choice.carried
    assert 0.6 * carried_hz < admitted < 1.1 * carried_hz
    gaps = [i for i, name in enumerate(both.sent) if name]
    steps = {b - a for a, b in itertools.pairwise(gaps)}
    assert max(steps) <= 2 * min(steps) + 1


def test_rate_comes_back_when_the_link_does() -> None:
    both = link(int8())
    both.run(20, SLOWER)
    assert both.sampling.share < 0.5
    both.run(120, FAST)
    assert both.sampling.share == 1.0
    assert both.sent[-1] == "none"
