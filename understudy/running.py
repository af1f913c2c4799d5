"""Running all devices of a deployment on this host."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from understudy.launch import Launcher, wait_ready
from understudy.live import STOPPING, Live, Notes, Told, terminal_width
from understudy.plan_watch import PlanWatch
from understudy.plans import compile_deployment, keep_plan, new_run_folder
from understudy.run_folder import PLAN_FOLDER
from understudy.runs import Judged, finish

if TYPE_CHECKING:
    from understudy.metrics import Address

View = Literal["screen", "lines", "notes", "json"]
"""How a run is shown: a picture that is drawn again and again, a line a second, what
happens and nothing else, or what happens as JSON."""

END_S = 5.0
"""How long the endpoints may take to end after `seconds`."""


def run_all(
    deployment: Path,
    *,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    metrics: "Address | None",
    codec: str | None,
    view: View,
    say: Callable[[str], None],
) -> Judged:
    """Run all devices of `deployment` on this host until they end or Ctrl-C.

    Args:
        deployment: A deployment file, or a plan folder.
        run_folder: Where it is written; None: a new folder.
        seconds: How long the sources fire; None: until they end.
        insecure: Let devices listen beyond loopback without keys.
        metrics: Where the first device serves its metrics, if it is asked to.
        codec: Of every cut, in place of the file's; None: as it says.
        view: How it is shown.
        say: Prints a line.

    Raises:
        UnderstudyError: A device did not start.
    """
    folder = new_run_folder(run_folder, deployment.stem)
    plan = compile_deployment(deployment, folder / PLAN_FOLDER, codec=codec)
    keep_plan(plan, folder)
    servers = [d.name for d in plan.devices.values() if d.role == "server"]
    endpoints = [d.name for d in plan.devices.values() if d.role == "endpoint"]
    with Launcher(
        plan,
        folder,
        seconds=seconds,
        insecure=insecure,
        metrics=metrics,
        log_format="json" if view == "json" else "text",
    ) as launcher:
        live = _live(view, launcher, say)
        try:
            # Servers first: where their port is taken by an earlier `up` of this
            # deployment, our endpoints must not dial its servers and take its sessions.
            for names in (servers, endpoints):
                for name in names:
                    launcher.start(name)
                wait_ready(launcher, names)
            ready = ", ".join([*servers, *endpoints])
            if view != "json":
                say(f"{plan.name}: started {ready}; Ctrl-C ends the run")
            live.begin()
            watch = PlanWatch(launcher)

            def ended() -> bool:
                watch.look()
                return not any(launcher.running(name) for name in endpoints)

            live.follow(
                float("inf") if seconds is None else seconds + launcher.grace_s + END_S,
                ended,
            )
        except KeyboardInterrupt:
            live.stopped = True
            live.note(STOPPING)
        finally:
            live.end()
    return finish(folder, live)


def view_for(log_format: str, *, plain: bool) -> View:
    """Return how to show a run where standard output leads."""
    if log_format == "json":
        return "json"
    if plain:
        return "lines"
    if terminal_width() is None:
        return "notes"
    return "lines" if os.environ.get("TERM") == "dumb" else "screen"


def _live(view: View, launcher: Launcher, say: Callable[[str], None]) -> Live:
    match view:
        case "screen":
            from understudy.screen import Screen

            return Screen(launcher)
        case "notes":
            return Notes(launcher, say)
        case "json":
            return Told(launcher, say)
        case "lines":
            return Live(launcher, say)
