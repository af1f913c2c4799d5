"""A device: one process that hosts actors, with its links, streams and I/O loop.

The I/O loop is one thread that owns every socket. It receives, lets the state machines
decide, runs short chains inline and sends. A device with sources is an endpoint; a
device that listens is a server; nothing forbids one to be both.
"""

import gc
import math
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from dataflow.behaviour import Behaviour, Site
from dataflow.branches import offers_of
from dataflow.clock import now_s as clock_s
from dataflow.engine import Chain
from dataflow.errors import REJECTIONS, UnderstudyError
from dataflow.events import EventLog
from dataflow.executor import Executor
from dataflow.graph import Actor
from dataflow.host import Host
from dataflow.links import Links
from dataflow.parts import (
    HostedPart,
    StreamPart,
    make_chain,
    several_firings,
    stream_parts,
)
from dataflow.plan import Device as DeviceSpec
from dataflow.plan import Plan
from dataflow.plans import addresses_of
from dataflow.segments import Peer, Segments
from dataflow.stream import Stream
from dataflow.wire.control import CONTROL_BYTES_MAX, Want, pack_control
from dataflow.wire.happenings import FromRoute, Happening, Woken
from dataflow.wire.header import VERSION
from dataflow.wire.keys import KeyFolder
from dataflow.wire.transport import Transport, is_loopback

if TYPE_CHECKING:
    from dataflow.metrics import Sample

SWITCH_INTERVAL_S = 0.0002
"""How long another thread may keep the I/O loop waiting for the interpreter. At the
default of 5 ms a compute thread makes a round trip take 5.7-22 ms."""
LOOK_UP_S, LOADER_LOOK_S = 0.5, 0.02
"""How long the I/O loop sleeps at most; while models load."""
GREETING_S = 5.0
"""How long sources wait for the servers at the start, so that none misses a frame."""
KEYS_LOOK_S = 0.5
"""How often the keys folder is looked at."""
FAREWELL_S = 0.15
"""How long a stopping server still answers what it has."""
DEFAULT_RATE_HZ = 100.0
"""Of a source that does not say; bounds how many frames come within a deadline."""

_NEVER_S = float("inf")

Library = Callable[[str], type[Behaviour]]
"""Actor type -> what it does."""


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
        self._library = library
        self._options = options
        self._incarnation = int.from_bytes(os.urandom(8), "little")
        self._started: list[Behaviour] = []
        self._streams: list[Stream] = []
        self._host: Host | None = None
        self._loader: threading.Thread | None = None
        self._load_error: BaseException | None = None
        self._due_s = 0.0
        """When somebody has something to do next."""
        self._stop_s: float | None = None
        self._greeting_until_s = 0.0
        self._complete = False
        """Every segment is here, and every actor is made or being made."""
        self._keys_look_s = 0.0
        self._begun = False
        self._loaded = False
        self._state = "loading"
        self._signals = 0
        self._signal = ""

    def run(self) -> int:
        """Run until the sources end or somebody stops us; return the exit status.

        Raises:
            UnderstudyError: It could not start, or an actor failed; what was under way
                is accounted for.
        """
        self._keys = _keys(self._plan, self._spec, insecure=self._options.insecure)
        keys = self._keys.keys if self._keys is not None else None
        self._executor = Executor()
        self._transport = Transport(keys, message_bytes_max=_largest(self._plans))
        try:
            listen = self._spec.listen
            address = "" if listen is None else self._transport.listen(listen)
            self._open_log()
            if address:
                self._events.write("device.listening", address=address)
            return self._run()
        finally:
            self._transport.close()

    def _run(self) -> int:
        previous = self._catch_signals()
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
                cleaning.callback(self._restore_signals, previous)
                for behaviour in self._started:
                    cleaning.callback(behaviour.stop)
                cleaning.callback(self._executor.close)
        return 1 if self._links.refused else 0

    def _turn(self) -> None:
        """Wait for the next thing to happen, and let everybody act on it."""
        timeout_s = min(self._due_s, self._executor.due_s) - clock_s()
        for event in self._transport.poll(timeout_s):
            self._receive(event, clock_s())
        if self._signal:
            self._stop(self._signal)
            self._signal = ""
        self._executor.step()
        now_s = clock_s()
        self._check_loader(now_s)
        self._check_beginning(now_s)
        get_s = self._get_segments(now_s)
        self._check_keys(now_s)
        due_s = now_s + (LOOK_UP_S if self._loader is None else LOADER_LOOK_S)
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
                make_chain=self._make_chain,
                status=self._status,
                keys=self._keys is not None,
                segments=self._segments,
            )
        self._parts = stream_parts(self._plan.graph, self._spec.name)
        offers = offers_of(self._parts)
        if self._host is not None:
            for peer, asked in self._host.relay.offers.items():
                offers.setdefault(peer, []).extend(asked)
        _check_public_keys(self._keys, offers)
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
            self._loader = threading.Thread(
                target=self._load_hosted, name="load", daemon=True
            )
            self._loader.start()
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

    def _load_hosted(self) -> None:
        assert self._host is not None
        try:
            self._host.load()
        except BaseException as error:  # raised again in the I/O loop
            self._load_error = error

    def _check_loader(self, now_s: float) -> None:
        if self._loader is None or self._loader.is_alive():
            return
        self._loader = None
        if self._load_error is not None:
            raise self._load_error
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
        names = {
            part.source,
            *part.prefix.actors,
            *part.suffix.actors,
            *(actor for branch in part.branches for actor in branch.chain.actors),
        }
        window = part.region.window
        local = {a for branch in part.branches for a in branch.chain.actors}
        # A local branch may answer a whole window of frames, and again the next one,
        # while an older frame is waited for.
        slots = {
            name: (2 * window + 2 if name in local else window + 2)
            * part.firings.get(name, 1)
            for name in names
        }
        slots[part.source] += self._fired_within_deadline(part)
        return Stream(
            part,
            behaviours={
                name: self._make(
                    self._plan,
                    self._plan.graph.actors[name],
                    part.region.stream,
                    slots[name],
                )
                for name in sorted(names)
            },
            links=self._links.by_peer,
            incarnation=self._incarnation,
            executor=self._executor,
            outbox=self._links,
            events=self._events,
        )

    def _fired_within_deadline(self, part: StreamPart) -> int:
        """Frames that a source may fire while its oldest one is not settled.

        It fires at its pace also when the window is full, so its memory goes round
        faster than that of the actors behind the admission.
        """
        rate_hz = self._plan.graph.actors[part.source].params.get("rate_hz")
        known = isinstance(rate_hz, int | float)
        rate = float(rate_hz) if known else DEFAULT_RATE_HZ  # type: ignore[arg-type]
        return math.ceil(part.region.deadline_ms / 1e3 * rate) + 1

    def _make_chain(self, plan: Plan, hosted: HostedPart) -> Chain:
        """Make the actors of a hosted branch; a batch is read before the next."""
        part = hosted.chain
        most = plan.devices[self._spec.name].batching.most
        firings = several_firings(part.graph, part.actors[0])
        behaviours = {
            name: self._make(
                plan,
                part.graph.actors[name],
                hosted.region.stream,
                (most + 1) * firings.get(name, 1),
                most,
            )
            for name in part.actors
        }
        return make_chain(part, behaviours)

    def _make(
        self, plan: Plan, actor: Actor, stream: str, slots: int, batch: int = 1
    ) -> Behaviour:
        site = Site(
            device=self._spec.name,
            stream=stream,
            incarnation=self._incarnation,
            plan_folder=plan.folder,
            run_folder=self._options.run_folder,
            slots=slots,
            batch=batch,
        )
        behaviour = self._library(actor.type)(actor.params, site)
        behaviour.start()
        self._started.append(behaviour)
        return behaviour

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

    def _check_keys(self, now_s: float) -> None:
        """Take changed keys into use. Those that cannot be read change nothing."""
        if self._keys is None or now_s < self._keys_look_s:
            return
        self._keys_look_s = now_s + KEYS_LOOK_S
        before = self._keys.keys
        try:
            if not self._keys.changed():
                return
        except UnderstudyError as error:
            self._events.write("keys.unreadable", error=str(error))
            return
        keys = self._keys.keys
        ours = keys.secret != before.secret
        self._events.write("keys.read", devices=sorted(keys.peers), ours=ours)
        self._transport.renew(keys)
        if ours:
            self._links.renew()

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

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            raise UnderstudyError(
                f"device '{self._spec.name}': stopped twice; what was under way is "
                "dropped"
            )
        self._signal = signal.Signals(number).name
        os.eventfd_write(self._executor.wake_fd, 1)

    def _restore_signals(self, previous: dict[int, Any]) -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def _status(self) -> dict[str, Any]:
        return {
            "device": self._spec.name,
            "role": self._spec.role,
            "state": self._state,
            "plans": {plan.name: plan.digest for plan in self._plans},
            "pid": os.getpid(),
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
        from dataflow.metrics import Sample

        about = self._spec.name, self._spec.role, self._plan.name, self._plan.digest
        yield Sample("understudy_device_info", about, 1)
        for state in metrics.STATES:
            is_it = float(state == self._state)
            yield Sample("understudy_device_state", (state,), is_it)
        if not self._loaded:
            return
        yield Sample("understudy_queue_tokens", (), self._executor.queue)
        yield Sample("understudy_events_lost_total", (), self._events.lost)
        rejected = self._rejected()
        for reason in REJECTIONS:
            count = rejected[reason]
            yield Sample("understudy_messages_rejected_total", (reason,), count)
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


def _keys(plan: Plan, spec: DeviceSpec, *, insecure: bool) -> KeyFolder | None:
    """Return the device's keys; refuse to listen to the world without any.

    Raises:
        UnderstudyError: It listens beyond loopback, has no keys, and nobody insists.
    """
    if plan.keys is not None:
        return KeyFolder(plan.keys, spec.name)
    if spec.listen is not None and not is_loopback(spec.listen) and not insecure:
        raise UnderstudyError(
            f"device '{spec.name}': listens on {spec.listen}, beyond loopback, without "
            "keys; make keys with `understudy keys new`, or insist with --insecure"
        )
    return None


def _check_public_keys(keys: KeyFolder | None, peers: Collection[str]) -> None:
    """Check that every peer that we dial has its public key here.

    Raises:
        UnderstudyError: One has not.
    """
    if keys is None:
        return
    for peer in peers:
        if peer not in keys.keys.peers:
            raise UnderstudyError(
                f"{keys.folder}: no public key of device '{peer}'; copy its "
                f"'{peer}.key' there"
            )


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
