"""`understudy draw`."""

from pathlib import Path

import click

from understudy.commands.options import PATH


@click.command()
@click.argument("file", type=PATH)
@click.option("-o", "--output", "out", type=PATH, help="Default: NAME.svg; -: print.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["svg", "mermaid", "dot"]),
    help="Default: by the ending of the output, .svg, .mmd or .dot.",
)
@click.option("--mode", "modes", multiple=True, metavar="DPG=MODE", help="Show it.")
@click.option(
    "--failure", "failed", multiple=True, metavar="DEVICE", help="Show what it takes."
)
def draw(
    file: Path,
    out: Path | None,
    kind: str | None,
    modes: tuple[str, ...],
    failed: tuple[str, ...],
) -> None:
    """Draw FILE: a deployment, a graph file or a plan folder.

    It need not be sound. What is off in the modes given, or after the failures, is
    grey.

    Example: understudy draw graphs/digits/two-by-two.yaml --failure edge.0
    """
    from understudy import draw as drawing

    kind = drawing.format_for(out, kind)
    text = drawing.draw(file, kind, modes, failed)
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    out = out or drawing.default_file(file, kind)
    drawing.write(out, text)
    click.echo(out)
