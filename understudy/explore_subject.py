"""What is explored: an ONNX file by itself, or the network of a graph file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dataflow.errors import MisuseError, UnderstudyError
from dataflow.graph import PortRef
from graphs.actor_types import is_model, port_of_tensor
from graphs.graph_file import GraphFile, read_graph
from graphs.onnx_model import Model
from understudy.model_input import Array, read_input


@dataclass(frozen=True, slots=True)
class Subject:
    """A network, and the graph that it is part of.

    Attributes:
        graph: None: it is a model by itself.
        actor: Name of the network in the graph.
        exit_tensor: What the early exit of the graph reads in the network; empty: it
            has none.
        frame: Tensor -> what the source of a model by itself shows; None: made up.
    """

    model: Model
    graph: GraphFile | None = None
    actor: str = "net"
    exit_tensor: str = ""
    frame: Mapping[str, Array] | None = None


def read_subject(path: Path, sizes: Mapping[str, int] | None = None) -> Subject:
    """Return what is in the file `path`, a model or a graph.

    Args:
        path: The file.
        sizes: For open dimensions of a model; a graph says its own.

    Raises:
        MisuseError: No such file.
        UnderstudyError: A graph in which no whole model leads to an answer, or several.
    """
    if path.suffix not in (".yaml", ".yml"):
        return Subject(Model.read(path, sizes))
    file = read_graph(path)
    name = _network(path, file)
    actor = file.graph.actors[name]
    part = file.models.of(actor.params)
    if not part.is_whole:
        raise UnderstudyError(
            f"{path}: '{name}' is a part of {part.model.where}; explore a graph that "
            "has it as one actor"
        )
    return Subject(part.model, file, name, _exit_tensor(file, name))


def showing(subject: Subject, path: Path) -> Subject:
    """Return what is explored, with the frame that the file `path` has for it.

    Raises:
        MisuseError: The file is of no use, or a graph has frames of its own.
        UnderstudyError: It is not what the model takes.
    """
    if subject.graph is not None:
        raise MisuseError(
            f"--input: the frames of {subject.graph.path} are those of its source; "
            "name others there"
        )
    inputs = [subject.model.tensor(name) for name in subject.model.inputs]
    return replace(subject, frame=read_input(path, inputs))


def _network(path: Path, file: GraphFile) -> str:
    """Return the model that the answer comes from, understudies and exits aside."""
    early = {found.answer.actor for found in file.exits.values()}
    other = {ref.actor for refs in file.understudies.values() for ref in refs}
    found = [
        name
        for name, actor in file.graph.actors.items()
        if is_model(actor) and name not in early | other
    ]
    if len(found) != 1:
        raise UnderstudyError(
            f"{path}: {', '.join(found) or 'no model'} could be what is cut; explore a "
            "graph with one network"
        )
    return found[0]


def _exit_tensor(file: GraphFile, network: str) -> str:
    """Return the tensor of the network from which an early answer is made."""
    feeds: dict[str, list[PortRef]] = {}
    for fifo in file.graph.fifos:
        feeds.setdefault(fifo.target.actor, []).append(fifo.source)
    for early in file.exits.values():
        todo, seen = [early.answer.actor], {early.answer.actor}
        while todo:
            for source in feeds.get(todo.pop(), ()):
                if source.actor == network:
                    tensors = port_of_tensor(file.graph.actors[network], file.models)
                    return tensors[source.port]
                if source.actor not in seen:
                    seen.add(source.actor)
                    todo.append(source.actor)
    return ""
