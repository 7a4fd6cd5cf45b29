"""The flow's HTTP port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts what is ill."""

import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, make_wsgi_app
from prometheus_client.metrics import MetricWrapperBase

from flows import metrics
from flows.health import Healthy
from flows.settings import FlowSettings
from state.anchors import metrics as anchor_metrics
from state.settings import PREFIX, BadSettings

StartResponse = Callable[..., Any]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: every scrape would be a line."""


def own_metrics() -> CollectorRegistry:
    """Return a registry of the flow's metrics: another program's, imported beside it, are not shown."""
    registry = CollectorRegistry()
    for module in (metrics, anchor_metrics):
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase):
                registry.register(value)
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        registry.register(collector)
    return registry


def serve_health(settings: FlowSettings, health: Healthy) -> None:
    """Serve metrics and health on the port of the settings, if there is one. Raises BadSettings where it is taken."""
    if not settings.flow_metrics_port:
        return
    try:
        start_health_server(settings.flow_metrics_port, settings.http_host, health)
    except OSError as error:
        raise BadSettings(
            f"{PREFIX}FLOW_METRICS_PORT: port {settings.flow_metrics_port} of {settings.http_host} cannot be used "
            f"({error.strerror}); give each flow of a machine its own, or 0 for no metrics"
        ) from None


def start_health_server(port: int, host: str, health: Healthy) -> None:
    """Serve metrics and health from a thread until the process ends. Raises OSError for a port that is taken."""
    exposition: Callable[..., Iterable[bytes]] = make_wsgi_app(own_metrics())

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/healthz":
            return _answer(start_response, True, {"status": "alive"})
        if environ["PATH_INFO"] == "/readyz":
            return _answer(start_response, health.is_ready(), health.figures())
        return exposition(environ, start_response)

    kind = _ServerOnIPv6 if ":" in host else _Server
    server = make_server(host, port, app, server_class=kind, handler_class=_Silent)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


def _answer(start_response: StartResponse, well: bool, body: dict[str, Any]) -> Iterable[bytes]:
    start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "application/json")])
    return [orjson.dumps(body)]
