"""Running all devices of a deployment on this host."""

from collections.abc import Callable
from pathlib import Path

from understudy.launch import Launcher, wait_ready
from understudy.live import STOPPING, Live
from understudy.plans import compile_deployment, keep_plan, new_run_folder
from understudy.run_folder import PLAN_FOLDER
from understudy.runs import Judged, finish

END_S = 5.0
"""How long the endpoints may take to end after `seconds`."""


def run_all(
    deployment: Path,
    *,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    say: Callable[[str], None],
) -> Judged:
    """Run all devices of `deployment` on this host until they end or Ctrl-C.

    Raises:
        UnderstudyError: A device did not start.
    """
    folder = new_run_folder(run_folder, deployment.stem)
    plan = compile_deployment(deployment, folder / PLAN_FOLDER)
    keep_plan(plan, folder)
    servers = [d.name for d in plan.devices.values() if d.role == "server"]
    endpoints = [d.name for d in plan.devices.values() if d.role == "endpoint"]
    with Launcher(plan, folder, seconds=seconds, insecure=insecure) as launcher:
        live = Live(launcher, say)
        try:
            # Servers first: where their port is taken by an earlier `up` of this
            # deployment, our endpoints must not dial its servers and take its sessions.
            for names in (servers, endpoints):
                for name in names:
                    launcher.start(name)
                wait_ready(launcher, names)
            ready = ", ".join([*servers, *endpoints])
            say(f"{plan.name}: {ready} are ready; Ctrl-C ends them")
            live.begin()
            live.follow(
                float("inf") if seconds is None else seconds + launcher.grace_s + END_S,
                lambda: not any(launcher.running(name) for name in endpoints),
            )
        except KeyboardInterrupt:
            live.stopped = True
            say(STOPPING)
        live.end()
    return finish(folder, live)
