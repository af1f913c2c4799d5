"""A device: one process that hosts actors, with its links, streams and I/O loop.

The I/O loop is one thread that owns every socket. It receives, lets the state machines
decide, runs short chains inline and sends. A device with sources is an endpoint; a
device that listens is a server; nothing forbids one to be both.
"""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.branches import offers_of
from dataflow.cast import Cast, Library
from dataflow.clock import now_s as clock_s
from dataflow.cores import cores_text, hold_to
from dataflow.device_keys import KeyWatch, check_public_keys, keys_of
from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.host import Host
from dataflow.links import Links
from dataflow.loading import LOOK_S, Loading
from dataflow.parts import StreamPart, stream_parts
from dataflow.plan import Plan
from dataflow.plans import addresses_of
from dataflow.segments import Peer, Segments
from dataflow.signals import Signals
from dataflow.stream import Stream
from dataflow.wire.control import CONTROL_BYTES_MAX, Want, pack_control
from dataflow.wire.happenings import FromRoute, Happening, Woken
from dataflow.wire.header import VERSION
from dataflow.wire.transport import Transport

if TYPE_CHECKING:
    from dataflow.metrics import Sample

SWITCH_INTERVAL_S = 0.0002
"""How long another thread may keep the I/O loop waiting for the interpreter. At the
default of 5 ms a compute thread makes a round trip take 5.7-22 ms."""
LOOK_UP_S = 0.5
"""How long the I/O loop sleeps at most."""
GREETING_S = 5.0
"""How long sources wait for the servers at the start, so that none misses a frame."""
FAREWELL_S = 0.15
"""How long a stopping server still answers what it has."""
_NEVER_S = float("inf")


@dataclass(frozen=True, slots=True)
class Options:
    """How one device is run.

    Attributes:
        run_folder: Where results and events are written; None: nowhere.
        insecure: Listen beyond loopback without keys.
        seconds: End the sources after this long; None: when they end themselves.
        stdin: End when standard input does: with the process that started us.
        metrics: Where its metrics are served, if they are: said in the log.
    """

    run_folder: Path | None = None
    insecure: bool = False
    seconds: float | None = None
    stdin: bool = False
    metrics: str = ""


class Device:
    """One device of a plan, in this process.

    Args:
        plan: The compiled deployment.
        name: Which of its devices to be.
        library: Gives the actors' behaviours.
        also: Further plans that it serves at the same time, see
            `dataflow.plans.check_together`.
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        *,
        library: Library,
        options: Options,
        also: Sequence[Plan] = (),
    ) -> None:
        self._plan = plan
        self._plans = (plan, *also)
        self._spec = plan.device(name)
        self._options = options
        self._incarnation = int.from_bytes(os.urandom(8), "little")
        self._cast = Cast(
            name,
            incarnation=self._incarnation,
            library=library,
            run_folder=options.run_folder,
        )
        self._streams: list[Stream] = []
        self._host: Host | None = None
        self._loading: Loading | None = None
        self._due_s = 0.0
        """When somebody has something to do next."""
        self._stop_s: float | None = None
        self._greeting_until_s = 0.0
        self._complete = False
        """Every segment is here, and every actor is made or being made."""
        self._begun = False
        self._loaded = False
        self._state = "loading"

    def run(self) -> int:
        """Run until the sources end or somebody stops us; return the exit status.

        Raises:
            UnderstudyError: It could not start, or an actor failed; what was under way
                is accounted for.
        """
        self._hold()
        self._keys = keys_of(self._plan, self._spec, insecure=self._options.insecure)
        keys = self._keys.keys if self._keys is not None else None
        self._executor = Executor()
        self._signals = Signals(self._spec.name, self._executor.wake_fd)
        self._transport = Transport(keys, message_bytes_max=_largest(self._plans))
        try:
            listen = self._spec.listen
            address = "" if listen is None else self._transport.listen(listen)
            self._open_log()
            self._key_watch = KeyWatch(
                self._keys, transport=self._transport, events=self._events
            )
            if address:
                self._events.write("device.listening", address=address)
            return self._run()
        finally:
            self._transport.close()

    def _run(self) -> int:
        self._signals.catch()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        try:
            self._load()
            while not self._finished(clock_s()):
                self._turn()
            self._links.bye()
            self._events.write("device.stopped")
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            with ExitStack() as cleaning:  # one that raises must not keep the others
                cleaning.callback(self._events.close)
                cleaning.callback(self._signals.restore)
                cleaning.callback(self._cast.stop)
                cleaning.callback(self._executor.close)
        return 1 if self._links.refused else 0

    def _turn(self) -> None:
        """Wait for the next thing to happen, and let everybody act on it."""
        timeout_s = min(self._due_s, self._executor.due_s) - clock_s()
        for event in self._transport.poll(timeout_s):
            self._receive(event, clock_s())
        if caught := self._signals.take():
            self._stop(caught)
        self._executor.step()
        now_s = clock_s()
        self._check_loading(now_s)
        self._check_beginning(now_s)
        get_s = self._get_segments(now_s)
        self._key_watch.tick(self._links, now_s)
        due_s = now_s + (LOOK_UP_S if self._loading is None else LOOK_S)
        if self._stop_s is not None:
            due_s = min(due_s, self._stop_s)
        if self._host is not None:
            due_s = min(due_s, self._host.tick(now_s))
        for stream in self._streams:
            due_s = min(due_s, stream.tick(clock_s()))
        due_s = min(due_s, get_s)
        # Last: what could not be sent above is known to its link by now.
        self._due_s = min(due_s, self._links.tick(clock_s()))

    def _finished(self, now_s: float) -> bool:
        if self._stop_s is not None and now_s >= self._stop_s:
            for stream in self._streams:
                stream.end()
            if not self._streams:
                return True
        for stream in self._streams:
            if not stream.ended:
                return False
        return bool(self._streams)

    def _open_log(self) -> None:
        self._events = EventLog(
            self._options.run_folder,
            f"{self._spec.name}-{self._incarnation:016x}",
            {
                "device": self._spec.name,
                "incarnation": f"{self._incarnation:016x}",
                "deployment": ", ".join(plan.name for plan in self._plans),
                "plan": ", ".join(plan.digest for plan in self._plans),
                "pid": os.getpid(),
                "version": VERSION,
            },
        )

    def _load(self) -> None:
        start_s = clock_s()
        self._events.write("device.loading")
        if self._options.metrics:
            self._events.write("device.metrics", url=self._options.metrics)
        self._transport.watch(self._executor.wake_fd)
        if self._options.stdin:
            self._transport.watch(0)
        self._segments = Segments(
            self._plans, device=self._spec.name, ask=self._ask, events=self._events
        )
        if self._spec.listen is not None:
            self._host = Host(
                self._plans,
                device=self._spec.name,
                incarnation=self._incarnation,
                transport=self._transport,
                executor=self._executor,
                events=self._events,
                make_chain=self._cast.chain_of,
                status=self._status,
                keys=self._keys is not None,
                segments=self._segments,
            )
        self._parts = stream_parts(self._plan.graph, self._spec.name)
        offers = offers_of(self._parts)
        if self._host is not None:
            for peer, asked in self._host.relay.offers.items():
                offers.setdefault(peer, []).extend(asked)
        check_public_keys(self._keys, offers)
        self._links = Links(
            addresses_of(self._plans, offers),
            device=self._spec.name,
            deployment=self._plan.name,
            incarnation=self._incarnation,
            offers=offers,
            streams=self._streams,
            transport=self._transport,
            events=self._events,
            segments=self._segments,
            host=self._host,
        )
        if self._host is not None:
            self._host.connect(self._links)
        self._load_start_s = start_s
        if not self._segments.missing:
            self._make_all()

    def _make_all(self) -> None:
        """Make all actors, once every segment is here."""
        self._complete = True
        if self._host is not None:
            self._loading = Loading(self._host.load)
        self._streams += [self._make_stream(part) for part in self._parts]
        gc.collect()
        gc.freeze()
        if self._host is None:
            self._is_ready(self._load_start_s)
        self._loaded = True
        self._greeting_until_s = clock_s() + GREETING_S

    def _get_segments(self, now_s: float) -> float:
        """Ask for what is missing; return when there is more to do."""
        if self._complete:
            return _NEVER_S
        peers = [*self._links.peers, *(self._host.peers if self._host else ())]
        due_s = self._segments.tick(peers, now_s)
        if not self._segments.missing:
            self._make_all()
        return due_s

    def _ask(self, peer: Peer, want: Want) -> bool:
        frames = [pack_control(want)]
        if peer.route:
            return self._transport.reply(peer.route, frames)
        return self._transport.send(peer.name, "control", frames)

    def _check_loading(self, now_s: float) -> None:
        if self._loading is None or not self._loading.done():
            return
        self._loading = None
        assert self._host is not None
        self._host.loaded(now_s)
        self._is_ready(self._load_start_s)

    def _is_ready(self, start_s: float) -> None:
        self._state = "ready"
        self._events.write(
            "device.ready",
            load_ms=(clock_s() - start_s) * 1e3,
            compute_thread=self._executor.uses_thread,
        )

    def _make_stream(self, part: StreamPart) -> Stream:
        return Stream(
            part,
            behaviours=self._cast.of_stream(self._plan, part),
            links=self._links.by_peer,
            incarnation=self._incarnation,
            executor=self._executor,
            outbox=self._links,
            events=self._events,
        )

    def _check_beginning(self, now_s: float) -> None:
        """Start the sources when every server is there, or has had its chance."""
        if self._begun or not self._streams:
            return
        waiting = self._links.awaited
        waiting += dict.fromkeys(p for s in self._streams for p in s.attempts.awaited)
        if waiting and now_s < self._greeting_until_s:
            return
        if waiting:
            self._events.write("link.awaited", peers=waiting)
        self._begun = True
        for stream in self._streams:
            stream.start(now_s)
        if self._options.seconds is not None and self._stop_s is None:
            self._stop_s = now_s + self._options.seconds

    def _receive(self, event: Happening, now_s: float) -> None:
        match event:
            case FromRoute():
                if self._host is not None:
                    self._host.receive(event, now_s)
            case Woken(fd) if fd == self._executor.wake_fd:
                self._executor.collect()
            case Woken(fd):
                self._transport.unwatch(fd)
                self._stop("end of standard input")
            case _:
                self._links.receive(event, now_s)

    def _stop(self, why: str) -> None:
        if self._stop_s is not None and self._state == "stopping":
            return
        self._state = "stopping"
        self._events.write("device.stopping", why=why)
        now_s = clock_s()
        if self._host is not None:
            self._host.bye(now_s)
        self._stop_s = now_s if self._streams else now_s + FAREWELL_S
        self._begun = True

    def _fail(self, error: BaseException) -> None:
        self._state = "failed"
        self._events.write("device.failed", error=str(error) or repr(error))
        for stream in self._streams:
            try:
                stream.abort(clock_s())
            except Exception as second:  # the other streams are still to be ended
                self._events.write("device.failed", error=str(second) or repr(second))

    def _hold(self) -> None:
        """Run on the cores that the deployment gives us."""
        try:
            hold_to(self._spec.cores)
        except UnderstudyError as error:
            raise UnderstudyError(f"device '{self._spec.name}': {error}") from None

    def _status(self) -> dict[str, Any]:
        return {
            "device": self._spec.name,
            "role": self._spec.role,
            "state": self._state,
            "plans": {plan.name: plan.digest for plan in self._plans},
            "pid": os.getpid(),
            "threads": self._spec.threads,
            "cores": cores_text(os.sched_getaffinity(0)),
            "providers": self._spec.providers,
            "missing": self._segments.missing,
            "streams": [stream.describe() for stream in self._streams],
            "links": self._links.describe(),
            "rejected": dict(self._rejected()),
            **({} if self._host is None else self._host.describe()),
        }

    def samples(self) -> "Iterator[Sample]":
        """Yield what `metrics.METRICS` names, as it is now; from any thread.

        Until everything is made it is little more than who we are.
        """
        from dataflow import metrics  # most devices are never asked

        yield from metrics.of_device(self._spec, self._plan, self._state)
        if not self._loaded:
            return
        yield from metrics.of_loop(
            self._executor.queue, self._events.lost, self._rejected()
        )
        for stream in self._streams:
            yield from metrics.of_stream(stream)
        yield from metrics.of_links(self._links)
        if self._host is not None:
            yield from metrics.of_host(self._host)

    def _rejected(self) -> Counter[str]:
        """Return how many messages were thrown away, by reason."""
        parts = [self._events.rejected.copy(), self._transport.rejected.copy()]
        if self._host is not None:
            parts.append(self._host.sessions.rejected.copy())
        return sum(parts, Counter())


def _largest(plans: Iterable[Plan]) -> int:
    """Return the most bytes that one frame of these plans may have on the wire."""
    sizes = (
        port.token.nbytes
        for plan in plans
        for actor in plan.graph.actors.values()
        if actor.type in ("tx", "rx")
        for port in actor.ports
        if port.token is not None
    )
    return max(max(sizes, default=0), CONTROL_BYTES_MAX) + 1024
