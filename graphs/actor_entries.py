"""What a graph file says of its actors, before their types are asked."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dataflow.errors import MisuseError, UnderstudyError, nearest
from dataflow.graph import CONTROL_TOKEN, Port, TokenType
from graphs.actor_types import PATH_PARAMS, ActorEntry
from graphs.located_yaml import Place, Problems, Value

Params = Mapping[str, Mapping[str, object]]
Direction = Literal["in", "out"]

ACTOR_KEYS = ("type", "device", "stateful", "time", "ports")
"""Keys of an actor with a meaning of their own; every other one is a parameter."""
PORT_SIDES: tuple[Direction, ...] = ("in", "out")
PORT_KEYS = ("token", "rate", "control", "optional")

ACTOR_NAME = re.compile(r"[\w.\-\[\]@/#+]+")
PORT_NAME = re.compile(r"\w+")


class EntryReader:
    """Reads the entries under `actors`.

    Attributes:
        entries: Those that could be read.
        broken: Names of the others: they get no follow-on errors.
        places: Where each name stands.
    """

    def __init__(self, path: Path, top: Place, problems: Problems) -> None:
        self._path = path
        self._top = top
        self._problems = problems
        self.entries: dict[str, ActorEntry] = {}
        self.broken: set[str] = set()
        self.places: dict[str, Place] = {}

    def read(self, value: Value, params: Params) -> None:
        """Fill `entries` and `broken` from what stands under `actors`."""
        entries = self._problems.mapping(value, "actors", "{camera: {type: images}}")
        for name in params:
            if name not in entries:
                raise MisuseError(
                    f"actor '{name}': not in {self._path}{nearest(name, entries)}"
                )
        for name, entry in entries.items():
            place = value.keys[name]
            self.places[name] = place
            if not ACTOR_NAME.fullmatch(name):
                self._problems.add(
                    place,
                    f"actor '{name}': not a name; use letters, digits, '_', '-', '.'",
                )
                self.broken.add(name)
                continue
            found = self._entry(name, place, entry, params.get(name, {}))
            if found is None:
                self.broken.add(name)
            else:
                self.entries[name] = found

    def _entry(
        self, name: str, place: Place, value: Value, changed: Mapping[str, object]
    ) -> ActorEntry | None:
        where = f"actor '{name}'"
        fields = self._problems.mapping(value, where, "{type: images, …}")
        if not isinstance(value.data, dict):
            return None
        ports = self._ports(fields["ports"], where) if "ports" in fields else None
        type_name: str | None = ""
        if "type" in fields:
            type_name = self._problems.text(fields["type"], f"{where}: type")
        elif ports is None:
            self._problems.add(
                place, f"{where}: key 'type' is missing; give it, or explicit ports"
            )
            return None
        device = None
        if "device" in fields and fields["device"].data is not None:
            device = self._problems.text(fields["device"], f"{where}: device")
        stateful: bool | None = False
        if "stateful" in fields:
            stateful = self._problems.boolean(fields["stateful"], f"{where}: stateful")
        time = None
        if "time" in fields:
            time = self._problems.fraction(fields["time"], f"{where}: time")
        params = {k: v.plain() for k, v in fields.items() if k not in ACTOR_KEYS}
        params |= changed
        if not self._files(where, params, fields) or type_name is None:
            return None
        return ActorEntry(
            name=name,
            type=type_name,
            place=place,
            type_place=fields["type"].place if "type" in fields else place,
            params=params,
            param_places=value.keys,
            ports=ports,
            device=device,
            stateful=bool(stateful),
            time=time,
        )

    def _files(
        self, where: str, params: dict[str, object], fields: Mapping[str, Value]
    ) -> bool:
        """Make the paths among `params` absolute; say whether all are there."""
        ok = True
        for key in PATH_PARAMS:
            text = params.get(key)
            if not isinstance(text, str) or "://" in text:
                continue
            # Not `resolve`: a link that is exchanged later shall count.
            path = Path(os.path.abspath(self._path.parent / text))
            params[key] = str(path)
            if not path.exists():
                beside = path.parent.iterdir() if path.parent.is_dir() else ()
                place = fields[key].place if key in fields else self._top
                self._problems.add(
                    place,
                    f"{where}: {key} '{text}' is not there ({path})"
                    f"{nearest(path.name, [p.name for p in beside])}",
                )
                ok = False
        return ok

    def _ports(self, value: Value, where: str) -> tuple[Port, ...]:
        sides = self._problems.keys(
            value, f"{where}: ports", required=(), optional=PORT_SIDES
        )
        ports: list[Port] = []
        for direction in PORT_SIDES:
            if direction in sides:
                ports += self._side(sides[direction], direction, where, ports)
        return tuple(ports)

    def _side(
        self, value: Value, direction: Direction, where: str, before: list[Port]
    ) -> list[Port]:
        ports = []
        like = "{image: float32[1,8,8]}"
        listed = self._problems.mapping(value, f"{where}: ports: {direction}", like)
        for name, port in listed.items():
            if not PORT_NAME.fullmatch(name):
                self._problems.add(
                    value.keys[name],
                    f"{where}: port '{name}': not a name; use letters, digits, '_'",
                )
            if any(name == p.name for p in before):
                self._problems.add(
                    value.keys[name],
                    f"{where}: port '{name}': an input and an output; "
                    "give them two names",
                )
            ports.append(self._port(f"{where}: port '{name}'", name, direction, port))
        return ports

    def _port(self, where: str, name: str, direction: Direction, value: Value) -> Port:
        if not isinstance(value.data, dict):
            return Port(name, direction, self._token(value, where))
        fields = self._problems.keys(value, where, required=(), optional=PORT_KEYS)
        token = self._token(fields["token"], where) if "token" in fields else None
        flags = {
            key: bool(self._problems.boolean(fields[key], f"{where}: {key}"))
            for key in ("control", "optional")
            if key in fields
        }
        if flags.get("control") and token is None:
            token = CONTROL_TOKEN
        rates = self._rates(fields["rate"], where) if "rate" in fields else (1,)
        return Port(name, direction, token, rates, **flags)

    def _token(self, value: Value, where: str) -> TokenType | None:
        if value.data is None:
            return None
        text = self._problems.text(value, where)
        if text is None:
            return None
        try:
            return TokenType.parse(text)
        except UnderstudyError as error:
            self._problems.add(value.place, f"{where}: {error}")
            return None

    def _rates(self, value: Value, where: str) -> tuple[int, ...]:
        items = value.data if isinstance(value.data, list) else [value]
        rates = [
            self._problems.integer(item, f"{where}: rate", at_least=0) for item in items
        ]
        known = [rate for rate in rates if rate is not None]
        if len(known) == len(rates) and (known != sorted(set(known)) or not known):
            self._problems.add(
                value.place,
                f"{where}: rates {known} are not ascending; list each allowed rate "
                "once, the smallest first",
            )
        return tuple(sorted(set(known))) or (1,)
