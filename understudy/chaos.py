"""A chaos campaign: the devices of a deployment as processes here, broken on schedule.

Every link leads through a proxy that can break it; processes get signals, actors
orders. What happened is judged from the files that the run left, as always.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.chaos_faults import Stage, breakable_links, write_stranger
from understudy.chaos_report import Campaign, Damage, summarise
from understudy.chaos_schedule import Strike, schedule
from understudy.chaos_vitals import Watch, processes_of
from understudy.device_process import CHAOS
from understudy.launch import Launcher, wait_ready
from understudy.live import STOPPING, Live
from understudy.plans import compile_deployment, keep_plan, new_run_folder
from understudy.run_folder import PLAN_FOLDER
from understudy.runs import Judged, finish
from understudy.sabotage import Orders

CHAOS_FILE = "chaos.json"
LOOK_S = 1.0
SETTLED_S = 2.0
"""Age at which a process has made what it needs."""
RETURN_S = 20.0
"""How long links may take to come back after the last fault: a flapping one waits up to
5 s before it dials, and its server may be loading."""


@dataclass(frozen=True, slots=True)
class Script:
    """What a campaign is to do."""

    seconds: float
    seed: int
    kinds: Sequence[str]


def play(
    deployment: Path,
    script: Script,
    *,
    run_folder: Path | None,
    insecure: bool,
    say: Callable[[str], None],
) -> tuple[Judged, Damage]:
    """Run all devices of `deployment` on this host and break them as `script` says.

    Ctrl-C mends everything, ends the devices and judges what was done so far.

    Raises:
        UnderstudyError: A device did not start.
    """
    folder = new_run_folder(run_folder, f"chaos-{deployment.stem}")
    plan = compile_deployment(deployment, folder / PLAN_FOLDER)
    strikes = schedule(
        plan, seed=script.seed, seconds=script.seconds, kinds=script.kinds
    )
    keep_plan(plan, folder)
    for line in _opening(script, strikes):
        say(line)
    servers = [d.name for d in plan.devices.values() if d.role == "server"]
    with ExitStack() as stack:
        links, folders = stack.enter_context(breakable_links(plan, folder))
        orders = {name: Orders(folder, name, make=True) for name in servers}
        for each in orders.values():
            stack.callback(each.remove)
        launcher = stack.enter_context(
            Launcher(plan, folder, insecure=insecure, environment={CHAOS: str(folder)})
        )
        launcher.folders.update(folders)
        stage = Stage(launcher, links, orders, write_stranger(plan, folder))
        show = _Show(stage, Live(launcher, say), script, strikes)
        show.run()
    # What a full disk kept from being written was our doing, and is counted below.
    judged = replace(finish(folder, show.live), unwritten=())
    campaign = Campaign(
        seed=script.seed,
        seconds=script.seconds,
        kinds=tuple(script.kinds),
        interrupted=show.live.stopped,
        strikes=tuple(show.done),
        missing_links=tuple(show.missing),
        left_over=tuple(processes_of(folder)),
        lives=tuple(show.watch.lives()),
    )
    damage = summarise(campaign, judged)
    (folder / CHAOS_FILE).write_text(json.dumps(damage.to_json(), indent=1) + "\n")
    trouble = (*judged.trouble, *stage.trouble, *damage.problems)
    return replace(judged, trouble=trouble), damage


def _opening(script: Script, strikes: Sequence[Strike]) -> Iterator[str]:
    yield (
        f"seed {script.seed}, {script.seconds:g} s, {len(strikes)} faults of "
        f"{len({s.kind for s in strikes})} kinds; Ctrl-C ends it"
    )
    yield from (f"{strike.at_s:6.1f} s  {strike}" for strike in strikes)


class _Show:
    """A campaign under way."""

    def __init__(
        self, stage: Stage, live: Live, script: Script, strikes: Sequence[Strike]
    ) -> None:
        self.live = live
        self.watch = Watch(SETTLED_S)
        self.done: list[Strike] = []
        """Faults that were set."""
        self.missing: list[str] = []
        """Links that did not come back in the end."""
        self._stage = stage
        self._launcher = stage.launcher
        self._script = script
        self._strikes = strikes

    def run(self) -> None:
        """Start the devices, do it all, and see that the links come back."""
        try:
            self._start()
            self.live.begin()
            self._look()
            for at_s, act, strike in _moments(self._strikes):
                self._follow(at_s)
                act(self, strike)
            self._follow(self._script.seconds)
        except KeyboardInterrupt:
            self.live.stopped = True
            self.live.note(STOPPING)
        try:
            self._stage.mend_all()
            if not self.live.stopped:
                self._see_links_return()
        except KeyboardInterrupt:
            self.live.stopped = True
        self.live.end()

    def _start(self) -> None:
        plan = self._launcher.plan
        for role in ("server", "endpoint"):
            names = [d.name for d in plan.devices.values() if d.role == role]
            for name in names:
                self._launcher.start(name)
            wait_ready(self._launcher, names)

    def strike(self, strike: Strike) -> None:
        if strike.kind == "abort":
            self.live.expected.add((strike.target, -signal.SIGABRT))
        if self._stage.strike(strike):
            self.done.append(strike)
            self.live.note(f"FAULT {strike}")

    def again(self, strike: Strike) -> None:
        if strike in self.done:
            self._stage.again(strike)

    def mend(self, strike: Strike) -> None:
        if strike in self.done:
            self._stage.mend(strike)
            self.live.note(f"mended: {strike}")

    def _follow(self, until_s: float) -> None:
        while self.live.elapsed_s < until_s:
            self.live.follow(min(until_s, self.live.elapsed_s + LOOK_S))
            self._look()

    def _look(self) -> None:
        found = {name: self._launcher.pid(name) for name in self._launcher.plan.devices}
        pids = {name: pid for name, pid in found.items() if pid is not None}
        self.watch.look({**pids, "launcher": os.getpid()}, time.monotonic())

    def _see_links_return(self) -> None:
        end_s = self.live.elapsed_s + RETURN_S
        while self.live.elapsed_s < end_s:
            self._follow(self.live.elapsed_s + 0.5)
            self.missing = list(_links_down(self._launcher, self._stage))
            if not self.missing:
                break
        self._follow(self.live.elapsed_s + SETTLED_S + LOOK_S)


Act = Callable[[_Show, Strike], None]


def _moments(strikes: Sequence[Strike]) -> list[tuple[float, Act, Strike]]:
    """Return when something is to be done, in order of time."""
    moments: list[tuple[float, Act, Strike]] = []
    for strike in strikes:
        moments.append((strike.at_s, _Show.strike, strike))
        if strike.kind == "flap" and strike.amount:
            times = int(strike.hold_s / strike.amount)
            moments += [
                (strike.at_s + i * strike.amount, _Show.again, strike)
                for i in range(1, times)
            ]
        moments.append((strike.end_s, _Show.mend, strike))
    return sorted(moments, key=lambda moment: moment[0])


def _links_down(launcher: Launcher, stage: Stage) -> Iterator[str]:
    """Yield the links that are not ready, by what those who dial wrote last."""
    for dialler, peer in stage.links:
        pid = launcher.pid(dialler)
        if pid is None or launcher.pid(peer) is None:
            yield f"{dialler}-{peer}"
            continue
        last = ""
        for path in launcher.run_folder.glob(f"events-{dialler}-*.jsonl"):
            lines = path.read_text().splitlines()
            if json.loads(lines[0])["events"]["pid"] == pid:
                about = (line for line in lines if '"link.' in line and peer in line)
                events = (json.loads(line) for line in about)
                names = [e["event"] for e in events if e.get("peer") == peer]
                last = next((n for n in reversed(names) if n in _SAYS), "")
        if last not in ("link.up", "link.back"):
            yield f"{dialler}-{peer}"


_SAYS = ("link.up", "link.back", "link.suspect", "link.dead")
