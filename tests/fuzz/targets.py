"""What is fuzzed: the decoders, a serving half, a dialling half.

Each target takes one message a step. It holds the code to this: nothing is raised, no
bound is passed, and a message without effect is counted under a reason.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dataflow.attempts
import dataflow.host
import dataflow.links
import dataflow.stream
from dataflow.branches import number_of, offers_of
from dataflow.errors import PeerError
from dataflow.events import EventLog
from dataflow.host import Host
from dataflow.links import Links
from dataflow.parts import make_chain, stream_parts
from dataflow.plans import addresses_of
from dataflow.segments import Segments
from dataflow.stream import Stream
from dataflow.wire.allowance import PEERS_MAX
from dataflow.wire.compression import CODES, COMPRESSIONS, compression
from dataflow.wire.control import (
    STREAMS_MAX,
    Beat,
    Bye,
    Control,
    Hello,
    Refuse,
    StatusReply,
    StatusRequest,
    StreamOffer,
    Welcome,
    pack_control,
    unpack_control,
)
from dataflow.wire.happenings import (
    FromPeer,
    FromRoute,
    HandshakeFailed,
    LaneLost,
    LaneOpened,
)
from dataflow.wire.header import HEADER_BYTES, Header, Kind, data_route
from dataflow.wire.sessions import (
    DEVICE_BYTES_MAX,
    RESERVED_BYTES_MAX,
    SESSIONS_MAX,
    TOKEN_OVERHEAD_BYTES,
)
from dataflow.wire.sockets import FRAMES_MAX
from tests.fuzz.mutate import Mutator
from tests.fuzz.parts import (
    SEGMENT,
    SIZE,
    TOKEN_BYTES,
    Broken,
    Clock,
    Inline,
    Sockets,
    Watched,
    body_of,
    make,
    plan,
)

Frames = list[Any]
DEEP_EVERY = 500
"""Messages between two looks at what is bounded but dear to count."""
STREAM = number_of("cam.0", "edge.0")
OFFER = StreamOffer(STREAM, "cam.0", SEGMENT, 8)


def check(sound: bool, what: str) -> None:
    if not sound:
        raise Broken(what)


class Decoders:
    """Header, control messages, compressed tokens."""

    name = "decoders"

    def __init__(self, seed: int) -> None:
        self._mutate = Mutator(seed)
        self.rejected: Counter[str] = Counter()
        token = np.arange(SIZE, dtype=np.float32)
        self._packs = {n: compression(n) for n in COMPRESSIONS}
        self._frames = [p.run([token])[0] for p in self._packs.values() if p]
        self._controls: list[Control] = [
            Hello("cam.0", 1, 1, (OFFER, OFFER)),
            Welcome("edge.0", 1, 1, True, {STREAM: 8}),
            Refuse(1, "why"),
            Beat(1, True, 0, 0, 0, ("edge.1",), "[]"),
            Bye(1),
            StatusRequest(),
            StatusReply("{}"),
        ]
        self._steps = (self.header, self.control, self.token)

    def step(self) -> None:
        try:
            self._mutate.random.choice(self._steps)()
        except PeerError as error:
            check(len(str(error)) < 500, f"long error: {len(str(error))}")
            self.rejected[error.reason] += 1

    def header(self) -> None:
        header = self._mutate.header(Header(Kind.TOKEN, 1), 0.3)
        data = self._mutate.data(header.pack())
        parsed = Header.parse(data)
        check(Header.parse(parsed.pack()) == parsed, "header changes when packed")

    def control(self) -> None:
        body = body_of(self._mutate.random.choice(self._controls))
        data = self._mutate.packed(
            self._mutate.body(body) if self._mutate.some(0.7) else body
        )
        message = unpack_control(
            self._mutate.data(data) if self._mutate.some(0.5) else data
        )
        check(unpack_control(pack_control(message)) == message, "control changes")

    def token(self) -> None:
        pack = self._packs[self._mutate.random.choice(COMPRESSIONS)]
        assert pack is not None
        frame = self._mutate.data(self._mutate.random.choice(self._frames))
        size = TOKEN_BYTES if self._mutate.some(0.8) else self._mutate.number(17)
        check(len(pack.token(frame, size)) == size, "token of another size")

    def deep(self) -> None:
        pass


class _Peer:
    """One of those who talk to a server."""

    def __init__(self, name: str, key: str, number: int) -> None:
        self.name, self.key = name, key
        self.route = bytes([number]) * 16 + b"C"
        self.session = 0
        self.ordinal = 0


class Server:
    """The serving half of a device, with peers that all have a key."""

    name = "server"

    def __init__(self, seed: int) -> None:
        self._mutate = Mutator(seed)
        self._clock = Clock()
        self._executor = Inline(self._clock)
        self._peers = [_Peer(f"cam.{i}", f"K{i}", i) for i in range(4)]
        self._sockets = Sockets({peer.key: peer.name for peer in self._peers})
        self._events = EventLog(None, "fuzz", {})
        self._host: Host = Host(
            [plan(servers=1, compression="zstd")],
            device="edge.0",
            incarnation=5,
            transport=self._sockets,  # type: ignore[arg-type]
            executor=self._executor,  # type: ignore[arg-type]
            events=self._events,
            make_chain=lambda _, part: (
                make_chain(
                    part.chain,
                    {n: make(part.chain.graph.actors[n]) for n in part.chain.actors},
                ),
                (),
            ),
            status=lambda: {"device": "edge.0"},
            keys=True,
            segments=_no_segments(self._events),
        )
        self._host.repertoire.load()
        self._host.loaded(self._clock())
        packed = compression("zstd")
        assert packed is not None
        # The last is one for which the actor raises.
        tokens = [np.full(SIZE, value, np.float32) for value in (1.0, 2.0, 2e9)]
        tokens[1] += np.arange(SIZE, dtype=np.float32)
        self._plain = [token.tobytes() for token in tokens]
        self._short = [bytes(frame) for frame in packed.run(tokens)]

    @property
    def rejected(self) -> Counter[str]:
        sessions = self._host.sessions
        nacks = Counter({f"nack: {why}": n for why, n in sessions.nacks.items()})
        return sessions.rejected + self._events.rejected + nacks

    def step(self) -> None:
        peer = self._mutate.random.choice(self._peers)
        pick = self._mutate.random.random()
        if pick < 0.55:
            route, frames = data_route(peer.route), self._data(peer)
        elif pick < 0.9:
            route, frames = peer.route, [self._control(peer)]
        else:
            route, frames = self._anything(peer)
        if self._mutate.some(0.02):
            route = self._mutate.data(route)
        self.receive(FromRoute(route, frames, self._key(peer), 9))
        if self._mutate.some(0.4):
            self._executor.step()
        if self._mutate.some(0.3):
            self._clock.now_s += self._mutate.random.expovariate(100.0)
            self._host.tick(self._clock())
        self._sockets.sends = not self._mutate.some(0.05)

    def receive(self, event: FromRoute) -> None:
        """Take one message; it has an effect or is counted."""
        before = self._seen()
        self._host.receive(event, self._clock())
        if self._seen() == before:
            message = unpack_control(event.frames[0])
            check(isinstance(message, Beat), f"unexplained: {message}")

    def deep(self) -> None:
        host, sessions = self._host, self._host.sessions
        everyone = [*sessions.all, *sessions._draining]
        token_bytes = TOKEN_BYTES + TOKEN_OVERHEAD_BYTES
        held: Counter[str] = Counter()
        for session in everyone:
            tokens = sum(offer.window for offer in session.offers.values())
            held[session.device] += tokens * token_bytes
        check(len(sessions) <= SESSIONS_MAX, f"{len(sessions)} sessions")
        check(held.total() <= RESERVED_BYTES_MAX, f"{held} bytes of credit")
        check(max(held.values(), default=0) <= DEVICE_BYTES_MAX, f"{held} of credit")
        for session in everyone:
            for stream, queued in session.queued.items():
                window = session.offers[stream].window
                check(0 <= queued <= window, f"{queued} queued of {window}")
        queued = sum(sum(s.queued.values()) for s in everyone)
        waiting = self._executor.queue
        check(waiting == queued, f"{waiting} tokens wait, sessions know of {queued}")
        check(len(host._allowances) <= PEERS_MAX, "peers remembered")
        check(len(sessions._by_lane) == len(sessions), "lanes without a session")
        check(len(self.rejected) < 40, f"reasons without end: {self.rejected}")

    def _seen(self) -> tuple[int, ...]:
        host = self._host
        return (
            self._sockets.sent,
            self._executor.queue,
            self.rejected.total(),
            len(host.sessions),
        )

    def _key(self, peer: _Peer) -> str:
        return peer.key if not self._mutate.some(0.02) else "K9"

    def _data(self, peer: _Peer) -> Frames:
        kind = (
            Kind.TOKEN
            if self._mutate.some(0.9)
            else self._mutate.random.choice([*Kind])
        )
        header = Header(
            kind, peer.session, STREAM, codec=CODES["zstd"], tensors=1,
            incarnation=1, segment=SEGMENT, frame=peer.ordinal, ordinal=peer.ordinal,
            budget_us=self._mutate.random.choice((0, 1000, 2**32 - 1)),
        )  # fmt: skip
        peer.ordinal += 1
        if self._mutate.some(0.3):
            header = self._mutate.header(header, 0.15)
        frame = self._mutate.random.choice(self._plain + self._short)
        if self._mutate.some(0.2):
            frame = self._mutate.data(frame)
        packed = header.pack()
        if self._mutate.some(0.1):
            packed = self._mutate.data(packed)
        return [packed, *([frame] * self._mutate.random.choice((1, 1, 1, 1, 0, 2)))]

    def _control(self, peer: _Peer) -> bytes:
        message: Control
        match self._mutate.random.randrange(8):
            case 0 | 1:
                peer.session += self._mutate.random.choice((0, 1, 1))
                peer.ordinal = 0
                window = self._mutate.random.choice((1, 8, 8, 64, 4000, 65535))
                offer = StreamOffer(STREAM, peer.name, SEGMENT, window)
                many = self._mutate.random.choice((0, 1, 1, 1, 1, 5))
                message = Hello(peer.name, 1, peer.session, (offer,) * many)
            case 2 | 3 | 4:
                about = self._mutate.random.choice(("", "[]", "[" * 5000, "x"))
                message = Beat(peer.session, True, 0, 0, about=about)
            case 5:
                message = Bye(peer.session)
            case 6:
                message = StatusRequest()
            case _:
                message = Welcome(peer.name, 1, peer.session, True, {})
        if self._mutate.some(0.5):
            return pack_control(message)
        packed = self._mutate.packed(self._mutate.body(body_of(message)))
        return self._mutate.data(packed) if self._mutate.some(0.3) else packed

    def _anything(self, peer: _Peer) -> tuple[bytes, Frames]:
        count = self._mutate.random.choice((0, 1, 2, 3, FRAMES_MAX))
        sizes = (0, 1, 3, HEADER_BYTES, TOKEN_BYTES)
        frames = [
            self._mutate.random.randbytes(self._mutate.random.choice(sizes))
            for _ in range(count)
        ]
        return self._mutate.random.choice((peer.route, data_route(peer.route))), frames


def _no_segments(events: EventLog) -> Segments:
    return Segments([], device="", ask=lambda peer, want: False, events=events)


class Endpoint:
    """The dialling half of a device: links, a stream, its ledger; servers are hostile.

    They know what was sent to them, and answer it rightly, wrongly, twice or never.
    """

    name = "endpoint"

    def __init__(self, seed: int) -> None:
        self._mutate = Mutator(seed)
        self._clock = Clock()
        dataflow.links.clock_s = self._clock  # type: ignore[assignment]
        dataflow.stream.clock_s = self._clock  # type: ignore[assignment]
        dataflow.attempts.clock_s = self._clock  # type: ignore[assignment]
        self._events = EventLog(None, "fuzz", {})
        self._sockets = Sockets({})
        self._sockets.told = self._was_sent
        made = plan(servers=2, deadline_ms=200.0)
        (part,) = stream_parts(made.graph, "cam.0")
        streams: list[Stream] = []
        self._links = Links(
            addresses_of([made], ["edge.0", "edge.1"]),
            device="cam.0",
            deployment="toy",
            incarnation=7,
            offers=offers_of([part]),
            streams=streams,
            transport=self._sockets,  # type: ignore[arg-type]
            events=self._events,
            segments=_no_segments(self._events),
            host=None,
        )
        for link in self._links.by_peer.values():
            link._dial_at_s = self._clock()  # it was made by another clock
        actors = {n: a for n, a in made.graph.actors.items() if a.device == "cam.0"}
        plays = {
            n: make(a) for n, a in actors.items() if a.type in _PLAYED or ":" in a.type
        }
        self._stream = Stream(
            part,
            behaviours=plays,
            links=self._links.by_peer,
            incarnation=7,
            executor=Inline(self._clock),  # type: ignore[arg-type]
            outbox=self._links,
            events=self._events,
        )
        streams.append(self._stream)
        (self._sink,) = (b for b in plays.values() if isinstance(b, Watched))
        self._window = part.region.window
        self._asked: dict[str, list[tuple[str, Any]]] = {"edge.0": [], "edge.1": []}
        self._stream.start(self._clock())

    @property
    def rejected(self) -> Counter[str]:
        found = Counter(self._events.rejected)
        found["answer: late"] += self._stream._ledger.late_answers
        return found

    def step(self) -> None:
        peer = self._mutate.random.choice(("edge.0", "edge.1"))
        event = self._event(peer)
        self._links.receive(event, self._clock())
        # Who is to be dialled later is not waited for message by message.
        away = not any(self._asked.values())
        if away or self._mutate.some(0.2):
            rate_hz = 10.0 if away else 300.0
            self._clock.now_s += self._mutate.random.expovariate(rate_hz)
        if self._mutate.some(0.5):
            self._stream.tick(self._clock())
            self._links.tick(self._clock())
        self._sockets.sends = not self._mutate.some(0.02)
        if self._mutate.some(0.0005):
            self._links.renew()

    def deep(self) -> None:
        stream, ledger = self._stream, self._stream._ledger
        settled = sum(stream.outcomes.counts.values())
        check(
            settled == ledger.settled == self._sink.next, "outcomes and settled differ"
        )
        waiting = [i for i in ledger._open if i.verdict is None]
        check(len(waiting) <= self._window, f"{len(waiting)} frames under way")
        check(len(stream._retained) == len(ledger._open), "tokens kept for nothing")
        # Fired at 200 Hz, settled in order, each after 200 ms at most.
        check(len(ledger._open) < 200, f"{len(ledger._open)} frames open")
        for iteration in waiting:
            age_s = self._clock() - iteration.fired_s
            check(age_s < 5.0, f"frame {iteration.number} is {age_s:.1f} s old")
        for link in self._links.by_peer.values():
            check(len(link._limits) <= STREAMS_MAX + 1, "limits")
            check(len(link._ordinals) <= 1, "ordinals")
        check(len(self.rejected) < 40, f"reasons without end: {self.rejected}")

    def _was_sent(self, peer: str, lane: str, frames: Sequence[Any]) -> None:
        asked = self._asked[peer]
        if lane in ("dial", "hang up"):
            asked.clear()
        if lane == "dial":
            asked += [("open", "control"), ("open", "data")]
        elif lane == "control":
            asked.append(("control", unpack_control(bytes(frames[0]))))
        elif lane == "data":
            asked.append(("data", Header.parse(bytes(frames[0]))))
        del asked[:-50]

    def _event(self, peer: str) -> Any:
        asked = self._asked[peer]
        pick = self._mutate.random.random()
        if pick < 0.002:
            lane = self._mutate.random.choice(("control", "data"))
            return LaneLost(peer, lane)  # type: ignore[arg-type]
        if pick < 0.003:
            return HandshakeFailed(peer, "key")
        if pick < 0.5 and asked:
            index = self._mutate.random.randrange(len(asked))
            kind, what = asked[index]
            if kind == "open" or self._mutate.some(0.8):
                del asked[index]
            if kind == "open":
                return LaneOpened(peer, what)
            frames = self._answer(what) if kind == "data" else self._reply(peer, what)
            lane = "data" if kind == "data" else "control"
            return FromPeer(peer, lane, frames)  # type: ignore[arg-type]
        session = self._links.by_peer[peer].session
        if pick < 0.75:
            return FromPeer(peer, "control", [self._control(session)])
        if pick < 0.995:
            header = Header(
                self._mutate.random.choice([*Kind]), session, STREAM, incarnation=7,
                frame=max(0, self._sink.next + self._mutate.random.randrange(-3, 10)),
                attempt=self._mutate.random.randrange(3), limit=self._mutate.number(64),
            )  # fmt: skip
            return FromPeer(peer, "data", self._mutated(header))
        size = self._mutate.random.choice((0, 1, 3, HEADER_BYTES, 300))
        lane = self._mutate.random.choice(("control", "data"))
        return FromPeer(peer, lane, [self._mutate.random.randbytes(size)])  # type: ignore[arg-type]

    def _reply(self, peer: str, what: Control) -> Frames:
        """Return what a server says to a greeting; to anything else a beat."""
        session = self._links.by_peer[peer].session
        if isinstance(what, Hello) and self._mutate.some(0.9):
            ready = self._mutate.some(0.9)
            return [pack_control(Welcome(peer, 5, session, ready, {STREAM: 8}))]
        return [self._control(session)]

    def _answer(self, asked: Header) -> Frames:
        kind = Kind.PROBED if asked.kind is Kind.PROBE else Kind.ANSWER
        if kind is Kind.ANSWER and self._mutate.some(0.15):
            kind = Kind.NACK
        answer = asked._replace(
            kind=kind, limit=asked.ordinal + 9, flags=self._mutate.random.randrange(6)
        )
        return self._mutated(answer) if self._mutate.some(0.3) else self._whole(answer)

    def _whole(self, header: Header) -> Frames:
        frames = [bytes(TOKEN_BYTES)] if header.kind is Kind.ANSWER else []
        return [header.pack(), *frames]

    def _mutated(self, header: Header) -> Frames:
        head, *frames = self._whole(self._mutate.header(header, 0.1))
        if self._mutate.some(0.2):
            head = self._mutate.data(head)
        if self._mutate.some(0.2):
            frames = [self._mutate.random.randbytes(n) for n in (0, TOKEN_BYTES)]
        return [head, *frames]

    def _control(self, session: int) -> bytes:
        random = self._mutate.random
        message: Control
        match random.randrange(12):
            case 0 if self._mutate.some(0.2):
                message = Bye(session)
            case 1 if self._mutate.some(0.1):
                message = Refuse(session, "no")
            case 2:
                message = Welcome("edge.0", 5, session, self._mutate.some(0.5), {})
            case 3:
                message = StatusReply("{}")
            case _:
                age_ms = 5000 if self._mutate.some(0.01) else random.choice((0, 5))
                usual_ms = random.choice((0, 1, 5))
                message = Beat(session, True, random.choice((0, 3)), age_ms, usual_ms)
        if self._mutate.some(0.7):
            return pack_control(message)
        packed = self._mutate.packed(self._mutate.body(body_of(message)))
        # Seldom: another version ends the session, and little can happen after that.
        return self._mutate.data(packed) if self._mutate.some(0.05) else packed


_PLAYED = ("results",)
TARGETS: dict[str, Callable[[int], Any]] = {
    target.name: target for target in (Decoders, Server, Endpoint)
}
