"""The branches of a stream at its endpoint, and what is remembered of its frames."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dataflow.branches import number_of
from dataflow.redundancy import Redundancy
from dataflow.wire.control import StreamOffer
from dataflow.wire.iterations import Settle
from dataflow.wire.ledger import LOCAL_MARGIN_S
from dataflow.wire.relay import prefixes_of
from dataflow.wire.service_time import ServiceTime
from understudy.simulation.device import NEVER_S
from understudy.simulation.network import Wire
from understudy.simulation.scenario import Row

if TYPE_CHECKING:
    from understudy.simulation.server import Server
    from understudy.simulation.stream import Stream

TURN_S = 0.002
"""A turn of the loop: poll rounds up to whole milliseconds."""
SPARE_S = 0.01
"""Beside twice its usual time, what a remote branch may need."""


LOCAL_S_MAX = 0.012
LOCAL_SHARE = 1 / 16
"""A local branch takes at most this share of the deadline, if nobody says more."""
SPREAD = 0.9
"""A local firing takes up to 1 + this, times its best: within its p99, twice that."""


class Branch(ABC):
    """A branch of a stream, as `dataflow.wire.rows` sees it and as it is judged."""

    def __init__(self, row: Row, *, local: bool) -> None:
        self.row = row
        self.grade = row.grade
        self.local = local
        self.carried = True
        """Simulated links carry what they are given."""

    @property
    @abstractmethod
    def ready(self) -> bool: ...

    @property
    @abstractmethod
    def outstanding(self) -> int: ...

    @abstractmethod
    def p90_s(self, now_s: float) -> float: ...

    @abstractmethod
    def p99_s(self, now_s: float) -> float: ...

    @abstractmethod
    def learned_s(self, fraction: float) -> float: ...

    @abstractmethod
    def was_there(self, frame: "Frame", drop: Settle, deadline_s: float) -> bool:
        """Tell whether it could have answered the frame that was dropped."""


class LocalBranch(Branch):
    """A branch that the endpoint computes itself.

    Args:
        deadline_s: Of its stream.
        chance: Gives random numbers between 0 and 1.
    """

    def __init__(
        self, row: Row, deadline_s: float, chance: Callable[[], float]
    ) -> None:
        super().__init__(row, local=True)
        self._chance = chance
        best_s = row.compute_s
        if best_s is None:
            best_s = chance() * min(LOCAL_S_MAX, LOCAL_SHARE * deadline_s)
        self.best_s = best_s

    @property
    def ready(self) -> bool:
        return True

    @property
    def outstanding(self) -> int:
        return 0

    def takes_s(self) -> float:
        """Return how long a firing takes."""
        return self.best_s * (1.0 + SPREAD * self._chance())

    def p90_s(self, now_s: float) -> float:
        return self.best_s

    def p99_s(self, now_s: float) -> float:
        return 2 * self.best_s

    def learned_s(self, fraction: float) -> float:
        return self.best_s

    def was_there(self, frame: "Frame", drop: Settle, deadline_s: float) -> bool:
        """Tell whether it could have answered the frame that was dropped."""
        needed_s = self.p99_s(0.0) + LOCAL_MARGIN_S + TURN_S if self.best_s else 0.0
        return frame.forked_s + needed_s < deadline_s


class RemoteBranch(Branch):
    """A branch that a server computes, as in `dataflow.branches`."""

    def __init__(
        self,
        stream: "Stream",
        index: int,
        row: Row,
        wire: Wire,
        onward: Sequence["Server"],
    ) -> None:
        super().__init__(row, local=False)
        self.stream = stream
        self.index = index
        self.wire = wire
        self.link = wire.link
        self.number = number_of(stream.source.name, row.name)
        """On the wire."""
        self.segment = row.segment
        names = [server.name for server in onward]
        self.ways = prefixes_of(names)
        self.hopped_s = -NEVER_S
        """When a token last did not come through, in virtual time."""
        self.service = ServiceTime()
        self.asked_s: dict[int, float] = {}
        """When each frame was asked that the peer has not answered in the session."""
        self.granted = self.sent = 0
        """In the session: what the peer allowed, and what was sent."""
        self.ready_since_s = NEVER_S

    @property
    def ready(self) -> bool:
        link = self.link
        return link.takes(self.number) and not (
            self.ways and link.first_lost(self.ways)
        )

    def p90_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.90, now_s)

    def p99_s(self, now_s: float) -> float:
        return self.service.percentile_s(0.99, now_s)

    @property
    def outstanding(self) -> int:
        return self.link.outstanding

    def learned_s(self, fraction: float) -> float:
        return self.service.learned_s(fraction)

    def was_there(self, frame: "Frame", drop: Settle, deadline_s: float) -> bool:
        """Tell whether it could have answered the frame that was dropped."""
        asked = frame.refused.bit_count() < len(frame.started)
        needed_s = 2 * self.p90_s(drop.decided_s) + SPARE_S
        return (
            self.ready
            and self.ready_since_s <= frame.fired_s
            and max(frame.forked_s, frame.refused_s) + needed_s < deadline_s
            and self.index not in frame.started
            # While another branch was still asked, this one had not to be.
            and (not asked or drop.reason == "no-branch")
        )

    @property
    def offer(self) -> StreamOffer:
        source = self.stream.source
        return StreamOffer(self.number, source.name, self.segment, source.window)

    def look(self, now_s: float) -> None:
        """See whether it is ready, now that more or fewer servers can be reached."""
        if not self.ready:
            self.ready_since_s = NEVER_S
        elif self.ready_since_s == NEVER_S:
            self.ready_since_s = now_s

    def hop_lost(self, now_s: float) -> None:
        """One of the servers behind the first did not take a token."""
        if self.ways:
            self.link.way_lost(self.ways[-1])
            self.hopped_s = self.stream.sim.now_s
            self.wire.server.stir()  # the next beat says what it was
            for branch in self.wire.branches.values():
                branch.look(now_s)

    def reachable(self, now_s: float) -> None:
        """Its link is ready (again): what it measured before says nothing of now."""
        self.service.forget()
        self.asked_s.clear()
        self.ready_since_s = now_s if self.ready else NEVER_S
        stream = self.stream
        stream.do(stream.ledger.tick(now_s), now_s)

    def lost(self, now_s: float, *, final: bool) -> None:
        """Its link became suspect or died: decide; the stream acts on it later."""
        self.ready_since_s = NEVER_S
        stream, index = self.stream, self.index
        for frame in stream.frames.values():
            if index in frame.started:
                frame.refuse(frame.started.index(index), now_s)
        stream.watched = stream.ledger.fired
        stream.decide(stream.ledger.lost((index,), now_s, final=final))


def asked_at_once(
    branches: Sequence[Branch],
    redundancy: Redundancy,
    left_s: float,
    now_s: float,
) -> int:
    """Return how many branches a mode of redundancy asks for a frame at once.

    Args:
        branches: In the policy's order.
        redundancy: The mode.
        left_s: Time left until the frame's deadline.
        now_s: The device's clock.
    """
    grade = None
    able = 0
    for branch in branches:
        if grade not in (None, branch.grade):
            continue
        if branch.ready and branch.p90_s(now_s) <= left_s:
            grade, able = branch.grade, able + 1
            if able == redundancy.copies:
                break
    return able


class Frame:
    """What the checks remember of an iteration that is not settled."""

    __slots__ = ("admitted", "fired_s", "forked_s", "refused", "refused_s", "started")

    def __init__(self, fired_s: float, admitted: bool) -> None:
        self.fired_s = fired_s
        self.admitted = admitted
        self.forked_s = NEVER_S
        self.started: list[int] = []
        """Branches, in order of the attempts."""
        self.refused = 0
        """Bit i is set when attempt i was refused, or its peer was lost."""
        self.refused_s = 0.0

    def refuse(self, attempt: int, now_s: float) -> None:
        if not self.refused >> attempt & 1:
            self.refused |= 1 << attempt
            self.refused_s = now_s
