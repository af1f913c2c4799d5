"""One run: devices, the network between them, and what goes wrong."""

import gc
import heapq
import itertools
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from dataflow.graph import Asked
from dataflow.turns import ALONE
from dataflow.wire.control import Control, pack_control, unpack_control
from dataflow.wire.header import Header
from dataflow.wire.relay import Way
from understudy.promise import judge
from understudy.records import DeviceRecord, Ended, Event, Run, StreamRecord
from understudy.simulation.branches import TURN_S
from understudy.simulation.endpoint import GREETING_S, Endpoint
from understudy.simulation.faults import FAULTS, OF_SOURCES, Script
from understudy.simulation.network import Wire
from understudy.simulation.scenario import Hop, Source
from understudy.simulation.server import Server
from understudy.simulation.setup import Result, Setup, Violation
from understudy.simulation.stream import Stream

RECOVERY_S = 12.0
"""Bound of L1: probing 1 s, suspect 2 s, longest backoff 5 s, dialling and loading."""
FAULTS_MAX = 4
"""In a short run; a longer one has one at most for each 25 frames."""
FRAMES_A_FAULT = 25
BEGIN_SHARE = 0.6
"""Faults begin within this share of the time that the frames take."""
PACKED_EVERY = 32
COMPUTE_S = (0.001, 0.008)
COMPUTE_SHARE = 1 / 20
"""A server takes at most this share of the shortest deadline for a token."""
LOAD_MAX = 0.5
"""Servers are drawn so fast that together they are busy at most this share of time."""


class Simulation:
    """One run: devices, the network between them, and what goes wrong."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.random = Random(setup.seed)
        self.chance = self.random.random
        self.now_s = 0.0
        self.tracing = setup.trace
        self.packed = setup.seed % PACKED_EVERY == 0
        """Headers and control messages go through bytes; slow, so not always."""
        self.heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self.count = itertools.count()
        scenario = setup.scenario
        self.spreads = any(s.redundancy.mode == "spread" for s in scenario.sources)
        """Somebody looks at the work that beats tell of."""
        self._by_endpoint: list[list[Source]] = [[] for _ in scenario.endpoints]
        for source in scenario.sources:
            self._by_endpoint[source.endpoint].append(source)
        self._script = Script(self, setup.kept)
        self.servers = self._make_servers()
        self.endpoints = [
            Endpoint(self, name, self.servers, sources)
            for name, sources in zip(scenario.endpoints, self._by_endpoint, strict=True)
        ]
        self._past: list[Endpoint] = []
        """Lives of endpoints that were killed."""
        self._kills: list[Event] = []
        self._ending = False
        self._write_script()

    @property
    def wires(self) -> list[Wire]:
        onward = [s.onward for s in self.servers if s.onward is not None]
        return [w for device in (*self.endpoints, *onward) for w in device.wires]

    @property
    def streams(self) -> list[Stream]:
        return [stream for endpoint in self.endpoints for stream in endpoint.streams]

    def at(
        self, time_s: float, call: Callable[[Any], None], argument: Any = None
    ) -> None:
        heapq.heappush(self.heap, (time_s, next(self.count), call, argument))

    def after(
        self, delay_s: float, call: Callable[[Any], None], argument: Any = None
    ) -> None:
        self.at(self.now_s + delay_s, call, argument)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.chance()

    def note(self, text: str) -> None:
        print(f"{self.now_s:9.4f}  {text}")

    def check(self, promise: str, kept: bool, text: str) -> None:
        if not kept:
            self.fail(promise, text)

    def fail(self, promise: str, text: str) -> NoReturn:
        planned = self._script.planned
        raise Violation(promise, text, self.setup, self.now_s, planned)

    def through_header(self, header: Header) -> Header:
        return Header.parse(header.pack())

    def through_control(self, message: Control) -> Control:
        return unpack_control(pack_control(message))

    def kill_endpoint(self, index: int) -> None:
        endpoint = self.endpoints[index]
        if endpoint.alive:
            endpoint.crash()
            fields = {"target": endpoint.name, "signal": "SIGKILL"}
            self._kills.append(
                Event(len(self._kills) + 2, endpoint.clock_s(), "fault", fields)
            )

    def start_endpoint(self, index: int) -> None:
        old = self.endpoints[index]
        if old.alive:
            return
        self._past.append(old)
        self.endpoints[index] = Endpoint(
            self, old.name, self.servers, self._by_endpoint[index], old
        )
        if self._ending:
            for stream in self.endpoints[index].streams:
                stream.slow_down()

    def run(self) -> Result:
        """Run faults and frames, then let it recover, then end the streams.

        Raises:
            Violation: A promise is broken.
        """
        frames = self.setup.frames
        slowest_s = max(stream.source.period_s for stream in self.streams)
        self._run_until(max(GREETING_S / 2 + frames * slowest_s, self._script.end_s))
        self._recover()
        self._end()
        return self._result()

    def _make_servers(self) -> list[Server]:
        scenario = self.setup.scenario
        segments: list[dict[int, tuple[int, ...]]] = [{} for _ in scenario.servers]
        for source in scenario.sources:
            for row in source.rows:
                if row.server is None:
                    continue
                segments[row.server][row.segment] = row.token_bytes
                for hop in row.onward:
                    segments[hop.server].setdefault(hop.segment, row.token_bytes)
        rate_hz = sum(1.0 / (s.period_s * s.frames) for s in scenario.sources)
        shortest_s = min(source.deadline_s for source in scenario.sources)
        chained = any(row.onward for s in scenario.sources for row in s.rows)
        share = LOAD_MAX if chained else LOAD_MAX * len(segments)
        slowest_s = min(share / rate_hz, COMPUTE_SHARE * shortest_s)
        batching = scenario.batching or [ALONE] * len(segments)
        names = scenario.servers
        servers = [
            Server(self, name, own, min(self.between(*COMPUTE_S), slowest_s), most)
            for name, own, most in zip(names, segments, batching, strict=True)
        ]
        if chained:
            self._connect(servers)
        return servers

    def _connect(self, servers: Sequence[Server]) -> None:
        """Tell servers what they pass on."""
        for source in self.setup.scenario.sources:
            for row in source.rows:
                if row.server is None or not row.onward:
                    continue
                asked = [Asked(servers[h.server].name, h.segment) for h in row.onward]
                path = [Hop(row.server, row.segment), *row.onward]
                for i, hop in enumerate(row.onward):
                    here, behind = servers[path[i].server], servers[hop.server]
                    way = Way(tuple(asked[i:]), source.window)
                    here.ways.append((path[i].segment, way))
                    here.behind[behind.name] = behind
                    if here not in behind.before:
                        behind.before.append(here)
        for server in servers:
            server.connect()

    def _write_script(self) -> None:
        wanted = self.setup.faults
        names = [
            name
            for name in (FAULTS if wanted is None else wanted)
            if self.wires or name in OF_SOURCES
        ]
        if not names:
            return
        slowest_s = max(source.period_s for source in self.setup.scenario.sources)
        latest_s = BEGIN_SHARE * slowest_s * self.setup.frames
        most = max(FAULTS_MAX, self.setup.frames // FRAMES_A_FAULT)
        for _ in range(self.random.randint(1, most)):
            begin_s = GREETING_S / 2 + latest_s * self.chance()
            self._script.add(self.random.choice(names), begin_s)
        for fault in self._script.faults if self.tracing else ():
            text = f"fault {fault.number}: {fault.name} of {fault.target}"
            self.at(fault.begin_s, self.note, f"{text} for {fault.length_s:.3f} s")
            self.at(fault.begin_s + fault.length_s, self.note, f"{text} is over")

    def _run_until(self, end_s: float) -> None:
        heap, pop = self.heap, heapq.heappop
        while heap and heap[0][0] <= end_s:
            self.now_s, _, call, argument = pop(heap)
            call(argument)
        self.now_s = end_s

    def _recover(self) -> None:
        """Faults are over: every link comes back, and every stream's best answers."""
        self._ending = True
        for stream in self.streams:
            stream.well_since = 0
            stream.slow_down()
        end_s = self.now_s + RECOVERY_S
        while not self._recovered():
            if self.now_s > end_s:
                self._tell_stuck()
            # Not in step with the sources: a window of 1 would always look full.
            self._run_until(self.now_s + self.between(0.05, 0.15))

    def _recovered(self) -> bool:
        return all(stream.well_since for stream in self.streams) and all(
            wire.usable() for wire in self.wires
        )

    def _tell_stuck(self) -> None:
        states = [
            f"{wire.name} {wire.link.state.value} credit "
            f"{[wire.link.credit(number) for number in wire.branches]}"
            for wire in self.wires
            if not wire.usable()
        ]
        streams = [s.source.name for s in self.streams if not s.well_since]
        self.fail("L1", f"not recovered: {', '.join(states + streams)}")

    def _end(self) -> None:
        for stream in self.streams:
            stream.end()
        deadline_s = max(stream.source.deadline_s for stream in self.streams)
        self._run_until(self.now_s + 1.01 * deadline_s + TURN_S)
        for stream in self.streams:
            outcomes, fired = len(stream.results), stream.ledger.fired
            text = f"{outcomes} outcomes of {fired} iterations of {stream.source.name}"
            self.check("S6", outcomes == fired and stream.ledger.idle, text)
        self._run_until(self.now_s + deadline_s)  # firings nobody waits for any more
        for server in self.servers:
            server.check_done()

    def _result(self) -> Result:
        run = self._record()
        verdict = judge(run)
        self.check("S6", verdict.kept, "; ".join(verdict.violations[:3]))
        everyone = [*self._past, *self.endpoints]
        return Result(
            run=run,
            faults=self._script.faults,
            planned=self._script.planned,
            attempts=sum(s.attempts for e in everyone for s in e.streams),
            events=next(self.count),
            seconds=self.now_s,
        )

    def forget(self) -> None:
        """Let go of what refers back to it, so that it need not be searched for."""
        self.heap.clear()
        for endpoint in (*self._past, *self.endpoints):
            for stream in endpoint.streams:
                stream.results.clear()
                stream.frames.clear()
                stream.branches.clear()
            endpoint.streams.clear()
            for wire in endpoint.wires:
                wire.hang_up()
                wire.branches.clear()
        for server in self.servers:
            server.onward = None
            server.before.clear()
            server.wires.clear()

    def _record(self) -> Run:
        """Return what a run folder of this run would hold."""
        streams = tuple(
            self._stream_record(stream, ended=endpoint.alive)
            for endpoint in (*self._past, *self.endpoints)
            for stream in endpoint.streams
        )
        launcher = None
        if self._kills:
            launcher = DeviceRecord(
                path=Path("events-launcher.jsonl"), device="launcher", incarnation="",
                deployment=self.setup.scenario.name, plan="", pid=None, version="",
                epoch_s=0.0, machine={}, events=tuple(self._kills), torn=False,
            )  # fmt: skip
        folder = _path("simulated")
        return Run(folder, streams, (), launcher, None)

    def _stream_record(self, stream: Stream, *, ended: bool) -> StreamRecord:
        endpoint, source, results = stream.endpoint, stream.source, stream.results
        end = Ended(len(results) + 2, stream.fired - 1)
        return StreamRecord(
            path=_path(f"results-{source.name}.jsonl"),
            stream=source.name,
            incarnation=f"{endpoint.incarnation:016x}",
            device=endpoint.name,
            deployment=self.setup.scenario.name,
            graph="",
            rows=(*(row.name for row in source.rows), source.outside),
            codec="none",
            epoch_s=-endpoint.start_s,
            labels=False,
            results=tuple(results),
            ended=(end,) if ended else (),
            torn=False,
        )


@lru_cache(maxsize=4096)
def _path(name: str) -> Path:
    return Path(name)  # it takes as long to make as a frame to answer


def simulate(setup: Setup) -> Result:
    """Run one seed.

    Raises:
        Violation: A promise is broken.
    """
    collects = gc.isenabled()
    gc.disable()  # a run makes much, and its only garbage in cycles is itself
    try:
        simulation = Simulation(setup)
        result = simulation.run()
        simulation.forget()
        return result
    finally:
        if collects:
            gc.enable()
