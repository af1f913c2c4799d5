"""Seeded simulation: endpoints, servers, and a network that fails between them.

The ledgers, links and sessions are the real ones; only what carries out their actions
(sockets, clocks, actors) is replaced. A run is a function of its seed: the event heap
is ordered by virtual time, and every choice comes from one random generator. When a
promise is broken the run stops with the seed and the command that repeats it::

    python -m tests.simulator --seed 1234 --trace

What is modelled. A lane is a TCP connection: in order, and when it is lost all that is
in flight on it is lost. The dialling side is told of that, the listening side is not
(a ROUTER does not say whose connection went). The two lanes of a session have delays
of their own, so they overtake each other. Every device has a clock of its own.

What is promised, and checked while it runs:

S1  a stream's outcomes are 0, 1, 2 …, once each, in order, by the row they name
S2  tokens under way are within the credit, iterations admitted within the window
S3  nothing is computed for a segment that was not offered
S4  nothing that belongs to an older session has an effect
S5  tokens are retained for at most `window` iterations
S6  nothing is unaccounted for
S7  a peer is used only when it has answered on the data lane
B1  a branch is started at most once per iteration
D1  nothing is decided later than its deadline, but for a turn of the loop
L1  when the faults are over, links come back, and with them full answers
L2  a frame is not dropped while a sound branch was there for it
L3  a device waits when there is nothing to do
"""

import argparse
import hashlib
import heapq
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dataflow.wire.control import (
    Control,
    pack_control,
    unpack_control,
)
from dataflow.wire.header import (
    Header,
)
from tests.simulation.endpoint import GREETING_S, Endpoint
from tests.simulation.faults import FAULTS
from tests.simulation.server import Server
from tests.simulation.setup import Result, Setup, Violation
from tests.simulation.stream import PROBING_S, TURN_S, Stream

RECOVERY_S = 12.0
"""Bound of L1: probing 1 s, suspect 2 s, longest backoff 5 s, dialling and loading."""


class Simulation:
    """One run: devices, the network between them, and what goes wrong."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.random = random.Random(setup.seed)
        self.now_s = 0.0
        self.trace: list[str] = []
        self.packed = setup.seed % 16 == 0
        """Headers and control messages go through bytes; slow, so not always."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._faults_end_s = 0.0
        self.endpoints = [
            Endpoint(self, f"cam.{i}") for i in range(max(1, setup.endpoints))
        ]
        per_endpoint = 2 if setup.seed % 5 == 0 else 1
        numbers = itertools.count(1)
        streams = [
            [Stream(endpoint, next(numbers)) for _ in range(per_endpoint)]
            for endpoint in self.endpoints
        ]
        segments = [stream.segment for some in streams for stream in some]
        self.servers = [
            Server(self, f"edge.{j}", segments) for j in range(setup.servers)
        ]
        for endpoint, some in zip(self.endpoints, streams, strict=True):
            endpoint.connect(self.servers, some)
        self.streams = [stream for some in streams for stream in some]

    def at(self, time_s: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (time_s, next(self._count), call, args))

    def after(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        self.at(self.now_s + delay_s, call, *args)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now_s:.6f} {text}")
        if self.setup.trace:
            print(self.trace[-1])

    def check(self, promise: str, kept: bool, text: str) -> None:
        if not kept:
            self.fail(promise, text)

    def fail(self, promise: str, text: str) -> None:
        setup = self.setup
        command = (
            f"python -m tests.simulator --seed {setup.seed} --endpoints "
            f"{setup.endpoints} --servers {setup.servers} --frames {setup.frames}"
        )
        for fault in setup.faults or ():
            command += f" --fault '{fault}'" if " " in fault else f" --fault {fault}"
        raise Violation(
            f"{promise} at {self.now_s:.3f} s: {text}; repeat with `{command} --trace`"
        )

    def through_header(self, header: Header) -> Header:
        return Header.parse(header.pack()) if self.packed else header

    def through_control(self, message: Control) -> Control:
        return unpack_control(pack_control(message)) if self.packed else message

    def run(self) -> Result:
        """Run faults and frames, then let it recover, then end the streams.

        Raises:
            Violation: A promise is broken.
        """
        for endpoint in self.endpoints:
            endpoint.loop()
        self._run_until(GREETING_S)
        self._plan_faults()
        frames = self.setup.frames
        slowest_s = max(stream.period_s for stream in self.streams)
        self._run_until(max(self.now_s + frames * slowest_s, self._faults_end_s))
        self._recover()
        self._end()
        digest = hashlib.blake2b("\n".join(self.trace).encode(), digest_size=8)
        return Result(
            digest.hexdigest(),
            outcomes=sum(s.outcomes for s in self.streams),
            full=sum(s.full for s in self.streams),
            dropped=sum(s.dropped for s in self.streams),
            attempts=sum(s.attempts for s in self.streams),
            events=next(self._count),
        )

    def _run_until(self, end_s: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            self.now_s, _, call, args = heapq.heappop(heap)
            call(*args)
        self.now_s = end_s

    def _plan_faults(self) -> None:
        drawn_from = self.setup.faults
        names = tuple(FAULTS) if drawn_from is None else drawn_from
        for _ in range(self.random.randint(1, 4) if names else 0):
            begin_s = self.now_s + self.random.uniform(0.0, 0.8)
            name = self.random.choice(names)
            length_s = FAULTS[name](self, begin_s)
            self.note(f"{name} at {begin_s:.3f} for {length_s:.3f} s")
            self._faults_end_s = max(self._faults_end_s, begin_s + length_s)

    def _recover(self) -> None:
        """Faults are over: every link comes back, and every stream's full answers."""
        for stream in self.streams:
            stream.fulls_since = 0
            stream.period_s = PROBING_S
        end_s = self.now_s + RECOVERY_S
        while not self._recovered():
            if self.now_s > end_s:
                self._tell_stuck()
            self._run_until(self.now_s + 0.1)

    def _recovered(self) -> bool:
        return all(stream.fulls_since > 0 for stream in self.streams) and all(
            wire.link.ready and wire.link.credit(stream.number) > 0
            for endpoint in self.endpoints
            for wire in endpoint.wires
            for stream in endpoint.streams
        )

    def _tell_stuck(self) -> None:
        states = [
            f"{e.name}-{w.server.name} {w.link.state.value} credit "
            f"{[w.link.credit(s.number) for s in e.streams]}"
            for e in self.endpoints
            for w in e.wires
        ]
        fulls = [stream.fulls_since for stream in self.streams]
        self.fail("L1", f"not recovered: {', '.join(states)}; full answers {fulls}")

    def _end(self) -> None:
        for stream in self.streams:
            stream.due_fire_s = float("inf")
        self._run_until(self.now_s + max(s.deadline_s for s in self.streams) + TURN_S)
        for stream in self.streams:
            fired = stream.ledger.fired
            text = f"{stream.outcomes} outcomes of {fired} frames"
            self.check("S6", stream.outcomes == fired and stream.ledger.idle, text)


def simulate(setup: Setup) -> Result:
    """Run one seed.

    Raises:
        Violation: A promise is broken; the message has the command that repeats it.
    """
    return Simulation(setup).run()


def setups(first: int, count: int, **fixed: Any) -> Iterator[Setup]:
    """Yield setups of consecutive seeds; sizes that are not `fixed` follow the seed."""
    for seed in range(first, first + count):
        sizes = {"endpoints": 1 + (seed % 7 == 0), "servers": 1 + seed % 3}
        yield Setup(seed, **(sizes | fixed))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Simulate seeds, print runs/s.")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--endpoints", type=int, help="default: by the seed")
    parser.add_argument("--servers", type=int, help="default: by the seed")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument(
        "--fault", action="append", choices=FAULTS, help="draw from these; default: all"
    )
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args(arguments)
    fixed = {
        key: value
        for key in ("endpoints", "servers", "frames", "trace")
        if (value := getattr(options, key)) is not None
    }
    if options.fault:
        fixed["faults"] = tuple(options.fault)
    start_s = time.perf_counter()
    violations = 0
    results = []
    for setup in setups(options.seed, options.seeds, **fixed):
        try:
            results.append(simulate(setup))
        except Violation as violation:
            violations += 1
            print(violation, file=sys.stderr)
    took_s = time.perf_counter() - start_s
    outcomes = sum(result.outcomes for result in results)
    print(
        f"{options.seeds} runs, {options.seeds / took_s:.0f} runs/s, {violations} "
        f"violations, {outcomes} outcomes, "
        f"{sum(r.full for r in results)} full, {sum(r.dropped for r in results)} "
        f"dropped, {sum(r.events for r in results) / took_s:.0f} events/s"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
