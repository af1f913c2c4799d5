"""The command line: its commands, and what becomes of what goes wrong in them."""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click

from dataflow.errors import UnderstudyError, nearest
from understudy.commands.ending import INTERRUPTED, complain

COMMANDS = (
    "demo",
    "split",
    "profile",
    "explore",
    "check",
    "draw",
    "simulate",
    "device",
    "up",
    "switch",
    "chaos",
    "status",
    "report",
    "keys",
)
"""In the order of use. Each is the function of that name in `understudy.commands`,
imported when it is asked for."""


class _Commands(click.Group):
    """Turns what went wrong into one message and the exit status it deserves."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        pressed = _hear_interrupts()
        try:
            # Standalone, click would answer Ctrl-C with "Aborted!" and status 1.
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except UnderstudyError as error:
            complain(str(error))
            sys.exit(error.status)
        except (click.Abort, KeyboardInterrupt):
            _stopped()
        except OSError as error:
            if pressed:
                _stopped()
            if os.environ.get("UNDERSTUDY_DEBUG"):
                raise
            where = error.filename or "a file"
            complain(f"{where}: {error.strerror}; check the path, its rights, the disk")
            sys.exit(1)
        except Exception as error:
            if pressed:
                _stopped()
            if os.environ.get("UNDERSTUDY_DEBUG"):
                raise
            complain(
                f"internal error: {error!r}; our fault, please report it with what "
                "UNDERSTUDY_DEBUG=1 prints"
            )
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command '{args[0]}'{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"understudy.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


def _hear_interrupts() -> list[int]:
    """Let Ctrl-C be noted where it comes; return the list that it is noted in.

    An extension module that is being imported makes an error of its own of it.
    """
    pressed: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        pressed.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # another thread than the main one
            signal.signal(signal.SIGINT, interrupt)
    return pressed


def _stopped() -> NoReturn:
    complain("stopped")
    sys.exit(INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(package_name="understudy")
def main() -> None:
    """Partitioned DNN inference that keeps answering when devices die.

    Start with `understudy demo`. Exit status: 0 fine, 1 the answer is no, 2 misuse.
    """
