"""What a deployment file says under `map`: which actor runs where, and what is cut."""

import fnmatch
from collections.abc import Collection, Mapping

from dataflow.errors import UnderstudyError, nearest
from graphs.actor_types import is_model, is_part
from graphs.deployment import CODECS, NO_CODEC, Codec, Group, Placement
from graphs.graph_file import GraphFile
from graphs.located_yaml import Place, Problems, Value

CUT_KEYS_REQUIRED = ("cut", "head", "tail")
CHAIN_KEYS_REQUIRED = ("cuts", "path")
CUT_KEYS_OPTIONAL = ("codec",)
CUT_KEYS = {*CUT_KEYS_REQUIRED, *CHAIN_KEYS_REQUIRED}
PART_KEYS_REQUIRED = ("group",)
PART_KEYS_OPTIONAL = ("codec",)


class MappingReader:
    """Reads mappings.

    Args:
        groups: The device groups of the file.
        broken: Names of those that could not be read: no follow-on errors.
        places: Is told where each actor is mapped.
        problems: Is told what is wrong.
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        broken: Collection[str],
        places: dict[str, Place],
        problems: Problems,
    ) -> None:
        self._groups = groups
        self._broken = broken
        self._places = places
        self._problems = problems

    def read(self, value: Value, graph: GraphFile) -> dict[str, Placement]:
        """Return where each actor that is mapped runs.

        A key names an actor or is a pattern, as ``net.*``, for those without a key.
        """
        found: dict[str, Placement] = {}
        by: dict[str, str] = {}
        """Actor -> the key that maps it."""
        entries = self._problems.mapping(value, "map", "{net: edge}")
        actors = graph.graph.actors
        for key, entry in entries.items():
            names = [key] if key in actors else fnmatch.filter(actors, key)
            if not names:
                self._problems.add(
                    value.keys[key],
                    f"map: actor '{key}' is not in graph '{graph.graph.name}'"
                    f"{nearest(key, actors)}",
                )
            placement = self._placement(key, names, entry, graph) if names else None
            for name in names:
                if name != key and name in entries:
                    continue  # what names it is meant for it
                if name in by:
                    self._problems.add(
                        value.keys[key],
                        f"map: '{key}' and '{by[name]}' both match actor '{name}'; "
                        "map it by its name",
                    )
                by[name] = key
                self._places[name] = value.keys[key]
                if placement is not None:
                    found[name] = placement
        return found

    def group_name(self, value: Value, where: str) -> str | None:
        """Return the device group that a value names."""
        text = self._problems.text(value, where)
        if text is None or text in self._broken:
            return None
        if text not in self._groups:
            self._problems.add(
                value.place,
                f"{where}: device group '{text}' is not under devices"
                f"{nearest(text, self._groups)}",
            )
            return None
        return text

    def _placement(
        self, key: str, names: Collection[str], value: Value, graph: GraphFile
    ) -> Placement | None:
        """Return where the actors `names`, which `key` matches, are mapped."""
        where = f"map: {key}"
        if not isinstance(value.data, dict):
            group = self.group_name(value, where)
            return Placement((group,)) if group else None
        if key in names and not value.data.keys().isdisjoint(CUT_KEYS):
            return self._cut(key, value, graph)
        fields = self._problems.keys(
            value, where, required=PART_KEYS_REQUIRED, optional=PART_KEYS_OPTIONAL
        )
        codec = self._codec(fields, where)
        if "codec" in fields and not any(
            is_part(graph.graph.actors[name], graph.models) for name in names
        ):
            self._problems.add(
                fields["codec"].place,
                f"{where}: codec: '{key}' is no part of a model, and a codec is for "
                "what crosses inside one; leave it out",
            )
        if "group" not in fields or codec is None:
            return None
        group = self.group_name(fields["group"], f"{where}: group")
        return Placement((group,), codec=codec) if group else None

    def _codec(self, fields: Mapping[str, Value], where: str) -> Codec | None:
        if "codec" not in fields:
            return NO_CODEC
        name = self._problems.choice(fields["codec"], f"{where}: codec", tuple(CODECS))
        return None if name is None else CODECS[name]

    def _cut(self, name: str, value: Value, graph: GraphFile) -> Placement | None:
        where = f"map: {name}"
        chain = isinstance(value.data, dict) and "cuts" in value.data
        required = CHAIN_KEYS_REQUIRED if chain else CUT_KEYS_REQUIRED
        fields = self._problems.keys(
            value, where, required=required, optional=CUT_KEYS_OPTIONAL
        )
        if not is_model(graph.graph.actors[name]):
            self._problems.add(
                value.place,
                f"{where}: '{name}' is of type '{graph.graph.actors[name].type}'; "
                "only an onnx actor with a model can be cut",
            )
            return None
        if any(key not in fields for key in required):
            return None
        if chain:
            cuts = self._cuts(fields["cuts"], where, name, graph)
            path = self._along(fields["path"], where, len(cuts) + 1)
        else:
            cuts = [self._tensors(fields["cut"], f"{where}: cut", name, graph)]
            head = self.group_name(fields["head"], f"{where}: head")
            path = [head, self._tail(fields["tail"], f"{where}: tail", head)]
        codec = self._codec(fields, where)
        groups = tuple(group for group in path if group is not None)
        if len(groups) < len(path) or codec is None or not all(cuts) or not path:
            return None
        return Placement(groups, tuple(cuts), codec)

    def _cuts(
        self, value: Value, where: str, name: str, graph: GraphFile
    ) -> list[tuple[str, ...]]:
        items = self._problems.items(value, f"{where}: cuts", "[conv1, conv2]")
        return [self._tensors(i, f"{where}: cuts", name, graph) for i in items]

    def _along(self, value: Value, where: str, count: int) -> list[str | None]:
        """Return the groups that a model is cut along: any, then servers."""
        where = f"{where}: path"
        items = self._problems.items(value, where, "[cam, fog, edge]")
        if len(items) != count:
            self._problems.add(
                value.place,
                f"{where}: {len(items)} groups for the {count} parts that {count - 1} "
                "cuts make; name one for each part, from the source on",
            )
            return []
        path = [self.group_name(items[0], where)]
        path += [self._server(item, where) for item in items[1:]]
        for index, group in enumerate(path):
            if group is not None and group in path[:index]:
                self._problems.add(
                    items[index].place,
                    f"{where}: '{group}' stands there before; a frame passes a group "
                    "once, so leave out the cut between",
                )
        return path

    def _tail(self, value: Value, where: str, head: str | None) -> str | None:
        """Return the group of a tail: of servers, or the endpoints that have the head.

        There the tail plays for those frames only that an early exit does not answer.
        """
        if head is None or value.data != head:
            return self._server(value, where)
        if self._groups[head].role == "server":
            self._problems.add(
                value.place,
                f"{where}: '{head}' has the head as well; name another group of role "
                "server, or map the model whole",
            )
            return None
        return head

    def _server(self, value: Value, where: str) -> str | None:
        name = self.group_name(value, where)
        if name is not None and self._groups[name].role != "server":
            self._problems.add(
                value.place,
                f"{where}: '{name}' is of role {self._groups[name].role}; "
                "name a group of role server",
            )
            return None
        return name

    def _tensors(
        self, value: Value, where: str, name: str, graph: GraphFile
    ) -> tuple[str, ...]:
        items = value.data if isinstance(value.data, list) else [value]
        model = graph.models.of(graph.graph.actors[name].params)
        known = []
        for item in items:
            text = self._problems.text(item, where)
            if text is None:
                continue
            try:
                model.tensor(text)
            except UnderstudyError as error:
                self._problems.add(item.place, f"{where}: {error}")
                continue
            known.append(text)
        return tuple(dict.fromkeys(known)) if len(known) == len(items) else ()
