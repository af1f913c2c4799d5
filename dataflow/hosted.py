"""What a device computes for others: one chain a segment, for all streams.

Every stream has its own actors here in the plain graph. They are stateless (R14), so
one chain plays them all, for each segment, and a stream that no plan names (a third
camera of a newer deployment) is served as well, by its segment's identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.engine import Chain
from dataflow.executor import Executor, time_chain
from dataflow.parts import HostedPart, hosted_parts
from dataflow.plan import Plan
from dataflow.wire.compression import CODES, Compression, compression
from dataflow.wire.header import Header

MakeChain = Callable[[Plan, HostedPart], Chain]
"""Makes the actors of a part, started, as a chain."""


@dataclass(slots=True)
class Hosted:
    """A segment, as a device plays it.

    Attributes:
        plan: That names it; one of them stands for all.
        packed: How its tokens come; None: as they are.
        packs: How its results go on to the next server, or back as the answer.
        chain: None until it is loaded.
    """

    plan: Plan
    part: HostedPart
    packed: Compression | None
    packs: Compression | None
    chain: Chain | None = None

    def load(self, device: str, make_chain: MakeChain, executor: Executor) -> None:
        """Make the chain and time it; may run beside the I/O loop."""
        chain = make_chain(self.plan, self.part)
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
        received, packed = self.part.received, self.packed
        if header.codec and packed is not None:
            frames = [
                packed.token(frame, token.nbytes)
                for frame, token in zip(frames, received, strict=True)
            ]
        return [
            np.ndarray(token.shape, token.dtype, frame)
            for frame, token in zip(frames, received, strict=True)
        ]


def hosted_of(plan: Plan, device: str) -> dict[int, Hosted]:
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
