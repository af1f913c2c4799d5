"""A device: one process that hosts actors, with its links, streams and I/O loop.

The I/O loop is one thread that owns every socket. It receives, lets the state machines
decide, runs short chains inline and sends. A device with sources is an endpoint; a
device that listens is a server; nothing forbids one to be both.
"""

import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dataflow.cast import Cast, Library
from dataflow.clock import now_s as clock_s
from dataflow.cores import hold_to
from dataflow.device_keys import KeyWatch, keys_of
from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.host import Host
from dataflow.links import Links
from dataflow.loading import LOOK_S, Loading
from dataflow.options import Options
from dataflow.plan import Plan
from dataflow.plans import largest_frame_bytes
from dataflow.play import Play, Stage
from dataflow.segments import Peer, Segments
from dataflow.signals import HANG_UP, Signals
from dataflow.status import rejections, status_of
from dataflow.stream import Stream
from dataflow.switching import Switching
from dataflow.wire.control import Want, pack_control
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
ABSENT_S = 0.5
"""How long for servers at whose address there is nobody, where another branch could
answer: devices that are started together are not ready all at once."""
MEASURED_S = 2.0
MEASURED_SHARE = 0.1
"""How often a device leaves what it has measured: no more of it is lost with a SIGKILL
than this, or than this share of the time that it ran. A log does not grow long so."""
FAREWELL_S = 0.15
"""How long a stopping server still answers what it has."""
_NEVER_S = float("inf")


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
        self._switching: Switching | None = None
        self._host: Host | None = None
        self._loading: Loading | None = None
        self._due_s = 0.0
        """When somebody has something to do next."""
        self._switch_s = 0.0
        """The same of the plans that are played."""
        self._stop_s: float | None = None
        self._greeting_until_s = 0.0
        self._ready_s = self._measured_s = _NEVER_S
        """When it was ready, and when it next leaves what it has measured."""
        self._complete = False
        """Every segment is here, and every actor is made or being made."""
        self._begun = False
        self._prepared = False
        """Loaded and begun, and no segment missing: nothing is left but to run."""
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
        self._signals = Signals(
            self._spec.name,
            self._executor.wake_fd,
            hang_up=self._options.reread is not None,
        )
        self._transport = Transport(
            keys, message_bytes_max=largest_frame_bytes(self._plans)
        )
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
            while not self._finished():
                self._turn()
            for links in self._links:
                links.bye()
            self._tell_measured()
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
        assert self._switching is not None, "it was loaded"
        return 1 if self._switching.current.refused else 0

    @property
    def _streams(self) -> Sequence[Stream]:
        """Of all plans that are played, the oldest first."""
        return () if self._switching is None else self._switching.streams

    @property
    def _links(self) -> Sequence[Links]:
        return () if self._switching is None else self._switching.links

    @property
    def _served(self) -> Sequence[Plan]:
        return self._plans if self._switching is None else self._switching.plans

    def _tell_measured(self) -> None:
        """Leave in the run folder what `explore` can go by."""
        now_s = clock_s()
        self._measured_s = now_s + max(
            MEASURED_S, MEASURED_SHARE * (now_s - self._ready_s)
        )
        if self._options.run_folder is not None:
            from dataflow.metrics import measured

            found = measured(self.samples())
            self._events.write(
                "device.measured",
                plan=", ".join(plan.digest for plan in self._served),
                firings=found.firings,
                busy_ms=found.busy_ms,
                bytes_s=found.bytes_s,
                rtt_ms=found.rtt_ms,
            )

    def _turn(self) -> None:
        """Wait for the next thing to happen, and let everybody act on it."""
        executor, switching = self._executor, self._switching
        assert switching is not None, "it was loaded"
        timeout_s = min(self._due_s, executor.due_s) - clock_s()
        for event in self._transport.poll(timeout_s):
            self._receive(event, clock_s())
        executor.step()
        now_s = clock_s()
        due_s = now_s + LOOK_UP_S
        if not self._prepared:
            due_s = min(due_s, self._prepare(now_s))
        if self._keys is not None:
            self._key_watch.tick(self._links, now_s)
        if self._stop_s is not None:
            due_s = min(due_s, self._stop_s)
        if self._host is not None:
            due_s = min(due_s, self._host.tick(now_s))
        for stream in switching.streams:
            due_s = min(due_s, stream.tick(clock_s()))
        if switching.busy or now_s >= self._switch_s:
            self._switch_s = self._switch(switching, now_s)
        due_s = min(due_s, self._switch_s)
        # Last: what could not be sent above is known to its link by now.
        for links in switching.links:
            due_s = min(due_s, links.tick(clock_s()))
        self._due_s = due_s
        if now_s >= self._measured_s:
            self._tell_measured()
        executor.hand_over()

    def _switch(self, switching: Switching, now_s: float) -> float:
        """Go on with what another plan needs; return when there is more to do."""
        if self._state == "loading" or (self._streams and not self._begun):
            return now_s + LOOK_UP_S
        due_s = switching.tick(now_s)
        # It may need segments that are not here.
        self._prepared = self._prepared and not self._segments.missing
        return due_s

    def _prepare(self, now_s: float) -> float:
        """Load, and start the sources; return when there is more to do."""
        self._check_loading(now_s)
        self._check_beginning(now_s)
        get_s = self._get_segments(now_s)
        loading = self._loading is not None
        begun = self._begun or not self._streams
        missing = bool(self._segments.missing)
        self._prepared = self._complete and not (loading or missing) and begun
        return min(get_s, now_s + LOOK_S) if loading else get_s

    def _finished(self) -> bool:
        if self._stop_s is not None and clock_s() >= self._stop_s:
            for stream in self._streams:
                stream.end()
            if not self._streams:
                return True
        return self._switching is not None and self._switching.over

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
        stage = Stage(
            device=self._spec.name,
            incarnation=self._incarnation,
            transport=self._transport,
            executor=self._executor,
            events=self._events,
            segments=self._segments,
            cast=self._cast,
            keys=self._keys,
        )
        play = Play(self._plan, stage, also=self._plans[1:], host=self._host)
        if self._host is not None:
            self._host.connect(play.links)
        self._switching = Switching(
            play,
            stage,
            plans=self._plans,
            host=self._host,
            reread=self._options.reread,
        )
        self._load_start_s = start_s
        self._get_segments(start_s)

    def _make_all(self) -> None:
        """Make all actors, once every segment is here."""
        self._complete = True
        if self._host is not None:
            self._loading = Loading(self._host.repertoire.load)
        assert self._switching is not None
        self._switching.begin()
        gc.collect()
        gc.freeze()
        if self._host is None:
            self._is_ready(self._load_start_s)
        self._loaded = True
        self._greeting_until_s = clock_s() + GREETING_S

    def _get_segments(self, now_s: float) -> float:
        """Ask for what is missing; return when there is more to do."""
        if not self._segments.missing:
            if not self._complete:
                self._make_all()
            return _NEVER_S
        peers = [peer for links in self._links for peer in links.peers]
        if self._host is not None:
            peers += self._host.peers
        return self._segments.tick(peers, now_s)

    def _ask(self, peer: Peer, want: Want) -> bool:
        frames = [pack_control(want)]
        if peer.route:
            return self._transport.reply(peer.route, frames)
        return self._transport.send(peer.line, "control", frames)

    def _check_loading(self, now_s: float) -> None:
        if self._loading is None or not self._loading.done():
            return
        self._loading = None
        assert self._host is not None
        self._host.loaded(now_s)
        self._is_ready(self._load_start_s)

    def _is_ready(self, start_s: float) -> None:
        self._state = "ready"
        self._ready_s = clock_s()
        self._measured_s = self._ready_s + MEASURED_S
        self._events.write(
            "device.ready",
            load_ms=(clock_s() - start_s) * 1e3,
            compute_thread=self._executor.uses_thread,
        )

    def _check_beginning(self, now_s: float) -> None:
        """Start the sources when every server is there, or has had its chance."""
        if self._begun or not self._streams:
            return
        assert self._switching is not None
        play = self._switching.current
        waiting = play.awaited
        # Those that are not there at all hold up nobody whom others can answer.
        later_s = GREETING_S - ABSENT_S
        missed = play.answerable and set(waiting) <= set(play.links.absent)
        if waiting and now_s < self._greeting_until_s - (later_s if missed else 0.0):
            return
        if waiting:
            self._events.write("link.awaited", peers=waiting)
        self._begun = True
        for stream in self._streams:
            stream.start(now_s)
        if self._options.seconds is not None and self._stop_s is None:
            self._stop_s = now_s + self._options.seconds

    def _receive(self, event: Happening, now_s: float) -> None:
        if isinstance(event, FromRoute):
            if self._host is not None:
                self._host.receive(event, now_s)
        elif not isinstance(event, Woken):
            for links in self._links:
                if event.peer in links.by_line:
                    links.receive(event, now_s)
                    return
        elif event.fd == self._executor.wake_fd:
            self._executor.collect()
            while caught := self._signals.take():
                self._heed(caught)
        else:
            self._transport.unwatch(event.fd)
            self._stop("end of standard input")

    def _heed(self, caught: str) -> None:
        if caught != HANG_UP:
            self._stop(caught)
        elif self._switching is not None:
            self._switching.tell()
            if self._streams:  # what counts the plan that is played is made anew
                self._tell_measured()
            else:  # a server must learn of the plan before who asks for it
                self._measured_s = min(self._measured_s, clock_s() + MEASURED_S)

    def _stop(self, why: str) -> None:
        if self._stop_s is not None and self._state == "stopping":
            return
        self._state = "stopping"
        self._events.write("device.stopping", why=why)
        now_s = clock_s()
        if self._switching is not None:
            self._switching.forgo()
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
        assert self._switching is not None
        return status_of(
            self._spec,
            self._state,
            self._switching,
            missing=self._segments.missing,
            rejected=self._rejected(),
            host=self._host,
        )

    def samples(self) -> "Iterator[Sample]":
        """Yield what `metrics.METRICS` names, as it is now; from any thread.

        Until everything is made it is little more than who we are.
        """
        from dataflow import metrics  # most devices are never asked

        switching = self._switching
        plan = self._plan if switching is None else switching.plans[0]
        yield from metrics.of_device(self._spec, plan, self._state)
        if switching is None or not self._loaded:
            return
        yield from metrics.of_loop(
            self._executor.queue, self._events.lost, self._rejected()
        )
        yield from metrics.of_play(switching.current)
        if self._host is not None:
            yield from metrics.of_host(self._host)

    def _rejected(self) -> Counter[str]:
        """Return how many messages were thrown away, by reason."""
        found = rejections(self._events, self._transport, self._host)
        if self._switching is not None:
            for link in self._switching.current.links.by_peer.values():
                found += link.ignored.copy()
        return found
