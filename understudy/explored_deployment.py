"""The chosen partition as files that `understudy up` runs as they are.

A model by itself gets a graph around it (`understudy.explored_graph`); a graph file is
used as it stands.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from dataflow.cores import cores_text
from dataflow.errors import MisuseError, UnderstudyError
from graphs.split import needed
from understudy.candidates import REMOTE, frame_shape
from understudy.exploration import Exploration, Row
from understudy.explore_subject import Subject
from understudy.explored_graph import NETWORK, PACK, PREPARE, SINK, SOURCE, write_graph
from understudy.profile_file import SessionFacts

ENDPOINT = "endpoint"
PORT = 7000
DEADLINE_MS_MIN = 1000.0
RATE_HZ_MAX = 30.0
LOAD = 0.7
"""Share of the possible throughput that the written source asks for."""


@dataclass(frozen=True, slots=True)
class Script:
    """How a written deployment plays.

    Attributes:
        rate_hz: Of the source of a model by itself.
        window: Frames under way at most.
    """

    rate_hz: float
    window: int


def script_for(row: Row) -> Script:
    """Return a rate that the partition can keep, and the window that it takes."""
    rate_hz = min(RATE_HZ_MAX, LOAD * row.cost.fps)
    window = max(4, math.ceil(2 * rate_hz * row.cost.total_ms / 1e3) + 1)
    return Script(float(f"{rate_hz:.3g}"), window)


def write_best(folder: Path, subject: Subject, exploration: Exploration) -> Path:
    """Write the best partition over the first links; return the deployment file.

    Raises:
        UnderstudyError: The constraints exclude all, or no deployment can do it.
    """
    panel = exploration.panels[0]
    if panel.best is None:
        raise UnderstudyError(f"{folder}: nothing to write; {panel.why}")
    return write_deployment(
        folder,
        subject,
        panel.best,
        servers=[device.name for device in exploration.devices[1:]],
        sessions=[device.profile.session for device in exploration.devices],
    )


def write_deployment(
    folder: Path,
    subject: Subject,
    row: Row,
    *,
    servers: Sequence[str] = ("server",),
    script: Script | None = None,
    sessions: Sequence[SessionFacts] = (),
) -> Path:
    """Write the files of a partition; return the deployment file.

    Args:
        folder: Made if missing. Other files in it stay.
        subject: What was explored.
        row: The partition.
        servers: Names of the devices behind the endpoint.
        script: Unless given, `script_for` the row.
        sessions: How each device of the chain was profiled, and is to run.

    Raises:
        MisuseError: The folder cannot be written.
        UnderstudyError: A deployment cannot do what the row says.
    """
    script = script or script_for(row)
    lines = _deployment(
        folder, subject, row, servers[: len(row.crossings)], script, sessions
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if subject.graph is None:
            write_graph(folder, subject.model, script.rate_hz, subject.frame)
        path = folder / "deployment.yaml"
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise MisuseError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
    return path


def _deployment(
    folder: Path,
    subject: Subject,
    row: Row,
    servers: Sequence[str],
    script: Script,
    sessions: Sequence[SessionFacts],
) -> list[str]:
    deadline_ms = max(DEADLINE_MS_MIN, 5 * row.cost.total_ms)
    _, _, answers, ends = _around(subject)
    over = ", ".join(link.name for link in row.pieces.links)
    graph = "graph.yaml"
    if subject.graph is not None:
        graph = os.path.relpath(subject.graph.path, folder)
    return [
        f"# {subject.model.where}, cut at: {row.label}",
        f"# At most {row.cost.fps:.4g} frames/s are expected ({row.source}).",
        "understudy: 1",
        f"deployment: {_quoted(Path(subject.model.where).stem)}",
        f"graph: {_quoted(graph)}",
        "devices:",
        *_device_lines(servers, sessions),
        "map:",
        *(f"  {_quoted(name)}: {ENDPOINT}" for name in ends),
        *(
            f"  {_quoted(name)}: {where}"
            for name, where in placed(subject, row, ENDPOINT, servers).items()
        ),
        "failover:",
        f"  order: [{_quoted(answers)}]",
        f"  deadline_ms: {deadline_ms:.0f}",
        f"  window: {script.window}",
        "expected:  # of full answers; a run's summary compares",
        f"  p50_ms: {row.cost.total_ms:.4g}",
        f"  within_ms: {row.cost.error_ms:.2g}",
        *([f"  over: {_quoted(over)}"] if over else []),
    ]


def _device_lines(
    servers: Sequence[str], sessions: Sequence[SessionFacts]
) -> Iterator[str]:
    every = [(ENDPOINT, "role: endpoint")]
    for index, name in enumerate(servers):
        listen = f"tcp://127.0.0.1:{PORT + index}"
        every.append((name, f'role: server, listen: "{listen}"'))
    if servers:
        yield "  # On a machine of its own: listen on 0.0.0.0, `connect` to its name,"
        yield "  # and `keys` (see `understudy keys`)."
    for (name, fields), session in zip_longest(every, sessions[: len(every)]):
        yield f"  {name}: {{{fields}{_computing(session)}}}"


def _computing(session: SessionFacts | None) -> str:
    """Return what of a device's sessions is not as it is without a word."""
    text = ""
    if session is not None:
        if session.threads != 1:
            text += f", threads: {session.threads}"
        if session.cores:
            text += f', cores: "{cores_text(session.cores)}"'
        if session.providers != SessionFacts().providers:
            text += f", providers: {json.dumps(session.providers)}"
    return text


def placed(
    subject: Subject, row: Row, endpoint: str, servers: Sequence[str]
) -> dict[str, str]:
    """Return where the network runs, what feeds it and what it feeds.

    Args:
        subject: What was explored.
        row: The partition.
        endpoint: Name of the device with the source.
        servers: Names of the others that the partition needs, in the chain's order.

    Returns:
        Actor -> its place, as the text that a mapping has.

    Raises:
        UnderstudyError: A deployment cannot do what the row says.
    """
    before, behind, _, _ = _around(subject)
    last = servers[-1] if servers else endpoint
    first = servers[0] if row.kinds[:1] == ("raw",) else endpoint
    return {
        **dict.fromkeys(before, first),
        subject.actor: _network(subject, row, (endpoint, *servers)),
        **dict.fromkeys(behind, last),
    }


def answering(subject: Subject) -> str:
    """Return the actor of the subject's graph that answers."""
    return _around(subject)[2]


def _network(subject: Subject, row: Row, devices: Sequence[str]) -> str:
    """Return where the network runs, as a mapping has it.

    Args:
        subject: What was explored.
        row: The partition.
        devices: Those of the chain that it uses, from the source on.

    Raises:
        UnderstudyError: A deployment cannot say it.
    """
    early = subject.exit_tensor
    if early and row.kind == "local":
        here = devices[0]
        return f"{{cut: {_quoted(early)}, head: {here}, tail: {here}}}"
    if early and not _makes(subject, row, early):
        raise UnderstudyError(
            f"{row.label}: the early exit reads a tensor behind it, and it is decided "
            "on the endpoint for every frame; choose a cut behind that tensor"
        )
    if "jpeg" in row.kinds:
        raise UnderstudyError(
            f"{row.label}: a token has one size, and a JPEG has not; send the frame as "
            "it is, with codec zstd"
        )
    # Who only gets the frame, or prepares it and hands that on, has no part of it.
    passed = sum(kind in REMOTE for kind in row.kinds)
    path = devices[passed:]
    if len(path) == 1:
        return path[0]
    crossings = row.pieces.crossings[passed:]
    (codec,) = {crossing.codec for crossing in crossings}
    coded = "" if codec == "none" else f", codec: {codec}"
    cuts = [_listed(crossing.tensors) for crossing in crossings]
    if len(cuts) == 1:
        return f"{{cut: {cuts[0]}, head: {path[0]}, tail: {path[1]}{coded}}}"
    return f"{{cuts: [{', '.join(cuts)}], path: [{', '.join(path)}]{coded}}}"


def _makes(subject: Subject, row: Row, tensor: str) -> bool:
    """Say whether the first device makes `tensor`."""
    if row.kinds[0] in REMOTE:
        return False
    model = subject.model
    return model.producer[tensor] in needed(model, row.tensors, ())


def _listed(tensors: Sequence[str]) -> str:
    names = [_quoted(name) for name in tensors]
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _around(subject: Subject) -> tuple[list[str], list[str], str, list[str]]:
    """Return who stands around the network in its graph.

    Returns:
        What feeds it, behind the source; what it feeds, in front of the sink; who
        answers; and all others, which stay on the endpoint.
    """
    if subject.graph is None:
        model = subject.model
        before = [PREPARE] if frame_shape(model) else []
        behind = [PACK] if len(model.outputs) > 1 else []
        return before, behind, (behind or [NETWORK])[0], [SOURCE, SINK]
    graph = subject.graph.graph
    feeds: dict[str, set[str]] = {name: set() for name in graph.actors}
    for fifo in graph.fifos:
        feeds[fifo.target.actor].add(fifo.source.actor)
    exits = subject.graph.exits.values()
    early = {found.gate for found in exits} | {found.answer.actor for found in exits}
    sinks = set(feeds) - {f.source.actor for f in graph.fifos} - early
    before = [n for n in _reached({subject.actor}, feeds) if feeds[n]]
    behind = [
        name
        for name in graph.actors
        if name not in sinks | early and subject.actor in _reached({name}, feeds)
    ]
    playing = {subject.actor, *before, *behind}
    other = {r.actor for refs in subject.graph.understudies.values() for r in refs}
    ends = [n for n in graph.actors if n not in playing | (other - early)]
    answering = next(
        fifo.source.actor
        for fifo in graph.fifos
        if fifo.target.actor in sinks
        and fifo.target.port == graph.actors[fifo.target.actor].inputs[0].name
    )
    return before, behind, answering, ends


def _reached(start: set[str], feeds: Mapping[str, set[str]]) -> set[str]:
    """Return all that feeds `start`, itself not among them."""
    found: set[str] = set()
    todo = list(start)
    while todo:
        fresh = feeds[todo.pop()] - found
        found |= fresh
        todo.extend(fresh)
    return found


def _quoted(text: str) -> str:
    return json.dumps(text)
