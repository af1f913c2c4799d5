"""The pages of the docs that are made from tables in the code.

    python -m tests.support.pages docs

writes them; a test holds them to the tables.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from dataflow.errors import REJECTIONS
from dataflow.meters import BOUNDS_S
from dataflow.metrics import METRICS
from dataflow.vocabulary import (
    DEVICE_EVENTS,
    HEADER,
    LAUNCHER_EVENTS,
    EventKind,
    Type,
)
from tests.support.protocol_page import PROTOCOL_PAGE, protocol_page
from tests.support.tables import table

EVENTS_PAGE, METRICS_PAGE = "events.md", "metrics.md"

_EVENTS_HEAD = """\
# Events

What a run writes about itself, made from `dataflow/vocabulary.py` by
`python -m tests.support.pages docs`.

Each life of a device writes `events-DEVICE-INCARNATION.jsonl` into the run folder, the
launcher `events-launcher.jsonl`: one JSON object a line, at once, so that a SIGKILL
loses none. The first line is `{"understudy": 1, "events": {…}}`. Every further line has
`t_s`, the monotonic clock of its device in seconds, and `event`, the name. Every field
of an event is always there. Times and durations name their unit last.

With `--log-format json` a device, and `up`, say the same on standard error: a line has
`time` (UTC), `level`, `device`, `message`, and where it tells of an event the event's
own fields. Events of level debug are in the event log only.
"""

_METRICS_HEAD = """\
# Metrics

What a device says of itself in numbers, made from `dataflow/metrics.py` by
`python -m tests.support.pages docs`.

    understudy device deployment.yaml edge.0 --metrics 9100
    understudy up deployment.yaml --metrics 9100

Prometheus reads them at `http://127.0.0.1:9100/metrics`. Nothing is served unless
somebody asks, by `--metrics [HOST:]PORT` or by `metrics: "tcp://HOST:PORT"` in a device
group; instance i is on the port + i, under `up` the devices follow each other in the
order of the deployment. A port without a host is open to this machine only. There are
no keys on this port: whoever reaches it can read it.

The labels are bounded by the plan and by lists in the code; nothing that a peer sends
becomes one. Beside these there are the `process_…` metrics of the client library, such
as memory (`process_resident_memory_bytes`) and CPU.
"""


def events_page() -> str:
    """Return the page of the events."""
    parts = [_EVENTS_HEAD, "## The first line\n", _fields(HEADER)]
    parts += [
        "## Of a device\n",
        *map(_event, *zip(*DEVICE_EVENTS.items(), strict=True)),
    ]
    launched = zip(*LAUNCHER_EVENTS.items(), strict=True)
    parts += ["## Of the launcher\n", *map(_event, *launched)]
    return "\n".join(parts)


def metrics_page() -> str:
    """Return the page of the metrics."""
    rows = [
        (f"`{name}`", metric.kind, ", ".join(metric.labels) or "-", metric.meaning)
        for name, metric in METRICS.items()
    ]
    rejections = [(f"`{reason}`", meaning) for reason, meaning in REJECTIONS.items()]
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS_S)
    return "\n".join(
        [
            _METRICS_HEAD,
            table(("name", "kind", "labels", "meaning"), rows),
            f"The buckets of latency end at {bounds} seconds.\n",
            "## Why a message is rejected\n",
            table(("reason", "meaning"), rejections),
            "A frame larger than any of the plan is refused by libzmq before it is "
            "read, and its connection closed; that one is not counted.\n",
        ]
    )


def _event(name: str, kind: EventKind) -> str:
    bounded = " At most half of a log is such." if kind.frequent else ""
    return f"### `{name}`\n\n{kind.meaning}{bounded}\n" + (
        f"\n{_fields(kind.fields)}" if kind.fields else ""
    )


def _fields(fields: Mapping[str, tuple[Type, str]]) -> str:
    rows = [(f"`{name}`", kind, meaning) for name, (kind, meaning) in fields.items()]
    return table(("field", "type", "meaning"), rows)


def main() -> None:
    (folder,) = sys.argv[1:]
    (Path(folder) / EVENTS_PAGE).write_text(events_page())
    (Path(folder) / METRICS_PAGE).write_text(metrics_page())
    protocol = Path(folder) / PROTOCOL_PAGE
    protocol.write_text(protocol_page(protocol.read_text()))


if __name__ == "__main__":
    main()
