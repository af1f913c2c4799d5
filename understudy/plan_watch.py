"""What `up` does when another plan is put in the place of the one that it runs.

Servers that only the new plan has are started, and all others told; those that only the
older one had are ended when no endpoint needs them any more.
"""

from dataflow.errors import UnderstudyError
from dataflow.plan import PLAN_FILE, read_plan
from understudy.launch import Launcher, Tail

SETTLED = ("plan.settled", "plan.unchanged")
"""Events of an endpoint that plays what its plan folder holds, and nothing else."""


class PlanWatch:
    """Looks at the plan folder of a run, and makes its processes follow.

    Args:
        launcher: Of the run.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._file = launcher.plan.folder / PLAN_FILE
        self._seen_ns = self._file.stat().st_mtime_ns
        self._leaving: set[str] = set()
        """Servers that the plan does not have."""
        self._waiting: set[str] = set()
        """Endpoints that may still need those."""
        self._tail = Tail(launcher.run_folder)

    def look(self) -> None:
        """Follow another plan, if there is one; call it now and then."""
        try:
            seen_ns = self._file.stat().st_mtime_ns
            if seen_ns != self._seen_ns:
                self._seen_ns = seen_ns
                self._follow()
        except (OSError, UnderstudyError):
            return  # it is being replaced, or is none: `switch` says what is wrong
        if self._leaving:
            self._let_go()

    def _follow(self) -> None:
        launcher = self._launcher
        plan = read_plan(launcher.plan.folder)
        before = launcher.plan.devices
        list(self._tail.news())  # what was said before is of older plans
        launcher.follow(plan)
        self._leaving |= before.keys()
        self._leaving -= plan.devices.keys()
        endpoints = [d.name for d in plan.devices.values() if d.role == "endpoint"]
        self._waiting = set(filter(launcher.running, endpoints))

    def _let_go(self) -> None:
        """End the servers that nobody needs any more."""
        for file, record in self._tail.news():
            if record.get("event") in SETTLED:
                for name in list(self._waiting):
                    if file.startswith(f"events-{name}-"):
                        self._waiting.discard(name)
        self._waiting = set(filter(self._launcher.running, self._waiting))
        if not self._waiting:
            self._launcher.end(sorted(self._leaving))
            self._leaving.clear()
