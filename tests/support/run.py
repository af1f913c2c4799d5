"""A run of real processes under test: start, break, wait for what they write."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow.plan import Plan
from understudy.launch import Launcher, Tail, wait_ready
from understudy.promise import Verdict, judge
from understudy.records import Result, Run
from understudy.run_folder import read_run

LIMIT_S = 20.0
Record = Mapping[str, Any]


class Played:
    """The processes of a plan, and everything they have written so far."""

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self.launcher = launcher
        self.folder = folder
        self.records: list[tuple[str, Record]] = []
        self._tail = Tail(folder)

    def wait(
        self, wanted: Callable[[str, Record], bool], limit_s: float = LIMIT_S
    ) -> Record:
        """Return the first record, from now on or before, that is wanted."""
        for name, record in self.records:
            if wanted(name, record):
                return record
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            news = list(self._tail.news())
            self.records += news
            for name, record in news:
                if wanted(name, record):
                    return record
            time.sleep(0.005)
        raise AssertionError(f"not within {limit_s} s; logs: {self.logs()}")

    def forget(self) -> None:
        """Let `wait` look only at what comes from now on."""
        self.records += self._tail.news()
        self.records.clear()

    def wait_event(self, device: str, event: str, **fields: Any) -> Record:
        return self.wait(
            lambda name, record: (
                name.startswith(f"events-{device}-")
                and record.get("event") == event
                and all(record.get(k) == v for k, v in fields.items())
            )
        )

    def wait_rows(self, stream: str, row: str, count: int = 1) -> None:
        """Wait for `count` more results of `stream` from `row`."""
        self.forget()
        left = count

        def counted(name: str, record: Record) -> bool:
            nonlocal left
            left -= name.startswith(f"results-{stream}-") and record.get("row") == row
            return left <= 0

        self.wait(counted)

    def wait_exit(self, name: str, limit_s: float = LIMIT_S) -> int:
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s:
            for ended, status in self.launcher.exits():
                if ended == name:
                    return status
            time.sleep(0.005)
        raise AssertionError(f"{name} did not end within {limit_s} s: {self.logs()}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        self.launcher.kill(name, number)

    def log(self, name: str) -> str:
        return (self.folder / f"log-{name}.txt").read_text()

    def logs(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.folder.glob("log-*.txt")))


@contextmanager
def played(
    plan: Plan,
    folder: Path,
    *,
    start: list[str] | None = None,
    ready: bool = True,
    **options: Any,
) -> Iterator[Played]:
    """Start `start` (default: all) of `plan`'s devices; end them all on leaving."""
    names = list(plan.devices) if start is None else start
    with Launcher(plan, folder, **options) as launcher:
        for name in names:
            launcher.start(name)
        if ready:
            wait_ready(launcher, names)
        yield Played(launcher, folder)


def outcome(folder: Path) -> tuple[Run, Verdict]:
    """Return what a finished run left, and the verdict on its promise."""
    run = read_run(folder)
    return run, judge(run)


def results(run: Run, stream: str) -> list[Result]:
    (record,) = (r for r in run.streams if r.stream == stream)
    return list(record.results)
