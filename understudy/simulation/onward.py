"""What a server passes on to the server behind it, as `dataflow.onward` does."""

from typing import TYPE_CHECKING

from dataflow.wire.control import Welcome
from dataflow.wire.header import Header, Kind, Nack
from dataflow.wire.relay import Passed, prefixes_of
from understudy.simulation.bench import Job
from understudy.simulation.device import NEVER_S
from understudy.simulation.dialler import Dialler
from understudy.simulation.network import Value, Wire

if TYPE_CHECKING:
    from understudy.simulation.server import Server

_NACK = Kind.NACK


class Onward(Dialler):
    """The dialling half of a server, in one life."""

    def __init__(self, server: "Server") -> None:
        sim = server.sim
        super().__init__(sim, server.name, server)
        self.server = server
        self.paused = server.paused
        self.alive = True
        self.alert = False
        self.shortest_s = min(s.deadline_s for s in sim.setup.scenario.sources)
        self._relay = sim.setup.machines.relay(server.name, server.ways)
        self._away: dict[tuple[str, int, int], Job] = {}
        """What was passed on and is not answered, as the relay should know it."""
        self._granted: dict[tuple[str, int], int] = {}
        """What each server behind it takes in the session, by stream."""
        self.lost_s: dict[str, float] = {}
        """Since when each server behind this one cannot be used, in virtual time."""
        self.wires = [
            Wire(self, behind)
            for name, behind in server.behind.items()
            if name in self._relay.offers
        ]
        self._by_peer = {wire.server.name: wire for wire in self.wires}
        self._links = {name: wire.link for name, wire in self._by_peer.items()}
        for wire in self.wires:
            name = wire.server.name
            self.lost_s[name] = sim.now_s
            names = [[a.device for a in way.onward] for _, way in server.ways]
            ways = [prefixes_of(n[1:]) for n in names if n[0] == name and n[1:]]
            wire.offer(self._relay.offers[name], ways)

    def __len__(self) -> int:
        return len(self._relay)

    def crash(self) -> None:
        self.alive = False
        self.forget()
        self.hang_up()

    def is_quiet(self) -> bool:
        return all(wire.usable() and wire.server.quiet for wire in self.wires)

    def due_s(self) -> float:
        return self._relay.due_s() if self._away else NEVER_S

    def takes(self, segment: int) -> bool:
        return any(segment == each for each, _ in self.server.ways)

    def unreachable(self) -> tuple[str, ...]:
        return self._relay.unreachable(self._links)

    def pass_on(self, job: Job) -> None:
        """The part of the way that is the server's is done: on to the next."""
        now_s = self.clock_s()
        passed = Passed(job.session, job.header, job.expires_s, now_s, 0, 0)
        wire = self._by_peer[self._relay.next(job.header.segment)]
        onward = self._relay.pass_on(
            wire.link, passed, tensors=1, payload_bytes=0, now_s=now_s
        )
        if isinstance(onward, Nack):
            self.server.refuse(job, onward)
            return
        key = wire.server.name, onward.stream
        self._away[*key, onward.ordinal] = job
        text = f"ordinal {onward.ordinal} of {self._granted[key]} to {key[0]}"
        self.sim.check("S2", onward.ordinal < self._granted[key], text)
        # One that cannot be sent makes its link suspect, and comes back as lost.
        self.send_token(wire, onward, job.value)
        self.server.arm()

    def expire(self, now_s: float) -> None:
        """Time passed: refuse what nobody waits for any more."""
        expired = [
            (peer, passed.sent_s, self._back(passed))
            for peer, passed in self._relay.expired(now_s)
        ]
        for peer, sent_s, job in expired:
            link, waited_s = self._links[peer], now_s - sent_s
            if waited_s * 1e3 > link.slow_ms:
                text = f"a token unanswered for {waited_s * 1e3:.0f} ms"
                self.do(self._by_peer[peer], link.overdue(text, now_s))
            self.server.refuse(job, Nack.EXPIRED)

    def turn(self) -> None:
        if self.alert and not self.paused:
            self.alert = self.look_at_suspects()

    def thawed(self) -> None:
        if not self.alive:
            return
        now_s = self.clock_s()
        for wire in self.wires:
            wire.tick(now_s)
            wire.rearm()
        self.alert = True
        self.turn()

    def wants(self, wire: Wire) -> bool:
        return False  # what was lost is refused; its ledger has asked another

    def granted(self, wire: Wire, welcome: Welcome) -> None:
        for stream, limit in welcome.grants.items():
            self._granted[wire.server.name, stream] = limit

    def answered(self, wire: Wire, header: Header, value: Value | None) -> None:
        key = wire.server.name, header.stream
        self._granted[key] = max(self._granted[key], header.limit)
        passed = self._relay.returned(wire.link, header)
        if passed is None:
            return
        if header.kind is _NACK:
            self._refuse(passed, Nack(header.flags))
        else:
            assert value is not None, "an answer without a value"
            self.server.give_back(self._back(passed), passed, header, value)

    def ways_changed(self, wire: Wire) -> None:
        self.server.tell_ways()

    def up(self, wire: Wire) -> None:
        self.lost_s[wire.server.name] = NEVER_S
        self.server.tell_ways()

    def lost(self, wire: Wire, *, final: bool) -> None:
        if final:
            return
        name = wire.server.name
        self.lost_s[name] = self.sim.now_s
        self.server.tell_ways()
        for passed in self._relay.lost(name):
            self._refuse(passed, Nack.HOP)
        left = sum(key[0] == name for key in self._away)
        text = f"{self.name} keeps {left} tokens that {name} will not answer"
        self.sim.check("R1", not left, text)

    def _refuse(self, passed: Passed, why: Nack) -> None:
        self.server.refuse(self._back(passed), why)

    def _back(self, passed: Passed) -> Job:
        """Return what was passed on, now that its answer is known."""
        found = None
        for key, job in self._away.items():
            if job.header is passed.header and job.session is passed.session:
                found = key
                break
        if found is None:
            self.sim.fail("A1", f"{self.name} answers what it never passed on")
        return self._away.pop(found)
