"""`understudy explore`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataflow.errors import MisuseError
from understudy.commands.ending import Stoppable, folder_can_be, writable, write_file
from understudy.commands.options import PATH, Finite, sectioned

if TYPE_CHECKING:
    from understudy.exploration import Exploration
    from understudy.explore_subject import Subject


@click.command(
    cls=sectioned(
        {
            "What is there": "endpoint server chain links slow power run_folder",
            "What is wanted": "objective codec require max_endpoint_ms max_memory pins",
            "Of a frame": "answer_bytes jpeg_bytes exit_share exit_ms",
            "What comes out": (
                "everything report_folder folder measure input_file live_run csv_file "
                "json_file"
            ),
        }
    )
)
@click.argument("model", type=PATH)
@click.option(
    "--endpoint", type=PATH, metavar="PROFILE", help="Of the device with the input."
)
@click.option("--server", type=PATH, metavar="PROFILE", help="Of the other device.")
@click.option(
    "--device",
    "chain",
    multiple=True,
    metavar="NAME=PROFILE",
    help="In place of those two: each device of a chain, with a --link between "
    "every two.",
)
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="RATE,RTT",
    help="16mbit,5ms; or 2/20mbit,30ms, there and back; or home=16mbit,5ms; or the "
    "file of a measured link. Each gives a table. Without RTT: 0 ms.",
)
@click.option(
    "--slow",
    type=Finite(0, min_open=True),
    metavar="FACTOR",
    help="Take the endpoint for so many times slower than its profile.",
)
@click.option(
    "--power", metavar="WATTS", help="endpoint=3.5W,idle=1.2W,radio=0.8W,server=40W."
)
@click.option(
    "--from",
    "run_folder",
    type=PATH,
    metavar="RUN",
    help="Take times, rates and exits as the run in this folder has seen them.",
)
@click.option(
    "--objective",
    default="latency",
    show_default=True,
    metavar="NAMES",
    help="What is to be small: latency, throughput (ms between frames), endpoint-time, "
    "endpoint-energy (mJ), bytes (kB); or a sum with weights: latency=1,bytes=0.2.",
)
@click.option(
    "--codec",
    default="lossless",
    show_default=True,
    metavar="CODEC",
    help="lossless or any: the best of these for each cut; or none, zstd, int8, "
    "float16+lz4, …",
)
@click.option(
    "--require",
    type=click.Choice(["no-raw-input"]),
    help="The input must not leave the endpoint.",
)
@click.option(
    "--max-endpoint-ms",
    type=Finite(0),
    metavar="MS",
    help="Most that the endpoint may work on a frame.",
)
@click.option(
    "--max-memory",
    multiple=True,
    metavar="[SIDE=]MB",
    help="Most memory for weights and activations, of the endpoint unless it says "
    "server=MB.",
)
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="NODE=SIDE",
    help="This node, or what makes this tensor, must run on endpoint or server.",
)
@click.option(
    "--answer-bytes",
    type=click.IntRange(0),
    metavar="BYTES",
    help="What comes back of a frame. Default: all outputs of the model.",
)
@click.option(
    "--jpeg-bytes",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Size of a frame as JPEG: sending that is looked at, too.",
)
@click.option(
    "--exit-share",
    type=Finite(0, 1),
    metavar="SHARE",
    help="Share of the frames, 0 to 1, that the early exit of a graph file answers.",
)
@click.option(
    "--exit-ms",
    type=Finite(0),
    metavar="MS",
    help="What that exit takes on the endpoint; default: its share of the network's "
    "time, timed here.",
)
@click.option("--all", "everything", is_flag=True, help="Print every partition.")
@click.option(
    "--report",
    "report_folder",
    type=PATH,
    metavar="FOLDER",
    help="Write a page with all tables and plots there; plots also as SVG and PDF.",
)
@click.option(
    "--write",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="Write a deployment of what is recommended there, for `understudy up`.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Run the best, all local and the raw frame, as processes here, links shaped.",
)
@click.option(
    "--input",
    "input_file",
    type=PATH,
    metavar="FRAME.npz",
    help="What --write and --measure play, as given to `profile`. Default: made up.",
)
@click.option(
    "--on",
    "live_run",
    type=PATH,
    metavar="RUN",
    help="Play the best on the devices of that run, which is up, and switch it back.",
)
@click.option(
    "--csv", "csv_file", type=PATH, metavar="FILE", help="Write a line a partition."
)
@click.option(
    "--json", "json_file", type=PATH, metavar="FILE", help="Write all that is known."
)
def explore(
    model: Path,
    endpoint: Path | None,
    server: Path | None,
    chain: tuple[str, ...],
    links: tuple[str, ...],
    objective: str,
    codec: str,
    require: str | None,
    max_endpoint_ms: float | None,
    max_memory: tuple[str, ...],
    pins: tuple[str, ...],
    power: str | None,
    run_folder: Path | None,
    slow: float | None,
    jpeg_bytes: int | None,
    answer_bytes: int | None,
    exit_share: float | None,
    exit_ms: float | None,
    folder: Path | None,
    measure: bool,
    input_file: Path | None,
    live_run: Path | None,
    everything: bool,
    json_file: Path | None,
    csv_file: Path | None,
    report_folder: Path | None,
) -> None:
    """Say where to cut MODEL between two devices, and what that gains.

    Every cut is looked at, and so are all local, all remote, and sending the frame as
    it is. Times come from `understudy profile`; nothing runs, unless --measure or
    --on is given. Exit status 1: the constraints exclude everything. A graph file may
    stand in place of MODEL: then its early exit counts.

    \b
    Example: understudy explore net.onnx --endpoint net-pi.json \\
                 --server net-lab.json --link 16mbit,5ms --report out --write best
    """  # noqa: D301  (click reads it)
    from understudy import explore_words as words
    from understudy.constraints import Constraints
    from understudy.explore_subject import read_subject, showing
    from understudy.explore_text import show
    from understudy.explored_deployment import write_best
    from understudy.exploring import Wish
    from understudy.exploring import explore as explored

    writable(json_file)
    writable(csv_file, "--csv")
    for place in (report_folder, folder):
        folder_can_be(place)
    profiles = _profiles(endpoint, server, chain)
    first = next(iter(profiles))
    devices = words.read_devices(profiles, {} if slow is None else {first: slow})
    subject = read_subject(model, devices[0].profile.model.dims)
    if input_file is not None:
        if folder is None and not measure:
            raise MisuseError("--input: nothing shows it without --write or --measure")
        subject = showing(subject, input_file)
    found = [words.parse_link(link) for link in links]
    early = None
    if run_folder is not None:
        from understudy.explore_run import early_exit_of, scaled, seen

        was = seen(run_folder, subject)
        devices = scaled(devices, subject, was)
        found = found or ([was.link] if was.link else [])
        early = early_exit_of(subject, was) if exit_share is None else None
    elif live_run is not None and not found:
        from understudy.explore_run import seen

        link = seen(live_run, subject).link
        found = [] if link is None else [link]
    if early is None:
        early = words.early_exit(subject, exit_share, exit_ms, devices[0])
    wish = Wish(
        devices=devices,
        links=[found] if chain else [[link] for link in found],
        weights=words.parse_weights(objective),
        codecs=words.parse_codecs(codec),
        constraints=Constraints(
            no_raw_input=require == "no-raw-input",
            endpoint_ms_max=max_endpoint_ms,
            memory_mb_max=words.parse_memory(max_memory),
            pins=words.parse_pins(pins),
        ),
        power=None if power is None else words.parse_power(power),
        answer_bytes=answer_bytes,
        jpeg_bytes=jpeg_bytes,
        exit=early,
        run="" if run_folder is None else str(run_folder),
    )
    result = explored(subject.model, wish)
    if measure:
        result = _measured(result, subject)
    if live_run is not None:
        result = _played(result, subject, live_run)
    show(result, everything=everything)
    if json_file is not None:
        write_file(json_file, json.dumps(result.to_json(), indent=1) + "\n")
    if csv_file is not None:
        write_file(csv_file, result.to_csv())
    if report_folder is not None:
        from understudy.explore_page import write_folder

        click.echo(f"\nreport: {write_folder(result, report_folder)}")
    if folder is not None:
        click.echo(f"\nrun it: understudy up {write_best(folder, subject, result)}")
    sys.exit(0 if all(panel.best for panel in result.panels) else 1)


def _measured(result: "Exploration", subject: "Subject") -> "Exploration":
    """Run the candidates of every panel."""
    from understudy.explore_measure import candidates, measured

    with Stoppable():
        for number in range(len(result.panels)):
            panel = result.panels[number]
            rows = candidates(panel)

            def tell(text: str, name: str = panel.name) -> None:
                click.echo(f"{name}: {text}", err=True)

            result = measured(result, panel, subject, rows, throughput=True, tell=tell)
    return result


def _played(
    result: "Exploration", subject: "Subject", run_folder: Path
) -> "Exploration":
    """Play the candidates of the first panel on the devices of a run."""
    from understudy.explore_played import played, to_play

    panel = result.panels[0]
    with Stoppable():
        return played(
            result,
            panel,
            subject,
            to_play(panel),
            run_folder,
            tell=lambda text: click.echo(f"{run_folder}: {text}", err=True),
        )


def _profiles(
    endpoint: Path | None, server: Path | None, chain: tuple[str, ...]
) -> dict[str, Path]:
    """Return the name of each device and its profile."""
    if chain and (endpoint or server):
        raise MisuseError("--device: stands in place of --endpoint and --server")
    if not chain:
        if endpoint is None or server is None:
            raise MisuseError(
                "--endpoint, --server: a profile of each side is needed; make them "
                "with `understudy profile MODEL` on the two machines"
            )
        return {"endpoint": endpoint, "server": server}
    profiles = {}
    for text in chain:
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in profiles:
            raise MisuseError(f"--device '{text}': write NAME=PROFILE, each name once")
        profiles[name] = Path(path)
    return profiles
