"""Lines of JSON, read with typed access that says where it went wrong.

A process that gets SIGKILL may leave half a line at the end of its file: that one is
skipped, and said to be. Anything else that is not as it should be is an error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.outcome import Status

VERSION = 1
"""Of what a run folder's files hold."""
_FRAMES_MAX = 65_536
"""Of one result; a file that says more is not believed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One decoded line, with typed access that says where it went wrong."""

    path: Path
    number: int
    data: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def error(self, what: str) -> UnderstudyError:
        return UnderstudyError(
            f"{self.where}: {what}; the file was changed or was not written by this "
            f"version ({VERSION})"
        )

    def _get(self, key: str, wanted: str, good: bool) -> Any:
        if key not in self.data:
            raise self.error(f"no field '{key}' ({wanted})")
        if not good:
            raise self.error(f"field '{key}' is {self.data[key]!r:.60}, not {wanted}")
        return self.data[key]

    def text(self, key: str) -> str:
        good = isinstance(self.data.get(key), str)
        return cast(str, self._get(key, "a text", good))

    def whole(self, key: str, *, least: int) -> int:
        value = self.data.get(key)
        good = _is_whole(value) and cast(int, value) >= least
        return cast(int, self._get(key, f"a whole number from {least}", good))

    def per_frame(self, key: str, frames: int) -> tuple[int | None, ...]:
        """Return field `key` for each of several frames; one value holds for all."""
        value = self.data.get(key)
        several = value if isinstance(value, list) else None
        listed = [value] * min(frames, _FRAMES_MAX) if several is None else several
        if several is not None and len(several) < frames:
            raise self.error(
                f"field '{key}' has {len(several)} values for {frames} frames"
            )
        if not all(each is None or _is_whole(each) for each in listed):
            raise self.error(
                f"field '{key}' is {value!r:.60}, not a whole number, a list of them "
                "or null"
            )
        return tuple(cast(list[int | None], listed[:frames]))

    def real(self, key: str) -> float:
        good = is_number(self.data.get(key))
        return float(self._get(key, "a finite number", good))

    def flag(self, key: str) -> bool:
        good = isinstance(self.data.get(key), bool)
        return cast(bool, self._get(key, "true or false", good))

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        return tuple(self._get(key, "a list of texts", good))

    def status(self) -> Status:
        good = self.data.get("status") in get_args(Status)
        return cast(Status, self._get("status", f"one of {get_args(Status)}", good))

    def values(self, key: str) -> tuple[float, ...] | None:
        """Return a list of floats. NaN is let pass: a model may answer with it."""
        value = self.data.get(key)
        if value is None:
            return None
        good = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) for v in value
        )
        return tuple(map(float, self._get(key, "a list of numbers or null", good)))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300  # false for infinities and NaN; float() cannot overflow


def read_lines(path: Path) -> tuple[list[Line], bool]:
    """Return the whole lines of `path`, and whether half a line follows them."""
    try:
        raw = path.read_bytes().split(b"\n")
    except OSError as error:
        raise MisuseError(f"{path}: cannot be read ({error.strerror})") from None
    lines = []
    for number, text in enumerate(raw, start=1):
        last = number == len(raw)  # what follows the last newline; normally nothing
        if last and not text:
            break
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            lines.append(Line(path, number, data))
        elif last:
            return lines, True
        else:
            raise UnderstudyError(
                f"{path}:{number}: not a JSON object: {text[:40]!r}; only the last "
                "line may be incomplete, after a kill"
            )
    return lines, False
