"""`understudy check`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataflow.errors import MisuseError, UnderstudyError
from understudy.commands.options import DEPLOYMENT, PATH

if TYPE_CHECKING:
    from dataflow.failures import Required


@click.command()
@DEPLOYMENT
@click.option("--expand", is_flag=True, help="Print the plain graph behind it.")
@click.option("--plan", type=PATH, help="Write the compiled plan to this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--size", is_flag=True, help="Of a graph: the room that it needs.")
@click.option(
    "--layers", is_flag=True, help="Of a graph: each model as one actor a layer group."
)
@click.option(
    "--failures",
    type=click.IntRange(0, 2),
    help="Devices and links that may fail at once; 1 if not given.",
)
@click.option(
    "--require",
    "required",
    type=click.Choice(["full", "answered"]),
    help="What every stream must still get after each of those failures.",
)
def check(
    deployment: Path,
    expand: bool,
    plan: Path | None,
    as_json: bool,
    size: bool,
    layers: bool,
    failures: int | None,
    required: "Required | None",
) -> None:
    """Say whether DEPLOYMENT is sound, before anything runs.

    It also says who answers when a device or a link fails.

    A graph file, or an XML file of SDF3, may stand in its place: then its repetition
    vector, capacities, throughput and latency are printed.

    Example: understudy check graphs/digits/two-by-two.yaml --expand
    """
    from understudy import checking

    try:
        checked = checking.check(
            deployment, plan, size, failures=failures, required=required, layers=layers
        )
    except UnderstudyError as error:
        if as_json and not isinstance(error, MisuseError):
            click.echo(json.dumps(checking.refusal_json(error), indent=1))
        raise
    if expand:
        click.echo(checked.expanded(), nl=False)
    elif as_json:
        click.echo(json.dumps(checked.to_json(), indent=1))
    else:
        click.echo(checked.text(), nl=False)
    if isinstance(checked, checking.Checked):
        checked.enforce()
