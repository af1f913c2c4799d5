"""What endpoints and servers share: a clock, a loop, and being stopped."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulator import Simulation

SPINS_MAX = 4


class Device:
    """What endpoints and servers share: a clock, a loop, and being stopped."""

    def __init__(self, sim: "Simulation", name: str) -> None:
        self.sim = sim
        self.name = name
        self.incarnation = sim.random.getrandbits(64)
        self.offset_s = sim.random.uniform(0.0, 1e5)
        self.paused = 0
        """SIGSTOP, or an interpreter that hangs: nothing is processed."""
        self.thawed_s = float("-inf")
        self._inbox: deque[Callable[[], None]] = deque()
        self._at_thaw: list[Callable[[], None]] = []
        self._wake_s = float("inf")

    def local_s(self) -> float:
        return self.sim.now_s + self.offset_s

    def receive(self, event: Callable[[], None]) -> None:
        if self.paused:
            self._inbox.append(event)
            return
        event()
        self.loop()

    def pause(self) -> None:
        self.paused += 1

    def thaw(self) -> None:
        self.paused -= 1
        if self.paused:
            return
        self.thawed_s = self.sim.now_s
        again, self._at_thaw = self._at_thaw, []
        for call in again:
            call()
        inbox = list(self._inbox)
        self._inbox.clear()
        self.order_inbox(inbox)
        for event in inbox:
            event()
        self.loop()

    def order_inbox(self, inbox: list[Callable[[], None]]) -> None:
        """A hook: sockets are drained in no particular order."""

    def when_thawed(self, call: Callable[[], None]) -> None:
        self._at_thaw.append(call)
        if not self.paused:  # behind a hole in the network: tried again later
            self._at_thaw.clear()
            self.sim.after(0.05, call)

    def loop(self) -> None:
        """Take turns until there is nothing to do, then sleep until there is."""
        for _ in range(SPINS_MAX):
            self.turn()
            due_s = self.due_s()
            if due_s > self.local_s():
                break
        else:
            self.sim.fail("L3", f"{self.name} spins: always due, and nothing to do")
        wake_s = due_s - self.offset_s + 0.0005
        if wake_s < self._wake_s:
            self._wake_s = wake_s
            self.sim.at(wake_s, self._wake, wake_s)

    def _wake(self, wake_s: float) -> None:
        if wake_s == self._wake_s:
            self._wake_s = float("inf")
            self.receive(lambda: None)

    def turn(self) -> None:
        raise NotImplementedError

    def due_s(self) -> float:
        raise NotImplementedError


def nothing() -> str:
    return ""
