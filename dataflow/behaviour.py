"""What an actor does when it fires: the one interface between graph and code.

A user's own actor is a subclass named in YAML as ``package.module:Class``::

    class Threshold(Behaviour):
        @classmethod
        def ports(cls, params):
            image = TokenType("float32", (1, 8, 8))
            return (Port("image", "in", image), Port("mask", "out", image))

        def fire(self, image):
            return (image > 0.5).astype(np.float32)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dataflow.errors import UnderstudyError, nearest
from dataflow.graph import Port

Params = Mapping[str, Any]
"""What YAML gave beside `type`; relative paths were made absolute by its reader."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where and for whom an actor runs."""

    device: str
    stream: str
    """Stream whose iterations it serves, such as ``cam.0``."""
    incarnation: int
    plan_folder: Path
    """Holds ``segments/<sha256>.onnx``."""
    run_folder: Path | None
    """Where sinks write; None in a dry run."""
    slots: int
    """How many of its latest outputs must stay unchanged while it fires on: window + 2.
    An actor that reuses its output memory keeps a ring of this many."""
    batch: int = 1
    """Firings that may come at once, see `Behaviour.fire_many`."""
    threads: int = 1
    """Threads that a firing may compute with."""
    providers: tuple[str, ...] = ()
    """What may compute, by preference, as the library under an actor names it."""


class StreamEnd(Exception):  # noqa: N818  (like StopIteration: not an error)
    """Raised by a source's `fire`: the stream has no further frame."""


class Behaviour:
    """What an actor does when it fires.

    `fire` gets one argument per connected input port, in port order: the token where
    the rate is 1, a list of tokens where it is not (also when a mode sets it to 0).
    It returns the same for its output ports: nothing for none, the token (or list)
    itself for one, a tuple for several. Tokens are NumPy arrays of the port's dtype and
    shape (a join's outcome: an `Outcome`); an input may be memory that is reused after
    the firing, so an actor that keeps one copies it. `fire` must not write to inputs.
    """

    stateful: ClassVar[bool] = False
    controller: ClassVar[bool] = False
    """It controls a DPG: after its data outputs `fire` returns the index of a mode."""
    told_rates: ClassVar[bool] = False
    """`fire` gets the keyword `rates`: how many tokens each of its data output ports
    takes in this firing. An actor whose inputs do not tell the mode needs it."""
    source: ClassVar[bool] = False
    """It has no input, is paced by `rate_hz`, and numbers the frames of a stream."""
    sink: ClassVar[bool] = False
    """Its first input takes outcomes; it ends a stream."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        """Return the ports that `params` give; read no more files than that takes.

        Raises:
            UnderstudyError: A parameter is missing, unknown or wrong.
        """
        raise NotImplementedError

    def __init__(self, params: Params, site: Site) -> None:
        self.params = params
        self.site = site

    def start(self) -> None:
        """Acquire what firing needs: models, files. Called once, before any firing."""

    def fire(self, *tokens: Any) -> Any:
        """Do one firing."""
        raise NotImplementedError

    def fire_many(self, firings: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Do several firings that are enabled at once; return what each returns.

        An actor without state that can do them as one call overrides it; the answers
        must be those of one firing after the other. At most `site.batch` come at once.
        """
        return [self.fire(*tokens) for tokens in firings]

    def stop(self) -> None:
        """Release what `start` acquired. Called once, also after an error."""


class Source(Behaviour):
    """An actor without inputs that makes frames at a rate."""

    stateful = True
    source = True

    @property
    def rate_hz(self) -> float:
        """Frames per second; the device calls `fire` at this pace."""
        return float(self.params["rate_hz"])


class Sink(Behaviour):
    """An actor that takes a stream's outcomes: first input port ``answer``."""

    stateful = True
    sink = True

    def may_become(self, params: Params) -> bool:
        """Tell whether it can go on as the sink that another plan has in its place."""
        return params == self.params

    def become(self, params: Params, first: int) -> None:
        """Another plan is played from frame `first` on; `may_become` agreed to it."""

    def end(self, last: int) -> None:
        """Called once, before `stop`: the last frame was `last`, -1 if none was."""


def known_params(
    params: Params, *, required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    """Check the names in `params`.

    Raises:
        UnderstudyError: One is missing or unknown; the nearest known name is offered.
    """
    for name in required:
        if name not in params:
            raise UnderstudyError(f"parameter '{name}': missing; give it")
    for name in params:
        if name not in required and name not in optional:
            known = (*required, *optional)
            raise UnderstudyError(
                f"parameter '{name}': unknown{nearest(name, known)}; "
                f"known are {', '.join(known) or 'none'}"
            )
