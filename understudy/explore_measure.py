"""Trying partitions for real: two processes or more, over links that are shaped.

Each partition is written, compiled and run like any deployment, its devices as
processes here, and every link leads through the fault proxy at the rate and with the
delay that were explored. Latencies are of frames one at a time; with `throughput`, a
second run asks for more frames than any stage can do.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.plan import Plan
from understudy.chaos_faults import breakable_links
from understudy.costs import Link
from understudy.exploration import Exploration, ExploredDevice, Measured, Panel, Row
from understudy.explore_subject import Subject
from understudy.explored_deployment import Script, write_deployment
from understudy.launch import READY_S, Launcher, free_ports, wait_ready
from understudy.plans import compile_deployment, keep_plan
from understudy.profile_file import SessionFacts
from understudy.proxy import Condition
from understudy.records import Result
from understudy.run_folder import PLAN_FOLDER, read_run

FRAMES = 40
WARM = 5
"""First frames of a run that do not count: memory is touched for the first time."""
LOAD = 0.3
"""Share of the time with a frame under way: none should wait for the one before."""
RATE_HZ_MAX = 20.0
EXCESS = 1.5
"""How much more is asked for than the predicted throughput, to measure it."""
THROUGHPUT_S = 3.0
TURN_S = 0.02
SLOW_READY_S = 300.0
"""Loading takes a slowed process many times as long as others."""
TRIED = 3
"""Rows that are tried beside all local and the frame as it is."""


def candidates(panel: Panel, most: int = TRIED) -> list[Row]:
    """Return the rows worth trying: the best, all local, and the frame as it is."""
    ranked = [row for row in panel.ranked() if not row.excluded]
    chosen = ranked[:most]
    return chosen + [r for r in ranked[most:] if r.kind in ("local", "raw")]


def measured(
    exploration: Exploration,
    panel: Panel,
    subject: Subject,
    rows: Iterable[Row],
    *,
    frames: int = FRAMES,
    throughput: bool = False,
    slow: Callable[[int], None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Exploration:
    """Return the exploration with what `rows` of a panel took for real.

    Args:
        exploration: What was predicted.
        panel: Of it, with the links.
        subject: What was explored.
        rows: Of the panel; those that no deployment can do are left out.
        frames: Behind each latency.
        throughput: Measure frames per second as well.
        slow: Makes the process with this number as slow as the first device is
            modelled to be; without it that device may not be modelled.
        tell: Is told what is tried.

    Raises:
        MisuseError: Some device is modelled and not slowed, or a link differs in its
            directions.
        UnderstudyError: A device did not start.
    """
    _check(exploration.devices[slow is not None :], panel)
    stage = _Stage(
        subject,
        tuple(device.name for device in exploration.devices[1:]),
        tuple(device.profile.session for device in exploration.devices),
        panel.links,
        slow,
    )
    found = {}
    for row in rows:
        tell(row.label)
        with tempfile.TemporaryDirectory(prefix="explore-") as folder:
            try:
                found[row.number] = replace(
                    row,
                    measured=_tried(
                        stage, row, Path(folder), frames=frames, throughput=throughput
                    ),
                )  # fmt: skip
            except UnderstudyError as error:
                if isinstance(error, MisuseError):
                    raise
                tell(f"{row.label}: {error}")
    return exploration.with_rows(panel, found)


def _check(devices: Iterable[ExploredDevice], panel: Panel) -> None:
    for device in devices:
        if device.scaled:
            raise MisuseError(
                f"device '{device.name}': {device.scaled}; processes of this machine "
                "are not so slow, so measure without it"
            )
    for link in panel.links:
        if link.there_mbit_s != link.back_mbit_s:
            raise MisuseError(
                f"link '{link.name}': {link.there_mbit_s:g} there and "
                f"{link.back_mbit_s:g} back; the links of a trial carry the same both "
                "ways, give one rate"
            )


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where partitions are tried."""

    subject: Subject
    servers: tuple[str, ...]
    sessions: tuple[SessionFacts, ...]
    links: tuple[Link, ...]
    slow: Callable[[int], None] | None


def _tried(
    stage: _Stage, row: Row, folder: Path, *, frames: int, throughput: bool
) -> Measured:
    rate_hz = min(RATE_HZ_MAX, LOAD * 1e3 / row.cost.total_ms)
    script = Script(rate_hz, 4)
    seconds = (frames + WARM) / rate_hz
    results = _run(stage, row, folder / "latency", script, seconds)
    latencies = [r.latency_ms for r in results[WARM:] if r.status != "dropped"]
    if not latencies:
        raise UnderstudyError("no frame was answered; try it with `up`")
    fps = None
    if throughput:
        window = 4 + math.ceil(2 * row.cost.fps * row.cost.total_ms / 1e3)
        asked_hz = min(1000.0, EXCESS * row.cost.fps)
        script = Script(asked_hz, min(window, 256))
        results = _run(stage, row, folder / "rate", script, THROUGHPUT_S)
        fps = _fps(results)
    return Measured.of(latencies, fps=fps)


def _fps(results: Sequence[Result]) -> float | None:
    """Return answers per second, once the pipeline is full and before it drains."""
    ended = sorted(r.settled_s for r in results if r.status != "dropped")
    middle = ended[len(ended) // 4 :]
    if len(middle) < 2:
        return None
    return (len(middle) - 1) / (middle[-1] - middle[0])


def _run(
    stage: _Stage, row: Row, folder: Path, script: Script, seconds: float
) -> list[Result]:
    """Run a partition for so long; return what became of its frames, in order."""
    folder.mkdir(parents=True)
    file = write_deployment(
        folder,
        stage.subject,
        row,
        servers=stage.servers,
        sessions=stage.sessions,
        script=script,
    )
    run = folder / "run"
    hops = max(len(row.crossings), 1)
    plan = compile_deployment(file, run / PLAN_FOLDER, listen_base=free_ports(hops))
    keep_plan(plan, run)
    with _devices(stage, plan, run, seconds) as launcher:
        end_s = time.monotonic() + seconds + launcher.grace_s
        endpoint = next(d.name for d in plan.devices.values() if d.role == "endpoint")
        while launcher.running(endpoint) and time.monotonic() < end_s:
            time.sleep(TURN_S)
    return [result for stream in read_run(run).streams for result in stream.results]


@contextmanager
def _devices(
    stage: _Stage, plan: Plan, run: Path, seconds: float
) -> Iterator[Launcher]:
    """Start all devices of `plan`, its links shaped."""
    with breakable_links(plan, run) as (proxied, folders):
        for (_, listener), link in proxied.items():
            shape = stage.links[stage.servers.index(listener)]
            link.become(
                Condition(
                    bytes_per_s=shape.there_mbit_s * 1e6 / 8,
                    delay_s=shape.rtt_ms / 2e3,
                )
            )
        with Launcher(plan, run, seconds=seconds) as launcher:
            launcher.folders.update(folders)
            for role in ("server", "endpoint"):
                names = [d.name for d in plan.devices.values() if d.role == role]
                for name in names:
                    launcher.start(name)
                    pid = launcher.pid(name)
                    if role == "endpoint" and stage.slow is not None and pid:
                        stage.slow(pid)
                wait_ready(
                    launcher, names, READY_S if stage.slow is None else SLOW_READY_S
                )
            yield launcher
