"""The listening half of a device's sockets: one ROUTER for all who dial us.

With keys, an authenticator lets in whose public key is allowed. A monitor tells which
connections there are, see `connections`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import zmq

from dataflow.clock import now_s as clock_s
from dataflow.errors import UnderstudyError
from dataflow.wire.connections import Connections
from dataflow.wire.happenings import FromRoute, Happening
from dataflow.wire.keys import Keys
from dataflow.wire.sockets import (
    LINGER_MS,
    RECEIVED_MAX,
    SENT_MAX,
    descriptor,
    drain,
    fd_of,
    key_of,
    parked,
    told,
)

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

HANDSHAKE_MS = 2000
"""A connection that has not shaken hands by then is closed."""
BIND_AGAIN_S, BIND_AGAIN_EVERY_S = 2.0, 0.005
"""How long, and how often, a port is asked for again that is still closing."""
_ACCEPTS = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED


class Listener:
    """The ROUTER, bound on being made.

    Args:
        context: Of all sockets of the device.
        address: Where to listen.
        keys: The device's keys, or None for plain links.
        message_bytes_max: A longer frame than this closes its connection.
        connections: Learns who connects, and who is heard.
        may_connect: Tells whether a public key passes the handshake; called from the
            authenticator's thread.

    Raises:
        UnderstudyError: The address is in use, or is none.
    """

    def __init__(
        self,
        context: "zmq.Context[Any]",
        address: str,
        *,
        keys: Keys | None,
        message_bytes_max: int,
        connections: Connections,
        may_connect: Callable[[str], bool],
    ) -> None:
        self._keys = keys
        self._connections = connections
        self._bind_until_s: float | None = None
        """Not bound while keys change; how long to try."""
        self._authenticator = (
            None if keys is None else _authenticator(context, may_connect)
        )
        self.router = context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.MAXMSGSIZE, message_bytes_max)
        # Nothing waits here for long, so little may: what a peer can park in our memory
        # before anyone looks at its credit.
        self.router.setsockopt(zmq.RCVHWM, parked(RECEIVED_MAX, message_bytes_max))
        self.router.setsockopt(zmq.SNDHWM, parked(SENT_MAX, message_bytes_max))
        self.router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.router.setsockopt(zmq.IPV6, 1 if "[" in address else 0)
        self._monitor = self.router.get_monitor_socket(_ACCEPTS)
        self.fd, self.monitor_fd = descriptor(self.router), descriptor(self._monitor)
        try:
            self._bind(address)
        except UnderstudyError:
            self.close()
            raise
        bound = self.router.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self.address = bound.rstrip(b"\0").decode()
        """Where it listens, with the port that was bound."""
        self.note_connections()  # found empty: from now on the descriptor tells

    @property
    def binding(self) -> bool:
        """The port is asked for again: `bind_again` every `BIND_AGAIN_EVERY_S`."""
        return self._bind_until_s is not None

    def renew(self, keys: Keys | None) -> None:
        """Take another pair of keys of our own: all connections end."""
        self._keys = keys
        # libzmq reads a listener's keys when it is bound, and ends with it what it
        # accepted. To those who dial again it is a server that was restarted.
        # It ends in a thread of its own, and has the port until then.
        self.router.unbind(self.address)
        self._bind_until_s = clock_s() + BIND_AGAIN_S

    def bind_again(self, now_s: float) -> None:
        """Try to get the port again.

        Raises:
            UnderstudyError: It took too long.
        """
        assert self._bind_until_s is not None
        try:
            self._bind(self.address)
        except UnderstudyError:
            if now_s >= self._bind_until_s:
                raise
        else:
            self._bind_until_s = None

    def received(self) -> Iterator[FromRoute]:
        """Yield the messages of peers that dialled us, of those that are not shut out.

        Closing happens while they are read, so each is judged when its turn comes.
        """
        for frames, last in drain(self.router, 2):
            key = key_of(last) if self._keys is not None else ""
            fd = fd_of(last)
            if self._connections.heard(fd, key, clock_s()):
                yield FromRoute(frames[0], frames[1:], key, fd)

    def note_connections(self) -> Sequence[Happening]:
        """Read what the monitor tells; nothing that anybody else is told."""
        for event, fd in told(self._monitor):
            if event == zmq.Event.ACCEPTED:
                self._connections.accepted(fd)
            elif event == zmq.Event.DISCONNECTED:
                self._connections.ended(fd)
        return ()

    def close(self) -> None:
        """Close it; goodbyes have `LINGER_MS` to leave."""
        self.router.disable_monitor()
        self._monitor.close()
        self.router.close(linger=LINGER_MS)
        if self._authenticator is not None:
            self._authenticator.stop()

    def _bind(self, address: str) -> None:
        if self._keys is not None:
            self.router.curve_server = True
            self.router.curve_publickey = self._keys.public
            self.router.curve_secretkey = self._keys.secret
        try:
            self.router.bind(address)
        except zmq.ZMQError as error:
            why = zmq.strerror(error.errno or 0).lower()
            raise UnderstudyError(
                f"{address}: cannot listen there ({why}); end what uses it, or give "
                "another address as `listen` in the deployment"
            ) from None


class _AllowList:
    """What `ThreadAuthenticator` asks: may this public key connect?"""

    def __init__(self, may_connect: Callable[[str], bool]) -> None:
        self._may_connect = may_connect

    def callback(self, domain: str, key: bytes) -> bool:
        return self._may_connect(key.decode())


def _authenticator(
    context: "zmq.Context[Any]", may_connect: Callable[[str], bool]
) -> "ThreadAuthenticator":
    """Return one that runs and lets in whom `may_connect` does."""
    # Only with keys: it imports asyncio too.
    from zmq.auth.thread import ThreadAuthenticator

    made = ThreadAuthenticator(context)
    made.start()
    made.configure_curve_callback(
        domain="*", credentials_provider=_AllowList(may_connect)
    )
    return made
