"""`understudy keys`."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from dataflow.errors import MisuseError
from understudy.commands.options import PATH

_DEVICE_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_FOLDER = click.option("--folder", type=PATH, default=Path("keys"), show_default=True)


@click.group()
def keys() -> None:
    """CURVE keys: who may talk to whom."""


@keys.command("new")
@click.argument("names", nargs=-1, required=True)
@_FOLDER
def keys_new(names: tuple[str, ...], folder: Path) -> None:
    """Make a pair of keys for each device in NAMES.

    Copy the folder's NAME.key files to every device; NAME.key_secret stays on NAME.

    Example: understudy keys new cam.0 cam.1 edge.0 edge.1
    """
    from dataflow.wire.keys import new_keys

    for name in _device_names(names):
        public, secret = new_keys(folder, name)
        click.echo(f"{public} (copy it to every device), {secret} (keep it on {name})")


@keys.command("rotate")
@click.argument("name")
@_FOLDER
def keys_rotate(name: str, folder: Path) -> None:
    """Make the next key of NAME; both are valid until the old one is retired.

    Running devices read their folder again when a file in it changes.

    Example: understudy keys rotate cam.0
    """
    from dataflow.wire.keys import rotate_key

    (name,) = _device_names([name])
    public, _ = rotate_key(folder, name)
    click.echo(
        f"{public} (copy it to every device; then `understudy keys switch {name}`, "
        "here first)"
    )


@keys.command("switch")
@click.argument("name")
@_FOLDER
def keys_switch(name: str, folder: Path) -> None:
    """Put the next key of NAME into use; the old one stays valid.

    Example: understudy keys switch cam.0
    """
    from dataflow.wire.keys import switch_key

    (name,) = _device_names([name])
    switch_key(folder, name)
    click.echo(
        f"{folder}: '{name}' uses its next key; when it does so everywhere, "
        f"`understudy keys retire {name}` everywhere"
    )


@keys.command("retire")
@click.argument("name")
@_FOLDER
def keys_retire(name: str, folder: Path) -> None:
    """Forget the old key of NAME: connections with it end.

    Example: understudy keys retire cam.0
    """
    from dataflow.wire.keys import retire_key

    (name,) = _device_names([name])
    retire_key(folder, name)
    click.echo(f"{folder}: '{name}' has one key again")


def _device_names(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if not _DEVICE_NAME.fullmatch(name):
            raise MisuseError(
                f"device '{name}': not a name; write it as in the deployment, such as "
                "edge.0"
            )
    return names
