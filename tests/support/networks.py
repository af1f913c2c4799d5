"""Devices in network namespaces of their own, over links of a true, limited rate.

Each server has a namespace and a pair of virtual interfaces to that of the endpoint,
with a token bucket at both ends. It needs root, `ip` and `tc` (package iproute2). What
is made has names of its own and is removed on leaving, also after a failure; nothing
leaves the namespaces.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

BURST_BYTES = 16384
LATENCY_MS = 200
"""What may wait at the shaper: a home router's buffer. More is dropped, and sent
again."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Networks:
    """The namespaces of one endpoint and its servers.

    Attributes:
        hosts: Address of each server, as the endpoint reaches it.
        wrappers: What runs a command in the namespace of each device.
    """

    def __init__(self, endpoint: str, servers: Sequence[str]) -> None:
        self.endpoint = endpoint
        self.hosts = {name: f"10.77.{i}.2" for i, name in enumerate(servers)}
        self._spaces = {
            name: f"us{os.getpid()}-{name}" for name in (endpoint, *servers)
        }
        self.wrappers = {
            name: ["ip", "netns", "exec", space] for name, space in self._spaces.items()
        }

    @property
    def names(self) -> set[str]:
        """Of the namespaces."""
        return set(self._spaces.values())

    def cut(self, server: str) -> None:
        """Take the link to `server` down: whatever is sent there vanishes."""
        _ip("-n", self._spaces[server], "link", "set", "wan", "down")

    def mend(self, server: str) -> None:
        _ip("-n", self._spaces[server], "link", "set", "wan", "up")

    def _make(self, stack: ExitStack, mbit_s: float) -> None:
        for space in self._spaces.values():
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
            _ip("-n", space, "link", "set", "lo", "up")
        home = self._spaces[self.endpoint]
        for index, server in enumerate(self.hosts):
            away, near = self._spaces[server], f"lan{index}"
            _ip(
                "link", "add", near, "netns", home, "type", "veth",
                "peer", "name", "wan", "netns", away,
            )  # fmt: skip
            for space, end, last in ((home, near, 1), (away, "wan", 2)):
                _ip("-n", space, "addr", "add", f"10.77.{index}.{last}/24", "dev", end)
                _ip("-n", space, "link", "set", end, "up")
                _shape(space, end, mbit_s)


def _shape(space: str, end: str, mbit_s: float) -> None:
    subprocess.run(
        [
            "tc", "-n", space, "qdisc", "add", "dev", end, "root", "tbf",
            "rate", f"{mbit_s:g}mbit", "burst", str(BURST_BYTES),
            "latency", f"{LATENCY_MS}ms",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


@contextmanager
def networks(
    endpoint: str, servers: Sequence[str], *, mbit_s: float
) -> Iterator[Networks]:
    """Make the namespaces and their links, and remove them on leaving."""
    made = Networks(endpoint, servers)
    with ExitStack() as stack:
        made._make(stack, mbit_s)
        yield made


def existing() -> set[str]:
    """Return the names of all network namespaces of this machine."""
    listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True)
    return {line.split()[0] for line in listed.stdout.splitlines()}
