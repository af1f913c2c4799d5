"""The dialling half of a device: its links, and what follows from what they decide.

`wire.link` decides; here its actions are carried out: sockets are opened and closed,
streams told that a peer is there, suspect or dead. The serving half is `host`.
"""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dataflow.clock import now_s as clock_s
from dataflow.errors import PeerError
from dataflow.events import EventLog
from dataflow.host import Host
from dataflow.meters import LinkMeter
from dataflow.segments import Peer, Segments
from dataflow.stream import Stream
from dataflow.wire.control import (
    Piece,
    StreamOffer,
    Want,
    control_version,
    pack_control,
    unpack_control,
)
from dataflow.wire.happenings import (
    FromPeer,
    HandshakeFailed,
    LaneLost,
    LaneOpened,
    explain,
)
from dataflow.wire.header import HEADER_BYTES, VERSION, Header, Kind
from dataflow.wire.link import Link
from dataflow.wire.link_states import (
    Action,
    Close,
    Dead,
    Dial,
    Measured,
    Probe,
    Rated,
    Refused,
    Send,
    State,
    Suspect,
    Up,
)
from dataflow.wire.rate import LinkRate
from dataflow.wire.transport import LINE_MARK, Transport

# A member costs 0.1 us to look up in Python 3.11.
_PROBED, _ANSWER, _NACK = Kind.PROBED, Kind.ANSWER, Kind.NACK

ABOUT_CHARS_MAX = 4096
ABOUT_S = 0.5
"""How old it may be what servers are told of our streams, to be shown."""
RENEW_S = 5.0
"""How long the next session waits for one that was replaced and does not come back."""
LOOK_AGAIN_S = 0.02


class Links:
    """All links that a device dials.

    Args:
        addresses: Where the peers listen.
        device: Our name.
        deployment: Of which we are a device.
        offers: What each peer that we dial is asked to serve; the first dials are due
            at once.
        streams: Ours; the list may be filled after this is made.
        host: What passes tokens of others on.
        play: Plans that this device played before: each has links of its own.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        *,
        device: str,
        deployment: str,
        incarnation: int,
        offers: Mapping[str, Sequence[StreamOffer]],
        streams: Sequence[Stream],
        transport: Transport,
        events: EventLog,
        segments: Segments,
        host: Host | None,
        play: int = 0,
    ) -> None:
        self._host = host
        self._segments = segments
        self._addresses = addresses
        self._streams = streams
        self._transport = transport
        self._events = events
        now_s = clock_s()
        self.by_peer: Mapping[str, Link] = {
            peer: Link(
                peer,
                device=device,
                incarnation=incarnation,
                offers=tuple(offers[peer]),
                now_s=now_s,
                deployment=deployment,
                play=play,
            )
            for peer in sorted(offers)
        }
        self._mark = f"{LINE_MARK}{play}" if play else ""
        self.by_line = {self._line(link): link for link in self.by_peer.values()}
        """By the name under which the transport knows their sockets."""
        self._device = device
        self._to_renew: deque[Link] = deque()
        self._renewed: Link | None = None
        self._said, self._about_again_s = "", now_s
        self._renew_at_s = 0.0
        self.meters = {peer: LinkMeter() for peer in self.by_peer}

    @property
    def refused(self) -> bool:
        """Some peer does not take us, until somebody changes something."""
        return any(link.refused for link in self.by_peer.values())

    @property
    def absent(self) -> list[str]:
        """Peers at whose address there is nobody."""
        return [peer for peer, link in self.by_peer.items() if link.absent]

    @property
    def awaited(self) -> list[str]:
        """Peers that are not ready, and may yet become it."""
        return [
            peer
            for peer, link in self.by_peer.items()
            if not link.ready and not link.refused
        ]

    @property
    def peers(self) -> list[Peer]:
        """Whom we dialled and may ask for segments."""
        links = self.by_peer.values()
        return [self._peer(link) for link in links if link.greeted]

    def renew(self) -> None:
        """Our own key is another: replace the sessions, one link after the other.

        The others serve meanwhile. Connections with the old key would end all at once
        when it is retired.
        """
        self._to_renew = deque(self.by_peer.values())

    def tick(self, now_s: float) -> float:
        """Time passed; return when there is something to do next."""
        next_s = self._renew_next(now_s) if self._to_renew else _NEVER_S
        for link in self.by_peer.values():
            suspect = not link.ready and link.state is State.SUSPECT
            due_s = link.due_s()
            if suspect or now_s >= due_s:
                wanted = suspect and any(s.wants(link) for s in self._streams)
                self._do(link, link.tick(now_s, wanted=wanted, about=self._about))
                due_s = link.due_s()
            next_s = min(next_s, due_s)
        return next_s

    def receive(
        self,
        event: LaneOpened | LaneLost | HandshakeFailed | FromPeer,
        now_s: float,
    ) -> None:
        """Something happened on a lane that we dialled."""
        link = self.by_line[event.peer]
        if type(event) is FromPeer:  # first: it is so for every frame
            self._message(link, event, now_s)
            return
        match event:
            case LaneOpened(_, lane):
                self._do(link, link.lane_open(lane, now_s))
            case LaneLost(_, lane):
                self._do(link, link.lane_lost(lane, now_s))
            case HandshakeFailed(_, why):
                text = (
                    f"device '{link.peer}' at {self._address(link)}: refuses the "
                    f"handshake of '{self._device}': "
                    + explain(why, device=self._device, peer=link.peer)
                )
                self._do(link, link.handshake_failed(text, now_s))

    def _renew_next(self, now_s: float) -> float:
        """Replace the next session when the last is back; return when to look again."""
        back = self._renewed is None or self._renewed.ready
        if back or now_s >= self._renew_at_s:
            self._renewed = link = self._to_renew.popleft()
            self._renew_at_s = now_s + RENEW_S
            self._do(link, link.renew("our own key is a new one", now_s))
        return now_s + LOOK_AGAIN_S

    def send_token(self, link: Link, header: Header, frames: Sequence[Any]) -> bool:
        """Send a token on the data lane of `link`; a failure is evidence."""
        sent = self._transport.send(self._line(link), "data", [header.pack(), *frames])
        if sent:
            size = HEADER_BYTES + header.payload_bytes
            self.meters[link.peer].sent_bytes += size
            link.sent(header, clock_s())
        else:
            self._do(link, link.blocked(clock_s()))
        return sent

    def overdue(self, link: Link, text: str, now_s: float) -> None:
        """Tell `link` that an attempt there is older than a slow model explains."""
        self._do(link, link.overdue(text, now_s))

    def bye(self) -> None:
        for link in self.by_peer.values():
            self._do(link, link.bye())

    def close(self) -> None:
        """Say goodbye and hang up: another plan is played from now on."""
        self.bye()
        for line in self.by_line:
            self._transport.hang_up(line, linger=True)

    def describe(self) -> dict[str, Any]:
        """Return what `understudy status` shows of the links."""
        return {
            peer: {
                "state": link.state.value,
                "session": link.session,
                "refused": link.refused,
                "heartbeat_ms": link.heartbeat.timeout_ms,
                "rate": None if link.rate is None else asdict(link.rate),
            }
            for peer, link in self.by_peer.items()
        }

    def _message(self, link: Link, event: FromPeer, now_s: float) -> None:
        _, lane, frames = event
        try:
            if not frames:
                raise PeerError("message of more frames than any has", "frames")
            if lane == "data":
                self._data(link, frames, now_s)
            else:
                self._control(link, frames[0], now_s)
        except PeerError as error:
            self._events.reject(error, link.peer)

    def _data(self, link: Link, frames: list[bytes], now_s: float) -> None:
        self.meters[link.peer].received_bytes += sum(map(len, frames))
        header = Header.parse(frames.pop(0))
        kind = header.kind
        if header.session != link.session:
            self._events.rejected["session"] += 1
        elif kind is _PROBED:
            self._do(link, link.probed(header.session, now_s))
        elif kind is _ANSWER or kind is _NACK:
            self._answer(link, header, frames, now_s)
            # What it tells of the link comes last: the sink waits for the answer.
            if actions := link.answered(header, now_s):
                self._do(link, actions)
        else:
            self._events.rejected["kind"] += 1

    def _answer(
        self, link: Link, header: Header, frames: list[bytes], now_s: float
    ) -> None:
        for stream in self._streams:
            if stream.attempts.owns(header.stream):
                stream.attempts.answer(link, header, frames, now_s)
                return
        if self._host is not None and self._host.returned(link, header, frames):
            return
        self._events.rejected["stream"] += 1

    def _control(self, link: Link, frame: bytes, now_s: float) -> None:
        version = control_version(frame)
        if version != VERSION:
            why = (
                f"device '{link.peer}' at {self._address(link)}: speaks protocol "
                f"version {version}, this device version {VERSION}; install the same "
                "understudy on both"
            )
            self._do(link, link.misunderstood(why, now_s))
            return
        message = unpack_control(frame)
        match message:
            case Want():
                piece = self._segments.give(message)
                self._transport.send(self._line(link), "control", [pack_control(piece)])
            case Piece():
                peer = self._peer(link)
                self._segments.take(peer, message, now_s)
            case _:
                before = link.unreachable
                self._do(link, link.control(message, now_s))
                if link.unreachable != before:
                    self._ways_changed(link, before)

    def _ways_changed(self, link: Link, before: frozenset[str] | None) -> None:
        """The peer of `link` reaches more servers than before, or fewer."""
        lost = sorted(link.unreachable or ())
        if before or lost:
            self._events.write("link.ways", peer=link.peer, lost=lost)
        if self._host is not None:
            self._host.ways_changed()

    def _do(self, link: Link, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Dial(_, heartbeat):
                    line, address = self._line(link), self._address(link)
                    self._transport.dial(line, address, heartbeat)
                case Close():
                    self._transport.hang_up(self._line(link))
                case Send(message):
                    frame = pack_control(message)
                    self._transport.send(self._line(link), "control", [frame])
                case Probe(session, _, size):
                    probe = Header(kind=Kind.PROBE, session=session).pack()
                    frames = [probe, bytes(size)] if size else [probe]
                    self._transport.send(self._line(link), "data", frames)
                case Up(session, away_s):
                    self._up(link, session, away_s)
                case Suspect():
                    self._failover(link, action)
                case Dead(session):
                    self._dead(link, session)
                case Refused(why):
                    self._events.write("link.refused", peer=link.peer, error=why)
                case Rated(rate):
                    self._rated(link, rate)
                case Measured(offset):
                    self._events.write(
                        "link.clock",
                        peer=link.peer,
                        offset_s=offset.offset_s,
                        error_s=offset.error_s,
                    )

    def _rated(self, link: Link, rate: LinkRate) -> None:
        """A link's rate is known: bound what is in flight, unless it is a fast one."""
        self._transport.bound(self._line(link), rate.flight_bytes)
        self._events.write(
            "link.rate",
            peer=link.peer,
            bytes_s=rate.bytes_s,
            rtt_s=rate.rtt_s,
            heartbeat_ms=link.heartbeat.timeout_ms,
        )

    def _up(self, link: Link, session: int, away_s: float | None) -> None:
        if away_s is None:
            self._events.write("link.up", peer=link.peer, session=session)
        else:
            self._events.write(
                "link.back", peer=link.peer, session=session, away_ms=away_s * 1e3
            )
        for stream in self._streams:
            stream.reachable(link, clock_s())
        if self._host is not None:
            self._host.ways_changed()

    def _failover(self, link: Link, suspect: Suspect) -> None:
        """Start the next branch for whatever is outstanding at the peer of `link`."""
        detected_s = clock_s()
        self.meters[link.peer].failovers[suspect.evidence] += 1
        # All decide before any acts: acting may raise, and loses no decision then.
        hits = {s.name: s.lost(link, detected_s, final=False) for s in self._streams}
        decided_s = clock_s()
        for stream in self._streams:
            stream.act(decided_s)
        if self._host is not None:
            self._host.lost(link)
        switched_s = clock_s()
        self._events.write(
            "link.suspect",
            t_s=detected_s,
            peer=link.peer,
            session=suspect.session,
            evidence=suspect.evidence,
            text=suspect.text,
        )
        self._events.write(
            "failover",
            peer=link.peer,
            evidence=suspect.evidence,
            frames=hits,
            detected_s=detected_s,
            decided_s=decided_s,
            switched_s=switched_s,
        )

    def _dead(self, link: Link, session: int) -> None:
        now_s = clock_s()
        for stream in self._streams:
            stream.lost(link, now_s, final=True)
        for stream in self._streams:
            stream.act(now_s)
        self._events.write("link.dead", peer=link.peer, session=session)

    def _line(self, link: Link) -> str:
        return link.peer + self._mark

    def _peer(self, link: Link) -> Peer:
        return Peer(link.peer, link.session, line=self._line(link))

    def _address(self, link: Link) -> str:
        return self._addresses[link.peer]

    def _about(self) -> str:
        """Return what the servers are told of our streams, for `understudy status`."""
        now_s = clock_s()
        if now_s >= self._about_again_s:  # it is in every beat on every link
            self._about_again_s = now_s + ABOUT_S
            text = json.dumps([stream.describe() for stream in self._streams])
            self._said = text if len(text) <= ABOUT_CHARS_MAX else ""
        return self._said


_NEVER_S = float("inf")
