"""Hostile messages for a moment, and proof that the fuzzer sees what they could break.

A planted bug is a check taken out. If the fuzzer does not notice within the stated
number of messages, it is blind there. `python -m tests.fuzz` runs for longer.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.host import Host
from dataflow.wire import control
from dataflow.wire.compression import Zstd
from dataflow.wire.happenings import FromPeer, FromRoute
from dataflow.wire.header import Header
from dataflow.wire.iterations import Iteration
from dataflow.wire.ledger import Ledger
from dataflow.wire.link import Link
from dataflow.wire.link_states import Event as LinkEvent
from dataflow.wire.sessions import Sessions
from tests.fuzz.__main__ import main, play
from tests.fuzz.targets import TARGETS, Endpoint, Server

MESSAGES = 10_000
PLANTED_MESSAGES = 50_000
FUZZ = settings(max_examples=100)
FRAMES = st.lists(st.binary(max_size=400), max_size=4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_messages_break_nothing_and_are_counted(name: str, seed: int) -> None:
    count, rejected = play(name, seed, MESSAGES)
    assert count == MESSAGES
    assert rejected.total() > MESSAGES / 10


@FUZZ
@given(st.lists(st.tuples(st.booleans(), FRAMES), max_size=20))
def test_whatever_frames_a_server_gets_are_counted(
    messages: list[tuple[bool, list[bytes]]],
) -> None:
    server = Server(0)
    for data, frames in messages:
        route = bytes(16) + (b"D" if data else b"C")
        server.receive(FromRoute(route, frames, "K0", 9))
    server.deep()
    assert server.rejected.total() - server.rejected["flood"] == len(messages)


@FUZZ
@given(st.lists(st.binary(max_size=400), max_size=20))
def test_whatever_frames_an_endpoint_gets_are_counted(messages: list[bytes]) -> None:
    endpoint = Endpoint(0)
    endpoint._links.tick(endpoint._clock())
    for frame in messages:
        endpoint._links.receive(FromPeer("edge.0", "data", [frame]), endpoint._clock())
    endpoint.deep()
    assert endpoint.rejected.total() == len(messages)


def test_same_seed_sends_the_same_messages() -> None:
    assert play("server", 5, 2000) == play("server", 5, 2000)
    assert play("server", 5, 2000) != play("server", 6, 2000)


def test_the_command_says_how_many_messages_and_why_they_had_no_effect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--messages", "500", "--seed", "3", "--seconds", "30"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1,500 messages, seeds 3 to 3: none failed")
    assert "  size" in said


# --- one check taken out of each ------------------------------------------------


def _raises_itself(self: Host, session: Any, header: Header, error: Exception) -> None:
    raise error


def _answer_without_bounds(
    self: Ledger, number: int, attempt: int, value: Any, now_s: float
) -> list[Any]:
    iteration: Iteration | None = self._find(number)
    if iteration is None or iteration.verdict is not None:
        return []
    assert iteration.attempts[attempt].open
    return []


def _any_length(self: Any, frame: bytes, token_bytes: int) -> bytes:
    return bytes(self._decompressor.decompress(frame))


def _grants_twice(self: Sessions, session: Any, header: Header) -> int:
    session.queued[header.stream] -= 2
    return self._grant(session, header.stream)


def _unsound(why: str) -> Callable[..., Any]:
    def quiet(self: Any, *_: Any) -> list[Any]:
        return []

    quiet.__doc__ = why
    return quiet


PLANTED: dict[str, tuple[str, object, str, object]] = {
    "sizes are believed": ("server", Sessions, "_fits", lambda *_: True),
    "a window is no bound": (
        "server",
        Sessions,
        "_reservation",
        lambda self, hello: 0,
    ),
    "an actor ends the device": ("server", Host, "_failed", _raises_itself),
    "credit is given twice": ("server", Sessions, "answered", _grants_twice),
    "fields have any type": ("decoders", control, "_CHECKS_OF", defaultdict(list)),
    "rejections are not counted": ("server", Sessions, "_reject", _unsound("silent")),
    "zstd frames state the truth": ("decoders", Zstd, "_restore", _any_length),
    "attempts are believed": ("endpoint", Ledger, "answer", _answer_without_bounds),
    "a welcome is always due": (
        "endpoint",
        Link,
        "_welcome",
        lambda self, ready, grants, now_s: self._prove(LinkEvent.WELCOME, now_s),
    ),
}
"""Name -> target, where, what, and what stands in its place."""


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_is_seen(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, where, what, instead = PLANTED[bug]
    monkeypatch.setattr(where, what, instead)
    with pytest.raises(BaseException) as caught:  # noqa: PT011  (whatever it is)
        play(target, 0, PLANTED_MESSAGES)
    assert "--seed 0, message" in caught.value.__notes__[0]
