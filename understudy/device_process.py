"""Being one device of a deployment, in this process."""

from pathlib import Path

from actors import behaviour
from dataflow.device import Device, Options
from understudy.plans import compile_deployment, keep_plan, new_run_folder
from understudy.run_folder import PLAN_FOLDER


def run_device(
    deployment: Path,
    name: str,
    *,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    with_stdin: bool,
) -> int:
    """Run device `name` of `deployment` in this process; return the exit status.

    Raises:
        UnderstudyError: It cannot start, or one of its actors failed.
    """
    if run_folder is None:
        folder = new_run_folder(None, f"{deployment.stem}-{name}")
    else:
        folder = run_folder.resolve()  # it may hold the files of other devices
    # Devices that share a folder do not share a plan while it is being written.
    plan = compile_deployment(deployment, folder / f"{PLAN_FOLDER}-{name}", device=name)
    keep_plan(plan, folder)
    options = Options(
        run_folder=folder, insecure=insecure, seconds=seconds, stdin=with_stdin
    )
    return Device(plan, name, library=behaviour, options=options).run()
