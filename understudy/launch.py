"""Devices of a plan as processes of this host: start, kill, end, watch their logs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.plan import Plan
from dataflow.wire.header import VERSION
from understudy.machine import machine_facts

READY_S = 30.0
TERM_S = 3.0
KILL_S = 5.0


class Launcher:
    """The processes of one run. A context manager: on leaving, every one is gone.

    Each child's standard input is a pipe that we hold: if this process dies, however it
    dies, the children see the end of it and stop.

    Args:
        plan: A compiled plan; the children read it from its folder.
        run_folder: Where devices write; their messages go to ``log-NAME.txt`` there.
        seconds: How long the endpoints stream; None: until they are stopped.
        insecure: Passed on to every device.
    """

    def __init__(
        self,
        plan: Plan,
        run_folder: Path,
        *,
        seconds: float | None = None,
        insecure: bool = False,
    ) -> None:
        self.plan = plan
        self.run_folder = run_folder
        self._seconds = seconds
        self._insecure = insecure
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._events = EventLog(
            run_folder,
            "launcher",
            {
                "device": "launcher",
                "incarnation": f"{os.getpid():016x}",
                "deployment": plan.name,
                "plan": plan.digest,
                "pid": os.getpid(),
                "version": VERSION,
                "machine": machine_facts(),
            },
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._events.close()

    def start(self, name: str) -> None:
        """Start device `name` in a process group of its own."""
        command = [
            sys.executable,
            "-P",
            "-m",
            "understudy",
            "device",
            str(self.plan.folder),
            name,
            "--run",
            str(self.run_folder),
            "--with-stdin",
        ]
        if self._seconds is not None and self.plan.devices[name].role == "endpoint":
            command += ["--seconds", str(self._seconds)]
        if self._insecure:
            command.append("--insecure")
        with (self.run_folder / f"log-{name}.txt").open("ab") as log, _uninterrupted():
            self._processes[name] = process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": _import_path()},
                # Ctrl-C reaches us alone, and we end the endpoints before the servers.
                start_new_session=True,
            )
        self._events.write("start", target=name, pid=process.pid)

    @property
    def grace_s(self) -> float:
        """How long a device may take to end: endpoints wait for what is under way."""
        regions = self.plan.graph.regions
        return TERM_S + max((r.deadline_ms for r in regions), default=0.0) / 1e3

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Send a signal to device `name`; return the time taken just before."""
        process = self._processes[name]
        fault_s = time.monotonic()
        process.send_signal(number)
        self._events.write(
            "fault", t_s=fault_s, target=name, signal=number.name, pid=process.pid
        )
        if number is signal.SIGKILL:
            process.wait(KILL_S)
            self._forget(name)
        return fault_s

    def running(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def exits(self) -> Iterator[tuple[str, int]]:
        """Yield the devices that ended since the last call, with their statuses."""
        for name, process in list(self._processes.items()):
            status = process.poll()
            if status is not None:
                self._forget(name)
                yield name, status

    def _forget(self, name: str) -> None:
        process = self._processes.pop(name)
        if process.stdin is not None:
            process.stdin.close()
        self._events.write(
            "exit", target=name, pid=process.pid, status=process.returncode
        )

    def said(self, name: str) -> str:
        """Return the last line that device `name` said."""
        try:
            text = (self.run_folder / f"log-{name}.txt").read_text(errors="replace")
        except OSError:
            return ""
        lines = text.splitlines()
        return lines[-1].removeprefix("understudy: ") if lines else ""

    def stop(self) -> None:
        """End all: endpoints first, so that their last frames still find servers."""
        endpoints = [
            name
            for name in self._processes
            if self.plan.devices[name].role == "endpoint"
        ]
        try:
            self._end(endpoints)
            self._end(list(self._processes))
        finally:  # somebody who presses Ctrl-C again wants it over
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait(KILL_S)
            list(self.exits())

    def _end(self, names: list[str]) -> None:
        running = [self._processes[name] for name in names if self.running(name)]
        for process in running:
            process.send_signal(signal.SIGCONT)  # a stopped one hears nothing else
            process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + self.grace_s
        for process in running:
            try:
                process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                # Told, so that nobody takes a device that hung for one that was killed
                # as part of a test.
                self._events.write("overstayed", pid=process.pid)
                process.kill()
                process.wait(KILL_S)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back: a process half made would be nobody's to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for each in came:
            signal.raise_signal(each)


def _import_path() -> str:
    """Return what makes a child import exactly what this process does.

    `python -m` looks into the working directory first: with a checkout there, an
    installed launcher would start devices from the checkout, without their C kernels.
    """
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


class Tail:
    """What the devices of a run write, as it comes: whole lines of their logs."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (file name, record) of every line written since the last call."""
        for path in sorted(self._folder.glob("*.jsonl")):
            start = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._read[path] = start + end
            for line in data[:end].splitlines():
                yield path.name, json.loads(line)


def wait_ready(launcher: Launcher, names: list[str]) -> None:
    """Wait until each of `names` said that it is ready.

    Raises:
        UnderstudyError: One ended, or said nothing in time.
    """
    waiting = set(names)
    tail = Tail(launcher.run_folder)
    end_s = time.monotonic() + READY_S
    while waiting:
        ended = list(launcher.exits())  # before the news: those hold all they wrote
        for file, record in tail.news():
            if record.get("event") == "device.ready":
                waiting -= {n for n in waiting if file.startswith(f"events-{n}-")}
        for name, status in ended:
            if status or name in waiting:  # a short stream may be over already
                raise UnderstudyError(
                    launcher.said(name)
                    or f"device '{name}': ended with status {status} and said nothing"
                )
        if time.monotonic() > end_s:
            raise UnderstudyError(
                f"devices {', '.join(sorted(waiting))}: not ready after {READY_S:g} s; "
                f"see log-*.txt in {launcher.run_folder}"
            )
        time.sleep(0.01)


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive loopback ports that are free now.

    Raises:
        UnderstudyError: No such run of ports was found.
    """
    # From a random place, so that runs that start together do not meet.
    first = 17000 + int.from_bytes(os.urandom(2), "little") % 8192
    for base in range(first, 32000, count):
        sockets = []
        try:
            for port in range(base, base + count):
                listener = socket.socket()
                sockets.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for listener in sockets:
                listener.close()
    raise UnderstudyError(
        f"127.0.0.1: no {count} consecutive free ports; end what uses them"
    )
