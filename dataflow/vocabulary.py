"""The events of a run: their names, what each holds, and how it reads in a log.

One table for all who write events and all who read them: the event log, the log lines,
the live view, the report. The page docs/events.md is made from it, and a test holds
every event that is written to it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Type = Literal[
    "text", "texts", "number", "count", "flag", "counts", "numbers", "frames"
]
"""texts: a list; counts, numbers: by name; frames: lists of frame numbers by stream."""
Record = Mapping[str, Any]
"""An event as it is written: its fields, `t_s` and `event`."""


class EventKind(NamedTuple):
    """What one event means, and holds.

    Attributes:
        fields: Name -> type and meaning, with its unit. Every one is always there.
        says: Makes a sentence of a record, for a log.
        level: Of that log line; DEBUG: it is in the event log only.
        frequent: Comes with frames or with time: at most half a log is theirs, so that
            they cannot crowd out the failures.
    """

    meaning: str
    fields: Mapping[str, tuple[Type, str]]
    says: Callable[[Record], str]
    level: int = logging.INFO
    frequent: bool = False


def failover_text(record: Record) -> str:
    """Return what a failover did, in words."""
    moved = sum(len(frames) for frames in record["frames"].values())
    decided_us = (record["decided_s"] - record["detected_s"]) * 1e6
    switched_ms = (record["switched_s"] - record["detected_s"]) * 1e3
    noun = "frame" if moved == 1 else "frames"
    what = f"{moved} {noun} restarted in {switched_ms:.1f} ms"
    return (
        f"lost {record['peer']} ({record['evidence']}), decided in {decided_us:.0f} "
        f"µs, {what if moved else 'no frame was under way'}"
    )


def _ended_text(record: Record) -> str:
    counts = ", ".join(f"{n} {status}" for status, n in record["counts"].items())
    return f"ended stream {record['stream']} after frame {record['last']}: {counts}"


def _fault_text(record: Record) -> str:
    done = record["kind"] or "fault"
    if record["signal"]:
        sent = f"sends {record['signal']} to {record['target']}"
        return f"{sent}, process {record['pid']}"
    place = "-".join(filter(None, (record["observer"], record["target"])))
    return f"does {done} to {place}"


def _missing_text(record: Record) -> str:
    names = ", ".join(sha256[:12] for sha256 in record["segments"])
    peers = ", ".join(record["peers"])
    return (
        f"lacks {len(record['segments'])} of its plan's segments ({names}), and "
        + (f"{peers} cannot give them" if peers else "no peer is connected")
        + "; start one that has them, or copy the plan's segments here"
    )


_SEGMENT: tuple[Type, str] = ("text", "the SHA-256 that names it")
_PLAN: tuple[Type, str] = ("text", "digest of the plan; of several, by commas")
_PEER: tuple[Type, str] = ("text", "the device at the other end")
_SESSION: tuple[Type, str] = ("count", "connection of the link, from 1")
_STREAM: tuple[Type, str] = ("text", "the stream's name")
_FRAME: tuple[Type, str] = ("count", "number of the frame in its stream, from 0")
_TARGET: tuple[Type, str] = ("text", "the device that is meant")
_PID: tuple[Type, str] = ("count", "its process")
_EVIDENCE: tuple[Type, str] = (
    "text",
    "connection, heartbeat, beat, send, deadline or bye",
)

DEVICE_EVENTS: Mapping[str, EventKind] = {
    "device.listening": EventKind(
        "The device took its address.",
        {"address": ("text", "where others dial it")},
        "listens on {address}".format_map,
    ),
    "device.loading": EventKind(
        "The device begins to load models and to make its actors.",
        {},
        "loads".format_map,
        logging.DEBUG,
    ),
    "device.metrics": EventKind(
        "The device serves metrics.",
        {"url": ("text", "where")},
        "metrics on {url}".format_map,
    ),
    "device.ready": EventKind(
        "Everything is loaded and timed.",
        {
            "load_ms": ("number", "ms since it began to load"),
            "compute_thread": ("flag", "some chain is too long for the I/O loop"),
        },
        "ready after {load_ms:.0f} ms".format_map,
    ),
    "device.stopping": EventKind(
        "Somebody ends the device; what is under way is still answered.",
        {"why": ("text", "a signal, or the end of standard input")},
        "stopping: {why}".format_map,
    ),
    "device.measured": EventKind(
        "What a device has measured under its plan so far: every 2 s or tenth of the "
        "time it ran; an endpoint when another plan follows, a server 2 s after; and "
        "at the end.",
        {
            "plan": ("text", "digest of the plan; of several, by commas"),
            "firings": (
                "numbers",
                "by actor; those of a server's segment count as one",
            ),
            "busy_ms": ("numbers", "ms in the actor's own code, of all its firings"),
            "bytes_s": ("numbers", "by peer that it dials: what the link carries"),
            "rtt_ms": ("numbers", "by peer: ms, round trip of a short message"),
        },
        lambda record: f"measured {len(record['firings'])} actors",
        logging.DEBUG,
    ),
    "device.stopped": EventKind(
        "The device ended in good order.", {}, "stopped".format_map
    ),
    "device.failed": EventKind(
        "The device ends with an error, which is also the last that it says.",
        {"error": ("text", "the message")},
        "{error}".format_map,
        logging.DEBUG,
    ),
    "link.awaited": EventKind(
        "The sources start, though servers are missing that they waited for.",
        {"peers": ("texts", "those that are not there")},
        lambda record: f"starts without {', '.join(record['peers'])}: not there yet",
        logging.WARNING,
    ),
    "plan.unchanged": EventKind(
        "Somebody told that there may be another plan, and there is none.",
        {"plan": _PLAN},
        "was told of another plan, and has the same".format_map,
    ),
    "plan.loading": EventKind(
        "Another plan is there. It is loaded beside the one that is played.",
        {"plan": _PLAN},
        "loads plan {plan:.12}".format_map,
    ),
    "plan.refused": EventKind(
        "The other plan cannot follow; the one that is played plays on.",
        {"plan": _PLAN, "error": ("text", "why not")},
        "stays with its plan: {error}".format_map,
        logging.ERROR,
    ),
    "plan.ready": EventKind(
        "The other plan is loaded and its servers are ready: it is played from now on.",
        {"plan": _PLAN, "load_ms": ("number", "ms since somebody told of it")},
        "plays plan {plan:.12}, prepared in {load_ms:.0f} ms".format_map,
    ),
    "plan.switched": EventKind(
        "A stream goes on under the other plan.",
        {
            "stream": _STREAM,
            "frame": ("count", "the first that is answered under it"),
            "plan": _PLAN,
            "under_way": ("count", "frames that the plan before still answers"),
        },
        "{stream}: plan {plan:.12} from frame {frame} on, {under_way} under "
        "way".format_map,
    ),
    "plan.settled": EventKind(
        "The last frame of the plan before is settled; it is unloaded.",
        {"plan": _PLAN},
        "has settled all frames of plan {plan:.12}".format_map,
    ),
    "plan.unloaded": EventKind(
        "What no plan names any more, and no session wants, is unloaded.",
        {"segments": ("count", "of models, by what is computed from there on")},
        "unloaded {segments} segments of older plans".format_map,
    ),
    "link.up": EventKind(
        "A peer may be used, for the first time.",
        {"peer": _PEER, "session": _SESSION},
        "uses {peer} (session {session})".format_map,
    ),
    "link.suspect": EventKind(
        "There is evidence that a peer is lost: nothing is started there any more.",
        {
            "peer": _PEER,
            "session": _SESSION,
            "evidence": _EVIDENCE,
            "text": ("text", "what was seen"),
        },
        "suspects {peer} ({evidence}): {text}".format_map,
        logging.WARNING,
    ),
    "failover": EventKind(
        "The next row was started for every frame under way at a lost peer.",
        {
            "peer": _PEER,
            "evidence": _EVIDENCE,
            "frames": ("frames", "what was under way there"),
            "detected_s": ("number", "s, monotonic: the evidence was seen"),
            "decided_s": ("number", "s, monotonic: it was known what plays instead"),
            "switched_s": ("number", "s, monotonic: all of it was started"),
        },
        failover_text,
        logging.WARNING,
    ),
    "link.dead": EventKind(
        "The session with a lost peer is over: no late answer can come.",
        {"peer": _PEER, "session": _SESSION},
        "gave up session {session} with {peer}".format_map,
    ),
    "link.back": EventKind(
        "A lost peer proved itself and is used again.",
        {
            "peer": _PEER,
            "session": _SESSION,
            "away_ms": ("number", "ms since it was suspected"),
        },
        "uses {peer} again after {away_ms:.0f} ms".format_map,
    ),
    "link.clock": EventKind(
        "How a peer's clock differs from ours, by the beats: early in a session, and "
        "then each minute.",
        {
            "peer": _PEER,
            "offset_s": ("number", "s, monotonic: the peer's clock minus ours"),
            "error_s": ("number", "s: the most that this can be wrong"),
        },
        "the clock of {peer} is {offset_s:.6f} s ahead, to {error_s:.6f} s".format_map,
        logging.DEBUG,
        frequent=True,
    ),
    "link.rate": EventKind(
        "What a link carries was learned, or has changed by half.",
        {
            "peer": _PEER,
            "bytes_s": ("number", "bytes a second, at least"),
            "rtt_s": ("number", "s: round trip of a short message"),
            "heartbeat_ms": ("number", "ms: timeout of the session's heartbeat"),
        },
        lambda record: (
            f"the link to {record['peer']} carries {record['bytes_s'] * 8e-6:.3g} "
            f"Mbit/s, round trip {record['rtt_s'] * 1e3:.3g} ms"
        ),
        frequent=True,
    ),
    "link.ways": EventKind(
        "What can be reached behind a peer, which passes tokens on, has changed.",
        {
            "peer": _PEER,
            "lost": ("texts", "ways behind it that no token can take; none: all can"),
        },
        lambda record: (
            f"behind {record['peer']}: "
            + (f"lost {', '.join(record['lost'])}" if record["lost"] else "all there")
        ),
        logging.WARNING,
    ),
    "link.refused": EventKind(
        "A peer does not take us until somebody changes something; told once.",
        {"peer": _PEER, "error": ("text", "why, and what to do")},
        "{error}".format_map,
        logging.ERROR,
    ),
    "link.garbage": EventKind(
        "A message was thrown away. The first few are told, all are counted.",
        {
            "peer": ("text", "who sent it, if we dialled it; else empty"),
            "reason": ("text", "as in the metric of rejected messages"),
            "error": ("text", "what was wrong"),
        },
        "{error}".format_map,
        logging.WARNING,
    ),
    "segment.missing": EventKind(
        "Segments of the plan are not here, and no peer that is there can give them.",
        {
            "segments": ("texts", "SHA-256 of each"),
            "peers": ("texts", "who was asked; none: nobody is connected"),
        },
        _missing_text,
        logging.WARNING,
    ),
    "segment.fetching": EventKind(
        "A peer begins to give a segment that is not here.",
        {
            "sha256": _SEGMENT,
            "peer": _PEER,
            "offset": ("count", "bytes that are here already"),
            "bytes": ("count", "its length"),
        },
        "gets segment {sha256:.12} of {peer}, from byte {offset} of {bytes}".format_map,
    ),
    "segment.fetched": EventKind(
        "All of a segment is here, and its hash is right.",
        {"sha256": _SEGMENT, "bytes": ("count", "its length")},
        "has segment {sha256:.12}".format_map,
    ),
    "segment.refused": EventKind(
        "A peer could not give a segment, or not the right one.",
        {"sha256": _SEGMENT, "peer": _PEER, "why": ("text", "what was wrong")},
        "{peer}, asked for segment {sha256:.12}, {why}".format_map,
        logging.WARNING,
    ),
    "link.flood": EventKind(
        "A peer sent more that nobody asked for than it may: its connections end, and "
        "its key is refused for a while.",
        {"peer": _PEER},
        "shuts out {peer}: a flood of messages".format_map,
        logging.WARNING,
        frequent=True,
    ),
    "keys.read": EventKind(
        "The keys folder changed, and was read again.",
        {
            "devices": ("texts", "whose keys are in it"),
            "ours": ("flag", "the device's own key is another"),
        },
        "read the keys of {devices}".format_map,
    ),
    "keys.unreadable": EventKind(
        "The keys folder changed, and cannot be read: the keys stay as they were.",
        {"error": ("text", "what is wrong")},
        "{error}; the keys stay as they were".format_map,
        logging.ERROR,
    ),
    "session.opened": EventKind(
        "A peer opened a session with this device.",
        {"peer": _PEER, "session": _SESSION},
        "serves {peer} (session {session})".format_map,
        frequent=True,
    ),
    "session.ended": EventKind(
        "A session that a peer opened is over.",
        {
            "peer": _PEER,
            "session": _SESSION,
            "why": ("text", "bye, silent or a newer session"),
        },
        "serves {peer} no more (session {session}): {why}".format_map,
        frequent=True,
    ),
    "stream.started": EventKind(
        "A source may fire.",
        {
            "stream": _STREAM,
            "incarnation": ("text", "16 hex digits: this life of its process"),
            "source": ("text", "the actor"),
            "rate_hz": ("number", "frames per second that it wants"),
        },
        "begins stream {stream}: {source} fires {rate_hz:g} frames/s".format_map,
    ),
    "stream.ended": EventKind(
        "The last frame of a stream has its outcome.",
        {
            "stream": _STREAM,
            "last": ("count", "the last frame's number; -1: there was none"),
            "counts": ("counts", "frames that were full, degraded, dropped"),
            "missed": ("count", "firings that the device came too late for"),
            "late_answers": ("count", "answers that came after the outcome"),
            "codecs": ("counts", "tokens sent by codec, if it is chosen at run time"),
        },
        _ended_text,
    ),
    "row": EventKind(
        "Another row than before answered a stream.",
        {"stream": _STREAM, "frame": _FRAME, "row": ("text", "who answered, or drop")},
        "{stream}: {row} plays from frame {frame}".format_map,
        logging.DEBUG,
        frequent=True,
    ),
    "codec": EventKind(
        "A stream sends its tokens in another way, as the link then needs it.",
        {
            "stream": _STREAM,
            "peer": _PEER,
            "before": ("text", "the codec until now"),
            "codec": ("text", "the codec from now on"),
            "why": ("text", "what was measured"),
        },
        "{stream}: {codec} instead of {before} to {peer}: {why}".format_map,
    ),
    "frame.restarted": EventKind(
        "A second branch was started for a frame.",
        {
            "stream": _STREAM,
            "frame": _FRAME,
            "from": ("text", "the row tried before"),
            "to": ("text", "the row tried now"),
        },
        "{stream}: frame {frame} goes from {from} to {to}".format_map,
        logging.DEBUG,
        frequent=True,
    ),
    "frame.refused": EventKind(
        "A server refused a frame's tokens.",
        {
            "stream": _STREAM,
            "frame": _FRAME,
            "peer": _PEER,
            "why": ("text", "segment, busy, hop, error or unknown"),
        },
        "{stream}: {peer} refused frame {frame}: {why}".format_map,
        logging.DEBUG,
        frequent=True,
    ),
    "log.lost": EventKind(
        "The last line of an event log that could not hold everything.",
        {"lines": ("count", "those that are missing")},
        "{lines} lines of the event log are lost".format_map,
        logging.WARNING,
    ),
}

LAUNCHER_EVENTS: Mapping[str, EventKind] = {
    "start": EventKind(
        "A process was started.",
        {"target": _TARGET, "pid": _PID},
        "starts {target}, process {pid}".format_map,
    ),
    "fault": EventKind(
        "Something was done to a device or a link; `t_s` is taken just before.",
        {
            "target": _TARGET,
            "signal": ("text", "the name of the one that was sent; empty: none was"),
            "pid": ("count", "its process; 0: it had none"),
            "kind": ("text", "what `understudy chaos` did; empty: it was not chaos"),
            "observer": ("text", "of a link, the device that dials; else empty"),
        },
        _fault_text,
        logging.WARNING,
    ),
    "plan.told": EventKind(
        "Another plan was put in the place of the run's, and the devices told.",
        {"plan": _PLAN},
        "tells the devices of plan {plan:.12}".format_map,
    ),
    "mended": EventKind(
        "What was done to a device or a link was undone.",
        {
            "target": _TARGET,
            "observer": ("text", "of a link, the device that dials; else empty"),
        },
        "mends {target}".format_map,
    ),
    "exit": EventKind(
        "A process was found ended.",
        {
            "target": _TARGET,
            "pid": _PID,
            "status": ("count", "its exit status; minus the signal that ended it"),
        },
        "{target}, process {pid}, ended with status {status}".format_map,
    ),
    "overstayed": EventKind(
        "A process did not end when it was told to, and was killed.",
        {"pid": _PID},
        "kills process {pid}, which does not end".format_map,
        logging.WARNING,
    ),
}

EVENTS: Mapping[str, EventKind] = {**DEVICE_EVENTS, **LAUNCHER_EVENTS}
"""Every event of a run, by name."""

HEADER: Mapping[str, tuple[Type, str]] = {
    "device": ("text", "who writes; `launcher` for the launcher"),
    "incarnation": ("text", "16 hex digits: this life of its process"),
    "deployment": ("text", "its name"),
    "plan": ("text", "SHA-256 of the plan"),
    "pid": ("count", "the process"),
    "version": ("count", "of the protocol"),
    "epoch_s": ("number", "s: add it to a `t_s` to get seconds since 1970"),
}
"""What the first line of an event log holds; the launcher adds the machine's facts."""
