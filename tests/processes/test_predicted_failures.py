"""The failure table against reality: every line is caused, and observed to be true.

One run for each plan: real processes, each link through a relay of its own. For each
line of the table the failure is caused (SIGKILL to a device, a cut of a relay), the
endpoints notice, the frames that they fire from then on are compared with the line, and
what failed is brought back before the next.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dataflow.failures import Answer, Consequence, Link, failure_table, links_of
from dataflow.plan import Plan, write_plan
from tests.support.relay import HOST, Relay
from tests.support.run import Played, Record, outcome, played
from tests.support.toy_plan import toy_plan
from understudy.launch import free_ports

FRAMES = 10
"""Results that are compared for each stream and line."""


class Broken:
    """A run whose devices and links can be broken and mended."""

    def __init__(self, run: Played, plan: Plan, relays: dict[Link, Relay]) -> None:
        self.run = run
        self.plan = plan
        self.relays = relays
        self.cams = [n for n, d in plan.devices.items() if d.role == "endpoint"]

    def start(self, name: str) -> None:
        """Start a device; an endpoint dials the relays that are its own links."""
        if name in self.cams:
            self.run.launcher.plan = self._plan_of(name)
        self.run.launcher.start(name)
        self.run.launcher.plan = self.plan

    def cause(self, row: Consequence) -> dict[str, float]:
        """Cause a failure; return for each stream that goes on when it noticed."""
        self.run.forget()
        fault_s = 0.0
        for name in row.failure.devices:
            fault_s = self.run.launcher.kill(name)
        for link in row.failure.links:
            self.relays[link].cut()
        noticed_s = {}
        for cam in self.cams:
            if cam in row.failure.devices:
                continue
            noticed_s[cam] = fault_s
            for peer in self._lost(row, cam):
                event = self.run.wait_event(cam, "link.suspect", peer=peer)
                noticed_s[cam] = max(noticed_s[cam], event["t_s"])
        return noticed_s

    def observed(self, stream: str, since_s: float) -> set[tuple[str, str, str]]:
        """Return how frames of a stream are settled that were fired since then."""
        found: list[Record] = []

        def enough(name: str, record: Record) -> bool:
            ours = name.startswith(f"results-{stream}-")
            if ours and record.get("fired_s", 0.0) > since_s:
                found.append(record)
            return len(found) >= FRAMES

        self.run.wait(enough)
        return {(r["status"], r["row"], r["reason"]) for r in found}

    def mend(self, row: Consequence, baseline: Consequence) -> None:
        """Bring back what failed, and wait until all is as it was."""
        self.run.forget()
        for link in row.failure.links:
            self.relays[link].mend()
        for name in row.failure.devices:
            self.start(name)
        for cam in self.cams:
            event = "link.up" if cam in row.failure.devices else "link.back"
            for peer in self._lost(row, cam):
                self.run.wait_event(cam, event, peer=peer)
        for answer in baseline.answers:
            self.run.wait_rows(answer.stream, answer.row, 3)

    def _lost(self, row: Consequence, cam: str) -> list[str]:
        """Return the servers that `cam` loses."""
        servers = [n for n in self.plan.devices if n not in self.cams]
        if cam in row.failure.devices:
            return servers
        return [s for s in servers if row.failure.severs(cam, s)]

    def _plan_of(self, cam: str) -> Plan:
        devices = dict(self.plan.devices)
        for (endpoint, server), relay in self.relays.items():
            if endpoint == cam:
                address = f"tcp://{HOST}:{relay.port}"
                devices[server] = replace(devices[server], connect=address)
        folder = self.plan.folder.with_name(f"plan-{cam}")
        return replace(self.plan, devices=devices, folder=folder)


@contextmanager
def breakable(plan: Plan, folder: Path) -> Iterator[Broken]:
    """Start all of `plan`, each link through a relay."""
    links = links_of(plan.graph)
    first = free_ports(len(links))
    with ExitStack() as stack:
        relays = {}
        for port, link in enumerate(links, first):
            listen = plan.devices[link[1]].listen
            assert listen is not None
            target = int(listen.rpartition(":")[2])
            relays[link] = stack.enter_context(Relay(port=port, target=target))
        run = stack.enter_context(played(plan, folder, start=[]))
        broken = Broken(run, plan, relays)
        for cam in broken.cams:
            write_plan(broken._plan_of(cam))
        for name in plan.devices:
            broken.start(name)
        for endpoint, server in links:
            run.wait_event(endpoint, "link.up", peer=server)
        yield broken


def assert_as_predicted(
    folder: Path, endpoints: int, servers: int, *, local: bool, count: int = 1
) -> None:
    plan = toy_plan(
        folder / "plan", port=free_ports(servers), endpoints=endpoints,
        servers=servers, local=local, source={"rate_hz": 100},
    )  # fmt: skip
    table = failure_table(plan.graph, count)
    with breakable(plan, folder) as broken:
        for row in table.rows:
            noticed_s = broken.cause(row)
            seen = {
                answer.stream: broken.observed(answer.stream, noticed_s[answer.stream])
                for answer in row.answers
                if answer.status != "ended"
            }
            assert seen == predicted(row.answers), str(row.failure)
            assert set(seen) == {c for c in broken.cams if _runs(broken, c)}
            broken.mend(row, table.baseline)
    verdict = outcome(folder)[1]
    assert verdict.kept, verdict.violations


def predicted(answers: tuple[Answer, ...]) -> dict[str, set[tuple[str, str, str]]]:
    return {
        a.stream: {(a.status, a.row, a.reason)} for a in answers if a.status != "ended"
    }


def _runs(broken: Broken, name: str) -> bool:
    return broken.run.launcher.running(name)


@pytest.mark.parametrize(
    ("endpoints", "servers", "local"),
    [(1, 2, False), (2, 1, False), (2, 1, True), (2, 2, True)],
)
def test_every_line_of_the_table_is_what_happens(
    tmp_path: Path, endpoints: int, servers: int, local: bool
) -> None:
    assert_as_predicted(tmp_path, endpoints, servers, local=local)


@pytest.mark.slow
@pytest.mark.parametrize(("endpoints", "servers"), [(2, 4), (3, 3)])
@pytest.mark.parametrize("local", [False, True])
def test_every_line_of_a_larger_table_is_what_happens(
    tmp_path: Path, endpoints: int, servers: int, local: bool
) -> None:
    assert_as_predicted(tmp_path, endpoints, servers, local=local)


@pytest.mark.slow
@pytest.mark.parametrize("local", [False, True])
def test_every_pair_of_failures_does_what_the_table_says(
    tmp_path: Path, local: bool
) -> None:
    assert_as_predicted(tmp_path, 1, 2, local=local, count=2)
