"""`understudy report`."""

from pathlib import Path

import click

from understudy.commands.ending import conclude, writable
from understudy.commands.options import JSON, PATH


@click.command()
@click.argument("run_folder", metavar="RUN", type=PATH)
@JSON
def report(run_folder: Path, json_file: Path | None) -> None:
    """Judge the run in folder RUN again, and write its report.

    Example: understudy report runs/demo-20260101-120000
    """
    from understudy.runs import finish

    writable(json_file)
    conclude(finish(run_folder), json_file)
