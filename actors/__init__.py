"""The actor library: what a ``type:`` in a graph file names.

A type is a name of this library, a name that an installed package registered in the
entry point group ``understudy.actors``, or a class written ``package.module:Class``.
Modules are imported when a type is asked for, so that a device loads onnxruntime only
when it hosts an ONNX actor.
"""

import importlib
from types import ModuleType

from dataflow.behaviour import Behaviour
from dataflow.errors import UnderstudyError, nearest

ENTRY_POINTS = "understudy.actors"

LIBRARY = {
    "images": "actors.images:Images",
    "arrays": "actors.arrays:Arrays",
    "normalise": "actors.normalise:Normalise",
    "onnx": "actors.onnx_segment:OnnxSegment",
    "confidence": "actors.confidence:Confidence",
    "batch": "actors.multirate:Batch",
    "sample": "actors.multirate:Sample",
    "copy": "actors.routing:Copy",
    "switch": "actors.routing:Switch",
    "select": "actors.routing:Select",
    "encode": "actors.codec:Encode",
    "decode": "actors.codec:Decode",
    "pack": "actors.pack:Pack",
    "results": "actors.results:Results",
}


def behaviour(type_name: str) -> type[Behaviour]:
    """Return the class that `type_name` names; the library's own names come first.

    Raises:
        UnderstudyError: Unknown name, a module that cannot be imported, a class that
            is not there or is no `Behaviour`.
    """
    target = type_name if ":" in type_name else LIBRARY.get(type_name)
    if target is None:
        target = _registered(type_name)
    module_name, _, class_name = target.partition(":")
    return _class(f"actor type '{type_name}'", module_name, class_name)


def _registered(name: str) -> str:
    # Imported here: a device whose actors are all of this library starts without it.
    from importlib.metadata import EntryPoint, entry_points

    points: dict[str, EntryPoint] = {
        point.name: point for point in entry_points(group=ENTRY_POINTS)
    }
    if name not in points:
        known = [*LIBRARY, *points]
        raise UnderstudyError(
            f"actor type '{name}': unknown{nearest(name, known)}; known are "
            f"{', '.join(known)}; a class of your own is written package.module:Class"
        )
    return points[name].value


def _class(where: str, module_name: str, class_name: str) -> type[Behaviour]:
    if not (module_name and class_name):
        raise UnderstudyError(f"{where}: not of the form package.module:Class")
    module = _module(where, module_name)
    found = getattr(module, class_name, None)
    if found is None:
        classes = [name for name, item in vars(module).items() if _is_actor(item)]
        raise UnderstudyError(
            f"{where}: module '{module_name}' ({module.__file__}) has no class "
            f"'{class_name}'{nearest(class_name, classes)}; "
            f"its actors are {', '.join(classes) or 'none'}"
        )
    if not _is_actor(found):
        raise UnderstudyError(
            f"{where}: '{class_name}' is not an actor; "
            "make it a subclass of dataflow.behaviour.Behaviour"
        )
    actor: type[Behaviour] = found
    return actor


def _is_actor(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Behaviour)


def _module(where: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that exists but imports a missing one is a different mistake.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UnderstudyError(
                f"{where}: importing '{name}' needs module '{error.name}', which is "
                "not installed; install it"
            ) from error
        raise UnderstudyError(
            f"{where}: no module '{error.name}' on the import path; install its "
            "package or add its folder to PYTHONPATH"
        ) from None
    except Exception as error:
        raise UnderstudyError(
            f"{where}: importing '{name}' raised {type(error).__name__}: {error}"
        ) from error
