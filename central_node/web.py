"""/livez, /readyz and /metrics of a central node."""

import sqlite3
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from central_node.node import CentralNode
from engine.errors import PackhorseError
from engine.limits import COUNT_CAP


def read_figures(connection: sqlite3.Connection, now: int) -> dict[str, float]:
    """The figures that are in the database."""

    def one(query: str, *values: int) -> float:
        return float(connection.execute(query, values).fetchone()[0] or 0)

    return {
        "packhorse_sites": one("SELECT count(*) FROM central_site WHERE installation <> ''"),
        "packhorse_sites_in_agreement": one("SELECT count(*) FROM central_site WHERE agreed = 1"),
        "packhorse_held_documents": one("SELECT count(*) FROM sync_held"),
        "packhorse_diverged_documents": one("SELECT count(*) FROM sync_held WHERE code = 'DIVERGED'"),
        "packhorse_outbox_changes": one(f"SELECT count(*) FROM (SELECT 1 FROM sync_outbox LIMIT {COUNT_CAP})"),
        "packhorse_longest_silence_seconds": one(
            "SELECT max(? - last_seen) FROM central_site WHERE installation <> ''", now
        ),
    }


class _Figures(Collector):
    def __init__(self, node: CentralNode, stored: dict[str, float]) -> None:
        self._node, self._stored = node, stored

    def collect(self) -> Iterator[Metric]:
        """The ten figures that matter."""
        for name, value in self._stored.items():
            yield GaugeMetricFamily(name, name.removeprefix("packhorse_").replace("_", " "), value=value)
        yield GaugeMetricFamily("packhorse_sites_connected", "sessions under way", value=len(self._node.sessions))
        for name in ("frames", "records", "errors"):
            text = f"{name} since the daemon started"
            yield CounterMetricFamily(f"packhorse_{name}", text, value=self._node.counters[name])


def make_application(node: CentralNode) -> Starlette:
    """The ASGI application."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        try:
            await node.database.write(lambda connection: connection.execute("SELECT 1").fetchone())
        except PackhorseError as error:
            return PlainTextResponse(f"not ready: {error.sentence}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def metrics(_: Request) -> Response:
        stored = await node.database.read(lambda connection: read_figures(connection, int(time.time())))
        registry = CollectorRegistry()
        registry.register(_Figures(node, stored))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])
