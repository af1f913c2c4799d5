"""CURVE keys and the allow-list: who may talk to whom.

A folder holds one certificate per device, in ZeroMQ's own format: ``NAME.key`` (public,
copied to every device) and ``NAME.key_secret`` (stays on its device). A device accepts
exactly the peers whose public keys lie in its folder, and reads the folder again when a
file in it changes: there is nothing to restart or to signal.

A key is replaced in three steps, so that a device always has a key that all others
accept, and each step can be taken on one device after the other:

====== ============================== ================================================
rotate makes ``NAME.key_next`` and    on NAME's device; copy the public file to all
       ``NAME.key_next_secret``       others: both keys are valid there from now on
switch the next one takes the place   on NAME's device: it uses the new key; then the
       of the first, which becomes    same files on all others. Both are valid
       ``NAME.key_old``
retire deletes ``NAME.key_old``       everywhere: connections with that key end
====== ============================== ================================================

Source:
    RFC 26/CurveZMQ, and the certificate files of ``zmq.auth``.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq.auth

from dataflow.errors import MisuseError, UnderstudyError

PUBLIC, SECRET = ".key", ".key_secret"
NEXT, NEXT_SECRET = ".key_next", ".key_next_secret"
OLD = ".key_old"
KEY_CHARS = 40
_PUBLICS = (PUBLIC, NEXT, OLD)
"""Endings of the files whose keys are accepted; the one in use first."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What one device knows: its own pair, and the public keys of all.

    Attributes:
        name: The device.
        public: Z85 text, 40 bytes.
        secret: Z85 text, 40 bytes.
        peers: Device name -> public keys; the allow-list. Several while one of them
            replaces another, the one that is probably in use first.
    """

    name: str
    public: bytes
    secret: bytes
    peers: Mapping[str, tuple[bytes, ...]]

    @property
    def allowed(self) -> dict[bytes, str]:
        """Every public key that may connect -> the device that it is of."""
        return {key: name for name, keys in self.peers.items() for key in keys}


def new_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write the first pair of device `name`; return the public and the secret file.

    Raises:
        MisuseError: There is one already, or the folder cannot be written.
    """
    public, secret = _file(folder, name, PUBLIC), _file(folder, name, SECRET)
    if public.exists() or secret.exists():
        raise MisuseError(
            f"{public}: there already; replace it with `understudy keys rotate {name}`,"
            f" or delete both files of '{name}'"
        )
    return _write_pair(folder, name, public, secret)


def rotate_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Write the next pair of device `name`, beside the one in use.

    Raises:
        MisuseError: It has none yet, or a rotation is under way.
    """
    public, secret = _file(folder, name, NEXT), _file(folder, name, NEXT_SECRET)
    if not _file(folder, name, SECRET).exists():
        raise MisuseError(
            f"{folder}: no secret key of '{name}' here; rotate it on its own device, "
            f"or make the first with `understudy keys new {name}`"
        )
    for left in (public, secret, _file(folder, name, OLD)):
        if left.exists():
            step = "retire" if left.suffix == OLD else "switch"
            raise MisuseError(
                f"{left}: a rotation of '{name}' is under way; go on with "
                f"`understudy keys {step} {name}`"
            )
    return _write_pair(folder, name, public, secret)


def switch_key(folder: Path, name: str) -> None:
    """Put the next key of device `name` in the place of the one in use.

    At every instant each of the two is in some file that is accepted.

    Raises:
        MisuseError: There is no next key.
    """
    public, secret = _file(folder, name, NEXT), _file(folder, name, NEXT_SECRET)
    if not public.exists():
        raise MisuseError(
            f"{public}: not there; begin with `understudy keys rotate {name}` on "
            "its device, and copy that file here"
        )
    used = _file(folder, name, PUBLIC)
    try:
        if used.exists():
            shutil.copyfile(used, _file(folder, name, OLD))
        public.replace(used)
        if secret.exists():
            secret.replace(_file(folder, name, SECRET))
    except OSError as error:
        raise _cannot_write(folder, error) from None


def retire_key(folder: Path, name: str) -> None:
    """Forget the key of device `name` that was in use before the last `switch_key`.

    Raises:
        MisuseError: There is none.
    """
    old = _file(folder, name, OLD)
    if not old.exists():
        raise MisuseError(
            f"{old}: not there; nothing of '{name}' is to be retired, switch first"
        )
    try:
        old.unlink()
    except OSError as error:
        raise _cannot_write(folder, error) from None


def load_keys(folder: Path, name: str) -> Keys:
    """Return the keys of device `name` in `folder`.

    Raises:
        UnderstudyError: Its secret key is missing or a file is no certificate.
    """
    secret_file = _file(folder, name, SECRET)
    if not secret_file.exists():
        raise UnderstudyError(
            f"{secret_file}: no secret key for device '{name}'; make one with "
            f"`understudy keys new {name} --folder {folder}`"
        )
    public, secret = _load(secret_file)
    if secret is None:
        raise UnderstudyError(f"{secret_file}: holds no secret key; make a new pair")
    peers: dict[str, tuple[bytes, ...]] = {}
    for ending in _PUBLICS:
        for path in sorted(folder.glob(f"*{ending}")):
            device = path.name.removesuffix(ending)
            peers[device] = (*peers.get(device, ()), _load(path)[0])
    return Keys(name, public, secret, peers)


class KeyFolder:
    """The folder of one device, read again when it changes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name
        self._seen = self._state()
        self.keys = load_keys(folder, name)

    def changed(self) -> bool:
        """Read the folder if a file in it is another; tell whether the keys are too.

        Raises:
            UnderstudyError: It cannot be read: a file is half copied, or wrong. The
                keys stay as they were; raised once, until the next change.
        """
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        before, self.keys = self.keys, load_keys(self.folder, self._name)
        return self.keys != before

    def _state(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return what tells that a file is another than before."""
        found = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if ".key" in entry.name:
                        told = entry.stat()
                        found.append(
                            (entry.name, told.st_mtime_ns, told.st_size, told.st_ino)
                        )
        except OSError:  # a file that went while we looked: look again next time
            return ()
        return tuple(sorted(found))


def _file(folder: Path, name: str, ending: str) -> Path:
    return folder / f"{name}{ending}"


def _write_pair(
    folder: Path, name: str, public: Path, secret: Path
) -> tuple[Path, Path]:
    old_mask = os.umask(0o077)  # the secret must never be readable, not for a moment
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as made:
            zmq.auth.create_certificates(made, name)
            _file(Path(made), name, PUBLIC).chmod(0o644)
            # The secret first: a public key that nobody can use yet would be copied.
            _file(Path(made), name, SECRET).replace(secret)
            _file(Path(made), name, PUBLIC).replace(public)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    finally:
        os.umask(old_mask)
    return public, secret


def _cannot_write(folder: Path, error: OSError) -> MisuseError:
    return MisuseError(
        f"{folder}: cannot be written ({error.strerror}); name another folder"
    )


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
        for key in (public, secret):
            if key is not None and len(key) != KEY_CHARS:
                raise ValueError(f"a key of {len(key)} characters, not {KEY_CHARS}")
    except (OSError, ValueError) as error:
        raise UnderstudyError(
            f"{path}: is not a ZeroMQ certificate ({error}); make a new pair"
        ) from None
    return public, secret
