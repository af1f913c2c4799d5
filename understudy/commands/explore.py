"""`understudy explore`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataflow.errors import MisuseError
from understudy.commands.ending import Stoppable, writable, write_file
from understudy.commands.options import PATH, Finite

if TYPE_CHECKING:
    from understudy.exploration import Exploration
    from understudy.explore_subject import Subject


@click.command()
@click.argument("model", type=PATH)
@click.option("--endpoint", type=PATH, help="Profile of the device with the input.")
@click.option("--server", type=PATH, help="Profile of the other.")
@click.option(
    "--device",
    "chain",
    multiple=True,
    metavar="NAME=PROFILE",
    help="In place of those two: each device of a chain, --link between them.",
)
@click.option(
    "--link",
    "links",
    multiple=True,
    metavar="RATE,RTT",
    help="Such as 16mbit,5ms, or a link's profile; each gives a table.",
)
@click.option(
    "--objective",
    default="latency",
    show_default=True,
    metavar="NAMES",
    help="latency, throughput, endpoint-time, endpoint-energy or bytes; or weights "
    "per ms, ms a frame, ms, mJ and kB: latency=1,bytes=0.2.",
)
@click.option(
    "--codec",
    default="lossless",
    show_default=True,
    metavar="CODEC",
    help="lossless or any: the best of these for each cut; or none, int8, zstd, …",
)
@click.option(
    "--require",
    type=click.Choice(["no-raw-input"]),
    help="The input must not leave the device.",
)
@click.option("--max-endpoint-ms", type=Finite(0), help="Of its time for a frame.")
@click.option(
    "--max-memory",
    multiple=True,
    metavar="[SIDE=]MB",
    help="Of weights and activations; of the endpoint unless it says server.",
)
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="NODE=SIDE",
    help="A node, or tensor it makes, that endpoint or server must run.",
)
@click.option(
    "--power",
    metavar="WATTS",
    help="Such as endpoint=3.5W,idle=1.2W,radio=0.8W,server=40W.",
)
@click.option(
    "--from",
    "run_folder",
    type=PATH,
    metavar="RUN",
    help="Take times, rates and exits as that run has seen them.",
)
@click.option("--slow", type=Finite(0, min_open=True), help="Endpoint slower by this.")
@click.option("--jpeg-bytes", type=click.IntRange(1), help="Of a frame as JPEG.")
@click.option(
    "--answer-bytes",
    type=click.IntRange(0),
    help="That come back of a frame; default: the model's outputs.",
)
@click.option(
    "--exit-share",
    type=Finite(0, 1),
    help="Of frames that the early exit of a graph file answers.",
)
@click.option(
    "--exit-ms",
    type=Finite(0),
    help="That the exit takes; default: its share of the network's time, timed here.",
)
@click.option(
    "--write", "folder", type=PATH, help="Write the best as files for `up` there."
)
@click.option(
    "--measure",
    is_flag=True,
    help="Run the best, all local and the raw frame, as processes here, links shaped.",
)
@click.option(
    "--on",
    "live_run",
    type=PATH,
    metavar="RUN",
    help="Play the best on the devices of that run, which is up, and switch it back.",
)
@click.option("--all", "everything", is_flag=True, help="Print every partition.")
@click.option("--json", "json_file", type=PATH, help="Write all of it there.")
@click.option("--csv", "csv_file", type=PATH, help="Write a line a partition there.")
@click.option(
    "--report",
    "report_folder",
    type=PATH,
    help="Write a page with all tables and plots there; plots also as SVG and PDF.",
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
    live_run: Path | None,
    everything: bool,
    json_file: Path | None,
    csv_file: Path | None,
    report_folder: Path | None,
) -> None:
    """Say where to cut MODEL between two devices, and what that gains.

    Every cut is looked at, and so are all local, all remote, and sending the frame as
    it is. Times come from `understudy profile`; nothing runs. Exit status 1: the
    constraints exclude everything. A graph file may stand in place of MODEL: then its
    early exit counts.

    Example: understudy explore net.onnx --endpoint pi.json --server lab.json
    --link 16mbit,5ms
    """
    from understudy import explore_words as words
    from understudy.constraints import Constraints
    from understudy.explore_subject import read_subject
    from understudy.explore_text import show
    from understudy.explored_deployment import write_best
    from understudy.exploring import Wish
    from understudy.exploring import explore as explored

    for file in (json_file, csv_file):
        writable(file)
    profiles = _profiles(endpoint, server, chain)
    first = next(iter(profiles))
    devices = words.read_devices(profiles, {} if slow is None else {first: slow})
    subject = read_subject(model, devices[0].profile.model.dims)
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

        click.echo(f"report: {write_folder(result, report_folder)}")
    if folder is not None:
        click.echo(f"\nunderstudy up {write_best(folder, subject, result)}")
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
