"""From one plan to the next, while frames are under way.

Somebody puts another plan of the same streams in the place of ours and tells us. It is
loaded beside the one that is played: models, branches, links of its own. Once its
servers are ready its streams take over, each at an iteration boundary s. What was
fired before s is answered under the older plan, with the older links, since it can be
replayed under that only; the older plan is kept until the last of it is settled, and
outcomes wait for those before them. What is wrong with the new plan is told once, and
the older one plays on.

What this device computes for others is loaded likewise, beside what it computes
already. That is kept while some session wants it, and `KEPT_S` longer: an endpoint that
plays the older plan may be away for a while.
"""

import gc
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from dataflow.clock import now_s as clock_s
from dataflow.errors import UnderstudyError
from dataflow.host import Host
from dataflow.links import Links
from dataflow.loading import LOOK_S, Loading
from dataflow.plan import Plan
from dataflow.plans import check_follows
from dataflow.play import Play, Stage
from dataflow.stream import Stream

PATIENCE_S = 5.0
"""How long to wait for all servers of a new plan; then some must do, or it is refused.
"""
UNWANTED_LOOK_S = 1.0
"""How often to look for what nobody wants computed any more."""

Reread = Callable[[], Sequence[Plan]]
"""Gives the plans that the device is to play, as they are now."""
Steps = Generator[float, None, None]
"""What is done one thing after the other, in the I/O loop; yields seconds until it is
worth looking again. It is looked at in every turn of the loop besides."""


class _Superseded(Exception):  # noqa: N818  (not an error: somebody wants yet another)
    """We were told again before the streams took over."""


class Switching:
    """The plans of one device, one after the other.

    Args:
        play: What is played from the start.
        stage: Of the device.
        plans: All that it serves from the start.
        host: What computes for others; None: nothing does.
        reread: Reads the plans again; None: they never change.

    Attributes:
        current: What is played now.
        streams: Of all plays, those that are answered first first.
        links: Of all plays.
        plans: All that the device serves now.
    """

    def __init__(
        self,
        play: Play,
        stage: Stage,
        *,
        plans: Sequence[Plan],
        host: Host | None,
        reread: Reread | None,
    ) -> None:
        self.current = play
        self.plans = tuple(plans)
        self._stage = stage
        self._events = stage.events
        self._host = host
        self._reread = reread
        self._older: Play | None = None
        self._next: Play | None = None
        self._steps: Steps | None = None
        self._told = False
        """There may be other plans, and nobody has looked yet."""
        self._count = 0
        self._unload_s = math.inf
        self.streams: list[Stream] = []
        self.links: list[Links] = []
        self._note()

    def begin(self) -> None:
        """Make the streams of the first plan."""
        self.current.streams += self.current.make()
        self._note()

    @property
    def plays(self) -> Iterator[Play]:
        """Yield all that have links, the oldest first."""
        if self._older is not None:
            yield self._older
        yield self.current
        if self._next is not None:
            yield self._next

    @property
    def busy(self) -> bool:
        """There is something to do in every turn of the I/O loop."""
        return self._told or self._steps is not None or self._older is not None

    @property
    def over(self) -> bool:
        """All streams have ended; there were some."""
        for stream in self.streams:  # asked in every turn of the I/O loop
            if not (stream.ended or stream.drained):
                return False
        return bool(self.current.streams)

    def tell(self) -> None:
        """Somebody put other plans in the place of ours."""
        self._told = self._reread is not None

    def forgo(self) -> None:
        """The device stops: what has not taken over yet never will."""
        self._told, self._reread = False, None
        if self._steps is not None and self._next is not None:
            self._steps.close()
            self._steps = None
            self._drop_next()

    def tick(self, now_s: float) -> float:
        """Time passed, or something happened; return when there is more to do."""
        if self._older is not None and self._older.drained:
            self._retire()
        due_s = self._unload(now_s)
        if self._steps is None and self._told:
            self._told = False
            self._steps = self._switch()
        if self._steps is None:
            return due_s
        try:
            return min(due_s, now_s + next(self._steps))
        except StopIteration:
            self._steps = None
        except _Superseded:
            self._steps = None
            self._drop_next()
        return now_s

    def _switch(self) -> Steps:
        """Read the plans, prepare for them, and play them."""
        assert self._reread is not None
        began_s = clock_s()
        names = ""
        try:
            plans: Sequence[Plan] = yield from _beside(self._reread)
            names = ", ".join(plan.digest for plan in plans)
            if names == ", ".join(plan.digest for plan in self.plans):
                self._events.write("plan.unchanged", plan=names)
                return
            check_follows(self.plans, plans, self._stage.device)
            self._events.write("plan.loading", plan=names)
            self._stage.segments.add(plans)
            while any(map(self._stage.segments.lacking, plans)):
                yield self._patiently(LOOK_S)
            if self._host is not None:
                yield from self._serve(self._host, plans)
            if self.current.streams:
                yield from self._prepare(plans[0])
        except (_Superseded, GeneratorExit):
            raise
        except Exception as error:  # whatever is wrong with it, the older plays on
            self._drop_next()
            text = str(error) if isinstance(error, UnderstudyError) else repr(error)
            self._events.write("plan.refused", plan=names, error=text)
            return
        self.plans = tuple(plans)
        self._unload_s = clock_s() + UNWANTED_LOOK_S
        load_ms = (clock_s() - began_s) * 1e3
        self._events.write("plan.ready", plan=names, load_ms=load_ms)
        if self._next is not None:
            yield from self._take_over()

    def _serve(self, host: Host, plans: Sequence[Plan]) -> Steps:
        """Load what the plans want computed here, beside what is computed already."""
        new = host.expect(plans)
        try:
            yield from _beside(partial(host.repertoire.load, new))
        except BaseException:
            self._stage.cast.dismiss(host.unload(new))
            host.repertoire.take(self.plans, {})
            raise
        host.loaded(clock_s())

    def _prepare(self, plan: Plan) -> Steps:
        """Make the streams of `plan`, and wait for its servers."""
        self._count += 1
        self._next = play = Play(plan, self._stage, number=self._count)
        self._note()
        play.streams += yield from _beside(partial(play.make, self.current))
        self._note()
        until_s = clock_s() + PATIENCE_S
        while play.awaited and clock_s() < until_s:
            yield self._patiently(LOOK_S)
        if not play.playable:
            peers = ", ".join(play.awaited) or play.refused
            raise UnderstudyError(
                f"plan {plan.digest[:12]}: not played, since {peers} not ready after "
                f"{PATIENCE_S:g} s{play.refused and ': ' + play.refused}; give the "
                "plan to its servers first"
            )

    def _take_over(self) -> Steps:
        """Let each stream go on under the new plan from its next iteration on."""
        play, before = self._next, self.current
        assert play is not None
        self._older, self.current, self._next = before, play, None
        newer_of = {stream.name: stream for stream in play.streams}
        pairs = [(stream, newer_of[stream.name]) for stream in before.streams]
        while pairs:
            for pair in [p for p in pairs if p[0].ending or p[0].may_be_followed]:
                pairs.remove(pair)
                older, newer = pair
                if older.ending:
                    newer.skip()
                    continue
                first = newer.take_over()
                self._events.write(
                    "plan.switched",
                    stream=newer.name,
                    frame=first,
                    plan=play.plan.digest,
                    under_way=older.window[0],
                )
            if pairs:
                yield LOOK_S

    def _patiently(self, wait_s: float) -> float:
        """Return `wait_s`, unless somebody wants yet another plan."""
        if self._told:
            raise _Superseded
        return wait_s

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.close(self.current)
            self._next = None
            self._note()

    def _note(self) -> None:
        """Plays came or went: list what the I/O loop looks at in every turn."""
        self.links = [play.links for play in self.plays]
        self.streams = [stream for play in self.plays for stream in play.streams]

    def _retire(self) -> None:
        """The last frame of the older plan is settled: nothing of it is needed."""
        older = self._older
        assert older is not None
        if any(stream.follows for stream in self.current.streams):
            return
        older.close(self.current)
        self._older = None
        self._note()
        gc.collect()  # what it held is large, and full of cycles
        self._events.write("plan.settled", plan=older.plan.digest)

    def _unload(self, now_s: float) -> float:
        """Unload what no plan names and no session wants; return when to look again."""
        if self._host is None or now_s < self._unload_s:
            return self._unload_s
        self._unload_s = now_s + UNWANTED_LOOK_S
        if unwanted := self._host.unwanted(now_s):
            self._stage.cast.dismiss(self._host.unload(unwanted))
            gc.collect()
            self._events.write("plan.unloaded", segments=len(unwanted))
        return self._unload_s


def _beside(load: Callable[[], Any]) -> Generator[float, None, Any]:
    """Run `load` beside the I/O loop; return what it returns."""
    loading = Loading(load)
    while not loading.done():
        yield LOOK_S
    return loading.result
