"""Firing a source at its pace, and gathering its frames into iterations.

An iteration of a stream is as many firings of its source as the repetition vector
says: one, unless some actor behind it batches or samples frames.
"""

from collections.abc import Sequence
from typing import Any

from dataflow.behaviour import Source, StreamEnd
from dataflow.errors import ActorError, UnderstudyError
from dataflow.graph import Port


class Pacer:
    """Fires one source when it is due.

    Args:
        source: Made and started.
        actor: Its name, for messages.
        ports: Its output ports.
        frames: Firings per iteration.

    Attributes:
        rate_hz: Its firings per second.
        due_s: When it fires next; inf: never again.
        fired: Frames so far.
        missed: Firings that the device came too late for; they have no number.
    """

    def __init__(
        self, source: Source, actor: str, ports: Sequence[Port], frames: int
    ) -> None:
        self._source = source
        self._actor = actor
        self._rates = [port.rate for port in ports]
        self._frames = frames
        self._period_s = 1.0 / source.rate_hz
        self._gathered: list[Sequence[Any]] = []
        self.rate_hz = source.rate_hz
        self.due_s = float("inf")
        self.fired = 0
        self.missed = 0

    def begin(self, now_s: float) -> None:
        self.due_s = now_s

    def end(self) -> None:
        self.due_s = float("inf")

    @property
    def gathering(self) -> bool:
        """Some frames of an iteration are there, and others missing."""
        return bool(self._gathered)

    def fire(self, now_s: float) -> list[Any] | None:
        """Fire once.

        Returns:
            For each output port the tokens of an iteration that is now complete: the
            token where it is one, else a list. None while frames are missing.

        Raises:
            StreamEnd: There is no further frame.
            ActorError: The source raised, or returned what its ports do not declare.
        """
        # A camera keeps its beat: what was missed is missed, and has no number.
        late = int((now_s - self.due_s) / self._period_s)
        self.missed += late
        self.due_s += (late + 1) * self._period_s
        self._gathered.append(self._fire())
        self.fired += 1
        if len(self._gathered) < self._frames:
            return None
        return self._taken()

    def rest(self) -> list[Any] | None:
        """Return what there is of an incomplete iteration, if there is any.

        Its last frame stands for those that are missing.
        """
        if not self._gathered:
            return None
        missing = self._frames - len(self._gathered)
        self._gathered += [self._gathered[-1]] * missing
        return self._taken()

    def _taken(self) -> list[Any]:
        gathered, self._gathered = self._gathered, []
        if self._frames == 1:
            return list(gathered[0])
        ports = zip(zip(*gathered, strict=True), self._rates, strict=True)
        return [_joined(tokens, rate) for tokens, rate in ports]

    def _fire(self) -> Sequence[Any]:
        try:
            fired = self._source.fire()
        except (StreamEnd, UnderstudyError):
            raise
        except Exception as error:
            raise ActorError(
                f"actor '{self._actor}': fire raised {error!r}; mend the actor"
            ) from error
        made = fired if isinstance(fired, tuple) else (fired,)
        if len(made) != len(self._rates):
            raise ActorError(
                f"actor '{self._actor}': returned {len(made)} tokens for "
                f"{len(self._rates)} output ports; return one for each"
            )
        return made


def _joined(tokens: Sequence[Any], rate: int) -> list[Any]:
    """Return the tokens of several firings of a port as one list."""
    if rate == 1:
        return list(tokens)
    return [token for several in tokens for token in several]
