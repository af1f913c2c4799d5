"""The dialling half of a device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataflow.wire.control import Welcome
from dataflow.wire.header import Header
from understudy.simulation.dialler import Dialler
from understudy.simulation.network import Value, Wire
from understudy.simulation.scenario import Source
from understudy.simulation.server import Server
from understudy.simulation.stream import Stream

if TYPE_CHECKING:
    from understudy.simulation.simulation import Simulation

GREETING_S = 0.5
"""Sources begin when every link is ready, or after this long."""


class Endpoint(Dialler):
    """The dialling half of a device, as `dataflow.device` is, in one life.

    Args:
        servers: All of the run; it dials those that its rows name.
        past: Its life before this one.
    """

    def __init__(
        self,
        sim: "Simulation",
        name: str,
        servers: Sequence[Server],
        sources: Sequence[Source],
        past: "Endpoint | None" = None,
    ) -> None:
        super().__init__(sim, name, past)
        self.servers = servers
        self.alive = True
        self.shortest_s = min(source.deadline_s for source in sources)
        self.alert = False
        """A turn may find something to do though no timer says so."""
        self._begun = False
        wires: dict[int, Wire] = {}
        for source in sources:
            for row in source.rows:
                if row.server is not None and row.server not in wires:
                    wires[row.server] = Wire(self, servers[row.server])
        self.wires = [wires[index] for index in sorted(wires)]
        self.streams = [Stream(self, source, wires) for source in sources]
        for wire in self.wires:
            branches = wire.branches.values()
            wire.offer((b.offer for b in branches), (b.ways for b in branches))
        sim.after(GREETING_S, self._begin)
        if not self.wires:
            self._begin()

    def crash(self, _: Any = None) -> None:
        """SIGKILL of the source's process: its streams end here."""
        self.alive = False
        self.forget()
        for stream in self.streams:
            stream.over = True
        self.hang_up()

    def turn(self) -> None:
        if not self.alert or self.paused:
            return
        self.alert = False
        alert = self.look_at_suspects()
        for stream in self.streams:
            alert |= stream.turn()
        self.alert |= alert

    def thawed(self) -> None:
        if not self.alive:
            return
        self.alert = True
        now_s = self.clock_s()
        for stream in self.streams:
            stream.rearm(now_s)
        for wire in self.wires:
            wire.tick(now_s)
            wire.rearm()
        self.turn()

    def _begin(self, _: Any = None) -> None:
        if self._begun or not self.alive:
            return
        self._begun = True
        for stream in self.streams:
            stream.start()

    def wants(self, wire: Wire) -> bool:
        return any(b.stream.wants(b) for b in wire.branches.values())

    def granted(self, wire: Wire, welcome: Welcome) -> None:
        for number, limit in welcome.grants.items():
            branch = wire.branches[number]
            branch.granted = max(branch.granted, limit)

    def answered(self, wire: Wire, header: Header, value: Value | None) -> None:
        branch = wire.branches.get(header.stream)
        if branch is not None:
            branch.stream.answer(branch, header, value)

    def ways_changed(self, wire: Wire) -> None:
        now_s = self.clock_s()
        for branch in wire.branches.values():
            branch.look(now_s)
            branch.stream.do(branch.stream.ledger.tick(now_s), now_s)

    def up(self, wire: Wire) -> None:
        now_s = self.clock_s()
        for branch in wire.branches.values():
            branch.reachable(now_s)
        if not self._begun and all(w.link.ready for w in self.wires):
            self._begin()

    def lost(self, wire: Wire, *, final: bool) -> None:
        now_s = self.clock_s()
        # All decide before any acts: acting may find another link lost.
        for branch in wire.branches.values():
            branch.lost(now_s, final=final)
        for branch in wire.branches.values():
            branch.stream.do((), now_s)
