"""`understudy demo`."""

from pathlib import Path

import click

from understudy.commands.ending import Stoppable, conclude, tell_native, writable
from understudy.commands.options import CODEC, JSON, RUN, Finite


@click.command()
@click.option(
    "--seconds",
    type=Finite(3, 3600),
    default=20.0,
    show_default=True,
    help="How long it streams.",
)
@click.option(
    "--endpoints",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Processes that have a camera and the head of the model.",
)
@click.option(
    "--servers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Processes that have the tail; each is killed once.",
)
@click.option(
    "--rate",
    type=Finite(1, 1000),
    default=50.0,
    show_default=True,
    help="Frames/s of each endpoint.",
)
@click.option(
    "--codec",
    type=CODEC,
    metavar="CODEC",
    default="none",
    show_default=True,
    help="How features cross: float16, int8, zstd, lz4, int8+zstd, …, auto.",
)
@JSON
@RUN
def demo(
    seconds: float,
    endpoints: int,
    servers: int,
    rate: float,
    codec: str,
    json_file: Path | None,
    run_folder: Path | None,
) -> None:
    """Kill servers on this machine, and see every frame answered.

    Example: understudy demo --servers 3 --codec int8
    """
    from understudy.demo import Scene, play
    from understudy.plans import new_run_folder

    writable(json_file)
    tell_native()
    folder = new_run_folder(run_folder, "demo")
    scene = Scene(seconds, endpoints, servers, rate, codec)
    with Stoppable():
        judged = play(scene, folder, click.echo)
    conclude(judged, json_file)
