"""One plan as a device plays it: its links, its streams, the actors of those.

A device plays one plan, and, while another one follows it, two: each with links of its
own, so that a server that lacks the new plan is no worse for the old one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataflow.behaviour import Behaviour, Sink
from dataflow.branches import offers_of
from dataflow.cast import Cast
from dataflow.device_keys import check_public_keys
from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.host import Host
from dataflow.links import Links
from dataflow.parts import StreamPart, stream_parts
from dataflow.plan import Plan
from dataflow.plans import addresses_of, largest_frame_bytes
from dataflow.segments import Segments
from dataflow.stream import Stream
from dataflow.wire.keys import KeyFolder
from dataflow.wire.transport import Transport


@dataclass(frozen=True, slots=True)
class Stage:
    """What a play finds on its device."""

    device: str
    incarnation: int
    transport: Transport
    executor: Executor
    events: EventLog
    segments: Segments
    cast: Cast
    keys: KeyFolder | None


class Play:
    """A plan that is played, or about to be.

    Args:
        plan: What is played.
        stage: Of the device.
        number: Plans that were prepared here before.
        also: Further plans of a server, whose tokens it passes on.
        host: What passes them on; None: nothing does.

    Attributes:
        links: To all servers of the plan; they dial at once.
        streams: Made by `make`.

    Raises:
        UnderstudyError: There is no public key of a server.
    """

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        *,
        number: int = 0,
        also: Sequence[Plan] = (),
        host: Host | None = None,
    ) -> None:
        self.plan = plan
        self.streams: list[Stream] = []
        self._stage = stage
        self._parts = stream_parts(plan.graph, stage.device)
        self._actors: dict[str, Behaviour] = {}
        offers = offers_of(self._parts)
        if host is not None:
            for peer, asked in host.relay.offers.items():
                offers.setdefault(peer, []).extend(asked)
        check_public_keys(stage.keys, offers)
        stage.transport.allow(largest_frame_bytes([plan]))
        self.links = Links(
            addresses_of((plan, *also), offers),
            device=stage.device,
            deployment=plan.name,
            incarnation=stage.incarnation,
            offers=offers,
            streams=self.streams,
            transport=stage.transport,
            events=stage.events,
            segments=stage.segments,
            host=host,
            play=number,
        )

    def make(self, before: "Play | None" = None) -> list[Stream]:
        """Make the streams; may run beside the I/O loop.

        Args:
            before: The play whose sources and sinks they are to take over.

        Raises:
            UnderstudyError: An actor cannot be made.
        """
        older = {} if before is None else {s.name: s for s in before.streams}
        kept = {} if before is None else before._actors
        return [
            self._stream(part, older.get(part.region.stream), kept)
            for part in self._parts
        ]

    @property
    def answerable(self) -> bool:
        """Each stream has a branch that could answer now."""
        return all(any(b.ready for b in s.branches) for s in self.streams)

    @property
    def awaited(self) -> list[str]:
        """Servers that are not ready, also those that stand behind others."""
        behind = (peer for s in self.streams for peer in s.attempts.awaited)
        return [*self.links.awaited, *dict.fromkeys(behind)]

    @property
    def refused(self) -> str:
        """What the first server that refuses us says; empty: none does."""
        whys = (link.refused for link in self.links.by_peer.values())
        return next(filter(None, whys), "")

    @property
    def playable(self) -> bool:
        """Each stream has a branch that is ready, and as good as its best one is."""
        return all(map(_playable, self.streams))

    @property
    def drained(self) -> bool:
        """Other streams have taken over, and nothing is under way any more."""
        return all(stream.drained for stream in self.streams)

    def close(self, after: "Play | None" = None) -> None:
        """Hang up, and dismiss all actors but those that play on in `after`."""
        self.links.close()
        for stream in self.streams:
            for chain in stream.chains:
                self._stage.executor.forget(chain)
        on = () if after is None else after._actors.values()
        staying = set(map(id, on))
        gone = [a for a in self._actors.values() if id(a) not in staying]
        self._stage.cast.dismiss(gone)

    def _stream(
        self,
        part: StreamPart,
        after: Stream | None,
        actors: Mapping[str, Behaviour],
    ) -> Stream:
        stage, kept = self._stage, {}
        if after is not None:
            names = (part.source, *part.suffix.actors)
            kept = {name: actors[name] for name in names}
            sink = self.plan.graph.actors[part.region.sink]
            played = actors[sink.name]
            if not isinstance(played, Sink) or not played.may_become(sink.params):
                raise UnderstudyError(
                    f"stream '{part.region.stream}': its sink '{sink.name}' has other "
                    "parameters; a plan that follows hands results to the same sink, "
                    "so restart the device for this one"
                )
        behaviours = stage.cast.of_stream(self.plan, part, kept)
        self._actors |= behaviours
        return Stream(
            part,
            behaviours=behaviours,
            links=self.links.by_peer,
            incarnation=stage.incarnation,
            executor=stage.executor,
            outbox=self.links,
            events=stage.events,
            after=after,
        )


def _playable(stream: Stream) -> bool:
    there = {branch.part.branch.quality for branch in stream.branches}
    ready = {b.part.branch.quality for b in stream.branches if b.ready}
    return ("full" if "full" in there else "degraded") in ready
