"""`understudy split`."""

import json
from pathlib import Path

import click

from dataflow.errors import MisuseError
from understudy.commands.options import DIMS, PATH, sizes_of


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="List useless cuts too, and why.",
)
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option(
    "--at",
    multiple=True,
    metavar="TENSOR[,TENSOR]",
    help="Cut here, and there.",
)
@click.option(
    "--into", type=click.IntRange(2), metavar="N", help="Cut into N like parts."
)
@click.option("--per", type=click.Choice(["group"]), help="A part a layer group.")
@click.option("--output", type=PATH, metavar="FOLDER", help="Write the parts there.")
@click.option(
    "--input", "given", type=PATH, metavar="FILE.npz", help="Compare on these inputs."
)
@click.option("--no-verify", is_flag=True, help="Do not compare parts and whole.")
@DIMS
def split(
    model: Path,
    every: bool,
    as_json: bool,
    at: tuple[str, ...],
    into: int | None,
    per: str | None,
    output: Path | None,
    given: Path | None,
    no_verify: bool,
    dims: tuple[str, ...],
) -> None:
    """List where MODEL can be cut; or cut it, and check the parts.

    MODEL is an ONNX file; a cut, tensors that lead everything from inputs to outputs.
    Listed are bytes per frame, as computed, and in relation to the input as it is and
    as a picture of bytes, which is what sending raw input costs.

    Parts share one file of weights. They must compute the same bits as MODEL without
    optimisations, and the same up to 0.0001 of the maximum with all of them.

    Example: understudy split graphs/digits/digits.onnx
    """
    from understudy import splitting

    sizes = sizes_of(dims)
    ways = [name for name, way in (("--at", at), ("--into", into), ("--per", per))
            if way]  # fmt: skip
    if len(ways) > 1:
        raise MisuseError(f"{' and '.join(ways)}: give one of them")
    if not ways:
        if output or given or no_verify:
            raise MisuseError("--output: say where to cut, with --at, --into or --per")
        listed = splitting.listing(model, sizes)
        if as_json:
            click.echo(json.dumps(listed.to_json(), indent=1))
        else:
            click.echo(listed.text(every=every), nl=False)
        return
    if output is None:
        raise MisuseError(f"{ways[0]}: name a folder for the parts with --output")
    if no_verify and given:
        raise MisuseError("--input: nothing is compared with --no-verify")
    click.echo(
        splitting.write(
            splitting.Wanted(model, sizes, at, into),
            output,
            given=given,
            verify=not no_verify,
        ),
        nl=False,
    )
