"""`understudy profile`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow.errors import UnderstudyError
from understudy.commands.ending import Stoppable, tell_native
from understudy.commands.options import (
    DIMS,
    INSECURE,
    PATH,
    Finite,
    sectioned,
    sizes_of,
)

if TYPE_CHECKING:
    from understudy.link_profiling import Identity


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


@click.command(
    cls=sectioned(
        {
            "Of a model or of a link": "out name",
            "Of a model": "threads cores providers anchors input_file dims",
            "Of a link": "listen link seconds keys identity peer insecure",
        }
    )
)
@click.argument("model", type=PATH, required=False)
@click.option(
    "-o",
    "--output",
    "out",
    type=PATH,
    metavar="FILE",
    help="Default: MODEL-NAME.json or link-NAME.json.",
)
@click.option(
    "--name",
    default="",
    help="What to call this device, or the link; default: the host, or the peer.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
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
    metavar="FRAME.npz",
    help="Measure with this frame: an array called like each input.",
)
@DIMS
@click.option(
    "--listen", metavar="HOST:PORT", help="Answer there to who measures the link."
)
@click.option(
    "--link", metavar="HOST:PORT", help="Measure the link to who listens there."
)
@click.option(
    "--seconds",
    type=Finite(1, 86_400),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Listen for so long.",
)
@click.option(
    "--keys",
    type=PATH,
    metavar="FOLDER",
    help="CURVE keys, of `understudy keys new`.",
)
@click.option(
    "--as", "identity", default="", metavar="NAME", help="Whose of these keys is ours."
)
@click.option(
    "--peer", default="", metavar="NAME", help="Whose is that of the other side."
)
@INSECURE
def profile(
    model: Path | None,
    link: str | None,
    listen: str | None,
    out: Path | None,
    name: str,
    keys: Path | None,
    identity: str,
    **options: Any,
) -> None:
    """Measure MODEL on this machine, wherever it can be cut.

    Or measure a link: one machine listens, the other asks. The files are what `explore`
    reads.

    \b
    Examples: understudy profile net.onnx --name pi --threads 4
              understudy profile --listen 192.168.1.5:7100 --keys keys --as edge
              understudy profile --link 192.168.1.5:7100 --keys keys --as pi --peer edge
    """  # noqa: D301  (click reads it)
    from understudy.link_profiling import Identity

    if [model, link, listen].count(None) != 2:
        raise click.UsageError("give one of MODEL, --link and --listen")
    us = Identity(keys, identity)
    if listen is not None:
        _listen(listen, us, options["insecure"], options["seconds"])
    elif link is not None:
        _profile_link(link, us, options["peer"], out, name)
    elif model is not None:
        _profile_model(model, out, name, options)


def _listen(address: str, us: "Identity", insecure: bool, seconds: float) -> None:
    from understudy.link_profiling import listen

    with Stoppable():
        listen(address, us, insecure=insecure, seconds=seconds, tell=click.echo)


def _profile_link(
    address: str, us: "Identity", peer: str, out: Path | None, name: str
) -> None:
    from understudy.link_profiling import profile_link
    from understudy.profile_file import check_writable, write_profile
    from understudy.profile_text import link_text

    name = name or peer or re.sub(r"[^\w.-]+", "-", address)
    out = out or Path(f"link-{name}.json")
    check_writable(out)
    with Stoppable():
        made = profile_link(address, us, peer=peer, name=name)
    write_profile(made, out)
    click.echo(f"{link_text(made)}\nprofile: {out}")


def _profile_model(
    model: Path, out: Path | None, name: str, options: Mapping[str, Any]
) -> None:
    from dataflow.cores import hold_to
    from understudy import profiling
    from understudy.profile_file import SessionFacts, check_writable, write_profile
    from understudy.profile_text import profile_text
    from understudy.progress import Progress

    name = name or profiling.host_name()
    out = out or Path(f"{model.stem}-{name}.json")
    check_writable(out)
    tell_native()
    hold_to(options["cores"])
    providers = options["providers"] or ("CPUExecutionProvider",)
    wanted = profiling.Wanted(
        device=name,
        session=SessionFacts(options["threads"], options["cores"], providers),
        anchors=options["anchors"],
        input=options["input_file"],
        sizes=sizes_of(options["dims"]),
    )
    with Stoppable(), Progress() as progress:
        made = profiling.profile(model, wanted, progress.tell)
    write_profile(made, out)
    click.echo(f"{profile_text(made)}\nprofile: {out}")
