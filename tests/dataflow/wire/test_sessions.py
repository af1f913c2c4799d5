"""The listening side of a link: who is taken, what is refused, how much is granted."""

from dataclasses import replace

import pytest

from dataflow.wire import sessions as sessions_module
from dataflow.wire.control import Beat, Bye, Flight, Hello, Refuse, StreamOffer, Welcome
from dataflow.wire.header import Header, Kind, Nack, data_route
from dataflow.wire.session import (
    Accept,
    Action,
    Bound,
    Ended,
    Opened,
    Reply,
    Send,
    Session,
)
from dataflow.wire.sessions import LIMIT_MAX, Sessions
from dataflow.wire.timers import SUSPECT_S

SEGMENT, STREAM, WINDOW = 0xABC, 7, 2
SIZES = [100, 20]
OFFER = StreamOffer(stream=STREAM, name="cam", segment=SEGMENT, window=WINDOW)
HELLO = Hello(device="cam", incarnation=9, session=1, offers=(OFFER,))
ROUTE = b"\x00route-1C"
LANE = data_route(ROUTE)
TOKEN = Header(
    kind=Kind.TOKEN, session=1, stream=STREAM, segment=SEGMENT, attempt=1, frame=40
)


def _sessions(*, loaded: bool = True) -> Sessions:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: SIZES})
    sessions.loaded = loaded
    return sessions


def _open(sessions: Sessions, hello: Hello = HELLO, route: bytes = ROUTE) -> Session:
    actions = sessions.control(route, hello, 0.0)
    (opened,) = [a for a in actions if isinstance(a, Opened)]
    return opened.session


def _tick(sessions: Sessions, now_s: float) -> list[Action]:
    return sessions.tick(now_s, queue=3, age_ms=4, about=lambda: "x")


def _reply(actions: list[Action]) -> Reply:
    (reply,) = actions
    assert isinstance(reply, Reply)
    return reply


def _accept(actions: list[Action]) -> Accept:
    (accept,) = actions
    assert isinstance(accept, Accept)
    return accept


# --- opening -------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, False])
def test_a_greeting_opens_a_session_with_the_credit_asked_for(loaded: bool) -> None:
    opened, welcome = _sessions(loaded=loaded).control(ROUTE, HELLO, 0.0)
    assert isinstance(opened, Opened)
    assert welcome == Send(ROUTE, Welcome("edge", 5, 1, loaded, {STREAM: WINDOW}))


def test_who_came_while_models_loaded_is_welcomed_when_they_are_there() -> None:
    sessions = _sessions(loaded=False)
    _open(sessions)
    (welcome,) = sessions.load_done(1.0)
    assert welcome == Send(ROUTE, Welcome("edge", 5, 1, True, {STREAM: WINDOW}))


def test_another_plans_segment_is_refused_by_name() -> None:
    offer = StreamOffer(stream=STREAM, name="cam", segment=0xDEF, window=1)
    (send,) = _sessions().control(ROUTE, Hello("cam", 9, 1, (offer,)), 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)
    assert "does not have segment 0000000000000def that stream 'cam'" in (
        send.message.why
    )


def test_credit_beyond_what_memory_may_hold_is_refused() -> None:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [200 * 2**20]})
    (send,) = sessions.control(ROUTE, HELLO, 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)
    assert "busy" in send.message.why
    assert len(sessions) == 0


def test_credit_held_by_others_counts() -> None:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [50 * 2**20]})
    for name in ("cam.0", "cam.1"):
        _open(sessions, Hello(name, 9, 1, (OFFER,)), name.encode() + b"C")
    (send,) = sessions.control(ROUTE, Hello("cam.2", 10, 1, (OFFER,)), 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)
    assert len(sessions) == 2


def test_one_device_gets_half_of_the_memory_and_the_others_the_rest() -> None:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [70 * 2**20]})
    greedy, modest = Hello("cam", 9, 1, (OFFER,)), replace(OFFER, window=1)
    (send,) = sessions.control(ROUTE, greedy, 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)
    _open(sessions, Hello("cam", 9, 1, (modest,)))
    _open(sessions, Hello("cam.1", 9, 1, (modest,)), b"\x00route-2C")


def test_tokens_of_no_size_take_memory_too() -> None:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [1]})
    many = StreamOffer(stream=STREAM, name="cam", segment=SEGMENT, window=65535)
    (send,) = sessions.control(ROUTE, Hello("cam", 9, 1, (many,)), 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)


def test_credit_of_a_session_that_ended_is_there_for_others() -> None:
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [50 * 2**20]})
    _open(sessions)
    _open(sessions, Hello("cam.2", 9, 1, (OFFER,)), b"\x00route-3C")
    sessions.control(ROUTE, Bye(1), 0.1)
    other = Hello("cam.1", 10, 1, (OFFER,))
    opened, _ = sessions.control(b"\x00route-2C", other, 0.2)
    assert isinstance(opened, Opened)


def test_more_sessions_than_the_limit_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)
    sessions = _sessions()
    _open(sessions)
    other = Hello("cam.1", 10, 1, (OFFER,))
    (send,) = sessions.control(b"\x00route-2C", other, 0.0)
    assert isinstance(send, Send)
    assert isinstance(send.message, Refuse)


def test_a_newer_session_of_a_device_ends_the_older() -> None:
    sessions = _sessions()
    old = _open(sessions)
    ended, opened, _ = sessions.control(b"\x00route-2C", HELLO_2, 1.0)
    assert ended == Ended(old, "a newer session")
    assert isinstance(opened, Opened)
    assert sessions.data(LANE, TOKEN, SIZES, 1.0) == []


HELLO_2 = Hello(device="cam", incarnation=9, session=2, offers=(OFFER,))


@pytest.mark.parametrize("number", [1, 2])
def test_a_stale_greeting_does_not_end_the_newer_session(number: int) -> None:
    """A server that hung found two greetings, and took them in the wrong order."""
    sessions = _sessions()
    newer = _open(sessions, HELLO_2, b"\x00route-2C")
    stale = Hello("cam", 9, number, (OFFER,))
    assert sessions.control(ROUTE, stale, 1.0) == []
    assert sessions.all == [newer]


def test_a_restarted_device_counts_its_sessions_from_one_again() -> None:
    sessions = _sessions()
    _open(sessions, HELLO_2, b"\x00route-2C")
    restarted = Hello("cam", 10, 1, (OFFER,))
    assert _open(sessions, restarted).incarnation == 10
    assert len(sessions) == 1


def test_a_greeting_of_another_life_between_two_does_not_bring_the_older_back() -> None:
    """A server that hung found greetings of a device from before its restart, too."""
    sessions = _sessions()
    _open(sessions, HELLO_2, b"\x00route-2C")
    _open(sessions, Hello("cam", 8, 1, (OFFER,)), b"\x00route-0C")
    assert sessions.control(ROUTE, HELLO, 1.0) == []
    assert [session.incarnation for session in sessions.all] == [8]


# --- tokens --------------------------------------------------------------------


def test_a_token_as_agreed_is_accepted() -> None:
    sessions = _sessions()
    session = _open(sessions)
    accepted = sessions.data(LANE, TOKEN, SIZES, 0.1)
    assert accepted == [Accept(session, OFFER, TOKEN)]


REFUSALS = {
    "unknown stream": (TOKEN._replace(stream=8), SIZES, Nack.SEGMENT),
    "segment of no offer": (TOKEN._replace(segment=1), SIZES, Nack.SEGMENT),
    "beyond the credit": (TOKEN._replace(ordinal=WINDOW), SIZES, Nack.BUSY),
    "far beyond the credit": (TOKEN._replace(ordinal=LIMIT_MAX), SIZES, Nack.BUSY),
    "frame missing": (TOKEN, SIZES[:1], Nack.ERROR),
    "frame too many": (TOKEN, [*SIZES, 0], Nack.ERROR),
    "frame too long": (TOKEN, [101, 20], Nack.ERROR),
    "no frames": (TOKEN, [], Nack.ERROR),
}


@pytest.mark.parametrize(
    ("token", "sizes", "why"),
    [pytest.param(*refusal, id=name) for name, refusal in REFUSALS.items()],
)
def test_a_token_not_as_agreed_is_answered_with_the_reason(
    token: Header, sizes: list[int], why: Nack
) -> None:
    sessions = _sessions()
    _open(sessions)
    route, header = _reply(sessions.data(LANE, token, sizes, 0.1))
    assert (route, header.kind, header.flags) == (LANE, Kind.NACK, why)
    assert (header.frame, header.attempt) == (token.frame, token.attempt)
    assert header.pack()  # whatever the peer wrote, the answer fits the fields
    assert sessions.nacks == {why.name.lower(): 1}


def test_a_token_before_the_models_are_there_is_refused_as_busy() -> None:
    sessions = _sessions(loaded=False)
    _open(sessions)
    assert _reply(sessions.data(LANE, TOKEN, SIZES, 0.1)).header.flags == Nack.BUSY


def test_one_ordinal_sent_again_and_again_fills_no_memory() -> None:
    """Only the ordinal was checked, so the sender chose how much was queued."""
    sessions = _sessions()
    _open(sessions)
    for _ in range(WINDOW):
        _accept(sessions.data(LANE, TOKEN, SIZES, 0.1))
    assert _reply(sessions.data(LANE, TOKEN, SIZES, 0.1)).header.flags == Nack.BUSY


IGNORED = {
    "an older session": TOKEN._replace(session=0),
    "a session to come": TOKEN._replace(session=2),
    "an answer": TOKEN._replace(kind=Kind.ANSWER),
    "a nack": TOKEN._replace(kind=Kind.NACK),
    "an answer to a probe": TOKEN._replace(kind=Kind.PROBED),
}


@pytest.mark.parametrize("header", IGNORED.values(), ids=IGNORED.keys())
def test_what_is_not_for_this_session_is_not_even_answered(header: Header) -> None:
    sessions = _sessions()
    _open(sessions)
    assert sessions.data(LANE, header, SIZES, 0.1) == []


@pytest.mark.parametrize("route", [ROUTE, b"\x00route-2D", b""])
def test_a_token_on_another_lane_is_not_even_answered(route: bytes) -> None:
    sessions = _sessions()
    _open(sessions)
    assert sessions.data(route, TOKEN, SIZES, 0.1) == []


def test_a_probe_is_answered_on_its_lane_even_while_models_load() -> None:
    sessions = _sessions(loaded=False)
    _open(sessions)
    probe = Header(kind=Kind.PROBE, session=1)
    probed = probe._replace(kind=Kind.PROBED)
    assert sessions.data(LANE, probe, [], 0.1) == [Reply(LANE, probed)]


# --- credit --------------------------------------------------------------------


def _send(sessions: Sessions, ordinal: int, sizes: list[int] = SIZES) -> list[Action]:
    return sessions.data(LANE, TOKEN._replace(ordinal=ordinal), sizes, 0.1)


def test_each_answer_grants_one_more() -> None:
    sessions = _sessions()
    session = _open(sessions)
    first = _accept(_send(sessions, 0)).header
    second = _accept(_send(sessions, 1)).header
    assert sessions.answered(session, first) == WINDOW + 1
    assert sessions.answered(session, second) == WINDOW + 2


def test_a_refused_token_gives_its_credit_back() -> None:
    """After as many refusals as the window is wide the branch was never used again."""
    sessions = _sessions()
    _open(sessions)
    for ordinal in range(10):
        reply = _reply(_send(sessions, ordinal, sizes=[1]))
        assert reply.header.limit == ordinal + 1 + WINDOW


def test_tokens_that_never_left_give_their_credit_back() -> None:
    """The sender counts a token that its socket did not take."""
    sessions = _sessions()
    session = _open(sessions)
    last = _accept(_send(sessions, WINDOW - 1)).header
    assert sessions.answered(session, last) == WINDOW - 1 + 1 + WINDOW


def test_credit_never_exceeds_what_the_window_has_free() -> None:
    sessions = _sessions()
    _open(sessions)
    _accept(_send(sessions, 0))
    _accept(_send(sessions, 1))
    assert _reply(_send(sessions, 2)).header.limit == 3
    assert _reply(_send(sessions, 3)).header.limit == 4


def test_the_limit_stays_within_its_field() -> None:
    sessions = _sessions()
    _open(sessions)
    reply = _reply(_send(sessions, LIMIT_MAX))
    assert reply.header.limit == LIMIT_MAX
    assert Header.parse(reply.header.pack()) == reply.header


def test_an_expired_token_is_refused_with_its_credit() -> None:
    sessions = _sessions()
    session = _open(sessions)
    token = _accept(_send(sessions, 0)).header
    sessions.answered(session, token)
    route, header = sessions.nack(session, token, Nack.EXPIRED)
    assert (route, header.flags, header.limit) == (LANE, Nack.EXPIRED, WINDOW + 1)


# --- beats and ends ------------------------------------------------------------


def test_each_beat_is_answered_at_once_and_by_one() -> None:
    sessions = _sessions()
    assert sessions.due_s() == float("inf")
    _open(sessions)
    beat = Beat(1, ready=True, queue=3, age_ms=4, about="x")
    assert _tick(sessions, 0.0) == [Send(ROUTE, beat)]  # what is behind us
    assert _tick(sessions, 0.01) == []
    asked = Beat(1, ready=True, queue=0, age_ms=0, clock_us=77)
    for _ in range(2):
        assert sessions.control(ROUTE, asked, 0.02) == []
    assert sessions.due_s() < 0.0
    answer = replace(beat, clock_us=20_000, echo_us=77)
    assert _tick(sessions, 0.02) == [Send(ROUTE, answer)]
    assert _tick(sessions, 0.03) == []


def test_a_session_that_nobody_hears_from_is_told_nothing() -> None:
    """Its side counted whatever came as an answer to its pings, and noticed nothing."""
    sessions = _sessions()
    _open(sessions)
    _tick(sessions, 0.0)
    assert not any(_tick(sessions, 0.1 * n) for n in range(1, 19))


def test_a_session_says_what_may_be_in_flight_to_us() -> None:
    sessions = _sessions()
    session = _open(sessions)
    assert sessions.control(ROUTE, Flight(1, 40_000), 0.1) == [Bound(session, 40_000)]
    assert sessions.control(ROUTE, Flight(1, 0), 0.1) == [Bound(session, None)]
    assert sessions.control(ROUTE, Flight(2, 0), 0.1) == []


def test_news_are_told_to_all_at_once() -> None:
    sessions = _sessions()
    _open(sessions)
    _tick(sessions, 0.0)
    sessions.beat_now()
    (news,) = _tick(sessions, 0.001)
    assert isinstance(news, Send)


def test_nobody_to_beat_for_costs_nothing() -> None:
    sessions = _sessions()
    assert sessions.tick(0.0, queue=0, age_ms=0, about=pytest.fail) == []


def test_a_silent_session_ends() -> None:
    sessions = _sessions()
    session = _open(sessions)
    assert Ended(session, "silent") in _tick(sessions, SUSPECT_S)
    assert len(sessions) == 0


def test_beats_keep_a_session_and_say_how_the_other_is() -> None:
    sessions = _sessions()
    session = _open(sessions)
    heard = Beat(1, ready=True, queue=0, age_ms=0, about="[]")
    assert sessions.control(ROUTE, heard, SUSPECT_S - 0.1) == []
    _tick(sessions, SUSPECT_S)
    assert sessions.all == [session]
    assert session.about == "[]"


def test_beat_of_a_session_that_ended_is_answered_with_goodbye() -> None:
    """A device that slept waited for answers in it, for seconds."""
    sessions = _sessions()
    _open(sessions)
    _tick(sessions, SUSPECT_S)
    late = Beat(1, ready=True, queue=0, age_ms=0)
    assert sessions.control(ROUTE, late, SUSPECT_S + 0.1) == [Send(ROUTE, Bye(1))]


def test_goodbye_ends_a_session() -> None:
    sessions = _sessions()
    session = _open(sessions)
    assert sessions.control(ROUTE, Bye(1), 0.1) == [Ended(session, "bye")]
    assert sessions.data(LANE, TOKEN, SIZES, 0.1) == []


def test_goodbye_of_an_older_session_has_no_effect() -> None:
    sessions = _sessions()
    _open(sessions, HELLO_2)
    assert sessions.control(ROUTE, Bye(1), 0.1) == []
    assert len(sessions) == 1


def test_strangers_are_not_heard() -> None:
    sessions = _sessions()
    assert sessions.control(ROUTE, Bye(1), 0.0) == []
    assert sessions.control(ROUTE, Refuse(1, "no"), 0.0) == []


def test_an_answer_after_the_session_ended_is_accounted_for() -> None:
    sessions = _sessions()
    session = _open(sessions)
    token = _accept(_send(sessions, 0)).header
    sessions.control(ROUTE, Bye(1), 0.1)
    assert sessions.answered(session, token) == WINDOW + 1


def test_leaving_is_told_to_all_and_nobody_new_is_taken() -> None:
    """Who was told dialled again at once, and was lost a second time."""
    sessions = _sessions()
    _open(sessions)
    assert sessions.bye() == [Send(ROUTE, Bye(1))]
    assert sessions.control(b"\x00route-2C", HELLO_2, 0.1) == []
    assert isinstance(sessions.data(LANE, TOKEN, SIZES, 0.1)[0], Accept)


def test_tokens_of_an_ended_session_hold_memory_until_they_are_fired() -> None:
    """A peer that greeted again and again filled the queue beyond all credit."""
    sessions = Sessions("edge", incarnation=5, token_bytes={SEGMENT: [50 * 2**20]})
    sessions.loaded = True
    session = _open(sessions)
    token = _accept(sessions.data(LANE, TOKEN, [50 * 2**20], 0.1)).header
    _, refused = sessions.control(b"\x00route-2C", HELLO_2, 0.2)
    assert isinstance(refused, Send)
    assert isinstance(refused.message, Refuse)
    sessions.answered(session, token)
    hello = Hello("cam", 9, 3, (OFFER,))
    assert _open(sessions, hello, b"\x00route-3C").number == 3


def test_devices_of_two_deployments_may_have_one_name() -> None:
    sessions = _sessions()
    sessions.control(ROUTE, HELLO, 0.0)
    namesake = replace(HELLO, incarnation=10, deployment="other")
    sessions.control(b"other" + ROUTE, namesake, 0.0)
    assert len(sessions) == 2
