"""Measure the link between two machines: one listens, the other asks."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataflow.clock import now_s
from dataflow.errors import MisuseError, UnderstudyError
from dataflow.wire.gauge import answer, gauge, loopback_pings_s
from dataflow.wire.keys import Keys, load_keys
from dataflow.wire.transport import is_loopback
from understudy.machine import machine_facts
from understudy.profile_file import LinkPoint, LinkProfile

LIMIT_S = 60.0
_ADDRESS = re.compile(
    r"(?:tcp://)?(?P<host>\[[^\]\s]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose keys are used.

    Attributes:
        folder: Of certificates; None: the link is plain.
        name: Ours in it.
    """

    folder: Path | None = None
    name: str = ""

    def keys(self) -> Keys | None:
        """Return the keys.

        Raises:
            MisuseError: There is a folder and no name.
            UnderstudyError: The secret key is not there.
        """
        if self.folder is None:
            return None
        if not self.name:
            raise MisuseError(f"{self.folder}: whose keys; add --as NAME")
        return load_keys(self.folder, self.name)


def address_of(text: str) -> str:
    """Return a ZeroMQ address for HOST:PORT.

    Raises:
        MisuseError: It is none.

    >>> address_of("192.168.1.5:7100"), address_of("tcp://[::1]:7100")
    ('tcp://192.168.1.5:7100', 'tcp://[::1]:7100')
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise MisuseError(
            f"address '{text}': not an address; write HOST:PORT, as 192.168.1.5:7100"
        )
    return f"tcp://{match['host']}:{match['port']}"


def listen(
    address: str,
    identity: Identity,
    *,
    insecure: bool,
    seconds: float,
    tell: Callable[[str], None],
) -> None:
    """Answer who measures the link to us, for so long.

    Raises:
        UnderstudyError: We would listen beyond loopback without keys, and nobody
            insists; or the address is in use.
    """
    where = address_of(address)
    keys = identity.keys()
    if keys is None and not is_loopback(where) and not insecure:
        raise UnderstudyError(
            f"{address}: beyond loopback, without keys; make keys with `understudy "
            "keys new` and give --keys and --as, or insist with --insecure"
        )
    end_s = now_s() + seconds
    answer(
        where,
        keys=keys,
        going=lambda: now_s() < end_s,
        listening=lambda bound: tell(f"answering on {bound} for {seconds:g} s"),
    )


def _check_known(where: str) -> None:
    """Refuse a host that nobody knows, which would be waited for.

    Raises:
        UnderstudyError: Its name leads nowhere.
    """
    host, _, _ = where.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UnderstudyError(
            f"{host}: no such host ({why}); check its name, or give its address"
        ) from None


def profile_link(
    address: str, identity: Identity, *, peer: str, name: str
) -> LinkProfile:
    """Return the profile of the link to `address`, where `listen` answers.

    Args:
        address: HOST:PORT.
        identity: Whose keys to use.
        peer: Name of the other side, whose public key it must have.
        name: What to call the link.

    Raises:
        UnderstudyError: Nobody answers, or not in time.
    """
    where = address_of(address)
    keys = identity.keys()
    if keys is not None and peer not in keys.peers:
        said = f"'{peer}'" if peer else "the other side, whose name --peer gives"
        raise UnderstudyError(
            f"{identity.folder}: no public key of {said}; copy it there"
        )
    _check_known(where)
    found = gauge(peer or address, where, keys=keys, limit_s=LIMIT_S)
    pings_ms = np.array(found.pings_s) * 1e3
    median_ms = float(np.median(pings_ms))
    # What both ends take is no part of the link; the profiles of devices have it.
    ends_ms = float(np.median(loopback_pings_s(LIMIT_S))) * 1e3
    return LinkProfile(
        link=name,
        there_mbit_s=round(found.bytes_per_s("there") * 8e-6, 3),
        back_mbit_s=round(found.bytes_per_s("back") * 8e-6, 3),
        rtt_ms=round(max(0.0, median_ms - ends_ms), 3),
        jitter_ms=round(float(np.percentile(pings_ms, 95)) - median_ms, 3),
        points=tuple(
            LinkPoint(each.way, each.bytes, round(each.seconds * 1e3, 3))
            for each in found.carried
        ),
        machine=machine_facts(),
    )
