"""Asking the listening devices of a deployment how they are."""

import tempfile
from pathlib import Path
from typing import Any

from dataflow.errors import UnderstudyError
from dataflow.plan import Plan
from dataflow.wire.ask import ask_status
from dataflow.wire.keys import Keys, load_keys
from understudy.plans import compile_deployment
from understudy.summary import counted, counts_text

TIMEOUT_S = 2.0


def ask_all(deployment: Path, identity: str | None) -> dict[str, dict[str, Any]]:
    """Return each listening device's status, or ``{"error": why}``.

    Raises:
        UnderstudyError: The deployment is wrong, nothing in it listens, or there is no
            key to ask with.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = compile_deployment(deployment, Path(folder))
        keys = _any_keys(plan, identity)
        answers: dict[str, dict[str, Any]] = {}
        for device in plan.devices.values():
            address = device.connect or device.listen
            if address is None:
                continue
            try:
                answers[device.name] = ask_status(
                    device.name, address, keys=keys, timeout_s=TIMEOUT_S
                )
            except UnderstudyError as error:
                answers[device.name] = {"error": str(error)}
    if not answers:
        raise UnderstudyError(
            f"{deployment}: none of its devices listens, so none can be asked; look at "
            "what they say where they run"
        )
    return answers


def format_status(answers: dict[str, dict[str, Any]]) -> str:
    """Return the answers as text, a device a paragraph."""
    return "\n".join(line for name in answers for line in _lines(name, answers[name]))


def _lines(name: str, answer: dict[str, Any]) -> list[str]:
    if "error" in answer:
        return [answer["error"]]
    lines = [
        f"{name}: {answer['state']}, pid {answer['pid']}, answered "
        f"{answer.get('answered', 0)} tokens, {answer.get('queue', 0)} waiting"
    ]
    if answer.get("cores"):
        lines.append(f"  computes {_computing(answer)}")
    for key, what in (("nacks", "refused"), ("rejected", "rejected")):
        if counts := answer.get(key):
            noun = "token" if key == "nacks" else "message"
            reasons = ", ".join(f"{why} {n:,}" for why, n in sorted(counts.items()))
            total = counted(sum(counts.values()), noun)
            lines.append(f"  {what} {total}: {reasons}")
    if missing := answer.get("missing"):
        lines.append(f"  lacks {counted(len(missing), 'segment')}; asks its peers")
    lines += [
        f"  plan {name} ({digest[:12]})"
        for name, digest in answer.get("plans", {}).items()
    ]
    for session in answer.get("sessions", ()):
        lines.append(
            f"  serves {session['device']} of {session['deployment']} "
            f"(session {session['session']})"
        )
        for stream in session["about"] or ():
            lines += _stream_lines(stream)
    return lines


def _stream_lines(stream: dict[str, Any]) -> list[str]:
    lines = [
        f"    {stream['stream']}: {stream['frames']} frames, "
        f"{stream['full']} full, {stream['degraded']} degraded, "
        f"{stream['dropped']} dropped; {stream['row']} plays"
    ]
    for key, what in (("rows", "answered by"), ("codecs", "tokens sent as")):
        if counts := stream[key]:
            lines.append(f"      {what} {counts_text(counts)}")
    return lines


def _computing(answer: dict[str, Any]) -> str:
    threads = counted(answer.get("threads", 1), "thread")
    providers = ", ".join(answer.get("providers", ()))
    with_what = f", by {providers}" if providers else ""
    return f"on cores {answer['cores']}, {threads} a model{with_what}"


def _any_keys(plan: Plan, identity: str | None) -> Keys | None:
    if plan.keys is None:
        return None
    if identity is None:
        secrets = sorted(plan.keys.glob("*.key_secret"))
        if not secrets:
            raise UnderstudyError(
                f"{plan.keys}: no secret key here, so nobody would answer; run this on "
                "a device, or make one with `understudy keys new`"
            )
        identity = secrets[0].stem
    return load_keys(plan.keys, identity)
