"""The command line. It parses, calls and prints; what is done is done elsewhere."""

import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dataflow.errors import MisuseError, UnderstudyError

if TYPE_CHECKING:
    from dataflow.failures import Required
    from understudy.log import Style
    from understudy.metrics import Address
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
            _complain(str(error))
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
_KEYS_FOLDER = click.option(
    "--folder", type=_PATH, default=Path("keys"), show_default=True
)
_METRICS = click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve Prometheus metrics there; a port alone: on this machine only.",
)
_LOG_FORMAT = click.option(
    "--log-format",
    "log_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it speaks: sentences, or one JSON object a line.",
)
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
    type=click.Choice(
        [
            "none",
            "zstd",
            "lz4",
            "float16",
            "float16+zstd",
            "float16+lz4",
            "int8",
            "int8+zstd",
            "int8+lz4",
        ]
    ),
    metavar="CODEC",
    default="none",
    show_default=True,
    help="How features cross: float16, int8, zstd, lz4, int8+zstd, …",
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
@click.argument("deployment", type=_PATH, required=False)
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


@main.command()
@click.argument(
    "deployments", metavar="DEPLOYMENT...", nargs=-1, required=True, type=_PATH
)
@click.argument("name")
@_RUN
@_SECONDS
@_INSECURE
@_METRICS
@_LOG_FORMAT
@click.option("--with-stdin", is_flag=True, help="End when standard input does.")
def device(
    deployments: tuple[Path, ...],
    name: str,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    metrics: str | None,
    log_format: "Style",
    with_stdin: bool,
) -> None:
    """Run device NAME of DEPLOYMENT in this process.

    DEPLOYMENT is a YAML file, or a folder that `check --plan` wrote; of that its
    plan.json is enough, segments that are not there are got from peers. A server may
    play in several deployments at once.

    Example: understudy device deployment.yaml edge.0
    """
    from understudy import log
    from understudy.device_process import run_device

    log.speak(log_format, name)
    if not with_stdin:  # whoever started us with a pipe has told it
        _tell_native()
    sys.exit(
        run_device(
            deployments,
            name,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            with_stdin=with_stdin,
            metrics=_metrics_address(metrics),
        )
    )


@main.command()
@_DEPLOYMENT
@_RUN
@_SECONDS
@_INSECURE
@_METRICS
@_LOG_FORMAT
@click.option("--plain", is_flag=True, help="Print a line a second, in any case.")
@_JSON
def up(
    deployment: Path,
    run_folder: Path | None,
    seconds: float | None,
    insecure: bool,
    metrics: str | None,
    log_format: "Style",
    plain: bool,
    json_file: Path | None,
) -> None:
    """Run all devices of DEPLOYMENT on this host.

    A terminal shows how they are; a pipe gets what happens and the summary. Ctrl-C, and
    SIGTERM, end the sources; what is under way is still answered. With --metrics the
    first device is on that port, each further one on the next.

    Example: understudy up deployment.yaml --seconds 60 --metrics 9100
    """
    from understudy import log
    from understudy.running import run_all, view_for

    if log_format == "json":
        log.speak(log_format, "launcher")
    _writable(json_file)
    _tell_native()
    with _Stoppable():
        judged = run_all(
            deployment,
            run_folder=run_folder,
            seconds=seconds,
            insecure=insecure,
            metrics=_metrics_address(metrics),
            view=view_for(log_format, plain=plain),
            say=click.echo,
        )
    _conclude(judged, json_file, spoken=log_format == "json")


@main.command()
@_DEPLOYMENT
@click.option(
    "--minutes",
    type=_Finite(0.1, 1440),
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
@_RUN
@_INSECURE
@_JSON
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
    _writable(json_file)
    _tell_native()
    with _Stoppable():
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
    _tell_report(judged)
    _end(judged, json_file, damage.to_json())


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
@_KEYS_FOLDER
def keys_new(names: tuple[str, ...], folder: Path) -> None:
    """Make a pair of keys for each device in NAMES.

    Copy the folder's NAME.key files to every device; NAME.key_secret stays on NAME.

    Example: understudy keys new cam.0 cam.1 edge.0 edge.1
    """
    from dataflow.wire.keys import new_keys

    for name in _device_names(names):
        public, secret = new_keys(folder, name)
        click.echo(f"{public} (copy it to every device), {secret} (keep it on {name})")


@keys.command("rotate")
@click.argument("name")
@_KEYS_FOLDER
def keys_rotate(name: str, folder: Path) -> None:
    """Make the next key of NAME; both are valid until the old one is retired.

    Running devices read their folder again when a file in it changes.

    Example: understudy keys rotate cam.0
    """
    from dataflow.wire.keys import rotate_key

    (name,) = _device_names([name])
    public, _ = rotate_key(folder, name)
    click.echo(
        f"{public} (copy it to every device; then `understudy keys switch {name}`, "
        "here first)"
    )


@keys.command("switch")
@click.argument("name")
@_KEYS_FOLDER
def keys_switch(name: str, folder: Path) -> None:
    """Put the next key of NAME into use; the old one stays valid.

    Example: understudy keys switch cam.0
    """
    from dataflow.wire.keys import switch_key

    (name,) = _device_names([name])
    switch_key(folder, name)
    click.echo(
        f"{folder}: '{name}' uses its next key; when it does so everywhere, "
        f"`understudy keys retire {name}` everywhere"
    )


@keys.command("retire")
@click.argument("name")
@_KEYS_FOLDER
def keys_retire(name: str, folder: Path) -> None:
    """Forget the old key of NAME: connections with it end.

    Example: understudy keys retire cam.0
    """
    from dataflow.wire.keys import retire_key

    (name,) = _device_names([name])
    retire_key(folder, name)
    click.echo(f"{folder}: '{name}' has one key again")


def _device_names(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not _DEVICE_NAME.fullmatch(name):
            raise MisuseError(
                f"device '{name}': not a name; write it as in the deployment, such as "
                "edge.0"
            )
    return names


class _Stoppable:
    """Makes SIGTERM end a command as Ctrl-C does: orderly."""

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(text: str) -> None:
    from understudy import log

    if not log.complain(text):
        # Lines that begin with file:line:column stay what an editor can follow.
        located = _LOCATED.match(text)
        click.echo(text if located else f"understudy: {text}", err=True)


def _metrics_address(text: str | None) -> "Address | None":
    if text is None:
        return None
    from understudy.metrics import parse_address

    return parse_address(text)


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


def _conclude(
    judged: "Judged", json_file: Path | None, *, spoken: bool = False
) -> NoReturn:
    """Print the summary, or let the log tell the verdict, and end."""
    from understudy import log
    from understudy.summary import format_summary, promise_text

    if spoken:
        log.tell(f"{promise_text(judged.verdict)}; see {judged.folder}")
        _end(judged, json_file, judged.to_json())
    width = shutil.get_terminal_size((100, 24)).columns
    click.echo()
    click.echo(format_summary(judged.figures, judged.verdict, width), nl=False)
    _tell_report(judged)
    _end(judged, json_file, judged.to_json())


def _tell_report(judged: "Judged") -> None:
    from understudy.runs import REPORT_FILE

    if (judged.folder / REPORT_FILE).exists():
        click.echo(f"\nreport  {judged.folder / REPORT_FILE}")


def _end(judged: "Judged", json_file: Path | None, figures: dict[str, Any]) -> NoReturn:
    """Say what went wrong, write a run's figures, and leave with its status."""
    for complaint in (*judged.trouble, *judged.unwritten):
        _complain(complaint)
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(figures, indent=1) + "\n")
        except OSError as error:
            raise UnderstudyError(
                f"{json_file}: cannot be written ({error.strerror}); name another "
                "file, on a disk with room"
            ) from None
    sys.exit(0 if judged.good else 1)
