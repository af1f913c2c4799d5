"""Being one device of a deployment, or a server of several, in this process."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from actors import behaviour
from dataflow.cast import Library
from dataflow.device import Device
from dataflow.options import Options
from dataflow.plan import Plan
from dataflow.plans import check_together
from understudy.plans import compile_deployment, keep_plan, new_run_folder
from understudy.run_folder import PLAN_FOLDER

if TYPE_CHECKING:
    from understudy.metrics import Address

CHAOS = "UNDERSTUDY_CHAOS"
"""`chaos` sets it: actors then do damage on its orders, see `sabotage`."""


def run_device(
    deployments: Sequence[Path],
    name: str,
    *,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    with_stdin: bool,
    metrics: "Address | None",
) -> int:
    """Run device `name` of `deployments` in this process; return the exit status.

    Its metrics are served at `metrics`, else where the deployment says, else nowhere.

    Raises:
        UnderstudyError: It cannot start, or one of its actors failed.
    """
    if run_folder is None:
        folder = new_run_folder(None, f"{deployments[0].stem}-{name}")
    else:
        folder = run_folder.resolve()  # it may hold the files of other devices

    def read() -> list[Plan]:
        # Devices that share a folder do not share a plan while it is being written.
        return [
            compile_deployment(
                path,
                folder / (f"{PLAN_FOLDER}-{name}" + (f"-{index}" if index else "")),
                device=name,
            )
            for index, path in enumerate(deployments)
        ]

    plan, *also = plans = read()
    check_together(plans, name)
    keep_plan(plan, folder)
    options = Options(
        run_folder=folder,
        insecure=insecure,
        seconds=seconds,
        stdin=with_stdin,
        reread=read,
    )
    library: Library = behaviour
    if CHAOS in os.environ:
        from understudy.sabotage import sabotaged

        library = sabotaged(behaviour, name)
    wanted = plan.device(name).metrics
    if metrics is None and wanted is None:
        return Device(plan, name, library=library, options=options, also=also).run()
    from understudy.metrics import MetricsServer, parse_address

    with MetricsServer(metrics or parse_address(str(wanted))) as server:
        options = replace(options, metrics=server.url)
        device = Device(plan, name, library=library, options=options, also=also)
        server.collect(device.samples)
        return device.run()
