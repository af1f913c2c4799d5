"""What a device computes for others: one chain a segment, for all streams.

Every stream has its own actors here in the plain graph. They are stateless (R14), so
one chain plays them all, for each segment, and a stream that no plan names (a third
camera of a newer deployment) is served as well, by its segment's identity.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.behaviour import Behaviour
from dataflow.engine import Chain
from dataflow.executor import Executor, time_chain
from dataflow.parts import HostedPart, hosted_parts
from dataflow.plan import Plan
from dataflow.wire.compression import CODES, Compression, compression
from dataflow.wire.header import Header

_array: Callable[..., NDArray[Any]] = np.ndarray

KEPT_S = 30.0
"""How long a segment is kept that nobody wants: an endpoint that still plays the plan
that names it may be away, and dials again after `BACKOFF_MAX_S` at most."""

MakeChain = Callable[[Plan, HostedPart], tuple[Chain, Collection[Behaviour]]]
"""Makes the actors of a part, started, as a chain; returns them beside it."""


@dataclass(slots=True)
class Hosted:
    """A segment, as a device plays it.

    Attributes:
        plan: That names it; one of them stands for all.
        packed: How its tokens come; None: as they are.
        packs: How its results go on to the next server, or back as the answer.
        chain: None until it is loaded.
        actors: Those of the chain.
        unwanted_s: Since when no plan names it, and no session wants it; None: some do.
        shapes: Of the tokens that come; `dtypes`: theirs.
    """

    plan: Plan
    part: HostedPart
    packed: Compression | None
    packs: Compression | None
    chain: Chain | None = None
    actors: Collection[Behaviour] = ()
    unwanted_s: float | None = None
    shapes: list[tuple[int, ...]] = field(init=False)
    dtypes: list[np.dtype[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = [token.shape for token in self.part.received]
        self.dtypes = [np.dtype(token.dtype) for token in self.part.received]

    def load(self, device: str, make_chain: MakeChain, executor: Executor) -> None:
        """Make the chain and time it; may run beside the I/O loop."""
        chain, self.actors = make_chain(self.plan, self.part)
        batching = self.plan.devices[device].batching
        best_s = time_chain(chain, self.part.chain.zeros(), batching.most)
        executor.place(chain, best_s, batching)
        if self.packs is not None:
            executor.place(self.packs, self.packs.time_s(self.part.sent))
        self.chain = chain

    @property
    def token_bytes(self) -> list[int]:
        """Sizes of the tensors that one attempt carries."""
        return [token.nbytes for token in self.part.received]

    @property
    def codec(self) -> int:
        """What a header says of messages that are compressed as the plan wants."""
        return CODES[self.part.compression]

    def packs_for(self, header: Header) -> Compression | None:
        """Return how the results of a token are compressed: as it was itself."""
        return self.packs if header.codec else None

    def tokens(self, header: Header, frames: Sequence[Any]) -> list[NDArray[Any]]:
        """Return the tokens that the frames of a message are, or stand for.

        Raises:
            PeerError: A compressed frame does not stand for its token.
        """
        packed = self.packed
        if header.codec and packed is not None:
            frames = [
                packed.token(frame, token.nbytes)
                for frame, token in zip(frames, self.part.received, strict=True)
            ]
        assert len(frames) == len(self.shapes), "the session let another number in"
        return list(map(_array, self.shapes, self.dtypes, frames))


class Repertoire:
    """All that a device computes for others.

    Args:
        plans: That it serves from the start.
        device: Its name.
        make_chain: Makes the actors of a segment.
        executor: Is told where they run.

    Attributes:
        by_segment: What is there, or being loaded.
        named: Segments of the plans that are served now.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        device: str,
        make_chain: MakeChain,
        executor: Executor,
    ) -> None:
        self._device = device
        self._make_chain = make_chain
        self._executor = executor
        self.by_segment: dict[int, Hosted] = {}
        self.named: Set[int] = frozenset()
        self.take(plans, self.lacking(plans))

    def lacking(self, plans: Sequence[Plan]) -> dict[int, Hosted]:
        """Return what `plans` want and is not here."""
        wanted = self._wanted(plans)
        return {s: h for s, h in wanted.items() if s not in self.by_segment}

    def take(self, plans: Sequence[Plan], new: Mapping[int, Hosted]) -> None:
        """Serve `plans` from now on, with what they want beside what is here."""
        self.by_segment.update(new)
        self.named = self._wanted(plans).keys()

    def load(self, segments: Iterable[int] | None = None) -> None:
        """Load segments, default: all, and time them; runs beside the I/O loop."""
        for segment in list(self.by_segment) if segments is None else segments:
            hosted = self.by_segment[segment]
            hosted.load(self._device, self._make_chain, self._executor)

    def drop(self, segments: Iterable[int]) -> list[Behaviour]:
        """Forget segments; return their actors."""
        actors: list[Behaviour] = []
        for segment in segments:
            hosted = self.by_segment.pop(segment)
            for each in (hosted.chain, hosted.packs):
                if each is not None:
                    self._executor.forget(each)
            actors += hosted.actors
        return actors

    def unwanted(self, wants: Callable[[int], bool], now_s: float) -> list[int]:
        """Return what no plan names, and nobody wanted for `KEPT_S`.

        Args:
            wants: Tells whether somebody still may ask for a segment.
            now_s: Monotonic time.
        """
        found: list[int] = []
        if len(self.named) == len(self.by_segment):
            return found
        for segment, hosted in self.by_segment.items():
            if segment in self.named or wants(segment):
                hosted.unwanted_s = None
            elif hosted.unwanted_s is None:
                hosted.unwanted_s = now_s
            elif now_s >= hosted.unwanted_s + KEPT_S:
                found.append(segment)
        return found

    def _wanted(self, plans: Sequence[Plan]) -> dict[int, Hosted]:
        # Where several plans name a segment the first one stands for all.
        return {
            segment: hosted
            for plan in reversed(plans)
            for segment, hosted in _hosted_of(plan, self._device).items()
        }


def _hosted_of(plan: Plan, device: str) -> dict[int, Hosted]:
    """Return what `device` computes for others in `plan`, by segment.

    Streams of one segment have equal parts; one stands for all.
    """
    return {
        part.segment: Hosted(
            plan,
            part,
            compression(part.compression),
            compression(part.sent_compression),
        )
        for part in hosted_parts(plan.graph, device)
    }
