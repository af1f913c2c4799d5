"""How a command that runs something begins, complains and ends."""

import json
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
    from understudy.runs import Judged

INTERRUPTED = 130
"""What shells know as ended by Ctrl-C."""
_LOCATED = re.compile(r".+?:\d+:\d+: ")


class Stoppable:
    """Makes SIGTERM end a command as Ctrl-C does: orderly."""

    def __enter__(self) -> None:
        self._previous = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def complain(text: str) -> None:
    from understudy import log

    if not log.complain(text):
        # Lines that begin with file:line:column stay what an editor can follow.
        located = _LOCATED.match(text)
        click.echo(text if located else f"understudy: {text}", err=True)


def tell_native() -> None:
    import native

    if native.fallback_reason is not None:
        complain(
            f"tensor kernels: {native.fallback_reason}; NumPy does their work, slower, "
            "with equal results"
        )


def writable(file: Path | None, option: str = "--json") -> None:
    """Refuse a file that cannot be written before a run, not after it."""
    if file is None:
        return
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        what = "is a folder" if file.is_dir() else f"no folder {folder}"
        raise MisuseError(f"{file}: {what}; name another file with {option}")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise MisuseError(f"{file}: not ours to write; name another file with {option}")


def folder_can_be(folder: Path | None) -> None:
    """Refuse a folder that is a file before a run, not after it."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder}: is a file; name a folder")


def conclude(
    judged: "Judged", json_file: Path | None, *, spoken: bool = False
) -> NoReturn:
    """Print the summary, or let the log tell the verdict, and end."""
    from understudy import log
    from understudy.summary import format_summary, promise_text

    if spoken:
        log.tell(f"{promise_text(judged.verdict)}; see {judged.folder}")
        end(judged, json_file, judged.to_json())
    width = shutil.get_terminal_size((100, 24)).columns
    click.echo()
    click.echo(format_summary(judged.figures, judged.verdict, width), nl=False)
    tell_report(judged)
    end(judged, json_file, judged.to_json())


def tell_report(judged: "Judged") -> None:
    from understudy.runs import REPORT_FILE

    if (judged.folder / REPORT_FILE).exists():
        click.echo(f"\nreport  {judged.folder / REPORT_FILE}")


def end(judged: "Judged", json_file: Path | None, figures: dict[str, Any]) -> NoReturn:
    """Say what went wrong, write a run's figures, and leave with its status."""
    for complaint in (*judged.trouble, *judged.unwritten):
        complain(complaint)
    if json_file is not None:
        write_file(json_file, json.dumps(figures, indent=1) + "\n")
    sys.exit(0 if judged.good else 1)


def write_file(file: Path, text: str) -> None:
    """Write a file of results.

    Raises:
        UnderstudyError: It cannot be written.
    """
    try:
        file.write_text(text)
    except OSError as error:
        raise UnderstudyError(
            f"{file}: cannot be written ({error.strerror}); name another "
            "file, on a disk with room"
        ) from None
