"""Reading JSON that a person or another program may have changed: field by field."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class WrongFieldError(Exception):
    """Says which field is not what it must be; its reader says of which file."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a JSON object, each checked when it is taken.

    Every method raises `WrongFieldError` when the field is missing or of another kind.

    Attributes:
        data: What was parsed.
        where: Path of the object in the file, with a dot behind it; "" for all of it.
    """

    data: Any
    where: str = ""

    def _take(self, name: str, wanted: str, good: Callable[[Any], bool]) -> Any:
        if not isinstance(self.data, dict) or name not in self.data:
            raise WrongFieldError(f"has no '{self.where}{name}'")
        value = self.data[name]
        if not good(value):
            raise WrongFieldError(
                f"'{self.where}{name}' is {value!r:.60}, not {wanted}"
            )
        return value

    def text(self, name: str) -> str:
        return str(self._take(name, "a text", lambda value: isinstance(value, str)))

    def number(self, name: str) -> float:
        """Return a finite number."""
        return float(self._take(name, "a number", _is_number))

    def size(self, name: str) -> float:
        """Return a finite number that is not below 0."""
        return float(self._take(name, "a number of at least 0", _is_size))

    def size_or_none(self, name: str) -> float | None:
        value = self._take(
            name,
            "null or a number of at least 0",
            lambda value: value is None or _is_size(value),
        )
        return None if value is None else float(value)

    def count(self, name: str) -> int:
        """Return a whole number that is not below 0."""
        return int(self._take(name, "a whole number", _is_count))

    def flag(self, name: str) -> bool:
        return bool(
            self._take(name, "true or false", lambda value: isinstance(value, bool))
        )

    def fields(self, name: str) -> "Fields":
        value = self._take(name, "an object", lambda value: isinstance(value, dict))
        return Fields(value, f"{self.where}{name}.")

    def each(self, name: str) -> "dict[str, Fields]":
        """Return the objects in the object called `name`."""
        inside = self.fields(name)
        return {key: inside.fields(key) for key in inside.data}

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(
            self._take(
                name,
                "a list of texts",
                lambda value: (
                    isinstance(value, list) and all(isinstance(v, str) for v in value)
                ),
            )
        )

    def counts(self, name: str) -> tuple[int, ...]:
        return tuple(
            self._take(
                name,
                "a list of whole numbers",
                lambda value: isinstance(value, list) and all(map(_is_count, value)),
            )
        )

    def objects(self, name: str) -> "list[Fields]":
        """Return the entries of the list called `name`."""
        value = self._take(name, "a list", lambda value: isinstance(value, list))
        return [Fields(v, f"{self.where}{name}[{i}].") for i, v in enumerate(value)]

    def rows(self, name: str, *columns: str) -> "list[Fields]":
        """Return the entries of a list of lists, their values named by `columns`."""
        found = []
        for row in self.objects(name):
            if not isinstance(row.data, list) or len(row.data) != len(columns):
                raise WrongFieldError(
                    f"'{row.where[:-1]}' is {row.data!r:.60}, not "
                    f"[{', '.join(columns)}]"
                )
            found.append(Fields(dict(zip(columns, row.data, strict=True)), row.where))
        return found

    def facts(self, name: str) -> dict[str, str]:
        """Return an object of texts."""
        inside = self.fields(name)
        return {key: inside.text(key) for key in inside.data}


def _is_number(value: object) -> bool:
    # JSON has no infinity, yet Python's reader knows some.
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
