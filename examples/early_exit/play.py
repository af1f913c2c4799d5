"""One run of the gated digits deployment with real devices, and what it comes down to.

Scenes: `alone`, one endpoint and one server; `killed`, one endpoint and two servers, of
which the one that serves gets SIGKILL when half of the frames are answered; `link`, one
endpoint and one server behind a link of a stated rate.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dataflow.errors import UnderstudyError
from dataflow.parts import stream_parts
from dataflow.plan import Plan, write_plan
from dataflow.wire.header import HEADER_BYTES
from understudy.demo import shipped
from understudy.launch import Launcher, Tail, free_ports, wait_ready
from understudy.plans import compile_deployment
from understudy.promise import judge
from understudy.proxy import HOST, Condition, Proxy
from understudy.records import Result
from understudy.run_folder import PLAN_FOLDER, read_run

DEPLOYMENT = "gated-two-by-two.yaml"
ENDPOINT, SERVER = "cam.0", "edge.0"
GATE, EXIT = "sure", "exit"
SERVERS = {"alone": 1, "killed": 2, "link": 1}
"""Of each scene."""
LIMIT_S = 30.0
"""How long a run may take beyond its frames."""
TURN_S = 0.01


@dataclass(frozen=True, slots=True)
class Scene:
    """What is run."""

    name: str
    threshold: float
    frames: int
    rate_hz: float
    bits_per_s: float = math.inf
    """Of the link to the server."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One answered frame."""

    who: str
    """`exit`, `server` or, with no server left, `early`."""
    latency_ms: float
    right: bool
    asked: int
    """Servers that it was sent to."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a run comes down to."""

    frames: tuple[Frame, ...]
    there_bytes: int
    """Of one attempt at a server: the header and the tensors of the cut."""
    back_bytes: int
    """Of one answer: the header and the tensor."""
    link_bytes: int | None
    """All that went to the server on a link's connections, where there was a link."""
    cpu_ms: float
    """Processor time of the endpoint's process per frame, all of its threads."""


def play(scene: Scene, folder: Path) -> Played:
    """Play `scene` in the run folder `folder`.

    Raises:
        UnderstudyError: A device did not start, or the promise was not kept.
    """
    servers = SERVERS[scene.name]
    port = free_ports(servers + 1)
    plan = compile_deployment(
        shipped(DEPLOYMENT),
        folder / PLAN_FOLDER,
        counts={"cam": 1, "edge": servers},
        params={
            "camera": {"rate_hz": scene.rate_hz, "frames": scene.frames},
            GATE: {"threshold": scene.threshold},
        },
        listen_base=port,
    )
    link = None
    with ExitStack() as stack:
        if scene.name == "link":
            dialled = port + servers
            proxy = stack.enter_context(Proxy())
            link = proxy.link(port=dialled, target=port)
            link.become(Condition(bytes_per_s=scene.bits_per_s / 8))
            plan = _behind(plan, dialled)
        cpu_ms = _run(scene, plan, folder)
    there, back = token_bytes(plan)
    link_bytes = link.forth_bytes if link else None
    return Played(_frames(folder), there, back, link_bytes, cpu_ms)


def token_bytes(plan: Plan) -> tuple[int, int]:
    """Return the bytes of one attempt at a server, there and back, with headers."""
    (part,) = stream_parts(plan.graph, ENDPOINT)
    remote = next(branch for branch in part.branches if branch.sent)
    return (
        HEADER_BYTES + sum(token.nbytes for token in remote.sent),
        HEADER_BYTES + sum(token.nbytes for token in remote.received),
    )


def _behind(plan: Plan, port: int) -> Plan:
    """Return the plan with its server dialled at `port`."""
    server = replace(plan.devices[SERVER], connect=f"tcp://{HOST}:{port}")
    plan = replace(plan, devices={**plan.devices, SERVER: server})
    write_plan(plan)
    return plan


def _run(scene: Scene, plan: Plan, folder: Path) -> float:
    """Run all devices until the endpoint ends; return its processor ms per frame."""
    tail = Tail(folder)
    used: list[tuple[int, float]] = []
    answered = pid = 0
    with Launcher(plan, folder) as launcher:
        for names in ([n for n in plan.devices if n != ENDPOINT], [ENDPOINT]):
            for name in names:
                launcher.start(name)
            wait_ready(launcher, names)
        end_s = time.monotonic() + scene.frames / scene.rate_hz + LIMIT_S
        while launcher.running(ENDPOINT):
            for _, record in tail.news():
                answered += "status" in record and "frame" in record
                if (record.get("event"), record.get("target")) == ("start", ENDPOINT):
                    pid = record["pid"]
            half = scene.name == "killed" and answered >= scene.frames // 2
            if half and launcher.running(SERVER):
                launcher.kill(SERVER)
            if (processor_s := _processor_s(pid)) is not None:
                used.append((answered, processor_s))
            if time.monotonic() > end_s:
                raise UnderstudyError(
                    f"{folder}: {answered} of {scene.frames} frames answered, and "
                    f"{LIMIT_S:g} s more than they take are over; see log-*.txt there"
                )
            time.sleep(TURN_S)
    if not used:
        return math.nan  # over before the first look
    (first, first_s) = used[0]
    # The time of a thread that has ended is gone from the sum, at the very end.
    (last, last_s) = max(used, key=lambda sample: sample[1])
    return (last_s - first_s) / max(last - first, 1) * 1e3


def _processor_s(pid: int) -> float | None:
    """Return the processor time of a process, all threads; None if it has ended."""
    try:
        tasks = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return None


def _frames(folder: Path) -> tuple[Frame, ...]:
    run = read_run(folder)
    verdict = judge(run)
    if not verdict.kept:
        raise UnderstudyError("\n".join(verdict.violations))
    (record,) = run.streams
    return tuple(map(_frame, record.results))


def _frame(result: Result) -> Frame:
    served = result.status == "full" and result.row != EXIT
    return Frame(
        who="server" if served else result.row,
        latency_ms=result.latency_ms,
        right=result.answers == result.labels,
        # Where no server is left, the last attempt is the endpoint's own.
        asked=result.attempts - (result.status == "degraded"),
    )


def right_share(frames: Sequence[Frame]) -> float:
    return sum(frame.right for frame in frames) / len(frames)
