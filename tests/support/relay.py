"""A link on loopback that a test looks into: the product's proxy, with a tap."""

from typing import Self

from understudy.proxy import HOST, Proxy

__all__ = ["HOST", "Relay"]

KEPT_BYTES = 1 << 20


class Relay:
    """Passes every connection on, and keeps what crosses. A context manager."""

    def __init__(self, *, port: int, target: int) -> None:
        self.passed_bytes = 0
        self.passed = bytearray()
        """The first `KEPT_BYTES` of what crossed."""
        self._port, self._target = port, target
        self._proxy = Proxy()

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        self._proxy.link(port=self._port, target=self._target, tap=self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._proxy.__exit__(*exception)

    def _note(self, data: bytes) -> None:
        self.passed_bytes += len(data)
        self.passed += data[: KEPT_BYTES - len(self.passed)]
