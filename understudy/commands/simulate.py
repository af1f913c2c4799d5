"""`understudy simulate`."""

import json
import shutil
import sys
from pathlib import Path

import click

from dataflow.errors import MisuseError
from understudy.commands.ending import INTERRUPTED
from understudy.commands.options import PATH


@click.command()
@click.argument("deployment", type=PATH, required=False)
@click.option("--seeds", type=click.IntRange(1), help="Runs; 1000, or 1 with --seed.")
@click.option("--seed", type=click.IntRange(0), help="The first of them; default 0.")
@click.option(
    "--frames",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="Frames of each stream while faults come; some follow until all is well.",
)
@click.option("--faults", metavar="NAMES", help="Draw from these; none: no faults.")
@click.option("--keep", metavar="NUMBERS", help="Of a run's faults, keep only these.")
@click.option("--endpoints", type=click.IntRange(1, 10_000), help="Without DEPLOYMENT.")
@click.option("--servers", type=click.IntRange(1, 1_000), help="Without DEPLOYMENT.")
@click.option("--trace", "traced", is_flag=True, help="Print what happens in one run.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
def simulate(
    deployment: Path | None,
    seeds: int | None,
    seed: int | None,
    frames: int,
    faults: str | None,
    keep: str | None,
    endpoints: int | None,
    servers: int | None,
    traced: bool,
    as_json: bool,
) -> None:
    """Try DEPLOYMENT in thousands of failures, in virtual time.

    Its streams, rows, windows and deadlines are run by the same state machines as in a
    device, over a network and clocks that a seed draws; every promise is checked.
    Without DEPLOYMENT the seeds draw topologies K_{m,n} and streams, too.

    Example: understudy simulate graphs/digits/two-by-two.yaml --seeds 500
    """
    from understudy import simulating

    number = seeds or (1000 if seed is None else 1)
    if deployment is not None and (endpoints or servers):
        raise MisuseError(
            f"{deployment}: says how many devices there are; give --endpoints and "
            "--servers without it, or change `count` there"
        )
    wish = simulating.Wish(
        deployment,
        seed=seed or 0,
        seeds=number,
        frames=frames,
        faults=simulating.parse_faults(faults),
        kept=simulating.parse_kept(keep),
        endpoints=endpoints,
        servers=servers,
    )
    if traced:
        if number != 1 or as_json:
            raise MisuseError("--trace: prints one run; give --seed only")
        sys.exit(simulating.trace(wish))
    simulated = simulating.run(wish)
    if as_json:
        click.echo(json.dumps(simulated.to_json(), indent=1))
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        click.echo(simulated.text(width), nl=False)
    if simulated.tally.stopped:
        sys.exit(INTERRUPTED)
    sys.exit(0 if simulated.kept else 1)
