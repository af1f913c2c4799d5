"""`understudy profile`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataflow.errors import UnderstudyError
from understudy.commands.ending import Stoppable, tell_native
from understudy.commands.options import PATH

if TYPE_CHECKING:
    from understudy.profile_file import Profile


def _anchors(_context: object, _parameter: object, text: str) -> int | None:
    """Return a number of cuts; None: all."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise click.BadParameter(f"'{text}' is neither a number nor 'all'")
    return int(text)


def _cores(_context: object, _parameter: object, text: str) -> tuple[int, ...]:
    from dataflow.cores import parse_cores

    try:
        return parse_cores(text) if text else ()
    except UnderstudyError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("model", type=PATH)
@click.option("-o", "--output", "out", type=PATH, help="Default: MODEL-NAME.json.")
@click.option("--name", default="", help="What to call this device; default: the host.")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Threads of a session.",
)
@click.option(
    "--cores",
    callback=_cores,
    default="",
    metavar="CORES",
    help="Run there only: 0-3 or 0,2.",
)
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Execution provider of onnxruntime; several: by preference.",
)
@click.option(
    "--anchors",
    callback=_anchors,
    default="5",
    metavar="N|all",
    show_default=True,
    help="Cuts to measure, beside those that may be best; the others are predicted.",
)
@click.option(
    "--input",
    "input_file",
    type=PATH,
    help="Measure with this frame: a .npz with an array called like each input.",
)
def profile(
    model: Path,
    out: Path | None,
    name: str,
    threads: int,
    cores: tuple[int, ...],
    providers: tuple[str, ...],
    anchors: int | None,
    input_file: Path | None,
) -> None:
    """Measure MODEL on this machine, wherever it can be cut.

    The file it writes is what `explore` reads.

    Example: understudy profile net.onnx --name pi --threads 4
    """
    from dataflow.cores import hold_to
    from understudy import profiling
    from understudy.profile_file import SessionFacts, check_writable, write_profile
    from understudy.progress import Progress

    name = name or profiling.host_name()
    out = out or Path(f"{model.stem}-{name}.json")
    check_writable(out)
    tell_native()
    hold_to(cores)
    wanted = profiling.Wanted(
        device=name,
        session=SessionFacts(threads, cores, providers or ("CPUExecutionProvider",)),
        anchors=anchors,
        input=input_file,
    )
    with Stoppable(), Progress() as progress:
        made = profiling.profile(model, wanted, progress.tell)
    write_profile(made, out)
    _show(made)
    click.echo(f"\n{out}")


def _show(profile: "Profile") -> None:
    from understudy.profile_text import profile_text

    click.echo(profile_text(profile), nl=False)
