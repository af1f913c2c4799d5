"""`understudy device`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.commands.ending import tell_native
from understudy.commands.options import (
    INSECURE,
    LOG_FORMAT,
    METRICS,
    PATH,
    RUN,
    SECONDS,
    metrics_address,
)

if TYPE_CHECKING:
    from understudy.log import Style


@click.command()
@click.argument(
    "deployments", metavar="DEPLOYMENT...", nargs=-1, required=True, type=PATH
)
@click.argument("name")
@RUN
@SECONDS
@INSECURE
@METRICS
@LOG_FORMAT
@click.option("--with-stdin", is_flag=True, help="End when standard input does.")
def device(
    deployments: tuple[Path, ...],
    name: str,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    metrics: str | None,
    log_format: "Style",
    with_stdin: bool,
) -> None:
    """Run device NAME of DEPLOYMENT in this process.

    DEPLOYMENT is a YAML file, or a folder that `check --plan` wrote; of that its
    plan.json is enough, segments that are not there are got from peers. A server may
    play in several deployments at once.

    Example: understudy device deployment.yaml edge.0
    """
    from understudy import log
    from understudy.device_process import run_device

    log.speak(log_format, name)
    if not with_stdin:  # whoever started us with a pipe has told it
        tell_native()
    sys.exit(
        run_device(
            deployments,
            name,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            with_stdin=with_stdin,
            metrics=metrics_address(metrics),
        )
    )
