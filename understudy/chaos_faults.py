"""Doing damage to a run, and undoing it: what each kind of fault in `chaos` does.

Processes get signals, actors orders, links another condition, files a limit; no root.
The time of a fault is taken before it is done.
"""

import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from dataflow.failures import links_of
from dataflow.plan import SEGMENTS, Plan, write_plan
from dataflow.standing import Link
from understudy.chaos_schedule import Strike
from understudy.launch import Launcher, free_ports
from understudy.proxy import DOWN, HOST, SILENT, WHOLE, Condition, ProxiedLink, Proxy
from understudy.run_folder import PLAN_FOLDER
from understudy.sabotage import Order, Orders

STRANGER = "plan-stranger"


@dataclass
class Stage:
    """The processes and links of a run, to be broken and mended."""

    launcher: Launcher
    links: Mapping[Link, ProxiedLink]
    orders: Mapping[str, Orders]
    stranger: Path
    """Folder of a plan with other segments: what `replan` starts a server with."""
    trouble: list[str] = field(default_factory=list)
    """What devices did that they should not."""

    def strike(self, strike: Strike) -> bool:
        """Do what `strike` says; return False where there is nobody to do it to."""
        name = strike.target
        if not self.launcher.running(name):
            return False
        match strike.kind:
            case "kill" | "endpoint":
                self._kill(strike, signal.SIGKILL)
            case "stop" | "zombie" | "freeze":
                self._kill(strike, signal.SIGSTOP)
            case "drain":
                self._kill(strike, signal.SIGTERM)
            case "replan":
                self._kill(strike, signal.SIGKILL)
                self.launcher.folders[name] = self.stranger
                self._start(name)
            case "hang":
                self._order(strike, Order.HANG, strike.hold_s)
            case "abort":
                self._order(strike, Order.ABORT)
            case "slow":
                self._order(strike, Order.DAWDLE, strike.amount or 0.0)
            case "disk-full":
                self._note(strike)
                self._limit_files(name, self._results_bytes(name))
            case _:
                self._note(strike)
                self.again(strike)
        return True

    def mend(self, strike: Strike) -> None:
        """Undo `strike`. Whatever it did is over when this returns, or soon after."""
        name = strike.target
        match strike.kind:
            case "kill" | "abort" | "endpoint":
                self._start(name)
            case "stop" | "zombie" | "freeze":
                if self.launcher.running(name):
                    self.launcher.kill(name, signal.SIGCONT)
            case "drain":
                self._await_end(name)
                self._start(name)
            case "replan":
                if self.launcher.running(name):
                    self.launcher.kill(name, signal.SIGTERM)
                    self._await_end(name)
                self.launcher.folders.pop(name, None)
                self._start(name)
            case "slow":
                self.orders[name].give(Order.WORK)
            case "disk-full":
                self._limit_files(name, None)
            case "hang" | "cut" | "flap":
                pass  # over by itself
            case _:
                self.links[strike.dialler, name].become(WHOLE)
        if strike.kind in ("hang", "abort"):  # perhaps no firing came
            self.orders[name].give(Order.WORK)
        self.launcher.note_mended(name, strike.dialler)

    def mend_all(self) -> None:
        """Let everything that was stopped, silenced or limited go on."""
        for link in self.links.values():
            link.become(WHOLE)
        for orders in self.orders.values():
            orders.give(Order.WORK)
        for name in self.launcher.plan.devices:
            self._limit_files(name, None)
            if self.launcher.running(name):
                self.launcher.kill(name, signal.SIGCONT)

    def _kill(self, strike: Strike, number: signal.Signals) -> None:
        self.launcher.kill(strike.target, number, kind=strike.kind)

    def _note(self, strike: Strike) -> None:
        self.launcher.note_fault(
            strike.target,
            kind=strike.kind,
            observer=strike.dialler,
            t_s=time.monotonic(),
        )

    def _order(self, strike: Strike, order: Order, seconds: float = 0.0) -> None:
        self._note(strike)
        self.orders[strike.target].give(order, seconds)

    def again(self, strike: Strike) -> None:
        """Change the condition of a link, perhaps once more."""
        amount = strike.amount or 0.0
        condition, reset = {
            "cut": (WHOLE, True),
            "flap": (WHOLE, True),
            "down": (DOWN, True),
            "silence": (SILENT, False),
            "silence-forth": (Condition(forth=False), False),
            "silence-back": (Condition(back=False), False),
            "throttle": (Condition(bytes_per_s=amount), False),
            "delay": (Condition(delay_s=amount), False),
        }[strike.kind]
        self.links[strike.dialler, strike.target].become(condition, reset=reset)

    def _start(self, name: str) -> None:
        if not self.launcher.running(name):
            self.launcher.start(name)

    def _await_end(self, name: str) -> None:
        """Wait for a device that was told to end; one that does not is a finding."""
        if self.launcher.running(name):
            status = self.launcher.await_end(name)
            if status:
                self.trouble.append(
                    f"device '{name}' ended with status {status} when it was told to "
                    f"stop: {self.launcher.said(name)}"
                )

    def _results_bytes(self, name: str) -> int:
        """Return the size of the largest results file of a device; at least 1.

        Its events file is smaller, so it still tells what becomes of the links.
        """
        paths = self.launcher.run_folder.glob(f"results-{name}[-+]*.jsonl")
        return max((path.stat().st_size for path in paths), default=1) or 1

    def _limit_files(self, name: str, most_bytes: int | None) -> None:
        """Let no file of a device grow beyond `most_bytes`; None: as far as ours."""
        pid = self.launcher.pid(name)
        if pid is None:
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with suppress(ProcessLookupError):
            limits = (soft if most_bytes is None else most_bytes, hard)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def breakable_links(
    plan: Plan, folder: Path
) -> Iterator[tuple[dict[Link, ProxiedLink], dict[str, Path]]]:
    """Put a proxy into every link of `plan`.

    Args:
        plan: The plan; its servers listen where it says.
        folder: Gets a plan for each device that dials, in which the addresses of its
            peers lead through the proxy.

    Yields:
        The links, and the folders of those plans, by device.
    """
    links = [link for link in links_of(plan.graph) if _port(plan, link[1]) is not None]
    with Proxy() as proxy:
        proxied: dict[Link, ProxiedLink] = {}
        for port, link in enumerate(links, free_ports(max(len(links), 1))):
            target = _port(plan, link[1])
            assert target is not None
            proxied[link] = proxy.link(port=port, target=target)
        folders = {
            dialler: _diverted(plan, folder, dialler, proxied)
            for dialler in dict.fromkeys(dialler for dialler, _ in links)
        }
        yield proxied, folders


def _port(plan: Plan, name: str) -> int | None:
    listen = plan.devices[name].listen
    return None if listen is None else urlsplit(listen).port


def _diverted(
    plan: Plan, folder: Path, dialler: str, proxied: Mapping[Link, ProxiedLink]
) -> Path:
    devices = dict(plan.devices)
    for (one, other), link in proxied.items():
        if one == dialler:
            address = f"tcp://{HOST}:{link.port}"
            devices[other] = replace(devices[other], connect=address)
    own = replace(plan, devices=devices, folder=folder / f"{PLAN_FOLDER}-{dialler}")
    return _write(own, plan)


def write_stranger(plan: Plan, folder: Path) -> Path:
    """Write a plan like `plan` whose segments have other identities; return where."""
    regions = []
    for region in plan.graph.regions:
        branches = (replace(b, segment=b.segment ^ 1) for b in region.branches)
        regions.append(replace(region, branches=tuple(branches)))
    graph = replace(plan.graph, regions=tuple(regions))
    return _write(replace(plan, graph=graph, folder=folder / STRANGER), plan)


def _write(changed: Plan, plan: Plan) -> Path:
    write_plan(changed)
    segments = changed.folder / SEGMENTS
    if (plan.folder / SEGMENTS).exists() and not segments.exists():
        os.symlink(plan.folder / SEGMENTS, segments)
    return changed.folder
