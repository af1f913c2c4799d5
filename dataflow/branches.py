"""The branches of a region at the fork's device: what the choice of a row looks at."""

from dataflow.engine import Chain
from dataflow.parts import BranchPart
from dataflow.wire.link import Link
from dataflow.wire.service_time import ServiceTime


class LocalBranch:
    """A branch that this device computes itself."""

    local = True

    def __init__(self, part: BranchPart, chain: Chain, best_s: float) -> None:
        self.part = part
        self.chain = chain
        self.ready = True
        self._best_s = best_s

    def p90_s(self, now_s: float) -> float:
        return self._best_s

    def p99_s(self, now_s: float) -> float:
        return 2 * self._best_s


class RemoteBranch:
    """A branch that a server computes, over a link."""

    local = False

    def __init__(
        self, part: BranchPart, chain: Chain | None, link: Link, stream: int
    ) -> None:
        self.part = part
        self.chain = chain
        """What runs here before the token is sent: an encoder."""
        self.link = link
        self.stream = stream
        self.service = ServiceTime()
        self.sent_bytes = sum(token.nbytes for token in part.sent)
        self.received_bytes = [token.nbytes for token in part.received]

    @property
    def ready(self) -> bool:
        return self.link.ready and self.link.credit(self.stream) > 0

    def p90_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.90, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)
