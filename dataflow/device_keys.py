"""The keys of a running device: read at the start, and again when they change."""

from collections.abc import Collection, Iterable

from dataflow.errors import UnderstudyError
from dataflow.events import EventLog
from dataflow.links import Links
from dataflow.plan import Device as DeviceSpec
from dataflow.plan import Plan
from dataflow.wire.keys import KeyFolder
from dataflow.wire.transport import Transport, is_loopback

LOOK_S = 0.5
"""How often the keys folder is looked at."""


class KeyWatch:
    """Takes changed keys into use. Those that cannot be read change nothing.

    Args:
        folder: The device's keys; None: its links are plain.
    """

    def __init__(
        self, folder: KeyFolder | None, *, transport: Transport, events: EventLog
    ) -> None:
        self._folder = folder
        self._transport = transport
        self._events = events
        self._look_s = 0.0

    def tick(self, links: Iterable[Links], now_s: float) -> None:
        """Look at the folder, if it is time; our own new key renews `links`."""
        if self._folder is None or now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        before = self._folder.keys
        try:
            if not self._folder.changed():
                return
        except UnderstudyError as error:
            self._events.write("keys.unreadable", error=str(error))
            return
        keys = self._folder.keys
        ours = keys.secret != before.secret
        self._events.write("keys.read", devices=sorted(keys.peers), ours=ours)
        self._transport.renew(keys)
        if ours:
            for each in links:
                each.renew()


def keys_of(plan: Plan, spec: DeviceSpec, *, insecure: bool) -> KeyFolder | None:
    """Return the device's keys; refuse to listen to the world without any.

    Raises:
        UnderstudyError: It listens beyond loopback, has no keys, and nobody insists.
    """
    if plan.keys is not None:
        return KeyFolder(plan.keys, spec.name)
    if spec.listen is not None and not is_loopback(spec.listen) and not insecure:
        raise UnderstudyError(
            f"device '{spec.name}': listens on {spec.listen}, beyond loopback, without "
            "keys; make keys with `understudy keys new`, or insist with --insecure"
        )
    return None


def check_public_keys(keys: KeyFolder | None, peers: Collection[str]) -> None:
    """Check that every peer that we dial has its public key here.

    Raises:
        UnderstudyError: One has not.
    """
    if keys is None:
        return
    for peer in peers:
        if peer not in keys.keys.peers:
            raise UnderstudyError(
                f"{keys.folder}: no public key of device '{peer}'; copy its "
                f"'{peer}.key' there"
            )
