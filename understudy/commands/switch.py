"""`understudy switch`."""

from pathlib import Path

import click

from understudy.commands.options import DEPLOYMENT


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@DEPLOYMENT
def switch(run_folder: Path, deployment: Path) -> None:
    """Let the running RUN go on under DEPLOYMENT.

    RUN is the folder of an `understudy up`. DEPLOYMENT has the same streams; its cut,
    its codec, its servers and the order in which they take over may be others. It is
    loaded beside the plan that plays, and no frame is lost. A plan that cannot follow
    is refused, and the older one plays on.

    Example: understudy switch runs/lab-20250101-120000 other-cut.yaml
    """
    from understudy.switch import switch as switch_run

    switch_run(run_folder, deployment, click.echo)
