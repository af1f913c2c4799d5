"""`understudy chaos`."""

import shutil
from pathlib import Path

import click

from understudy.commands.ending import (
    Stoppable,
    end,
    tell_native,
    tell_report,
    writable,
)
from understudy.commands.options import DEPLOYMENT, INSECURE, JSON, RUN, Finite


@click.command()
@DEPLOYMENT
@click.option(
    "--minutes",
    type=Finite(0.1, 1440),
    default=2.0,
    show_default=True,
    help="How long it streams.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Draws the faults."
)
@click.option(
    "--faults",
    default="",
    metavar="A,B,…",
    help="Kinds of faults; default: all. `--faults list` says them.",
)
@RUN
@INSECURE
@JSON
def chaos(
    deployment: Path,
    minutes: float,
    seed: int,
    faults: str,
    run_folder: Path | None,
    insecure: bool,
    json_file: Path | None,
) -> None:
    """Run DEPLOYMENT on this host, and break it.

    Devices are killed, stopped and hung, links cut, silenced and slowed, disks filled,
    by a schedule that the seed makes: the same seed does the same again.

    Example: understudy chaos deployment.yaml --minutes 5 --seed 7 --faults kill,cut
    """
    from understudy.chaos import Script, play
    from understudy.chaos_report import format_damage
    from understudy.chaos_schedule import describe_kinds, known_kinds

    if faults == "list":
        click.echo(describe_kinds(), nl=False)
        return
    kinds = known_kinds([name.strip() for name in faults.split(",") if name.strip()])
    writable(json_file)
    tell_native()
    with Stoppable():
        judged, damage = play(
            deployment,
            Script(minutes * 60, seed, kinds),
            run_folder=run_folder,
            insecure=insecure,
            say=click.echo,
        )
    width = shutil.get_terminal_size((100, 24)).columns
    click.echo()
    click.echo(format_damage(damage, judged, width), nl=False)
    tell_report(judged)
    end(judged, json_file, damage.to_json())
