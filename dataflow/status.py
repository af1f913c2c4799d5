"""What devices say of themselves as JSON: to who asks, and in their beats."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataflow.cores import cores_text
from dataflow.events import EventLog
from dataflow.plan import Device
from dataflow.wire.control import CONTROL_BYTES_MAX, NAME_CHARS_MAX

if TYPE_CHECKING:
    from dataflow.host import Host
    from dataflow.switching import Switching
    from dataflow.wire.transport import Transport

STATUS_CHARS_MAX = CONTROL_BYTES_MAX - 256
ABOUT_TYPES: Mapping[str, type] = {
    "stream": str,
    "frames": int,
    "row": str,
    "full": int,
    "degraded": int,
    "dropped": int,
    "rows": dict,
    "codecs": dict,
}
"""What a peer may say of each of its streams, see `Stream.describe`; dict: counts."""


def status_of(
    spec: Device,
    state: str,
    switching: "Switching",
    *,
    missing: list[str],
    rejected: Mapping[str, int],
    host: "Host | None",
) -> dict[str, Any]:
    """Return what `understudy status` shows of a device.

    Args:
        spec: Who it is.
        state: How it is.
        switching: What it plays.
        missing: Segments that it lacks.
        rejected: Messages thrown away, by reason.
        host: What computes for others, if something does.
    """
    play = switching.current
    return {
        "device": spec.name,
        "role": spec.role,
        "state": state,
        "plans": {plan.name: plan.digest for plan in switching.plans},
        "pid": os.getpid(),
        "threads": spec.threads,
        "cores": cores_text(os.sched_getaffinity(0)),
        "providers": spec.providers,
        "missing": missing,
        "streams": [stream.describe() for stream in play.streams],
        "links": play.links.describe(),
        "rejected": dict(rejected),
        **({} if host is None else host.describe()),
    }


def rejections(
    events: EventLog, transport: "Transport", host: "Host | None"
) -> Counter[str]:
    """Return how many messages were thrown away, by reason."""
    parts = [events.rejected.copy(), transport.rejected.copy()]
    if host is not None:
        parts.append(host.sessions.rejected.copy())
    return sum(parts, Counter())


def status_text(status: dict[str, Any]) -> str:
    """Return a listening device's status as JSON that fits a control message."""
    text = json.dumps(status)
    if len(text) > STATUS_CHARS_MAX:
        # What the peers say of themselves goes first, then the list of them.
        status["sessions"] = [{**s, "about": []} for s in status["sessions"]]
        text = json.dumps(status)
    if len(text) > STATUS_CHARS_MAX:
        status["sessions"] = []
        text = json.dumps(status)
    return text


Said = str | int | dict[str, int]


def streams_of(about: str) -> list[dict[str, Said]]:
    """Return what a peer says of its streams; nothing of it is trusted."""
    try:
        value = json.loads(about)
    except (ValueError, RecursionError):
        return []
    if not isinstance(value, list):
        return []
    return [
        {key: each[key] for key in ABOUT_TYPES}
        for each in value
        if isinstance(each, dict)
        and all(type(each.get(key)) is kind for key, kind in ABOUT_TYPES.items())
        and all(_can_be_shown(each[key]) for key in ABOUT_TYPES)
    ]


def _can_be_shown(said: Said) -> bool:
    if isinstance(said, dict):
        return all(_is_name(name) and type(n) is int for name, n in said.items())
    return isinstance(said, int) or _is_name(said)


def _is_name(text: str) -> bool:
    """Tell whether a text may be shown on somebody's terminal."""
    return len(text) <= NAME_CHARS_MAX and text.isprintable()
