"""The demo: K_{m,n} on loopback, real kills, every frame answered."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dataflow.plan import Plan
from understudy.launch import Launcher, free_ports, wait_ready
from understudy.live import STOPPING, Live
from understudy.plans import compile_deployment
from understudy.run_folder import PLAN_FOLDER
from understudy.runs import Judged, finish
from understudy.summary import counted

ENDPOINTS, SERVERS = "cam", "edge"
"""Groups of the shipped deployment."""
END_S = 5.0
"""How long the endpoints may take to end after their last frame."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the demo plays."""

    seconds: float = 20.0
    endpoints: int = 2
    servers: int = 2
    rate_hz: float = 50.0
    codec: str = "none"


def shipped(name: str) -> Path:
    """Return the path of a shipped graph or deployment file."""
    return Path(str(files("graphs") / "digits" / name))


def compile_scene(scene: Scene, folder: Path) -> Plan:
    """Compile the shipped deployment, changed as `scene` says, on free ports."""
    return compile_deployment(
        shipped("two-by-two.yaml"),
        folder / PLAN_FOLDER,
        counts={ENDPOINTS: scene.endpoints, SERVERS: scene.servers},
        codec=scene.codec,
        params={"camera": {"rate_hz": scene.rate_hz}},
        listen_base=free_ports(scene.servers),
    )


def play(scene: Scene, folder: Path, say: Callable[[str], None]) -> Judged:
    """Play the demo in the run folder `folder`; return the judged run.

    One server is killed a third into the run, the others follow before its half, all
    come back at two thirds.

    Raises:
        UnderstudyError: A device did not start.
    """
    plan = compile_scene(scene, folder)
    servers = [d.name for d in plan.devices.values() if d.role == "server"]
    endpoints = [d.name for d in plan.devices.values() if d.role == "endpoint"]
    with Launcher(plan, folder, seconds=scene.seconds) as launcher:
        for name in (*servers, *endpoints):
            launcher.start(name)
        live = Live(launcher, say)
        try:
            wait_ready(launcher, [*servers, *endpoints])
            say(_opening(scene))
            live.begin()
            _act(scene, live, launcher, servers, endpoints)
        except KeyboardInterrupt:
            live.stopped = True
            say(STOPPING)
        live.end()
    return finish(folder, live)


def _opening(scene: Scene) -> str:
    return (
        f"{counted(scene.endpoints, 'endpoint')}, "
        f"{counted(scene.servers, 'server')}, {scene.rate_hz:g} frames/s each, "
        f"{scene.seconds:g} s; Ctrl-C ends it"
    )


def _act(
    scene: Scene,
    live: Live,
    launcher: Launcher,
    servers: list[str],
    endpoints: list[str],
) -> None:
    first_s, last_s = scene.seconds / 3, scene.seconds / 2
    for index, name in enumerate(servers):
        between = index / max(len(servers) - 1, 1)
        live.follow(first_s + between * (last_s - first_s))
        if launcher.running(name):
            launcher.kill(name)
            live.note(f"{name} killed with SIGKILL")
    live.follow(scene.seconds * 2 / 3)
    for name in servers:
        launcher.start(name)
    live.note(f"{', '.join(servers)} started again")
    live.follow(
        scene.seconds + END_S,
        lambda: not any(launcher.running(name) for name in endpoints),
    )
