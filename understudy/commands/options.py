"""Options and arguments that several commands have."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataflow.errors import MisuseError

if TYPE_CHECKING:
    from understudy.metrics import Address


class Finite(click.FloatRange):
    """A range of finite numbers; click lets NaN through every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


PATH = click.Path(path_type=Path)
DEPLOYMENT = click.argument("deployment", type=PATH)
RUN = click.option(
    "--run", "run_folder", type=PATH, help="Folder of the run; made if missing."
)
SECONDS = click.option(
    "--seconds", type=Finite(0), help="End the sources after so long."
)
JSON = click.option("--json", "json_file", type=PATH, help="Write the figures there.")
METRICS = click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Serve Prometheus metrics there; a port alone: on this machine only.",
)
LOG_FORMAT = click.option(
    "--log-format",
    "log_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How it speaks: sentences, or one JSON object a line.",
)
INSECURE = click.option(
    "--insecure", is_flag=True, help="Listen beyond loopback without keys."
)
CODEC = click.Choice(
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
        "auto",
    ]
)
"""As `graphs.deployment.CODECS`, which takes long to import."""
DIMS = click.option(
    "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Fix an open dimension."
)


def sectioned(sections: Mapping[str, str]) -> type[click.Command]:
    """Return a command whose help shows its options in sections.

    Args:
        sections: Title -> names of parameters; what is in none comes last.
    """

    class Sectioned(click.Command):
        def format_options(
            self, ctx: click.Context, formatter: click.HelpFormatter
        ) -> None:
            left = {
                str(parameter.name): record
                for parameter in self.get_params(ctx)
                if isinstance(parameter, click.Option)
                and (record := parameter.get_help_record(ctx)) is not None
            }
            for title, names in sections.items():
                with formatter.section(title):
                    formatter.write_dl([left.pop(name) for name in names.split()])
            with formatter.section("Other options"):
                formatter.write_dl(list(left.values()))

    return Sectioned


def sizes_of(dims: Sequence[str]) -> dict[str, int]:
    """Return sizes by name for what `--dim` was given.

    Raises:
        MisuseError: One is no name and size.
    """
    return dict(map(_size, dims))


def _size(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal() or not int(size):
        raise MisuseError(f"--dim {text}: write a name and a size, as in batch=1")
    return name, int(size)


def metrics_address(text: str | None) -> "Address | None":
    if text is None:
        return None
    from understudy.metrics import parse_address

    return parse_address(text)
