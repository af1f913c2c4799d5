"""What a relay passed on comes back to whoever sent it, once, whatever happens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.graph import Asked
from dataflow.wire.control import Beat, Welcome
from dataflow.wire.header import Header, Kind, Nack
from dataflow.wire.link import Link
from dataflow.wire.relay import Passed, Relay, Way, prefixes_of
from dataflow.wire.session import Session
from dataflow.wire.timers import PROBES

EDGE, FAR = Asked("edge", 7), Asked("far", 8)
HERE, FARTHER = 70, 80
WAYS = [
    (HERE, Way((EDGE,), 4)),
    (HERE, Way((EDGE,), 2)),
    (FARTHER, Way((FAR, EDGE), 3)),
]
SESSION = Session(1, "cam", 9, b"C", b"D", {}, {}, 0.0, 0, {}, {})


def ready_link(peer: str, relay: Relay, *, dead: tuple[str, ...] = ()) -> Link:
    """Return a link to `peer` over which tokens of the relay may go."""
    offers = tuple(relay.offers[peer])
    link = Link(peer, device="fog", incarnation=1, offers=offers, now_s=0.0)
    link.tick(0.0, wanted=False, about=lambda: "")
    link.lane_open("control", 0.0)
    link.lane_open("data", 0.0)
    grants = {offer.stream: offer.window for offer in offers}
    link.control(Welcome(peer, 2, 1, ready=True, grants=grants), 0.0)
    for _ in range(PROBES):
        link.probed(1, 0.0)
    link.control(Beat(1, ready=True, queue=0, age_ms=0, dead=dead), 0.0)
    assert link.ready
    return link


def passed(frame: int, *, segment: int = HERE, expires_s: float = 1.0) -> Passed:
    header = Header(Kind.TOKEN, 1, stream=5, segment=segment, frame=frame, attempt=2)
    return Passed(SESSION, header, expires_s, 0.0, 10, 20)


def pass_on(
    relay: Relay, link: Link, what: Passed, now_s: float = 0.0
) -> Header | Nack:
    return relay.pass_on(link, what, tensors=1, payload_bytes=4, now_s=now_s)


@pytest.fixture
def relay() -> Relay:
    return Relay("fog", WAYS)


def test_one_credit_for_what_all_streams_ask_of_one_server(relay: Relay) -> None:
    offered = {
        peer: [(offer.segment, offer.window) for offer in offers]
        for peer, offers in relay.offers.items()
    }
    assert offered == {"edge": [(7, 6)], "far": [(8, 3)]}


def test_answer_comes_back_under_the_tag_that_the_token_came_with(
    relay: Relay,
) -> None:
    link = ready_link("edge", relay)
    sent = pass_on(relay, link, passed(3))
    assert isinstance(sent, Header)
    assert (sent.segment, sent.frame, sent.attempt) == (7, 3, 2)
    assert sent.budget_us == 1_000_000
    answer = sent.answer(Kind.ANSWER, limit=9, tensors=1, queue_us=1, compute_us=2)
    back = relay.returned(link, answer)
    assert back is not None
    reply = back.answered(answer, 4, back.sent_s)
    assert (reply.session, reply.stream, reply.segment) == (1, 5, HERE)
    assert (reply.limit, reply.queue_us, reply.compute_us) == (4, 11, 22)
    assert relay.returned(link, answer) is None, "a second answer"


def test_token_that_cannot_go_on_is_refused_with_the_reason(relay: Relay) -> None:
    link = ready_link("edge", relay)
    assert pass_on(relay, link, passed(0), now_s=1.0) is Nack.EXPIRED
    for frame in range(6):
        assert isinstance(pass_on(relay, link, passed(frame)), Header)
    assert pass_on(relay, link, passed(6)) is Nack.BUSY
    link.overdue("slow", 0.1)
    assert pass_on(relay, link, passed(7)) is Nack.HOP
    assert len(relay) == 6


def test_only_what_is_at_the_lost_server_is_lost(relay: Relay) -> None:
    near, far = ready_link("edge", relay), ready_link("far", relay)
    pass_on(relay, near, passed(0))
    pass_on(relay, far, passed(1, segment=FARTHER))
    assert [p.header.frame for p in relay.lost("edge")] == [0]
    assert relay.lost("edge") == []
    assert len(relay) == 1


def test_beats_list_the_ways_that_end_behind(relay: Relay) -> None:
    links = {"edge": ready_link("edge", relay), "far": ready_link("far", relay)}
    assert relay.unreachable(links) == ()
    links["far"].control(Beat(1, ready=True, queue=0, age_ms=0, dead=("edge",)), 0.0)
    assert relay.unreachable(links) == ("far+edge",)
    links["far"].overdue("slow", 0.1)
    assert relay.unreachable(links) == ("far",)


def test_nothing_is_known_of_what_is_behind_before_the_first_beat() -> None:
    link = Link("fog", device="cam", incarnation=1, offers=(), now_s=0.0)
    ways = prefixes_of(["edge", "far"])
    assert link.first_lost(ways) == "edge"
    link.tick(0.0, wanted=False, about=lambda: "")
    link.lane_open("control", 0.0)
    link.lane_open("data", 0.0)
    link.control(Beat(1, ready=True, queue=0, age_ms=0), 0.0)
    assert link.first_lost(ways) == ""
    link.way_lost("edge+far")
    assert link.first_lost(ways) == "edge+far"
    link.control(Beat(1, ready=True, queue=0, age_ms=0), 0.0)
    assert link.first_lost(ways) == "", "the beat knows better"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(0.0, 2.0)),
        st.tuples(st.just("answer"), st.integers(0, 30)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("wait"), st.floats(0.0, 1.0)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS)
def test_every_token_passed_on_comes_back_at_most_once_and_is_not_kept(
    steps: list[tuple[str, float]],
) -> None:
    """Answers, doubled and late ones, losses and expiry, in any order."""
    relay = Relay("fog", WAYS)
    link = ready_link("edge", relay)
    sent: list[Header] = []
    came: list[int] = []
    now_s = 0.0
    for step, value in steps:
        match step:
            case "pass":
                frame = len(sent)
                what = passed(frame, expires_s=now_s + value)
                header = pass_on(relay, link, what, now_s)
                if isinstance(header, Header):
                    sent.append(header)
            case "answer" if sent:
                header = sent[int(value) % len(sent)]
                limit = len(sent) + 6
                back = relay.returned(link, header.answer(Kind.ANSWER, limit=limit))
                came += [back.header.frame] if back else []
            case "lose":
                came += [p.header.frame for p in relay.lost("edge")]
            case "wait":
                now_s += value
                came += [p.header.frame for _, p in relay.expired(now_s)]
    came += [p.header.frame for p in relay.lost("edge")]
    assert sorted(came) == list(range(len(sent)))
    assert len(relay) == 0
    assert relay.due_s() == float("inf")
