"""A device's metrics over HTTP, as Prometheus reads them.

A thread serves them, and reads the numbers when it is asked: what counts pays nothing
for it. Off unless somebody asks, since whoever reaches the port can read them: there
are no keys here.
"""

import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from dataflow.errors import MisuseError
from dataflow.meters import BOUNDS_S, Histogram
from dataflow.metrics import METRICS, Samples

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

LOOPBACK = "127.0.0.1"
CLIENT_S = 5.0
"""How long a client may leave us waiting."""
_ADDRESS = re.compile(
    r"(?:tcp://)?(?:(?P<host>[^\s/:]+|\[[0-9a-fA-F:.]+\]):)?(?P<port>\d{1,5})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where metrics are served; port 0 is any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def of_instance(self, index: int) -> "Address":
        """Return the address of device `index` of a deployment: its port + index.

        Raises:
            MisuseError: There is no such port.
        """
        port = self.port + index if self.port else 0
        if port > 65535:
            raise MisuseError(
                f"metrics address '{self}': device {index} would be on port {port}, "
                "past 65535; give a lower one"
            )
        return Address(self.host, port)


def parse_address(text: str) -> Address:
    """Return the address that `text` names: [HOST:]PORT, loopback without a host.

    Raises:
        MisuseError: It names none.

    >>> parse_address("9100"), parse_address("tcp://*:9100")
    (Address(host='127.0.0.1', port=9100), Address(host='*', port=9100))
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise MisuseError(
            f"metrics address '{text}': not an address; write HOST:PORT, as "
            f"{LOOPBACK}:9100, or a port alone for this machine only"
        )
    return Address(match["host"] or LOOPBACK, int(match["port"]))


class MetricsServer:
    """Serves metrics until it is closed; a context manager.

    One thread answers one request at a time: whoever connects cannot make it more.

    Args:
        address: Where to listen.

    Raises:
        MisuseError: One cannot listen there.
    """

    def __init__(self, address: Address) -> None:
        from prometheus_client import CollectorRegistry, MetricsHandler
        from prometheus_client.process_collector import ProcessCollector

        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        made = MetricsHandler.factory(self._registry)
        handler = type("Handler", (made,), {"timeout": CLIENT_S})
        try:
            self._server = _Server(address, handler)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise MisuseError(
                f"metrics address '{address}': cannot listen there ({why}); end what "
                "uses it, or give another"
            ) from None
        self.url = f"http://{address.host}:{self._server.server_address[1]}/metrics"
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        self._thread.start()

    def collect(self, samples: Samples) -> None:
        """Serve `samples` from now on, beside what the process costs."""
        self._registry.register(_Collector(samples))

    def _serve(self) -> None:
        while not self._closing:
            self._server.handle_request()

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing = True
        # Wakes the thread, which waits without a period: an idle device stays idle.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(CLIENT_S)
        self._server.server_close()


class _Server(socketserver.TCPServer):
    """A listening socket of the address's family. No name is looked up for it."""

    allow_reuse_address = True

    def __init__(
        self, address: Address, handler: type[socketserver.BaseRequestHandler]
    ) -> None:
        host = "0.0.0.0" if address.host == "*" else address.host.strip("[]")
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        super().__init__((host, address.port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks and goes away is not our trouble."""


class _Collector:
    """What the client library asks at each scrape."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def describe(self) -> list["Family"]:
        return []  # it would ask for all of them otherwise, before they are there

    def collect(self) -> Iterator["Family"]:
        families: dict[str, Family] = {}
        for name, labels, value in self._samples():
            family = families.get(name) or families.setdefault(name, _family(name))
            if isinstance(value, Histogram):
                _add_histogram(family, labels, value)
            else:
                family.add_metric(labels, value)  # type: ignore[attr-defined]
        yield from families.values()


def _family(name: str) -> "Family":
    from prometheus_client import core

    metric = METRICS[name]
    kinds = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    made: Family = kinds[metric.kind](name, metric.meaning, labels=metric.labels)
    return made


def _add_histogram(
    family: "Family", labels: tuple[str, ...], histogram: Histogram
) -> None:
    # The sum first: a frame that comes in between is then in the buckets only.
    sum_s, counts = histogram.sum_s, list(histogram.counts)
    bounds = [f"{bound:g}" for bound in BOUNDS_S] + ["+Inf"]
    buckets = list(zip(bounds, accumulate(counts), strict=True))
    family.add_metric(labels, buckets=buckets, sum_value=sum_s)  # type: ignore[attr-defined]
