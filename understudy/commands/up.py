"""`understudy up`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.commands.ending import Stoppable, conclude, tell_native, writable
from understudy.commands.options import (
    CODEC,
    DEPLOYMENT,
    INSECURE,
    JSON,
    LOG_FORMAT,
    METRICS,
    RUN,
    SECONDS,
    metrics_address,
)

if TYPE_CHECKING:
    from understudy.log import Style


@click.command()
@DEPLOYMENT
@RUN
@SECONDS
@INSECURE
@METRICS
@LOG_FORMAT
@click.option(
    "--codec",
    type=CODEC,
    metavar="CODEC",
    help="How tensors cross every cut, in place of what DEPLOYMENT says.",
)
@click.option("--plain", is_flag=True, help="Print a line a second, in any case.")
@JSON
def up(
    deployment: Path,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    metrics: str | None,
    log_format: "Style",
    codec: str | None,
    plain: bool,
    json_file: Path | None,
) -> None:
    """Run all devices of DEPLOYMENT on this host.

    A terminal shows how they are; a pipe gets what happens and the summary. Ctrl-C, and
    SIGTERM, end the sources; what is under way is still answered. With --metrics the
    first device is on that port, each further one on the next.

    Example: understudy up deployment.yaml --seconds 60 --metrics 9100
    """
    from understudy import log
    from understudy.running import run_all, view_for

    if log_format == "json":
        log.speak(log_format, "launcher")
    writable(json_file)
    tell_native()
    with Stoppable():
        judged = run_all(
            deployment,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            metrics=metrics_address(metrics),
            codec=codec,
            view=view_for(log_format, plain=plain),
            say=click.echo,
        )
    conclude(judged, json_file, spoken=log_format == "json")
