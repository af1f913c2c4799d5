"""`understudy status`."""

import json
import sys
from pathlib import Path

import click

from understudy.commands.options import DEPLOYMENT


@click.command()
@DEPLOYMENT
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--as", "identity", help="Device whose key to use; default: any here.")
def status(deployment: Path, as_json: bool, identity: str | None) -> None:
    """Ask the listening devices of DEPLOYMENT how they are.

    Example: understudy status deployment.yaml
    """
    from understudy.status import ask_all, format_status

    answers = ask_all(deployment, identity)
    text = json.dumps(answers, indent=1) if as_json else format_status(answers)
    click.echo(text)
    sys.exit(0 if all("error" not in answer for answer in answers.values()) else 1)
