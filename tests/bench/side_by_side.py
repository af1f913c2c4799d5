"""A device and a hand-written variant, in alternating batches, in two processes.

The endpoint's process runs a `Device`, whole and unchanged but for its source and sink,
which stand here: the source is due as soon as the driver wants a frame, and the sink
gives each outcome to the driver. When a batch of frames is answered the driver runs the
other variant, in the same thread, while the device waits; then it asks for the next
batch. Run as a module of its own, a benchmark starts the pair with `run_pair`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow.behaviour import Behaviour, Params, Sink, Source
from dataflow.clock import now_s as clock_s
from dataflow.device import Device
from dataflow.graph import Port
from dataflow.options import Options
from dataflow.outcome import Outcome
from dataflow.plan import Plan
from tests.bench.common import cpu_s

NEVER_HZ = 1e-6
"""The pace of a source that the driver makes due."""
WARM_BATCHES = 3
SERVE, CALL = "--serve", "--call"

Other = Callable[[int], list[float]]
"""Does so many frames its own way; returns the latency of each in seconds."""


@dataclass
class Batches:
    """Per batch: median latency, time and CPU time per frame, in seconds."""

    p50: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __add__(self, other: "Batches") -> "Batches":
        return Batches(
            self.p50 + other.p50, self.whole + other.whole, self.cpu + other.cpu
        )


class Driver:
    """Decides in the endpoint what comes next: a frame, another batch, the end.

    Args:
        others: Run after each batch of the device, in changing order.
        server: Process whose CPU time counts too.
        frames: Per batch.
        batches: Of each variant, beyond a few to warm up.
        window: Frames of the device under way at once.
    """

    def __init__(
        self,
        others: Sequence[Other],
        *,
        server: int,
        frames: int,
        batches: int,
        window: int = 1,
    ) -> None:
        self.device = Batches()
        self.others = [Batches() for _ in others]
        self._run = others
        self._server = server
        self._frames = frames
        self._left = batches + WARM_BATCHES
        self._window = window
        self._under_way = 0
        self._latencies: list[float] = []
        self._endpoint: Device | None = None

    def run(self, endpoint: Device) -> None:
        """Run the endpoint until all batches are done."""
        self._endpoint = endpoint
        Asked.driver = self
        self._begin()
        endpoint.run()

    def fired(self) -> None:
        """The source has made a frame: is the next one due already?"""
        self._under_way += 1
        if self._under_way < self._window:
            self._make_due()

    def settled(self, outcome: Outcome) -> None:
        """The sink has an answer."""
        self._under_way -= 1
        self._latencies.append(clock_s() - outcome.fired_s)
        if outcome.status != "full":  # we were held up until the link was in doubt
            self._begin()
        elif len(self._latencies) == self._frames:
            self._add(self.device, self._latencies)
            self._run_others()
            self._begin()
        self._make_due()

    def _make_due(self) -> None:
        assert self._endpoint is not None
        if self._left == 0:
            self._endpoint._stop("all batches are done")
        elif len(self._latencies) + self._under_way < self._frames:
            self._endpoint._streams[0]._pacer.due_s = clock_s()

    def _run_others(self) -> None:
        pairs = list(zip(self._run, self.others, strict=True))
        for run, batches in pairs if self._left % 2 else reversed(pairs):
            self._begin()
            self._add(batches, run(self._frames))
        self._left -= 1

    def _begin(self) -> None:
        self._latencies = []
        self._used_s = self._used()
        self._start_s = clock_s()

    def _add(self, batches: Batches, latencies: list[float]) -> None:
        batches.p50.append(statistics.median(latencies))
        batches.whole.append((clock_s() - self._start_s) / self._frames)
        batches.cpu.append((self._used() - self._used_s) / self._frames)

    def _used(self) -> float:
        return time.process_time() + cpu_s(self._server)


class Asked(Sink):
    """The sink of a driven stream."""

    driver: Driver

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        raise AssertionError("the plan has the ports of the sink in whose place it is")

    def fire(self, *tokens: Any) -> None:
        Asked.driver.settled(tokens[0])


def asked(source: type[Source]) -> type[Source]:
    """Return `source` as the source of a driven stream."""

    class AskedSource(source):  # type: ignore[misc, valid-type]
        def fire(self, *tokens: Any) -> Any:
            frame = super().fire(*tokens)
            Asked.driver.fired()
            return frame

    return AskedSource


def device(plan: Plan, name: str, library: Callable[[str], type[Behaviour]]) -> Device:
    return Device(plan, name, library=library, options=Options())


def run_pair(
    module: str, arguments: Sequence[object], batches: int
) -> tuple[Batches, ...]:
    """Start both processes; return the batches of the device and of the others.

    Each runs ``python -m MODULE``: the server with `SERVE` and the arguments, the
    endpoint with `CALL`, the server's process number, `batches` and the arguments. The
    server ends with its standard input, the endpoint ends with `tell`.
    """
    me = [sys.executable, "-m", module]
    texts = list(map(str, arguments))
    server = subprocess.Popen([*me, SERVE, *texts], stdin=subprocess.PIPE)
    try:
        done = subprocess.run(
            [*me, CALL, str(server.pid), str(batches), *texts],
            check=True,
            stdout=subprocess.PIPE,
        )
    finally:
        server.terminate()
        server.communicate()
    return tuple(
        Batches(**{name: values[WARM_BATCHES:] for name, values in variant.items()})
        for variant in json.loads(done.stdout)
    )


def tell(driver: Driver) -> None:
    """Give what the endpoint measured to `run_pair`."""
    print(json.dumps([vars(driver.device), *map(vars, driver.others)]))


def data_folder() -> Path | None:
    """Return the folder of models and data that are not part of the project."""
    name = os.environ.get("UNDERSTUDY_DATA")
    return Path(name) if name else None
