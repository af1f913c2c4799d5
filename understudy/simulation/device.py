"""What endpoints and servers share: a clock of their own, and being stopped."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.simulation.simulation import Simulation

SPINS_MAX = 4
LATE_S = 0.0005
"""A timer's turn of the loop: poll rounds up to whole milliseconds."""
NEVER_S = float("inf")
DRIFT = 1e-3
"""Clocks run fast or slow by at most this: twenty times what crystals do."""
CLOCK_START_S = 1e5
"""Monotonic clocks begin anywhere up to here."""

Call = Callable[[Any], None]


class Device:
    """A process: its clock, and the pauses in which it does nothing.

    Args:
        past: The device's life before this one; its clock goes on.
    """

    def __init__(
        self, sim: "Simulation", name: str, past: "Device | None" = None
    ) -> None:
        self.sim = sim
        self.name = name
        self.incarnation = sim.random.getrandbits(64)
        self.pace: float = past.pace if past else 1.0 + sim.between(-DRIFT, DRIFT)
        self.start_s: float = past.start_s if past else sim.between(0.0, CLOCK_START_S)
        self.paused = 0
        """SIGSTOP, or an interpreter that hangs: nothing is processed."""
        self.thawed_s = -NEVER_S
        """When it last went on after a pause, on its own clock."""
        self.resumed_s = 0.0
        """The same, in virtual time."""
        self._inbox: deque[tuple[int, Call, Any]] = deque()

    def clock_s(self) -> float:
        return self.sim.now_s * self.pace + self.start_s

    def alarm(self, due_s: float, call: Call) -> float:
        """Call at `due_s` of its own clock, or a little later; return when."""
        sim = self.sim
        time_s = (due_s - self.start_s) / self.pace + LATE_S
        time_s = max(time_s, sim.now_s)
        sim.at(time_s, call, time_s)
        return time_s

    def keep(self, lane: object, call: Call, argument: Any) -> None:
        """Keep what came during a pause, for when it is over."""
        self._inbox.append((id(lane), call, argument))

    def forget(self) -> None:
        """The process dies, and with it what it had not read."""
        self._inbox.clear()

    def pause(self, _: Any = None) -> None:
        self.paused += 1

    def thaw(self, _: Any = None) -> None:
        self.paused -= 1
        if self.paused:
            return
        self.thawed_s, self.resumed_s = self.clock_s(), self.sim.now_s
        lanes: dict[int, deque[tuple[Call, Any]]] = {}
        order = []
        for lane, call, argument in self._inbox:
            lanes.setdefault(lane, deque()).append((call, argument))
            order.append(lane)
        self._inbox.clear()
        # Sockets are drained in no particular order, each from its oldest message.
        self.sim.random.shuffle(order)
        for lane in order:
            call, argument = lanes[lane].popleft()
            call(argument)
        self.thawed()

    def thawed(self) -> None:
        """Look at all timers: some passed unseen."""
        raise NotImplementedError


def nothing() -> str:
    return ""
