"""The failure table against reality: every line is caused, and observed to be true.

One run for each plan: real processes, each link through a proxy. For each
line of the table the failure is caused (SIGKILL to a device, a link that is down), the
endpoints notice, the frames that they fire from then on are compared with the line, and
what failed is brought back before the next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataflow.failures import Consequence, failure_table
from dataflow.plan import Plan
from dataflow.standing import Answer, Link
from tests.support.chain_plan import chain_plan
from tests.support.run import Played, Record, outcome, played
from tests.support.toy_plan import toy_plan
from understudy.chaos_faults import breakable_links
from understudy.launch import free_ports
from understudy.proxy import DOWN, WHOLE, ProxiedLink

FRAMES = 10
"""Results that are compared for each stream and line."""


class Broken:
    """A run whose devices and links can be broken and mended."""

    def __init__(self, run: Played, plan: Plan, links: dict[Link, ProxiedLink]) -> None:
        self.run = run
        self.plan = plan
        self.links = links
        self.cams = [n for n, d in plan.devices.items() if d.role == "endpoint"]
        self.dialled: dict[str, list[str]] = {}
        """By who dials: endpoints, and servers that pass tokens on."""
        for near, far in links:
            self.dialled.setdefault(near, []).append(far)

    def cause(self, row: Consequence) -> dict[str, float]:
        """Cause a failure; return for each stream that goes on when it noticed."""
        self.run.forget()
        fault_s = 0.0
        for name in row.failure.devices:
            fault_s = self.run.launcher.kill(name)
        for link in row.failure.links:
            self.links[link].become(DOWN, reset=True)
        noticed_s = fault_s
        for device in self.dialled:
            for peer in self._lost(row, device):
                if device not in row.failure.devices:
                    event = self.run.wait_event(device, "link.suspect", peer=peer)
                    noticed_s = max(noticed_s, event["t_s"])
        return {cam: noticed_s for cam in self.cams if cam not in row.failure.devices}

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
            self.links[link].become(WHOLE)
        for name in row.failure.devices:
            self.run.launcher.start(name)
        for device in self.dialled:
            event = "link.up" if device in row.failure.devices else "link.back"
            for peer in self._lost(row, device):
                self.run.wait_event(device, event, peer=peer)
        for answer in baseline.answers:
            self._wait_rows(answer.stream, {answer.row, *answer.others}, 3)

    def _wait_rows(self, stream: str, rows: set[str], count: int) -> None:
        found: list[Record] = []

        def enough(name: str, record: Record) -> bool:
            ours = name.startswith(f"results-{stream}-")
            if ours and record.get("row") in rows:
                found.append(record)
            return len(found) >= count

        self.run.forget()
        self.run.wait(enough)

    def _lost(self, row: Consequence, device: str) -> list[str]:
        """Return the servers that `device` loses."""
        peers = self.dialled[device]
        return [peer for peer in peers if row.failure.severs(device, peer)]


@contextmanager
def breakable(plan: Plan, folder: Path) -> Iterator[Broken]:
    """Start all of `plan`, each link through a proxy."""
    with (
        breakable_links(plan, folder) as (links, folders),
        played(plan, folder, start=[]) as run,
    ):
        run.launcher.folders.update(folders)
        for name in plan.devices:
            run.launcher.start(name)
        for near, far in links:
            run.wait_event(near, "link.up", peer=far)
        yield Broken(run, plan, links)


def assert_as_predicted(
    folder: Path,
    endpoints: int,
    servers: int,
    *,
    local: bool,
    count: int = 1,
    redundancy: str = "standby",
) -> None:
    plan = toy_plan(
        folder / "plan", port=free_ports(servers), endpoints=endpoints,
        servers=servers, local=local, source={"rate_hz": 100}, redundancy=redundancy,
    )  # fmt: skip
    _assert_as_predicted(plan, folder, count)


def _assert_as_predicted(plan: Plan, folder: Path, count: int) -> None:
    table = failure_table(plan.graph, count)
    with breakable(plan, folder) as broken:
        for row in table.rows:
            noticed_s = broken.cause(row)
            seen = {
                answer.stream: broken.observed(answer.stream, noticed_s[answer.stream])
                for answer in row.answers
                if answer.status != "ended"
            }
            for stream, expected in predicted(row.answers).items():
                assert seen[stream], str(row.failure)
                assert seen[stream] <= expected, str(row.failure)
            assert set(seen) == {c for c in broken.cams if _runs(broken, c)}
            broken.mend(row, table.baseline)
    verdict = outcome(folder)[1]
    assert verdict.kept, verdict.violations


def predicted(answers: tuple[Answer, ...]) -> dict[str, set[tuple[str, str, str]]]:
    return {
        a.stream: {(a.status, row, a.reason) for row in (a.row, *a.others)}
        for a in answers
        if a.status != "ended"
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


@pytest.mark.parametrize("redundancy", ["spread", "replicate 2", "hedge p95"])
def test_every_line_is_what_happens_in_every_mode_of_redundancy(
    tmp_path: Path, redundancy: str
) -> None:
    assert_as_predicted(tmp_path, 1, 2, local=True, redundancy=redundancy)


def test_every_line_is_what_happens_along_a_chain_of_servers(tmp_path: Path) -> None:
    _assert_as_predicted(chain_plan(tmp_path, tiers="ab"), tmp_path, count=1)


@pytest.mark.slow
def test_every_pair_of_failures_along_a_chain_does_what_the_table_says(
    tmp_path: Path,
) -> None:
    _assert_as_predicted(chain_plan(tmp_path, tiers="ab"), tmp_path, count=2)


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
