"""Devices of a plan as processes of this host: start, kill, end, watch their logs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.plan import Device, Plan
from dataflow.wire.header import VERSION
from understudy.machine import machine_facts

if TYPE_CHECKING:
    from understudy.metrics import Address

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
        metrics: Where the plan's first device serves its metrics; each further one is
            on the next port. None: where the plan says.
        log_format: How the devices speak, see `understudy.log`.
        environment: Variables that the devices get beside ours.

    Attributes:
        folders: Plan folders of devices that read another one than the plan's own, from
            their next start on.
        wrappers: Commands that run the command of a device, from its next start on, as
            in a network of its own.
    """

    def __init__(
        self,
        plan: Plan,
        run_folder: Path,
        *,
        seconds: float | None = None,
        insecure: bool = False,
        metrics: "Address | None" = None,
        log_format: str = "text",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self._log_format = log_format
        self._metrics = {}
        if metrics is not None:
            for index, name in enumerate(plan.devices):
                self._metrics[name] = metrics.of_instance(index)
        self.folders: dict[str, Path] = {}
        self.wrappers: dict[str, list[str]] = {}
        self.run_folder = run_folder
        self._seconds = seconds
        self._insecure = insecure
        self._environment = dict(environment or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._endpoints = {d.name for d in plan.devices.values() if _fires(d)}
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
            *self.wrappers.get(name, ()),
            sys.executable,
            "-P",
            "-m",
            "understudy",
            "device",
            str(self.folders.get(name, self.plan.folder)),
            name,
            "--run",
            str(self.run_folder),
            "--with-stdin",
            "--log-format",
            self._log_format,
        ]
        if self._seconds is not None and name in self._endpoints:
            command += ["--seconds", str(self._seconds)]
        if self._insecure:
            command.append("--insecure")
        if name in self._metrics:
            command += ["--metrics", str(self._metrics[name])]
        with (self.run_folder / f"log-{name}.txt").open("ab") as log, _uninterrupted():
            self._processes[name] = process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    **self._environment,
                    "PYTHONPATH": _import_path(),
                },
                # Ctrl-C reaches us alone, and we end the endpoints before the servers.
                start_new_session=True,
            )
        self._events.write("start", target=name, pid=process.pid)

    @property
    def grace_s(self) -> float:
        """How long a device may take to end: endpoints wait for what is under way."""
        regions = self.plan.graph.regions
        return TERM_S + max((r.deadline_ms for r in regions), default=0.0) / 1e3

    def kill(
        self, name: str, number: signal.Signals = signal.SIGKILL, kind: str = ""
    ) -> float:
        """Send a signal to device `name`; return the time taken just before.

        Args:
            name: A device that runs.
            number: The signal.
            kind: Of the fault that it is a part of, for its note.
        """
        process = self._processes[name]
        fault_s = time.monotonic()
        process.send_signal(number)
        self.note_fault(name, signal=number.name, kind=kind, t_s=fault_s)
        if number is signal.SIGKILL:
            process.wait(KILL_S)
            self._forget(name)
        return fault_s

    def note_fault(
        self,
        name: str,
        *,
        signal: str = "",
        kind: str = "",
        observer: str = "",
        t_s: float,
    ) -> None:
        """Note that something was done to device `name`, or to a link that leads there.

        Args:
            name: The device.
            signal: That was sent to it, if one was.
            kind: What was done, if it has a name.
            observer: Of a link, the device that dials.
            t_s: When, taken just before.
        """
        process = self._processes.get(name)
        self._events.write(
            "fault",
            t_s=t_s,
            target=name,
            signal=signal,
            pid=0 if process is None else process.pid,
            kind=kind,
            observer=observer,
        )

    def note_mended(self, name: str, observer: str = "") -> None:
        """Note that a fault of a device, or of a link, was undone."""
        self._events.write("mended", target=name, observer=observer)

    def pid(self, name: str) -> int | None:
        """Return the process number of device `name`; None if it does not run."""
        process = self._processes.get(name)
        return None if process is None or process.poll() is not None else process.pid

    def running(self, name: str) -> bool:
        return self.pid(name) is not None

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
        last = text.splitlines()[-1] if text else ""
        if self._log_format == "json":
            with suppress(ValueError, KeyError):  # killed in the middle of it
                return str(json.loads(last)["message"])
        return last.removeprefix("understudy: ")

    def stop(self) -> None:
        """End all: endpoints first, so that their last frames still find servers."""
        try:
            self._end([name for name in self._processes if name in self._endpoints])
            self._end(list(self._processes))
        finally:  # somebody who presses Ctrl-C again wants it over
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait(KILL_S)
            list(self.exits())

    def follow(self, plan: Plan) -> None:
        """Go on under `plan`, which was put into the plan's folder.

        Servers that are new are started; the other devices are told, servers first,
        and those that are not in the plan any more run on.
        """
        self.plan = plan
        self._events.write("plan.told", plan=plan.digest)
        for name, device in plan.devices.items():
            if not _fires(device) and not self.running(name):
                self.start(name)
        told = [name for name in plan.devices if self.running(name)]
        for name in sorted(told, key=lambda name: name in self._endpoints):
            self._processes[name].send_signal(signal.SIGHUP)

    def end(self, names: list[str]) -> None:
        """End some devices in good order."""
        self._end([name for name in names if self.running(name)])

    def _end(self, names: list[str]) -> None:
        running = [self._processes[name] for name in names if self.running(name)]
        for process in running:
            process.send_signal(signal.SIGCONT)  # a stopped one hears nothing else
            process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + self.grace_s
        for process in running:
            self._await(process, end_s)

    def await_end(self, name: str) -> int:
        """Wait for a device that was told to end, kill it if it does not.

        Returns:
            Its exit status.
        """
        process = self._processes[name]
        self._await(process, time.monotonic() + self.grace_s)
        self._forget(name)
        return process.returncode

    def _await(self, process: subprocess.Popen[bytes], end_s: float) -> None:
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
    # A child ignores it like us until it listens to it: then it reads its plan anyway.
    previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
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


def _fires(device: Device) -> bool:
    return device.role == "endpoint"


class Tail:
    """What the devices of a run write, as it comes: whole lines of their logs."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (file name, record) of every line written since the last call."""
        for path in sorted(self.folder.glob("*.jsonl")):
            start = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._read[path] = start + end
            for line in data[:end].splitlines():
                yield path.name, json.loads(line)


def wait_ready(launcher: Launcher, names: list[str], limit_s: float = READY_S) -> None:
    """Wait until each of `names` said that it is ready, for `limit_s` at most.

    Raises:
        UnderstudyError: One ended, or said nothing in time.
    """
    waiting = set(names)
    tail = Tail(launcher.run_folder)
    end_s = time.monotonic() + limit_s
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
                f"devices {', '.join(sorted(waiting))}: not ready after {limit_s:g} s; "
                f"see log-*.txt in {launcher.run_folder}"
            )
        time.sleep(0.01)


def free_ports(count: int) -> int:
    """Return the first of `count` consecutive loopback ports that are free now.

    Nobody else who asks in this way gets them while this process lives, unless it asks
    for `CLAIMS_MAX` more: those who listen there may take a while to start.

    Raises:
        UnderstudyError: No such run of ports was found.
    """
    # From a random place, so that runs that start together seldom meet.
    first = 17000 + int.from_bytes(os.urandom(2), "little") % 8192
    for base in range(first, 32000, count):
        claims: list[int] = []
        with suppress(OSError):
            claims.extend(map(_claim, range(base, base + count)))
        _claims.extend(claims)
        while len(_claims) > CLAIMS_MAX:
            os.close(_claims.popleft())
        if len(claims) == count:
            return base
    raise UnderstudyError(
        f"127.0.0.1: no {count} consecutive free ports; end what uses them"
    )


CLAIMS_MAX = 256
_claims: deque[int] = deque()
"""Sockets that claim our latest ports, the oldest first."""


def _claim(port: int) -> int:
    """Return a socket whose being there says that a port is taken.

    One of UDP: it leaves the port of TCP to whoever shall listen there.

    Raises:
        OSError: The port is taken.
    """
    address = ("127.0.0.1", port)
    with socket.socket(type=socket.SOCK_DGRAM) as claim, socket.socket() as listener:
        claim.bind(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return claim.detach()
