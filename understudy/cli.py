"""The command line. It parses, calls and prints; what is done is done elsewhere."""

import json
import math
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dataflow.errors import MisuseError, UnderstudyError

if TYPE_CHECKING:
    from dataflow.failures import Required
    from understudy.runs import Judged

INTERRUPTED = 130
"""What shells know as ended by Ctrl-C."""
_LOCATED = re.compile(r".+?:\d+:\d+: ")
_DEVICE_NAME = re.compile(r"[A-Za-z_][\w.-]*")


class _Commands(click.Group):
    """Turns what went wrong into one message and the exit status it deserves."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        try:
            # Standalone, click would answer Ctrl-C with "Aborted!" and status 1.
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except UnderstudyError as error:
            # Lines that begin with file:line:column stay what an editor can follow.
            located = _LOCATED.match(str(error))
            click.echo(error if located else f"understudy: {error}", err=True)
            sys.exit(error.status)
        except (click.Abort, KeyboardInterrupt):
            _complain("stopped")
            sys.exit(INTERRUPTED)
        except OSError as error:
            if os.environ.get("UNDERSTUDY_DEBUG"):
                raise
            where = error.filename or "a file"
            _complain(
                f"{where}: {error.strerror}; check the path, its rights, the disk"
            )
            sys.exit(1)
        except Exception as error:
            if os.environ.get("UNDERSTUDY_DEBUG"):
                raise
            _complain(
                f"internal error: {error!r}; our fault, please report it with what "
                "UNDERSTUDY_DEBUG=1 prints"
            )
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they are defined here: in the order of use


class _Finite(click.FloatRange):
    """A range of finite numbers; click lets NaN through every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


_PATH = click.Path(path_type=Path)
_DEPLOYMENT = click.argument("deployment", type=_PATH)
_RUN = click.option(
    "--run", "run_folder", type=_PATH, help="Folder of the run; made if missing."
)
_SECONDS = click.option(
    "--seconds", type=_Finite(0), help="End the sources after so long."
)
_JSON = click.option("--json", "json_file", type=_PATH, help="Write the figures there.")
_INSECURE = click.option(
    "--insecure", is_flag=True, help="Listen beyond loopback without keys."
)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(package_name="understudy")
def main() -> None:
    """Partitioned DNN inference that keeps answering when devices die.

    Start with `understudy demo`. Exit status: 0 fine, 1 the answer is no, 2 misuse.
    """


@main.command()
@click.option(
    "--seconds",
    type=_Finite(3, 3600),
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
    type=_Finite(1, 1000),
    default=50.0,
    show_default=True,
    help="Frames/s of each endpoint.",
)
@click.option(
    "--codec",
    type=click.Choice(["none", "float16", "int8"]),
    default="none",
    show_default=True,
    help="How feature tokens cross the links.",
)
@_JSON
@_RUN
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

    _writable(json_file)
    _tell_native()
    folder = new_run_folder(run_folder, "demo")
    scene = Scene(seconds, endpoints, servers, rate, codec)
    with _Stoppable():
        judged = play(scene, folder, click.echo)
    _conclude(judged, json_file)


@main.command()
@_DEPLOYMENT
@click.option("--expand", is_flag=True, help="Print the plain graph behind it.")
@click.option("--plan", type=_PATH, help="Write the compiled plan to this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print for machines.")
@click.option("--size", is_flag=True, help="Of a graph: the room that it needs.")
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

    checked = checking.check(
        deployment, plan, size, failures=failures, required=required
    )
    if expand:
        click.echo(checked.expanded(), nl=False)
    elif as_json:
        click.echo(json.dumps(checked.to_json(), indent=1))
    else:
        click.echo(checked.text(), nl=False)
    if isinstance(checked, checking.Checked):
        checked.enforce()


@main.command()
@click.argument("file", type=_PATH)
@click.option("-o", "--output", "out", type=_PATH, help="Default: NAME.svg; -: print.")
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


@main.command()
@_DEPLOYMENT
@click.argument("name")
@_RUN
@_SECONDS
@_INSECURE
@click.option("--with-stdin", is_flag=True, help="End when standard input does.")
def device(
    deployment: Path,
    name: str,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    with_stdin: bool,
) -> None:
    """Run device NAME of DEPLOYMENT in this process.

    DEPLOYMENT is a YAML file, or a folder that `check --plan` wrote.

    Example: understudy device deployment.yaml edge.0
    """
    from understudy.device_process import run_device

    if not with_stdin:  # whoever started us with a pipe has told it
        _tell_native()
    sys.exit(
        run_device(
            deployment,
            name,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            with_stdin=with_stdin,
        )
    )


@main.command()
@_DEPLOYMENT
@_RUN
@_SECONDS
@_INSECURE
@_JSON
def up(
    deployment: Path,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    json_file: Path | None,
) -> None:
    """Run all devices of DEPLOYMENT on this host.

    Ctrl-C, and SIGTERM, end the sources; what is under way is still answered.

    Example: understudy up deployment.yaml --seconds 60
    """
    from understudy.running import run_all

    _writable(json_file)
    _tell_native()
    with _Stoppable():
        judged = run_all(
            deployment,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            say=click.echo,
        )
    _conclude(judged, json_file)


@main.command()
@_DEPLOYMENT
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


@main.command()
@click.argument("run_folder", metavar="RUN", type=_PATH)
@_JSON
def report(run_folder: Path, json_file: Path | None) -> None:
    """Judge the run in folder RUN again, and write its report.

    Example: understudy report runs/demo-20260101-120000
    """
    from understudy.runs import finish

    _writable(json_file)
    _conclude(finish(run_folder), json_file)


@main.group()
def keys() -> None:
    """CURVE keys: who may talk to whom."""


@keys.command("new")
@click.argument("names", nargs=-1, required=True)
@click.option("--folder", type=_PATH, default=Path("keys"), show_default=True)
def keys_new(names: tuple[str, ...], folder: Path) -> None:
    """Make a pair of keys for each device in NAMES.

    Copy the folder's NAME.key files to every device; NAME.key_secret stays on NAME.

    Example: understudy keys new cam.0 cam.1 edge.0 edge.1
    """
    from dataflow.wire.keys import new_keys

    for name in names:
        if not _DEVICE_NAME.fullmatch(name):
            raise MisuseError(
                f"device '{name}': not a name; write it as in the deployment, such as "
                "edge.0"
            )
    for name in names:
        public, secret = new_keys(folder, name)
        click.echo(f"{public} (copy it to every device), {secret} (keep it on {name})")


class _Stoppable:
    """Makes SIGTERM end a command as Ctrl-C does: orderly."""

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(text: str) -> None:
    click.echo(f"understudy: {text}", err=True)


def _tell_native() -> None:
    import native

    if native.fallback_reason is not None:
        _complain(
            f"tensor kernels: {native.fallback_reason}; NumPy does their work, slower, "
            "with equal results"
        )


def _writable(json_file: Path | None) -> None:
    """Refuse a file that cannot be written before a run, not after it."""
    if json_file is None:
        return
    folder = json_file.absolute().parent
    if json_file.is_dir() or not folder.is_dir():
        what = "is a folder" if json_file.is_dir() else f"no folder {folder}"
        raise MisuseError(f"{json_file}: {what}; name another file with --json")


def _conclude(judged: "Judged", json_file: Path | None) -> NoReturn:
    from understudy.runs import REPORT_FILE
    from understudy.summary import format_summary

    width = shutil.get_terminal_size((100, 24)).columns
    click.echo()
    click.echo(format_summary(judged.figures, judged.verdict, width), nl=False)
    if (judged.folder / REPORT_FILE).exists():
        click.echo(f"\nreport  {judged.folder / REPORT_FILE}")
    for text in judged.trouble:
        _complain(text)
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(judged.to_json(), indent=1) + "\n")
        except OSError as error:
            raise UnderstudyError(
                f"{json_file}: cannot be written ({error.strerror}); name another "
                "file, on a disk with room"
            ) from None
    sys.exit(0 if judged.good else 1)
