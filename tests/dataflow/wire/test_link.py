"""The dialling side of a link as tables: what happens, and what it makes of it."""

from collections.abc import Callable

import pytest

from dataflow.wire.control import (
    Beat,
    Bye,
    Control,
    Flight,
    Refuse,
    StatusReply,
    StreamOffer,
    Welcome,
)
from dataflow.wire.header import Header, Kind
from dataflow.wire.link import Link
from dataflow.wire.link_states import (
    TRANSITIONS,
    Action,
    Close,
    Dead,
    Dial,
    Event,
    LinkError,
    Measured,
    Probe,
    Rated,
    Refused,
    Send,
    State,
    Suspect,
    Up,
)
from dataflow.wire.rate import PROBE_BYTES, TRY_S
from dataflow.wire.timers import (
    BACKOFF_MAX_S,
    BEAT_S,
    DIAL_AGAIN_S,
    DIAL_TIMEOUT_S,
    FLIGHT_BYTES_MIN,
    HANDSHAKES_FAILED,
    HEARTBEAT,
    IDLE_BEAT_S,
    PROBES,
    REFUSED_AGAIN_S,
    SLOW_FIRING_MS,
    STABLE_S,
    STARVED_S,
    SUSPECT_S,
)

STREAM = 7
OFFER = StreamOffer(stream=STREAM, name="cam", segment=1, window=2)


class Driven:
    """A link, its clock, and short words for what happens to it."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.link = Link(
            "edge", device="cam", incarnation=9, offers=(OFFER,), now_s=self.now_s
        )

    @property
    def state(self) -> State:
        return self.link.state

    def tick(self, seconds: float = 0.0, *, wanted: bool = False) -> list[Action]:
        self.now_s += seconds
        return self.link.tick(self.now_s, wanted=wanted, about=lambda: "[]")

    def hear(self, message: Control) -> list[Action]:
        return self.link.control(message, self.now_s)

    def beat(self, *, age_ms: int = 0, queue: int = 0) -> list[Action]:
        """The peer answers all beats of ours."""
        clock_us, _, _ = self.link.clock.stamps(self.now_s)
        beat = Beat(self.link.session, True, queue, age_ms, echo_us=clock_us)
        told = self.hear(beat)
        return [each for each in told if not isinstance(each, Measured)]

    def silence(self) -> list[Action]:
        """Beat until the peer is suspect for its silence; return what comes of it."""
        for _ in range(100):
            actions = self.tick(BEAT_S / 2)
            if self.state is State.SUSPECT:
                return actions
        raise AssertionError("it is not noticed")

    def welcome(self, *, ready: bool = True) -> list[Action]:
        grants = {STREAM: OFFER.window}
        return self.hear(Welcome("edge", 1, self.link.session, ready, grants))

    def dialled(self) -> "Driven":
        assert self.tick() == [Dial(self.link.session)]
        return self

    def greeted(self) -> "Driven":
        self.link.lane_open("control", self.now_s)
        self.link.lane_open("data", self.now_s)
        return self

    def proved(self) -> list[Action]:
        for _ in range(PROBES - 1):
            self.link.probed(self.link.session, self.now_s)
        return self.link.probed(self.link.session, self.now_s)

    def up(self) -> "Driven":
        self.dialled().greeted().welcome()
        self.proved()
        assert self.state is State.READY
        return self

    def redial(self) -> float:
        """Wait until it dials again; return how long that was."""
        assert self.state is State.WAITING
        wait_s = self.link.due_s() - self.now_s
        assert self.tick(wait_s - 1e-6) == []
        assert self.tick(2e-6) == [Dial(self.link.session)]
        return wait_s


def _suspect(driven: Driven) -> Driven:
    driven.link.overdue("slow", driven.now_s)
    return driven


def _recovering(driven: Driven) -> Driven:
    driven.proved()
    _suspect(driven)
    driven.beat()
    assert driven.state is State.PROVING
    return driven


WAYS: dict[State, Callable[[], Driven]] = {
    State.WAITING: Driven,
    State.DIALLING: lambda: Driven().dialled(),
    State.LOADING: lambda: _then(Driven().dialled().greeted(), ready=False),
    State.PROVING: lambda: _then(Driven().dialled().greeted(), ready=True),
    State.READY: lambda: Driven().up(),
    State.SUSPECT: lambda: _suspect(Driven().up()),
}
"""How to get to each state."""


def _then(driven: Driven, *, ready: bool) -> Driven:
    driven.welcome(ready=ready)
    return driven


EVENTS: dict[tuple[State, Event], Callable[[Driven], list[Action]]] = {
    (State.WAITING, Event.DIAL): lambda d: d.tick(),
    (State.DIALLING, Event.LOADING): lambda d: d.greeted().welcome(ready=False),
    (State.DIALLING, Event.WELCOME): lambda d: d.greeted().welcome(),
    (State.LOADING, Event.LOADING): lambda d: d.welcome(ready=False),
    (State.LOADING, Event.WELCOME): lambda d: d.welcome(),
    (State.PROVING, Event.PROVED): lambda d: d.proved(),
    (State.READY, Event.DOUBT): lambda d: d.silence(),
    (State.PROVING, Event.DOUBT): lambda d: _recovering(d).hear(Bye(1)),
    (State.SUSPECT, Event.RECOVERED): lambda d: d.beat(),
    (State.DIALLING, Event.CLOSE): lambda d: d.tick(DIAL_TIMEOUT_S),
    (State.LOADING, Event.CLOSE): lambda d: d.tick(SUSPECT_S),
    (State.PROVING, Event.CLOSE): lambda d: d.tick(DIAL_TIMEOUT_S),
    (State.SUSPECT, Event.CLOSE): lambda d: d.tick(SUSPECT_S, wanted=True),
}


def test_the_tables_cover_every_transition() -> None:
    assert EVENTS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize(("state", "event"), EVENTS, ids=lambda e: e.value)
def test_each_transition_is_reached(state: State, event: Event) -> None:
    driven = WAYS[state]()
    assert driven.state is state
    EVENTS[state, event](driven)
    assert driven.state is TRANSITIONS[state, event]


FORBIDDEN = [
    (state, event)
    for state in State
    for event in Event
    if (state, event) not in TRANSITIONS
]


@pytest.mark.parametrize(("state", "event"), FORBIDDEN, ids=lambda e: e.value)
def test_a_forbidden_event_prints_the_history(state: State, event: Event) -> None:
    driven = WAYS[state]()
    text = f"link to edge: forbidden event: .*{state.value} {event.value}$"
    with pytest.raises(LinkError, match=text):
        driven.link._move(event, driven.now_s)


ANYTHING: dict[str, Callable[[Driven], list[Action]]] = {
    "tick": lambda d: d.tick(),
    "control lane opens": lambda d: d.link.lane_open("control", d.now_s),
    "data lane opens": lambda d: d.link.lane_open("data", d.now_s),
    "control lane lost": lambda d: d.link.lane_lost("control", d.now_s),
    "data lane lost": lambda d: d.link.lane_lost("data", d.now_s),
    "handshake failed": lambda d: d.link.handshake_failed("no", d.now_s),
    "another version": lambda d: d.link.misunderstood("version 2", d.now_s),
    "send blocked": lambda d: d.link.blocked(d.now_s),
    "firing overdue": lambda d: d.link.overdue("slow", d.now_s),
    "probe answered": lambda d: d.link.probed(d.link.session, d.now_s),
    "welcome": lambda d: d.welcome(),
    "loading": lambda d: d.welcome(ready=False),
    "beat": lambda d: d.beat(),
    "bye": lambda d: d.hear(Bye(d.link.session)),
    "refuse": lambda d: d.hear(Refuse(d.link.session, "no")),
    "status": lambda d: d.hear(StatusReply("{}")),
}


@pytest.mark.parametrize("happens", ANYTHING.values(), ids=ANYTHING.keys())
@pytest.mark.parametrize("state", State, ids=lambda s: s.value)
def test_nothing_a_peer_does_is_forbidden_in_any_state(
    state: State, happens: Callable[[Driven], list[Action]]
) -> None:
    """A Refuse, a Bye or another version in the wrong state brought the device down."""
    driven = WAYS[state]()
    happens(driven)
    driven.tick()
    assert driven.link.due_s() > driven.now_s or driven.state is State.SUSPECT


@pytest.mark.parametrize("state", State, ids=lambda s: s.value)
def test_a_silent_peer_is_dialled_again_from_any_state(state: State) -> None:
    driven = WAYS[state]()
    session = driven.link.session
    for _ in range(200):
        driven.tick(0.05)
    assert driven.link.session > session


# --- the handshake -------------------------------------------------------------


def test_it_greets_when_both_lanes_are_open() -> None:
    driven = Driven().dialled()
    assert driven.link.lane_open("data", driven.now_s) == []
    (send,) = driven.link.lane_open("control", driven.now_s)
    assert isinstance(send, Send)
    assert send.message.kind == "hello"


def test_it_is_up_after_three_answers_on_the_data_lane() -> None:
    driven = Driven().dialled().greeted()
    assert driven.welcome() == [Probe(1, 3)]
    assert driven.link.probed(1, driven.now_s) == [Probe(1, 2, PROBE_BYTES)]
    assert driven.link.probed(0, driven.now_s) == []
    assert driven.link.probed(1, driven.now_s) == [Probe(1, 1, PROBE_BYTES)]
    assert driven.link.probed(1, driven.now_s) == [Up(1, away_s=None)]


def test_credit_is_what_was_granted_and_not_sent() -> None:
    driven = Driven().up()
    assert driven.link.credit(STREAM) == 2
    assert [driven.link.take_ordinal(STREAM) for _ in range(2)] == [0, 1]
    assert driven.link.credit(STREAM) == 0
    driven.link.raise_limit(STREAM, 3)
    driven.link.raise_limit(STREAM, 1)
    assert driven.link.credit(STREAM) == 1
    assert driven.link.credit(STREAM + 1) == 0


def test_outstanding_is_ours_now_and_what_the_last_beat_says_of_others() -> None:
    driven = Driven().up()
    assert driven.link.outstanding == 0
    driven.link.take_ordinal(STREAM)
    driven.link.take_ordinal(STREAM)
    driven.beat(queue=5)  # two of them are ours
    assert driven.link.outstanding == 2 + 3
    driven.link.raise_limit(STREAM, 3)
    assert driven.link.outstanding == 1 + 3
    driven.beat(queue=0)
    assert driven.link.outstanding == 1


def test_a_new_session_knows_nothing_of_others() -> None:
    driven = Driven().up()
    driven.beat(queue=5)
    driven.link.lane_lost("data", driven.now_s)
    driven.redial()
    driven.greeted().welcome()
    driven.proved()
    assert driven.link.outstanding == 0


def test_a_new_session_starts_with_the_whole_credit() -> None:
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.lane_lost("data", driven.now_s)
    assert driven.link.credit(STREAM) == 1
    driven.redial()
    assert driven.link.credit(STREAM) == 0
    driven.greeted().welcome()
    driven.proved()
    assert (driven.link.session, driven.link.credit(STREAM)) == (2, 2)
    assert driven.link.take_ordinal(STREAM) == 0


@pytest.mark.parametrize(
    "message",
    [
        Welcome("edge", 1, 0, ready=True),
        Beat(0, ready=True, queue=0, age_ms=0),
        Bye(0),
        Refuse(0, "no"),
    ],
    ids=lambda m: m.kind,
)
@pytest.mark.parametrize("state", State, ids=lambda s: s.value)
def test_a_message_of_another_session_has_no_effect(
    state: State, message: Control
) -> None:
    driven = WAYS[state]()
    driven.link.session += 1
    assert driven.hear(message) == []
    assert driven.state is state


def test_control_messages_without_effect_are_counted_by_reason() -> None:
    driven = Driven().up()
    driven.hear(Bye(0))
    driven.hear(StatusReply("{}"))
    driven.welcome()
    assert driven.link.ignored == {"session": 1, "kind": 2}


def test_a_peer_is_absent_until_somebody_takes_the_connection() -> None:
    driven = Driven().dialled()
    assert not driven.link.absent
    driven.link.lane_lost("data", driven.now_s)
    assert driven.link.absent
    driven.redial()
    driven.greeted()
    assert not driven.link.absent


def test_while_the_peer_loads_its_beats_keep_the_session() -> None:
    driven = WAYS[State.LOADING]()
    for _ in range(100):
        driven.tick(0.05)
        driven.hear(Beat(1, ready=False, queue=0, age_ms=0))
    assert driven.state is State.LOADING
    assert driven.welcome() == [Probe(1, 3)]


def test_a_peer_that_loaded_and_whose_welcome_was_lost_is_dialled_again() -> None:
    """The link was loading for ever: beats kept the session, nothing ended it."""
    driven = WAYS[State.LOADING]()
    assert driven.beat() == [Close()]
    driven.redial()
    driven.greeted().welcome()
    driven.proved()
    assert driven.state is State.READY


def test_a_token_may_be_sent_while_ready_and_within_the_credit() -> None:
    driven = WAYS[State.PROVING]()
    assert not driven.link.takes(STREAM)
    driven.proved()
    for _ in range(OFFER.window):
        assert driven.link.takes(STREAM)
        driven.link.take_ordinal(STREAM)
    assert not driven.link.takes(STREAM)
    driven.link.raise_limit(STREAM, OFFER.window + 1)
    assert driven.link.takes(STREAM)
    _suspect(driven)
    assert not driven.link.takes(STREAM)


LOST_AGAIN: dict[str, Callable[[Driven], list[Action]]] = {
    "says goodbye": lambda d: d.hear(Bye(1)),
    "loses its control lane": lambda d: d.link.lane_lost("control", d.now_s),
}


@pytest.mark.parametrize("lose", LOST_AGAIN.values(), ids=LOST_AGAIN)
def test_late_answers_of_a_peer_that_was_recovering_are_still_waited_for(
    lose: Callable[[Driven], list[Action]],
) -> None:
    """Its session was closed at once, and frames that it answered were dropped."""
    driven = _recovering(WAYS[State.PROVING]())
    (suspect,) = lose(driven)
    assert isinstance(suspect, Suspect)
    assert driven.tick(wanted=True) == []
    assert driven.state is State.SUSPECT
    assert driven.tick() == [Close(), Dead(1)]


# --- losing it -----------------------------------------------------------------

LOSSES: dict[str, tuple[Callable[[Driven], list[Action]], str, list[Action]]] = {
    "data lane": (
        lambda d: d.link.lane_lost("data", d.now_s),
        "connection",
        [Close(), Dead(1)],
    ),
    "control lane": (
        lambda d: d.link.lane_lost("control", d.now_s),
        "connection",
        [],
    ),
    "heartbeat": (
        lambda d: [
            *d.tick(0.07),
            *d.link.lane_lost("control", d.now_s),
        ],
        "heartbeat",
        [],
    ),
    "beats": (lambda d: d.silence(), "beat", []),
    "send": (lambda d: d.link.blocked(d.now_s), "send", []),
    "firing": (lambda d: d.link.overdue("slow", d.now_s), "deadline", []),
    "bye": (lambda d: d.hear(Bye(1)), "bye", []),
    "refuse": (
        lambda d: d.hear(Refuse(1, "no")),
        "connection",
        [Close(), Dead(1), Refused("no")],
    ),
}


@pytest.mark.parametrize(
    ("loss", "evidence", "rest"),
    [pytest.param(*loss, id=name) for name, loss in LOSSES.items()],
)
def test_each_evidence_makes_a_ready_peer_suspect(
    loss: Callable[[Driven], list[Action]], evidence: str, rest: list[Action]
) -> None:
    driven = Driven().up()
    actions = [a for a in loss(driven) if not isinstance(a, Send)]
    assert isinstance(actions[0], Suspect)
    assert (actions[0].session, actions[0].evidence) == (1, evidence)
    assert actions[1:] == rest
    assert not driven.link.ready


def test_missed_beats_are_forgiven_within_the_session() -> None:
    driven = Driven().up()
    driven.silence()
    assert driven.beat() == [Probe(1, 3)]
    (up,) = driven.proved()
    assert up == Up(1, away_s=0.0)
    assert driven.link.session == 1


def test_a_firing_that_still_hangs_does_not_let_its_server_return() -> None:
    """Each beat made the link ready again, and the next one suspect, for ever."""
    driven = _suspect(Driven().up())
    assert driven.beat(age_ms=SLOW_FIRING_MS + 1) == []
    assert driven.state is State.SUSPECT
    assert driven.beat(age_ms=SLOW_FIRING_MS) == [Probe(1, 3)]


def test_an_old_firing_does_not_matter_to_a_peer_suspected_for_something_else() -> None:
    driven = Driven().up()
    driven.silence()
    assert driven.beat(age_ms=1000) == [Probe(1, 3)]


def test_a_suspect_without_its_control_lane_does_not_return_in_the_session() -> None:
    driven = Driven().up()
    driven.link.lane_lost("control", driven.now_s)
    assert driven.beat() == []
    assert driven.state is State.SUSPECT


def test_a_suspect_with_a_lost_lane_is_kept_while_its_answers_are_wanted() -> None:
    driven = Driven().up()
    driven.link.lane_lost("control", driven.now_s)
    assert driven.tick(wanted=True) == []
    assert driven.tick(wanted=False) == [Close(), Dead(1)]


def test_a_suspect_is_dead_after_two_seconds_wanted_or_not() -> None:
    driven = _suspect(Driven().up())
    driven.beat(age_ms=5000)
    assert driven.tick(SUSPECT_S, wanted=True) == [Close(), Dead(1)]


def test_a_lane_that_would_block_is_replaced_so_that_no_credit_leaks() -> None:
    """The ordinal of a token that never left was never given back."""
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.blocked(driven.now_s)
    assert driven.beat() == []
    assert driven.tick(wanted=False) == [Close(), Dead(1)]


def test_a_session_whose_answers_were_lost_is_replaced() -> None:
    """Without credit the link was ready for ever, and never used."""
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.take_ordinal(STREAM)
    assert driven.beat() == []
    driven.now_s += SUSPECT_S
    actions = driven.beat()
    assert [type(action) for action in actions] == [Suspect, Close, Dead]


@pytest.mark.parametrize("busy", [{"queue": 1}, {"age_ms": 100}])
def test_a_server_that_still_computes_keeps_its_session(busy: dict[str, int]) -> None:
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.take_ordinal(STREAM)
    driven.beat()
    driven.now_s += SUSPECT_S
    assert driven.beat(**busy) == []


def test_a_session_is_replaced_though_others_keep_its_server_busy() -> None:
    """Frames of 10 Hz and beats of 20 keep the same time: each beat found one there."""
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.take_ordinal(STREAM)
    driven.beat(queue=1)
    driven.now_s += STARVED_S - 0.1
    assert driven.beat(queue=1) == []
    driven.now_s += 0.1
    actions = driven.beat(queue=1)
    assert [type(action) for action in actions] == [Suspect, Close, Dead]


def test_an_answer_shows_that_credit_still_moves() -> None:
    driven = Driven().up()
    driven.link.take_ordinal(STREAM)
    driven.link.take_ordinal(STREAM)
    driven.beat()
    driven.now_s += SUSPECT_S
    driven.link.raise_limit(STREAM, 2)
    assert driven.beat() == []


# --- coming back ---------------------------------------------------------------


def _lose_and_return(driven: Driven, after_s: float) -> float:
    """Lose the data lane `after_s` after its return; return the wait to dial."""
    driven.now_s += after_s
    driven.link.lane_lost("data", driven.now_s)
    wait_s = driven.redial()
    driven.greeted().welcome()
    driven.proved()
    return wait_s


def test_the_wait_doubles_per_flap_up_to_a_limit() -> None:
    driven = Driven().up()
    waits_s = [_lose_and_return(driven, after_s=1.0) for _ in range(8)]
    doubled_s = [min(DIAL_AGAIN_S * 2**n, BACKOFF_MAX_S) for n in range(1, 9)]
    assert waits_s == pytest.approx(doubled_s)


def test_a_stable_session_ends_the_flapping() -> None:
    driven = Driven().up()
    _lose_and_return(driven, after_s=1.0)
    assert _lose_and_return(driven, after_s=STABLE_S) == pytest.approx(DIAL_AGAIN_S)


def test_a_peer_that_is_not_there_is_dialled_steadily() -> None:
    driven = Driven().dialled()
    for _ in range(20):
        assert driven.link.lane_lost("data", driven.now_s) == [Close()]
        assert driven.redial() == pytest.approx(DIAL_AGAIN_S)


def test_up_says_how_long_it_was_away() -> None:
    driven = Driven().up()
    driven.link.lane_lost("data", driven.now_s)
    lost_s = driven.now_s
    driven.redial()
    driven.greeted().welcome()
    assert driven.proved() == [Up(2, away_s=driven.now_s - lost_s)]


def test_dead_is_told_only_of_a_session_that_was_used() -> None:
    driven = WAYS[State.PROVING]()
    assert driven.link.lane_lost("data", driven.now_s) == [Close()]


# --- configuration errors ------------------------------------------------------


def test_three_failed_handshakes_are_told_once() -> None:
    driven = Driven()
    told = []
    for _ in range(2 * HANDSHAKES_FAILED):
        driven.now_s = max(driven.now_s, driven.link.due_s())
        driven.dialled()
        told.append(driven.link.handshake_failed("keys", driven.now_s))
    refused = [any(isinstance(a, Refused) for a in actions) for actions in told]
    assert refused == [False, False, True, False, False, False]
    assert driven.link.refused == "keys"


def test_a_handshake_that_succeeds_starts_the_count_again() -> None:
    driven = Driven()
    for _ in range(HANDSHAKES_FAILED):
        driven.now_s = max(driven.now_s, driven.link.due_s())
        driven.dialled().link.lane_open("control", driven.now_s)
        assert driven.link.handshake_failed("keys", driven.now_s) == [Close()]


def test_a_refusal_is_told_once_and_tried_again_slowly() -> None:
    driven = Driven().dialled().greeted()
    assert driven.hear(Refuse(1, "other plan")) == [Close(), Refused("other plan")]
    assert driven.redial() == pytest.approx(REFUSED_AGAIN_S)
    driven.greeted()
    assert driven.hear(Refuse(2, "other plan")) == [Close()]


def test_a_refusal_is_forgotten_when_the_peer_takes_us() -> None:
    driven = Driven().dialled()
    driven.link.misunderstood("version 2", driven.now_s)
    driven.redial()
    driven.greeted().welcome()
    driven.proved()
    assert driven.link.refused == ""


# --- what it says --------------------------------------------------------------


def test_it_beats_every_fifty_milliseconds_and_says_how_it_is() -> None:
    driven = Driven().up()
    assert driven.tick(0.049) == []
    (beat,) = driven.tick(0.002)
    clock_us = int(driven.now_s * 1e6)
    expected = Beat(1, True, queue=0, age_ms=0, about="[]", clock_us=clock_us)
    assert beat == Send(expected)
    assert driven.tick() == []


def test_it_tells_now_and_then_how_the_clocks_differ() -> None:
    """The peer's is 50 s ahead; its beats are 2 ms old when they come."""
    driven = Driven().up()

    def exchange() -> list[Action]:
        driven.link.sent(Header(Kind.TOKEN, 1), driven.now_s)
        (sent,) = driven.tick(BEAT_S)
        assert isinstance(sent, Send)
        assert isinstance(sent.message, Beat)
        echo_us, clock_us = sent.message.clock_us, int((driven.now_s + 50) * 1e6)
        stamps = {"clock_us": clock_us, "echo_us": echo_us}
        driven.now_s += 0.002
        return driven.hear(Beat(1, True, queue=0, age_ms=0, **stamps))

    told = [action for _ in range(100) for action in exchange()]
    (measured,) = (action for action in told if isinstance(action, Measured))
    assert measured.offset.round_trip_s == pytest.approx(0.002, abs=2e-6)
    assert measured.offset.offset_s == pytest.approx(50, abs=measured.offset.error_s)
    again = [action for _ in range(1300) for action in exchange()]
    assert [type(action) for action in again] == [Measured]


def test_link_that_is_not_used_is_beaten_less_often_until_it_is() -> None:
    driven = Driven().up()

    def beats(seconds: float) -> int:
        count = 0
        for _ in range(round(seconds / 0.01)):
            sent = driven.tick(0.01)
            count += len(sent)
            if sent:
                assert driven.beat() == []
        return count

    assert beats(1.0) == pytest.approx(1.0 / BEAT_S, abs=1)
    assert beats(4.0) == pytest.approx(4.0 / IDLE_BEAT_S, abs=2)
    driven.tick(BEAT_S)
    driven.link.sent(Header(Kind.TOKEN, 1), driven.now_s)
    assert driven.link.due_s() <= driven.now_s + BEAT_S
    assert beats(0.5) == pytest.approx(0.5 / BEAT_S, abs=1)


def test_standby_that_hangs_is_suspect_soon_after_it_is_asked() -> None:
    driven = Driven().up()
    for _ in range(200):
        if driven.tick(BEAT_S / 2):
            assert driven.beat() == []
    driven.tick(BEAT_S)
    driven.link.sent(Header(Kind.TOKEN, 1), driven.now_s)
    since_s = driven.now_s
    driven.silence()
    assert driven.now_s - since_s < 0.2


def test_goodbye_is_said_where_it_can_be_heard() -> None:
    driven = Driven()
    assert driven.link.bye() == []
    assert driven.up().link.bye() == [Send(Bye(1))]
    driven.link.lane_lost("control", driven.now_s)
    assert driven.link.bye() == []


# --- half-open links --------------------------------------------------------------


def _steady(driven: Driven) -> Driven:
    """Beat for a while, and hear that it is heard."""
    for _ in range(6):
        driven.tick(BEAT_S)
        assert driven.beat() == []
    return driven


def test_peer_that_answers_no_beat_is_suspect_within_200_ms() -> None:
    driven = _steady(Driven().up())
    since_s = driven.now_s
    (suspect,) = driven.silence()
    assert isinstance(suspect, Suspect)
    assert (suspect.evidence, suspect.text) == ("beat", "a beat unanswered for 150 ms")
    assert driven.now_s - since_s == pytest.approx(0.2)


def test_peer_that_does_not_hear_us_is_suspect_though_it_tells_news() -> None:
    """Heartbeats saw nothing: whatever comes from a peer counts as life."""
    driven = _steady(Driven().up())
    heard_s = driven.now_s
    for _ in range(3):
        driven.tick(BEAT_S)
        echo_us, held_us = int(heard_s * 1e6), int((driven.now_s - heard_s) * 1e6)
        driven.hear(Beat(1, True, 0, 0, echo_us=echo_us, held_us=held_us))
        assert driven.state is State.READY
    driven.tick(1.01 * BEAT_S)
    assert driven.state is State.SUSPECT


def test_pause_of_our_own_is_no_evidence_against_a_peer() -> None:
    """What it said meanwhile is not read yet, or what we would have said not sent."""
    driven = _steady(Driven().up())
    driven.tick(BEAT_S)
    driven.now_s += 1.0
    driven.tick()
    assert driven.state is State.READY
    driven.silence()


def test_peer_that_answers_slowly_of_late_is_given_more_time() -> None:
    driven = Driven().up()
    for _ in range(10):  # each takes 120 ms, as on a full link or a busy machine
        driven.tick(BEAT_S)
        echo_us = int((driven.now_s - 0.12) * 1e6)
        driven.hear(Beat(1, True, 0, 0, echo_us=echo_us, clock_us=1))
        assert driven.state is State.READY
    since_s = driven.now_s
    driven.silence()
    assert 0.15 < driven.now_s - since_s < 0.3  # else 0.08: beats are under way


# --- slow links -------------------------------------------------------------------


def _on_slow_link(driven: Driven, bytes_s: float, rtt_s: float) -> list[Action]:
    """Greet, and have the probes answered as a link of such a rate does."""
    driven.greeted()
    driven.now_s += rtt_s
    driven.welcome()
    actions: list[Action] = [Probe(driven.link.session, PROBES)]
    while isinstance(probe := actions[-1], Probe):
        driven.now_s += rtt_s + probe.size / bytes_s
        actions = driven.link.probed(driven.link.session, driven.now_s)
    return actions


def test_probes_tell_what_a_link_carries_before_the_first_token() -> None:
    driven = Driven().dialled()
    rated, send, up = _on_slow_link(driven, 4e6, 0.001)
    assert isinstance(up, Up)
    assert send == Send(Flight(1, rated.rate.flight_bytes))
    assert isinstance(rated, Rated)
    assert rated.rate.bytes_s == pytest.approx(4e6)
    assert rated.rate.rtt_s == pytest.approx(0.001)
    assert driven.link.heartbeat == HEARTBEAT


def test_fast_link_whose_probes_came_late_is_soon_let_go_without_long_tokens() -> None:
    """It stayed at 0.4 MB/s with 32 KB in flight, and `round_trip` did not end."""
    driven = Driven().dialled()
    assert _on_slow_link(driven, 0.4e6, 0.0002) == [Close()]  # to dial more patiently
    driven.now_s = driven.link.due_s()
    driven.tick()
    _, flight, _ = _on_slow_link(driven, 0.4e6, 0.0002)
    assert flight == Send(Flight(2, FLIGHT_BYTES_MIN))
    began_s, actions = driven.now_s, list[Action]()
    while Send(Flight(2, 0)) not in actions and driven.now_s < began_s + 2.0:
        actions = driven.tick(BEAT_S)
        while actions and isinstance(probe := actions[-1], Probe):
            driven.now_s += 0.0002 + probe.size / 2e9
            actions = driven.link.probed(2, driven.now_s)
        driven.beat()
    assert driven.now_s < began_s + TRY_S + 2 * IDLE_BEAT_S


def test_an_answer_to_a_probe_that_was_not_sent_means_nothing() -> None:
    driven = Driven().up()
    assert driven.link.probed(1, driven.now_s) == []


def test_a_welcome_before_the_greeting_says_nothing_of_the_round_trip() -> None:
    """The rate was measured against a round trip that had no beginning."""
    driven = Driven().dialled()
    driven.welcome()
    for _ in range(PROBES):
        driven.now_s += 0.1
        driven.link.probed(1, driven.now_s)
    rate = driven.link.rate
    assert rate is None or rate.rtt_s >= 0.0


def test_a_session_whose_heartbeat_is_too_short_for_its_link_is_not_used() -> None:
    driven = Driven().dialled()
    assert _on_slow_link(driven, 0.25e6, 0.02) == [Close()]
    driven.now_s = driven.link.due_s()
    (dial,) = driven.tick()
    assert isinstance(dial, Dial)
    assert dial.heartbeat.timeout_ms == pytest.approx(705, abs=2)
    _, _, up = _on_slow_link(driven, 0.25e6, 0.02)
    assert isinstance(up, Up)


def test_a_round_trip_longer_than_the_heartbeat_allows_is_found_out() -> None:
    """Each session was lost before its welcome came, for ever."""
    driven = Driven()
    timeouts_ms = []
    for _ in range(4):
        driven.now_s = max(driven.now_s, driven.link.due_s())
        (dial,) = driven.tick()
        assert isinstance(dial, Dial)
        timeouts_ms.append(dial.heartbeat.timeout_ms)
        driven.greeted()
        driven.now_s += dial.heartbeat.timeout_ms / 1e3 + 0.02
        assert driven.link.lane_lost("control", driven.now_s) == [Close()]
    assert timeouts_ms == [60, 120, 240, 480]


def test_goodbye_to_a_suspect_session_ends_it_as_soon_as_nothing_is_wanted() -> None:
    """A device that slept had doubted its peer before it read the goodbye."""
    driven = _suspect(Driven().up())
    assert driven.hear(Bye(1)) == []
    assert driven.tick(wanted=True) == []
    assert driven.tick() == [Close(), Dead(1)]
