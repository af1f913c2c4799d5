"""What the fuzzed halves of a device stand on: a clock, sockets, an executor."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import actors
from dataflow.behaviour import Behaviour, Params, Sink, Site
from dataflow.errors import ActorError
from dataflow.graph import Actor, Port
from dataflow.outcome import Outcome
from dataflow.plan import Plan
from dataflow.wire.control import Control
from dataflow.wire.timers import Heartbeat
from tests.support.toy_plan import toy_plan

SIZE = 64
"""Elements of a token, float32."""
TOKEN_BYTES = 4 * SIZE
SEGMENT = 77


class Broken(AssertionError):  # noqa: N818  (as StopIteration: what happened)
    """Something that no message may bring about."""


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Sockets:
    """Stands where the transport does, and keeps nothing of what is sent."""

    def __init__(self, owners: dict[str, str]) -> None:
        self._owners = owners
        self.sent = 0
        self.sends = True
        self.told: Callable[[str, str, Sequence[Any]], None] = lambda *_: None
        """Called with peer, lane and frames."""
        self.connections = _NoConnections()

    def reply(self, route: bytes, frames: Sequence[Any]) -> bool:
        self.sent += 1
        return self.sends

    def send(self, peer: str, lane: str, frames: Sequence[Any]) -> bool:
        self.sent += 1
        if self.sends:
            self.told(peer, lane, frames)
        return self.sends

    def dial(self, peer: str, address: str, heartbeat: Heartbeat) -> None:
        self.told(peer, "dial", ())

    def bound(self, peer: str, flight_bytes: int | None) -> None:
        pass

    def hang_up(self, peer: str) -> None:
        self.told(peer, "hang up", ())

    def owner(self, key: str) -> str | None:
        return self._owners.get(key)

    def shut_out(self, event: Any) -> None:
        pass


class _NoConnections:
    def __init__(self) -> None:
        self.closed: Counter[str] = Counter()


class Inline:
    """An executor whose deferred jobs wait until they are stepped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Any, ...]] = deque()
        self.most = 0

    @property
    def queue(self) -> int:
        return len(self._waiting)

    def firing(self, now_s: float) -> tuple[float, float]:
        return 0.0, 0.0

    def place(self, chain: Any, best_s: float, batching: Any = None) -> None:
        pass

    def submit(
        self, chain: Any, tokens: Sequence[Any], done: Any, *, expires_s: float = 0.0
    ) -> None:
        done(chain.run(tokens), 0.0, 0.0)

    def defer(
        self,
        chain: Any,
        tokens: Sequence[Any],
        done: Any,
        *,
        session: Any,
        expires_s: float,
        failed: Any,
    ) -> None:
        came_s = self._clock()
        self._waiting.append((chain, tokens, done, failed, came_s, expires_s))
        self.most = max(self.most, len(self._waiting))

    def step(self) -> None:
        if self._waiting:
            chain, tokens, done, failed, came_s, expires_s = self._waiting.popleft()
            expired = self._clock() >= expires_s
            try:
                results = None if expired else chain.run(tokens)
            except ActorError as error:
                failed(error)
            else:
                done(results, self._clock() - came_s, 0.0)


class Watched(Sink):
    """A sink that holds its stream to one outcome for each frame, in order."""

    @classmethod
    def ports(cls, params: Params) -> tuple[Port, ...]:
        return ()

    def start(self) -> None:
        self.next = 0

    def fire(self, outcome: Outcome) -> None:
        if outcome.first != self.next or outcome.last != self.next:
            raise Broken(f"outcome of frame {outcome.first}, not of {self.next}")
        if (outcome.value is None) != (outcome.status == "dropped"):
            raise Broken(f"{outcome.status} with the value {outcome.value}")
        self.next += 1


def make(actor: Actor, *, slots: int = 64) -> Behaviour:
    """Return the behaviour of an actor, started; the sink is one that is watched."""
    kind = Watched if actor.type == "results" else actors.behaviour(actor.type)
    behaviour = kind(actor.params, Site("fuzz", "fuzz", 1, Path(), None, slots))
    behaviour.start()
    return behaviour


def plan(**given: Any) -> Plan:
    """Return the toy plan of one endpoint; nothing of it is read from disk later."""
    with TemporaryDirectory() as folder:
        return toy_plan(Path(folder), port=7000, size=SIZE, window=8, **given)


def body_of(message: Control) -> dict[str, Any]:
    return {"kind": message.kind, **asdict(message)}
