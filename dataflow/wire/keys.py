"""CURVE keys and the allow-list: who may talk to whom.

A folder holds one certificate per device, in ZeroMQ's own format: ``NAME.key`` (public,
copied to every device) and ``NAME.key_secret`` (stays on its device). A device accepts
exactly the peers whose public key lies in its folder.

Source:
    RFC 26/CurveZMQ, and the certificate files of ``zmq.auth``.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import zmq.auth

from dataflow.errors import MisuseError, UnderstudyError


@dataclass(frozen=True, slots=True)
class Keys:
    """What one device knows: its own pair, and the public keys of all.

    Attributes:
        public: Z85 text, 40 bytes.
        secret: Z85 text, 40 bytes.
        peers: Device name -> public key; the allow-list.
    """

    public: bytes
    secret: bytes
    peers: dict[str, bytes]


def new_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a new pair for device `name`; return the public and the secret file.

    Raises:
        MisuseError: There is one already, or the folder cannot be written.
    """
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if public.exists() or secret.exists():
        raise MisuseError(
            f"{public}: there already; delete both files of '{name}' to replace them"
        )
    old_mask = os.umask(0o077)  # the secret must never be readable, not for a moment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
    except OSError as error:
        raise MisuseError(
            f"{folder}: cannot be written ({error.strerror}); name another folder"
        ) from None
    finally:
        os.umask(old_mask)
    public.chmod(0o644)
    return public, secret


def load_keys(folder: Path, name: str) -> Keys:
    """Return the keys of device `name` in `folder`.

    Raises:
        UnderstudyError: Its secret key is missing or a file is no certificate.
    """
    secret_file = folder / f"{name}.key_secret"
    if not secret_file.exists():
        raise UnderstudyError(
            f"{secret_file}: no secret key for device '{name}'; make one with "
            f"`understudy keys new {name} --folder {folder}`"
        )
    public, secret = _load(secret_file)
    if secret is None:
        raise UnderstudyError(f"{secret_file}: holds no secret key; make a new pair")
    peers = {path.stem: _load(path)[0] for path in sorted(folder.glob("*.key"))}
    return Keys(public=public, secret=secret, peers=peers)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise UnderstudyError(
            f"{path}: is not a ZeroMQ certificate ({error}); make a new pair"
        ) from None
    return public, secret
